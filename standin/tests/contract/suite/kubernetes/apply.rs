//! Server-side apply: who owns which field.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{APPLY, MERGE, Space, entry, failure, metadata, same, send, steady};

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

async fn apply(space: &Space<'_>, query: &str, object: Value) -> Result<(u16, Value)> {
    space.patch(&format!("configmaps/a?{query}"), APPLY, object).await
}

fn owners(object: &Value) -> Vec<Value> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut owners: Vec<Value> = entries.iter().map(|e| json!([e["manager"], e["operation"], e["fieldsV1"]])).collect();
    owners.sort_by_key(ToString::to_string);
    owners
}

pub async fn an_apply_makes_what_is_not_there(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (status, made) = apply(&space, "fieldManager=one", config_map(json!({"k": "1"}))).await?;
    let mut wanted =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata(&space, "a"), "data": {"k": "1"}});
    wanted["metadata"]["managedFields"] = json!([entry("one", "Apply", "v1", json!({"f:data": {"f:k": {}}}))]);
    same((status, steady(&made)), (201, wanted))?;
    // Again, and nothing happens.
    same(apply(&space, "fieldManager=one", config_map(json!({"k": "1"}))).await?, (200, made))
}

pub async fn an_apply_is_written_in_yaml(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let yaml = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\nstringData:\n  k: \"1\"\n";
    let path = space.path("secrets/a?fieldManager=one");
    let (status, made) = send(cluster, "PATCH", &path, &[("content-type", APPLY)], Some(yaml.to_owned())).await?;
    same((status, &made["data"], &made["type"]), (201, &json!({"k": "MQ=="}), &json!("Opaque")))?;
    same(owners(&made), vec![json!(["one", "Apply", {"f:stringData": {"f:k": {}}}])])
}

pub async fn an_apply_needs_a_manager_a_kind_and_a_name(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let answer = apply(&space, "", config_map(json!({}))).await?;
    let why = "Required value: is required for apply patch";
    let cause = json!({"reason": "FieldValueRequired", "message": why, "field": "fieldManager"});
    let details = json!({"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]});
    let text = format!(r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: {why}"#);
    same(answer, failure(422, "Invalid", &text, details))?;
    let bad = |text: &str| failure(400, "BadRequest", text, json!(null));
    let mut object = config_map(json!({}));
    object["metadata"]["managedFields"] = json!([]);
    same(apply(&space, "fieldManager=one", object).await?, bad("metadata.managedFields must be nil"))?;
    let mut object = config_map(json!({}));
    object["metadata"]["name"] = "b".into();
    let text = "the name of the object (b) does not match the name on the URL (a)";
    same(apply(&space, "fieldManager=one", object).await?, bad(text))?;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "1"}});
    let text = "the name of the object (a based on URL) was undeterminable: name must be provided";
    same(apply(&space, "fieldManager=one", object).await?, bad(text))?;
    space.made("configmaps", json!({"metadata": {"name": "a"}})).await?;
    let answer = apply(&space, "fieldManager=one", json!({"data": {"k": "1"}})).await?;
    same(answer, bad("invalid object type: /, Kind="))
}

