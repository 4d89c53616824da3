//! What becomes of the CAs that the replicas share. Each replica may take each step, since all decide by the same
//! facts: what the Secret holds, what `caBundle` has had for how long, and the time.
//!
//! ```text
//! signing ── two thirds of its life ──▶ Announce: signing + next
//!                                          │ next has settled in caBundle
//!                                          ▼
//!            Retire ◀── a leaf's life ── Switch: next signs, the old one is still trusted
//! ```
//!
//! A replica whose leaf is by a CA that is not among them adds that (`Join`), and takes a leaf by the one that signs
//! once that has settled. A signing CA from the future (some node's clock was ahead) is rotated as one that is due: what
//! else would be until its time comes?

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::ca::{CaCertificate, ServingCa};
use crate::ca::Sha256;

/// API servers take up a changed `caBundle` within a second or two, each by a watch of its own.
const SETTLE: Duration = Duration::from_secs(30);

/// Most CAs that are trusted at a time. Two are needed; more are from Secrets that were replaced.
pub const TRUSTED_MAX: usize = 10;

/// How long what is made here lives.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// `--tls-ca-life`.
    pub ca: SignedDuration,
    /// `--tls-leaf-life`.
    pub leaf: SignedDuration,
}

impl Lives {
    /// How long a CA has to be in `caBundle` before a leaf of it is used.
    pub fn settle(&self) -> Duration {
        SETTLE.min(self.leaf.unsigned_abs() / 4)
    }

    /// How often dates are compared with the clock.
    pub fn look_again(&self) -> Duration {
        (self.leaf.unsigned_abs() / 40).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }
}

/// The certificates in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Signs leaves.
    pub signing: CaCertificate,
    /// Will sign leaves.
    pub next: Option<CaCertificate>,
    /// Trusted because leaves of theirs may be in use.
    pub others: Vec<CaCertificate>,
    /// When something came to the others last.
    pub changed: Option<Timestamp>,
}

impl Trusted {
    /// Whether this is one of them.
    pub fn has(&self, id: &Sha256) -> bool {
        self.all().any(|ca| ca.id == *id)
    }

    fn all(&self) -> impl Iterator<Item = &CaCertificate> {
        std::iter::once(&self.signing).chain(&self.next).chain(&self.others)
    }
}

/// What is to be done with the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Trust the CA of this replica's leaf, too.
    Join,
    /// Make the next CA, and trust it.
    Announce,
    /// Let the next CA sign.
    Switch,
    /// Let a new CA sign at once: nothing that the old one signs is accepted any more.
    Replace,
    /// Write down that there are others: their time starts now.
    Date,
    /// Trust these no more.
    Retire(Vec<Sha256>),
}

/// The step that is due. `mine` is the CA of this replica's leaf; `has_settled` tells of a CA whether callers trust it.
pub fn plan(
    trusted: &Trusted,
    mine: Option<&CaCertificate>,
    has_settled: impl Fn(&Sha256) -> bool,
    now: Timestamp,
    lives: &Lives,
) -> Step {
    let Trusted { signing, next, others, changed } = trusted;
    let next = next.as_ref().filter(|next| next.is_valid(now));
    let is_mine = |ca: &CaCertificate| mine.is_some_and(|mine| mine.id == ca.id);
    if mine.is_some_and(|mine| mine.is_valid(now) && !trusted.has(&mine.id)) {
        return Step::Join;
    }
    // A clock is wrong, or was. It may be this one, so that no CA is given up for it.
    let is_early = now < signing.not_before;
    match next {
        Some(next) if has_settled(&next.id) || now >= signing.not_after => return Step::Switch,
        None if now >= signing.not_after => return Step::Replace,
        None if is_early || now >= signing.due() => return Step::Announce,
        Some(_) if is_early => return Step::Keep,
        Some(_) | None => {}
    }
    let aged = match changed {
        _ if others.is_empty() => return Step::Keep,
        Some(changed) if *changed <= now => now.duration_since(*changed) >= lives.leaf,
        // Somebody's hand, or a clock that was put back.
        Some(_) | None => return Step::Date,
    };
    let over = others.iter().filter(|ca| !is_mine(ca) && (aged || now >= ca.not_after));
    let over: Vec<_> = over.map(|ca| ca.id).collect();
    if over.is_empty() { Step::Keep } else { Step::Retire(over) }
}

