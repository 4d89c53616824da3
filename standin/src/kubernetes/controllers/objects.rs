//! Parts of objects that the controllers look at or make.

use serde_json::{Value, json};

use crate::kubernetes::object::{meta, remove};
use crate::kubernetes::resources::{self, RESOURCES, Resource};

/// A resource of the table, by its plural.
pub(super) fn resource(plural: &str) -> &'static Resource {
    resources::named(plural).unwrap_or(&RESOURCES[0])
}

/// The reference to an object's controller, if it has one.
pub(super) fn controller_of(object: &Value) -> Option<&Value> {
    owners(object).find(|owner| owner["controller"] == true)
}

/// All references to owners.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

/// Whether this object is controlled by that one.
pub(super) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller_of(object).is_some_and(|reference| reference["uid"] == owner["metadata"]["uid"])
}

/// A reference that makes an object the controller: `metav1.NewControllerRef`.
pub(super) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta(owner, "name"),
        "uid": meta(owner, "uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A pod of a template: `GetPodFromTemplate` in `k8s.io/kubernetes/pkg/controller/controller_utils.go`.
pub(super) fn pod_of(owner: &Value) -> Value {
    let template = &owner["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", meta(owner, "name")),
        "namespace": meta(owner, "namespace"),
        "ownerReferences": [controller_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Whether a pod counts: it neither ended nor is about to go.
pub(super) fn is_active(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether a pod serves.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"], "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// A condition of a status.
pub(super) fn condition<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == name)
}

/// Removes a condition of a status.
pub(super) fn remove_condition(status: &mut Value, name: &str) {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != name);
        if conditions.is_empty() {
            remove(status, "conditions");
        }
    }
}

/// Puts a condition at the end, in place of the former one of its type.
pub(super) fn put_condition(status: &mut Value, condition: Value) {
    remove_condition(status, condition["type"].as_str().unwrap_or_default());
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => status["conditions"] = json!([condition]),
    }
}

/// A number of an object; none or null is this default.
pub(super) fn number(value: &Value, default: i64) -> i64 {
    value.as_i64().unwrap_or(default)
}
