//! A serving certificate from files that somebody else renews.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use https::{Bound, Limits, Room};
use istio_ca_gate::serving::files::Pair;
use istio_ca_gate::serving::{self, Serving};
use reqwest::{Certificate, Client};
use tempfile::TempDir;
use testbed::eventually;
use tokio::task::JoinSet;

use crate::certificates::Authority;
use crate::gate::{SOON, review};
use crate::kubernetes::SECRETS;
use crate::product::{Product, world};

/// How often the files are looked at in these tests.
const POLL: Duration = Duration::from_millis(50);

/// A mounted Secret: its files are links into a folder that is a link itself, and that is replaced as a whole.
struct Mounted {
    folder: TempDir,
    versions: usize,
}

impl Mounted {
    fn new(files: &(String, String)) -> Result<Self> {
        let mut mounted = Self { folder: tempfile::tempdir()?, versions: 0 };
        mounted.swap(files)?;
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), mounted.path(name))?;
        }
        Ok(mounted)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As the kubelet does.
    fn swap(&mut self, (certificate, key): &(String, String)) -> Result<()> {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        std::fs::create_dir(self.path(&version))?;
        std::fs::write(self.path(&version).join("tls.crt"), certificate)?;
        std::fs::write(self.path(&version).join("tls.key"), key)?;
        std::os::unix::fs::symlink(&version, self.path("..data_tmp"))?;
        std::fs::rename(self.path("..data_tmp"), self.path("..data"))?;
        Ok(())
    }
}

struct Server {
    address: SocketAddr,
    serving: Arc<Serving>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(certificate: &Path, key: &Path) -> Result<Self> {
        let serving = Arc::new(Serving::default());
        let pair = Pair::load(certificate.to_owned(), key.to_owned(), &serving).await.map_err(anyhow::Error::msg)?;
        let bound = Bound::bind("127.0.0.1:0".parse()?).await?;
        let address = bound.address();
        let router = Router::new().route("/healthz", get(|| async { "ok" }));
        let mut tasks = JoinSet::new();
        let tls = serving::server_config(Arc::clone(&serving), None);
        tasks.spawn(bound.serve(
            router,
            Some(tls),
            Room::new(Limits::default(), Arc::default()),
            std::future::pending(),
        ));
        tasks.spawn(pair.keep(Arc::clone(&serving), POLL));
        Ok(Self { address, serving, _tasks: tasks })
    }

    /// Whether a client that trusts these is served, on a connection of its own.
    async fn serves(&self, trusted: &[&Authority]) -> Result<()> {
        let trusted: Result<Vec<_>, _> = trusted.iter().map(|ca| Certificate::from_pem(ca.pem().as_bytes())).collect();
        let client = Client::builder().tls_certs_only(trusted?).no_proxy().timeout(SOON).build()?;
        ensure!(client.get(format!("https://{}/healthz", self.address)).send().await?.status() == 200);
        Ok(())
    }

    async fn comes_to(&self, trusted: &Authority) -> Result<()> {
        eventually("the new certificate", SOON, || async { self.serves(&[trusted]).await }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_links_are_followed_under_calls_and_none_fails() -> Result<()> {
    let authorities = (0..5).map(|number| Authority::new(&format!("CA {number}"))).collect::<Result<Vec<_>>>()?;
    let mut mounted = Mounted::new(&authorities[0].server_files("127.0.0.1")?)?;
    let server = Server::start(&mounted.path("tls.crt"), &mounted.path("tls.key")).await?;
    let all: Vec<_> = authorities.iter().collect();
    let mut calls = 0;
    for authority in &authorities[1..] {
        mounted.swap(&authority.server_files("127.0.0.1")?)?;
        // Of its own alone it can only be the new one; of any, none may fail meanwhile.
        while server.serves(&[authority]).await.is_err() {
            server.serves(&all).await?;
            calls += 1;
        }
    }
    println!("{} swaps, {calls} calls meanwhile, none failed", authorities.len() - 1);
    ensure!(calls > 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_or_mismatching_pair_leaves_the_last_good_one() -> Result<()> {
    let (old, new, folder) = (Authority::new("Old")?, Authority::new("New")?, tempfile::tempdir()?);
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let write = |path: &Path, text: &str| std::fs::write(path, text);
    let first = old.server_files("127.0.0.1")?;
    write(&certificate, &first.0)?;
    write(&key, &first.1)?;
    let server = Server::start(&certificate, &key).await?;
    let not_after = server.serving.not_after();
    let next = new.server_files("127.0.0.1")?;
    for text in [&next.0[..next.0.len() / 2], "", &next.0] {
        write(&certificate, text)?;
        tokio::time::sleep(POLL * 4).await;
        server.serves(&[&old]).await?;
    }
    std::fs::remove_file(&key)?;
    tokio::time::sleep(POLL * 4).await;
    server.serves(&[&old]).await?;
    ensure!(server.serving.not_after() == not_after);
    write(&key, &next.1)?;
    server.comes_to(&new).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_files_neither_secret_nor_ca_bundle_is_touched() -> Result<()> {
    let authority = Authority::new("Somebody's CA")?;
    let mounted = Mounted::new(&authority.server_files("127.0.0.1")?)?;
    let (certificate, key) = (mounted.path("tls.crt"), mounted.path("tls.key"));
    let (kubernetes, vault) = world().await?;
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path");
    let flags = [
        "--role",
        "sync",
        "--tls-cert-file",
        &path(&certificate)?,
        "--tls-key-file",
        &path(&key)?,
        "--log-filter",
        "debug",
    ];
    let product = Product::start(kubernetes, vault, &flags).await?;
    let client = Client::builder().tls_certs_only([Certificate::from_pem(authority.pem().as_bytes())?]).no_proxy();
    let (status, text) = product.post(&client.build()?, review("not-gated").to_string().into()).await?;
    ensure!(status == 200, "{text}");
    let touched: Vec<_> = product.kubernetes.server.seen().into_iter().map(|request| request.target).collect();
    ensure!(touched.iter().any(|target| target.contains("/secrets")), "cacerts is looked at: {touched:?}");
    let ours = |target: &&String| target.contains("istio-ca-gate-tls") || target.contains("webhookconfigurations");
    ensure!(!touched.iter().any(|target| ours(&target)), "{touched:?}");
    ensure!(product.kubernetes.get(SECRETS, "istio-ca-gate-tls").is_none());
    Ok(())
}
