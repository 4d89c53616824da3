//! Pods that an owner makes and deletes, with the events that tell of it.

use futures::future::join_all;
use serde_json::{Value, json};

use super::client::{Client, Refused, Result, path};
use super::events::Recorder;
use super::objects::{is_active, is_controlled_by, pod_of, resource};
use crate::kubernetes::object::meta;

/// The pods that count for an owner.
pub(super) async fn active(client: &Client, owner: &Value) -> Result<Vec<Value>> {
    let (mut pods, _) = client.list(&path(resource("pods"), meta(owner, "namespace"), "")).await?;
    pods.retain(|pod| is_controlled_by(pod, owner) && is_active(pod));
    Ok(pods)
}

/// Makes pods, a few at first and more with each success: `slowStartBatch` in
/// `k8s.io/kubernetes/pkg/controller/replicaset/replica_set.go`.
pub(super) async fn create(client: &Client, recorder: &Recorder, owner: &Value, wanted: usize) -> Result<()> {
    let (mut left, mut batch) = (wanted, 1);
    while left > 0 {
        let now = batch.min(left);
        for made in join_all((0..now).map(|_| create_one(client, recorder, owner))).await {
            made?;
        }
        (left, batch) = (left - now, 2 * batch);
    }
    Ok(())
}

async fn create_one(client: &Client, recorder: &Recorder, owner: &Value) -> Result<()> {
    match client.create(&path(resource("pods"), meta(owner, "namespace"), ""), &pod_of(owner)).await {
        Ok(pod) => recorder.tell(owner, false, "SuccessfulCreate", format!("Created pod: {}", meta(&pod, "name"))),
        Err(Refused { terminating: true, .. }) => {}
        Err(refused) => {
            recorder.tell(owner, true, "FailedCreate", format!("Error creating: {}", refused.message));
            return Err(refused);
        }
    }
    Ok(())
}

/// Deletes pods.
pub(super) async fn delete(client: &Client, recorder: &Recorder, owner: &Value, pods: &[&Value]) -> Result<()> {
    let one = async |pod: &Value| {
        let name = meta(pod, "name");
        match client.delete(&path(resource("pods"), meta(owner, "namespace"), name), &json!({})).await {
            Ok(()) => recorder.tell(owner, false, "SuccessfulDelete", format!("Deleted pod: {name}")),
            Err(refused) => {
                recorder.tell(owner, true, "FailedDelete", format!("Error deleting: {}", refused.message));
                return Err(refused);
            }
        }
        Ok(())
    };
    join_all(pods.iter().map(|pod| one(pod))).await.into_iter().collect()
}
