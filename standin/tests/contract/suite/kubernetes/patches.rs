//! Patches of three kinds.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{JSON, MERGE, STRATEGIC, Space, entry, failure, same, send, steady};

async fn made(cluster: &KubernetesApi) -> Result<(Space<'_>, Value)> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "1", "l": "2"}});
    let made = space.made("configmaps", body).await?;
    Ok((space, made))
}

pub async fn a_merge_patch_sets_and_removes(cluster: &KubernetesApi) -> Result<()> {
    let (space, first) = made(cluster).await?;
    let patch = json!({"metadata": {"annotations": {"y": "2"}}, "data": {"k": "3", "l": null, "m": "4"}});
    let (status, second) = space.patch("configmaps/a", MERGE, patch).await?;
    let mut wanted = steady(&first);
    wanted["metadata"]["annotations"] = json!({"y": "2"});
    wanted["data"] = json!({"k": "3", "m": "4"});
    let theirs = json!({"f:data": {"f:k": {}, "f:m": {}}, "f:metadata": {"f:annotations": {".": {}, "f:y": {}}}});
    let ours = json!({"f:data": {}, "f:metadata": {"f:labels": {".": {}, "f:x": {}}}});
    wanted["metadata"]["managedFields"] =
        json!([entry("contract", "Update", "v1", theirs), entry("unknown", "Update", "v1", ours)]);
    let mut is = steady(&second);
    if let Some(entries) = is["metadata"]["managedFields"].as_array_mut() {
        // They are in the order of their seconds.
        entries.sort_by_key(|entry| entry["manager"].to_string());
    }
    same((status, is), (200, wanted))
}

pub async fn a_merge_patch_that_empties_a_map_removes_it(cluster: &KubernetesApi) -> Result<()> {
    let (space, _) = made(cluster).await?;
    let patch = json!({"metadata": {"labels": {"x": null}}, "data": {"k": null, "l": null}});
    let (status, second) = space.patch("configmaps/a", MERGE, patch).await?;
    ensure!(status == 200 && second.get("data").is_none(), "{status}: {second}");
    ensure!(second["metadata"].get("labels").is_none(), "{second}");
    ensure!(second["metadata"].get("managedFields").is_none(), "{second}");
    Ok(())
}

pub async fn a_merge_patch_is_a_map(cluster: &KubernetesApi) -> Result<()> {
    let (space, _) = made(cluster).await?;
    let text = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
    same(space.patch("configmaps/a", MERGE, json!([])).await?, failure(400, "BadRequest", text, json!(null)))?;
    let headers = [("content-type", MERGE)];
    let answer = send(cluster, "PATCH", &space.path("configmaps/a"), &headers, Some(r#"{"a""#.to_owned())).await?;
    let text = "error decoding patch: unexpected end of JSON input";
    same(answer, failure(400, "BadRequest", text, json!(null)))
}

pub async fn a_patch_does_not_rename(cluster: &KubernetesApi) -> Result<()> {
    let (space, first) = made(cluster).await?;
    let answer = space.patch("configmaps/a", MERGE, json!({"metadata": {"name": "b"}})).await?;
    let text = "the name of the object (b) does not match the name on the URL (a)";
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    let (status, answer) = space.patch("configmaps/a", MERGE, json!({"metadata": {"uid": "b"}})).await?;
    let text = r#"ConfigMap "a" is invalid: metadata.uid: Invalid value: "b": field is immutable"#;
    same((status, &answer["message"]), (422, &json!(text)))?;
    same(space.get("configmaps/a").await?, (200, first))
}

pub async fn a_json_patch_is_done_in_steps(cluster: &KubernetesApi) -> Result<()> {
    let (space, first) = made(cluster).await?;
    let uid = &first["metadata"]["uid"];
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "replace", "path": "/data/k", "value": "3"},
        {"op": "remove", "path": "/data/l"},
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "c"}},
        {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "d"},
        // As if it were an addition.
        {"op": "replace", "path": "/data/m", "value": "4"},
    ]);
    let (status, second) = space.patch("configmaps/a", JSON, patch).await?;
    same((status, &second["data"]), (200, &json!({"k": "3", "m": "4"})))?;
    same(&second["metadata"]["annotations"], &json!({"a/b": "d"}))
}

