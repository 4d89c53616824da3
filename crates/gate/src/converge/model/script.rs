//! The two sides as a replica meets them in the model: each call is put down, and is answered when the model says so. A
//! replica is run from the beginning of its round again and again, with one more answer each time, so that it needs no
//! memory of its own in between.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::super::memory::{found, ours};
use crate::attests::{AttestedAt, Attests};
use crate::ca::Sha256;
use crate::ca::bundle::Bundle;
use crate::ca::check::{Sound, check};
use crate::ca::fixtures::{Ca, now};
use crate::ca::record::RecordState;
use crate::cluster::{Bystanders, Cluster, Happened, Maker, Passed, Write};
use crate::life::attestation::Attestation;
use crate::order::Worth;
use crate::plan::{Contradiction, Copy, Mesh, Owner, Pin, Published, ReadPin, Stored};
use crate::reason::{Held, Reason};
use crate::refused::Refused;
use crate::samples::{clocks, held};
use crate::signer::Signer;
use crate::snapshot::Watched;
use crate::store::{Created, Found, Store};

/// A root, by its number.
pub(super) type Root = u8;

/// The root of people who know nothing of the gate.
pub(super) const FOREIGN: Root = 7;

static ROOTS: LazyLock<Vec<Arc<Sound>>> = LazyLock::new(|| {
    let sound = |at| Arc::new(check(Ca::root(&format!("Root {at}")).bundle(), now()).unwrap());
    (0..=FOREIGN).map(sound).collect()
});

pub(super) fn sound(root: Root) -> &'static Arc<Sound> {
    &ROOTS[usize::from(root)]
}

pub(super) fn number(root: Sha256) -> Root {
    ROOTS.iter().position(|sound| sound.root == root).and_then(|at| at.try_into().ok()).unwrap()
}

/// Vault's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Record {
    Absent,
    Deleted(u8),
    Root { root: Root, version: u8 },
}

/// The Secret, with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Secret {
    Absent,
    Root { root: Root, ours: bool, version: u8 },
}

impl Secret {
    pub(super) fn version(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Root { version, .. } => version,
        }
    }

    pub(super) fn published(self) -> Published {
        let Self::Root { root, ours: is_ours, version } = self else { return Published::Absent };
        let Published::Present(copy) = ours(sound(root)) else { unreachable!() };
        let (owner, annotated_root) = match is_ours {
            true => (Owner::Ours, copy.annotated_root),
            false => (Owner::Other, None),
        };
        let resource_version = version.to_string();
        Published::Present(Arc::new(Copy { owner, annotated_root, resource_version, ..Copy::clone(&copy) }))
    }
}

/// The ConfigMap, with its version; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PinAt {
    pub(super) pin: Option<Pinned>,
    pub(super) version: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pinned {
    pub(super) root: Root,
    pub(super) vault_version: u8,
    pub(super) contradicted: Option<Reason>,
}

impl PinAt {
    pub(super) fn read(self) -> ReadPin {
        let pin = |pinned: Pinned| Pin {
            vault_version: Some(pinned.vault_version.into()),
            verified_at: Some(now()),
            contradicted: pinned.contradicted.map(|by| Contradiction { by, at: now() }),
            ..Pin::of(sound(pinned.root).root)
        };
        let resource_version = (self.version > 0).then(|| self.version.to_string());
        ReadPin { pin: self.pin.map(pin), resource_version }
    }
}

/// What a replica asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    ReadVault { trusted: Option<Root> },
    IsOne { place: u8 },
    MakeRoot,
    Create { place: u8, root: Root },
    Look,
    Read,
    IsStill { version: u8 },
    Publish { over: u8, root: Root },
    ReadPin,
    WritePin { over: u8, pin: Pinned },
    Contradict { over: u8, by: Reason },
    Mesh,
}

