//! Secret `cacerts`: read, watched, published. It alone holds the CA's key in Kubernetes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Mutex, Notify, watch};

use super::follow::{MetadataOf, Seen, follow};
use super::{
    FIELD_MANAGER, Failed, MANAGED_BY, RECORD_STATE, ROOT_SHA256, VAULT_VERSION, Write, call, forgetful, metadata,
    patch, post, stale_read, written,
};
use gate_core::backoff::{Backoff, SOON};
use gate_core::ca::bundle::{self, Beside, Bundle, CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT};
use gate_core::ca::check::{self, Facts, Note, Sound};
use gate_core::ca::record::RecordState;
use gate_core::clock::Boot;
use gate_core::order::{Told, Worth};
use gate_core::plan::{Copy, Owner, Published};
use gate_core::reason::{Held, Reason};
use gate_core::snapshot::Watched;

/// Set by External Secrets on what it manages.
const ES_MANAGED: &str = "reconcile.external-secrets.io/managed";

/// First pause after a failed read of what the watch has told of.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// How often it is read although the watch has told nothing: a watch may lose a change.
const READ_AGAIN: Duration = Duration::from_secs(30);

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
    /// Has the watch begin anew.
    anew: Notify,
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
            anew: Notify::new(),
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
        let following = follow(MetadataOf(self.watching.clone()), &self.name, &self.anew, |seen| {
            let is_answer = !matches!(&seen, Seen::Failed(held) if held.reason != Reason::KubernetesForbidden);
            match seen {
                Seen::Present(secret) => self.tell(Told::present(secret.resource_version().unwrap_or_default())),
                Seen::Absent(by) => self.tell(Told::absent(by)),
                Seen::Alive => self.watched.send_modify(|watched| watched.heard = Some(Boot::now())),
                Seen::Failed(_) => {}
            }
            if is_answer {
                answered.notify_one();
            }
        });
        let reading = async {
            answered.notified().await;
            self.keep_read(first, READ_AGAIN).await;
        };
        tokio::join!(following, reading);
    }

    fn tell(&self, told: Told) {
        self.watched.send_modify(|watched| {
            watched.was_told(told, Boot::now());
        });
    }

    /// Reads what the watch tells of, and compares after each `again` although it has told nothing.
    async fn keep_read(&self, first: impl FnOnce(), again: Duration) {
        let (mut watched, mut first, mut said) = (self.watched.subscribe(), Some(first), None);
        let (mut backoff, mut due) = (Backoff::new(READ_PAUSE, SOON), tokio::time::Instant::now());
        loop {
            let is_current = watched.borrow_and_update().is_current();
            let is_due = due <= tokio::time::Instant::now();
            if is_current && !is_due {
                // Until it changes: the sender is ours.
                drop(tokio::time::timeout_at(due, watched.changed()).await);
                continue;
            }
            let read = if is_current { self.compare().await } else { self.read_anew().await };
            if let Some(first) = first.take() {
                first();
            }
            match read {
                Ok(()) => {
                    backoff.reset();
                    said = None;
                    due = tokio::time::Instant::now() + again;
                }
                Err(held) => {
                    if said.as_ref() != Some(&held) {
                        tracing::warn!(reason = %held.reason, "{}", held.sentence());
                    }
                    said = Some(held);
                    tokio::time::sleep(backoff.pause()).await;
                    due = tokio::time::Instant::now();
                }
            }
        }
    }

    /// Reads it if its version is another than is known. The key stays where it is if it is not.
    async fn compare(&self) -> Result<(), Held> {
        let doing = format!("read Secret {}", self.full_name);
        let version = match call(&doing, self.watching.get_metadata(&self.name)).await {
            Ok(secret) => secret.resource_version().unwrap_or_default(),
            Err(Failed::NotFound) => String::new(),
            Err(error) => return Err(error.into_held(&doing)),
        };
        let is_known = self.watched.borrow().order.version() == Some(&version);
        if is_known { Ok(()) } else { self.read_anew().await }
    }

    /// Takes what was read for what is known, if it began in this generation. Returns whether it counts: else something
    /// else was told meanwhile.
    ///
    /// # Errors
    /// If it tells of a version that is gone.
    fn take(&self, generation: u64, published: &Published) -> Result<bool, Held> {
        let (mut worth, mut is_news) = (Worth::Same, false);
        self.watched.send_modify(|watched| {
            let (before, known) = (watched.published.as_ref().is_some_and(was_ours), notes(watched.published.as_ref()));
            worth = watched.was_read(generation, published, Boot::now());
            is_news = !before && watched.published.as_ref().is_some_and(was_ours);
            for note in notes(watched.published.as_ref()).iter().filter(|note| !known.contains(note)) {
                tracing::warn!("cacerts is sound, and worth a look: {note}");
            }
        });
        if matches!(worth, Worth::Newer | Worth::Stale) {
            self.anew.notify_one();
        }
        if is_news {
            tracing::warn!(
                "Secret {} has the gate's label and no field manager {FIELD_MANAGER}, as after a restore from a backup: it is not the gate's any more, and Vault's newer versions are not published to it; hand it back by istio-ca-gate adopt --own",
                self.full_name
            );
        }
        match worth {
            Worth::Same | Worth::Newer => Ok(true),
            Worth::Overtaken => Ok(false),
            Worth::Stale => Err(stale_read(&self.full_name)),
        }
    }

    /// Reads it, and takes what was read for what is known. `None`: something else was told meanwhile.
    ///
    /// # Errors
    /// The reason why it cannot be told what is there.
    pub async fn look(&self) -> Result<Option<Published>, Held> {
        let generation = self.watched.borrow().order.generation();
        let published = self.read().await?;
        Ok(self.take(generation, &published)?.then_some(published))
    }

    /// Whether it is still this version: by the watch, or, where that is silent, by another read.
    ///
    /// # Errors
    /// The reason why it cannot be told.
    pub async fn is_still(&self, version: &str) -> Result<bool, Held> {
        let is_heard = self.watched.borrow().is_heard(Boot::now());
        if !is_heard {
            self.read_anew().await?;
        }
        let watched = self.watched.borrow();
        Ok(watched.is_current() && watched.order.version() == Some(version))
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
        let began = Instant::now();
        // Where it is not taken, it has changed meanwhile, and whoever looks sees that.
        let ended = self.look().await.map(drop);
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

    /// Makes us a manager of exactly what was read, by an apply of the same bytes, which changes nothing of the CA. `version`
    /// is Vault's, if that holds the same CA.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn own(&self, copy: &Copy, sound: &Sound, version: Option<u64>) -> Result<Write, Held> {
        let doing = format!("write Secret {}", self.full_name);
        let mut annotations = BTreeMap::from([(ROOT_SHA256.to_owned(), sound.root.hex())]);
        annotations.extend(version.map(|version| (VAULT_VERSION.to_owned(), version.to_string())));
        let metadata = ObjectMeta {
            annotations: Some(annotations),
            resource_version: Some(copy.resource_version.clone()),
            ..metadata(&self.name)
        };
        let secret = Secret { metadata, data: Some(data(&sound.bundle)), ..Secret::default() };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        written(call(&doing, self.api.patch(&self.name, &params, &Patch::Apply(&secret))).await)
    }

    /// Writes the files over exactly what was read, with what they are of: Vault's version, and the state of a record of
    /// the signing kind.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn publish(
        &self,
        over: &Published,
        sound: &Sound,
        version: u64,
        state: Option<RecordState>,
    ) -> Result<Write, Held> {
        let doing = format!("write Secret {}", self.full_name);
        let mut annotations = BTreeMap::from([
            (ROOT_SHA256.to_owned(), sound.root.hex()),
            (VAULT_VERSION.to_owned(), version.to_string()),
        ]);
        let was_for = matches!(over, Published::Present(copy) if copy.annotated_state.is_some());
        let state = state.map(|state| state.to_string()).or(was_for.then(String::new));
        annotations.extend(state.map(|state| (RECORD_STATE.to_owned(), state)));
        let metadata = ObjectMeta { annotations: Some(annotations), ..metadata(&self.name) };
        let mut secret = Secret { metadata, data: Some(data(&sound.bundle)), ..Secret::default() };
        let ended = match over {
            Published::Absent => {
                secret.type_ = Some("Opaque".to_owned());
                call(&doing, self.api.create(&post(), &secret)).await
            }
            Published::Present(copy) => {
                secret.metadata.resource_version = Some(copy.resource_version.clone());
                call(&doing, self.api.patch(&self.name, &patch(), &Patch::Merge(&secret))).await
            }
        };
        written(ended)
    }
}