pub async fn a_json_patch_that_cannot_be_done_is_not_done(cluster: &KubernetesApi) -> Result<()> {
    let (space, first) = made(cluster).await?;
    let text = "the server rejected our request due to an error in our request";
    for step in [
        json!({"op": "test", "path": "/data/k", "value": "9"}),
        json!({"op": "remove", "path": "/data/nowhere"}),
        json!({"op": "replace", "path": "/nowhere/x", "value": "1"}),
    ] {
        let patch = json!([{"op": "remove", "path": "/data/l"}, step]);
        same(space.patch("configmaps/a", JSON, patch).await?, failure(422, "Invalid", text, json!({})))?;
    }
    let text = "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
    same(space.patch("configmaps/a", JSON, json!({})).await?, failure(400, "BadRequest", text, json!(null)))?;
    same(space.get("configmaps/a").await?, (200, first))
}

pub async fn a_strategic_patch_merges_lists_by_their_keys(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let containers = json!([
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "args": ["x"]},
        {"name": "b", "image": "b:1"},
    ]);
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template});
    space.made("apps/v1/deployments", json!({"metadata": {"name": "d"}, "spec": spec})).await?;
    let changes = json!([
        {"name": "a", "image": "a:2", "args": ["y"], "env": [{"name": "X", "value": "3"}, {"name": "Y", "$patch": "delete"}]},
        {"name": "b", "$patch": "delete"},
        {"name": "c", "image": "c:1"},
    ]);
    let patch = json!({"spec": {"template": {"spec": {"containers": changes}}}});
    let (status, patched) = space.patch("apps/v1/deployments/d", STRATEGIC, patch).await?;
    ensure!(status == 200, "{status}: {patched}");
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let mut shown: Vec<Value> = containers
        .iter()
        .map(|c| json!({"name": c["name"], "image": c["image"], "args": c["args"], "env": c["env"]}))
        .collect();
    shown.sort_by_key(|container| container["name"].to_string());
    let a = json!({"name": "a", "image": "a:2", "args": ["y"], "env": [{"name": "X", "value": "3"}]});
    let c = json!({"name": "c", "image": "c:1", "args": null, "env": null});
    same(shown, vec![a, c])?;
    same(&patched["metadata"]["generation"], &json!(2))
}

pub async fn a_strategic_patch_has_directives(cluster: &KubernetesApi) -> Result<()> {
    let (space, _) = made(cluster).await?;
    let patch = |patch| space.patch("configmaps/a", STRATEGIC, patch);
    let (_, patched) = patch(json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}})).await?;
    same(&patched["metadata"]["finalizers"], &json!(["example.com/a", "example.com/b"]))?;
    let (_, patched) = patch(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}})).await?;
    same(&patched["metadata"]["finalizers"], &json!(["example.com/b"]))?;
    let (_, patched) = patch(json!({"data": {"$patch": "replace", "m": "3"}})).await?;
    same(&patched["data"], &json!({"m": "3"}))?;
    let (status, patched) = patch(json!({"metadata": {"finalizers": null, "labels": null}})).await?;
    ensure!(status == 200 && patched["metadata"].get("finalizers").is_none(), "{status}: {patched}");
    Ok(())
}

pub async fn a_patch_is_of_a_known_kind(cluster: &KubernetesApi) -> Result<()> {
    let (space, _) = made(cluster).await?;
    let answer = space.patch("configmaps/a", "application/json", json!({})).await?;
    same(answer, failure(415, "UnsupportedMediaType", "415: Unsupported Media Type", json!({})))
}
