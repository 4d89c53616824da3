//! The HelmRelease of a blocked pod, and asking Flux to reconcile it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::eventually;
use testbed::side::NAMESPACE;

use crate::certificates::Authority;
use crate::gate::{Gate, SOON, review};
use crate::kubernetes::{DEPLOYMENTS, Kubernetes, REPLICA_SETS, SECRETS, pods, status};
use crate::product::Product;
use crate::vault::{self, READ, never_written, version};
use crate::world::{self, World};
use standin::scripted::{Answer, StandIn};

const RELEASES: &str = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/flux-system/helmreleases";
const READ_OWNER: &str = "GET /apis/apps/v1/namespaces/istio-system/replicasets/istiod-7d4b9c";
const READ_RELEASE: &str = "GET /apis/helm.toolkit.fluxcd.io/v2/namespaces/flux-system/helmreleases/istiod";
const ASK: &str = "PATCH /apis/helm.toolkit.fluxcd.io/v2/namespaces/flux-system/helmreleases/istiod";
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";
const RESET: &str = "reconcile.fluxcd.io/resetAt";

/// A pod of the ReplicaSet with this uid.
pub fn owned_review(uid: &str) -> Value {
    let mut review = review("istiod");
    review["request"]["object"]["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
    review
}

/// A pod of the ReplicaSet below.
fn owned(kubernetes: &Kubernetes) -> Result<Value> {
    let set = kubernetes.get(REPLICA_SETS, "istiod-7d4b9c").context("no ReplicaSet")?;
    Ok(owned_review(set["metadata"]["uid"].as_str().context("no uid")?))
}

/// istiod as Flux has installed it: only the Deployment has its labels. Returns the uid of the ReplicaSet.
pub fn install_istiod(kubernetes: &Kubernetes, replica_set: Value) -> Result<String> {
    let labels = json!({ "helm.toolkit.fluxcd.io/name": "istiod", "helm.toolkit.fluxcd.io/namespace": "flux-system" });
    let metadata = json!({ "name": "istiod", "labels": labels });
    let deployment = kubernetes.put(DEPLOYMENTS, json!({ "metadata": metadata, "spec": pods("istiod", 1) }))?;
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "istiod", "controller": true,
        "uid": deployment["metadata"]["uid"],
    });
    let metadata = json!({ "name": "istiod-7d4b9c", "ownerReferences": [owner] });
    let mut set = json!({ "metadata": metadata, "spec": pods("istiod", 1) });
    for (key, value) in replica_set.as_object().into_iter().flatten() {
        set[key] = value.clone();
    }
    let set = kubernetes.put(REPLICA_SETS, set)?;
    Ok(set["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

fn blocked() -> Value {
    let message = "admission webhook \"app.istio-ca-gate.io\" denied the request: RootMissing: cluster nas: none";
    let failure = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
    json!({ "status": { "replicas": 0, "conditions": [failure] } })
}

fn put_release(kubernetes: &Kubernetes, annotations: Value) -> Result<()> {
    let metadata = json!({ "name": "istiod", "annotations": annotations });
    kubernetes.put(RELEASES, json!({ "metadata": metadata })).map(drop)
}

fn annotations(kubernetes: &Kubernetes) -> Result<Value> {
    Ok(kubernetes.get(RELEASES, "istiod").context("no HelmRelease")?["metadata"]["annotations"].clone())
}

/// An API server with istiod in it, and a Vault without a root.
async fn held() -> Result<(Kubernetes, StandIn)> {
    let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
    vault.always(READ, never_written());
    install_istiod(&kubernetes, json!({}))?;
    put_release(&kubernetes, json!({}))?;
    Ok((kubernetes, vault))
}

async fn message(gate: &Gate, review: &Value) -> Result<String> {
    let response = gate.review("?timeout=10s", review).await?;
    ensure!(response["status"]["reason"] == "RootMissing", "{response}");
    Ok(response["status"]["message"].as_str().context("no message")?.to_owned())
}

/// Waits until the gate lets the pod in.
async fn opens(gate: &Gate) -> Result<()> {
    eventually("the gate to open", SOON, || async {
        let response = gate.review("?timeout=10s", &owned(&gate.kubernetes)?).await?;
        ensure!(response["allowed"] == true, "{response}");
        Ok(())
    })
    .await
}

async fn asked(kubernetes: &Kubernetes) -> Result<()> {
    eventually("Flux to be asked", SOON, || async {
        let annotations = annotations(kubernetes)?;
        let at = annotations[REQUESTED].as_str().context("not yet")?;
        at.parse::<Timestamp>()?;
        ensure!(annotations[RESET] == at, "{annotations}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_names_the_helm_release_of_its_pod_and_looks_it_up_once() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    let first = message(&gate, &owned(&gate.kubernetes)?).await?;
    ensure!(first.ends_with(" (HelmRelease flux-system/istiod)"), "{first}");
    ensure!(message(&gate, &owned(&gate.kubernetes)?).await? == first);
    ensure!(gate.kubernetes.server.count(READ_OWNER) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_object_of_the_owners_name_names_nothing() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    let mut review = owned(&gate.kubernetes)?;
    review["request"]["object"]["metadata"]["ownerReferences"][0]["uid"] = json!("uid-other");
    ensure!(!message(&gate, &review).await?.contains("HelmRelease"));
    ensure!(gate.kubernetes.server.count(READ_OWNER) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_leaves_the_release_out_and_is_not_tried_again_for_each_denial() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    kubernetes.server.always(READ_OWNER, status(403, "Forbidden"));
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    for _ in 0..3 {
        ensure!(!message(&gate, &owned(&gate.kubernetes)?).await?.contains("HelmRelease"));
    }
    ensure!(gate.kubernetes.server.count(READ_OWNER) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_delays_a_denial_by_less_than_its_margin() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    kubernetes.server.always(READ_OWNER, Answer::silence());
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    // Backing off, so that the denial itself comes at once.
    message(&gate, &review("istiod")).await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let began = Instant::now();
        ensure!(!message(&gate, &owned(&gate.kubernetes)?).await?.contains("HelmRelease"));
        slowest = slowest.max(began.elapsed());
    }
    ensure!(gate.kubernetes.server.count(READ_OWNER) == 1, "the fault has not hit once");
    ensure!(slowest < Duration::from_secs(5), "{slowest:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_let_in_is_not_looked_up() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    ensure!(gate.review("?timeout=10s", &owned(&gate.kubernetes)?).await?["allowed"] == true);
    ensure!(gate.kubernetes.server.count(READ_OWNER) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_gate_opens_flux_is_asked_to_reconcile_and_only_once() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    let gate = Gate::reconciling(kubernetes, &vault, &["flux-system/istiod"]).await?;
    message(&gate, &owned(&gate.kubernetes)?).await?;
    ensure!(gate.kubernetes.server.count(ASK) == 0, "it was asked while held");
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    opens(&gate).await?;
    asked(&gate.kubernetes).await?;
    // More of the same opening: also after another attempt.
    gate.kubernetes.put(SECRETS, json!({ "metadata": { "name": "other" } }))?;
    opens(&gate).await?;
    ensure!(gate.kubernetes.server.count(ASK) == 1);
    let token = &gate.kubernetes.server.of(ASK)[0].json()["metadata"]["resourceVersion"];
    ensure!(token.is_string(), "a write without the version of its read");
    Ok(())
}

/// A cluster that is as it should be, before the gate starts.
async fn open_already(replica_set: Value) -> Result<(Kubernetes, StandIn)> {
    let (kubernetes, vault, authority) =
        (Kubernetes::start().await?, vault::start().await?, Authority::new("Istio Root CA")?);
    vault.always(READ, version(1, &authority.record()));
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() }))?;
    install_istiod(&kubernetes, replica_set)?;
    put_release(&kubernetes, json!({}))?;
    Ok((kubernetes, vault))
}

#[tokio::test(flavor = "multi_thread")]
async fn open_at_start_it_asks_only_if_something_is_blocked() -> Result<()> {
    let (kubernetes, vault) = open_already(blocked()).await?;
    let gate = Gate::reconciling(kubernetes, &vault, &["flux-system/istiod"]).await?;
    opens(&gate).await?;
    asked(&gate.kubernetes).await?;

    let (kubernetes, vault) = open_already(json!({})).await?;
    let gate = Gate::reconciling(kubernetes, &vault, &["flux-system/istiod"]).await?;
    opens(&gate).await?;
    // The pass over owners is what decides; its last list is of Jobs, in all namespaces.
    eventually("a pass over blocked owners", SOON, || async {
        let passed = gate.kubernetes.server.count("GET /apis/batch/v1/jobs") > 0;
        passed.then_some(())
    })
    .await?;
    opens(&gate).await?;
    ensure!(gate.kubernetes.server.count(READ_RELEASE) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_has_just_asked_for_is_not_asked_for_again() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    let now = Timestamp::now().to_string();
    put_release(&kubernetes, json!({ REQUESTED: now, RESET: now }))?;
    let gate = Gate::reconciling(kubernetes, &vault, &["flux-system/istiod"]).await?;
    message(&gate, &owned(&gate.kubernetes)?).await?;
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    opens(&gate).await?;
    eventually("the HelmRelease to be read", SOON, || async {
        (gate.kubernetes.server.count(READ_RELEASE) > 0).then_some(())
    })
    .await?;
    opens(&gate).await?;
    ensure!(gate.kubernetes.server.count(ASK) == 0 && annotations(&gate.kubernetes)?[REQUESTED] == now);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_flux_works_on_is_read_and_written_anew() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    kubernetes.server.once(ASK, status(409, "Conflict"));
    kubernetes.server.once(ASK, status(409, "Conflict"));
    let gate = Gate::reconciling(kubernetes, &vault, &["flux-system/istiod"]).await?;
    message(&gate, &owned(&gate.kubernetes)?).await?;
    vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    opens(&gate).await?;
    asked(&gate.kubernetes).await?;
    ensure!(gate.kubernetes.server.waiting() == 0 && gate.kubernetes.server.count(ASK) == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_logged_with_where_to_get_it_and_tried_again() -> Result<()> {
    let (kubernetes, vault) = held().await?;
    // For its Event, and to ask for a reconciliation.
    kubernetes.server.once(READ_RELEASE, status(403, "Forbidden"));
    kubernetes.server.once(READ_RELEASE, status(403, "Forbidden"));
    let flags = ["--role", "sync", "--retry-max", "100ms", "--reconcile-helmrelease", "flux-system/istiod"];
    let product = Product::start(kubernetes, vault, &flags).await?;
    let client = product.client()?;
    let (_, text) = product.post(&client, owned(&product.kubernetes)?.to_string().into()).await?;
    ensure!(text.contains("(HelmRelease flux-system/istiod)"), "{text}");
    product.vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    product.allows(&owned(&product.kubernetes)?).await?;
    asked(&product.kubernetes).await?;
    ensure!(product.kubernetes.server.waiting() == 0);
    let told = || async { product.process.log().contains("asked Flux to reconcile").then_some(()) };
    product.process.until("that it is logged", SOON, told).await?;
    let log = product.process.log();
    ensure!(log.contains("deploy/kustomize/components/flux-reconcile"), "{log}");
    let denied = log.lines().find(|line| line.contains("\"denied\"")).context("no denial in the log")?;
    ensure!(denied.contains("\"helm_release\":\"flux-system/istiod\""), "{denied}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_of_the_manifests_the_release_and_the_event_are_at_the_blocked_replica_set() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let nas = &world.nas;
    let gate = world::Gate::start(nas, &world.vault, folder.path(), &[]).await?;
    let (labels, flux) = (json!({ "app": "istiod" }), "helm.toolkit.fluxcd.io");
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "istiod", "namespace": NAMESPACE, "labels": {
            format!("{flux}/name"): "istiod", format!("{flux}/namespace"): "flux-system",
        } },
        "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "discovery", "image": "registry.example/istio" }] },
        } },
    });
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let (status, answer) = nas.api.request("POST", &path, Some(deployment)).await?;
    ensure!(status == 201, "{answer}");
    let refusal = nas.refusal("istiod", "RootMissing").await?;
    ensure!(refusal.ends_with(" (HelmRelease flux-system/istiod)"), "{refusal}");
    let events = format!("/api/v1/namespaces/{NAMESPACE}/events");
    eventually("the Event", SOON, || async {
        let events = nas.object(&events).await?.context("no events")?;
        let told = events["items"].as_array().into_iter().flatten().find(|event| event["reason"] == "GateHeld");
        let told = told.with_context(|| gate.log())?;
        ensure!(told["involvedObject"]["kind"] == "ReplicaSet", "{told}");
        ensure!(told["message"].as_str().is_some_and(|message| refusal.ends_with(message)), "{told}");
        Ok(())
    })
    .await?;
    gate.stop().await
}
