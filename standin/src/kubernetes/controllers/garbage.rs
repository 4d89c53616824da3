//! What is left without its owners goes, and what is deleted with a policy waits for what it owns:
//! `k8s.io/kubernetes/pkg/controller/garbagecollector`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::client::{Client, Result, path};
use super::objects::owners;
use super::watch::{Change, Event};
use crate::kubernetes::object::meta;
use crate::kubernetes::resources::{RESOURCES, Resource};

/// `metav1.FinalizerOrphanDependents`
const ORPHAN: &str = "orphan";

/// `metav1.FinalizerDeleteDependents`
const FOREGROUND: &str = "foregroundDeletion";

/// Who owns whom, as far as the watches told.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// By uid.
    nodes: HashMap<String, Node>,
}

#[derive(Clone, Debug)]
struct Node {
    resource: &'static Resource,
    object: Value,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// This object may have lost its owners.
    Suspect(Found),
    /// This finalizer's work is to be done: on these dependents first, then without it.
    Finalize { owner: Found, finalizer: &'static str, dependents: Vec<Found> },
}

/// An object and where it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    path: String,
    object: Value,
}

impl Graph {
    pub(super) fn apply(&mut self, event: &Event) {
        let uid = meta(event.change.object(), "uid").to_owned();
        match &event.change {
            Change::Gone(_) => drop(self.nodes.remove(&uid)),
            Change::Added(object) | Change::Modified(object) => {
                let metadata = object["metadata"].clone();
                self.nodes.insert(uid, Node { resource: event.resource, object: json!({"metadata": metadata}) });
            }
        }
    }

    /// Everything that is to be done now.
    pub(super) fn work(&self) -> Vec<Work> {
        let mut work = Vec::new();
        for node in self.nodes.values() {
            let deleting = !node.object["metadata"]["deletionTimestamp"].is_null();
            let finalizer = [ORPHAN, FOREGROUND].into_iter().find(|name| finalizers(&node.object).any(|f| f == *name));
            match finalizer.filter(|_| deleting) {
                Some(finalizer) => {
                    let dependents = self.dependents(meta(&node.object, "uid")).map(Node::found).collect();
                    work.push(Work::Finalize { owner: node.found(), finalizer, dependents });
                }
                None if !deleting && self.is_suspect(&node.object) => work.push(Work::Suspect(node.found())),
                None => {}
            }
        }
        work
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| owners(&node.object).any(|owner| owner["uid"] == uid))
    }

    /// Whether it has owners, and none of them is known. Owners of kinds that are not watched are left alone.
    fn is_suspect(&self, object: &Value) -> bool {
        let unknown = |owner: &Value| {
            owned_by(owner).is_some() && !self.nodes.contains_key(owner["uid"].as_str().unwrap_or_default())
        };
        owners(object).next().is_some() && owners(object).all(unknown)
    }
}

impl Node {
    fn found(&self) -> Found {
        let (namespace, name) = (meta(&self.object, "namespace"), meta(&self.object, "name"));
        Found { path: path(self.resource, namespace, name), object: self.object.clone() }
    }
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The resource that a reference to an owner is of.
fn owned_by(owner: &Value) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| owner["kind"] == r.kind && owner["apiVersion"] == r.api_version().as_str())
}

/// Does what is to be done.
pub(super) async fn collect(client: &Client, work: Vec<Work>) -> Result<()> {
    for work in work {
        match work {
            Work::Suspect(found) => {
                if has_no_owner(client, &found.object).await? {
                    delete(client, &found, "Background").await?;
                }
            }
            Work::Finalize { owner, finalizer, dependents } => finalize(client, &owner, finalizer, &dependents).await?,
        }
    }
    Ok(())
}

