//! What is particular to each kind: its defaults, what it keeps over a change, and what makes it invalid.

use serde_json::{Value, json};

use super::object::{default, has_finalizers, meta, remove, set_meta};
use super::refusal::{Cause, Refusal, details};
use super::resources::Resource;

/// Whether webhooks are asked about it.
pub(crate) fn is_admitted(resource: &Resource) -> bool {
    !resource.is_review() && resource.plural != "events" && !resource.plural.ends_with("webhookconfigurations")
}

/// Makes what was sent a new object of its kind.
pub(crate) fn begin(resource: &Resource, object: &mut Value) -> Result<(), Refusal> {
    if !meta(object, "resourceVersion").is_empty() {
        return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created", None));
    }
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"]
    {
        remove(&mut object["metadata"], field);
    }
    if resource.has_status() {
        remove(object, "status");
        if !resource.is_custom() {
            object["status"] = json!({});
        }
    }
    if resource.is_counted() {
        set_meta(object, "generation", 1);
    }
    defaults(resource, object);
    Ok(())
}

/// Makes what was sent the successor of an object.
pub(crate) fn succeed(resource: &Resource, subresource: &str, sent: Value, old: &Value) -> Result<Value, Refusal> {
    let mut new = sent;
    if subresource == "status" {
        let mut kept = old.clone();
        kept["status"] = new["status"].take();
        if !resource.is_custom() {
            kept["metadata"] = new["metadata"].take();
        }
        new = kept;
    } else if resource.has_status() {
        new["status"] = old["status"].clone();
    }
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"]
    {
        match old["metadata"].get(field) {
            Some(value) => set_meta(&mut new, field, value.clone()),
            None => drop(remove(&mut new["metadata"], field)),
        }
    }
    defaults(resource, &mut new);
    if resource.is_counted() && differs(&new, old) {
        set_meta(&mut new, "generation", old["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
    }
    Ok(new)
}

fn differs(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        remove(&mut object, "metadata");
        remove(&mut object, "status");
        object
    };
    bare(new) != bare(old)
}

fn defaults(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "secrets" => {
            if let Some(Value::Object(strings)) = remove(object, "stringData") {
                for (key, value) in strings {
                    use base64::Engine;
                    let text = value.as_str().unwrap_or_default();
                    object["data"][key] = base64::engine::general_purpose::STANDARD.encode(text).into();
                }
            }
            default(object, "type", "Opaque");
        }
        "namespaces" => {
            let name = meta(object, "name").to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            default(&mut object["status"], "phase", "Active");
        }
        _ => {}
    }
}

/// Refuses what is invalid.
pub(crate) fn check(resource: &Resource, object: &Value, _old: Option<&Value>) -> Result<(), Refusal> {
    let name = meta(object, "name");
    if name.is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(Refusal::invalid(resource, name, &[cause]));
    }
    Ok(())
}

/// What a deletion is answered with: the object, where it or what it stands for goes on for a while, else a Status.
pub(crate) fn deleted(resource: &Resource, old: &Value, last: Option<Value>) -> Value {
    let shown = ["pods", "services", "serviceaccounts"].contains(&resource.plural);
    match last {
        Some(last) => last,
        None if shown && !has_finalizers(old) => old.clone(),
        None => {
            let mut details = details(resource, meta(old, "name"));
            details["uid"] = meta(old, "uid").into();
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
        }
    }
}
