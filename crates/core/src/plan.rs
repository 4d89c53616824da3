//! The convergence table: from what Vault and the cluster hold to the one next step. Pure.

mod holds;
mod pin;
mod signing;
mod step;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::ca::bundle::{Beside, Bundle, GENERATED, Glance, TLS_CRT};
use crate::ca::check::{Facts, Flaw, Sound};
use crate::ca::record::{RecordState, SigningRecord};
use crate::ca::signer::SignerTerms;
use crate::ca::{InvalidSha256, Sha256, check};
use crate::reason::Reason;
pub use holds::left_behind;
use holds::unsound_for;
pub use pin::{Contradiction, Departure, News, Pin, PublishedSigners, ReadPin};
pub use step::Step;

/// What this cluster may do about a missing root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes the root where Vault has never had one.
    Bootstrap,
    /// Only ever mirrors Vault's root.
    Sync,
}

impl Role {
    /// The role as flags and `/fingerprint` spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Sync => "sync",
        }
    }
}

/// What to do when Vault's root is not the one that this cluster trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRootChange {
    /// Keep gated pods out until a person has decided.
    Halt,
    /// Follow Vault.
    Replace,
}

/// Vault's copy of the CA, the truth.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Never written, on a mount that is positively KV version 2.
    Absent,
    /// The latest version was deleted or destroyed: there was a root.
    Deleted {
        /// The version that is gone.
        version: u64,
    },
    /// There, and not usable.
    Unsound {
        /// Its version.
        version: u64,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// There and sound.
    Sound {
        /// Its version.
        version: u64,
        /// The checked CA.
        sound: Arc<Sound>,
    },
    /// There, sound, and of the signing kind: what is trusted, and who certifies this cluster's signer.
    Signing {
        /// Its version.
        version: u64,
        /// The checked record.
        record: Arc<SigningRecord>,
    },
}

impl Stored {
    /// The roots that it trusts, if it is sound.
    pub fn roots(&self) -> Option<&BTreeSet<Sha256>> {
        match self {
            Self::Sound { sound, .. } => Some(sound.roots()),
            Self::Signing { record, .. } => Some(record.roots()),
            Self::Absent | Self::Deleted { .. } | Self::Unsound { .. } => None,
        }
    }

    /// How following it would cut a cluster with this pin off from itself, as far as the record alone can tell.
    pub fn departure(&self, pin: &Pin) -> Option<Departure> {
        match self {
            Self::Sound { sound, .. } => pin.departure(sound),
            Self::Signing { record, .. } => (!record.roots().contains(&pin.root)).then_some(Departure::Dropped),
            Self::Absent | Self::Deleted { .. } | Self::Unsound { .. } => None,
        }
    }
}

/// This cluster's `cacerts`: as it was read, or, with [`Facts`], what is kept of it.
#[derive(Clone, Debug)]
pub enum Published<V = Sound> {
    /// No such Secret.
    Absent,
    /// There, in whatever shape.
    Present(Arc<Copy<V>>),
}

impl<V> Published<V> {
    /// The version token of the read; empty where there is nothing.
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Present(copy) => &copy.resource_version,
            Self::Absent => "",
        }
    }
}

impl Published {
    /// Whether istiod would use this CA, once it is written into what is there: other people's keys are left alone.
    fn check_over(&self, stored: &Sound) -> Result<(), Flaw> {
        let Self::Present(copy) = self else { return Ok(()) };
        match (&copy.verdict, &copy.beside) {
            (Err(flaw @ Flaw::Foreign(GENERATED)), _) => Err(flaw.clone()),
            (_, Beside { tls: true, .. }) => Err(Flaw::Foreign(TLS_CRT)),
            (_, Beside { crl: Some(crl), .. }) => stored.check_beside(crl),
            _ => Ok(()),
        }
    }

    /// What may be kept of it.
    pub fn facts(&self) -> Published<Facts> {
        match self {
            Self::Absent => Published::Absent,
            Self::Present(copy) => Published::Present(Arc::new(Copy {
                owner: copy.owner.clone(),
                verdict: copy.verdict.as_ref().map(|sound| Arc::clone(sound.facts())).map_err(Flaw::clone),
                glance: copy.glance.clone(),
                resource_version: copy.resource_version.clone(),
                annotated_root: copy.annotated_root,
                annotated_state: copy.annotated_state,
                unsound: None,
                // Not decided on without the files.
                beside: Beside { crl: None, ..copy.beside },
                was_ours: copy.was_ours,
                immutable: copy.immutable,
            })),
        }
    }
}

