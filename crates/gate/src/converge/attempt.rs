//! One attempt: read both sides, plan, act, and read again, until the plan says open or hold.

mod making;
mod pinning;
mod signing;

use futures::future::BoxFuture;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::Convergences;
use super::spared::Spared;
use crate::attests::Attests;
use crate::ca::bundle::Bundle;
use crate::ca::check::Sound;
use crate::ca::record::RecordState;
use crate::ca::signer::SignerTerms;
use crate::clock::Clocks;
use crate::cluster::{Bystanders, Cluster, Happened, Maker, Passed, Write};
use crate::life::joining::Awaited;
use crate::plan::{self, Contradiction, Names, OnRootChange, Pin, Published, ReadPin, Role, Situation, Step, Stored};
use crate::reason::{ByItself, Held, Reason};
use crate::refused::Refused;
use crate::signer::Signer;
use crate::skew::Ahead;
use crate::snapshot::{Convergence, Doing, KnownRoot};
use crate::store::{Found, Store};
pub use making::make_root;
use making::{Candidate, Kind};
use signing::{Declined, Order, Signed};

/// A convergence needs three rounds from nothing to open; more is somebody else writing all the time.
const ROUNDS_MAX: usize = 12;

/// The step of an attempt that did not get as far as to plan one.
const NO_STEP: &str = "read";

/// Makes a root with this common name, valid from now.
pub type MakeRoot = fn(String, Timestamp) -> BoxFuture<'static, Result<Bundle, Held>>;

/// What an attempt works with.
pub struct Parts<S, C> {
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
    /// How this cluster's signer is made, if there is a PKI engine to certify it.
    pub signer: Option<SignerTerms>,
    /// Where the root is kept.
    pub store: S,
    /// The cluster that is kept on it.
    pub cluster: C,
    /// Makes a root.
    pub make_root: MakeRoot,
    /// Tells the time.
    pub now: fn() -> Clocks,
    /// Where attempts are counted.
    pub counted: Convergences,
}

/// Makes attempts, and keeps between them what must not be made twice.
pub struct Attempts<S, C> {
    parts: Parts<S, C>,
    pub(super) kept: Kept,
}

/// What is kept between rounds, and, but for the last two, between attempts.
#[derive(Clone, Default)]
pub(super) struct Kept {
    /// A root that was made here and is not known to be in Vault. Kept until Vault has one: should
    /// a write of unknown outcome arrive late, it writes the same root.
    candidate: Option<Candidate>,
    /// A signer that was certified here and is not known to be published. Kept until it is: Vault does not make another
    /// one for each write that is refused.
    signer: Option<Signed>,
    /// What the PKI engine says no to.
    declined: Declined,
    /// Whether whoever replaces the root waits for this cluster; of this attempt.
    awaited: Awaited,
    /// Of `cacerts`.
    publishing: Spared,
    /// Of the pin.
    pinning: Spared,
    /// What kept the last renewal from coming about, to be told once.
    renewal_failed: Option<Reason>,
    /// Whether this attempt has written anything of the CA.
    has_written: bool,
    /// The step that this attempt has set out on.
    step: Option<&'static str>,
}

/// How an attempt ended.
pub(super) struct Ended {
    /// Ok: the gate is open.
    pub(super) outcome: Result<(), Refused>,
    /// The step that it set out on.
    pub(super) step: &'static str,
    /// Whether it wrote anything of the CA, as opposed to finding all as it should be.
    pub(super) has_written: bool,
}

/// How a round ended that nothing held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Open,
    /// Something was done, by this or by others: read all again.
    Again,
}

/// Both sides, as a round has found them.
struct Seen<P> {
    published: Published,
    /// The ConfigMap.
    pins: ReadPin,
    /// The pin in force.
    pin: Option<Pin>,
    found: Found<P>,
    now: Clocks,
}

impl<P> Seen<P> {
    fn situation<'a, S, C>(&'a self, parts: &'a Parts<S, C>) -> Situation<'a> {
        Situation {
            role: parts.role,
            on_root_change: parts.on_root_change,
            stored: &self.found.stored,
            published: &self.published,
            pin: self.pin.as_ref(),
            signer: parts.signer.as_ref(),
            now: self.now.wall,
            names: &parts.names,
        }
    }
}

/// How a pass over blocked owners ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// None is blocked, as far as RBAC lets it be told.
    NoneBlocked,
    /// Those that were are touched.
    Touched,
    /// Some are touched, and there may be others.
    Unfinished,
    /// It is worth another try soon.
    Failed,
}

impl<S: Store + Signer + Attests, C: Cluster + Bystanders> Attempts<S, C> {
    /// Attempts with these parts.
    pub fn new(parts: Parts<S, C>) -> Self {
        Self { parts, kept: Kept::default() }
    }

