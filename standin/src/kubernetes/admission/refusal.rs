//! The refusals that admission ends in, in the API server's own words:
//! `k8s.io/apiserver/pkg/admission/plugin/webhook/errors` and `k8s.io/apimachinery/pkg/api/errors`.

use serde_json::{Map, Value, json};

use crate::kubernetes::refusal::Refusal;

/// A webhook's own refusal.
pub(super) fn denied(webhook: &str, answered: &Value) -> Refusal {
    let text = |field: &str| answered[field].as_str().filter(|text| !text.is_empty());
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match text("message").or(text("reason")) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    };
    let code = answered["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let code = code.unwrap_or(400);
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if let Some(reason) = text("reason") {
        status["reason"] = reason.into();
    }
    if let Some(details) = answered["details"].as_object() {
        status["details"] = known(details).into();
    }
    Refusal { code, status, warnings: Vec::new() }
}

/// The fields that a Status has for them; others are lost on the way.
fn known(details: &Map<String, Value>) -> Map<String, Value> {
    let fields = ["name", "group", "kind", "uid", "causes", "retryAfterSeconds"];
    details.iter().filter(|(field, _)| fields.contains(&field.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A call that failed, of a webhook whose failures count.
pub(super) fn uncalled(webhook: &str, why: &str) -> Refusal {
    internal(&format!("failed calling webhook {webhook:?}: {why}"))
}

pub(super) fn internal(why: &str) -> Refusal {
    Refusal::internal(why)
}

/// A dry run cannot be asked of a webhook that does more than answer.
pub(super) fn dry_run_unsupported(webhook: &str) -> Refusal {
    Refusal::bad_request(format!("admission webhook {webhook:?} does not support dry run"))
}

/// What Go's library for JSON Patch (`evanphx/json-patch`) says of an operation that does not apply.
pub(super) fn inapplicable(operation: &Value) -> String {
    let path = operation["path"].as_str().unwrap_or_default();
    match operation["op"].as_str().unwrap_or_default() {
        "test" => format!("testing value {path} failed: test failed"),
        "replace" => format!("replace operation does not apply: doc is missing path: {path}: missing value"),
        "remove" => {
            let key = path.rsplit('/').next().unwrap_or_default();
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        op => format!("{op} operation does not apply: doc is missing path: {path:?}: missing value"),
    }
}
