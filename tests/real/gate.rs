//! The product's own binary as a process, with the rights of deploy/ and nothing more.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Port, Process, Program, Vault};

use crate::world::{NAMESPACE, SOON, Side};

pub struct Gate {
    pub process: Process,
    http: Port,
    https: Port,
    /// From the start of the process to its readiness.
    pub ready_after: Duration,
    _folder: TempDir,
}

/// What a gate is started with, beyond what its side needs.
#[derive(Default)]
pub struct Options<'a> {
    pub flags: &'a [&'a str],
    /// In place of `debug`.
    pub log: Option<&'a str>,
    /// In place of the side's own token for Vault.
    pub jwt: Option<String>,
    pub vaults: &'a [&'a Vault],
    /// In place of none.
    pub shutdown_delay: Option<&'a str>,
    /// In place of any that is free.
    pub https: Option<Port>,
}

impl Gate {
    /// Starts a gate for this side, and points the side's webhook at it.
    pub async fn start(side: &Side, vault: &Vault) -> Result<Self> {
        Self::start_with(side, vault, Options::default()).await
    }

    pub async fn start_with(side: &Side, vault: &Vault, options: Options<'_>) -> Result<Self> {
        let gate = Self::launch(side, vault, options).await?;
        side.point_webhooks_at(&[gate.port()]).await?;
        side.is_injected().await?;
        gate.ready().await?;
        Ok(gate)
    }

    /// Starts a process, and does not wait for anything.
    pub async fn launch(side: &Side, vault: &Vault, options: Options<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let http = Port::reserve()?;
        let https = options.https.map_or_else(Port::reserve, Ok)?;
        let cluster = &side.cluster;
        let token = cluster.service_account_token(NAMESPACE, side.service_account, &[cluster.issuer()], 3600).await?;
        let kubeconfig = cluster.kubeconfig_for(side.service_account, &token)?;
        let jwt = match options.jwt {
            Some(jwt) => jwt,
            None => cluster.service_account_token(NAMESPACE, side.service_account, &["vault"], 3600).await?,
        };
        let jwt_file = folder.path().join("token");
        std::fs::write(&jwt_file, jwt)?;
        let ca_file = folder.path().join("vault-ca.pem");
        let vaults = if options.vaults.is_empty() { &[vault][..] } else { options.vaults };
        let authorities: Vec<_> = vaults.iter().map(|vault| vault.ca_pem()).collect();
        std::fs::write(&ca_file, authorities.join("\n"))?;
        let addresses: Vec<_> = vaults.iter().map(|vault| vault.address()).collect();
        let began = Instant::now();
        let process = Program::new(binary())
            .args(["serve", "--role", side.role, "--cluster", side.name, "--dns-name", "127.0.0.1"])
            .args(["--listen", &format!("127.0.0.1:{}", https.number())])
            .args(["--admin-listen", &format!("127.0.0.1:{}", http.number())])
            .args(["--vault-auth-mount", side.auth_mount])
            .args(["--shutdown-delay", options.shutdown_delay.unwrap_or("0s")])
            .args(["--log-filter", options.log.unwrap_or(log_filter())])
            .args(options.flags)
            .env("GATE_VAULT_ADDRS", addresses.join(","))
            .env("VAULT_CACERT", ca_file)
            .env("GATE_VAULT_JWT_FILE", jwt_file)
            .env("KUBECONFIG", kubeconfig)
            .spawn(folder.path().join("log"))?;
        let mut gate = Self { process, http, https, ready_after: Duration::ZERO, _folder: folder };
        gate.ready_since(began).await?;
        Ok(gate)
    }

    async fn ready_since(&mut self, began: Instant) -> Result<()> {
        self.ready().await?;
        self.ready_after = began.elapsed();
        Ok(())
    }

    pub fn port(&self) -> u16 {
        self.https.number()
    }

    /// Waits until `/readyz` is 200.
    pub async fn ready(&self) -> Result<()> {
        let url = self.url("readyz");
        let what = "the gate to be ready";
        let probe = || async {
            let answer = reqwest::get(&url).await?;
            let ready = answer.status() == 200;
            let text = answer.text().await?;
            ensure!(ready, "{text}");
            Ok(())
        };
        self.process.until(what, SOON, probe).await
    }

    /// `GET /fingerprint`.
    pub async fn fingerprint(&self) -> Result<Value> {
        let text = reqwest::get(self.url("fingerprint")).await?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until `/fingerprint` tells this state and reason.
    pub async fn stands(&self, state: &str, reason: Option<&str>) -> Result<Value> {
        let what = format!("the gate to be {state} with {reason:?}");
        let probe = || async {
            let report = self.fingerprint().await?;
            ensure!(report["state"] == state && report["reason"] == json!(reason), "{report}");
            Ok(report)
        };
        self.process.until(&what, SOON, probe).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http.number())
    }
}

/// All that there is, where an observer looks for keys in it.
fn log_filter() -> &'static str {
    if testbed::evidence::folder().is_some() { "trace" } else { "debug" }
}

/// The binary under test: a release build for timings, else the one that cargo built for the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("GATE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_istio-ca-gate").into(), PathBuf::from)
}
