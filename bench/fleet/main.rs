//! Many gates on one real Vault: what they ask of it while nothing happens, and when it comes back after an outage. Each is the
//! product's own convergence with the product's own client of Vault, on a cluster that is a few variables.
//!
//!     cargo bench --bench fleet

#![allow(missing_docs, unreachable_pub, dead_code, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../../tests/it/certificates.rs"]
mod certificates;
mod cluster;
#[path = "../closed/picture.rs"]
mod picture;
#[path = "../../tests/it/vault.rs"]
mod vault;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::clock::Clocks;
use istio_ca_gate::converge::{Attempts, Converger, Parts, Schedule, make_root};
use istio_ca_gate::metrics::{Labels, Metrics};
use istio_ca_gate::plan::{Names, OnRootChange, Role};
use istio_ca_gate::snapshot::{Policy, VaultUnavailable};
use istio_ca_gate::vault::{Settings, Vault, VaultRequests};
use k8s_openapi::jiff::SignedDuration;
use prometheus::Registry;
use serde_json::json;
use testbed::{Vault as Server, VaultOptions};
use tokio::task::JoinSet;

const SIZES: [usize; 4] = [1, 10, 100, 1000];
/// Faster than the 60 s of the default, so that a run ends; what is printed is for 60 s.
const REFRESH: Duration = Duration::from_secs(20);
const OUTAGE: Duration = Duration::from_secs(15);
const SAMPLE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sizes: Vec<_> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    runtime.block_on(grow(if sizes.is_empty() { &SIZES } else { &sizes }))
}

async fn grow(sizes: &[usize]) -> Result<()> {
    println!(
        "| gates | first opening of all | requests a comparison | requests/s at --refresh 60s | back: first open | half | all | most requests in a second |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut points = Vec::new();
    for gates in sizes {
        let seen = fleet(*gates).await?;
        println!(
            "| {gates} | {:.1} s | {:.1} | {:.1} | {:.2} s | {:.2} s | {:.2} s | {:.0} |",
            seen.opened,
            seen.asked,
            seen.asked * *gates as f64 / 60.0,
            seen.first,
            seen.half,
            seen.all,
            seen.peak
        );
        points.push((*gates as f64, seen.all));
    }
    picture::growth("docs/pictures/fleet.svg", "everyone is open again after Vault's return", &points)
}

struct Seen {
    opened: f64,
    asked: f64,
    first: f64,
    half: f64,
    all: f64,
    peak: f64,
}

async fn fleet(gates: usize) -> Result<Seen> {
    let (server, folder) = (served().await?, tempfile::tempdir()?);
    let metrics = Metrics::new(Labels { cluster: "fleet".to_owned(), role: Role::Sync, version: "0" })
        .map_err(anyhow::Error::msg)?;
    let registry = Registry::new();
    let counted = VaultRequests::registered(&registry)?;
    let (mut all, mut tasks) = (Vec::new(), JoinSet::new());
    let began = Instant::now();
    for index in 0..gates {
        let (converger, attempts) = gate(&server, folder.path(), (&metrics, &counted), index)?;
        all.push(converger.clone());
        tasks.spawn(async move {
            let schedule = Schedule { retry_max: Duration::from_secs(2), refresh: REFRESH };
            converger.run(attempts, schedule, policy()).await;
        });
    }
    all.iter().for_each(Converger::wake);
    until(&all, |open| open == all.len()).await.context("the first opening")?;
    let opened = began.elapsed().as_secs_f64();

    let (before, finished) = (requests(&registry), attempts_of(&all));
    tokio::time::sleep(REFRESH * 2).await;
    let asked = (requests(&registry) - before) / (attempts_of(&all) - finished) as f64;

    server.stop()?;
    until(&all, |open| open == 0).await.context("all hear of the outage")?;
    tokio::time::sleep(OUTAGE).await;
    // It listens, sealed; then it is back from one moment to the next.
    server.start_sealed().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sampled = tokio::spawn(sample(registry.clone()));
    server.unseal().await?;
    let back = Instant::now();
    let mut at = Vec::new();
    for wanted in [1, all.len().div_ceil(2), all.len()] {
        until(&all, |open| open >= wanted).await.context("open again")?;
        at.push(back.elapsed().as_secs_f64());
    }
    sampled.abort();
    let peak = PEAK.swap(0, std::sync::atomic::Ordering::Relaxed) as f64;
    tasks.shutdown().await;
    Ok(Seen { opened, asked, first: at[0], half: at[1], all: at[2], peak })
}

/// The most requests that ended within a second.
static PEAK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

async fn sample(registry: Registry) {
    let (mut pace, mut seen) = (tokio::time::interval(SAMPLE), Vec::new());
    loop {
        pace.tick().await;
        seen.push(requests(&registry));
        let second = seen.len().saturating_sub(11);
        let within = seen[seen.len() - 1] - seen[second];
        PEAK.fetch_max(within as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

async fn until(all: &[Converger], enough: impl Fn(usize) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let open = all
            .iter()
            .filter(|gate| gate.look(|known| known.convergence.held.is_none() && known.convergence.finished > 0))
            .count();
        if enough(open) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{open} of {} are open", all.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn attempts_of(all: &[Converger]) -> u64 {
    all.iter().map(|gate| gate.look(|known| known.convergence.finished)).sum()
}

/// Requests to Vault so far.
fn requests(registry: &Registry) -> f64 {
    registry.gather().iter().flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value()).sum()
}

fn policy() -> Policy {
    Policy {
        refresh: SignedDuration::from_secs(20),
        vault_unavailable: VaultUnavailable::Deny,
        max_staleness: SignedDuration::from_hours(1),
    }
}

async fn served() -> Result<Server> {
    let server = Server::start(VaultOptions::default()).await?;
    server.ok("POST", "sys/auth/kubernetes", Some(json!({ "type": "jwt" }))).await?;
    let config = json!({ "jwt_validation_pubkeys": [vault::JWT_KEY] });
    server.ok("POST", "auth/kubernetes/config", Some(config)).await?;
    let (name, policy) = ("istio-ca-bootstrap", include_str!("../../deploy/vault/istio-ca-bootstrap.hcl"));
    server.policy(name, policy).await?;
    let role = json!({ "role_type": "jwt", "bound_audiences": "vault", "user_claim": "sub", "token_policies": name, "token_ttl": "1h" });
    server.role("kubernetes", name, role).await?;
    let record = certificates::Authority::new("Root CA")?.record();
    server.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record, "options": { "cas": 0 } }))).await?;
    Ok(server)
}