/// The watches may be behind: only the API server's own word counts.
async fn has_no_owner(client: &Client, object: &Value) -> Result<bool> {
    for owner in owners(object) {
        let Some(resource) = owned_by(owner) else { return Ok(false) };
        let name = owner["name"].as_str().unwrap_or_default();
        let found = client.get(&path(resource, meta(object, "namespace"), name)).await?;
        if found.is_some_and(|found| found["metadata"]["uid"] == owner["uid"]) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn delete(client: &Client, found: &Found, policy: &str) -> Result<()> {
    let preconditions = json!({"uid": found.object["metadata"]["uid"]});
    let options = json!({"preconditions": preconditions, "propagationPolicy": policy});
    match client.delete(&found.path, &options).await {
        // Another object of that name.
        Err(refused) if refused.code == 409 => Ok(()),
        done => done,
    }
}

async fn finalize(client: &Client, owner: &Found, finalizer: &str, dependents: &[Found]) -> Result<()> {
    for dependent in dependents {
        if finalizer == ORPHAN {
            let uid = &owner.object["metadata"]["uid"];
            let kept: Vec<&Value> = owners(&dependent.object).filter(|other| other["uid"] != *uid).collect();
            change(
                client,
                dependent,
                json!({"ownerReferences": if kept.is_empty() { Value::Null } else { json!(kept) }}),
            )
            .await?;
        } else if dependent.object["metadata"]["deletionTimestamp"].is_null() {
            delete(client, dependent, "Foreground").await?;
        }
    }
    // In the foreground the owner waits until they are gone, which is told by an event.
    if finalizer == ORPHAN || dependents.is_empty() {
        let kept: Vec<&str> = finalizers(&owner.object).filter(|other| *other != finalizer).collect();
        change(client, owner, json!({"finalizers": kept})).await?;
    }
    Ok(())
}

/// Patches the metadata of an object as it was found. Over one that changed meanwhile it fails, and is tried again.
async fn change(client: &Client, found: &Found, mut metadata: Value) -> Result<()> {
    for field in ["uid", "resourceVersion"] {
        metadata[field] = found.object["metadata"][field].clone();
    }
    match client.merge(&found.path, &json!({"metadata": metadata})).await {
        Err(refused) if refused.code != 404 => Err(refused),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::controllers::objects::resource;

    fn owned(name: &str, owner: &str) -> Value {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner});
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": [owner]}})
    }

    fn graph(objects: &[(&'static str, Value)]) -> Graph {
        let mut graph = Graph::default();
        for (plural, object) in objects {
            graph.apply(&Event { resource: resource(plural), change: Change::Added(object.clone()) });
        }
        graph
    }

    fn set(metadata: Value) -> Value {
        let mut set = json!({"metadata": {"name": "set", "namespace": "ns", "uid": "set"}});
        for (field, value) in metadata.as_object().into_iter().flatten() {
            set["metadata"][field] = value.clone();
        }
        set
    }

    fn suspects(graph: &Graph) -> Vec<String> {
        let of = |work| match work {
            Work::Suspect(found) => found.path,
            Work::Finalize { .. } => "finalize".to_owned(),
        };
        graph.work().into_iter().map(of).collect()
    }

    #[test]
    fn what_lost_its_owner_is_suspect() {
        let mut graph = graph(&[("replicasets", set(json!({}))), ("pods", owned("pod", "set"))]);
        assert!(graph.work().is_empty());
        graph.apply(&Event { resource: resource("replicasets"), change: Change::Gone(set(json!({}))) });
        assert_eq!(suspects(&graph), ["/api/v1/namespaces/ns/pods/pod"]);
    }

    #[test]
    fn an_owner_of_an_unknown_kind_is_left_alone() {
        let mut pod = owned("pod", "node");
        pod["metadata"]["ownerReferences"][0]["kind"] = "Node".into();
        assert!(graph(&[("pods", pod)]).work().is_empty());
    }

    #[test]
    fn a_deleted_owner_with_a_finalizer_is_finalized_with_what_it_owns() {
        for (finalizer, others) in [(ORPHAN, 1), (FOREGROUND, 0)] {
            let deleted = set(json!({"deletionTimestamp": "now", "finalizers": ["other", finalizer]}));
            let mut objects = vec![("replicasets", deleted)];
            objects.extend((0..others).map(|_| ("pods", owned("pod", "set"))));
            let work = graph(&objects).work();
            let [Work::Finalize { finalizer: found, dependents, .. }] = work.as_slice() else {
                unreachable!("{work:?}")
            };
            assert_eq!((*found, dependents.len()), (finalizer, others));
        }
    }
}
