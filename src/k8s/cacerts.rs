//! Secret `cacerts`: read, watched, published. It alone holds the CA's key in Kubernetes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Mutex, Notify, watch};

use super::follow::{MetadataOf, Seen, follow};
use super::{
    FIELD_MANAGER, Failed, MANAGED_BY, ROOT_SHA256, VAULT_VERSION, Write, call, forgetful, metadata, patch, post,
};
use crate::ca::bundle::{self, Beside, Bundle, CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT};
use crate::ca::check::{self, Facts, Note, Sound};
use crate::clock::Boot;
use crate::plan::{Copy, Owner, Published};
use crate::reason::{Held, Reason};
use crate::snapshot::Watched;

/// Set by External Secrets on what it manages.
const ES_MANAGED: &str = "reconcile.external-secrets.io/managed";

/// Pause after a failed read of what the watch has told of.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// A missing right does not come by itself.
const READ_PAUSE_FORBIDDEN: Duration = Duration::from_secs(30);

/// The Secret of one cluster.
pub struct Cacerts {
    /// Its connections end with each answer.
    api: Api<Secret>,
    /// Tells metadata alone.
    watching: Api<Secret>,
    name: String,
    /// `namespace/name`, for sentences.
    full_name: String,
    watched: watch::Sender<Watched>,
    /// When the last read on behalf of those who do not trust what is known began, and how it ended.
    last_read: Mutex<Option<(Instant, Result<(), Held>)>>,
}

impl Cacerts {
    /// The Secret `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let client = forgetful(&client);
        Self {
            api: Api::namespaced(client.clone(), namespace),
            // Metadata may have a key, too: kubectl apply keeps what it was given in an annotation.
            watching: Api::namespaced(client, namespace),
            name: name.to_owned(),
            full_name: format!("{namespace}/{name}"),
            watched: watch::Sender::new(Watched::default()),
            last_read: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the watch tells.
    pub fn watched(&self) -> watch::Receiver<Watched> {
        self.watched.subscribe()
    }

    /// Watches it for ever, and reads it whenever the watch tells of another version. `first` is called once it was
    /// looked at for the first time, if only to be refused.
    pub async fn watch(&self, first: impl FnOnce()) {
        let answered = Notify::new();
        let following = follow(MetadataOf(self.watching.clone()), &self.name, |seen| {
            let is_answer = !matches!(&seen, Seen::Failed(held) if held.reason != Reason::KubernetesForbidden);
            match seen {
                Seen::Present(secret) => self.told(secret.resource_version().unwrap_or_default()),
                Seen::Absent => self.told_absent(),
                Seen::Alive => self.watched.send_modify(|watched| watched.heard = Some(Boot::now())),
                Seen::Failed(_) => {}
            }
            if is_answer {
                answered.notify_one();
            }
        });
        let reading = async {
            answered.notified().await;
            self.keep_read(first).await;
        };
        tokio::join!(following, reading);
    }

    fn told(&self, version: String) {
        self.watched.send_modify(|watched| {
            tell(watched, version);
            watched.heard = Some(Boot::now());
        });
    }

    fn told_absent(&self) {
        self.watched.send_modify(|watched| {
            take(watched, &Published::Absent);
            watched.heard = Some(Boot::now());
        });
    }

    async fn keep_read(&self, first: impl FnOnce()) {
        let (mut watched, mut first, mut said) = (self.watched.subscribe(), Some(first), None);
        loop {
            let is_current = watched.borrow_and_update().is_current();
            let read = if is_current { None } else { Some(self.read_anew().await) };
            if let Some(first) = first.take() {
                first();
            }
            match read {
                Some(Ok(())) => said = None,
                Some(Err(held)) => {
                    if said.as_ref() != Some(&held) {
                        tracing::warn!(reason = %held.reason, "{}", held.sentence);
                    }
                    let forbidden = held.reason == Reason::KubernetesForbidden;
                    said = Some(held);
                    tokio::time::sleep(if forbidden { READ_PAUSE_FORBIDDEN } else { READ_PAUSE }).await;
                }
                // Never closed: the sender is ours.
                None => drop(watched.changed().await),
            }
        }
    }

    /// Takes a live read for the watch's, unless the watch has told of a change since.
    ///
    /// Returns whether it was taken.
    pub fn observe_unless_changed(&self, generation: u64, published: &Published) -> bool {
        let mut taken = false;
        self.watched.send_modify(|watched| {
            taken = watched.generation == generation || watched.told.as_deref() == Some(published.resource_version());
            if taken {
                take(watched, published);
                watched.read = Some(Boot::now());
            }
        });
        taken
    }

    /// Reads it, and takes what was read for what is known. Whoever asks while a read is under way shares the next one:
    /// the answer is never older than the question, and many ask no more often than two.
    ///
    /// # Errors
    /// The reason why it cannot be told what is there.
    pub async fn read_anew(&self) -> Result<(), Held> {
        let asked = Instant::now();
        let mut last = self.last_read.lock().await;
        if let Some((_, ended)) = last.as_ref().filter(|(began, _)| *began >= asked) {
            return ended.clone();
        }
        let (began, generation) = (Instant::now(), self.watched.borrow().generation);
        // Where it is not taken, it has changed meanwhile, and whoever looks sees that.
        let ended = self.read().await.map(|published| {
            self.observe_unless_changed(generation, &published);
        });
        *last = Some((began, ended.clone()));
        ended
    }

    /// Reads it from the API server.
    ///
    /// # Errors
    /// The reason why it cannot be told what is there.
    pub async fn read(&self) -> Result<Published, Held> {
        let doing = format!("read Secret {}", self.full_name);
        match call(&doing, self.api.get(&self.name)).await {
            Ok(secret) => Ok(published(&secret, Timestamp::now())),
            Err(Failed::NotFound) => Ok(Published::Absent),
            Err(error) => Err(error.into_held(&doing)),
        }
    }

    /// Writes Vault's bytes over exactly what was read.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn publish(&self, over: &Published, sound: &Sound, version: u64) -> Result<Write, Held> {
        let doing = format!("write Secret {}", self.full_name);
        let annotations =
            [(ROOT_SHA256.to_owned(), sound.root.to_string()), (VAULT_VERSION.to_owned(), version.to_string())];
        let metadata = ObjectMeta { annotations: Some(annotations.into()), ..metadata(&self.name) };
        let mut secret = Secret { metadata, data: Some(data(&sound.bundle)), ..Secret::default() };
        let written = match over {
            Published::Absent => {
                secret.type_ = Some("Opaque".to_owned());
                call(&doing, self.api.create(&post(), &secret)).await
            }
            Published::Present(copy) => {
                secret.metadata.resource_version = Some(copy.resource_version.clone());
                call(&doing, self.api.patch(&self.name, &patch(), &Patch::Merge(&secret))).await
            }
        };
        Write::of(written)
    }
}

