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
    SignerRenewed,
    SignerRenewalFailed(Reason),
    RotationStep,
    RotationHeld,
    ClusterSettled,
    RootExpiresSoon,
    GateOpened,
    GateHeld(Reason),
}

impl What {
    const fn reason(self) -> &'static str {
        match self {
            Self::RootBootstrapped => "RootBootstrapped",
            Self::CacertsPublished => "CacertsPublished",
            Self::SignerRenewed => "SignerRenewed",
            Self::SignerRenewalFailed(_) => "SignerRenewalFailed",
            Self::RotationStep => "RotationStep",
            Self::RotationHeld => "RotationHeld",
            Self::ClusterSettled => "ClusterSettled",
            Self::RootExpiresSoon => "RootExpiresSoon",
            Self::GateOpened => "GateOpened",
            Self::GateHeld(_) => "GateHeld",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::GateHeld(_) | Self::SignerRenewalFailed(_) | Self::RotationHeld | Self::RootExpiresSoon => "Warning",
            _ => "Normal",
        }
    }
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Regarding {
    Secret,
    Owner(Controller),
    Release(HelmRelease),
}

struct Told {
    what: What,
    about: Regarding,
    note: String,
}

/// Where Events are told. Cheap to clone, and never waits.
#[derive(Clone)]
pub struct Events {
    cluster: Arc<str>,
    namespace: Arc<str>,
    /// Those that Events may be about: there is a right to write in their namespaces.
    releases: Arc<[HelmRelease]>,
    queue: mpsc::Sender<Told>,
}

impl Events {
    /// Events of this cluster, in the namespace of its Secret, and the task that writes them.
    pub fn new(client: Client, cluster: &str, namespace: &str, secret: &str, instance: &str) -> (Self, Writer) {
        let (queue, told) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            instance: cut(instance, INSTANCE_MAX).to_owned(),
            told,
            ledger: Ledger::default(),
            refused: false,
        };
        (Self { cluster: cluster.into(), namespace: namespace.into(), releases: Arc::default(), queue }, writer)
    }

    /// And of these HelmReleases in theirs.
    #[must_use]
    pub fn of_releases(self, releases: &[HelmRelease]) -> Self {
        Self { releases: releases.into(), ..self }
    }

    /// A root was made and is in Vault.
    pub fn bootstrapped(&self, record: &str) {
        let note = format!("cluster {}: made the root and wrote it to {record} in Vault", self.cluster);
        self.tell(What::RootBootstrapped, Regarding::Secret, note);
    }

    /// Vault's CA was written into the Secret, or this cluster's own signer.
    pub fn published(&self, root: Sha256, version: u64, signer: bool) {
        let (what, whose) = if signer { ("a signer for version", "record") } else { ("version", "CA") };
        let (cluster, root) = (&self.cluster, root.openssl());
        let note = format!("cluster {cluster}: wrote {what} {version} of Vault's {whose}, root {root}");
        self.tell(What::CacertsPublished, Regarding::Secret, note);
    }

    /// This cluster's signer was renewed.
    pub fn signer_renewed(&self, until: Timestamp) {
        let note = format!("cluster {}: Vault has certified this cluster's signer until {until}", self.cluster);
        self.tell(What::SignerRenewed, Regarding::Secret, note);
    }

    /// This cluster's signer was due, and was not renewed.
    pub fn signer_not_renewed(&self, held: &Held, until: Timestamp) {
        let note = format!("{}; the signer in use ends at {until}", held.message(&self.cluster));
        self.tell(What::SignerRenewalFailed(held.reason), Regarding::Secret, note);
    }

    /// A change of the root began, came to its next step, or ended.
    pub fn rotation_step(&self, what: &str) {
        self.tell(What::RotationStep, Regarding::Secret, format!("cluster {}: {what}", self.cluster));
    }

    /// It waits for this cluster.
    pub fn rotation_held(&self, why: &str) {
        let note = format!("cluster {}: the change of the root waits for this cluster: {why}", self.cluster);
        self.tell(What::RotationHeld, Regarding::Secret, note);
    }

    /// All of this cluster's mesh works with what the record says.
    pub fn settled(&self) {
        let note = format!("cluster {}: every istiod and every namespace has what Vault's record says", self.cluster);
        self.tell(What::ClusterSettled, Regarding::Secret, note);
    }

    /// It is time to replace the root.
    pub fn root_ends(&self, until: Timestamp) {
        let note =
            format!("cluster {}: the last root of Vault's record ends at {until}: replace it in time", self.cluster);
        self.tell(What::RootExpiresSoon, Regarding::Secret, note);
    }

    /// Gated pods are let in from now on; `bridged`: by an earlier verification, since Vault cannot be asked.
    pub fn opened(&self, bridged: bool) {
        let why = if bridged { "has the root last verified, and Vault cannot be asked" } else { "holds Vault's root" };
        let note = format!("cluster {}: {why}: gated pods are let in", self.cluster);
        self.tell(What::GateOpened, Regarding::Secret, note);
    }

    /// Gated pods are kept out; of a pod that was, its controller and the HelmRelease that it is from.
    pub fn held(&self, held: &Held, controller: Option<&Controller>, release: Option<&HelmRelease>) {
        // An Event must be in the namespace of what it is about, and of owners this service writes them in its own only.
        let owner = controller.filter(|controller| controller.namespace() == &*self.namespace).cloned();
        let (what, message) = (What::GateHeld(held.reason), held.message(&self.cluster));
        // Where Flux's users look: its own conditions tell of a timeout alone.
        if let Some(release) = release.filter(|release| self.releases.contains(release)) {
            self.tell(what, Regarding::Release(release.clone()), message.clone());
        }
        self.tell(what, owner.map_or(Regarding::Secret, Regarding::Owner), message_about(message, release));
    }

    fn tell(&self, what: What, about: Regarding, note: String) {
        if self.queue.try_send(Told { what, about, note }).is_err() {
            tracing::debug!(event = what.reason(), "an Event was dropped: too many wait to be written");
        }
    }
}

