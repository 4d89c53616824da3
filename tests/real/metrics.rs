//! What Prometheus' own library reads of `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testbed::binaries;

use crate::gate::Gate;
use crate::world::{SOON, SmallWorld};

#[derive(Debug, Deserialize)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The names that dashboards and alerts rely on, apart from those that are there only with a certificate from files or
/// a self-test.
const NAMES: [&str; 14] = [
    "istio_ca_gate_admission_requests_total",
    "istio_ca_gate_admission_duration_seconds",
    "istio_ca_gate_admission_in_flight",
    "istio_ca_gate_convergences_total",
    "istio_ca_gate_convergence_duration_seconds",
    "istio_ca_gate_open",
    "istio_ca_gate_root_info",
    "istio_ca_gate_root_not_after_timestamp_seconds",
    "istio_ca_gate_serving_certificate_not_after_timestamp_seconds",
    "istio_ca_gate_usable_until_timestamp_seconds",
    "istio_ca_gate_vault_requests_total",
    "istio_ca_gate_last_verified_timestamp_seconds",
    "istio_ca_gate_build_info",
    "process_resident_memory_bytes",
];

/// Scrapes, and has the text read and linted.
async fn scrape(gate: &Gate) -> Result<BTreeMap<String, Vec<Sample>>> {
    let text = reqwest::get(gate.url("metrics")).await?.text().await?;
    ensure!(!text.contains("PRIVATE KEY") && !text.contains("hvs."), "{text}");
    let read = binaries::prometheus()?.output(Some(&text)).await.context(text)?;
    Ok(serde_json::from_str(&read)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_every_promised_metric_and_its_linter_finds_nothing() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let gate = Gate::start(&world.side, &world.vault).await?;
    let before = scrape(&gate).await?;
    ensure!(before["istio_ca_gate_open"][0].value == 0.0 && !before.contains_key("istio_ca_gate_root_info"));

    world.side.deploy_istiod().await?;
    world.side.pod("istiod").await?;
    let metrics = gate.process.until("the scrape after the opening", SOON, || scrape_open(&gate)).await?;
    for name in NAMES {
        ensure!(metrics.contains_key(name), "no {name}");
    }
    for (name, samples) in &metrics {
        let are_ours = |sample: &Sample| sample.labels.contains_key("cluster") && sample.labels["role"] == "bootstrap";
        ensure!(samples.iter().all(are_ours), "{name} does not tell whose it is: {samples:?}");
    }
    let roots: Vec<_> = metrics["istio_ca_gate_root_info"].iter().map(|root| &root.labels["sha256"]).collect();
    ensure!(roots.len() == 2 && roots[0] == roots[1], "{roots:?}");
    let made = metrics["istio_ca_gate_convergences_total"].iter().find(|counted| counted.labels["step"] == "bootstrap");
    ensure!(made.is_some_and(|counted| counted.labels["outcome"] == "open" && counted.value == 1.0));
    let written =
        metrics["istio_ca_gate_vault_requests_total"].iter().find(|asked| asked.labels["operation"] == "write");
    ensure!(written.is_some_and(|asked| asked.labels["code"] == "200" && asked.value == 1.0));
    println!("{} metrics, {} samples", metrics.len(), metrics.values().map(Vec::len).sum::<usize>());
    Ok(())
}

async fn scrape_open(gate: &Gate) -> Result<BTreeMap<String, Vec<Sample>>> {
    let metrics = scrape(gate).await?;
    ensure!(metrics["istio_ca_gate_open"][0].value == 1.0);
    Ok(metrics)
}
