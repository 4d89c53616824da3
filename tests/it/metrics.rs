//! `/metrics` over a real socket: what is counted, and what is read off. A real Prometheus library reads it in `tests/real`.

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificates::Authority;
use crate::gate::{Gate, review, review_but};
use crate::vault::{self, READ, version};
use serde_json::json;
use standin::scripted::Answer;
use testbed::eventually;

/// The value of a sample, by its whole line up to the value, but for what all samples carry.
async fn sample(gate: &Gate, series: &str) -> Result<f64> {
    let reply = gate.send("GET", "/metrics", b"").await?;
    ensure!(reply.status == 200 && reply.content_type.starts_with("text/plain; version=0.0.4"), "{reply:?}");
    for line in reply.body.lines().filter(|line| !line.starts_with('#')) {
        ensure!(line.contains("cluster=\"nas\"") && line.contains("role=\"sync\""), "{line}");
    }
    let body = reply.body.replace("cluster=\"nas\"", "").replace("role=\"sync\"", "");
    let body = body.replace(",,", ",").replace("{,", "{").replace(",}", "}").replace(",,", ",").replace("{}", "");
    let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {series} in {}", reply.body))?.parse()?)
}

fn admissions(endpoint: &str, decision: &str, reason: &str) -> String {
    let labels = format!("decision=\"{decision}\",endpoint=\"{endpoint}\",reason=\"{reason}\"");
    format!("istio_ca_gate_admission_requests_total{{{labels}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_admission_call_is_counted_once_by_its_decision() -> Result<()> {
    let vault = vault::start().await?;
    let gate = Gate::converging(&vault).await?;
    gate.review("", &review("other")).await?;
    for _ in 0..2 {
        gate.review("", &review("istiod")).await?;
    }
    gate.send("POST", "/mutate", review("istiod").to_string().as_bytes()).await?;
    gate.review("", &review_but("istiod", json!({ "dryRun": true }))).await?;
    gate.post("{").await?;

    for (series, times) in [
        (admissions("validate", "not_gated", ""), 1.0),
        (admissions("validate", "denied", "RootMissing"), 3.0),
        (admissions("mutate", "denied", "RootMissing"), 1.0),
        (admissions("validate", "malformed", ""), 1.0),
        ("istio_ca_gate_admission_duration_seconds_count".to_owned(), 6.0),
        ("istio_ca_gate_admission_in_flight".to_owned(), 0.0),
        ("istio_ca_gate_open".to_owned(), 0.0),
    ] {
        ensure!(sample(&gate, &series).await? == times, "{series}");
    }
    let held = r#"istio_ca_gate_convergences_total{outcome="RootMissing",step="hold"}"#;
    ensure!(sample(&gate, held).await? >= 1.0);
    ensure!(sample(&gate, "istio_ca_gate_convergence_duration_seconds_count").await? >= 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_gate_tells_its_roots_and_what_it_asked_of_vault() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    vault.always(READ, version(4, &authority.record()));
    let gate = Gate::converging(&vault).await?;
    gate.review("", &review("istiod")).await?;

    let root = Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).openssl();
    for (series, value) in [
        ("istio_ca_gate_open".to_owned(), 1.0),
        (admissions("validate", "allowed", ""), 1.0),
        (r#"istio_ca_gate_convergences_total{outcome="open",step="publish"}"#.to_owned(), 1.0),
        (format!(r#"istio_ca_gate_root_info{{sha256="{root}",source="vault"}}"#), 1.0),
        (format!(r#"istio_ca_gate_root_info{{sha256="{root}",source="cacerts"}}"#), 1.0),
        (r#"istio_ca_gate_vault_requests_total{code="200",operation="login"}"#.to_owned(), 1.0),
        (format!(r#"istio_ca_gate_build_info{{version="{}"}}"#, istio_ca_gate::VERSION), 1.0),
    ] {
        ensure!(sample(&gate, &series).await? == value, "{series}");
    }
    let reads = r#"istio_ca_gate_vault_requests_total{code="200",operation="read"}"#;
    ensure!(sample(&gate, reads).await? >= 2.0, "every publish is read back");
    let end = |source: &str| format!(r#"istio_ca_gate_root_not_after_timestamp_seconds{{source="{source}"}}"#);
    ensure!(sample(&gate, &end("vault")).await? == sample(&gate, &end("cacerts")).await?);
    let until = |source: &str| format!(r#"istio_ca_gate_usable_until_timestamp_seconds{{source="{source}"}}"#);
    ensure!(sample(&gate, &until("vault")).await? == sample(&gate, &until("cacerts")).await?);
    ensure!(sample(&gate, &until("vault")).await? > 1.7e9);
    ensure!(sample(&gate, "istio_ca_gate_last_verified_timestamp_seconds").await? > 1.7e9);
    ensure!(sample(&gate, "process_resident_memory_bytes").await? > 1e6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_caller_gives_up_is_counted_and_leaves_none_in_flight() -> Result<()> {
    let vault = vault::start().await?;
    vault.always(READ, Answer::silence());
    let gate = Gate::converging(&vault).await?;
    let review = review("istiod");
    let call = gate.review("?timeout=30s", &review);
    let waiting = eventually("the call to be in flight", crate::gate::SOON, || async {
        ensure!(sample(&gate, "istio_ca_gate_admission_in_flight").await? == 1.0);
        Ok(())
    });
    tokio::select! {
        answered = call => anyhow::bail!("answered: {answered:?}"),
        waited = waiting => waited?,
    }
    eventually("the call to be given up", crate::gate::SOON, || async {
        ensure!(sample(&gate, &admissions("validate", "abandoned", "")).await? == 1.0);
        ensure!(sample(&gate, "istio_ca_gate_admission_in_flight").await? == 0.0);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_for_want_of_time_names_what_it_waited_for() -> Result<()> {
    let vault = vault::start().await?;
    vault.always(READ, Answer::silence());
    let gate = Gate::converging(&vault).await?;
    let response = gate.review("?timeout=2s", &review("istiod")).await?;
    let message = response["status"]["message"].as_str().unwrap_or_default();
    ensure!(response["status"]["reason"] == "Converging", "{response}");
    ensure!(message.contains("which waits for Vault to tell its root;"), "{message}");
    Ok(())
}
