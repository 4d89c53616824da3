//! Watches: what happens to the objects that a request selects, as it happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::read::{selector, version_number};
use super::refusal::Refusal;
use super::resources::Resource;
use super::selectors::Selector;
use super::server::{Call, Core, State};
use super::store::{Change, TooOld};
use super::table::{Included, table};
use crate::wire::{self, Answer};

/// A watch without a deadline of its own ends after this; the real one takes 30 to 60 minutes.
const WATCH: Duration = Duration::from_secs(30 * 60);

/// Between two bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

impl Core {
    pub(crate) fn watch(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let version = call.query("resourceVersion").map(|version| version_number(&version)).transpose()?.unwrap_or(0);
        let seconds = call.query("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
        let is_true = |name| call.query(name).is_some_and(|value| value == "true");
        let view = View {
            resource: call.resource,
            namespace: call.within().map(ToOwned::to_owned),
            selector: selector(call)?,
            table: call.table(),
        };
        let bookmarks = is_true("allowWatchBookmarks");
        let changes = self.state.changes();
        let store = self.state.store();
        let mut ready = VecDeque::new();
        let mut open = true;
        if version == 0 {
            let objects = store.list(call.resource.plural, call.within());
            ready.extend(objects.iter().filter(|object| view.selector.matches(object)).map(|o| view.event("ADDED", o)));
            if is_true("sendInitialEvents") {
                ready.push_back(view.bookmark(store.version(), true));
            }
        } else if let Err(TooOld(oldest)) = store.since(version) {
            let refusal = Refusal::expired(format!("too old resource version: {version} ({oldest})"));
            ready.push_back(line(&json!({"type": "ERROR", "object": refusal.status})));
            open = false;
        }
        let watch = Watch {
            view,
            seen: if version == 0 { store.version() } else { version },
            ready,
            open,
            state: Arc::clone(&self.state),
            changes,
            ends: Instant::now() + seconds.filter(|s| *s > 0).map_or(WATCH, Duration::from_secs),
            bookmarks: bookmarks.then(|| Instant::now() + BOOKMARK),
        };
        Ok(wire::stream("application/json", watch.stream()))
    }
}

/// What a watch shows.
struct View {
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    table: Option<Included>,
}

impl View {
    /// How a change looks through the selector: an object may come into sight and go out of it.
    fn show(&self, change: &Change) -> Option<Bytes> {
        let key = &change.key;
        if key.plural != self.resource.plural || self.namespace.as_ref().is_some_and(|n| *n != key.namespace) {
            return None;
        }
        let seen = |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selector.matches(object));
        match (seen(&change.old), seen(&change.new)) {
            (None, Some(new)) => Some(self.event("ADDED", &new)),
            (Some(_), Some(new)) => Some(self.event("MODIFIED", &new)),
            (Some(old), None) => {
                let mut last = (*old).clone();
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                Some(self.event("DELETED", &last))
            }
            (None, None) => None,
        }
    }

    fn event(&self, kind: &str, object: &Value) -> Bytes {
        if let Some(included) = self.table {
            return line(&json!({"type": kind, "object": table(self.resource, object, included, super::now())}));
        }
        line(&json!({"type": kind, "object": object}))
    }

    fn bookmark(&self, version: u64, first: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if first {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, api_version) = (self.resource.kind, self.resource.api_version());
        line(&json!({"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": api_version, "metadata": metadata}}))
    }
}

struct Watch {
    view: View,
    /// The version up to which everything was told.
    seen: u64,
    ready: VecDeque<Bytes>,
    open: bool,
    state: Arc<State>,
    changes: Receiver<u64>,
    ends: Instant,
    /// When the next one is due, if any were asked for.
    bookmarks: Option<Instant>,
}

impl Watch {
    fn stream(self) -> impl Stream<Item = Bytes> + Send + 'static {
        futures::stream::unfold(self, |mut watch| async {
            let event = watch.next().await?;
            Some((event, watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if !self.open {
                return None;
            }
            let due = self.bookmarks.unwrap_or(self.ends).min(self.ends);
            let seen = self.seen;
            // None: it is time; else whether there was a change.
            let changed = tokio::select! {
                () = tokio::time::sleep_until(due) => None,
                changed = self.changes.wait_for(|version| *version > seen) => Some(changed.is_ok()),
            };
            match changed {
                None => self.on_time(),
                Some(true) => self.on_change(),
                // The server is gone.
                Some(false) => return None,
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.open = now < self.ends;
        if self.bookmarks.is_some() {
            self.bookmarks = Some(now + BOOKMARK);
            self.ready.push_back(self.view.bookmark(self.seen, false));
        }
    }

    fn on_change(&mut self) {
        let store = self.state.store();
        match store.since(self.seen) {
            Ok(changes) => self.ready.extend(changes.iter().filter_map(|change| self.view.show(change))),
            Err(TooOld(oldest)) => {
                let refusal = Refusal::expired(format!("too old resource version: {} ({oldest})", self.seen));
                self.ready.push_back(line(&json!({"type": "ERROR", "object": refusal.status})));
                self.open = false;
            }
        }
        self.seen = store.version();
    }
}

fn line(event: &Value) -> Bytes {
    Bytes::from(event.to_string() + "\n")
}
