//! Deployments and their ReplicaSets.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{APPS, Namespace, condition, deployment, reports, retemplated, text, unavailable};
use crate::suite::{Case, SOON, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_deployment_gets_a_replica_set_of_its_template,
    a_replica_set_gets_pods_of_its_template,
    pods_without_a_node_are_pending_and_unavailable,
    pods_that_serve_make_a_deployment_available,
    what_is_made_is_told_in_events,
    the_events_of_many_pods_are_combined,
    a_change_of_size_goes_on_to_the_pods,
    a_new_template_is_rolled_out_within_the_limits,
    a_former_template_takes_up_its_replica_set,
    recreate_waits_for_the_old_pods,
    an_annotation_of_a_deployment_goes_on_to_its_replica_set,
    a_deleted_pod_is_replaced,
    a_rollout_that_stands_still_exceeds_its_deadline,
];

async fn a_deployment_gets_a_replica_set_of_its_template(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "deployed").await?;
    namespace.deploy(deployment("web", 2)).await?;
    let (set, owner) = (namespace.set().await?, namespace.deployment("web").await?);
    let hash = text(&set, "/metadata/labels/pod-template-hash");
    let letters = |hash: &str| hash.bytes().all(|letter| b"bcdfghjklmnpqrstvwxz2456789".contains(&letter));
    ensure!((1..=10).contains(&hash.len()) && letters(&hash), "{hash}");
    ensure!(set["metadata"]["name"] == format!("web-{hash}"), "{set}");
    let labels = json!({"app": "web", "pod-template-hash": hash});
    ensure!(set["metadata"]["labels"] == labels && set["spec"]["selector"] == json!({"matchLabels": labels}), "{set}");
    ensure!(set["spec"]["template"]["metadata"]["labels"] == labels && set["spec"]["replicas"] == 2, "{set}");
    ensure!(set["spec"]["template"]["spec"] == owner["spec"]["template"]["spec"], "{set}");
    let annotations = json!({
        "note": "1",
        "deployment.kubernetes.io/revision": "1",
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
    });
    ensure!(set["metadata"]["annotations"] == annotations, "{set}");
    let reference = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    ensure!(set["metadata"]["ownerReferences"] == reference, "{set}");
    let told = || async {
        let owner = namespace.deployment("web").await?;
        let revision = text(&owner, "/metadata/annotations/deployment.kubernetes.io~1revision");
        ensure!(revision == "1", "{owner}");
        Ok(())
    };
    eventually("the revision", SOON, told).await
}

async fn a_replica_set_gets_pods_of_its_template(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "replicated").await?;
    namespace.deploy(deployment("web", 2)).await?;
    let pods = namespace.has_pods(2).await?;
    let set = namespace.set().await?;
    let prefix = format!("{}-", text(&set, "/metadata/name"));
    let reference = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set["metadata"]["name"], "uid": set["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    for pod in &pods {
        let name = text(pod, "/metadata/name");
        ensure!(pod["metadata"]["generateName"] == prefix.as_str(), "{pod}");
        ensure!(name.starts_with(&prefix) && name.len() == prefix.len() + 5, "{name}");
        ensure!(pod["metadata"]["labels"] == set["spec"]["template"]["metadata"]["labels"], "{pod}");
        ensure!(pod["metadata"]["ownerReferences"] == reference, "{pod}");
        ensure!(pod["spec"]["containers"][0]["image"] == "example.test/main", "{pod}");
        ensure!(pod["status"]["phase"] == "Pending", "{pod}");
    }
    Ok(())
}

async fn pods_without_a_node_are_pending_and_unavailable(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "pending").await?;
    namespace.deploy(deployment("web", 2)).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    let wanted = json!({"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1});
    reports(&namespace, APPS, &format!("replicasets/{name}"), &wanted).await?;
    let message = format!("ReplicaSet \"{name}\" is progressing.");
    let wanted = json!({
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "unavailableReplicas": 2,
        "conditions": [unavailable(), condition("Progressing", "True", "ReplicaSetUpdated", &message)],
    });
    reports(&namespace, APPS, "deployments/web", &wanted).await.map(drop)
}

async fn pods_that_serve_make_a_deployment_available(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "serving").await?;
    namespace.deploy(deployment("web", 1)).await?;
    let pod = text(&namespace.has_pods(1).await?[0], "/metadata/name");
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-25T00:00:00Z"});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    namespace.ok("PATCH", "/api/v1", &format!("pods/{pod}/status"), Some(status)).await?;
    let set = text(&namespace.set().await?, "/metadata/name");
    let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
    let available = ["Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."];
    let wanted = json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [
            condition(available[0], available[1], available[2], available[3]),
            condition("Progressing", "True", "NewReplicaSetAvailable", &message),
        ],
    });
    reports(&namespace, APPS, "deployments/web", &wanted).await?;
    let wanted = json!({
        "replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 1,
    });
    reports(&namespace, APPS, &format!("replicasets/{set}"), &wanted).await.map(drop)
}

