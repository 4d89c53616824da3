//! What callers and the API server can make the program hold, measured from outside; and what it says and does no more of
//! than it has to. The figures of docs/security.md are printed here: see bench/README.md.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt};
use istio_ca_gate::cluster::Passed;
use istio_ca_gate::gate::Gated;
use istio_ca_gate::k8s::owners::Owners;
use istio_ca_gate::selector;
use k8s_openapi::jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::bodies::head;
use crate::gate::review;
use crate::kubernetes::{Kubernetes, REPLICA_SETS, pods};
use crate::memory::{connector, serves};
use crate::product::{Product, SOON, world};
use crate::vault::{self, READ, never_written};
use standin::scripted::Answer;

const MIB: usize = 1 << 20;

/// Connections of a hostile caller: more than there is room for.
const FLOOD: usize = 1000;

/// All that callers can make it hold.
const BUDGET: usize = 40 * MIB;

/// What a debug build keeps of its allocator's more than a release does, and what goes on meanwhile.
const SLACK: usize = 12 * MIB;

/// What each connection of a flood sends, and then waits.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Nothing.
    Idle,
    /// A head that does not end.
    Heads,
    /// So many bytes of a body that does not end.
    Bodies(usize),
    /// Requests whose answers are not read.
    Answers,
}

impl Flood {
    fn request(self) -> Vec<u8> {
        match self {
            Self::Idle => Vec::new(),
            Self::Heads => [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 15 << 10]].concat(),
            Self::Bodies(size) => [head("content-length: 7000000"), vec![b' '; size]].concat(),
            Self::Answers => b"GET /metrics HTTP/1.1\r\nhost: gate\r\n\r\n".repeat(16),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// From an address that is not the API server's.
async fn elsewhere(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse()?)?;
    Ok(socket.connect(address).await?)
}

async fn hostile(address: SocketAddr, tls: Option<&TlsConnector>, request: &[u8]) -> Result<Box<dyn Stream>> {
    let stream = elsewhere(address).await?;
    let mut stream: Box<dyn Stream> = match tls {
        Some(tls) => Box::new(tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?),
        None => Box::new(stream),
    };
    // As much as it takes.
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        stream.write_all(request).await?;
        stream.flush().await
    })
    .await;
    Ok(stream)
}

/// Opens them all at both ports, and holds them while reviews are answered. Returns how many were, and the slowest.
async fn flooded(product: &Product, flood: Flood) -> Result<(usize, Duration)> {
    let (connector, request) = (connector(product)?, flood.request());
    let (host, port) = product.address();
    let (https, http) = (SocketAddr::new(host.parse()?, port), SocketAddr::new(host.parse()?, product.http_port()));
    let (client, answered, slowest) = (product.client()?, AtomicUsize::new(0), AtomicUsize::new(0));
    let reviews = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            let began = Instant::now();
            // As the API server does, where it is asked to.
            let status = loop {
                match product.post(&client, review("not-gated").to_string().into()).await? {
                    (429, _) => tokio::time::sleep(Duration::from_secs(1)).await,
                    (status, _) => break status,
                }
            };
            ensure!(status == 200, "{status}");
            slowest.fetch_max(usize::try_from(began.elapsed().as_millis())?, Ordering::Relaxed);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let open = stream::iter(0..FLOOD).map(|n| {
        let (address, tls) = if n % 2 == 0 { (https, Some(&connector)) } else { (http, None) };
        hostile(address, tls, &request)
    });
    let hold = async {
        let held: Vec<_> = open.buffer_unordered(256).collect().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.len()
    };
    tokio::select! {
        ended = reviews => ended?,
        held = hold => ensure!(held == FLOOD),
    }
    Ok((answered.into_inner(), Duration::from_millis(slowest.into_inner() as u64)))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_floods_both_ports_stays_within_one_budget_one_flood_after_the_other() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &["--role", "sync"]).await?;
    serves(&product).await?;
    let idle = product.resident()?;
    eprintln!("idle: {} MiB", idle / MIB);
    // The released program's allocator gives back all. glibc's does so late, or not at all; what it keeps is used again by
    // the next flood.
    let left = if std::env::var_os("GATE_UNDER").is_some() { 4 * MIB } else { BUDGET + SLACK };
    let floods = [
        Flood::Idle,
        Flood::Heads,
        Flood::Bodies(1),
        Flood::Bodies(64 << 10),
        Flood::Bodies(65 << 10),
        Flood::Bodies(MIB),
        Flood::Bodies(6 * MIB),
        Flood::Answers,
    ];
    for flood in floods {
        product.forget_peak()?;
        let (answered, slowest) = flooded(&product, flood).await?;
        let peak = product.peak()?;
        let calm = || async { (product.descriptors()? < 60).then_some(()).context("connections are open") };
        product.process.until("the flood to be over", SOON, calm).await?;
        serves(&product).await?;
        let after = product.resident()?;
        eprintln!(
            "{flood:?}: {} MiB at most, {} MiB after; {answered} reviews answered meanwhile, the slowest in {slowest:?}",
            peak / MIB,
            after / MIB
        );
        ensure!(answered > 0, "{flood:?}: no review was answered");
        ensure!(peak < idle + BUDGET + SLACK, "{flood:?}: {} MiB", peak / MIB);
        ensure!(after < idle + left, "{flood:?}: {} MiB are left", after / MIB);
    }
    Ok(())
}

