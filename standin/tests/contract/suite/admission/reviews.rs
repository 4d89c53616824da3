//! What a webhook is asked.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use testbed::KubernetesApi;

use crate::suite::webhook::{Kind, Webhook, allowed, pod};
use crate::suite::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_creation_is_posted_with_all_its_fields,
    an_update_is_posted_with_both_objects_and_its_options,
    a_deletion_is_posted_with_the_old_object_and_its_options,
    a_change_of_a_subresource_names_it,
    a_dry_run_is_told,
    a_generated_name_is_known_to_the_webhook,
    a_service_account_is_told_with_its_groups_and_credential,
    a_review_is_posted_as_json_with_the_deadline_in_its_query,
    a_url_without_path_is_asked_at_its_root,
];

/// Creations, changes and deletions of ConfigMaps.
fn all_of(resource: &str) -> Value {
    json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": [resource]}]})
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// A webhook for one change of ConfigMap `c`, which is there already.
async fn before_a_change(cluster: &KubernetesApi, namespace: &str) -> Result<Webhook> {
    let webhook = Webhook::start(cluster, namespace, |review, _| allowed(review)).await?;
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
    let (status, answer) = webhook.request("POST", "/api/v1", "configmaps", Some(map)).await?;
    ensure!(status == 201, "{status}: {answer}");
    webhook.register(Kind::Validating, all_of("configmaps")).await?;
    Ok(webhook)
}

async fn a_creation_is_posted_with_all_its_fields(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-create", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, all_of("configmaps")).await?;
    let map = json!({"metadata": {"name": "c", "labels": {"l": "1"}}, "data": {"a": "1"}});
    let (status, stored) = webhook.request("POST", "/api/v1", "configmaps", Some(map)).await?;
    ensure!(status == 201, "{status}: {stored}");

    let review = webhook.review()?;
    let named = |field: &str, value: &str| json!({"group": "", "version": "v1", field: value});
    let wanted = json!({
        "uid": review["uid"],
        "kind": named("kind", "ConfigMap"),
        "resource": named("resource", "configmaps"),
        "requestKind": named("kind", "ConfigMap"),
        "requestResource": named("resource", "configmaps"),
        "name": "c",
        "namespace": "review-create",
        "operation": "CREATE",
        "userInfo": review["userInfo"],
        "object": review["object"],
        "oldObject": null,
        "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    });
    ensure!(review == wanted, "{review}");
    let groups = &review["userInfo"]["groups"];
    ensure!(*groups == json!(["system:masters", "system:authenticated"]), "{groups}");
    ensure!(review["userInfo"]["username"].is_string(), "{review}");

    // What is stored, but for the version that only storing it gives.
    let mut object = stored.clone();
    object["metadata"].as_object_mut().context("no metadata")?.remove("resourceVersion");
    ensure!(review["object"] == object, "{} posted, {object} stored", review["object"]);
    ensure!(review["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{review}");
    webhook.end().await
}

async fn an_update_is_posted_with_both_objects_and_its_options(cluster: &KubernetesApi) -> Result<()> {
    let webhook = before_a_change(cluster, "review-update").await?;
    let path = "configmaps/c?fieldManager=contract";
    let (status, answer) = webhook.request("PATCH", "/api/v1", path, Some(json!({"data": {"a": "2"}}))).await?;
    ensure!(status == 200, "{status}: {answer}");
    let review = webhook.review()?;
    ensure!(review["operation"] == "UPDATE" && review["name"] == "c", "{review}");
    ensure!(review["object"]["data"]["a"] == "2" && review["oldObject"]["data"]["a"] == "1", "{review}");
    for object in [&review["object"], &review["oldObject"]] {
        ensure!(object["kind"] == "ConfigMap" && object["apiVersion"] == "v1", "{object}");
        ensure!(
            object["metadata"]["resourceVersion"] == review["oldObject"]["metadata"]["resourceVersion"],
            "{object}"
        );
    }
    let options = json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "contract"});
    ensure!(review["options"] == options, "{review}");
    webhook.end().await
}

async fn a_deletion_is_posted_with_the_old_object_and_its_options(cluster: &KubernetesApi) -> Result<()> {
    let webhook = before_a_change(cluster, "review-delete").await?;
    let options = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
    let (status, answer) = webhook.request("DELETE", "/api/v1", "configmaps/c", Some(options)).await?;
    ensure!(status == 200, "{status}: {answer}");
    let review = webhook.review()?;
    ensure!(review["operation"] == "DELETE" && review["name"] == "c" && review["object"].is_null(), "{review}");
    ensure!(keys(&review).contains(&"object") && review["oldObject"]["data"]["a"] == "1", "{review}");
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1",
        "propagationPolicy": "Background", "gracePeriodSeconds": 0,
    });
    ensure!(review["options"] == options, "{review}");
    webhook.end().await
}