/// A `cacerts` that is there.
#[derive(Clone, Debug)]
pub struct Copy<V = Sound> {
    /// Who may write it.
    pub owner: Owner,
    /// The strict check's verdict, at the time of reading.
    pub verdict: Result<Arc<V>, Flaw>,
    /// For people; also of one that is not sound, as far as its root can be read.
    pub glance: Option<Glance>,
    /// The version token of the read: no write without it.
    pub resource_version: String,
    /// The root that its annotation names, if it has one that can be read. A pin, if the Secret is ours.
    pub annotated_root: Option<Result<Sha256, InvalidSha256>>,
    /// The state of Vault's record that it was published for, with a signer certified for that.
    pub annotated_state: Option<RecordState>,
    /// The files of one that is not sound, for the key in them.
    pub unsound: Option<Arc<Bundle>>,
    /// What istiod reads beside the four files, and no publishing changes.
    pub beside: Beside,
    /// It has our label and no entry of our field manager, as after a restore from a backup: it is somebody else's.
    pub was_ours: bool,
    /// The API server lets nobody change what is in it.
    pub immutable: bool,
}

/// Who manages `cacerts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Our label, and an entry of our field manager.
    Ours,
    /// External Secrets: its label or an owner reference; the ExternalSecret's name where known.
    ExternalSecrets(Option<String>),
    /// Somebody else.
    Other,
}

/// What this cluster's mesh is served as its roots by the istiod that ran last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Nothing: istiod has not run here, or its left-over was taken away.
    Absent,
    /// These.
    Serves {
        /// The first of them, for people.
        first: Sha256,
        /// All.
        roots: BTreeSet<Sha256>,
    },
    /// Something that cannot be read as roots.
    Unreadable,
}

/// Everything that a step is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// This cluster's role.
    pub role: Role,
    /// The user's choice.
    pub on_root_change: OnRootChange,
    /// Vault's copy.
    pub stored: &'a Stored,
    /// The cluster's copy.
    pub published: &'a Published,
    /// The root last verified, if any.
    pub pin: Option<&'a Pin>,
    /// How this cluster's signer is made. `None`: it has no PKI engine to have one certified by.
    pub signer: Option<&'a SignerTerms>,
    /// The moment.
    pub now: Timestamp,
    /// Names for the sentences.
    pub names: &'a Names,
}

/// What things are called in this installation, for the sentences of denials.
#[derive(Clone, Debug)]
pub struct Names {
    /// `namespace/name` of the Secret.
    pub cacerts: String,
    /// `namespace/name` of the pin's ConfigMap.
    pub pin: String,
    /// `namespace/name` of the ConfigMap that tells the mesh its roots.
    pub mesh: String,
    /// `mount/path` of the record in Vault.
    pub record: String,
}

