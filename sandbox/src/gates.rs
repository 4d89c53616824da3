//! Gates in this process, each as `istio-ca-gate serve` would start it: the same arguments, a runtime and a log of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use istio_ca_gate::args::{Cli, Command, one_line};
use istio_ca_gate::run::{Failure, Prepared};
use istio_ca_gate::shutdown::Signals;
use istio_ca_gate::telemetry;
use serde_json::{Value, json};
use testbed::{Port, VaultApi, eventually};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Dispatch;

use testbed::side::{SOON, Side};

/// Two are enough for a gate, beside the one that makes a key.
const THREADS: usize = 2;

/// Longest wait for its orderly end.
const END: Duration = Duration::from_secs(30);

/// A running gate. On drop it ends as if it were killed.
#[derive(Debug)]
pub struct Gate {
    name: &'static str,
    https: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
    client: reqwest::Client,
    signals: mpsc::Sender<()>,
    ended: JoinHandle<Result<(), Failure>>,
    runtime: Option<Runtime>,
    page: Arc<Port>,
}

/// What a gate is started with beside its side.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The Vault of all gates.
    pub vault: &'a VaultApi,
    /// Where its files go.
    pub folder: &'a Path,
    /// Where its page is.
    pub page: Arc<Port>,
    /// The page of the other gate.
    pub peer: &'a str,
}

/// A minute is the default, and more than anybody wants to watch.
const REFRESH: &str = "1s";

/// The mount of the PKI engine.
pub(crate) const PKI: &str = "pki-mesh";

impl Gate {
    /// Starts a gate for this side, points the side's webhook at it, and waits until it is ready. The side's cluster has
    /// the Deployment that it would be of.
    pub async fn start(side: &Side, setting: Setting<'_>) -> Result<Self> {
        let settings = [
            ("GATE_ROLE", side.role),
            ("GATE_CLUSTER", side.name),
            ("GATE_VAULT_ADDRS", setting.vault.address()),
            ("GATE_VAULT_AUTH_MOUNT", side.auth_mount),
            ("GATE_PEERS", setting.peer),
        ];
        side.deploy_gate(&settings).await?;
        Self::run(side, setting, &[]).await
    }

    /// Ends it in order, and starts it anew where it was, with a PKI engine.
    pub async fn with_pki(self, side: &Side, vault: &VaultApi, folder: &Path, peer: &str) -> Result<Self> {
        let page = Arc::clone(&self.page);
        self.stop().await?;
        side.set_gate(&[("GATE_VAULT_PKI_MOUNT", PKI)]).await?;
        Self::run(side, Setting { vault, folder, page, peer }, &["--vault-pki-mount", PKI]).await
    }

    async fn run(side: &Side, setting: Setting<'_>, more: &[&str]) -> Result<Self> {
        let Setting { vault, folder, page, peer } = setting;
        let file = |name: &str| folder.join(format!("{}-{name}", side.name));
        let write = |name: &str, text: &str| fs::write(file(name), text).map(|()| file(name));
        let kubeconfig = side.api.kubeconfig(side.service_account, &side.gate_token(side.api.issuer()).await?);
        let kubeconfig = write("gate-kubeconfig", &kubeconfig)?;
        let token = write("gate-vault-token", &side.gate_token("vault").await?)?;
        let ca = write("vault-ca.pem", vault.ca_pem())?;
        let path = |path: &Path| path.to_str().map(str::to_owned).context("the folder's name is not UTF-8");
        let (kubeconfig, token, ca) = (path(&kubeconfig)?, path(&token)?, path(&ca)?);
        let address = format!("127.0.0.1:{}", page.number());
        let args = [
            ["istio-ca-gate", "serve"].as_slice(),
            &["--role", side.role, "--cluster", side.name, "--dns-name", "127.0.0.1", "--shutdown-delay", "0s"],
            &["--listen", "127.0.0.1:0", "--admin-listen", &address, "--kubeconfig", &kubeconfig],
            &["--vault-addr", vault.address(), "--vault-ca-cert", &ca, "--vault-jwt-file", &token],
            &["--vault-auth-mount", side.auth_mount, "--refresh", REFRESH, "--peer", peer],
            more,
        ];
        let gate = Self::launch(side.name, &args.concat(), file("gate.log"), page).await?;
        gate.is_ready().await?;
        side.point_webhooks_at(&[gate.https.port()]).await?;
        side.is_injected().await?;
        Ok(gate)
    }

    async fn launch(name: &'static str, args: &[&str], log: PathBuf, page: Arc<Port>) -> Result<Self> {
        let cli = Cli::try_parse_from(args).map_err(|error| anyhow!(one_line(&error).unwrap_or_default()))?;
        let Command::Serve(args) = cli.command else { bail!("the command is not serve") };
        let runtime = runtime(name, &log)?;
        let (signals, asked) = mpsc::channel(1);
        // In its own runtime, so that whatever it starts is in it, too.
        let prepared = runtime.spawn(Prepared::new(*args, istio_ca_gate::VERSION)).await??;
        let (https, http) = (prepared.https(), prepared.http().context("no admin address")?);
        let ended = runtime.spawn(prepared.run(Signals::of(asked)));
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(Self { name, https, http, log, client, signals, ended, runtime: Some(runtime), page })
    }

    async fn is_ready(&self) -> Result<()> {
        eventually(&format!("the gate of {} to be ready", self.name), SOON, || async {
            self.get("readyz").await.map(|_| ())
        })
        .await
        .with_context(|| format!("see {}", self.log.display()))
    }

    /// The cluster's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its HTTPS address.
    pub fn https(&self) -> SocketAddr {
        self.https
    }

    /// The address of one of its HTTP endpoints.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.http)
    }

    /// All it has logged so far, a JSON object a line.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The text at a path of its HTTP endpoints, if it is a 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = self.client.get(self.url(path)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 200, "{status}: {text}");
        Ok(text)
    }

    /// `GET /fingerprint`.
    pub async fn fingerprint(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get("fingerprint").await?)?)
    }

    /// Waits until `/fingerprint` tells this state and reason.
    pub async fn stands(&self, state: &str, reason: Option<&str>) -> Result<Value> {
        eventually(&format!("the gate of {} to be {state} with {reason:?}", self.name), SOON, || async {
            let report = self.fingerprint().await?;
            ensure!(report["state"] == state && report["reason"] == json!(reason), "{report}");
            Ok(report)
        })
        .await
    }

    /// Ends it in order, as SIGTERM does.
    pub async fn stop(mut self) -> Result<()> {
        // Only fails if it has ended already; the next line tells how.
        let _ = self.signals.send(()).await;
        let ended = tokio::time::timeout(END, &mut self.ended).await.context("the gate does not end")??;
        ended.with_context(|| format!("the gate of {}", self.name))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime whose threads log to a file.
fn runtime(name: &str, log: &Path) -> Result<Runtime> {
    let file = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
    let lines = Dispatch::new(telemetry::subscriber("info", false, file).map_err(anyhow::Error::msg)?);
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name(format!("gate-{name}"))
        .enable_all()
        // For as long as the thread lives.
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&lines)))
        .build()?;
    Ok(runtime)
}
