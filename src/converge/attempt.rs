//! One attempt: read both sides, plan, act, and read again, until the plan says open or hold.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::ca::Sha256;
use crate::ca::bundle::Bundle;
use crate::ca::check::Sound;
use crate::ca::issue;
use crate::k8s::Write as Written;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::Events;
use crate::k8s::external_secrets::{ExternalSecrets, Maker};
use crate::k8s::flux::Reconciles;
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::metrics::Convergences;
use crate::plan::{self, Names, OnRootChange, Pin, Role, Situation, Step, Stored};
use crate::reason::{Held, Reason};
use crate::snapshot::{Convergence, Doing, KnownRoot, LastVerified, Verified};
use crate::vault::{Found, Refused, Vault, Write};

/// A convergence needs three rounds from nothing to open; more is somebody else writing all the time.
const ROUNDS_MAX: usize = 12;

/// Longest pass over blocked owners: consultations wait for it.
const PASS_TIMEOUT: Duration = Duration::from_secs(5);

/// The step of an attempt that did not get as far as to plan one.
const NO_STEP: &str = "read";

/// What an attempt works with.
pub struct Parts {
    /// This cluster's role.
    pub role: Role,
    /// The user's choice.
    pub on_root_change: OnRootChange,
    /// How old the pin's `verified-at` may get before it is written anew.
    pub pin_age_max: SignedDuration,
    /// Names for sentences.
    pub names: Names,
    /// Common name of a root made here.
    pub common_name: String,
    /// Vault.
    pub vault: Vault,
    /// The Secret.
    pub cacerts: Arc<Cacerts>,
    /// The pin.
    pub pins: Pins,
    /// Owners of gated pods.
    pub owners: Arc<Owners>,
    /// ExternalSecrets that may have to be asked to sync.
    pub external_secrets: ExternalSecrets,
    /// HelmReleases to have reconciled once it is open.
    pub reconciles: Arc<Reconciles>,
    /// Where it is told what was done.
    pub events: Events,
    /// Where attempts are counted.
    pub counted: Convergences,
}

/// Makes attempts, and keeps between them what must not be made twice.
pub struct Attempts {
    parts: Parts,
    /// A root that was made here and is not known to be in Vault. Kept until Vault has one: should
    /// a write of unknown outcome arrive late, it writes the same root.
    candidate: Option<Candidate>,
    /// Whether the last attempt wrote anything of the CA.
    has_written: bool,
    /// The step that the last attempt set out on.
    step: &'static str,
}

/// How a pass over blocked owners ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// None is blocked, as far as RBAC lets it be told.
    NoneBlocked,
    /// Those that were are touched.
    Touched,
    /// It is worth another try soon.
    Failed,
}

struct Candidate {
    bundle: Bundle,
    /// Why its write did not settle the matter, if it was tried in this attempt.
    refused: Option<Refused>,
}