/// A ReplicaSet of gated pods, whose creation failed with these words.
fn blocked(name: &str, message: &str, ballast: usize) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "istio-system", "uid": format!("uid-{name}"), "resourceVersion": "1",
            "annotations": { "ballast": "x".repeat(ballast) },
        },
        "spec": pods("istiod", 0),
        "status": { "replicas": 0, "conditions": [
            { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message },
        ] },
    })
}

const DENIED: &str = r#"admission webhook "app.istio-ca-gate.io" denied the request: RootMissing: cluster nas: none"#;
const QUOTA: &str = r#"pods "istiod-" is forbidden: exceeded quota: pods"#;
const ALL_REPLICA_SETS: &str = "/apis/apps/v1/replicasets";

#[tokio::test(flavor = "multi_thread")]
async fn owners_of_any_size_do_not_fill_the_memory() -> Result<()> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, never_written());
    let owners: Vec<_> = (0..8).map(|n| blocked(&format!("big-{n}"), "", 900 << 10)).collect();
    let list = Answer::json(200, &json!({ "metadata": { "resourceVersion": "9" }, "items": owners }));
    kubernetes.server.always(&format!("GET {ALL_REPLICA_SETS}"), list);
    let product = Product::start(kubernetes, vault, &["--role", "sync"]).await?;
    let looked =
        || async { (product.kubernetes.server.count("GET /apis/batch/v1/jobs") > 0).then_some(()).context("not yet") };
    product.process.until("all kinds to be looked at", SOON, looked).await?;
    let peak = product.peak()?;
    eprintln!("{} MiB at most, with 8 owners of 900 KiB", peak / MIB);
    ensure!(peak < 50 * MIB, "{} MiB", peak / MIB);
    Ok(())
}

fn owners(kubernetes: &Kubernetes) -> Result<Owners> {
    let gated = Gated(vec![selector::parse("app=istiod").map_err(anyhow::Error::msg)?]);
    Ok(Owners::new(kubernetes.client()?, "istio-system", gated))
}

