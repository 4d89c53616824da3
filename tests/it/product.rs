//! The built program as a process, between a stand-in for Vault and one for the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Port, Process, Program};

use crate::kubernetes::{Kubernetes, SECRETS};
use crate::vault::{self, JWT};
use standin::scripted::StandIn;

/// Longest wait for anything that it does by itself; a key takes it seconds.
pub const SOON: Duration = Duration::from_secs(60);

/// Its bearer token for the API server.
pub const KUBERNETES_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJhcGkiOiJzZXJ2ZXIifQ.ZXM";

pub fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_istio-ca-gate").into()
}

/// The program; or what `GATE_UNDER` names, with its first arguments: another build, or one under a limit.
fn program() -> Program {
    let words = std::env::var("GATE_UNDER").unwrap_or_default();
    let mut words = words.split_whitespace();
    match words.next() {
        Some(path) => Program::new(path).args(words),
        None => Program::new(binary()),
    }
}

pub struct Product {
    pub process: Process,
    pub kubernetes: Arc<Kubernetes>,
    pub vault: Arc<StandIn>,
    http: Port,
    https: Port,
    _folder: TempDir,
}

impl Product {
    /// Starts it against these, and waits until it is ready.
    pub async fn start(
        kubernetes: impl Into<Arc<Kubernetes>>,
        vault: impl Into<Arc<StandIn>>,
        flags: &[&str],
    ) -> Result<Self> {
        let (kubernetes, vault) = (kubernetes.into(), vault.into());
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        Self::launch(kubernetes, vault, flags, folder, &log).await
    }

    /// The same, with its log in this file.
    pub async fn start_logging(kubernetes: Kubernetes, vault: StandIn, flags: &[&str], log: &Path) -> Result<Self> {
        Self::launch(kubernetes.into(), vault.into(), flags, tempfile::tempdir()?, log).await
    }

    async fn launch(
        kubernetes: Arc<Kubernetes>,
        vault: Arc<StandIn>,
        flags: &[&str],
        folder: TempDir,
        log: &Path,
    ) -> Result<Self> {
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let (http, https) = (Port::reserve()?, Port::reserve()?);
        let process = program()
            .args(["serve", "--dns-name", "127.0.0.1", "--shutdown-delay", "0s"])
            .args(["--listen", &format!("127.0.0.1:{}", https.number())])
            .args(["--admin-listen", &format!("127.0.0.1:{}", http.number())])
            .args(flags)
            // As the released program's allocator, which is musl's: one heap, and what is large is given back.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            // A flag wins.
            .env("GATE_LOG_FORMAT", "json")
            .env("VAULT_ADDR", vault.url())
            .env("GATE_VAULT_JWT_FILE", file("token", JWT)?)
            .env("KUBECONFIG", file("kubeconfig", &kubeconfig(&kubernetes.server.url()))?)
            .spawn(log)?;
        let product = Self { process, kubernetes, vault, http, https, _folder: folder };
        product.process.until("readiness", SOON, || product.get("readyz")).await?;
        Ok(product)
    }

    /// A client that trusts its serving CA.
    pub fn client(&self) -> Result<reqwest::Client> {
        let secret = self.kubernetes.get(SECRETS, "istio-ca-gate-tls").context("no serving CA")?;
        let ca: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
        let ca = reqwest::Certificate::from_pem(&ca.0)?;
        Ok(reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(SOON).build()?)
    }

    /// The text at a path of its HTTP endpoints, if it is a 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = reqwest::Client::builder().no_proxy().build()?.get(self.url(path)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 200, "{status}: {text}");
        Ok(text)
    }

    /// The address of a path of its HTTP endpoints.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http.number())
    }

    /// Posts a body to `/validate`.
    pub async fn post(&self, client: &reqwest::Client, body: reqwest::Body) -> Result<(u16, String)> {
        let url = format!("https://127.0.0.1:{}/validate?timeout=10s", self.https.number());
        let answer = client.post(url).body(body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until a review of this pod is allowed.
    pub async fn allows(&self, review: &Value) -> Result<()> {
        let client = self.client()?;
        let probe = || async {
            let (_, text) = self.post(&client, review.to_string().into()).await?;
            ensure!(text.contains("\"allowed\":true"), "{text}");
            Ok(())
        };
        self.process.until("the review to be allowed", SOON, probe).await
    }

    /// Its largest resident memory so far, in bytes.
    pub fn peak(&self) -> Result<usize> {
        self.memory("VmHWM:")
    }

    /// Its resident memory now, in bytes.
    pub fn resident(&self) -> Result<usize> {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> Result<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
    }

    /// Forgets the largest resident memory so far.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.process.pid()), "5")?)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.pid()))?.count())
    }

    /// The port of its HTTP endpoints.
    pub fn http_port(&self) -> u16 {
        self.http.number()
    }

    /// Of its HTTPS endpoints.
    pub fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.https.number())
    }
}

/// An empty Vault, and a cluster with nothing in it.
pub async fn world() -> Result<(Kubernetes, StandIn)> {
    Ok((Kubernetes::start().await?, vault::start().await?))
}

pub fn kubeconfig(server: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": { "token": KUBERNETES_TOKEN } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "c",
    })
    .to_string()
}