/// Takes note of the version that is there by now, and counts it if it is another.
fn tell(watched: &mut Watched, version: String) {
    if watched.told.as_ref() != Some(&version) {
        watched.generation += 1;
        watched.read = None;
        watched.told = Some(version);
    }
}

/// Takes what was read.
fn take(watched: &mut Watched, published: &Published) {
    tell(watched, published.resource_version().to_owned());
    let (before, now) = (notes(watched.published.as_ref()), notes(Some(&published.facts())));
    for note in now.iter().filter(|note| !before.contains(note)) {
        tracing::warn!("cacerts is sound, and worth a look: {note}");
    }
    watched.published = Some(published.facts());
}

fn notes(published: Option<&Published<Facts>>) -> Vec<Note> {
    match published {
        Some(Published::Present(copy)) => copy.verdict.as_ref().map(|facts| facts.notes.clone()).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The four keys that istiod wants, byte for byte.
fn data(bundle: &Bundle) -> BTreeMap<String, ByteString> {
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), ByteString(bytes.to_vec()));
    [
        file(ROOT_CERT, &bundle.root_cert),
        file(CERT_CHAIN, &bundle.cert_chain),
        file(CA_CERT, &bundle.ca_cert),
        file(CA_KEY, bundle.ca_key.expose()),
    ]
    .into()
}

/// What a Secret is to the convergence.
pub fn published(secret: &Secret, now: Timestamp) -> Published {
    let data = secret.data.iter().flatten().map(|(name, bytes)| (name.as_str(), bytes.0.as_slice()));
    let beside = Beside::of(data.clone());
    let glance = secret.data.as_ref().and_then(|data| bundle::glance(&data.get(beside.root_cert())?.0));
    let verdict = Bundle::from_secret(data).and_then(|bundle| check::check(bundle, now)).map(Arc::new);
    Published::Present(Arc::new(Copy {
        owner: owner(secret),
        verdict,
        glance,
        resource_version: secret.resource_version().unwrap_or_default(),
        annotated_root: secret.annotations().get(ROOT_SHA256).map(|text| text.parse()),
        beside,
    }))
}

fn owner(secret: &Secret) -> Owner {
    let reference = secret
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "ExternalSecret" && owner.api_version.starts_with("external-secrets.io/"));
    if reference.is_some() || secret.labels().get(ES_MANAGED).is_some_and(|value| value == "true") {
        return Owner::ExternalSecrets(reference.map(|owner| owner.name.clone()));
    }
    let labelled = secret.labels().get(MANAGED_BY).is_some_and(|value| value == FIELD_MANAGER);
    let managed = secret.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    if labelled && managed { Owner::Ours } else { Owner::Other }
}

#[cfg(test)]
mod tests;
