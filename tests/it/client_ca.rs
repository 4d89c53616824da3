//! Callers that have to show a certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::{get, post};
use https::{Bound, Limits, Room};
use istio_ca_gate::serving::{self, Callers, Serving, ServingCa};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::date_time_ymd;
use reqwest::{Certificate, Client, Identity};
use testbed::eventually;
use tokio::task::JoinSet;

use crate::certificates::Authority;
use crate::gate::{SOON, review};
use crate::product::{Product, world};

/// How often the file is looked at in these tests.
const POLL: Duration = Duration::from_millis(50);

fn client(ca: &str, identity: Option<&(String, String)>) -> Result<Client> {
    let mut builder =
        Client::builder().tls_certs_only([Certificate::from_pem(ca.as_bytes())?]).no_proxy().timeout(SOON);
    if let Some((certificate, key)) = identity {
        builder = builder.identity(Identity::from_pem([certificate.as_bytes(), key.as_bytes()].concat().as_slice())?);
    }
    Ok(builder.build()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_needs_a_certificate_by_the_named_ca_and_nothing_else_does() -> Result<()> {
    let (authority, folder) = (Authority::new("Callers")?, tempfile::tempdir()?);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem())?;
    let (kubernetes, vault) = world().await?;
    let flags = ["--role", "sync", "--client-ca-file", file.to_str().context("a path")?];
    let product = Product::start(kubernetes, vault, &flags).await?;
    let url = |path: &str| format!("https://127.0.0.1:{}/{path}", product.address().1);
    let anonymous = product.client()?;
    for path in ["validate", "mutate", "elsewhere", "validate/../validate"] {
        let answer = anonymous.post(url(path)).body(review("not-gated").to_string()).send().await?;
        ensure!(answer.status() == 403, "{path}: {}", answer.status());
        ensure!(answer.headers()["content-type"] == "application/json");
        let text = answer.text().await?;
        ensure!(text.contains("client certificate"), "{text}");
    }
    for path in ["healthz", "readyz", "fingerprint"] {
        ensure!(anonymous.get(url(path)).send().await?.status() == 200, "{path}");
    }
    let ca = std::str::from_utf8(&ca_of(&product)?)?.to_owned();
    let known = client(&ca, Some(&authority.client_files(|_| ())?))?;
    let (status, text) = product.post(&known, review("not-gated").to_string().into()).await?;
    ensure!(status == 200 && text.contains("\"allowed\":true"), "{status}: {text}");
    // Another CA's, one that has ended, and a server's.
    for refused in [
        Authority::new("Callers")?.client_files(|_| ())?,
        authority.client_files(|params| params.not_after = date_time_ymd(2020, 1, 1))?,
        authority
            .client_files(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth])?,
    ] {
        let answer = product.post(&client(&ca, Some(&refused))?, review("not-gated").to_string().into()).await;
        ensure!(answer.is_err(), "{answer:?}");
    }
    let log = product.process.log();
    ensure!(log.matches("refused an admission call").count() == 1, "{log}");
    Ok(())
}

fn ca_of(product: &Product) -> Result<Vec<u8>> {
    let secret = product.kubernetes.get(crate::kubernetes::SECRETS, "istio-ca-gate-tls").context("no serving CA")?;
    Ok(serde_json::from_value::<k8s_openapi::ByteString>(secret["data"]["ca.crt"].clone())?.0)
}

/// A server whose admission needs a certificate by a CA in the file.
struct Guarded {
    address: SocketAddr,
    ca: String,
    _tasks: JoinSet<()>,
}

impl Guarded {
    async fn start(file: &Path) -> Result<Self> {
        let (now, life) = (Timestamp::now(), SignedDuration::from_hours(1));
        let ca = ServingCa::make(now, life).map_err(anyhow::Error::msg)?;
        let serving = Serving::issue(&ca, &["127.0.0.1".to_owned()], now, life).map_err(anyhow::Error::msg)?;
        let (callers, read) = Callers::load(file.to_owned()).await.map_err(anyhow::Error::msg)?;
        let tls = serving::server_config(serving, Some(Arc::clone(&callers)));
        let router =
            Router::new().route("/validate", post(|| async { "ok" })).route("/healthz", get(|| async { "ok" }));
        let router = Arc::clone(&callers).guard(router);
        let bound = Bound::bind("127.0.0.1:0".parse()?).await?;
        let (address, ca) = (bound.address(), ca.certificate_pem().to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(bound.serve(
            router,
            Some(tls),
            Room::new(Limits::default(), Arc::default()),
            std::future::pending(),
        ));
        tasks.spawn(async move { callers.keep(read, POLL).await });
        Ok(Self { address, ca, _tasks: tasks })
    }

    /// Of a caller with this certificate. It keeps its connection.
    fn caller(&self, identity: &(String, String)) -> Result<Client> {
        client(&self.ca, Some(identity))
    }

    async fn status(&self, caller: &Client) -> Result<u16> {
        let answer = caller.post(format!("https://{}/validate", self.address)).send().await?;
        Ok(answer.status().as_u16())
    }

    async fn comes_to(&self, caller: &Client, status: u16) -> Result<()> {
        eventually(&format!("status {status}"), SOON, || async {
            let answered = self.status(caller).await?;
            ensure!(answered == status, "{answered}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_ca_counts_at_once_also_on_kept_connections() -> Result<()> {
    let (old, new, folder) = (Authority::new("Old")?, Authority::new("New")?, tempfile::tempdir()?);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, old.pem())?;
    let guarded = Guarded::start(&file).await?;
    let (of_old, of_new) = (old.client_files(|_| ())?, new.client_files(|_| ())?);
    let kept = guarded.caller(&of_old)?;
    ensure!(guarded.status(&kept).await? == 200);

    std::fs::write(&file, [old.pem(), new.pem()].concat())?;
    let newer = guarded.caller(&of_new)?;
    guarded.comes_to(&newer, 200).await?;
    ensure!(guarded.status(&kept).await? == 200);

    std::fs::write(&file, new.pem())?;
    guarded.comes_to(&kept, 403).await?;
    ensure!(guarded.status(&guarded.caller(&of_old)?).await.is_err(), "a new connection is refused in its handshake");
    ensure!(guarded.status(&newer).await? == 200);

    // Half of it, and nothing: what was read before stays.
    for broken in [&new.pem()[..new.pem().len() / 2], ""] {
        std::fs::write(&file, broken)?;
        tokio::time::sleep(POLL * 4).await;
        ensure!(guarded.status(&newer).await? == 200);
        ensure!(guarded.status(&guarded.caller(&of_new)?).await? == 200);
    }
    std::fs::write(&file, old.pem())?;
    guarded.comes_to(&newer, 403).await?;
    guarded.comes_to(&guarded.caller(&of_old)?, 200).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_ends_its_calls_on_a_kept_connection() -> Result<()> {
    let (authority, folder) = (Authority::new("Callers")?, tempfile::tempdir()?);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem())?;
    let guarded = Guarded::start(&file).await?;
    let end = std::time::SystemTime::now() + Duration::from_secs(3);
    let caller = guarded.caller(&authority.client_files(|params| params.not_after = end.into())?)?;
    ensure!(guarded.status(&caller).await? == 200);
    guarded.comes_to(&caller, 403).await
}