impl Ask {
    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Create { .. } | Self::Publish { .. } | Self::WritePin { .. } | Self::Contradict { .. })
    }
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Vault {
        record: Record,
        place: u8,
    },
    One(Result<(), Reason>),
    Made(Root),
    Created {
        applied: bool,
    },
    Secret(Secret),
    Still(bool),
    Pin(PinAt),
    Written {
        done: bool,
    },
    Mesh(Option<Root>),
    /// Nothing.
    Silence,
}

#[derive(Default)]
pub(super) struct Script {
    pub(super) asked: Vec<Ask>,
    pub(super) answers: Vec<Option<Answer>>,
}

thread_local! {
    pub(super) static SCRIPT: RefCell<Script> = RefCell::default();
}

fn ask(ask: Ask) -> impl Future<Output = Answer> + Send {
    let at = SCRIPT.with_borrow_mut(|script| {
        script.asked.push(ask);
        script.asked.len() - 1
    });
    std::future::poll_fn(move |_| {
        let answer = SCRIPT.with_borrow(|script| script.answers.get(at).copied().flatten());
        answer.map_or(Poll::Pending, Poll::Ready)
    })
}

fn silent_store() -> Refused {
    held(Reason::VaultUnreachable).into()
}

fn silent_api() -> Held {
    held(Reason::KubernetesUnreachable)
}

fn small(text: &str) -> u8 {
    text.parse().unwrap_or_default()
}

/// The same time always: what grows old does so by an event.
pub(super) fn fixed() -> crate::clock::Clocks {
    clocks()
}

pub(super) fn make(_: String, _: Timestamp) -> BoxFuture<'static, Result<Bundle, Held>> {
    let made = ask(Ask::MakeRoot);
    Box::pin(async move {
        match made.await {
            Answer::Made(root) => Ok(Bundle::clone(&sound(root).bundle)),
            _ => Err(held(Reason::Converging)),
        }
    })
}

pub(super) struct ScriptedStore;

impl Store for ScriptedStore {
    type Place = u8;

    fn begin(&mut self) {}

    async fn read(&mut self, trusted: Option<Sha256>, _: Timestamp) -> Result<Found<u8>, Refused> {
        let Answer::Vault { record, place } = ask(Ask::ReadVault { trusted: trusted.map(number) }).await else {
            return Err(silent_store());
        };
        let stored = match record {
            Record::Absent => Stored::Absent,
            Record::Deleted(version) => Stored::Deleted { version: version.into() },
            Record::Root { root, version } => Stored::Sound { version: version.into(), sound: Arc::clone(sound(root)) },
        };
        Ok(found(stored, place))
    }

    async fn is_one(&self, found: &Found<u8>) -> Result<(), Refused> {
        match ask(Ask::IsOne { place: found.place }).await {
            Answer::One(said) => said.map_err(|reason| held(reason).into()),
            _ => Err(silent_store()),
        }
    }

    async fn create(&mut self, found: &Found<u8>, record: Map<String, Value>) -> Created {
        let bundle = Bundle::from_record(&record).unwrap();
        let is_it = |sound: &Arc<Sound>| sound.bundle.root_cert == bundle.root_cert;
        let root = ROOTS.iter().position(is_it).and_then(|at| at.try_into().ok()).unwrap();
        match ask(Ask::Create { place: found.place, root }).await {
            Answer::Created { applied: true } => Created::Applied,
            Answer::Created { applied: false } => Created::Lost,
            _ => Created::Unclear(silent_store()),
        }
    }
}

/// Records here have the key of their root.
impl Signer for ScriptedStore {
    async fn issuer(&mut self, _: &str) -> Result<String, Refused> {
        Err(held(Reason::SigningRefused).into())
    }

    async fn certify(&mut self, _: &str, _: &str, _: &str, _: Duration) -> Result<String, Refused> {
        Err(held(Reason::SigningRefused).into())
    }

    async fn make_root(&mut self, _: &str, _: &str) -> Result<String, Refused> {
        Err(held(Reason::SigningRefused).into())
    }
}