    /// Runs one attempt.
    pub(super) async fn run(&mut self, state: &watch::Sender<Convergence>) -> Ended {
        self.parts.store.begin();
        self.kept.begin();
        let outcome = self.rounds(state).await;
        let Kept { step, has_written, .. } = self.kept;
        Ended { outcome, step: step.unwrap_or(NO_STEP), has_written }
    }

    async fn rounds(&mut self, state: &watch::Sender<Convergence>) -> Result<(), Refused> {
        for _ in 0..ROUNDS_MAX {
            if self.round(state).await? == Round::Open {
                return Ok(());
            }
        }
        let Names { cacerts, record, .. } = &self.parts.names;
        let what = format!("Secret {cacerts} or {record} in Vault keeps changing while it is compared");
        Err(Held::new(Reason::Converging, what, "find out who else writes it", ByItself::Unsaid).into())
    }

    /// Reads, plans, and takes one step.
    pub(super) async fn round(&mut self, state: &watch::Sender<Convergence>) -> Result<Round, Refused> {
        let Some(seen) = self.see(state).await? else { return Ok(Round::Again) };
        let situation = seen.situation(&self.parts);
        let (step, contradicted_by) = (situation.step(), situation.contradiction());
        self.kept.step.get_or_insert(step.as_str());
        if step.agrees() {
            // What ends a contradiction is written next.
            let contradiction = contradicted_by.map(|by| Contradiction { by, at: seen.now.wall });
            state.send_modify(|state| state.planned(true, contradiction));
        } else {
            state.send_modify(|state| state.planned(false, None));
            if let Some(by) = contradicted_by {
                match (self.contradict(state, &seen.pins, by, seen.now).await, step.held()) {
                    (Ok(Write::Done), _) => {}
                    (Ok(Write::Changed), _) => return Ok(Round::Again),
                    (Err(_), Some(held)) => return Err(self.unrecorded(held).into()),
                    (Err(trouble), None) => return Err(trouble.into()),
                }
            }
        }
        let step = if step.brings_root() {
            seen.situation(&self.parts).beside(&self.parts.cluster.mesh().await?, step)
        } else {
            step
        };
        self.take(state, &seen, step).await
    }

    /// Reads both sides. `None`: something came in between.
    async fn see(&mut self, state: &watch::Sender<Convergence>) -> Result<Option<Seen<S::Place>>, Refused> {
        note_doing(state, Doing::ReadingCacerts);
        let (learnt, began) = (state.borrow().pin_learnt, (self.parts.now)());
        // Also while Vault cannot be asked, what is there counts for the gate.
        let (published, pins) = tokio::join!(self.parts.cluster.look(), self.parts.cluster.read_pin());
        let (Some(published), pins) = (published?, pins?) else { return Ok(None) };
        let pin = pins.in_force(&published)?;
        let mut taken = false;
        state.send_modify(|state| taken = state.pin_was_read(learnt, pins.pin.as_ref(), began));
        if !taken {
            return Ok(None);
        }

        let now = (self.parts.now)();
        note_doing(state, Doing::AskingVault);
        let found = match self.ask_vault(pin.as_ref(), now.wall).await {
            Ok(found) => found,
            Err(refused) => return self.refused(state, &pins, refused, now).await.map(|()| None),
        };
        state.send_modify(|state| state.vault_was_read(known_root(&found, now)));
        if !matches!(found.stored, Stored::Absent) {
            self.kept.candidate = None;
        }
        Ok(Some(Seen { published, pins, pin, found, now }))
    }

    async fn take(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        step: Step,
    ) -> Result<Round, Refused> {
        match step {
            Step::Open { version, stored, published, other_bytes } => {
                if other_bytes {
                    self.warn_of_other_bytes();
                }
                self.kept.signer = None;
                Ok(self.open(state, seen, version, &stored, &published).await?)
            }
            Step::Publish { version, sound, state: for_state } => {
                if let Some(state) = for_state
                    && !self.is_awaited(seen, version, state).await?
                {
                    return Ok(Round::Again);
                }
                self.publish(state, seen, version, &sound, for_state).await?;
                Ok(Round::Again)
            }
            Step::Certify { version, record, issuer, key, renews } => {
                self.certify(state, seen, Order { version, record, issuer, key }, renews).await
            }
            Step::Bootstrap => self.make(state, seen, Kind::Shared).await.map(|()| Round::Again),
            Step::MakeRoot => self.make(state, seen, Kind::Signing).await.map(|()| Round::Again),
            Step::ForceSync { external_secret, held } => {
                match self.parts.cluster.force_sync(external_secret.as_deref(), seen.now.wall).await {
                    Maker::ExternalSecret => Err(held.into()),
                    Maker::Nobody => Err(plan::left_behind(&self.parts.names).into()),
                }
            }
            Step::Hold(held) => Err(held.into()),
        }
    }