impl Attempts {
    /// Attempts with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts, candidate: None, has_written: false, step: NO_STEP }
    }

    /// Runs one attempt. Ok: the gate is open.
    pub(super) async fn run(&mut self, state: &watch::Sender<Convergence>) -> Result<(), Refused> {
        self.parts.vault.reload_ca();
        self.has_written = false;
        self.step = NO_STEP;
        if let Some(candidate) = &mut self.candidate {
            candidate.refused = None;
        }
        for _ in 0..ROUNDS_MAX {
            if self.round(state).await? {
                return Ok(());
            }
        }
        let sentence = format!(
            "Secret {} or {} in Vault keeps changing while it is compared: find out who else writes it",
            self.parts.names.cacerts, self.parts.names.record
        );
        Err(Held::new(Reason::Converging, sentence).into())
    }

    /// Reads, plans, and takes one step. `true`: open. `false`: read again.
    async fn round(&mut self, state: &watch::Sender<Convergence>) -> Result<bool, Refused> {
        note_doing(state, Doing::ReadingCacerts);
        let generation = self.parts.cacerts.watched().borrow().generation;
        let (published, pins) = tokio::join!(self.parts.cacerts.read(), self.parts.pins.read());
        let (published, pins) = (published?, pins?);
        let in_force = pin::in_force(&pins, &published)?;
        note_pin(state, in_force.as_ref());

        let now = Timestamp::now();
        note_doing(state, Doing::AskingVault);
        let found = self.parts.vault.read(now).await?;
        note_root(state, &found, now);
        if !matches!(found.stored, Stored::Absent) {
            self.candidate = None;
        }

        let situation = Situation {
            role: self.parts.role,
            on_root_change: self.parts.on_root_change,
            stored: &found.stored,
            published: &published,
            pin: in_force.as_ref(),
            names: &self.parts.names,
        };
        let step = situation.step();
        if self.step == NO_STEP {
            self.step = step.as_str();
        }
        if !matches!(step, Step::Open { .. }) {
            // What was verified is contradicted from here on, not only at the end of the attempt.
            state.send_modify(|state| state.verified = None);
        }
        match step {
            Step::Open { version, stored, published: sound, other_bytes } => {
                note_doing(state, Doing::WritingPin);
                if !self.parts.cacerts.observe_unless_changed(generation, &published)
                    || self.keep_pin(&pins, sound.root, version, now).await? == Written::Changed
                {
                    return Ok(false);
                }
                if other_bytes {
                    self.warn_of_other_bytes();
                }
                note_verified(state, &stored, version, published.resource_version(), sound.root, now);
                Ok(true)
            }
            Step::Publish { version, sound } => {
                note_doing(state, Doing::Publishing);
                let written = self.parts.cacerts.publish(&published, &sound, version).await?;
                if written == Written::Done {
                    tracing::info!(root = %sound.root, version, "published Secret {}", self.parts.names.cacerts);
                    self.parts.events.published(sound.root, version);
                    self.has_written = true;
                }
                Ok(false)
            }
            Step::Bootstrap => self.bootstrap(state, &found, now).await.map(|()| false),
            Step::ForceSync { external_secret, held } => {
                match self.parts.external_secrets.force_sync(external_secret.as_deref(), now).await {
                    Maker::ExternalSecret => Err(held.into()),
                    Maker::Nobody => Err(plan::left_behind(&self.parts.names).into()),
                }
            }
            Step::Hold(held) => Err(held.into()),
        }
    }

    fn warn_of_other_bytes(&self) {
        tracing::warn!(
            "Secret {} holds Vault's certificates in other bytes: istiods that started before refuse to reload it",
            self.parts.names.cacerts
        );
    }

    /// Makes a root first, and writes it in the next round, when all has been read again: making one
    /// takes seconds, in which others act.
    async fn bootstrap(
        &mut self,
        state: &watch::Sender<Convergence>,
        found: &Found,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let Some(candidate) = &mut self.candidate else {
            self.parts.vault.is_one().await?;
            note_doing(state, Doing::MakingKey);
            self.candidate = Some(Candidate { bundle: self.generate(now).await?, refused: None });
            return Ok(());
        };
        // It was tried, and Vault still has nothing.
        if let Some(refused) = candidate.refused.take() {
            return Err(refused);
        }
        self.parts.vault.is_one().await?;
        // The last look before the one write that cannot be taken back.
        if self.parts.pins.read().await?.pin.is_some() {
            return Ok(());
        }
        note_doing(state, Doing::WritingVault);
        let record = candidate.bundle.to_record();
        candidate.refused = match self.parts.vault.create(found, record).await {
            Write::Applied => {
                tracing::info!("made a root and wrote it to {} in Vault", self.parts.names.record);
                self.parts.events.bootstrapped(&self.parts.names.record);
                Some(behind(&self.parts.names.record))
            }
            Write::Lost => Some(behind(&self.parts.names.record)),
            Write::Forbidden(held) => Some(held.into()),
            Write::Unclear(refused) => Some(refused),
        };
        Ok(())
    }

    async fn generate(&self, now: Timestamp) -> Result<Bundle, Held> {
        let common_name = self.parts.common_name.clone();
        let began = std::time::Instant::now();
        let made = tokio::task::spawn_blocking(move || issue::root(&common_name, now)).await;
        let failed = |error: &dyn std::fmt::Display| {
            Held::new(
                Reason::Converging,
                format!("a root key could not be made ({error}): it is tried again by itself"),
            )
        };
        let bundle = made.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "made a root key");
        Ok(bundle)
    }

    /// The gate opens only over a pin that is written: it is what keeps a lost root from being replaced.
    async fn keep_pin(&self, read: &pin::Read, root: Sha256, version: u64, now: Timestamp) -> Result<Written, Held> {
        let pin = Pin { root, vault_version: Some(version), verified_at: Some(now) };
        let changed = read.pin.as_ref().is_none_or(|old| (old.root, old.vault_version) != (root, Some(version)));
        let aged = read.pin.as_ref().and_then(|old| old.verified_at).is_none_or(|at| {
            let age = now.duration_since(at);
            age >= self.parts.pin_age_max || age.is_negative()
        });
        match (changed, aged) {
            (false, false) => Ok(Written::Done),
            (true, _) => self.parts.pins.write(read, &pin).await,
            (false, true) => {
                // Only the date is old; the next attempt writes it.
                if let Err(held) = self.parts.pins.write(read, &pin).await {
                    tracing::warn!(reason = %held.reason, "{}", held.sentence);
                }
                Ok(Written::Done)
            }
        }
    }

    /// Whether the last attempt wrote anything of the CA, as opposed to finding all as it should be.
    pub(super) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The step that the last attempt set out on.
    pub(super) fn step(&self) -> &'static str {
        self.step
    }

    /// Where attempts are counted.
    pub(super) fn counted(&self) -> &Convergences {
        &self.parts.counted
    }

    /// Where it is told what was done.
    pub(super) fn events(&self) -> &Events {
        &self.parts.events
    }

    /// Asks Flux to reconcile, in the background.
    pub(super) fn ask_flux(&self) {
        self.parts.reconciles.ask(Timestamp::now());
    }

    /// Asks Flux to reconcile, and waits until it is asked.
    pub(super) async fn asked_flux(&self) {
        self.parts.reconciles.ask_all(Timestamp::now()).await;
    }

    /// Touches blocked owners.
    pub(super) async fn unblock(&self) -> Pass {
        match tokio::time::timeout(PASS_TIMEOUT, self.parts.owners.touch_blocked(Timestamp::now())).await {
            Ok(Ok(true)) => Pass::Touched,
            Ok(Ok(false)) => Pass::NoneBlocked,
            Err(_) => {
                tracing::warn!("touching blocked owners takes too long; it is tried again");
                Pass::Failed
            }
            Ok(Err(held)) => {
                tracing::warn!(reason = %held.reason, "{}", held.sentence);
                // A missing right does not come by itself.
                if held.reason == Reason::KubernetesForbidden { Pass::NoneBlocked } else { Pass::Failed }
            }
        }
    }
}