/// Nor does anybody attest.
impl Attests for ScriptedStore {
    type Over = ();

    async fn attested(&mut self, _: &str) -> Result<AttestedAt<()>, Refused> {
        Err(held(Reason::SigningRefused).into())
    }

    async fn attest(&mut self, (): &(), _: &Attestation) -> Result<Write, Refused> {
        Err(held(Reason::SigningRefused).into())
    }
}

pub(super) struct ScriptedCluster(pub(super) watch::Sender<Watched>);

impl ScriptedCluster {
    async fn write(ask_it: Ask) -> Result<Write, Held> {
        match ask(ask_it).await {
            Answer::Written { done: true } => Ok(Write::Done),
            Answer::Written { done: false } => Ok(Write::Changed),
            _ => Err(silent_api()),
        }
    }
}

impl Cluster for ScriptedCluster {
    async fn look(&self) -> Result<Option<Published>, Held> {
        let generation = self.0.borrow().order.generation();
        let Answer::Secret(secret) = ask(Ask::Look).await else { return Err(silent_api()) };
        let published = secret.published();
        let mut worth = Worth::Same;
        self.0.send_modify(|watched| worth = watched.was_read(generation, &published, fixed().boot));
        match worth {
            Worth::Same | Worth::Newer => Ok(Some(published)),
            Worth::Overtaken => Ok(None),
            Worth::Stale => Err(silent_api()),
        }
    }

    async fn read(&self) -> Result<Published, Held> {
        match ask(Ask::Read).await {
            Answer::Secret(secret) => Ok(secret.published()),
            _ => Err(silent_api()),
        }
    }

    async fn is_still(&self, version: &str) -> Result<bool, Held> {
        match ask(Ask::IsStill { version: small(version) }).await {
            Answer::Still(still) => Ok(still),
            _ => Err(silent_api()),
        }
    }

    async fn publish(&self, over: &Published, sound: &Sound, _: u64, _: Option<RecordState>) -> Result<Write, Held> {
        Self::write(Ask::Publish { over: small(over.resource_version()), root: number(sound.root) }).await
    }

    async fn read_pin(&self) -> Result<ReadPin, Held> {
        match ask(Ask::ReadPin).await {
            Answer::Pin(pin) => Ok(pin.read()),
            _ => Err(silent_api()),
        }
    }

    async fn write_pin(&self, read: &ReadPin, pin: &Pin) -> Result<Write, Held> {
        let vault_version = pin.vault_version.and_then(|version| version.try_into().ok()).unwrap_or_default();
        let pin = Pinned { root: number(pin.root), vault_version, contradicted: None };
        Self::write(Ask::WritePin { over: small(read.token()), pin }).await
    }

    async fn contradict(&self, read: &ReadPin, contradiction: Contradiction) -> Result<Write, Held> {
        Self::write(Ask::Contradict { over: small(read.token()), by: contradiction.by }).await
    }

    async fn mesh(&self) -> Result<Mesh, Held> {
        let serves = |root: Root| Mesh::Serves { first: sound(root).root, roots: sound(root).roots().clone() };
        match ask(Ask::Mesh).await {
            Answer::Mesh(root) => Ok(root.map_or(Mesh::Absent, serves)),
            _ => Err(silent_api()),
        }
    }

    fn ahead(&self) -> Option<SignedDuration> {
        Some(SignedDuration::ZERO)
    }
}

impl Bystanders for ScriptedCluster {
    async fn touch_blocked(&self, _: Timestamp) -> Result<Passed, Held> {
        Ok(Passed { any: false, whole: true })
    }

    async fn force_sync(&self, _: Option<&str>, _: Timestamp) -> Maker {
        Maker::ExternalSecret
    }

    fn ask_flux(&self, _: Timestamp) {}

    async fn asked_flux(&self, _: Timestamp) {}

    fn tell(&self, _: Happened) {}
}