/// Writes what is told.
pub struct Writer {
    client: Client,
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
        let namespace = match &key.about {
            Regarding::Release(release) => release.namespace(),
            Regarding::Secret | Regarding::Owner(_) => &self.namespace,
        };
        let doing = format!("write an Event in {namespace}");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let written = match act {
            Act::Create => match self.reference(&key.about).await {
                Ok(about) => {
                    let event = self.event(key.what, about, &told.note, Timestamp::now());
                    call(&doing, api.create(&post(), &event)).await
                }
                Err(error) => Err(error),
            },
            Act::Repeat { name, version, count } => {
                let body = json!({
                    "metadata": { "resourceVersion": version },
                    "count": count, "lastTimestamp": Time(Timestamp::now()),
                });
                call(&doing, api.patch(&name, &patch(), &Patch::Merge(&body))).await
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

    fn event(&self, what: What, about: ObjectReference, note: &str, now: Timestamp) -> Event {
        let object = about.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(event_name(object, now, fastrand::u32(..))),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(what.kind().to_owned()),
            reason: Some(what.reason().to_owned()),
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

    async fn reference(&self, about: &Regarding) -> Result<ObjectReference, Failed> {
        let of = |api_version: &str, kind: &str, namespace: &str, name: &str, uid: Option<String>| ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid,
            ..ObjectReference::default()
        };
        Ok(match about {
            Regarding::Secret => of("v1", "Secret", &self.namespace, &self.secret, None),
            Regarding::Owner(owner) => {
                of(&owner.api_version(), owner.kind(), owner.namespace(), owner.name(), Some(owner.uid().to_owned()))
            }
            Regarding::Release(release) => {
                // `kubectl describe` asks for Events by its uid.
                let (doing, api) = (format!("read HelmRelease {release}"), release.api(&self.client));
                let uid = call(&doing, api.get(release.name())).await?.uid();
                let kind = HelmRelease::kind();
                of(&kind.api_version(), &kind.kind, release.namespace(), release.name(), uid)
            }
        })
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