type Gate = (Converger, Attempts<Vault, cluster::Held>);

fn gate(server: &Server, folder: &Path, (metrics, counted): (&Metrics, &VaultRequests), index: usize) -> Result<Gate> {
    let jwt_file = folder.join("token");
    std::fs::write(&jwt_file, vault::JWT)?;
    let vault = Vault::new(Settings {
        addresses: vec![server.address().parse()?],
        gone: Vec::new(),
        ca_file: Some(server.ca_file()),
        namespace: None,
        auth_mount: "kubernetes".to_owned(),
        role: "istio-ca-bootstrap".to_owned(),
        jwt_files: vec![jwt_file],
        token: None,
        mount: "secret".to_owned(),
        path: "istio/ca".to_owned(),
        pki_mount: None,
        timeout: Duration::from_secs(10),
    });
    let vault = vault.map_err(anyhow::Error::msg)?.counted_by(counted.clone());
    let (cluster, watched) = cluster::Held::new();
    let name = |what: &str| format!("istio-system/{what}");
    let attempts = Attempts::new(Parts {
        role: Role::Sync,
        on_root_change: OnRootChange::Halt,
        pin_age_max: SignedDuration::from_hours(1),
        names: Names {
            cacerts: name("cacerts"),
            pin: name("pin"),
            mesh: name("mesh"),
            record: "secret/istio/ca".to_owned(),
        },
        common_name: format!("Root CA {index}"),
        signer: None,
        store: vault,
        cluster,
        make_root,
        now: Clocks::now,
        counted: metrics.convergences.clone(),
    });
    Ok((Converger::new(watched, Clocks::now), attempts))
}
