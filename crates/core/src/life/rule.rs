//! The rule: from the record, the attestations and the time to the one write that is due. Whoever is in between, whatever
//! was killed, aborted or lost: it is asked again, and says what comes next from there.
//!
//! Why no step breaks a handshake: at every moment all workloads trust the root that signers are under, or, where
//! `chain.pem` has a cross, the root that made it. A switch goes by a cross only from a record without one; what stands
//! in the cross is therefore a root that everybody trusts, and the way back to it is open to everybody at any time.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::audience::{Audience, Heard, Unready};
use crate::ca::Sha256;
use crate::ca::bundle::MAX_CERTIFICATES;
use crate::ca::record::{IssuerName, RecordState, Rotation, SigningRecord};

/// What of the record and of the PKI engine the rule goes by.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What clusters have to publish.
    pub state: RecordState,
    /// The roots that are trusted.
    pub roots: &'a BTreeSet<Sha256>,
    /// By whom signers are certified.
    pub issuer: Option<&'a IssuerName>,
    /// The root that certified the issuer's in `chain.pem`.
    pub crossed_by: Option<Sha256>,
    /// What is to become of it.
    pub rotation: Option<&'a Rotation>,
    /// The root of the goal.
    pub goal: Option<Sha256>,
    /// The issuer is there to certify the goal's root, and the path lengths allow for it.
    pub may_cross: bool,
    /// The engine does not let the issuer certify.
    pub issuer_retired: bool,
}

impl<'a> Standing<'a> {
    /// What a record says, with the root of its goal. The rest is the engine's to say: until then no cross can be had, and the
    /// issuer may certify.
    pub fn of(record: &'a SigningRecord, goal: Option<Sha256>) -> Self {
        Self {
            state: record.state(),
            roots: record.roots(),
            issuer: record.issuer.as_ref(),
            crossed_by: record.cross().map(|cross| cross.by),
            rotation: record.under_way(),
            goal,
            may_cross: false,
            issuer_retired: false,
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The issuer, which is the goal, may certify again: somebody who was slow has taken its right away. It is no write
    /// of the record. To an issuer that is left the right is never given: somebody may have taken it away on purpose.
    GiveBack,
    /// The goal's root is trusted, too.
    Trust,
    /// Signers are under the goal from now on.
    Switch {
        /// With a cross for those who do not trust it yet.
        crossed: bool,
    },
    /// Signers are under the goal again, which everybody has trusted all the time.
    Return,
    /// Take note of when each cluster was seen settled: the wait counts from there.
    Note,
    /// No other root than the goal's is trusted any more.
    Drop,
    /// The rotation is over.
    Done,
}

/// Why the next step is not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A cluster is not ready.
    Cluster {
        /// Which.
        name: String,
        /// Why.
        unready: Unready,
    },
    /// There is no cluster to wait for: whom the mesh consists of is not known.
    NoCluster,
    /// No further root fits into the trust bundle.
    BundleFull,
    /// The goal's certificate is not at hand.
    NoGoal,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: no root is being replaced.
    Rest,
    /// Nothing: somebody has paused it.
    Paused,
    /// This.
    Take(Step),
    /// This, at that time: until then leaves are about that need what it takes away.
    Wait {
        /// When.
        until: Timestamp,
        /// What.
        then: Step,
    },
    /// This, once nothing of the following stands in its way.
    Held {
        /// What.
        then: Step,
        /// What stands in its way; not empty.
        causes: Vec<Cause>,
    },
}

/// The one write that is due.
pub fn next(standing: &Standing<'_>, heard: &Heard, now: Timestamp) -> Next {
    let Some(rotation) = standing.rotation else { return Next::Rest };
    if rotation.paused {
        return Next::Paused;
    }
    let has_goal = standing.issuer == Some(&rotation.goal);
    if has_goal && standing.issuer_retired {
        return Next::Take(Step::GiveBack);
    }
    let Some(goal) = standing.goal else {
        return Next::Held { then: Step::Trust, causes: vec![Cause::NoGoal] };
    };
    let audience = Audience::of(rotation, heard, standing.state, now);
    let is_alone = standing.roots.len() == 1;
    if !standing.roots.contains(&goal) {
        trust(standing, &audience)
    } else if !has_goal {
        switch(standing, goal, &audience, now)
    } else if !is_alone {
        after_the_leaves(Step::Drop, &audience, now)
    } else {
        once_ready(Step::Done, &audience)
    }
}

fn trust(standing: &Standing<'_>, audience: &Audience<'_>) -> Next {
    if standing.roots.len() >= MAX_CERTIFICATES {
        return Next::Held { then: Step::Trust, causes: vec![Cause::BundleFull] };
    }
    unless(Step::Trust, audience, audience.not_fresh())
}

fn switch(standing: &Standing<'_>, goal: Sha256, audience: &Audience<'_>, now: Timestamp) -> Next {
    match standing.crossed_by {
        Some(by) if by == goal => Next::Take(Step::Return),
        None if standing.may_cross => once_ready(Step::Switch { crossed: true }, audience),
        _ => after_the_leaves(Step::Switch { crossed: false }, audience, now),
    }
}

fn after_the_leaves(then: Step, audience: &Audience<'_>, now: Timestamp) -> Next {
    match (once_ready(then, audience), audience.ended()) {
        (Next::Take(_), None) => Next::Take(Step::Note),
        (Next::Take(then), Some(until)) if now < until => Next::Wait { until, then },
        (next, _) => next,
    }
}

fn once_ready(then: Step, audience: &Audience<'_>) -> Next {
    unless(then, audience, audience.not_ready())
}

fn unless(then: Step, audience: &Audience<'_>, unready: Vec<(String, Unready)>) -> Next {
    let causes: Vec<_> = match audience.is_empty() {
        true => vec![Cause::NoCluster],
        false => unready.into_iter().map(|(name, unready)| Cause::Cluster { name, unready }).collect(),
    };
    if causes.is_empty() { Next::Take(then) } else { Next::Held { then, causes } }
}

#[cfg(test)]
mod tests;