async fn a_change_of_a_subresource_names_it(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-status", |review, _| allowed(review)).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    webhook.register(Kind::Validating, all_of("pods/status")).await?;
    let annotated = json!({"metadata": {"annotations": {"a": "1"}}});
    for path in ["pods/p", "pods/p/status"] {
        let (status, answer) = webhook.request("PATCH", "/api/v1", path, Some(annotated.clone())).await?;
        ensure!(status == 200, "{status}: {answer}");
    }
    let review = webhook.review()?;
    ensure!(review["subResource"] == "status" && review["requestSubResource"] == "status", "{review}");
    ensure!(review["operation"] == "UPDATE" && review["kind"]["kind"] == "Pod", "{review}");
    webhook.end().await
}

async fn a_dry_run_is_told(cluster: &KubernetesApi) -> Result<()> {
    let webhook = before_a_change(cluster, "review-dry-run").await?;
    let path = "configmaps/c?dryRun=All";
    let (status, answer) = webhook.request("PATCH", "/api/v1", path, Some(json!({"data": {"a": "2"}}))).await?;
    ensure!(status == 200, "{status}: {answer}");
    let review = webhook.review()?;
    ensure!(review["dryRun"] == true && review["options"]["dryRun"] == json!(["All"]), "{review}");
    webhook.end().await
}

async fn a_generated_name_is_known_to_the_webhook(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-generate", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let mut generated = pod("");
    generated["metadata"] = json!({"generateName": "made-"});
    let (status, stored) = webhook.request("POST", "/api/v1", "pods", Some(generated)).await?;
    ensure!(status == 201, "{status}: {stored}");
    let review = webhook.review()?;
    let name = stored["metadata"]["name"].as_str().context("no name")?;
    ensure!(name.starts_with("made-") && name.len() == 10, "{name}");
    ensure!(review["name"] == name && review["object"]["metadata"]["name"] == name, "{review}");
    ensure!(review["object"]["metadata"]["generateName"] == "made-", "{review}");
    webhook.end().await
}

async fn a_service_account_is_told_with_its_groups_and_credential(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-account", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let binding = json!({
        "metadata": {"name": "creator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "review-account"}],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let (status, answer) = webhook.request("POST", rbac, "rolebindings", Some(binding)).await?;
    ensure!(status == 201, "{status}: {answer}");
    let token = cluster.service_account_token("review-account", "default", &[cluster.issuer()], 600).await?;
    let path = "/api/v1/namespaces/review-account/pods";
    let (status, answer) = cluster.request_with(Some(&token), "POST", path, Some(pod("p"))).await?;
    ensure!(status == 201, "{status}: {answer}");

    let user = &webhook.review()?["userInfo"];
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:review-account", "system:authenticated"]);
    ensure!(user["username"] == "system:serviceaccount:review-account:default" && user["groups"] == groups, "{user}");
    ensure!(user["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{user}");
    let credential = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
    ensure!(credential.is_some_and(|credential| credential.starts_with("JTI=")), "{user}");
    webhook.end().await
}

async fn a_review_is_posted_as_json_with_the_deadline_in_its_query(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-http", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({"timeoutSeconds": 7})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    let asked = webhook.asked();
    let request = asked.first().context("never asked")?;
    ensure!(request.method == "POST" && request.uri == "/ask?timeout=7s", "{request:?}");
    let host = webhook.server().url().trim_start_matches("https://").to_owned();
    for (name, value) in [
        ("host", host.as_str()),
        ("user-agent", "kube-apiserver-admission"),
        ("accept", "application/json, */*"),
        ("content-type", "application/json"),
    ] {
        ensure!(request.header(name) == Some(value), "{name}: {:?}", request.headers);
    }
    let mut body: Map<String, Value> = serde_json::from_slice(&request.body)?;
    body.remove("request");
    ensure!(Value::from(body) == json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}));
    webhook.end().await
}

async fn a_url_without_path_is_asked_at_its_root(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "review-root", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({"clientConfig": webhook.client_config("")})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    let asked = webhook.asked();
    // Without a time of its own in the configuration it has the default one.
    ensure!(asked.len() == 1 && asked[0].uri == "/?timeout=10s", "{asked:?}");
    webhook.end().await
}
