//! What this process knows at one moment. The gate decides on nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::ca::Sha256;
use crate::ca::bundle::Glance;
use crate::ca::check::Facts;
use crate::plan::Published;
use crate::reason::Held;

/// How long a silent watch is trusted. The API server ends each watch after half of this, so that
/// a working one is never silent for so long.
pub const WATCH_TRUST: Duration = Duration::from_secs(90);

/// How long a live read is trusted: for the call or the attempt that it was made for.
const READ_TRUST: Duration = Duration::from_secs(1);

/// How much later than `--refresh` a comparison with Vault may be and still count as current:
/// the time that one attempt with slow answers takes.
const REFRESH_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What to do while Vault cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VaultUnavailable {
    /// A `cacerts` with the root last verified still opens the gate, with a warning.
    AllowVerified,
    /// Keep gated pods out.
    Deny,
}

/// The user's settings that the gate decides by.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `--refresh`.
    pub refresh: SignedDuration,
    /// `--vault-unavailable`.
    pub vault_unavailable: VaultUnavailable,
    /// `--max-staleness`.
    pub max_staleness: SignedDuration,
}

/// The cluster's `cacerts`: what was read of it, and what the watch tells, which is versions alone.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Counts changes, to notice one that came in between.
    pub generation: u64,
    /// As last read. `None` until the first answer.
    pub published: Option<Published<Facts>>,
    /// The version that the watch has told last; empty where there is nothing. `None`: it has told nothing yet.
    pub told: Option<String>,
    /// The last sign of life of the watch.
    pub heard: Option<Instant>,
    /// The last live read, which says nothing about the watch.
    pub read: Option<Instant>,
}

impl Watched {
    /// Whether `published` is the version that the watch has told last, as far as it has.
    pub fn is_current(&self) -> bool {
        let read = self.published.as_ref().map(Published::resource_version);
        self.told.as_deref().is_none_or(|told| read == Some(told))
    }

    /// Whether `published` is current, and the watch was heard of lately enough, or it was read just now.
    pub fn is_trusted(&self, now: Instant) -> bool {
        if !self.is_current() {
            return false;
        }
        let within = |at: Option<Instant>, trust| at.is_some_and(|at| now.saturating_duration_since(at) < trust);
        within(self.heard, WATCH_TRUST) || within(self.read, READ_TRUST)
    }

    /// Whether `cacerts` is another than the one that was verified.
    pub fn is_other_than(&self, verified: &Verified) -> bool {
        let read = self.published.as_ref().map(Published::resource_version);
        self.told.as_deref().or(read) != Some(&verified.resource_version)
    }

    /// What people see of it, and of which version that is, as far as its root can be read.
    pub fn glance(&self) -> Option<(&Glance, &str)> {
        match self.published.as_ref()? {
            Published::Present(copy) => copy.glance.as_ref().map(|glance| (glance, copy.resource_version.as_str())),
            Published::Absent => None,
        }
    }

    fn sound(&self) -> Option<&Arc<Facts>> {
        match self.published.as_ref()? {
            Published::Present(copy) => copy.verdict.as_ref().ok(),
            Published::Absent => None,
        }
    }
}

/// Vault's root, as last read.
#[derive(Clone, Debug)]
pub struct KnownRoot {
    /// What people see of it.
    pub glance: Glance,
    /// The root that its signing CA chains to.
    pub root: Sha256,
    /// KV version.
    pub version: u64,
    /// When it was read.
    pub checked_at: Timestamp,
    /// The address that answered.
    pub address: String,
}

/// `cacerts` was found sound, and to hold the root that Vault holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Vault's CA then.
    pub stored: Arc<Facts>,
    /// KV version.
    pub version: u64,
    /// Of the `cacerts` that was compared.
    pub resource_version: String,
    /// When.
    pub at: Timestamp,
}

/// The root last verified and when, in this process or, by the pin, in one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastVerified {
    /// The root that `ca-cert.pem` chained to.
    pub root: Sha256,
    /// When.
    pub at: Timestamp,
}