fn touched(kubernetes: &Kubernetes) -> usize {
    let lines = kubernetes.server.lines();
    lines.iter().filter(|line| line.starts_with("PATCH ") && line.contains("/replicasets/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_failed_for_another_reason_is_not_touched() -> Result<()> {
    let kubernetes = Kubernetes::start().await?;
    for (name, message) in [("quota", QUOTA), ("silent", ""), ("denied", DENIED)] {
        kubernetes.put(REPLICA_SETS, blocked(name, message, 0))?;
    }
    let passed = owners(&kubernetes)?.touch_blocked(Timestamp::now()).await;
    ensure!(passed == Ok(Passed { any: true, whole: true }), "{passed:?}");
    let patched = format!("PATCH {REPLICA_SETS}/denied/status");
    ensure!(touched(&kubernetes) == 1 && kubernetes.server.count(&patched) == 1, "{:?}", kubernetes.server.lines());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_makes_so_many_writes_and_the_next_one_goes_on_where_it_ended() -> Result<()> {
    let kubernetes = Kubernetes::start().await?;
    for n in 0..120 {
        kubernetes.put(REPLICA_SETS, blocked(&format!("rs-{n}"), DENIED, 0))?;
    }
    let owners = owners(&kubernetes)?;
    for (whole, so_far) in [(false, 50), (false, 100), (true, 120)] {
        let passed = owners.touch_blocked(Timestamp::now()).await;
        ensure!(passed == Ok(Passed { any: true, whole }), "{passed:?}");
        ensure!(touched(&kubernetes) == so_far, "{}", touched(&kubernetes));
    }
    let once = (0..120).all(|n| kubernetes.server.count(&format!("PATCH {REPLICA_SETS}/rs-{n}/status")) == 1);
    ensure!(once, "{:?}", kubernetes.server.lines());
    Ok(())
}

/// Posts so many reviews, and has all of them answered.
async fn post(product: &Product, review: &Value, times: usize) -> Result<()> {
    let client = product.client()?;
    let posted = stream::iter(0..times).map(|_| product.post(&client, review.to_string().into())).buffer_unordered(16);
    let answered: Vec<_> = posted.collect().await;
    for answer in answered {
        ensure!(answer?.0 == 200);
    }
    Ok(())
}

async fn metric(product: &Product, series: &str) -> Result<u64> {
    let text = product.get("metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix('{')?.rsplit(' ').next());
    Ok(line.with_context(|| format!("no {series} in {text}"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_reviews_are_all_counted_and_few_are_logged() -> Result<()> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, never_written());
    let product = Product::start(kubernetes, vault, &["--role", "sync", "--retry-max", "60s"]).await?;
    post(&product, &review("istiod"), 2000).await?;
    let said = product.process.log().matches(r#""message":"admission""#).count();
    ensure!((1..=200).contains(&said), "{said} lines");
    let text = product.get("metrics").await?;
    let counted = text.lines().filter(|line| line.starts_with("istio_ca_gate_admission_requests_total{"));
    let counted: u64 = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    ensure!(counted == 2000, "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_is_missing_is_told_once() -> Result<()> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, never_written());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vault-ca.pem");
    std::fs::write(&file, crate::certificates::Authority::new("Vault CA")?.pem())?;
    let flags = ["--role", "sync", "--retry-max", "100ms", "--vault-ca-cert", &file.to_string_lossy()];
    let product = Product::start(kubernetes, vault, &flags).await?;
    std::fs::remove_file(&file)?;
    post(&product, &review("istiod"), 1).await?;
    let tried = product.vault.count(READ);
    let again = || async { (product.vault.count(READ) > tried + 20).then_some(()).context("not yet") };
    product.process.until("many attempts", SOON, again).await?;
    let said = product.process.log().matches("still using the previous Vault CA").count();
    ensure!(said == 1, "{said} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    mkfifoat(CWD, &log, Mode::RUSR | Mode::WUSR)?;
    let _unread = open(&log, OFlags::RDWR, Mode::empty())?;
    let flags = ["--role", "sync", "--log-filter", "debug"];
    let product = Product::start_logging(kubernetes, vault, &flags, &log).await?;
    let dropped = async {
        while metric(&product, "istio_ca_gate_log_lines_dropped_total").await? == 0 {
            post(&product, &review("not-gated"), 200).await?;
        }
        ensure!(product.get("healthz").await? == "ok");
        anyhow::Ok(())
    };
    tokio::time::timeout(SOON, dropped).await.context("it is stopped")??;
    // Nor does it wait for its last lines.
    product.process.signal(testbed::Signal::TERM)?;
    let ended = product.process.exited(SOON).await?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}
