//! Kubernetes Events: what people see of the gate in `kubectl get events` and `kubectl describe`.
//!
//! They are best effort, and nothing waits for them: told into a bounded queue, written by a task of its own, the same
//! one at most once a minute.

mod ledger;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

use super::controller::Controller;
use super::flux::{HelmRelease, message_about};
use super::{FIELD_MANAGER, Failed, call, patch, post};
use gate_core::ca::Sha256;
use gate_core::reason::{Held, Reason};
use ledger::{Act, Key, Ledger};

/// Events that wait to be written; more come only in a storm, and are dropped.
const QUEUE: usize = 64;

/// The API server's own limit of a message.
const NOTE_MAX: usize = 1024;

/// The API server's own limit of a reporting instance.
const INSTANCE_MAX: usize = 128;

/// What an Event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    RootBootstrapped,
    CacertsPublished,
    GateOpened,
    GateHeld(Reason),
}

impl What {
    const fn reason(self) -> &'static str {
        match self {
            Self::RootBootstrapped => "RootBootstrapped",
            Self::CacertsPublished => "CacertsPublished",
            Self::GateOpened => "GateOpened",
            Self::GateHeld(_) => "GateHeld",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::GateHeld(_) => "Warning",
            _ => "Normal",
        }
    }
}

struct Told {
    what: What,
    /// The Secret, where there is none.
    about: Option<Controller>,
    note: String,
}

/// Where Events are told. Cheap to clone, and never waits.
#[derive(Clone)]
pub struct Events {
    cluster: Arc<str>,
    namespace: Arc<str>,
    queue: mpsc::Sender<Told>,
}

impl Events {
    /// Events of this cluster, in the namespace of its Secret, and the task that writes them.
    pub fn new(client: Client, cluster: &str, namespace: &str, secret: &str, instance: &str) -> (Self, Writer) {
        let (queue, told) = mpsc::channel(QUEUE);
        let writer = Writer {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            instance: cut(instance, INSTANCE_MAX).to_owned(),
            told,
            ledger: Ledger::default(),
            refused: false,
        };
        (Self { cluster: cluster.into(), namespace: namespace.into(), queue }, writer)
    }

    /// A root was made and is in Vault.
    pub fn bootstrapped(&self, record: &str) {
        let note = format!("cluster {}: made the root and wrote it to {record} in Vault", self.cluster);
        self.tell(What::RootBootstrapped, None, note);
    }

    /// Vault's CA was written into the Secret.
    pub fn published(&self, root: Sha256, version: u64) {
        let note = format!("cluster {}: wrote version {version} of Vault's CA, root {root}", self.cluster);
        self.tell(What::CacertsPublished, None, note);
    }

    /// Gated pods are let in from now on; `bridged`: by an earlier verification, since Vault cannot be asked.
    pub fn opened(&self, bridged: bool) {
        let why = if bridged { "has the root last verified, and Vault cannot be asked" } else { "holds Vault's root" };
        let note = format!("cluster {}: {why}: gated pods are let in", self.cluster);
        self.tell(What::GateOpened, None, note);
    }

    /// Gated pods are kept out; of a pod that was, its controller and the HelmRelease that it is from.
    pub fn held(&self, held: &Held, controller: Option<&Controller>, release: Option<&HelmRelease>) {
        // An Event must be in the namespace of what it is about, and this service writes them in its own only.
        let about = controller.filter(|controller| controller.namespace() == &*self.namespace).cloned();
        let note = message_about(held.message(&self.cluster), release);
        self.tell(What::GateHeld(held.reason), about, note);
    }

    fn tell(&self, what: What, about: Option<Controller>, note: String) {
        if self.queue.try_send(Told { what, about, note }).is_err() {
            tracing::debug!(event = what.reason(), "an Event was dropped: too many wait to be written");
        }
    }
}

/// Writes what is told.
pub struct Writer {
    api: Api<Event>,
    namespace: String,
    secret: String,
    instance: String,
    told: mpsc::Receiver<Told>,
    ledger: Ledger,
    /// That RBAC refuses is logged once.
    refused: bool,
}

impl Writer {
    /// Writes until nobody can tell any more.
    pub async fn run(mut self) {
        while let Some(told) = self.told.recv().await {
            self.write(told).await;
        }
    }

    async fn write(&mut self, told: Told) {
        let key = Key { what: told.what, about: told.about };
        let now = Instant::now();
        let Some(act) = self.ledger.next(&key, &told.note, now) else { return };
        let doing = format!("write an Event in {}", self.namespace);
        let written = match act {
            Act::Create => {
                let event = self.event(&key, &told.note, Timestamp::now());
                call(&doing, self.api.create(&post(), &event)).await
            }
            Act::Repeat { name, version, count } => {
                let body = json!({
                    "metadata": { "resourceVersion": version },
                    "count": count, "lastTimestamp": Time(Timestamp::now()),
                });
                call(&doing, self.api.patch(&name, &patch(), &Patch::Merge(&body))).await
            }
        };
        match written {
            Ok(event) => {
                self.refused = false;
                self.ledger.written(&key, event.name_any(), event.resource_version().unwrap_or_default());
            }
            Err(error) => self.failed(&key, error, &doing),
        }
    }

    fn failed(&mut self, key: &Key, error: Failed, doing: &str) {
        // Whatever was there, it is written anew the next time.
        self.ledger.lost(key);
        let held = error.into_held(doing);
        if held.reason == Reason::KubernetesForbidden && !self.refused {
            self.refused = true;
            tracing::warn!(reason = %held.reason, "{} (this is said once)", held.sentence());
        } else {
            tracing::debug!(reason = %held.reason, "{}", held.sentence());
        }
    }

    fn event(&self, key: &Key, note: &str, now: Timestamp) -> Event {
        let about = self.reference(key.about.as_ref());
        let object = about.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(event_name(object, now, fastrand::u32(..))),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(key.what.kind().to_owned()),
            reason: Some(key.what.reason().to_owned()),
            message: Some(cut(note, NOTE_MAX).to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(FIELD_MANAGER.to_owned()), host: None }),
            reporting_component: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    fn reference(&self, about: Option<&Controller>) -> ObjectReference {
        let (api_version, kind, name) = match about {
            Some(controller) => (controller.api_version(), controller.kind(), controller.name()),
            None => ("v1".to_owned(), "Secret", self.secret.as_str()),
        };
        ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind.to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(name.to_owned()),
            uid: about.map(|controller| controller.uid().to_owned()),
            ..ObjectReference::default()
        }
    }
}

/// Like client-go's: the object's name, and what makes it unique. Two replicas may tell in the same moment.
fn event_name(object: &str, now: Timestamp, random: u32) -> String {
    // A name of an object has at most 253 characters, and so has this one.
    format!("{}.{:016x}{random:08x}", cut(object, 220).trim_end_matches(['.', '-']), now.as_nanosecond())
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gate_core::names::is_subdomain;

    #[test]
    fn an_events_name_is_a_name_for_any_object() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for object in ["cacerts", &"a".repeat(253), &format!("{}.-b", "a".repeat(218))] {
            let name = event_name(object, now, 7);
            assert!(is_subdomain(&name), "{name}");
        }
        assert_ne!(event_name("a", now, 1), event_name("a", now, 2));
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 9), "abc");
    }
}
