//! What happens to the objects of a resource: `k8s.io/client-go/tools/cache`'s reflector.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::client::{Client, Refused, path};
use crate::kubernetes::object::meta;
use crate::kubernetes::resources::Resource;

/// Shorter than the client's own limit for a whole answer.
const WATCH_SECONDS: u32 = 20;

/// After a failed list or watch.
const PAUSE: Duration = Duration::from_millis(200);

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) resource: &'static Resource,
    pub(super) change: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It is new, or there already when the watch begins.
    Added(Value),
    Modified(Value),
    Gone(Value),
}

impl Change {
    pub(super) fn object(&self) -> &Value {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Gone(object) => object,
        }
    }
}

/// Tells of every change of a resource's objects in all namespaces, for ever.
pub(super) async fn watch(client: Client, resource: &'static Resource, events: UnboundedSender<Event>) {
    let mut known = Known::default();
    let tell = |change: Option<Change>| change.is_none_or(|change| events.send(Event { resource, change }).is_ok());
    loop {
        let Ok((items, version)) = client.list(&path(resource, "", "")).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        known.version = version;
        for change in known.listed(items) {
            tell(Some(change));
        }
        // A broken watch goes on where it was; only a version that is too old needs a new list.
        while let Err(refused) = follow(&client, resource, &mut known, &tell).await {
            if refused.code == 410 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Watches until the watch breaks, which is told by an error, as is its regular end.
async fn follow(
    client: &Client,
    resource: &Resource,
    known: &mut Known,
    tell: &impl Fn(Option<Change>) -> bool,
) -> Result<(), Refused> {
    let ended = || Refused { code: 0, message: "the watch ended".to_owned(), terminating: false };
    let query =
        format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}", known.version);
    let mut answer = client.open(&format!("{}?{query}", path(resource, "", ""))).await?;
    let mut read = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| ended())? {
        read.extend_from_slice(&chunk);
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = read.drain(..=end).collect();
            let Ok(mut event) = serde_json::from_slice::<Value>(&line) else { return Err(ended()) };
            let object = event["object"].take();
            if event["type"] == "ERROR" {
                let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
                return Err(Refused { code, ..ended() });
            }
            tell(known.told(event["type"].as_str().unwrap_or_default(), object));
        }
    }
    Ok(())
}

/// What was told of so far.
#[derive(Debug, Default)]
struct Known {
    version: String,
    /// By namespace and name.
    objects: BTreeMap<(String, String), Value>,
}

impl Known {
    /// What a new list tells that was not known: blocked owners would be tried again if all of it counted as changed.
    fn listed(&mut self, items: Vec<Value>) -> Vec<Change> {
        let mut gone = std::mem::take(&mut self.objects);
        let mut changes = Vec::new();
        for object in items {
            match gone.remove(&key(&object)) {
                Some(old) if meta(&old, "resourceVersion") == meta(&object, "resourceVersion") => {}
                Some(old) if meta(&old, "uid") == meta(&object, "uid") => {
                    changes.push(Change::Modified(object.clone()))
                }
                Some(old) => changes.extend([Change::Gone(old), Change::Added(object.clone())]),
                None => changes.push(Change::Added(object.clone())),
            }
            self.objects.insert(key(&object), object);
        }
        changes.extend(gone.into_values().map(Change::Gone));
        changes
    }

    /// What an event of a watch tells.
    fn told(&mut self, kind: &str, object: Value) -> Option<Change> {
        self.version = meta(&object, "resourceVersion").to_owned();
        match kind {
            "ADDED" | "MODIFIED" => {
                let old = self.objects.insert(key(&object), object.clone());
                Some(if old.is_some() { Change::Modified(object) } else { Change::Added(object) })
            }
            "DELETED" => {
                self.objects.remove(&key(&object));
                Some(Change::Gone(object))
            }
            _ => None,
        }
    }
}

fn key(object: &Value) -> (String, String) {
    (meta(object, "namespace").to_owned(), meta(object, "name").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> Value {
        json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version}})
    }

    #[test]
    fn a_new_list_tells_only_what_is_new() {
        let mut known = Known::default();
        let first = [object("a", "1", "1"), object("b", "2", "2"), object("c", "3", "3"), object("d", "4", "4")];
        assert_eq!(known.listed(first.to_vec()), first.clone().map(Change::Added));
        let [same, changed, replaced] = [object("a", "1", "1"), object("b", "2", "5"), object("c", "6", "6")];
        let changes = known.listed(vec![same, changed.clone(), replaced.clone()]);
        let [_, _, old, gone] = first;
        let wanted = [Change::Modified(changed), Change::Gone(old), Change::Added(replaced), Change::Gone(gone)];
        assert_eq!(changes, wanted);
    }

    #[test]
    fn a_watch_goes_on_after_its_last_event_or_bookmark() {
        let mut known = Known::default();
        assert_eq!(known.told("ADDED", object("a", "1", "1")), Some(Change::Added(object("a", "1", "1"))));
        assert_eq!(known.told("MODIFIED", object("a", "1", "2")), Some(Change::Modified(object("a", "1", "2"))));
        assert_eq!((known.told("BOOKMARK", object("", "", "7")), known.version.as_str()), (None, "7"));
        assert_eq!(known.told("DELETED", object("a", "1", "8")), Some(Change::Gone(object("a", "1", "8"))));
        assert!(known.objects.is_empty());
    }
}