async fn what_is_made_is_told_in_events(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "told").await?;
    namespace.deploy(deployment("web", 2)).await?;
    let pods = namespace.has_pods(2).await?;
    let set = namespace.set().await?;
    let name = text(&set, "/metadata/name");
    let told = namespace.messages("Deployment", "web", "ScalingReplicaSet", 1).await?;
    ensure!(told == [format!("Scaled up replica set {name} from 0 to 2")], "{told:?}");
    let mut wanted: Vec<String> =
        pods.iter().map(|pod| format!("Created pod: {}", text(pod, "/metadata/name"))).collect();
    wanted.sort();
    let told = namespace.messages("ReplicaSet", &name, "SuccessfulCreate", 2).await?;
    ensure!(told == wanted, "{told:?}");

    let events = namespace.list("/api/v1", "events").await?;
    let of_set = |event: &&Value| event["involvedObject"]["kind"] == "ReplicaSet";
    for event in events.iter().filter(of_set) {
        let about = &event["involvedObject"];
        ensure!(about["uid"] == set["metadata"]["uid"] && about["apiVersion"] == "apps/v1", "{event}");
        ensure!(about["namespace"] == "told" && about["name"] == name.as_str(), "{event}");
        ensure!(event["type"] == "Normal" && event["count"] == 1, "{event}");
        ensure!(event["source"] == json!({"component": "replicaset-controller"}), "{event}");
        ensure!(event["reportingComponent"] == "replicaset-controller", "{event}");
        ensure!(event["firstTimestamp"] == event["lastTimestamp"], "{event}");
        ensure!(text(event, "/metadata/name").starts_with(&format!("{name}.")), "{event}");
    }
    Ok(())
}

async fn the_events_of_many_pods_are_combined(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "many").await?;
    namespace.deploy(deployment("web", 12)).await?;
    namespace.has_pods(12).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    let told = || async {
        let events = namespace.events("ReplicaSet", &name).await?;
        let combined = "(combined from similar events): Created pod: ";
        let (combined, single): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.2.starts_with(combined));
        ensure!(single.len() == 9 && single.iter().all(|event| event.3 == 1), "{single:?}");
        ensure!(combined.len() == 1 && combined[0].3 == 3, "{combined:?}");
        Ok(())
    };
    eventually("events", SOON, told).await
}

async fn a_change_of_size_goes_on_to_the_pods(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "resized").await?;
    namespace.deploy(deployment("web", 1)).await?;
    namespace.has_pods(1).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    for (replicas, max) in [(3, "4"), (1, "2"), (0, "0")] {
        namespace.change("web", json!({"spec": {"replicas": replicas}})).await?;
        namespace.has_pods(replicas).await?;
        let set = namespace.set().await?;
        let annotations = &set["metadata"]["annotations"];
        ensure!(annotations["deployment.kubernetes.io/desired-replicas"] == format!("{replicas}").as_str(), "{set}");
        ensure!(annotations["deployment.kubernetes.io/max-replicas"] == max, "{set}");
    }
    let told = namespace.messages("Deployment", "web", "ScalingReplicaSet", 4).await?;
    let wanted = ["down", "down", "up", "up"].iter().zip(["1 to 0", "3 to 1", "0 to 1", "1 to 3"]);
    let wanted: Vec<String> =
        wanted.map(|(direction, sizes)| format!("Scaled {direction} replica set {name} from {sizes}")).collect();
    ensure!(told == wanted, "{told:?}");
    let deleted = namespace.messages("ReplicaSet", &name, "SuccessfulDelete", 3).await?;
    ensure!(deleted.iter().all(|text| text.starts_with(&format!("Deleted pod: {name}-"))), "{deleted:?}");
    Ok(())
}

/// The size of each ReplicaSet by its revision, once they are these.
async fn has_sizes(namespace: &Namespace, wanted: &[(&str, i64)]) -> Result<()> {
    let have = || async {
        let sets = namespace.sets().await?;
        let revision = |set: &Value| text(set, "/metadata/annotations/deployment.kubernetes.io~1revision");
        let size = |set: &Value| set["spec"]["replicas"].as_i64().unwrap_or(-1);
        let mut sizes: Vec<(String, i64)> = sets.iter().map(|set| (revision(set), size(set))).collect();
        sizes.sort();
        let wanted: Vec<(String, i64)> =
            wanted.iter().map(|(revision, size)| ((*revision).to_owned(), *size)).collect();
        ensure!(sizes == wanted, "{sizes:?}");
        let told = sets.iter().all(|set| set["status"]["replicas"] == set["spec"]["replicas"]);
        ensure!(told, "{sets:?}");
        Ok(())
    };
    eventually("sizes", SOON, have).await
}

