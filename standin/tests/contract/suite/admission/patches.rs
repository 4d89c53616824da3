//! What mutating webhooks change.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::KubernetesApi;

use crate::suite::webhook::{Kind, Webhook, allowed, answered, internal, is, patched};
use crate::suite::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_patch_is_stored_and_seen_by_those_that_validate,
    patches_are_made_in_the_order_of_the_configurations,
    a_patch_that_does_not_apply_is_an_internal_error_whatever_the_failure_policy,
    a_patch_and_its_type_come_together,
    a_patch_of_a_webhook_that_validates_is_a_failed_call,
    a_deletion_cannot_be_patched,
    an_empty_patch_changes_nothing,
];

fn labels(value: Value) -> Value {
    json!([{"op": "add", "path": "/metadata/labels", "value": value}])
}

async fn a_patch_is_stored_and_seen_by_those_that_validate(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "patched", |review, before| match before {
        0 => patched(review, &labels(json!({"added": "1"}))),
        _ => allowed(review),
    })
    .await?;
    webhook.register(Kind::Validating, json!({})).await?;
    webhook.register(Kind::Mutating, json!({})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201 && answer["metadata"]["labels"] == json!({"added": "1"}), "{status}: {answer}");
    let reviews = webhook.reviews()?;
    ensure!(reviews.len() == 2 && reviews[0]["uid"] != reviews[1]["uid"], "{reviews:?}");
    ensure!(reviews[0]["object"]["metadata"]["labels"].is_null(), "{}", reviews[0]);
    ensure!(reviews[1]["object"]["metadata"]["labels"] == json!({"added": "1"}), "{}", reviews[1]);
    webhook.end().await
}

async fn patches_are_made_in_the_order_of_the_configurations(cluster: &KubernetesApi) -> Result<()> {
    let label = |review: &Value, before: usize| match before {
        0 => patched(review, &labels(json!({"first": "1"}))),
        _ => patched(review, &json!([{"op": "add", "path": "/metadata/labels/second", "value": "2"}])),
    };
    let webhook = Webhook::start(cluster, "patched-twice", label).await?;
    for (configuration, path) in [("patched-twice-b", "/b"), ("patched-twice-a", "/a")] {
        let client_config = webhook.client_config(path);
        webhook.register_as(configuration, Kind::Mutating, json!({"clientConfig": client_config})).await?;
    }
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    ensure!(answer["metadata"]["labels"] == json!({"first": "1", "second": "2"}), "{answer}");
    let paths: Vec<_> = webhook.asked().iter().map(|request| request.uri.path().to_owned()).collect();
    ensure!(paths == ["/a", "/b"], "{paths:?}");
    webhook.end().await
}

async fn a_patch_that_does_not_apply_is_an_internal_error_whatever_the_failure_policy(
    cluster: &KubernetesApi,
) -> Result<()> {
    let webhook = Webhook::start(cluster, "patched-badly", |review, _| allowed(review)).await?;
    webhook.register(Kind::Mutating, json!({"failurePolicy": "Ignore"})).await?;
    let texts = [
        (
            json!({"op": "replace", "path": "/metadata/labels/x", "value": "1"}),
            "replace operation does not apply: doc is missing path: /metadata/labels/x: missing value",
        ),
        (
            json!({"op": "add", "path": "/metadata/labels/x", "value": "1"}),
            "add operation does not apply: doc is missing path: \"/metadata/labels/x\": missing value",
        ),
        (
            json!({"op": "remove", "path": "/metadata/labels"}),
            "error in remove for path: '/metadata/labels': Unable to remove nonexistent key: labels: missing value",
        ),
        (
            json!({"op": "test", "path": "/metadata/name", "value": "other"}),
            "testing value /metadata/name failed: test failed",
        ),
        (json!({"op": "frob", "path": "/metadata/name"}), "Unexpected kind: frob"),
    ];
    for (operation, why) in texts {
        webhook.answers(move |review, _| patched(review, &json!([operation])));
        is(&webhook.create_pod("p").await?, 500, &internal(why))?;
    }
    webhook.end().await
}

async fn a_patch_and_its_type_come_together(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "patch-type", |review, _| allowed(review)).await?;
    webhook.register(Kind::Mutating, json!({})).await?;
    let patch = STANDARD.encode(labels(json!({"a": "1"})).to_string());
    let texts = [
        (
            json!({"patch": patch}),
            "received invalid webhook response: webhook returned response.patch but not response.patchType",
        ),
        (
            json!({"patchType": "JSONPatch"}),
            "received invalid webhook response: webhook returned response.patchType but not response.patch",
        ),
        (
            json!({"patch": patch, "patchType": ""}),
            "received invalid webhook response: webhook returned invalid response.patchType of \"\"",
        ),
        (json!({"patch": patch, "patchType": "Merge"}), "unsupported patch type \"Merge\""),
        (
            json!({"patch": STANDARD.encode("{}"), "patchType": "JSONPatch"}),
            "received undecodable patch in webhook response: json: cannot unmarshal object into Go value of type \
             jsonpatch.Patch",
        ),
        (
            json!({"patch": "###", "patchType": "JSONPatch"}),
            "failed to call webhook: illegal base64 data at input byte 0",
        ),
    ];
    for (mut response, why) in texts {
        response["allowed"] = true.into();
        webhook.answers(move |review, _| answered(review, response.clone()));
        let wanted = internal(&format!("failed calling webhook \"patch-type.contract.test\": {why}"));
        is(&webhook.create_pod("p").await?, 500, &wanted)?;
    }
    webhook.end().await
}

async fn a_patch_of_a_webhook_that_validates_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "patch-forbidden", |review, _| patched(review, &json!([]))).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let refused = |field: &str| {
        let why = format!("received invalid webhook response: validating webhook may not return response.{field}");
        internal(&format!("failed calling webhook \"patch-forbidden.contract.test\": {why}"))
    };
    is(&webhook.create_pod("p").await?, 500, &refused("patch"))?;
    webhook.answers(|review, _| answered(review, json!({"allowed": true, "patchType": "JSONPatch"})));
    is(&webhook.create_pod("p").await?, 500, &refused("patchType"))?;
    webhook.end().await
}

async fn a_deletion_cannot_be_patched(cluster: &KubernetesApi) -> Result<()> {
    let patch = |review: &Value, _| patched(review, &labels(json!({"a": "1"})));
    let webhook = Webhook::start(cluster, "patched-deletion", patch).await?;
    let map = json!({"metadata": {"name": "c"}});
    let (status, answer) = webhook.request("POST", "/api/v1", "configmaps", Some(map)).await?;
    ensure!(status == 201, "{status}: {answer}");
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}]);
    webhook.register(Kind::Mutating, json!({"rules": rules})).await?;
    let why = "admission webhook \"patched-deletion.contract.test\" attempted to modify the object, which is not \
        supported for this operation";
    is(&webhook.request("DELETE", "/api/v1", "configmaps/c", None).await?, 500, &internal(why))?;
    webhook.end().await
}

async fn an_empty_patch_changes_nothing(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "patched-empty", |review, _| patched(review, &json!([]))).await?;
    webhook.register(Kind::Mutating, json!({})).await?;
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    let metadata = answer["metadata"].as_object().context("no metadata")?;
    ensure!(!metadata.contains_key("labels") && webhook.asked().len() == 1, "{answer}");
    webhook.end().await
}
