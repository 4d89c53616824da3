//! Parts that all objects have.

use serde_json::{Map, Value};

/// A field of an object's metadata as text; empty if there is none.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(crate) fn set_meta(object: &mut Value, field: &str, value: impl Into<Value>) {
    object["metadata"][field] = value.into();
}

/// Removes a field of a map, if it is one.
pub(crate) fn remove(value: &mut Value, field: &str) -> Option<Value> {
    value.as_object_mut()?.remove(field)
}

/// Sets a field that is absent, null or an empty text.
pub(crate) fn default(value: &mut Value, field: &str, default: impl Into<Value>) {
    if value[field].is_null() || value[field] == "" {
        value[field] = default.into();
    }
}

/// Whether something keeps a deleted object from going.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Leaves out what Go leaves out: nulls.
pub(crate) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Leaves out what Go leaves out where it is empty: lists, and the maps of strings.
pub(crate) fn without_empty(value: &mut Value) {
    const MAPS: [&str; 6] = ["annotations", "labels", "data", "binaryData", "stringData", "matchLabels"];
    match value {
        Value::Object(map) => {
            let is_empty_map = |value: &Value| value.as_object().is_some_and(Map::is_empty);
            map.retain(|key, value| {
                let is_empty_list = value.as_array().is_some_and(Vec::is_empty);
                let is_left_out = MAPS.contains(&key.as_str()) && is_empty_map(value);
                !is_empty_list && !is_left_out
            });
            map.values_mut().for_each(without_empty);
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        _ => {}
    }
}

/// The items of a list; none if there is no list.
pub(crate) fn items<'a>(value: &'a mut Value, field: &str) -> &'a mut [Value] {
    value.get_mut(field).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}
