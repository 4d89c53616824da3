//! The AdmissionReview that is posted, and what an answer to it says:
//! `k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Attempt;
use crate::kubernetes::patch;

/// The AdmissionReview to post.
pub(super) fn review(uid: &str, attempt: &Attempt<'_>) -> Value {
    let kind = kind_of(attempt);
    let resource = json!({"group": attempt.group, "version": attempt.version, "resource": attempt.plural});
    let mut request = json!({
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": attempt.operation,
        "userInfo": attempt.user,
        "object": posted(attempt.object.as_ref(), &kind),
        "oldObject": posted(attempt.old.as_ref(), &kind),
        "dryRun": attempt.dry_run,
        "options": attempt.options,
    });
    // A namespace is in itself.
    let namespace = if attempt.is_namespace() { Some(attempt.name) } else { attempt.namespace };
    let told = [
        ("name", Some(attempt.name)),
        ("namespace", namespace),
        ("subResource", attempt.subresource),
        ("requestSubResource", attempt.subresource),
    ];
    for (key, value) in told {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            request[key] = value.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// The kind of the object itself: that of some subresources is another one than the resource's.
fn kind_of(attempt: &Attempt<'_>) -> Value {
    let object = attempt.object.as_ref().or(attempt.old.as_ref());
    let told = |field: &str| object.and_then(|object| object[field].as_str());
    let (group, version) = match told("apiVersion") {
        Some(api_version) => api_version.split_once('/').unwrap_or(("", api_version)),
        None => (attempt.group, attempt.version),
    };
    json!({"group": group, "version": version, "kind": told("kind").unwrap_or(attempt.kind)})
}

/// The real one posts objects with their kind, told or not by whoever sent them.
fn posted(object: Option<&Value>, kind: &Value) -> Value {
    let Some(Value::Object(object)) = object else { return Value::Null };
    let text = |field: &str| kind[field].as_str().unwrap_or_default();
    let api_version = if text("group").is_empty() {
        text("version").to_owned()
    } else {
        format!("{}/{}", text("group"), text("version"))
    };
    let mut object = object.clone();
    object.entry("kind").or_insert_with(|| kind["kind"].clone());
    object.entry("apiVersion").or_insert_with(|| api_version.into());
    object.into()
}

/// What a webhook answered.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) status: Value,
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) warnings: Vec<String>,
}

const INVALID: &str = "received invalid webhook response: ";
const UNCALLED: &str = "failed to call webhook: ";

/// Reads the body of an answer.
///
/// # Errors
/// The reason why the call counts as failed.
pub(super) fn verdict(uid: &str, mutating: bool, body: &[u8]) -> Result<Verdict, String> {
    let answer = decode(body).map_err(|why| format!("{UNCALLED}{why}"))?;
    let invalid = |why: String| Err(format!("{INVALID}{why}"));
    let Some(response) = answer["response"].as_object() else {
        return invalid("webhook response was absent".to_owned());
    };
    let text = |field: &str| response.get(field).and_then(Value::as_str);
    let answered = text("uid").unwrap_or_default();
    if answered != uid {
        return invalid(format!("expected response.uid={uid:?}, got {answered:?}"));
    }
    let (version, kind) = type_of(&answer);
    if version.is_empty() || kind.is_empty() {
        let version = if version.is_empty() { "/" } else { version };
        return invalid(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
        ));
    }
    let patch = match text("patch").map(|patch| STANDARD.decode(patch)) {
        None => Vec::new(),
        Some(Ok(patch)) => patch,
        Some(Err(_)) => return Err(format!("{UNCALLED}illegal base64 data at input byte 0")),
    };
    let patch_type = text("patchType");
    if let Some(why) = patch_misfit(mutating, !patch.is_empty(), patch_type) {
        return invalid(why.to_owned());
    }
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    Ok(Verdict {
        allowed: response.get("allowed") == Some(&Value::Bool(true)),
        status: response.get("status").cloned().unwrap_or_default(),
        patch,
        patch_type: patch_type.unwrap_or_default().to_owned(),
        warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn patch_misfit(mutating: bool, has_patch: bool, patch_type: Option<&str>) -> Option<&'static str> {
    match (mutating, has_patch, patch_type) {
        (false, true, _) => Some("validating webhook may not return response.patch"),
        (false, false, Some(_)) => Some("validating webhook may not return response.patchType"),
        (true, true, None) => Some("webhook returned response.patch but not response.patchType"),
        (true, false, Some(_)) => Some("webhook returned response.patchType but not response.patch"),
        (true, true, Some("")) => Some("webhook returned invalid response.patchType of \"\""),
        _ => None,
    }
}

fn type_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    (text("apiVersion"), text("kind"))
}

/// What Go reads the kind of an object into, as its errors show it.
const TYPE_META: &str = concat!(
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; "#,
    r#"Kind string "json:\"kind,omitempty\"" }"#
);

/// Reads JSON as the decoder of Go's types does, as far as its refusals matter.
fn decode(body: &[u8]) -> Result<Value, String> {
    let unread = |why: String| format!("couldn't get version/kind; json parse error: {why}");
    let text = String::from_utf8_lossy(body);
    let answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) if error.is_eof() => return Err(unread("unexpected end of JSON input".to_owned())),
        Err(error) if text.trim_start().starts_with('{') => return Err(unread(error.to_string())),
        // Any other text is YAML to it, and thereby a string.
        Err(_) => Value::String(text.into_owned()),
    };
    if !answer.is_object() && !answer.is_null() {
        return Err(unread(format!("json: cannot unmarshal {} into Go value of type {TYPE_META}", patch::go(&answer))));
    }
    match type_of(&answer) {
        ("" | "admission.k8s.io/v1", "AdmissionReview") | ("admission.k8s.io/v1", "") | ("", "") => {}
        ("admission.k8s.io/v1beta1", "AdmissionReview") => return Err(unconvertible("v1beta1.AdmissionReview")),
        ("v1", "Status") => return Err(unconvertible("v1.Status")),
        (version, kind) => {
            let scheme = "in scheme \"pkg/runtime/scheme.go:110\"";
            return Err(format!("no kind {kind:?} is registered for version {version:?} {scheme}"));
        }
    }
    match &answer["response"] {
        Value::Null => {}
        Value::Object(response) => misfit(response)?,
        other => return Err(unmarshal(other, "AdmissionReview.response", "v1.AdmissionResponse")),
    }
    Ok(answer)
}

fn unconvertible(from: &str) -> String {
    format!("converting ({from}) to (v1.AdmissionReview): unknown conversion")
}

/// A field of another type than Go has for it.
fn misfit(response: &Map<String, Value>) -> Result<(), String> {
    let fields = [
        ("uid", "string", "types.UID"),
        ("allowed", "bool", "bool"),
        ("status", "object", "v1.Status"),
        ("patch", "string", "[]uint8"),
        ("patchType", "string", "v1.PatchType"),
        ("warnings", "array", "[]string"),
    ];
    for (field, name, go) in fields {
        let value = response.get(field).filter(|value| !value.is_null());
        if let Some(value) = value.filter(|value| patch::go(value) != name) {
            return Err(unmarshal(value, &format!("AdmissionResponse.response.{field}"), go));
        }
    }
    Ok(())
}

fn unmarshal(value: &Value, field: &str, go: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field {field} of type {go}", patch::go(value))
}