pub async fn what_another_owns_is_a_conflict(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    apply(&space, "fieldManager=one", config_map(json!({"k": "1", "l": "1"}))).await?;
    let conflict = |text: &str, causes: Value| failure(409, "Conflict", text, json!({"causes": causes}));
    let cause = |manager: &str, field: &str| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field});
    let answer = apply(&space, "fieldManager=two", config_map(json!({"k": "2"}))).await?;
    let text = r#"Apply failed with 1 conflict: conflict with "one": .data.k"#;
    same(answer, conflict(text, json!([cause(r#""one""#, ".data.k")])))?;
    let answer = apply(&space, "fieldManager=two", config_map(json!({"k": "2", "l": "2"}))).await?;
    let text = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.k\n- .data.l";
    same(answer, conflict(text, json!([cause(r#""one""#, ".data.k"), cause(r#""one""#, ".data.l")])))?;
    // The same value is no conflict: both own it.
    let (status, both) = apply(&space, "fieldManager=two", config_map(json!({"k": "1"}))).await?;
    let one = json!(["one", "Apply", {"f:data": {"f:k": {}, "f:l": {}}}]);
    same((status, owners(&both)), (200, vec![one, json!(["two", "Apply", {"f:data": {"f:k": {}}}])]))
}

pub async fn who_updates_owns_too(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    apply(&space, "fieldManager=one", config_map(json!({"k": "1"}))).await?;
    space.patch("configmaps/a", MERGE, json!({"data": {"k": "2"}})).await?;
    let (status, answer) = apply(&space, "fieldManager=one", config_map(json!({"k": "1"}))).await?;
    let text = r#"Apply failed with 1 conflict: conflict with "contract" using v1: .data.k"#;
    same((status, &answer["message"]), (409, &json!(text)))?;
    let (status, forced) = apply(&space, "fieldManager=one&force=true", config_map(json!({"k": "1"}))).await?;
    same((status, owners(&forced)), (200, vec![json!(["one", "Apply", {"f:data": {"f:k": {}}}])]))
}

pub async fn what_is_no_longer_applied_goes_unless_another_owns_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    apply(&space, "fieldManager=one", config_map(json!({"k": "1", "l": "1", "m": "1"}))).await?;
    apply(&space, "fieldManager=two", config_map(json!({"l": "1"}))).await?;
    space.patch("configmaps/a", MERGE, json!({"data": {"n": "1"}})).await?;
    let (status, rest) = apply(&space, "fieldManager=one", config_map(json!({"m": "1"}))).await?;
    same((status, &rest["data"]), (200, &json!({"l": "1", "m": "1", "n": "1"})))?;
    let (status, rest) = apply(&space, "fieldManager=one", config_map(json!({}))).await?;
    same((status, &rest["data"]), (200, &json!({"l": "1", "n": "1"})))
}

pub async fn an_apply_owns_items_of_lists_by_their_keys(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let deployment = |containers: Value, extra: Value| {
        let mut spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}});
        spec["template"] = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}});
        for (field, value) in extra.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    };
    let path = "apps/v1/deployments/d?fieldManager=one";
    let ports = json!([{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}]);
    let both = json!([{"name": "a", "image": "a:1", "ports": ports}, {"name": "b", "image": "b:1"}]);
    let (status, made) = space.patch(path, APPLY, deployment(both, json!({"paused": true}))).await?;
    ensure!(status == 201, "{status}: {made}");
    let template = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"];
    let a = json!({".": {}, "f:image": {}, "f:name": {}, "f:ports": {
        r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}},
        r#"k:{"containerPort":81,"protocol":"UDP"}"#: {".": {}, "f:containerPort": {}, "f:protocol": {}},
    }});
    let b = json!({".": {}, "f:image": {}, "f:name": {}});
    same(template, &json!({"f:containers": {r#"k:{"name":"a"}"#: a, r#"k:{"name":"b"}"#: b}}))?;
    let one = json!([{"name": "a", "image": "a:2", "ports": [{"containerPort": 80}]}]);
    let (status, applied) = space.patch(path, APPLY, deployment(one, json!({"paused": true}))).await?;
    ensure!(status == 200, "{status}: {applied}");
    let containers = &applied["spec"]["template"]["spec"]["containers"];
    same((&containers[0]["image"], &containers[1]), (&json!("a:2"), &Value::Null))?;
    same(&containers[0]["ports"], &json!([{"containerPort": 80, "protocol": "TCP"}]))?;
    // Defaults that nobody applied stay.
    same(&containers[0]["imagePullPolicy"], &json!("IfNotPresent"))
}

pub async fn an_apply_may_name_the_version_that_it_is_over(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let at = |version: &str, value: &str| {
        let mut object = config_map(json!({"k": value}));
        object["metadata"]["resourceVersion"] = version.into();
        object
    };
    // Where there is nothing, it is made all the same.
    let (status, made) = apply(&space, "fieldManager=one", at("1", "1")).await?;
    ensure!(status == 201, "{status}: {made}");
    let answer = apply(&space, "fieldManager=one", at("1", "2")).await?;
    let text = r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#;
    same(answer, failure(409, "Conflict", text, json!({"name": "a", "kind": "configmaps"})))?;
    let (status, _) = apply(&space, "fieldManager=one", at(super::version(&made), "2")).await?;
    same(status, 200)
}

pub async fn an_injected_ca_bundle_survives_an_apply_without_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let name = format!("ca-{}", space.name);
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}");
    let webhook = |timeout: u64| {
        json!({"name": "a.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": timeout})
    };
    let configuration = |timeout: u64| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": [webhook(timeout)]})
        .to_string()
    };
    let headers = [("content-type", APPLY)];
    let flux = format!("{path}?fieldManager=flux");
    let (status, made) = send(cluster, "PATCH", &flux, &headers, Some(configuration(10))).await?;
    ensure!(status == 201, "{status}: {made}");
    let inject = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "eA=="}]);
    let (status, _) = send(cluster, "PATCH", &path, &[("content-type", super::JSON)], Some(inject.to_string())).await?;
    ensure!(status == 200, "{status}");
    let (status, applied) = send(cluster, "PATCH", &flux, &headers, Some(configuration(5))).await?;
    same((status, &applied["webhooks"][0]["timeoutSeconds"]), (200, &json!(5)))?;
    same(&applied["webhooks"][0]["clientConfig"]["caBundle"], &json!("eA=="))?;
    cluster.request("DELETE", &path, None).await?;
    Ok(())
}
