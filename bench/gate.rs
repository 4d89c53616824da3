//! How fast an open gate answers, beside a bare hyper server; and how long a closed one takes to open,
//! beside the generation of its key. On a real Kubernetes and a real Vault:
//!
//!     cargo bench --bench gate
//!
//! Both servers run as processes of their own, with the same TLS, and are asked in turn, so that a
//! machine whose speed drifts slows both.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/real/gate.rs"]
mod gate;
#[path = "../tests/real/world.rs"]
mod world;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gate::{Gate, Options};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioIo, TokioTimer};
use istio_ca_gate::serving::{self, Serving, ServingCa};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::{Port, Program, eventually};
use tokio_rustls::TlsAcceptor;
use world::{NAMESPACE, SmallWorld};

/// Pairs of rounds, one of each server.
const ROUNDS: usize = 15;
/// Reviews a round, one after the other on one connection.
const REVIEWS: usize = 400;
/// Connections at a time, for throughput.
const CONNECTIONS: usize = 16;
/// Openings of a closed gate.
const OPENINGS: usize = 15;

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("bare") => runtime.block_on(bare(args[2].parse()?, &args[3])),
        _ => runtime.block_on(compare()),
    }
}

async fn compare() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    opening(&world).await?;
    let (side, vault) = (&world.side, &world.vault);
    let gate = Gate::start_with(side, vault, Options { log: Some("warn"), ..Options::default() }).await?;
    let idle = rss(&gate)?;
    post(&client(side).await?, gate.port(), &review("istiod"), true).await?;

    let folder = tempfile::tempdir()?;
    let port = Port::reserve()?;
    let ca_file = folder.path().join("ca.pem");
    let bare = Program::new(std::env::current_exe()?)
        .args(["bare", &port.number().to_string(), &ca_file.to_string_lossy()])
        .spawn(folder.path().join("log"))?;
    let pem = eventually("the bare server", Duration::from_secs(10), || async { std::fs::read(&ca_file) }).await?;
    let to_bare = with_ca(&pem)?;
    let to_gate = client(side).await?;
    for (name, body) in [("gated pod", review("istiod")), ("other pod", review("other"))] {
        let mut ratios = (Vec::new(), Vec::new());
        let mut gates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ours = round(&to_gate, gate.port(), &body).await?;
            let theirs = round(&to_bare, port.number(), &body).await?;
            ratios.0.push(ours.0 / theirs.0);
            ratios.1.push(ours.1 / theirs.1);
            gates.0.push(ours.0);
            gates.1.push(ours.1);
        }
        println!(
            "{name} ({} B): latency {:.0} µs, {:.2} of bare hyper; throughput {:.0}/s, {:.2} of bare hyper (medians of {ROUNDS} pairs; ratios from {:.2} to {:.2}, {:.2} to {:.2})",
            body.len(),
            median(&mut gates.0) * 1e6,
            median(&mut ratios.0),
            median(&mut gates.1),
            median(&mut ratios.1),
            ratios.0[0],
            ratios.0[ROUNDS - 1],
            ratios.1[0],
            ratios.1[ROUNDS - 1],
        );
    }
    println!(
        "RSS of the gate: {idle} kB before the first review, {} kB after {} of them",
        rss(&gate)?,
        2 * ROUNDS * (REVIEWS * 2)
    );
    bare.stop()?;
    Ok(())
}

