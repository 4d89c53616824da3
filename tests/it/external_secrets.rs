//! A `cacerts` that External Secrets manages: recognised, asked for, and never written.

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::gate::{Gate, review};
use crate::kubernetes::{Kubernetes, SECRETS};
use crate::vault::{self, READ, version};
use standin::scripted::StandIn;

const EXTERNAL_SECRETS: &str = "/apis/external-secrets.io/v1/namespaces/istio-system/externalsecrets";
const ASK: &str = "PATCH /apis/external-secrets.io/v1/namespaces/istio-system/externalsecrets/istio-cacerts";
const WRITE: &str = "PATCH /api/v1/namespaces/istio-system/secrets/cacerts";

/// A cluster whose `cacerts` has the label of External Secrets, no owner reference, and another root than Vault's.
async fn world() -> Result<(Kubernetes, StandIn)> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    let labels = json!({ "reconcile.external-secrets.io/managed": "true" });
    let other = Authority::new("Other")?.secret_data();
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts", "labels": labels }, "data": other }))?;
    kubernetes
        .put(EXTERNAL_SECRETS, json!({ "metadata": { "name": "other" }, "spec": { "target": { "name": "x" } } }))?;
    Ok((kubernetes, vault))
}

fn put(kubernetes: &Kubernetes, annotations: Value) -> Result<()> {
    let metadata = json!({ "name": "istio-cacerts", "annotations": annotations });
    kubernetes
        .put(EXTERNAL_SECRETS, json!({ "metadata": metadata, "spec": { "target": { "name": "cacerts" } } }))
        .map(drop)
}

async fn message(gate: &Gate) -> Result<String> {
    let response = gate.review("?timeout=10s", &review("istiod")).await?;
    ensure!(response["status"]["reason"] == "CacertsManagedElsewhere", "{response}");
    Ok(response["status"]["message"].as_str().context("no message")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_owner_reference_the_external_secret_is_found_by_its_target_and_asked_once() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    put(&kubernetes, json!({}))?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    for _ in 0..3 {
        message(&gate).await?;
    }
    let server = &gate.kubernetes.server;
    ensure!(server.count(ASK) == 1 && server.count(WRITE) == 0, "{:?}", server.lines());
    let asked = gate.kubernetes.get(EXTERNAL_SECRETS, "istio-cacerts").context("it is gone")?;
    let at: i64 = asked["metadata"]["annotations"]["force-sync"].as_str().context("not asked")?.parse()?;
    ensure!((Timestamp::now().as_second() - at).abs() < 60, "{at}");
    let other = gate.kubernetes.get(EXTERNAL_SECRETS, "other").context("it is gone")?;
    ensure!(other["metadata"]["annotations"].is_null(), "{other}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_has_just_asked_for_is_not_asked_for_again() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    put(&kubernetes, json!({ "force-sync": Timestamp::now().as_second().to_string() }))?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    message(&gate).await?;
    ensure!(gate.kubernetes.server.count(&format!("GET {EXTERNAL_SECRETS}")) == 1);
    ensure!(gate.kubernetes.server.count(ASK) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_was_left_behind_is_told_and_still_respected() -> Result<()> {
    let (kubernetes, vault) = world().await?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    let first = message(&gate).await?;
    ensure!(first.contains("no ExternalSecret makes it any more"), "{first}");
    ensure!(message(&gate).await? == first && gate.kubernetes.server.count(WRITE) == 0);
    Ok(())
}
