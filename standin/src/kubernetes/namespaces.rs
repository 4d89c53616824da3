//! Namespaces: what is in each from its beginning, and its end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{has_finalizers, meta, remove, set_meta};
use super::refusal::Refusal;
use super::resources::{Resource, named};
use super::store::{Key, Stale, Store};
use super::write::dying;

pub(crate) fn not_found(name: &str) -> Refusal {
    match named("namespaces") {
        Some(resource) => Refusal::not_found(resource, name),
        None => Refusal::internal("no namespaces"),
    }
}

/// That this namespace is there; none is the cluster.
pub(crate) fn is_there(store: &Store, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || store.get(&key(name)).is_some() { Ok(()) } else { Err(not_found(name)) }
}

/// The plugin NamespaceLifecycle keeps those that a cluster cannot be without.
pub(crate) fn may_be_deleted(resource: &Resource, name: &str) -> Result<(), Refusal> {
    match name {
        "default" | "kube-system" | "kube-public" => {
            Err(Refusal::forbidden(resource, name, "this namespace may not be deleted"))
        }
        _ => Ok(()),
    }
}

fn key(name: &str) -> Key {
    Key { plural: "namespaces", namespace: String::new(), name: name.to_owned() }
}

/// What the real controllers put into each: an account for its pods, and the CA of the API server.
pub(crate) fn furnish(store: &mut Store, namespace: &str) {
    let ca_pem = store.ca_pem.clone();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let bundle = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "kube-root-ca.crt",
            "annotations": {
                "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when \
                using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                guaranteed across distributions of Kubernetes clusters.",
            },
        },
        "data": {"ca.crt": ca_pem},
    });
    for (plural, mut object) in [("configmaps", bundle), ("serviceaccounts", account)] {
        set_meta(&mut object, "namespace", namespace);
        plant(store, plural, object);
    }
}

/// What every namespace has comes back.
pub(crate) fn refurnish(store: &mut Store, gone: &Key) {
    let is_alive = |namespace: Arc<Value>| namespace["metadata"]["deletionTimestamp"].is_null();
    let furniture = [("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")];
    if furniture.contains(&(gone.plural, gone.name.as_str())) && store.get(&key(&gone.namespace)).is_some_and(is_alive)
    {
        furnish(store, &gone.namespace);
    }
}

/// Nothing new comes into a namespace that goes.
pub(crate) fn takes(resource: &Resource, name: &str, namespace: &Value) -> Result<(), Refusal> {
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let namespace = meta(namespace, "name");
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut refusal = Refusal::forbidden(resource, name, &why);
    refusal.status["details"]["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(refusal)
}

/// A namespace that is there from the beginning.
pub(crate) fn make(store: &mut Store, name: &str) {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    });
    plant(store, "namespaces", namespace);
    furnish(store, name);
}

/// Stores what is there from the beginning, unless it is there.
pub(crate) fn plant(store: &mut Store, plural: &'static str, mut object: Value) {
    let key = Key { plural, namespace: meta(&object, "namespace").to_owned(), name: meta(&object, "name").to_owned() };
    set_meta(&mut object, "uid", super::uid().unwrap_or_default());
    set_meta(&mut object, "creationTimestamp", super::seconds(super::now().as_second()));
    // One that is there already is as good.
    let _ = store.create(key, object);
}

/// Marks a namespace, deletes what is in it, and then itself. Returns it as it was marked.
pub(crate) fn delete(store: &mut Store, name: &str, old: &Arc<Value>) -> Result<Value, Stale> {
    if !old["metadata"]["deletionTimestamp"].is_null() {
        return Ok((**old).clone());
    }
    let mut marked = dying((**old).clone());
    remove(&mut marked["metadata"], "deletionGracePeriodSeconds");
    marked["status"]["phase"] = "Terminating".into();
    let marked = store.replace(key(name), old, marked)?;
    for key in store.contents(name) {
        let Some(object) = store.get(&key) else { continue };
        if has_finalizers(&object) {
            store.replace(key, &object, dying((*object).clone()))?;
        } else {
            store.remove(key, &object)?;
        }
    }
    finish(store, name);
    Ok((*marked).clone())
}

/// A namespace that was deleted goes once nothing is left in it.
pub(crate) fn finish(store: &mut Store, name: &str) {
    if name.is_empty() || !store.contents(name).is_empty() {
        return;
    }
    if let Some(namespace) = store.get(&key(name))
        && !namespace["metadata"]["deletionTimestamp"].is_null()
    {
        // It was read under this very lock.
        let _ = store.remove(key(name), &namespace);
    }
}
