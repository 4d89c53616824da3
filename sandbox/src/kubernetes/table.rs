//! Objects as `kubectl get` shows them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::object::meta;
use super::resources::Resource;

/// The table of an object or a list.
pub(crate) fn table(_resource: &Resource, object: &Value, _now: Timestamp) -> Value {
    let one = [object.clone()];
    let items = object["items"].as_array().map_or(one.as_slice(), Vec::as_slice);
    let rows: Vec<Value> = items.iter().map(|o| json!({"cells": [meta(o, "name")], "object": o})).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": meta(object, "resourceVersion")},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
        "rows": rows,
    })
}
