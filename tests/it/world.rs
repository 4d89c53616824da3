//! Two clusters and the Vault that they share, all embedded, and the built program as their gates: with the rights of
//! deploy/, between servers that do what the real ones do.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use standin::kubernetes::Kubernetes;
use standin::vault::Vault;
use testbed::side::{Login, SOON, Side};
use testbed::{Port, Process, Program, VaultApi, eventually};

use crate::product::binary;

pub struct World {
    /// The cluster that makes the root.
    pub homelab: Side,
    /// The cluster that copies it.
    pub nas: Side,
    pub vault: Vault,
    _clusters: [Kubernetes; 2],
}

impl World {
    /// Set up as the README says; their gates are not there yet.
    pub async fn embedded() -> Result<Self> {
        let (homelab, nas, vault) =
            tokio::try_join!(Kubernetes::start("homelab"), Kubernetes::start("nas"), Vault::start())?;
        let sides = (Side::homelab((*homelab).clone()), Side::nas((*nas).clone()));
        for (side, login) in [(&sides.0, Login::TokenReview), (&sides.1, Login::Signature)] {
            side.install().await?;
            side.introduce_to(&vault, login).await?;
        }
        Ok(Self { homelab: sides.0, nas: sides.1, vault, _clusters: [homelab, nas] })
    }
}

/// A running gate. On drop it is killed.
pub struct Gate {
    name: &'static str,
    http: Port,
    https: Port,
    client: reqwest::Client,
    process: Process,
}

impl Gate {
    /// Starts a gate for this side, waits until it is ready, and points the side's webhook at it. Its files go to a
    /// folder.
    pub async fn start(side: &Side, vault: &VaultApi, folder: &Path, flags: &[&str]) -> Result<Self> {
        let file = |name: &str| folder.join(format!("{}-{name}", side.name));
        let write = |name: &str, text: &str| std::fs::write(file(name), text).map(|()| file(name));
        let kubeconfig = side.api.kubeconfig(side.service_account, &side.gate_token(side.api.issuer()).await?);
        let (http, https) = (Port::reserve()?, Port::reserve()?);
        let process = Program::new(binary())
            .args(["serve", "--role", side.role, "--cluster", side.name, "--dns-name", "127.0.0.1"])
            .args(["--shutdown-delay", "0s", "--vault-addr", vault.address(), "--vault-auth-mount", side.auth_mount])
            .args(["--listen", &format!("127.0.0.1:{}", https.number())])
            .args(["--admin-listen", &format!("127.0.0.1:{}", http.number())])
            .args(flags)
            .env("GATE_LOG_FORMAT", "json")
            .env("KUBECONFIG", write("gate-kubeconfig", &kubeconfig)?)
            .env("GATE_VAULT_JWT_FILE", write("gate-vault-token", &side.gate_token("vault").await?)?)
            .env("VAULT_CACERT", write("vault-ca.pem", vault.ca_pem())?)
            .spawn(file("gate.log"))?;
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let gate = Self { name: side.name, http, https, client, process };
        gate.process.until("readiness", SOON, || gate.get("readyz")).await?;
        side.point_webhooks_at(&[gate.https.number()]).await?;
        side.is_injected().await?;
        Ok(gate)
    }

    /// Its HTTPS address.
    pub fn https(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.https.number()).into()
    }

    /// The address of one of its HTTP endpoints.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http.number())
    }

    /// All it has logged so far, a JSON object a line.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The text at a path of its HTTP endpoints, if it is a 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = self.client.get(self.url(path)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 200, "{status}: {text}");
        Ok(text)
    }

    /// Waits until `/fingerprint` tells this state and reason.
    pub async fn stands(&self, state: &str, reason: Option<&str>) -> Result<Value> {
        eventually(&format!("the gate of {} to be {state} with {reason:?}", self.name), SOON, || async {
            let report: Value = serde_json::from_str(&self.get("fingerprint").await?)?;
            ensure!(report["state"] == state && report["reason"] == json!(reason), "{report}");
            Ok(report)
        })
        .await
    }

    /// Ends it in order, by SIGTERM.
    pub async fn stop(self) -> Result<()> {
        let ended = self.process.terminate().await?;
        ensure!(ended.success(), "the gate of {}: {ended}: {}", self.name, self.log());
        Ok(())
    }
}
