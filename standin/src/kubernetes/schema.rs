//! Which lists and maps are merged part by part, and which only as a whole: the marks `listType`, `mapType`,
//! `structType` and `patchMergeKey` of the types in `k8s.io/api`.

use serde_json::{Map, Value};

use super::resources::Resource;

/// How the value of a field is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As a whole.
    Atomic,
    /// A map, key by key.
    Map,
    /// A list, by these fields of its items. The first is the key of strategic merge patches.
    Keyed(&'static [&'static str]),
    /// A list of strings, each of which is there or is not.
    Set,
}

/// The shape of a value of the field of this name.
pub(crate) fn shape(resource: &Resource, field: &str, value: &Value) -> Shape {
    match value {
        Value::Object(_) if is_atomic_map(resource, field) => Shape::Atomic,
        Value::Object(_) => Shape::Map,
        Value::Array(_) => list(resource, field),
        _ => Shape::Atomic,
    }
}

/// One reference to an owner, which is owned as a whole.
const OWNER: &str = "ownerReference";

fn is_atomic_map(resource: &Resource, field: &str) -> bool {
    const ATOMIC: [&str; 13] = [
        "selector",
        "namespaceSelector",
        "objectSelector",
        "labelSelector",
        "nodeSelector",
        "roleRef",
        "involvedObject",
        "fieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "resourceFieldRef",
        "secretRef",
        OWNER,
    ];
    !resource.is_custom() && ATOMIC.contains(&field)
}

fn list(resource: &Resource, field: &str) -> Shape {
    let keys: &'static [&'static str] = match field {
        "finalizers" => return Shape::Set,
        "ownerReferences" => &["uid"],
        // Without a schema, a list of a custom resource is one value.
        _ if resource.is_custom() => return Shape::Atomic,
        "ports" if resource.plural == "services" => &["port", "protocol"],
        "ports" => &["containerPort", "protocol"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "conditions" => &["type"],
        "hostAliases" => &["ip"],
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets"
        | "webhooks"
        | "matchConditions" => &["name"],
        _ => return Shape::Atomic,
    };
    Shape::Keyed(keys)
}

/// The parts of a value that are merged each by itself, by their names in `fieldsV1`, with the field that tells their
/// shape; none if it is one value.
pub(crate) fn parts<'a>(
    resource: &Resource,
    field: &str,
    value: &'a Value,
) -> Option<Vec<(String, &'a Value, String)>> {
    match (shape(resource, field, value), value) {
        (Shape::Map, Value::Object(map)) => {
            Some(map.iter().map(|(key, value)| (format!("f:{key}"), value, key.clone())).collect())
        }
        (Shape::Keyed(keys), Value::Array(items)) => {
            let item_field = if field == "ownerReferences" { OWNER } else { "" };
            let part = |item| (format!("k:{}", key(keys, item)), item, item_field.to_owned());
            Some(items.iter().map(part).collect())
        }
        (Shape::Set, Value::Array(items)) => {
            Some(items.iter().map(|item| (format!("v:{item}"), item, String::new())).collect())
        }
        _ => None,
    }
}

/// The key of an item, in JSON.
fn key(keys: &[&str], item: &Value) -> String {
    let of = |name: &str| match &item[name] {
        // The one key that has a default.
        Value::Null if name == "protocol" => "TCP".into(),
        value => value.clone(),
    };
    let key: Map<String, Value> = keys.iter().map(|name| ((*name).to_owned(), of(name))).collect();
    Value::Object(key).to_string()
}

/// Takes the part of this name out of a value.
pub(crate) fn take_out(resource: &Resource, field: &str, value: &mut Value, part: &str) {
    let names = parts(resource, field, value).unwrap_or_default();
    let at = names.iter().position(|(name, ..)| name == part);
    match (value, at) {
        (Value::Object(map), _) => drop(map.remove(part.trim_start_matches("f:"))),
        (Value::Array(items), Some(at)) => drop(items.remove(at)),
        _ => {}
    }
}

/// The part of this name, and the field that tells its shape.
pub(crate) fn part_mut<'a>(
    resource: &Resource,
    field: &str,
    value: &'a mut Value,
    part: &str,
) -> Option<(&'a mut Value, String)> {
    let names = parts(resource, field, value)?;
    let at = names.iter().position(|(name, ..)| name == part)?;
    let field = names.get(at)?.2.clone();
    let found = match value {
        Value::Object(map) => map.get_mut(&field)?,
        Value::Array(items) => items.get_mut(at)?,
        _ => return None,
    };
    Some((found, field))
}
