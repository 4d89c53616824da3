//! Strategic merge patch: maps are merged, and lists by their key where they have one.
//!
//! The directives are those of `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::{Map, Value};

use super::resources::Resource;
use super::schema::{Shape, shape};

/// What a patch makes of an object.
pub(crate) fn merged(resource: &Resource, old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    merge(resource, "", &mut new, patch);
    new
}

fn merge(resource: &Resource, field: &str, old: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => merge_map(resource, old, patch),
        Value::Array(patch) => match shape(resource, field, &Value::Array(Vec::new())) {
            Shape::Keyed(keys) => merge_list(resource, keys.first().copied().unwrap_or_default(), old, patch),
            Shape::Set => merge_set(old, patch),
            _ => *old = Value::Array(patch.clone()),
        },
        scalar => *old = scalar.clone(),
    }
}

fn merge_map(resource: &Resource, old: &mut Value, patch: &Map<String, Value>) {
    let directive = patch.get("$patch").and_then(Value::as_str);
    if !old.is_object() || directive == Some("replace") || directive == Some("delete") {
        *old = Value::Object(Map::new());
    }
    let Value::Object(map) = old else { return };
    if directive == Some("delete") {
        return;
    }
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| kept.iter().any(|kept| kept == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(items)) = map.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // The order of a list, which is kept as it is.
        } else if value.is_null() {
            map.remove(key);
        } else {
            merge(resource, key, map.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn merge_list(resource: &Resource, key: &str, old: &mut Value, patch: &[Value]) {
    if !old.is_array() || patch.iter().any(|item| item["$patch"] == "replace") {
        *old = Value::Array(Vec::new());
    }
    let Value::Array(items) = old else { return };
    for change in patch.iter().filter(|change| !change[key].is_null()) {
        let at = items.iter().position(|item| item[key] == change[key]);
        match (at, change["$patch"].as_str()) {
            (Some(at), Some("delete")) => drop(items.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => {
                if let Some(item) = items.get_mut(at) {
                    merge(resource, "", item, change);
                }
            }
            (None, _) => {
                let mut item = Value::Null;
                merge(resource, "", &mut item, change);
                items.push(item);
            }
        }
    }
}

fn merge_set(old: &mut Value, patch: &[Value]) {
    if !old.is_array() {
        *old = Value::Array(Vec::new());
    }
    let Value::Array(items) = old else { return };
    for value in patch {
        if !items.contains(value) {
            items.push(value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::resources::named;
    use super::*;

    #[test]
    fn lists_are_merged_by_their_key_and_maps_by_theirs() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]},
            "metadata": {"labels": {"x": "1", "y": "2"}, "finalizers": ["f"]}});
        let patch = json!({
            "spec": {"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "c"},
                {"name": "b", "$patch": "delete"}], "$setElementOrder/containers": []},
            "metadata": {"labels": {"x": null, "z": "3"}, "finalizers": ["g"]},
        });
        let new = merged(named("pods").unwrap(), &pod, &patch);
        let containers = json!([{"name": "a", "image": "2", "args": ["y"]}, {"name": "c"}]);
        assert_eq!(new["spec"], json!({"containers": containers}));
        assert_eq!(new["metadata"], json!({"labels": {"y": "2", "z": "3"}, "finalizers": ["f", "g"]}));
    }

    #[test]
    fn directives_replace_keep_and_delete() {
        let old = json!({"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["f", "g"]}});
        let configmaps = named("configmaps").unwrap();
        let new = |patch: Value| merged(configmaps, &old, &patch);
        assert_eq!(new(json!({"data": {"$patch": "replace", "c": "3"}}))["data"], json!({"c": "3"}));
        assert_eq!(new(json!({"data": {"$retainKeys": ["b"]}}))["data"], json!({"b": "2"}));
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["f"]}});
        assert_eq!(new(patch)["metadata"]["finalizers"], json!(["g"]));
    }
}
