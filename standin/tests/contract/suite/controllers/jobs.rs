//! Jobs, as far as they make pods.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{Namespace, text};
use crate::suite::webhook::{Kind, Webhook, allowed, denied};
use crate::suite::{Case, SOON, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_job_gets_a_pod_of_its_template,
    a_suspended_job_gets_no_pod,
    a_refused_pod_of_a_job_is_told_and_tried_again,
    a_touched_job_tries_again_soon,
];

const BATCH: &str = "/apis/batch/v1";

fn job(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"template": {
        "metadata": {"labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.test/main"}]},
    }}})
}

async fn a_job_gets_a_pod_of_its_template(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "job").await?;
    let made = namespace.ok("POST", BATCH, "jobs", Some(job("once"))).await?;
    let uid = text(&made, "/metadata/uid");
    let labels = json!({
        "app": "once",
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "once",
        "controller-uid": uid,
        "job-name": "once",
    });
    let pod = namespace.has_pods(1).await?.remove(0);
    ensure!(pod["metadata"]["labels"] == labels, "{pod}");
    ensure!(pod["metadata"]["generateName"] == "once-", "{pod}");
    let reference = json!([{
        "apiVersion": "batch/v1", "kind": "Job", "name": "once", "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    ensure!(pod["metadata"]["ownerReferences"] == reference && pod["status"]["phase"] == "Pending", "{pod}");
    let told = || async {
        let job = namespace.ok("GET", BATCH, "jobs/once", None).await?;
        let mut status = job["status"].clone();
        let start = status.as_object_mut().and_then(|status| status.remove("startTime"));
        ensure!(start.is_some_and(|start| start.is_string()), "{job}");
        let wanted = json!({"active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
        ensure!(status == wanted, "{status}");
        Ok(())
    };
    eventually("the status", SOON, told).await?;
    let name = text(&pod, "/metadata/name");
    let created = namespace.messages("Job", "once", "SuccessfulCreate", 1).await?;
    ensure!(created == [format!("Created pod: {name}")], "{created:?}");
    Ok(())
}

async fn a_suspended_job_gets_no_pod(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "job-suspended").await?;
    let mut suspended = job("later");
    suspended["spec"]["suspend"] = true.into();
    namespace.ok("POST", BATCH, "jobs", Some(suspended)).await?;
    namespace.ok("POST", BATCH, "jobs", Some(job("now"))).await?;
    let pods = namespace.has_pods(1).await?;
    ensure!(pods[0]["metadata"]["generateName"] == "now-", "{pods:?}");
    namespace.ok("PATCH", BATCH, "jobs/later", Some(json!({"spec": {"suspend": false}}))).await?;
    namespace.has_pods(2).await.map(drop)
}

async fn refused(cluster: &KubernetesApi, name: &str) -> Result<(Webhook, Namespace)> {
    let webhook = Webhook::start(cluster, name, |review, _| denied(review, json!({"message": "no"}))).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let namespace = Namespace::of(cluster, name);
    namespace.ok("POST", BATCH, "jobs", Some(job("once"))).await?;
    Ok((webhook, namespace))
}

async fn attempts(webhook: &Webhook, at_least: usize) -> Result<()> {
    let tried = || async { (webhook.asked().len() >= at_least).then_some(()) };
    eventually("attempts", SOON, tried).await
}

async fn a_refused_pod_of_a_job_is_told_and_tried_again(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "job-refused").await?;
    let started = Instant::now();
    attempts(&webhook, 3).await?;
    // After one second, then after two.
    ensure!((2..7).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    let told = namespace.messages("Job", "once", "FailedCreate", 1).await?;
    let message = "Error creating: admission webhook \"job-refused.contract.test\" denied the request: no";
    ensure!(told == [message], "{told:?}");
    let job = namespace.ok("GET", BATCH, "jobs/once", None).await?;
    ensure!(job["status"]["active"].is_null() && job["status"]["conditions"].is_null(), "{job}");
    webhook.answers(|review, _| allowed(review));
    namespace.has_pods(1).await?;
    webhook.end().await
}

async fn a_touched_job_tries_again_soon(cluster: &KubernetesApi) -> Result<()> {
    let (webhook, namespace) = refused(cluster, "job-touched").await?;
    // The next try is four seconds away.
    attempts(&webhook, 3).await?;
    webhook.answers(|review, _| allowed(review));
    let touched = Instant::now();
    let annotation = json!({"metadata": {"annotations": {"touched": "1"}}});
    namespace.ok("PATCH", BATCH, "jobs/once/status", Some(annotation)).await?;
    namespace.has_pods(1).await?;
    ensure!(touched.elapsed() < Duration::from_secs(3), "{:?}", touched.elapsed());
    webhook.end().await
}
