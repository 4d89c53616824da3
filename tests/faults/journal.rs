//! What the embedded servers kept, in the words of the real ones' audit logs, so that one reader reads both.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use standin::journal::Entry;
use standin::wire::Request;

/// What of an embedded Vault is to be kept.
pub fn of_vault(request: &Request) -> bool {
    let path = request.uri.path();
    request.method != "GET" && (path.ends_with("/istio/ca") || path.ends_with("/login"))
}

/// What of an embedded API server is to be kept.
pub fn of_kubernetes(request: &Request) -> bool {
    let path = request.uri.path();
    request.method != "GET" && ["/secrets", "/pods"].iter().any(|part| path.contains(part))
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn time(at: SystemTime) -> Value {
    Timestamp::try_from(at).map(|at| json!(at.to_string())).unwrap_or_default()
}

/// Vault's audit log, by whom has this token and by gates.
pub fn vault_log(entries: &[Entry], root_token: &str) -> String {
    let admin = format!("Bearer {root_token}");
    let line = |entry: &Entry| {
        let policy = if entry.request.header("authorization") == Some(&admin) { "root" } else { "istio-ca-bootstrap" };
        let operation = if entry.request.method == "DELETE" { "delete" } else { "update" };
        let error = if entry.status < 300 { String::new() } else { entry.status.to_string() };
        json!({
            "time": time(entry.at), "type": "response", "error": error, "auth": { "policies": [policy] },
            "request": {
                "operation": operation,
                "path": entry.request.uri.path().trim_start_matches("/v1/"),
                "data": parsed(&entry.request.body),
            },
            "response": parsed(&entry.body),
        })
        .to_string()
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The tokens that logins gave.
pub fn tokens(entries: &[Entry]) -> Vec<String> {
    let tokens = entries.iter().map(|entry| parsed(&entry.body)["auth"]["client_token"].clone());
    tokens.filter_map(|token| token.as_str().map(str::to_owned)).collect()
}

/// The API server's audit log.
pub fn kubernetes_log(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let segments = entry.request.segments();
        // api/v1/namespaces/NAMESPACE/RESOURCE/NAME/SUBRESOURCE
        let part = |index: usize| segments.get(index).cloned();
        let body = parsed(&entry.body);
        let verb = match entry.request.method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            _ if part(5).is_none() => "deletecollection",
            _ => "delete",
        };
        json!({
            "stage": "ResponseComplete", "stageTimestamp": time(entry.at), "verb": verb,
            "requestURI": entry.request.uri.to_string(),
            "user": { "username": user(entry.request.header("authorization").unwrap_or_default()) },
            "objectRef": { "namespace": part(3), "resource": part(4), "name": part(5), "subresource": part(6) },
            "requestObject": parsed(&entry.request.body),
            "responseObject": body,
            "responseStatus": { "code": entry.status, "message": body["message"] },
        })
        .to_string()
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The subject of a token of a service account.
fn user(authorization: &str) -> String {
    let claims = authorization.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    claims.and_then(|claims| parsed(&claims)["sub"].as_str().map(str::to_owned)).unwrap_or_else(|| "admin".to_owned())
}
