//! What becomes of a webhook's yes or no.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use crate::suite::webhook::{Kind, Webhook, allowed, answered, denied, failure, is, pod};
use crate::suite::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_denial_is_answered_with_its_code_reason_message_and_details,
    a_denial_says_only_what_its_status_says,
    a_denial_with_a_code_of_success_is_a_bad_request,
    a_denial_to_be_retried_says_when_in_a_header,
    a_denial_wins_whatever_the_failure_policy,
    a_denied_change_leaves_the_object_as_it_was,
    the_warnings_of_a_webhook_are_told_once_each,
    the_warnings_of_a_denial_are_told_too,
];

async fn a_denial_is_answered_with_its_code_reason_message_and_details(cluster: &KubernetesApi) -> Result<()> {
    let told = json!({
        "code": 403, "reason": "RootMissing", "message": "RootMissing: there is none",
        "details": {"causes": [{"reason": "RootMissing", "message": "none"}], "unknown": 1},
    });
    let webhook = Webhook::start(cluster, "denied-in-full", move |review, _| denied(review, told.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let message = "admission webhook \"denied-in-full.contract.test\" denied the request: RootMissing: there is none";
    let details = json!({"causes": [{"reason": "RootMissing", "message": "none"}]});
    is(&webhook.create_pod("p").await?, 403, &failure(403, message, "RootMissing", details))?;
    let (status, answer) = webhook.request("GET", "/api/v1", "pods/p", None).await?;
    ensure!(status == 404, "{status}: {answer}");
    webhook.end().await
}

async fn a_denial_says_only_what_its_status_says(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "denied-tersely", |review, _| denied(review, json!(null))).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let denial = "admission webhook \"denied-tersely.contract.test\" denied the request";
    let bare = failure(400, &format!("{denied} without explanation", denied = denial), "", Value::Null);
    is(&webhook.create_pod("p").await?, 400, &bare)?;
    webhook.answers(|review, _| denied(review, json!({"reason": "Because"})));
    let reason = failure(400, &format!("{denial}: Because"), "Because", Value::Null);
    is(&webhook.create_pod("p").await?, 400, &reason)?;
    webhook.answers(|review, _| denied(review, json!({"message": "no", "code": 418})));
    is(&webhook.create_pod("p").await?, 418, &failure(418, &format!("{denial}: no"), "", Value::Null))?;
    webhook.end().await
}

async fn a_denial_with_a_code_of_success_is_a_bad_request(cluster: &KubernetesApi) -> Result<()> {
    let told = json!({"code": 200, "status": "Success", "message": "fine"});
    let webhook = Webhook::start(cluster, "denied-with-200", move |review, _| denied(review, told.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let message = "admission webhook \"denied-with-200.contract.test\" denied the request: fine";
    is(&webhook.create_pod("p").await?, 400, &failure(400, message, "", Value::Null))?;
    webhook.end().await
}

async fn a_denial_to_be_retried_says_when_in_a_header(cluster: &KubernetesApi) -> Result<()> {
    let told = json!({"code": 429, "reason": "Converging", "message": "wait", "details": {"retryAfterSeconds": 3}});
    let webhook = Webhook::start(cluster, "denied-for-now", move |review, _| denied(review, told.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let path = "/api/v1/namespaces/denied-for-now/pods";
    let json_type = [("content-type", "application/json")];
    let body = Some(pod("p").to_string());
    let answer = cluster.raw(Some(cluster.admin_token()), "POST", path, &json_type, body).await?;
    let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    ensure!(after.as_deref() == Some("3"), "{after:?}");
    let message = "admission webhook \"denied-for-now.contract.test\" denied the request: wait";
    let wanted = failure(429, message, "Converging", json!({"retryAfterSeconds": 3}));
    is(&(answer.status().as_u16(), serde_json::from_str(&answer.text().await?)?), 429, &wanted)?;
    // Who asked has to retry: the API server does not.
    ensure!(webhook.asked().len() == 1);
    webhook.end().await
}

async fn a_denial_wins_whatever_the_failure_policy(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "denied-by-ignored", |review, _| denied(review, json!({}))).await?;
    webhook.register(Kind::Validating, json!({"failurePolicy": "Ignore"})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 400, "{status}: {answer}");
    webhook.end().await
}

async fn a_denied_change_leaves_the_object_as_it_was(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "denied-changes", |review, _| denied(review, json!({"code": 403}))).await?;
    let (status, stored) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {stored}");
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE", "DELETE"], "resources": ["pods"]}]);
    webhook.register(Kind::Validating, json!({"rules": rules})).await?;
    let message = "admission webhook \"denied-changes.contract.test\" denied the request without explanation";
    let wanted = failure(403, message, "", Value::Null);
    let label = json!({"metadata": {"labels": {"a": "1"}}});
    is(&webhook.request("PATCH", "/api/v1", "pods/p", Some(label)).await?, 403, &wanted)?;
    is(&webhook.request("DELETE", "/api/v1", "pods/p", None).await?, 403, &wanted)?;
    let (status, now) = webhook.request("GET", "/api/v1", "pods/p", None).await?;
    ensure!(status == 200 && now == stored, "{status}: {now}");
    webhook.end().await
}

/// The `Warning` headers of the creation of a pod.
async fn warnings(cluster: &KubernetesApi, namespace: &str, status: u16) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let json_type = [("content-type", "application/json")];
    let body = Some(pod("p").to_string());
    let answer = cluster.raw(Some(cluster.admin_token()), "POST", &path, &json_type, body).await?;
    ensure!(answer.status().as_u16() == status, "{}", answer.status());
    let warnings = answer.headers().get_all("warning").iter();
    Ok(warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect())
}

async fn the_warnings_of_a_webhook_are_told_once_each(cluster: &KubernetesApi) -> Result<()> {
    let told = json!({"allowed": true, "warnings": ["beware", "a \"b\" \\", "ünï", "two\nlines", "", "beware"]});
    let webhook = Webhook::start(cluster, "warned", move |review, _| answered(review, told.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    // What no header can carry is left out.
    let wanted = ["299 - \"beware\"", "299 - \"a \\\"b\\\" \\\\\"", "299 - \"ünï\""];
    let told = warnings(cluster, "warned", 201).await?;
    ensure!(told == wanted, "{told:?}");
    webhook.answers(|review, _| allowed(review));
    let none = warnings(cluster, "warned", 201).await?;
    ensure!(none.is_empty(), "{none:?}");
    webhook.end().await
}

async fn the_warnings_of_a_denial_are_told_too(cluster: &KubernetesApi) -> Result<()> {
    let told = json!({"allowed": false, "warnings": ["beware"]});
    let webhook = Webhook::start(cluster, "warned-and-denied", move |review, _| answered(review, told.clone())).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let told = warnings(cluster, "warned-and-denied", 400).await?;
    ensure!(told == ["299 - \"beware\""], "{told:?}");
    webhook.end().await
}
