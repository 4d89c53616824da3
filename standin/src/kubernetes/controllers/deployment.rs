//! Deployments: a ReplicaSet for each template, and the change from one to the next.
//! `k8s.io/kubernetes/pkg/controller/deployment`.
//!
//! ReplicaSets without owner are not adopted, several active ones are not scaled in proportion, old ones are kept, and
//! none is ever paused.

mod progress;
mod rollout;

use std::time::Duration;

use serde_json::{Value, json};

use self::rollout::{Scale, Step};
use super::client::{Client, Result, path};
use super::events::Recorder;
use super::objects::{is_controlled_by, resource};
use crate::kubernetes::object::meta;

/// A rollout needs a few steps a look; more is somebody else writing all the time.
const STEPS_MAX: usize = 10;

/// Takes all steps that a Deployment needs now. Some: look again after that time.
pub(super) async fn reconcile(
    client: &Client,
    recorder: &Recorder,
    namespace: &str,
    name: &str,
) -> Result<Option<Duration>> {
    let at = path(resource("deployments"), namespace, name);
    let mut scaled = false;
    for _ in 0..STEPS_MAX {
        let Some(deployment) = client.get(&at).await? else { return Ok(None) };
        let (mut sets, _) = client.list(&path(resource("replicasets"), namespace, "")).await?;
        sets.retain(|set| is_controlled_by(set, &deployment));
        let now = crate::kubernetes::now().as_second();
        // What a set's status counts is behind a change of its size: that is told by an event.
        let step =
            if scaled { rollout::report(&deployment, &sets, now) } else { rollout::step(&deployment, &sets, now) };
        match step {
            Step::Create(set) => create(client, recorder, &deployment, set, now).await?,
            Step::Annotate(set) => drop(client.replace(&at_set(&set), &set).await?),
            Step::Scale(Scale { set, from, to }) => {
                let (direction, name) = (if to > from { "up" } else { "down" }, meta(&set, "name").to_owned());
                client.replace(&at_set(&set), &set).await?;
                let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
                recorder.tell(&deployment, false, "ScalingReplicaSet", message);
                scaled = true;
            }
            Step::Report(deployment) => drop(client.replace(&format!("{at}/status"), &deployment).await?),
            Step::Rest(again) => return Ok(again),
        }
    }
    Ok(None)
}

fn at_set(set: &Value) -> String {
    path(resource("replicasets"), meta(set, "namespace"), meta(set, "name"))
}

/// Makes a ReplicaSet, and tells in the Deployment's status that it did, or could not.
async fn create(client: &Client, recorder: &Recorder, deployment: &Value, set: Value, now: i64) -> Result<()> {
    let (namespace, name) = (meta(deployment, "namespace"), meta(&set, "name"));
    let created = client.create(&path(resource("replicasets"), namespace, ""), &set).await;
    let (status, reason, message) = match &created {
        Ok(_) => ("True", "NewReplicaSetCreated", format!("Created new replica set {name:?}")),
        Err(refused) => {
            let message = format!("Failed to create new replica set {name:?}: {}", refused.message);
            ("False", "ReplicaSetCreateError", message)
        }
    };
    let mut updated = deployment.clone();
    progress::set(&mut updated["status"], progress::PROGRESSING, status, reason, &message, now);
    match &created {
        Ok(set) => {
            let replicas = super::replicaset::replicas(set);
            if replicas > 0 {
                let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                recorder.tell(deployment, false, "ScalingReplicaSet", message);
            }
            updated["metadata"]["annotations"][rollout::REVISION] =
                set["metadata"]["annotations"][rollout::REVISION].clone();
        }
        Err(_) => recorder.tell(deployment, true, "ReplicaSetCreateError", message),
    }
    let at = format!("{}/status", path(resource("deployments"), namespace, meta(deployment, "name")));
    let reported = client.replace(&at, &updated).await;
    created?;
    reported.map(drop)
}

/// What is wanted of a ReplicaSet of this Deployment beside its size.
fn annotations(deployment: &Value) -> Vec<(&String, &Value)> {
    const SKIPPED: [&str; 6] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        rollout::REVISION,
        "deployment.kubernetes.io/revision-history",
        rollout::DESIRED,
        rollout::MAX,
    ];
    let annotations = deployment["metadata"]["annotations"].as_object().into_iter().flatten();
    annotations.filter(|(key, _)| !SKIPPED.contains(&key.as_str())).collect()
}

/// The ReplicaSet of a Deployment's template.
fn set_of(deployment: &Value, revision: u64, replicas: i64, max: i64) -> Value {
    let hash = hash(&deployment["spec"]["template"]);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][rollout::HASH] = hash.clone().into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][rollout::HASH] = hash.clone().into();
    let mut metadata = json!({
        "name": format!("{}-{hash}", meta(deployment, "name")),
        "namespace": meta(deployment, "namespace"),
        "labels": template["metadata"]["labels"],
        "ownerReferences": [super::objects::controller_reference(deployment)],
    });
    for (key, value) in annotations(deployment) {
        metadata["annotations"][key] = value.clone();
    }
    metadata["annotations"][rollout::REVISION] = revision.to_string().into();
    metadata["annotations"][rollout::DESIRED] = rollout::replicas(deployment).to_string().into();
    metadata["annotations"][rollout::MAX] = max.to_string().into();
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if let Some(seconds) = deployment["spec"]["minReadySeconds"].as_i64().filter(|seconds| *seconds != 0) {
        spec["minReadySeconds"] = seconds.into();
    }
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})
}

/// FNV-1a of the template in letters that make no words, like the real one; of its JSON, unlike it.
fn hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let sum = template
        .to_string()
        .bytes()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(16_777_619));
    sum.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}