async fn a_new_template_is_rolled_out_within_the_limits(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "rolled").await?;
    namespace.deploy(deployment("web", 4)).await?;
    has_sizes(&namespace, &[("1", 4)]).await?;
    namespace.change("web", retemplated(Some("2"))).await?;
    // A quarter more, a quarter less, and none of the new ones ever serves.
    has_sizes(&namespace, &[("1", 3), ("2", 2)]).await?;
    let name = text(&namespace.deployment("web").await?, "/metadata/annotations/deployment.kubernetes.io~1revision");
    ensure!(name == "2", "{name}");
    let told = namespace.messages("Deployment", "web", "ScalingReplicaSet", 4).await?;
    let ends: Vec<&str> = told.iter().filter_map(|text| text.split_once(" from ")).map(|(_, sizes)| sizes).collect();
    let mut ends = ends;
    ends.sort_unstable();
    ensure!(ends == ["0 to 1", "0 to 4", "1 to 2", "4 to 3"], "{told:?}");
    let wanted = json!({
        "observedGeneration": 2, "replicas": 5, "updatedReplicas": 2, "unavailableReplicas": 5,
    });
    let counted = || async {
        let deployment = namespace.deployment("web").await?;
        let mut status = deployment["status"].clone();
        status.as_object_mut().map(|status| status.remove("conditions"));
        ensure!(status == wanted, "{status}");
        Ok(())
    };
    eventually("the status", SOON, counted).await
}

async fn a_former_template_takes_up_its_replica_set(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "rolled-back").await?;
    namespace.deploy(deployment("web", 4)).await?;
    has_sizes(&namespace, &[("1", 4)]).await?;
    namespace.change("web", retemplated(Some("2"))).await?;
    has_sizes(&namespace, &[("1", 3), ("2", 2)]).await?;
    namespace.change("web", retemplated(None)).await?;
    has_sizes(&namespace, &[("2", 2), ("3", 3)]).await
}

async fn recreate_waits_for_the_old_pods(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "recreated").await?;
    let mut recreated = deployment("web", 2);
    recreated["spec"]["strategy"] = json!({"type": "Recreate"});
    namespace.deploy(recreated).await?;
    has_sizes(&namespace, &[("1", 2)]).await?;
    namespace.change("web", retemplated(Some("2"))).await?;
    has_sizes(&namespace, &[("1", 0), ("2", 2)]).await?;
    namespace.has_pods(2).await?;
    let told = namespace.messages("Deployment", "web", "ScalingReplicaSet", 3).await?;
    ensure!(told.iter().filter(|text| text.ends_with(" from 2 to 0")).count() == 1, "{told:?}");
    ensure!(told.iter().filter(|text| text.ends_with(" from 0 to 2")).count() == 2, "{told:?}");
    Ok(())
}

async fn an_annotation_of_a_deployment_goes_on_to_its_replica_set(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "annotated").await?;
    namespace.deploy(deployment("web", 1)).await?;
    namespace.set().await?;
    namespace.change("web", json!({"metadata": {"annotations": {"later": "2"}}})).await?;
    let told = || async {
        let set = namespace.set().await?;
        ensure!(set["metadata"]["annotations"]["later"] == "2", "{set}");
        Ok(())
    };
    eventually("the annotation", SOON, told).await
}

async fn a_deleted_pod_is_replaced(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "replaced").await?;
    namespace.deploy(deployment("web", 1)).await?;
    let old = text(&namespace.has_pods(1).await?[0], "/metadata/name");
    namespace.ok("DELETE", "/api/v1", &format!("pods/{old}"), None).await?;
    let replaced = || async {
        let pods = namespace.pods().await?;
        ensure!(pods.len() == 1 && pods[0]["metadata"]["name"] != old.as_str(), "{pods:?}");
        Ok(())
    };
    eventually("another pod", SOON, replaced).await
}

async fn a_rollout_that_stands_still_exceeds_its_deadline(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "deadline").await?;
    let mut slow = deployment("web", 1);
    slow["spec"]["progressDeadlineSeconds"] = 1.into();
    namespace.deploy(slow).await?;
    let name = text(&namespace.set().await?, "/metadata/name");
    let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
    let wanted = json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1,
        "conditions": [unavailable(), condition("Progressing", "False", "ProgressDeadlineExceeded", &message)],
    });
    reports(&namespace, APPS, "deployments/web", &wanted).await.map(drop)
}
