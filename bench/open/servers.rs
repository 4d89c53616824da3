//! The servers that are measured, each a process of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use testbed::{Port, Program, eventually};

use crate::certificates::Authority;
use crate::kubernetes::{Kubernetes, SECRETS};
use crate::product::Product;
use crate::vault::{self, READ, version};
use crate::{load, reviews};

/// Longest wait for a server, under valgrind too.
const SOON: Duration = Duration::from_secs(120);

/// A server, and how to reach it.
pub struct Server {
    pub name: &'static str,
    pub pid: u32,
    pub port: u16,
    pub path: &'static str,
    pub ca: String,
    /// From its start to its first answer.
    pub started: Duration,
    _alive: Box<dyn Send>,
}

/// The gate, open by a record of a root that Vault has already.
pub async fn gate() -> Result<Server> {
    let vault = vault::start().await?;
    vault.always(READ, version(1, &Authority::new("Root CA")?.record()));
    let began = Instant::now();
    let product = Product::start(Kubernetes::start().await?, vault, &["--role", "sync"]).await?;
    let started = began.elapsed();
    let secret = product.kubernetes.get(SECRETS, "istio-ca-gate-tls").context("no serving CA")?;
    let ca: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    let review = serde_json::from_str(&reviews::sized("istiod", 0))?;
    product.allows(&review).await?;
    Ok(Server {
        name: "ours",
        pid: product.process.pid(),
        port: product.address().1,
        path: "/validate?timeout=10s",
        ca: String::from_utf8(ca.0)?,
        started,
        _alive: Box::new(product),
    })
}

/// The floor, as `FLOOR_UNDER` names it, with what runs it.
pub async fn floor() -> Result<Server> {
    let under = std::env::var("FLOOR_UNDER").context("FLOOR_UNDER: see bench/README.md")?;
    let mut words = under.split_whitespace().map(PathBuf::from);
    let program = Program::new(words.next().context("FLOOR_UNDER is empty")?).args(words);
    other("floor", "/validate", |port, folder| program.arg(port).arg(folder)).await
}

/// The webhook in Go.
pub async fn go() -> Result<Server> {
    let program = testbed::binaries::webhook()?;
    other("Go", "/validate", |port, folder| program.arg(port).arg(folder)).await
}

async fn other(
    name: &'static str,
    path: &'static str,
    command: impl FnOnce(String, PathBuf) -> Program,
) -> Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, Port::reserve()?);
    let began = Instant::now();
    let process = command(port.number().to_string(), folder.path().to_owned()).spawn(folder.path().join("log"))?;
    let file = folder.path().join("ca.pem");
    let ca = eventually(name, SOON, || async { read(&file) }).await?;
    let review = reviews::sized("istiod", 0);
    eventually("an answer", SOON, || async {
        load::Connection::open(port.number(), &ca).await?.post(path, &review).await
    })
    .await?;
    let started = began.elapsed();
    Ok(Server {
        name,
        pid: process.pid(),
        port: port.number(),
        path,
        ca,
        started,
        _alive: Box::new((process, port, folder)),
    })
}

fn read(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.ends_with("-----END CERTIFICATE-----\n"), "not whole");
    Ok(text)
}

impl Server {
    /// What its threads have used of the processors.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            total += text.split(' ').next().and_then(|used| used.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// A figure of its memory, in bytes.
    pub fn memory(&self, name: &str) -> Result<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
    }
}