    async fn publish(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        version: u64,
        sound: &Sound,
        for_state: Option<RecordState>,
    ) -> Result<Write, Held> {
        note_doing(state, Doing::Publishing);
        let what = format!("{} {version} {}", seen.published.resource_version(), sound.root);
        let write = self.parts.cluster.publish(&seen.published, sound, version, for_state);
        let written = self.kept.publishing.write(what, self.parts.now, write).await?;
        if written == Write::Done {
            tracing::info!(root = sound.root.openssl(), version, "published Secret {}", self.parts.names.cacerts);
            self.parts.cluster.tell(Happened::Published { root: sound.root, version, signer: for_state.is_some() });
            self.kept.has_written = true;
        }
        Ok(written)
    }

    fn warn_of_other_bytes(&self) {
        tracing::warn!(
            "Secret {} holds Vault's certificates in other bytes: istiods that started before refuse to reload it",
            self.parts.names.cacerts
        );
    }

    /// Vault's record. Nothing is judged by a clock that is wrong.
    async fn ask_vault(&mut self, pin: Option<&Pin>, now: Timestamp) -> Result<Found<S::Place>, Refused> {
        let found = self.parts.store.read(pin.map(|pin| pin.root), now).await?;
        self.ahead(&found).judge()?;
        Ok(found)
    }

    fn ahead(&self, found: &Found<S::Place>) -> Ahead {
        Ahead { vault: found.ahead, api: self.parts.cluster.ahead() }
    }

    /// Where attempts are counted.
    pub(super) fn counted(&self) -> &Convergences {
        &self.parts.counted
    }

    /// Where the root is kept.
    pub(super) fn store(&self) -> &S {
        &self.parts.store
    }

    /// The cluster that is kept on the root.
    pub(super) fn cluster(&self) -> &C {
        &self.parts.cluster
    }

    /// The time.
    pub(super) fn now(&self) -> Clocks {
        (self.parts.now)()
    }

    /// Touches blocked owners.
    pub(super) async fn unblock(&self) -> Pass {
        match self.parts.cluster.touch_blocked(self.now().wall).await {
            Ok(Passed { any: true, whole: true }) => Pass::Touched,
            Ok(Passed { any: false, whole: true }) => Pass::NoneBlocked,
            Ok(Passed { any: true, whole: false }) => Pass::Unfinished,
            Ok(Passed { any: false, whole: false }) => Pass::Failed,
            Err(held) => {
                tracing::warn!(reason = %held.reason, "{}", held.sentence());
                // A missing right does not come by itself.
                if held.reason == Reason::KubernetesForbidden { Pass::NoneBlocked } else { Pass::Failed }
            }
        }
    }
}

impl Kept {
    /// An attempt begins.
    pub(super) fn begin(&mut self) {
        (self.has_written, self.step, self.awaited) = (false, None, Awaited::Unknown);
        if let Some(candidate) = &mut self.candidate {
            candidate.refused = None;
        }
    }
}

#[cfg(test)]
impl Kept {
    /// Forgets what is only counted and told.
    pub(super) fn forget_what_is_told(&mut self) {
        (self.has_written, self.step) = (false, None);
    }

    /// What it comes to, for tests that compare.
    pub(super) fn key(&self) -> String {
        let candidate = self.candidate.as_ref().map(Candidate::key);
        format!("{candidate:?} {:?} {:?}", self.publishing, self.pinning)
    }
}

/// Nobody waits for this: it is read when a call's time is up.
fn note_doing(state: &watch::Sender<Convergence>, doing: Doing) {
    tracing::debug!(waits_for = doing.as_str(), "an attempt goes on");
    state.send_if_modified(|state| {
        state.doing = doing;
        false
    });
}

fn known_root<P>(found: &Found<P>, now: Clocks) -> Option<KnownRoot> {
    let (version, glance, root, usable_until) = match &found.stored {
        Stored::Sound { version, sound } => (*version, &sound.glance, sound.root, sound.usable_until),
        Stored::Signing { version, record } => {
            (*version, record.glance(), record.glance().sha256, record.usable_until())
        }
        Stored::Absent | Stored::Deleted { .. } | Stored::Unsound { .. } => return None,
    };
    Some(KnownRoot {
        glance: glance.clone(),
        root,
        version,
        usable_until,
        deleted_at: found.deleted_at,
        token_end: found.token_end,
        checked_at: now.wall,
        address: found.address.clone(),
    })
}
