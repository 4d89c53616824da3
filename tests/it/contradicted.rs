//! `cacerts`, where what the API server's watch tells and what its reads tell are not the same.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::eventually;

use crate::certificates::Authority;
use crate::gate::{Gate, SOON, review};
use crate::kubernetes::{Kubernetes, SECRETS};
use crate::vault::{self, READ, version};
use standin::scripted::{Answer, StandIn};

const CACERTS: &str = "GET /api/v1/namespaces/istio-system/secrets/cacerts";

/// A list of one Secret, or a watch.
const LIST: &str = "GET /api/v1/namespaces/istio-system/secrets";

/// A `cacerts` of somebody else's with the files of this CA.
fn cacerts(authority: &Authority) -> Value {
    json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() })
}

/// A gate that follows a sound `cacerts` with Vault's root, and is open.
async fn open(authority: &Authority) -> Result<(Gate, StandIn)> {
    let vault = vault::start().await?;
    vault.always(READ, version(1, &authority.record()));
    let kubernetes = Kubernetes::start().await?;
    // Its watches stay alive, and tell of nothing.
    kubernetes.server.always(&format!("WATCH {SECRETS}"), Answer::watch());
    // Not the first version.
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "another" } }))?;
    kubernetes.put(SECRETS, cacerts(authority))?;
    let gate = Gate::watching(kubernetes, &vault).await?;
    is_allowed(&gate, true).await?;
    Ok((gate, vault))
}

/// Waits until gated pods are let in, or are not. Returns the answer.
async fn is_allowed(gate: &Gate, allowed: bool) -> Result<Value> {
    eventually("the gate to turn", SOON, || async {
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["allowed"] == allowed, "{response}");
        anyhow::Ok(response)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_the_watch_never_told_closes_the_gate_while_vault_is_away() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let (gate, vault) = open(&authority).await?;
    vault.always(READ, Answer::html(503));
    gate.state.webhook.converger.wake();
    let bridged = || async {
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(!response["warnings"].is_null(), "{response}");
        anyhow::Ok(response)
    };
    let response = eventually("the outage to be bridged", SOON, bridged).await?;
    ensure!(response["allowed"] == true, "{response}");

    let (watches, reads) = (gate.kubernetes.server.count(LIST), gate.kubernetes.server.count(CACERTS));
    gate.kubernetes.delete(SECRETS, "cacerts")?;
    let response = is_allowed(&gate, false).await?;
    ensure!(response["status"]["reason"] == "VaultUnreachable", "{response}");
    ensure!(gate.kubernetes.server.count(CACERTS) > reads, "nobody has read it");
    let anew = || async { (gate.kubernetes.server.count(LIST) >= watches + 2).then_some(()) };
    eventually("the watch to begin anew", SOON, anew).await?;
    // And it stays so.
    let response = gate.review("?timeout=10s", &review("istiod")).await?;
    ensure!(response["allowed"] == false, "{response}");

    // What is back opens it again.
    gate.kubernetes.put(SECRETS, cacerts(&authority))?;
    is_allowed(&gate, true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_a_version_that_is_gone_opens_nothing() -> Result<()> {
    let (ours, theirs) = (Authority::new("Istio Root CA")?, Authority::new("Other")?);
    let vault = vault::start().await?;
    vault.always(READ, version(1, &ours.record()));
    let kubernetes = Kubernetes::start().await?;
    kubernetes.put(SECRETS, cacerts(&ours))?;
    let old = kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    // Replaced, as the list tells; reads are answered by a server that is behind.
    kubernetes.put(SECRETS, cacerts(&theirs))?;
    kubernetes.server.always(CACERTS, Answer::json(200, &old));
    let gate = Gate::watching(kubernetes, &vault).await?;
    let listed = || async { (gate.kubernetes.server.count(LIST) >= 2).then_some(()) };
    eventually("the list to be answered", SOON, listed).await?;
    for _ in 0..3 {
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["allowed"] == false, "{response}");
        ensure!(response["status"]["reason"] == "KubernetesUnreachable", "{response}");
    }
    ensure!(gate.kubernetes.server.count(CACERTS) >= 3);

    // It has caught up.
    let new = gate.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    gate.kubernetes.server.always(CACERTS, Answer::json(200, &new));
    let changed = || async {
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["status"]["reason"] == "RootChanged", "{response}");
        anyhow::Ok(())
    };
    eventually("the new one to be told", SOON, changed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_whose_versions_went_back_is_believed_once_its_list_agrees() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let (gate, _vault) = open(&authority).await?;
    // etcd was restored: the same Secret, of an older version, in lists and reads.
    let mut restored = gate.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    let version = json!("1");
    ensure!(restored["metadata"]["resourceVersion"] != version);
    restored["metadata"]["resourceVersion"] = version.clone();
    gate.kubernetes.server.always(CACERTS, Answer::json(200, &restored));
    let list = json!({ "metadata": { "resourceVersion": version }, "items": [restored] });
    gate.kubernetes.server.always(LIST, Answer::json(200, &list));
    gate.state.webhook.converger.wake();
    let told = || async {
        let report = gate.send("GET", "/fingerprint", b"").await?.json()?;
        ensure!(report["cacerts"]["resourceVersion"] == version && report["state"] == "open", "{report}");
        anyhow::Ok(())
    };
    eventually("the restored one to be told", SOON, told).await?;
    is_allowed(&gate, true).await?;
    Ok(())
}