/// A pin is proof of an earlier verification, as far as it is dated.
fn note_pin(state: &watch::Sender<Convergence>, pin: Option<&Pin>) {
    let Some(pin) = pin else { return };
    let Some(at) = pin.verified_at else { return };
    state.send_if_modified(|state| {
        let newer = state.last_verified.is_none_or(|last| last.at < at);
        if newer {
            state.last_verified = Some(LastVerified { root: pin.root, at });
        }
        newer
    });
}

/// Nobody waits for this: it is read when a call's time is up.
fn note_doing(state: &watch::Sender<Convergence>, doing: Doing) {
    state.send_if_modified(|state| {
        state.doing = doing;
        false
    });
}

fn note_root(state: &watch::Sender<Convergence>, found: &Found, now: Timestamp) {
    let known = |version: u64, sound: &Sound| KnownRoot {
        glance: sound.glance.clone(),
        root: sound.root,
        version,
        checked_at: now,
        address: found.address.clone(),
    };
    state.send_modify(|state| {
        state.root = match &found.stored {
            Stored::Sound { version, sound } => Some(known(*version, sound)),
            _ => None,
        };
    });
}

fn note_verified(
    state: &watch::Sender<Convergence>,
    stored: &Sound,
    version: u64,
    resource_version: &str,
    root: Sha256,
    now: Timestamp,
) {
    let resource_version = resource_version.to_owned();
    state.send_modify(|state| {
        state.last_verified = Some(LastVerified { root, at: now });
        state.verified = Some(Verified { stored: Arc::clone(stored.facts()), version, resource_version, at: now });
    });
}

/// Vault says that there is a version, and does not show it: the node that answers is behind.
fn behind(record: &str) -> Refused {
    Held::new(
        Reason::VaultUnreachable,
        format!("Vault has a version of {record} but does not show it yet: a standby node is behind; it is read again by itself"),
    )
    .into()
}
