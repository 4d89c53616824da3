//! The subresource `status`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{MERGE, STRATEGIC, Space, failure, same};

/// A ReplicaSet whose pods no controller makes.
async fn replica_set(cluster: &KubernetesApi) -> Result<(Space<'_>, Value)> {
    let space = Space::new(cluster).await?;
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template});
    let made = space.made("apps/v1/replicasets", json!({"metadata": {"name": "r"}, "spec": spec})).await?;
    Ok((space, made))
}

pub async fn a_status_patch_changes_metadata_and_nothing_of_the_spec(cluster: &KubernetesApi) -> Result<()> {
    let (space, made) = replica_set(cluster).await?;
    let patch = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 5, "minReadySeconds": 3}});
    let (status, patched) = space.patch("apps/v1/replicasets/r/status", MERGE, patch).await?;
    same((status, &patched["spec"], &patched["metadata"]["generation"]), (200, &made["spec"], &json!(1)))?;
    same(&patched["metadata"]["annotations"], &json!({"a": "b"}))?;
    let entries = patched["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let own = entries.iter().find(|entry| entry["manager"] == "contract").cloned().unwrap_or_default();
    let fields = json!({"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}});
    same((&own["subresource"], &own["fieldsV1"]), (&json!("status"), &fields))?;
    let (status, read) = space.get("apps/v1/replicasets/r/status").await?;
    same((status, &read["metadata"]["annotations"]), (200, &json!({"a": "b"})))
}

pub async fn a_patch_of_the_object_changes_nothing_of_the_status(cluster: &KubernetesApi) -> Result<()> {
    let (space, _) = replica_set(cluster).await?;
    let patch = json!({"status": {"replicas": 7}, "spec": {"minReadySeconds": 3}});
    let (status, patched) = space.patch("apps/v1/replicasets/r", MERGE, patch).await?;
    same((status, &patched["status"]["replicas"]), (200, &json!(0)))?;
    same((&patched["spec"]["minReadySeconds"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)))?;
    let made = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "c", "image": "x"}]}});
    same(&space.made("pods", made).await?["status"]["phase"], &json!("Pending"))
}

pub async fn a_pods_conditions_are_merged_by_their_type(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    space.made("pods", pod).await?;
    for (kind, is) in [("Ready", "True"), ("Initialized", "True"), ("Ready", "False")] {
        let patch = json!({"status": {"phase": "Running", "conditions": [{"type": kind, "status": is}]}});
        let (status, patched) = space.patch("pods/p/status", STRATEGIC, patch).await?;
        ensure!(status == 200, "{status}: {patched}");
    }
    let (_, pod) = space.get("pods/p").await?;
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut shown: Vec<Value> = conditions.iter().map(|c| json!([c["type"], c["status"]])).collect();
    shown.sort_by_key(ToString::to_string);
    same(shown, vec![json!(["Initialized", "True"]), json!(["Ready", "False"])])?;
    same(&pod["status"]["phase"], &json!("Running"))
}

pub async fn what_has_no_status_has_no_such_path(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("configmaps", json!({"metadata": {"name": "c"}})).await?;
    let text = "the server could not find the requested resource";
    for path in ["configmaps/c/status", "configmaps/c/other", "pods/p/other"] {
        same((path, space.get(path).await?), (path, failure(404, "NotFound", text, json!({}))))?;
    }
    let wanted = failure(404, "NotFound", r#"pods "p" not found"#, json!({"name": "p", "kind": "pods"}));
    same(space.get("pods/p/status").await?, wanted)
}
