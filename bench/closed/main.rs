//! How long a closed gate takes to open, and what of that is for what; how long its key takes. On a real Kubernetes and a real
//! Vault:
//!
//!     cargo bench --bench closed
//!
//! `-- keys` makes 200 keys, and needs neither.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../../tests/real/gate.rs"]
mod gate;
mod keys;
mod picture;
#[path = "../../tests/real/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use gate::{Gate, Options};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use world::{NAMESPACE, SmallWorld};

/// Openings of a closed gate.
const OPENINGS: usize = 15;

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(opening()),
        ["keys"] => keys::distribution(),
        _ => bail!("not known: {words:?}"),
    }
}

/// Opens a closed gate again and again, each time from nothing.
async fn opening() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut note = |name: &str, seconds| parts.entry(name.to_owned()).or_default().push(seconds);
    for _ in 0..OPENINGS {
        let gate = Gate::launch(side, vault, Options::default()).await?;
        note("start to ready", gate.ready_after.as_secs_f64());
        let client = client(side).await?;
        let (began, at) = (Instant::now(), Timestamp::now());
        post(&client, gate.port(), &review()).await?;
        let took = began.elapsed().as_secs_f64();
        let found = split(&gate.process.log(), at, took)?;
        let key = found.get(KEY).copied().context("no key was made")?;
        note("all", took);
        note("all but the key", took - key);
        for (name, seconds) in found {
            note(&name, seconds);
        }
        ensure!(gate.process.terminate().await?.success());
        side.delete_cacerts().await?;
        side.cluster.kubectl(&["-n", NAMESPACE, "delete", "configmap", "istio-ca-gate"]).await?;
        vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
    }
    println!("| what | min | median | max |\n| --- | --- | --- | --- |");
    for (name, seconds) in &mut parts {
        seconds.sort_by(f64::total_cmp);
        let [least, middle, most] = [seconds[0], seconds[seconds.len() / 2], seconds[seconds.len() - 1]];
        println!("| {name} | {least:.3} s | {middle:.3} s | {most:.3} s |");
    }
    let middle = |name: &str| parts.get(name).map_or(0.0, |seconds| seconds[seconds.len() / 2]);
    let stages: Vec<_> = STAGES.iter().map(|(_, name)| (*name, middle(name))).collect();
    picture::stages("docs/pictures/opening.svg", &stages)
}

const KEY: &str = "RSA 4096";
const LOGIN: &str = "login";

/// What an attempt says that it waits for, and what that is here.
const STAGES: [(&str, &str); 7] = [
    ("the API server to tell cacerts", "read cacerts and the pin"),
    ("the login", LOGIN),
    ("Vault to tell its root", "read Vault"),
    ("the new root's key to be made", KEY),
    ("Vault to take the new root", "write Vault"),
    ("the API server to take cacerts", "publish cacerts"),
    ("the API server to take the pin", "write the pin, watch, answer"),
];

/// What the log says of an opening that began then and took so long, in seconds.
fn split(log: &str, began: Timestamp, took: f64) -> Result<BTreeMap<String, f64>> {
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    let mut last: Option<(f64, &str)> = None;
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let at: Timestamp = line["timestamp"].as_str().context("no timestamp")?.parse()?;
        let at = (at - began).total(k8s_openapi::jiff::Unit::Second)?;
        if at < 0.0 || at > took {
            continue;
        }
        if line["message"] == "an attempt goes on" {
            let waits_for = line["waits_for"].as_str().unwrap_or_default();
            let (_, name) = STAGES.iter().find(|(said, _)| *said == waits_for).context("another stage")?;
            if let Some((since, before)) = last.replace((at, name)) {
                *found.entry(before.to_owned()).or_default() += at - since;
            } else {
                *found.entry(STAGES[0].1.to_owned()).or_default() += at;
            }
        }
        if line["message"] == "asked Vault" && line["operation"] == "login" {
            let seconds = line["seconds"].as_f64().context("no seconds")?;
            *found.entry(LOGIN.to_owned()).or_default() += seconds;
            *found.entry(STAGES[2].1.to_owned()).or_default() -= seconds;
        }
    }
    let (since, name) = last.context("no attempt")?;
    *found.entry(name.to_owned()).or_default() += took - since;
    Ok(found)
}

async fn post(client: &reqwest::Client, port: u16, body: &str) -> Result<()> {
    let url = format!("https://127.0.0.1:{port}/validate?timeout=30s");
    let answer = client.post(&url).body(body.to_owned()).send().await?.bytes().await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    ensure!(answer["response"]["allowed"] == true, "{answer}");
    Ok(())
}

fn review() -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": NAMESPACE, "operation": "CREATE", "dryRun": false,
            "object": { "metadata": { "generateName": "istiod-5d4f8-", "labels": { "app": "istiod" } }, "spec": {} },
        },
    })
    .to_string()
}

async fn client(side: &world::Side) -> Result<reqwest::Client> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istio-ca-gate-tls");
    let (_, secret) = side.cluster.request("GET", &path, None).await?;
    let ca: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    let certificates = reqwest::Certificate::from_pem_bundle(&ca.0)?;
    Ok(reqwest::Client::builder().http1_only().tls_certs_only(certificates).build()?)
}
