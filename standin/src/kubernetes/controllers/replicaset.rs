//! ReplicaSets: as many pods as they want. `k8s.io/kubernetes/pkg/controller/replicaset`.
//!
//! Pods without owner are not adopted.

use serde_json::{Value, json};

use super::client::{Client, Refused, Result, path};
use super::events::Recorder;
use super::objects::{condition, is_ready, number, put_condition, remove_condition, resource};
use super::pods;
use crate::kubernetes::object::meta;
use crate::kubernetes::seconds;

/// Brings the pods of one ReplicaSet to its number.
pub(super) async fn reconcile(client: &Client, recorder: &Recorder, namespace: &str, name: &str) -> Result<()> {
    let at = path(resource("replicasets"), namespace, name);
    let Some(set) = client.get(&at).await? else { return Ok(()) };
    let pods = pods::active(client, &set).await?;
    let managed = manage(client, recorder, &set, &pods).await;
    let now = seconds(crate::kubernetes::now().as_second());
    let mut updated = set.clone();
    updated["status"] = status(&set, &pods, managed.as_ref().err(), &now);
    if updated != set {
        report(client, &at, updated).await?;
    }
    managed
}

/// With one more try over the newest version: `updateReplicaSetStatus`.
async fn report(client: &Client, at: &str, set: Value) -> Result<()> {
    let at_status = format!("{at}/status");
    match client.replace(&at_status, &set).await {
        Err(refused) if refused.code == 409 => {
            let Some(mut newest) = client.get(at).await? else { return Ok(()) };
            newest["status"] = set["status"].clone();
            client.replace(&at_status, &newest).await.map(drop)
        }
        done => done.map(drop),
    }
}

async fn manage(client: &Client, recorder: &Recorder, set: &Value, pods: &[Value]) -> Result<()> {
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let wanted = usize::try_from(replicas(set)).unwrap_or_default();
    if pods.len() < wanted {
        pods::create(client, recorder, set, wanted - pods.len()).await
    } else {
        pods::delete(client, recorder, set, &surplus(pods, wanted)).await
    }
}

pub(super) fn replicas(set: &Value) -> i64 {
    number(&set["spec"]["replicas"], 1)
}

/// The pods that are too many: such as do not serve first, and the newest of them first.
fn surplus(pods: &[Value], wanted: usize) -> Vec<&Value> {
    let mut ranked: Vec<&Value> = pods.iter().collect();
    ranked.sort_by_key(|pod| (!is_ready(pod), meta(pod, "creationTimestamp"), meta(pod, "name")));
    ranked.split_off(wanted.min(pods.len()))
}

/// The status over pods as they were before anything was made or deleted: `calculateStatus`.
fn status(set: &Value, pods: &[Value], failure: Option<&Refused>, now: &str) -> Value {
    let labels = set["spec"]["template"]["metadata"]["labels"].as_object();
    let has_all =
        |pod: &&Value| labels.into_iter().flatten().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut status = json!({"replicas": pods.len(), "observedGeneration": set["metadata"]["generation"]});
    for (field, count) in [
        ("fullyLabeledReplicas", pods.iter().filter(has_all).count()),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    if let Some(conditions) = set["status"]["conditions"].as_array() {
        status["conditions"] = conditions.clone().into();
    }
    match failure {
        None => remove_condition(&mut status, FAILURE),
        // The first failure stays until there is none: kubernetes#127081.
        Some(_) if condition(&status, FAILURE).is_some() => {}
        Some(refused) => {
            let lacks = i64::try_from(pods.len()).is_ok_and(|pods| pods < replicas(set));
            let failed = json!({
                "type": FAILURE,
                "status": "True",
                "lastTransitionTime": now,
                "reason": if lacks { "FailedCreate" } else { "FailedDelete" },
                "message": refused.message,
            });
            put_condition(&mut status, failed);
        }
    }
    status
}

/// The condition of a set whose pods cannot be made or deleted.
pub(super) const FAILURE: &str = "ReplicaFailure";

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Value {
        json!({
            "metadata": {"name": "a", "generation": 3},
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "a"}}}},
        })
    }

    fn pod(name: &str, created: &str, ready: &str) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created, "labels": {"app": "a", "more": "1"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn refused(message: &str) -> Refused {
        Refused { code: 403, message: message.to_owned(), terminating: false }
    }

    #[test]
    fn the_newest_pods_that_do_not_serve_go_first() {
        let pods = [pod("old", "1", "False"), pod("serves", "3", "True"), pod("new", "2", "False")];
        let names = |wanted| surplus(&pods, wanted).iter().map(|pod| meta(pod, "name")).collect::<Vec<_>>();
        assert_eq!(names(2), ["new"]);
        assert_eq!(names(0), ["serves", "old", "new"]);
        assert!(names(3).is_empty());
    }

    #[test]
    fn a_status_counts_pods_and_leaves_out_what_is_zero() {
        let none = json!({"replicas": 0, "observedGeneration": 3});
        assert_eq!(status(&set(), &[], None, "now"), none);
        let two = [pod("a", "1", "False"), pod("b", "1", "True")];
        let wanted = json!({
            "replicas": 2, "observedGeneration": 3,
            "fullyLabeledReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
        });
        assert_eq!(status(&set(), &two, None, "now"), wanted);
    }

    #[test]
    fn the_first_failure_stays_until_there_is_none() {
        let mut failing = set();
        failing["status"] = status(&failing, &[], Some(&refused("first")), "1");
        let condition = json!([{
            "type": "ReplicaFailure", "status": "True", "lastTransitionTime": "1", "reason": "FailedCreate",
            "message": "first",
        }]);
        assert_eq!(failing["status"]["conditions"], condition);
        assert_eq!(status(&failing, &[], Some(&refused("second")), "2")["conditions"], condition);
        assert!(status(&failing, &[], None, "3")["conditions"].is_null());
    }
}
