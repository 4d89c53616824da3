//! What this process knows at one moment. The gate decides on nothing else.

mod convergence;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::ca::Sha256;
use crate::ca::bundle::Glance;
use crate::ca::check::Facts;
use crate::ca::signer::SigningCa;
use crate::clock::{Boot, Clocks};
use crate::order::{Order, Told, Worth};
use crate::plan::Published;
use crate::reason::Held;
pub use convergence::{Contradicted, Convergence, Doing, KnownRoot, LastVerified, Verified};

/// How long a silent watch is trusted. The API server ends each watch after half of this, so that
/// a working one is never silent for so long.
pub const WATCH_TRUST: Duration = Duration::from_secs(90);

/// How long a live read is trusted: for the call or the attempt that it was made for.
const READ_TRUST: Duration = Duration::from_secs(1);

/// How much later than `--refresh` a comparison with Vault may be and still count as current:
/// the time that one attempt with slow answers takes.
const REFRESH_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What to do while Vault cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The versions that were told.
    pub order: Order,
    /// As last read. `None` until the first answer.
    pub published: Option<Published<Facts>>,
    /// The last sign of life of the watch, unless a read has contradicted it since.
    pub heard: Option<Boot>,
    /// The last live read, which says nothing about the watch.
    pub read: Option<Boot>,
}

impl Watched {
    /// Takes note of what the watch tells. That there is nothing needs no read.
    pub fn was_told(&mut self, told: Told, now: Boot) {
        let is_gone = told.version.is_empty();
        if self.order.tell(told) {
            self.read = None;
        }
        if is_gone {
            self.published = Some(Published::Absent);
        }
        self.heard = Some(now);
    }

    /// Takes a read that began in this generation, as far as it counts. What contradicts the watch shows that it is behind
    /// or has lost a change, so that it is not trusted until it has begun anew.
    pub fn was_read(&mut self, generation: u64, published: &Published, now: Boot) -> Worth {
        let worth = self.order.read(generation, published.resource_version());
        if matches!(worth, Worth::Newer | Worth::Stale) {
            self.heard = None;
        }
        match worth {
            Worth::Same | Worth::Newer => {
                self.published = Some(published.facts());
                self.read = Some(now);
            }
            Worth::Stale => self.read = None,
            Worth::Overtaken => {}
        }
        worth
    }

    /// Whether `published` is the version that was told last, as far as one was.
    pub fn is_current(&self) -> bool {
        let read = self.published.as_ref().map(Published::resource_version);
        self.order.version().is_none_or(|told| read == Some(told))
    }

    /// Whether `published` is current, and the watch was heard of lately enough, or it was read just now.
    pub fn is_trusted(&self, now: Boot) -> bool {
        self.is_current() && (self.is_heard(now) || self.read.is_some_and(|at| now.since(at) < READ_TRUST))
    }

    /// Whether the watch was heard of lately enough.
    pub fn is_heard(&self, now: Boot) -> bool {
        self.heard.is_some_and(|at| now.since(at) < WATCH_TRUST)
    }

    /// Whether `cacerts` is another than the one that was verified.
    pub fn is_other_than(&self, verified: &Verified) -> bool {
        let read = self.published.as_ref().map(Published::resource_version);
        self.order.version().or(read) != Some(&verified.resource_version)
    }

    /// What people see of it, and of which version that is, as far as its root can be read.
    pub fn glance(&self) -> Option<(&Glance, &str)> {
        match self.published.as_ref()? {
            Published::Present(copy) => copy.glance.as_ref().map(|glance| (glance, copy.resource_version.as_str())),
            Published::Absent => None,
        }
    }

    /// Until when it passes the check, and the certificate that ends it. `None`: it does not pass.
    pub fn end(&self) -> Option<(Timestamp, String)> {
        let until = self.sound()?.usable_until;
        Some((until.at, until.by.to_string()))
    }

    /// This cluster's own signer, if that is what it has: certified for a record of the signing kind; and the root that
    /// it is under.
    pub fn signer(&self) -> Option<(&SigningCa, Sha256)> {
        match self.published.as_ref()? {
            Published::Present(copy) => {
                copy.annotated_state?;
                self.sound().map(|sound| (&sound.signing_ca, sound.root))
            }
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

/// Whether the gate is open.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// Verified lately, and nothing has changed since.
    Open(&'a Verified),
    /// Vault cannot be asked, and the user allows what was verified before.
    OpenUnverified(&'a LastVerified, &'a Held),
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
    pub fn is_open(&self, policy: &Policy, now: Clocks) -> bool {
        matches!(self.standing(policy, now), Standing::Open(_) | Standing::OpenUnverified(..))
    }

    /// How the gate stands.
    pub fn standing(&self, policy: &Policy, now: Clocks) -> Standing<'a> {
        let Snapshot { watched, convergence } = self;
        if !watched.is_trusted(now.boot) {
            return Standing::Blind;
        }
        let Some(sound) = watched.sound().filter(|sound| holds_at(sound, now.wall)) else {
            return Standing::Closed;
        };
        let within = |at, most| now.age(at).is_some_and(|age| age <= most);
        if let Some(verified) = &convergence.verified
            && within(verified.at, policy.refresh + REFRESH_GRACE)
            && holds_at(&verified.stored, now.wall)
            && sound.same_roots(&verified.stored)
        {
            return Standing::Open(verified);
        }
        match convergence.bridgeable() {
            Some((last, held))
                if policy.vault_unavailable == VaultUnavailable::AllowVerified
                    && last.is_of(sound)
                    && within(last.at, policy.max_staleness) =>
            {
                Standing::OpenUnverified(last, held)
            }
            _ => Standing::Closed,
        }
    }

    /// Whether the pin was read just now. Who lets in by what was verified before has to know what other replicas have
    /// learnt since.
    pub fn knows_the_pin(&self, now: Clocks) -> bool {
        self.convergence.pin_read.is_some_and(|at| now.boot.since(at) < READ_TRUST)
    }
}

/// Whether every certificate that the check looked at is valid now, too.
fn holds_at(sound: &Facts, now: Timestamp) -> bool {
    (sound.valid_from..=sound.usable_until.at).contains(&now)
}

#[cfg(test)]
mod tests;
