//! How the convergence stands, and everything that changes it. Pure: each change is one method.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::ca::Sha256;
use crate::ca::bundle::Glance;
use crate::ca::check::{Facts, Until};
use crate::clock::{Boot, Clocks};
use crate::plan::{Contradiction, Pin};
use crate::reason::Held;

/// Vault's root, as last read.
#[derive(Clone, Debug)]
pub struct KnownRoot {
    /// What people see of it.
    pub glance: Glance,
    /// The root that its signing CA chains to.
    pub root: Sha256,
    /// KV version.
    pub version: u64,
    /// Until when it passes the check.
    pub usable_until: Until,
    /// When `delete_version_after` takes that version away.
    pub deleted_at: Option<Timestamp>,
    /// When the token that it was read with ends, where nobody renews it.
    pub token_end: Option<Timestamp>,
    /// When it was read.
    pub checked_at: Timestamp,
    /// The address that answered.
    pub address: String,
}

impl KnownRoot {
    /// Until when the gate can stand on it, and what ends it: a certificate, or Vault itself.
    pub fn end(&self) -> (Timestamp, String) {
        match self.deleted_at {
            Some(at) if at < self.usable_until.at => (at, format!("delete_version_after of version {}", self.version)),
            _ => (self.usable_until.at, self.usable_until.by.to_string()),
        }
    }
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
    pub at: Clocks,
}

/// The roots last verified and when, in this process or, by the pin, in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastVerified {
    /// The root that `ca-cert.pem` chained to.
    pub root: Sha256,
    /// All of `root-cert.pem`.
    pub roots: Arc<BTreeSet<Sha256>>,
    /// When.
    pub at: Clocks,
}

impl LastVerified {
    /// By these facts, now.
    pub fn of(published: &Facts, at: Clocks) -> Self {
        Self { root: published.root, roots: Arc::new(published.roots().clone()), at }
    }

    /// Whether this `cacerts` is what was verified: what workloads trust, and what signs for them.
    pub fn is_of(&self, published: &Facts) -> bool {
        self.root == published.root && *self.roots == *published.roots()
    }
}

/// What Vault said against what was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradicted {
    /// The answer.
    pub contradiction: Contradiction,
    /// The pin tells it, too. Once it does not any more, somebody has agreed with Vault.
    pub recorded: bool,
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
    /// Having this cluster's signer certified.
    Certifying,
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
            Self::Certifying => "Vault to certify this cluster's signer",
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
    /// Since when no attempt has ended with an open gate, for whatever reasons.
    pub held_since: Option<Timestamp>,
    /// Vault's last answer about the CA spoke against what was verified: from then on no outage is bridged.
    pub contradicted: Option<Contradicted>,
    /// Vault's root, as last read.
    pub root: Option<KnownRoot>,
    /// Set by an attempt that ended open; unset by any answer that contradicts it.
    pub verified: Option<Verified>,
    /// Outlives outages and, by the pin, restarts.
    pub last_verified: Option<LastVerified>,
    /// When the pin was last read.
    pub pin_read: Option<Boot>,
    /// Counts what is learnt of the pin, to notice what came while it was being read.
    pub pin_learnt: u64,
}

impl Convergence {
    /// An attempt begins.
    pub fn began(&mut self) {
        (self.consulted, self.running) = (true, true);
    }

    /// The pin was read, now: it is what other replicas and the last start know. `false`: more is known by now than
    /// when the read began (`learnt`), and it has to be read again.
    ///
    /// A pin without a date proves no verification, and neither does one that is gone.
    pub fn pin_was_read(&mut self, learnt: u64, pin: Option<&Pin>, now: Clocks) -> bool {
        if self.pin_learnt != learnt {
            return false;
        }
        self.pin_read = self.pin_read.max(Some(now.boot));
        let before = (self.contradicted, self.last_verified.clone());
        let told = pin.and_then(|pin| pin.contradicted);
        if let Some(contradiction) = told {
            self.contradicted = Some(Contradicted { contradiction, recorded: true });
        } else if self.contradicted.is_some_and(|known| known.recorded) {
            self.contradicted = None;
        }
        self.last_verified = pin.and_then(|pin| {
            let (at, roots) = (now.of_date(pin.verified_at?), Arc::new(pin.roots.clone()));
            let told = LastVerified { root: pin.root, roots, at };
            // The pin is not written at each verification.
            let known = self.last_verified.take().filter(|known| {
                (known.root, &known.roots) == (told.root, &told.roots) && known.at.wall >= told.at.wall
            });
            Some(known.unwrap_or(told))
        });
        // What tells nothing new overtakes no other read.
        self.pin_learnt += u64::from(before != (self.contradicted, self.last_verified.clone()));
        true
    }

    /// Vault was read.
    pub fn vault_was_read(&mut self, root: Option<KnownRoot>) {
        self.root = root;
    }

    /// Vault's answer led to a step, which opens or does not. What was verified is contradicted from here on, not only
    /// at the end of the attempt.
    pub fn planned(&mut self, opens: bool, contradiction: Option<Contradiction>) {
        if !opens {
            self.verified = None;
        }
        if let (Some(contradiction), None) = (contradiction, self.contradicted) {
            self.contradicted = Some(Contradicted { contradiction, recorded: false });
        }
    }

    /// The pin has taken note of the contradiction.
    pub fn contradiction_was_recorded(&mut self) {
        self.pin_learnt += 1;
        if let Some(known) = &mut self.contradicted {
            known.recorded = true;
        }
    }

    /// `cacerts` holds Vault's roots, and the pin says so: an agreement, with which every contradiction ends.
    pub fn agreed(&mut self, verified: Verified, last: LastVerified) {
        self.pin_learnt += 1;
        self.contradicted = None;
        self.verified = Some(verified);
        self.last_verified = Some(last);
    }

    /// An attempt ended now: open, or for this reason not. Returns whether that is another end than the last one's.
    pub fn ended(&mut self, held: Option<Held>, now: Timestamp) -> bool {
        self.running = false;
        self.finished += 1;
        // Trouble with the API server says nothing about the CA: what was verified stays so for its time.
        if held.as_ref().is_some_and(|held| !held.reason.is_kubernetes()) {
            self.verified = None;
        }
        let by = self.contradicted.map(|known| known.contradiction.by);
        let held = match (held, by) {
            (Some(held), Some(by)) if held.reason.is_bridgeable() && self.last_verified.is_some() => {
                Some(held.noting(&format!("what was verified before does not count, since Vault then said {by}")))
            }
            (held, _) => held,
        };
        let is_other = self.held != held;
        self.held_since = held.as_ref().map(|_| self.held_since.unwrap_or(now));
        self.held = held;
        is_other
    }

    /// What may be bridged: the last attempt met it, and before it Vault said nothing against what was
    /// verified.
    pub fn bridgeable(&self) -> Option<(&LastVerified, &Held)> {
        let held = self.held.as_ref().filter(|held| held.reason.is_bridgeable() && self.contradicted.is_none())?;
        Some((self.last_verified.as_ref()?, held))
    }
}

#[cfg(test)]
mod tests;