impl Situation<'_> {
    /// The first row of the convergence table that applies.
    pub fn step(&self) -> Step {
        match (self.stored, self.published) {
            (Stored::Absent, _) if self.pin.is_some() => Step::Hold(self.lost()),
            (Stored::Absent, Published::Absent) if self.role == Role::Bootstrap => {
                if self.signer.is_some() {
                    Step::MakeRoot
                } else {
                    Step::Bootstrap
                }
            }
            (Stored::Absent, Published::Present(_)) if self.role == Role::Bootstrap => Step::Hold(self.unknown()),
            (Stored::Absent, _) => Step::Hold(self.missing()),
            (Stored::Deleted { version }, _) => Step::Hold(self.deleted(*version)),
            (Stored::Unsound { version, flaw }, _) => Step::Hold(self.unsound(*version, flaw)),
            (Stored::Sound { version, sound }, published) => self.with_root(*version, sound, published),
            (Stored::Signing { version, record }, published) => self.with_record(*version, record, published),
        }
    }

    /// What Vault's answer says against the pin, whatever the step: from then on the pin is no ground to let anybody in.
    /// A newer version of the very same roots says nothing against it. Nor does a record of the signing kind with more or
    /// fewer of them, as long as the pinned one is trusted: that is how a change of the root goes on.
    pub fn contradiction(&self) -> Option<Reason> {
        let pin = self.pin?;
        match self.stored {
            Stored::Absent | Stored::Deleted { .. } => Some(Reason::RootDeleted),
            Stored::Unsound { flaw, .. } => Some(unsound_for(flaw)),
            Stored::Sound { sound, .. } => (*sound.roots() != pin.roots).then_some(Reason::RootChanged),
            Stored::Signing { .. } => self.stored.departure(pin).map(|_| Reason::RootChanged),
        }
    }

    /// The step, beside what the mesh has: over a root that it is served and that Vault does not have, nothing is made
    /// or published. Two roots would be in one mesh.
    pub fn beside(&self, mesh: &Mesh, step: Step) -> Step {
        let in_vault = match &step {
            Step::Bootstrap | Step::MakeRoot => None,
            Step::Publish { sound, .. } => Some(sound.roots()),
            Step::Certify { record, .. } => Some(record.roots()),
            Step::ForceSync { .. } | Step::Open { .. } | Step::Hold(_) => return step,
        };
        match mesh {
            _ if self.on_root_change == OnRootChange::Replace => step,
            Mesh::Absent => step,
            Mesh::Serves { roots, .. } if in_vault.is_some_and(|in_vault| !in_vault.is_disjoint(roots)) => step,
            Mesh::Serves { first, .. } => {
                Step::Hold(self.on_other_root(&format!("root {}", first.openssl()), in_vault.is_some()))
            }
            Mesh::Unreadable => Step::Hold(self.on_other_root("something that is no root", in_vault.is_some())),
        }
    }

    fn with_root(&self, version: u64, stored: &Arc<Sound>, published: &Published) -> Step {
        let halt = self.on_root_change == OnRootChange::Halt;
        let departure = self.pin.filter(|_| halt).and_then(|pin| Some((pin.root, pin.departure(stored)?)));
        match departure {
            Some((pinned, Departure::Dropped)) => return Step::Hold(self.changed_in_vault(pinned, stored.root)),
            Some((pinned, Departure::SignsTooEarly)) => return Step::Hold(self.signs_too_early(pinned, stored.root)),
            None => {}
        }
        let publish = || match self.published.check_over(stored) {
            Ok(()) => Step::Publish { version, sound: Arc::clone(stored), state: None },
            Err(flaw) => Step::Hold(self.invalid(&flaw)),
        };
        let open = |published: &Arc<Sound>, other_bytes| Step::Open {
            version,
            stored: Arc::clone(stored.facts()),
            published: Arc::clone(published),
            other_bytes,
        };
        let Published::Present(copy) = published else {
            return publish();
        };
        match (&copy.owner, &copy.verdict) {
            (Owner::ExternalSecrets(_), Ok(sound)) if sound.same_roots(stored) => open(sound, false),
            (Owner::ExternalSecrets(name), _) => {
                Step::ForceSync { external_secret: name.clone(), held: self.managed_elsewhere() }
            }
            (Owner::Ours, Ok(sound)) if sound.same_ca(stored) => open(sound, !sound.same_bytes(stored)),
            (Owner::Ours, _) if copy.immutable => Step::Hold(self.immutable()),
            (Owner::Ours, _) => publish(),
            (Owner::Other, Err(flaw)) => Step::Hold(self.invalid(flaw)),
            (Owner::Other, Ok(sound)) if sound.same_roots(stored) => open(sound, false),
            (Owner::Other, Ok(sound)) if halt => Step::Hold(self.changed_in_cluster(sound, stored.root)),
            (Owner::Other, Ok(_)) if copy.immutable => Step::Hold(self.immutable()),
            (Owner::Other, Ok(_)) => publish(),
        }
    }
}

/// Checks a record's data into Vault's copy, of either kind.
pub fn stored(version: u64, data: &Map<String, Value>, now: Timestamp) -> Stored {
    if SigningRecord::is_signing(data) {
        return match SigningRecord::parse(data, now) {
            Ok(record) => Stored::Signing { version, record: Arc::new(record) },
            Err(flaw) => Stored::Unsound { version, flaw },
        };
    }
    match Bundle::from_record(data).and_then(|bundle| check::check(bundle, now)) {
        Ok(sound) => Stored::Sound { version, sound: Arc::new(sound) },
        Err(flaw) => Stored::Unsound { version, flaw },
    }
}

#[cfg(test)]
mod tests;