/// Median latency of one connection, in seconds, and reviews a second of several.
async fn round(client: &reqwest::Client, port: u16, body: &str) -> Result<(f64, f64)> {
    let mut times = Vec::with_capacity(REVIEWS);
    for _ in 0..REVIEWS {
        let began = Instant::now();
        post(client, port, body, true).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    let workers = (0..CONNECTIONS).map(|_| async {
        for _ in 0..REVIEWS / CONNECTIONS {
            post(client, port, body, true).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(workers).await?;
    Ok((median(&mut times), REVIEWS as f64 / began.elapsed().as_secs_f64()))
}

/// Opens a closed gate again and again, each time from nothing.
async fn opening(world: &SmallWorld) -> Result<()> {
    let (side, vault) = (&world.side, &world.vault);
    let (mut added, mut total, mut keys, mut ready) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..OPENINGS {
        let gate = Gate::launch(side, vault, Options::default()).await?;
        ready.push(gate.ready_after.as_secs_f64());
        let client = client(side).await?;
        let began = Instant::now();
        post(&client, gate.port(), &review("istiod"), false).await?;
        let took = began.elapsed().as_secs_f64();
        let log = gate.process.log();
        let line = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let made = line.into_iter().find(|line| line["message"] == "made a root key").context("no key was made")?;
        let key = made["seconds"].as_f64().context("no seconds")?;
        total.push(took);
        keys.push(key);
        added.push(took - key);
        ensure!(gate.process.terminate().await?.success());
        side.delete_cacerts().await?;
        side.cluster.kubectl(&["-n", NAMESPACE, "delete", "configmap", "istio-ca-gate"]).await?;
        vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
    }
    println!(
        "opening a closed gate: {:.3} s, of which RSA {:.3} s; all else {:.3} s, at most {:.3} s (medians of {OPENINGS})",
        median(&mut total),
        median(&mut keys),
        median(&mut added),
        added[OPENINGS - 1]
    );
    println!("cold start to ready: {:.3} s, at most {:.3} s", median(&mut ready), ready[OPENINGS - 1]);
    Ok(())
}

async fn post(client: &reqwest::Client, port: u16, body: &str, once: bool) -> Result<()> {
    let url = format!("https://127.0.0.1:{port}/validate?timeout=30s");
    loop {
        let answer = client.post(&url).body(body.to_owned()).send().await?.bytes().await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer["response"]["allowed"] == true {
            return Ok(());
        }
        ensure!(!once, "{answer}");
    }
}

/// A review of the size and shape of a real one, of a pod with this `app`.
fn review(app: &str) -> String {
    let container = json!({ "name": "discovery", "image": "registry.example/pilot:1", "args": vec!["--argument"; 20],
        "env": vec![json!({ "name": "NAME", "value": "value" }); 40] });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "name": "", "namespace": NAMESPACE, "operation": "CREATE", "dryRun": false,
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": { "apiVersion": "v1", "kind": "Pod",
                "metadata": { "generateName": "istiod-5d4f8-", "namespace": NAMESPACE, "labels": { "app": app } },
                "spec": { "containers": [container] } },
            "oldObject": null, "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
    .to_string()
}

async fn client(side: &world::Side) -> Result<reqwest::Client> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istio-ca-gate-tls");
    let (_, secret) = side.cluster.request("GET", &path, None).await?;
    let ca: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    with_ca(&ca.0)
}

fn with_ca(pem: &[u8]) -> Result<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem_bundle(pem)?;
    Ok(reqwest::Client::builder().http1_only().tls_certs_only(certificates).build()?)
}

/// The least that a webhook on hyper can do: TLS, read the body, send a fixed answer.
async fn bare(port: u16, ca_file: &str) -> Result<()> {
    let (now, life) = (Timestamp::now(), SignedDuration::from_hours(1));
    let ca = ServingCa::make(now, life).map_err(anyhow::Error::msg)?;
    let serving = Serving::issue(&ca, &["127.0.0.1".to_owned()], now, life).map_err(anyhow::Error::msg)?;
    let acceptor = TlsAcceptor::from(serving::server_config(serving, None));
    let bound = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    std::fs::write(ca_file, ca.certificate_pem())?;
    let answer = Arc::new(
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true,
        "auditAnnotations": { "root-sha256": "0".repeat(64) } } })
        .to_string(),
    );
    loop {
        let (stream, _) = bound.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(bytes::Bytes::from(answer.to_string()))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident memory, kB.
fn rss(gate: &Gate) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
