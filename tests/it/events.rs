//! Kubernetes Events: told where people look, and never in anybody's way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::eventually;

use crate::certificates::Authority;
use crate::flux::{install_istiod, owned_review};
use crate::gate::{Gate, SOON, review, review_but};
use crate::kubernetes::{EVENTS, Kubernetes, status};
use crate::product::{Product, world};
use crate::vault::{self, READ, never_written, version};
use standin::scripted::Answer;

const WRITE_EVENT: &str = "POST /api/v1/namespaces/istio-system/events";

/// Waits for an Event of this reason.
async fn event(kubernetes: &Kubernetes, reason: &str) -> Result<Value> {
    eventually(&format!("an Event {reason}"), SOON, || async {
        let events = kubernetes.all(EVENTS);
        let found = events.iter().find(|event| event["reason"] == reason).cloned();
        found.with_context(|| format!("{events:?}"))
    })
    .await
}

fn ensure_about_cacerts(event: &Value) -> Result<()> {
    let about = &event["involvedObject"];
    ensure!(about["kind"] == "Secret" && about["name"] == "cacerts" && about["namespace"] == "istio-system", "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_is_told_from_the_root_to_the_open_gate() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &["--role", "bootstrap", "--cluster", "homelab"]).await?;
    product.allows(&review("istiod")).await?;
    let root = product.get("fingerprint").await?;
    let root: Value = serde_json::from_str(&root)?;
    let root = root["vault"]["sha256"].as_str().context("no root")?;
    for (reason, note) in [
        ("RootBootstrapped", "cluster homelab: made the root and wrote it to secret/istio/ca in Vault".to_owned()),
        ("CacertsPublished", format!("cluster homelab: wrote version 1 of Vault's CA, root {root}")),
        ("GateOpened", "cluster homelab: holds Vault's root: gated pods are let in".to_owned()),
    ] {
        let event = event(&product.kubernetes, reason).await?;
        ensure!(event["message"] == note && event["type"] == "Normal" && event["count"] == 1, "{event}");
        ensure!(event["source"]["component"] == "istio-ca-gate", "{event}");
        ensure_about_cacerts(&event)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_told_at_the_owner_of_the_pod_once_however_many_there_are() -> Result<()> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, never_written());
    let uid = install_istiod(&kubernetes, json!({}))?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    let mut message = Value::Null;
    for _ in 0..20 {
        message = gate.review("?timeout=10s", &owned_review(&uid)).await?["status"]["message"].clone();
    }
    let held = event(&gate.kubernetes, "GateHeld").await?;
    let about = &held["involvedObject"];
    ensure!(about["kind"] == "ReplicaSet" && about["apiVersion"] == "apps/v1" && about["uid"] == *uid, "{held}");
    ensure!(held["type"] == "Warning" && held["message"] == message, "{held}");
    ensure!(
        message.as_str().is_some_and(|text| text.starts_with("RootMissing: ") && text.ends_with("/istiod)")),
        "{message}"
    );
    // Another cause is another Event, and shows that what was told before it is through.
    vault.always(READ, vault::errors(503, &["Vault is sealed"]));
    eventually("an Event of the other cause", SOON, || async {
        gate.review("?timeout=10s", &owned_review(&uid)).await?;
        let told = gate.kubernetes.all(EVENTS);
        ensure!(told.iter().any(|event| event["message"].as_str().is_some_and(|m| m.starts_with("VaultSealed"))));
        ensure!(told.len() == 2, "{told:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_nobody_or_of_another_namespace_is_told_at_cacerts() -> Result<()> {
    let vault = vault::start().await?;
    vault.always(READ, never_written());
    let mut unowned = review("istiod");
    unowned["request"]["object"]["metadata"]["ownerReferences"] = json!([]);
    let mut elsewhere = owned_review("uid-rs");
    elsewhere["request"]["namespace"] = json!("istio-ingress");
    for review in [unowned, elsewhere] {
        let gate = Gate::converging(&vault).await?;
        gate.review("?timeout=10s", &review).await?;
        ensure_about_cacerts(&event(&gate.kubernetes, "GateHeld").await?)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_closes_is_told_without_any_pod() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    let product = Product::start(kubernetes, vault, &["--role", "sync", "--refresh", "100ms"]).await?;
    product.allows(&review("istiod")).await?;
    event(&product.kubernetes, "GateOpened").await?;
    product.vault.always(READ, never_written());
    let held = event(&product.kubernetes, "GateHeld").await?;
    ensure!(held["message"].as_str().is_some_and(|text| text.starts_with("RootDeleted: ")), "{held}");
    ensure_about_cacerts(&held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_nothing() -> Result<()> {
    let vault = vault::start().await?;
    vault.always(READ, never_written());
    let gate = Gate::converging(&vault).await?;
    let dry = gate.review("?timeout=10s", &review_but("istiod", json!({ "dryRun": true }))).await?;
    ensure!(dry["status"]["reason"] == "DryRun", "{dry}");
    // A later one shows that the first would have been through.
    gate.review("?timeout=10s", &review("istiod")).await?;
    event(&gate.kubernetes, "GateHeld").await?;
    ensure!(gate.kubernetes.all(EVENTS).len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_takes_no_events_is_in_nobodys_way() -> Result<()> {
    let vault = vault::start().await?;
    vault.always(READ, never_written());
    let gate = Gate::converging(&vault).await?;
    gate.kubernetes.server.always(WRITE_EVENT, Answer::silence());
    let mut slowest = Duration::ZERO;
    // More than the queue holds, each another Event.
    for n in 0..100 {
        let mut review = owned_review("uid-rs");
        let owner = &mut review["request"]["object"]["metadata"]["ownerReferences"][0];
        (owner["name"], owner["uid"]) = (json!(format!("istiod-{n}")), json!(format!("uid-{n}")));
        let began = Instant::now();
        let response = gate.review("?timeout=10s", &review).await?;
        ensure!(response["status"]["reason"] == "RootMissing", "{response}");
        slowest = slowest.max(began.elapsed());
    }
    ensure!(gate.kubernetes.server.count(WRITE_EVENT) > 0, "the fault has not hit");
    ensure!(slowest < Duration::from_secs(5), "{slowest:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn that_events_are_refused_is_logged_once() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    kubernetes.server.always(WRITE_EVENT, status(403, "Forbidden"));
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    let product = Product::start(kubernetes, vault, &["--role", "sync"]).await?;
    product.allows(&review("istiod")).await?;
    let tried = || async { (product.kubernetes.server.count(WRITE_EVENT) >= 2).then_some(()) };
    product.process.until("both Events to be refused", SOON, tried).await?;
    ensure!(product.process.terminate().await?.success());
    let log = product.process.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("write an Event")).collect();
    ensure!(told.len() == 1 && told[0].contains("KubernetesForbidden"), "{told:?}");
    Ok(())
}
