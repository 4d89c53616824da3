//! Pods that are not let in.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{APPS, Namespace, condition, deployment, reports, text, timeless, unavailable};
use crate::suite::webhook::{Kind, Webhook, allowed, denied};
use crate::suite::{Case, SOON, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_refused_pod_is_told_by_event_and_conditions,
    a_refused_pod_is_tried_again_after_ever_longer_waits,
    a_touched_replica_set_tries_again_at_once,
    a_condition_keeps_the_first_refusal_and_events_tell_each,
    a_pod_that_is_let_in_clears_the_conditions,
    one_refusal_ends_the_attempt_for_all_pods,
    a_refusal_to_be_retried_is_retried_in_place,
    a_refused_replica_set_is_told_by_its_deployment,
    a_pod_is_asked_for_by_the_controllers_account,
];

/// A webhook that lets no pod in, and a Deployment of pods that it sees.
async fn refused(cluster: &KubernetesApi, name: &str, replicas: u32) -> Result<(Webhook, Namespace)> {
    let status = json!({"code": 403, "reason": "RootMissing", "message": "RootMissing: there is none"});
    let webhook = Webhook::start(cluster, name, move |review, _| denied(review, status.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let namespace = Namespace::of(cluster, name);
    namespace.deploy(deployment("web", replicas)).await?;
    Ok((webhook, namespace))
}

fn denial(webhook: &Webhook) -> String {
    format!("admission webhook \"{}\" denied the request: RootMissing: there is none", webhook.name())
}

async fn attempts(webhook: &Webhook, at_least: usize) -> Result<()> {
    let tried = || async {
        let asked = webhook.asked().len();
        ensure!(asked >= at_least, "{asked}");
        Ok(())
    };
    eventually("attempts", SOON, tried).await
}

async fn a_refused_pod_is_told_by_event_and_conditions(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-pod", 1).await?;
    let denial = denial(&webhook);
    let name = text(&namespace.set().await?, "/metadata/name");
    let failed = condition("ReplicaFailure", "True", "FailedCreate", &denial);
    let wanted = json!({"replicas": 0, "observedGeneration": 1, "conditions": [failed]});
    reports(&namespace, APPS, &format!("replicasets/{name}"), &wanted).await?;
    let created = format!("Created new replica set \"{name}\"");
    let progressing = condition("Progressing", "True", "NewReplicaSetCreated", &created);
    let wanted = json!({
        "observedGeneration": 1, "unavailableReplicas": 1, "conditions": [progressing, unavailable(), failed],
    });
    reports(&namespace, APPS, "deployments/web", &wanted).await?;

    attempts(&webhook, 6).await?;
    let counted = || async {
        let events = namespace.events("ReplicaSet", &name).await?;
        let message = format!("Error creating: {denial}");
        let [(kind, reason, told, count)] = events.as_slice() else { anyhow::bail!("{events:?}") };
        ensure!(kind == "Warning" && reason == "FailedCreate" && *told == message && *count >= 6, "{events:?}");
        Ok(())
    };
    eventually("one event that counts", SOON, counted).await?;
    ensure!(namespace.pods().await?.is_empty());
    webhook.end().await
}

async fn a_refused_pod_is_tried_again_after_ever_longer_waits(cluster: &KubernetesApi) -> Result<()> {
    let status = json!({"code": 403, "message": "no"});
    let (times, seen) = std::sync::mpsc::channel();
    let times = std::sync::Mutex::new(times);
    let script = move |review: &Value, _| {
        let _ = times.lock().map(|times| times.send(Instant::now()));
        denied(review, status.clone())
    };
    let webhook = Webhook::start(cluster, "refused-longer", script).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let namespace = Namespace::of(cluster, "refused-longer");
    namespace.deploy(deployment("web", 1)).await?;
    attempts(&webhook, 10).await?;
    let times: Vec<Instant> = seen.try_iter().collect();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first ones are mixed with what the controller's own writes set off.
    let last = &gaps[gaps.len() - 3..];
    ensure!(times[times.len() - 1] - times[0] < Duration::from_secs(12), "{gaps:?}");
    for pair in last.windows(2) {
        let factor = pair[1].as_secs_f64() / pair[0].as_secs_f64();
        ensure!((1.5..3.0).contains(&factor), "{gaps:?}");
    }
    webhook.end().await
}

async fn a_touched_replica_set_tries_again_at_once(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-touched", 1).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    // By now it waits for seconds.
    attempts(&webhook, 10).await?;
    webhook.answers(|review, _| allowed(review));
    let touched = Instant::now();
    let annotation = json!({"metadata": {"annotations": {"touched": "1"}}});
    let generation = namespace.set().await?["metadata"]["generation"].clone();
    let set = namespace.ok("PATCH", APPS, &format!("replicasets/{name}/status"), Some(annotation)).await?;
    ensure!(set["metadata"]["annotations"]["touched"] == "1" && set["metadata"]["generation"] == generation, "{set}");
    namespace.has_pods(1).await?;
    ensure!(touched.elapsed() < Duration::from_secs(1), "{:?}", touched.elapsed());
    webhook.end().await
}

async fn a_condition_keeps_the_first_refusal_and_events_tell_each(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-twice", 1).await?;
    let denial = denial(&webhook);
    let name = text(&namespace.set().await?, "/metadata/name");
    attempts(&webhook, 3).await?;
    namespace.messages("ReplicaSet", &name, "FailedCreate", 1).await?;
    webhook.answers(|review, _| denied(review, json!({"message": "another"})));
    let told = namespace.messages("ReplicaSet", &name, "FailedCreate", 2).await?;
    let another = format!("Error creating: admission webhook \"{}\" denied the request: another", webhook.name());
    ensure!(told == [format!("Error creating: {denial}"), another], "{told:?}");
    let failed = json!([condition("ReplicaFailure", "True", "FailedCreate", &denial)]);
    let status = timeless(&namespace.set().await?["status"])?;
    ensure!(status["conditions"] == failed, "{status}");
    webhook.end().await
}

async fn a_pod_that_is_let_in_clears_the_conditions(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-first", 1).await?;
    attempts(&webhook, 3).await?;
    webhook.answers(|review, _| allowed(review));
    namespace.has_pods(1).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    let wanted = json!({"replicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 1});
    reports(&namespace, APPS, &format!("replicasets/{name}"), &wanted).await?;
    let message = format!("ReplicaSet \"{name}\" is progressing.");
    let wanted = json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1,
        "conditions": [unavailable(), condition("Progressing", "True", "ReplicaSetUpdated", &message)],
    });
    reports(&namespace, APPS, "deployments/web", &wanted).await?;
    webhook.end().await
}

async fn one_refusal_ends_the_attempt_for_all_pods(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-many", 4).await?;
    attempts(&webhook, 4).await?;
    webhook.answers(|review, _| allowed(review));
    namespace.has_pods(4).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    let told = namespace.messages("ReplicaSet", &name, "SuccessfulCreate", 4).await?;
    ensure!(told.len() == 4);
    webhook.end().await
}

async fn a_refusal_to_be_retried_is_retried_in_place(cluster: &KubernetesApi) -> Result<()> {
    let status = json!({
        "code": 429, "reason": "Converging", "message": "Converging: wait", "details": {"retryAfterSeconds": 1},
    });
    let webhook = Webhook::start(cluster, "refused-for-now", move |review, _| denied(review, status.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let namespace = Namespace::of(cluster, "refused-for-now");
    let started = Instant::now();
    namespace.deploy(deployment("web", 1)).await?;
    attempts(&webhook, 4).await?;
    ensure!((3..10).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    // The controller knows of no failure yet.
    let set = namespace.set().await?;
    ensure!(set["status"] == json!({"replicas": 0}), "{set}");
    let name = text(&set, "/metadata/name");
    ensure!(namespace.events("ReplicaSet", &name).await?.is_empty());
    // Each try is a request of its own.
    let reviews = webhook.reviews()?;
    ensure!(reviews[0]["name"] != reviews[1]["name"] && reviews[0]["uid"] != reviews[1]["uid"], "{reviews:?}");

    attempts(&webhook, 12).await?;
    let message =
        format!("Error creating: admission webhook \"{}\" denied the request: Converging: wait", webhook.name());
    let told = namespace.messages("ReplicaSet", &name, "FailedCreate", 1).await?;
    ensure!(told == [message], "{told:?}");
    webhook.end().await
}

async fn a_refused_replica_set_is_told_by_its_deployment(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "refused-set", |review, _| denied(review, json!({"message": "no"}))).await?;
    let rules = json!([
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["replicasets"]},
    ]);
    webhook.register(Kind::Validating, json!({"rules": rules})).await?;
    let namespace = Namespace::of(cluster, "refused-set");
    namespace.deploy(deployment("web", 1)).await?;
    attempts(&webhook, 2).await?;
    let name = text(&webhook.reviews()?[0], "/name");
    let denial = format!("admission webhook \"{}\" denied the request: no", webhook.name());
    let message = format!("Failed to create new replica set \"{name}\": {denial}");
    let failed = condition("Progressing", "False", "ReplicaSetCreateError", &message);
    reports(&namespace, APPS, "deployments/web", &json!({"conditions": [failed]})).await?;
    let told = namespace.messages("Deployment", "web", "ReplicaSetCreateError", 1).await?;
    ensure!(told == [message], "{told:?}");
    webhook.end().await
}

async fn a_pod_is_asked_for_by_the_controllers_account(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "refused-account", 1).await?;
    attempts(&webhook, 1).await?;
    let review = webhook.reviews()?.into_iter().next().context("no review")?;
    let user = &review["userInfo"];
    ensure!(user["username"] == "system:serviceaccount:kube-system:replicaset-controller", "{user}");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]);
    ensure!(user["groups"] == groups, "{user}");
    let set = namespace.set().await?;
    let metadata = &review["object"]["metadata"];
    ensure!(metadata["ownerReferences"][0]["uid"] == set["metadata"]["uid"], "{metadata}");
    ensure!(metadata["generateName"] == format!("{}-", text(&set, "/metadata/name")), "{metadata}");
    webhook.end().await
}