fn notes(published: Option<&Published<Facts>>) -> Vec<Note> {
    match published {
        Some(Published::Present(copy)) => copy.verdict.as_ref().map(|facts| facts.notes.clone()).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn was_ours<V>(published: &Published<V>) -> bool {
    matches!(published, Published::Present(copy) if copy.was_ours)
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
    let owner = owner(secret);
    let files = Bundle::from_secret(data);
    let unsound = files.clone().ok();
    let verdict = files.and_then(|bundle| check::check(bundle, now)).map(Arc::new);
    let annotations = secret.annotations();
    Published::Present(Arc::new(Copy {
        was_ours: owner == Owner::Other && is_labelled(secret),
        unsound: unsound.filter(|_| owner == Owner::Ours && verdict.is_err()).map(Arc::new),
        owner,
        verdict,
        glance,
        resource_version: secret.resource_version().unwrap_or_default(),
        annotated_root: annotations.get(ROOT_SHA256).map(|text| text.parse()),
        annotated_state: annotations.get(RECORD_STATE).and_then(|text| text.parse().ok()),
        beside,
        immutable: secret.immutable == Some(true),
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
    let managed = secret.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    if is_labelled(secret) && managed { Owner::Ours } else { Owner::Other }
}

fn is_labelled(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY).is_some_and(|value| value == FIELD_MANAGER)
}

#[cfg(test)]
mod tests;
