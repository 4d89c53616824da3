//! The clusters that a step waits for, and whether each is ready for it. Unknown is no.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::attestation::{Attestation, InvalidAttestation};
use crate::ca::record::{RecordState, Rotation, Sighting};
use crate::skew::SKEW_MAX;

/// An attestation is renewed every minute while a root is replaced: four that failed, and it is not believed any more.
pub const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// What clocks may be off, twice: of whoever saw that all were settled, and of whoever takes the step.
pub const SKEW: SignedDuration = SignedDuration::from_mins(10);

/// What Vault has of each cluster.
pub type Heard = BTreeMap<String, Result<Attestation, InvalidAttestation>>;

/// Why a cluster is not ready.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unready {
    /// It never attested, and is waited for by name.
    Silent,
    /// This key of its attestation cannot be read.
    Unreadable(&'static str),
    /// It has not attested for a while.
    Stale,
    /// It attests to what is to come.
    ClockAhead,
    /// Its `cacerts` is not by this record.
    NotTakenUp {
        /// What it says itself.
        why: Option<String>,
    },
    /// Its `cacerts` is, and not all of its mesh works with it.
    Behind {
        /// These istiods.
        istiods: Vec<String>,
        /// These namespaces.
        namespaces: Vec<String>,
        /// What it says itself.
        why: Option<String>,
    },
}

/// All clusters that are waited for, as they are now.
#[derive(Debug)]
pub struct Audience<'a> {
    members: BTreeMap<&'a str, Result<&'a Attestation, Unready>>,
    state: RecordState,
    seen: &'a BTreeMap<String, Sighting>,
    ttl: Duration,
}

impl<'a> Audience<'a> {
    /// Those that the rotation names, and all that were ever heard of.
    pub fn of(rotation: &'a Rotation, heard: &'a Heard, state: RecordState, now: Timestamp) -> Self {
        let named = rotation.clusters.iter().map(|name| (name.as_str(), Err(Unready::Silent)));
        let mut members: BTreeMap<_, _> = named.collect();
        members.extend(heard.iter().map(|(name, read)| (name.as_str(), fresh(read, now))));
        let seen_ttl = members.values().filter_map(|member| member.as_ref().ok()?.ttl_seen).max();
        let ttl = rotation.ttl.max(seen_ttl.unwrap_or_default());
        Self { members, state, seen: &rotation.seen, ttl }
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Those that have not been heard of lately.
    pub fn not_fresh(&self) -> Vec<(String, Unready)> {
        let why = |(name, member): (&&str, &Result<_, Unready>)| Some(((*name).to_owned(), member.clone().err()?));
        self.members.iter().filter_map(why).collect()
    }

    /// Those that are not known to work with what the record says.
    pub fn not_ready(&self) -> Vec<(String, Unready)> {
        let why = |(name, member): (&&str, &Result<&Attestation, Unready>)| {
            let unready = match member {
                Err(unready) => unready.clone(),
                Ok(attestation) => unready(attestation, self.state)?,
            };
            Some(((*name).to_owned(), unready))
        };
        self.members.iter().filter_map(why).collect()
    }

    /// Since when each says that it is settled.
    fn settled(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.members.iter().filter_map(|(name, member)| Some((*name, member.as_ref().ok()?.settled?)))
    }

    /// When all leaves from before the last of them was settled have ended; `None` unless whoever takes the steps has seen
    /// each of them settled. A gate's clock alone does not count: it may have been wrong then.
    pub fn ended(&self) -> Option<Timestamp> {
        let noted = |(name, settled)| self.noted(name, settled);
        leaves_end(self.settled().map(noted).collect::<Option<Vec<_>>>()?, self.ttl)
    }

    /// What was noted of this cluster, if it is settled since then.
    fn noted(&self, name: &str, settled: Timestamp) -> Option<&'a Sighting> {
        self.seen.get(name).filter(|sighting| sighting.settled == settled)
    }

    /// What is seen now. What was seen before keeps its time.
    pub fn sightings(&self, now: Timestamp) -> BTreeMap<String, Sighting> {
        let sighting = |(name, settled): (&str, _)| {
            let before = self.noted(name, settled);
            (name.to_owned(), Sighting { settled, at: before.map_or(now, |before| before.at) })
        };
        self.settled().map(sighting).collect()
    }
}

/// When all leaves have ended that live for so long, and are from before the last of these.
pub(super) fn leaves_end<'a>(sightings: impl IntoIterator<Item = &'a Sighting>, ttl: Duration) -> Option<Timestamp> {
    let last = sightings.into_iter().map(|sighting| sighting.settled.max(sighting.at)).max()?;
    last.saturating_add(ttl).and_then(|end| end.saturating_add(SKEW)).ok()
}

fn fresh(read: &Result<Attestation, InvalidAttestation>, now: Timestamp) -> Result<&Attestation, Unready> {
    let attestation = read.as_ref().map_err(|invalid| Unready::Unreadable(invalid.0))?;
    let latest = attestation.settled.map_or(attestation.at, |settled| settled.max(attestation.at));
    if latest.duration_since(now) > SKEW_MAX {
        return Err(Unready::ClockAhead);
    }
    if now.duration_since(attestation.at) > FRESH { Err(Unready::Stale) } else { Ok(attestation) }
}

fn unready(attestation: &Attestation, state: RecordState) -> Option<Unready> {
    let why = || attestation.why.clone();
    if attestation.state != Some(state) {
        return Some(Unready::NotTakenUp { why: why() });
    }
    let Attestation { istiods, namespaces, settled, .. } = attestation;
    let (istiods, namespaces) = (istiods.behind.clone(), namespaces.behind.clone());
    let is_ready = settled.is_some() && istiods.is_empty() && namespaces.is_empty();
    (!is_ready).then(|| Unready::Behind { istiods, namespaces, why: why() })
}

#[cfg(test)]
mod tests;