/// What is to be done with this replica's leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafStep {
    /// Nothing.
    Keep,
    /// A new one by the CA that the last one is by.
    Renew,
    /// A new one by the signing CA.
    Switch,
}

/// The step that is due. `fresh`: the leaf in use needs no other yet.
pub fn plan_leaf(
    signing: &CaCertificate,
    mine: Option<&CaCertificate>,
    fresh: bool,
    has_settled: impl Fn(&Sha256) -> bool,
    now: Timestamp,
) -> LeafStep {
    let Some(mine) = mine else {
        return if signing.is_valid(now) { LeafStep::Switch } else { LeafStep::Keep };
    };
    let untrusted = !mine.is_valid(now);
    if mine.id != signing.id && signing.is_valid(now) && (untrusted || has_settled(&signing.id)) {
        return LeafStep::Switch;
    }
    if !fresh && mine.is_valid(now) { LeafStep::Renew } else { LeafStep::Keep }
}

/// The CAs in the Secret, with the keys of those that sign.
#[derive(Clone)]
pub struct Authorities {
    /// Signs leaves.
    pub signing: Arc<ServingCa>,
    /// Will sign leaves.
    pub next: Option<Arc<ServingCa>>,
    /// Trusted because leaves of theirs may be in use.
    pub others: Vec<CaCertificate>,
    /// When something came to the others last.
    pub changed: Option<Timestamp>,
}

impl Authorities {
    /// A first CA.
    pub fn new(signing: Arc<ServingCa>) -> Self {
        Self { signing, next: None, others: Vec::new(), changed: None }
    }

    /// What was lost, from the memory of a replica: its CA signs on, and a new one is announced, since whoever deletes
    /// the Secret wants one.
    pub fn restored(mine: Arc<ServingCa>, made: Arc<ServingCa>) -> Self {
        Self { next: Some(made), ..Self::new(mine) }
    }

    /// The certificates.
    pub fn trusted(&self) -> Trusted {
        Trusted {
            signing: self.signing.certificate().clone(),
            next: self.next.as_ref().map(|next| next.certificate().clone()),
            others: self.others.clone(),
            changed: self.changed,
        }
    }

    /// All certificates in PEM, the signing CA's first: older versions take that for the only one.
    pub fn bundle(&self) -> String {
        self.trusted().all().map(|ca| ca.pem.as_str()).collect()
    }

    /// After this step. `made` is a new CA, for the steps that need one.
    pub fn after(
        &self,
        step: &Step,
        mine: Option<&CaCertificate>,
        made: Option<Arc<ServingCa>>,
        now: Timestamp,
    ) -> Self {
        let mut after = self.clone();
        match (step, made) {
            (Step::Announce, Some(made)) => after.next = Some(made),
            (Step::Replace, Some(made)) => {
                after.others.retain(|ca| ca.is_valid(now));
                (after.signing, after.next) = (made, None);
            }
            (Step::Switch, _) => {
                if let Some(next) = after.next.take() {
                    after.others.insert(0, self.signing.certificate().clone());
                    after.signing = next;
                    after.changed = Some(now);
                }
            }
            (Step::Join, _) => {
                after.others.splice(0..0, mine.cloned());
                after.changed = Some(now);
            }
            (Step::Date, _) => after.changed = Some(now),
            (Step::Retire(over), _) => after.others.retain(|ca| !over.contains(&ca.id)),
            (Step::Keep | Step::Announce | Step::Replace, _) => {}
        }
        after.others.truncate(TRUSTED_MAX - 2);
        if after.others.is_empty() {
            after.changed = None;
        }
        after
    }
}

#[cfg(test)]
mod tests;