/// What an attempt waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// Reading `cacerts` and the pin.
    #[default]
    ReadingCacerts,
    /// Asking Vault for its root, after a login where that is due.
    AskingVault,
    /// Making a key.
    MakingKey,
    /// Writing the root to Vault.
    WritingVault,
    /// Writing `cacerts`.
    Publishing,
    /// Writing the pin.
    WritingPin,
}

impl Doing {
    /// The slow step, to be named where a call's time has run out.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadingCacerts => "the API server to tell cacerts",
            Self::AskingVault => "Vault to tell its root",
            Self::MakingKey => "the new root's key to be made",
            Self::WritingVault => "Vault to take the new root",
            Self::Publishing => "the API server to take cacerts",
            Self::WritingPin => "the API server to take the pin",
        }
    }
}

/// How the convergence stands.
#[derive(Clone, Debug, Default)]
pub struct Convergence {
    /// Nothing of the CA is written before this is true.
    pub consulted: bool,
    /// An attempt is under way.
    pub running: bool,
    /// What the attempt that is under way waits for.
    pub doing: Doing,
    /// Attempts that ended.
    pub finished: u64,
    /// Why the last attempt did not end with an open gate.
    pub held: Option<Held>,
    /// Since the gate was last open, an answer about the CA contradicted it: from then on no outage is bridged.
    pub contradicted: bool,
    /// Vault's root, as last read.
    pub root: Option<KnownRoot>,
    /// Set by an attempt that ended open; unset by any answer that contradicts it.
    pub verified: Option<Verified>,
    /// Outlives outages and, by the pin, restarts.
    pub last_verified: Option<LastVerified>,
}

/// Whether the gate is open.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// Verified lately, and nothing has changed since.
    Open(&'a Verified),
    /// Vault cannot be asked, and the user allows what was verified before.
    OpenUnverified(LastVerified, &'a Held),
    /// What is known of `cacerts` may be out of date: read it live, then ask again.
    Blind,
    /// Not open.
    Closed,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The cluster's side.
    pub watched: &'a Watched,
    /// Vault's side, and the comparison.
    pub convergence: &'a Convergence,
}

impl<'a> Snapshot<'a> {
    /// Whether gated pods are let in.
    pub fn is_open(&self, policy: &Policy, now: Timestamp, instant: Instant) -> bool {
        matches!(self.standing(policy, now, instant), Standing::Open(_) | Standing::OpenUnverified(..))
    }

    /// How the gate stands.
    pub fn standing(&self, policy: &Policy, now: Timestamp, instant: Instant) -> Standing<'a> {
        let Snapshot { watched, convergence } = self;
        if !watched.is_trusted(instant) {
            return Standing::Blind;
        }
        let Some(sound) = watched.sound().filter(|sound| holds_at(sound, now)) else {
            return Standing::Closed;
        };
        if let Some(verified) = &convergence.verified {
            let current = age(verified.at, now).is_some_and(|age| age <= policy.refresh + REFRESH_GRACE);
            if current && holds_at(&verified.stored, now) && sound.same_roots(&verified.stored) {
                return Standing::Open(verified);
            }
        }
        match (&convergence.held, convergence.last_verified) {
            (Some(held), Some(last))
                if held.reason.is_outage()
                    && !convergence.contradicted
                    && policy.vault_unavailable == VaultUnavailable::AllowVerified
                    && last.root == sound.root
                    && age(last.at, now).is_some_and(|age| age <= policy.max_staleness) =>
            {
                Standing::OpenUnverified(last, held)
            }
            _ => Standing::Closed,
        }
    }
}

/// Whether every certificate that the check looked at is valid now, too.
fn holds_at(sound: &Facts, now: Timestamp) -> bool {
    (sound.valid_from..=sound.usable_until.at).contains(&now)
}

/// How long ago `then` was. `None` if it lies in the future by more than clocks differ: a clock that
/// was set back proves nothing about age.
fn age(then: Timestamp, now: Timestamp) -> Option<SignedDuration> {
    let age = now.duration_since(then);
    (age >= -SignedDuration::from_mins(5)).then_some(age)
}

#[cfg(test)]
mod tests;
