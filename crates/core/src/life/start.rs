//! Whether a rotation may begin, as far as record and attestations tell.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::attestation::Attestation;
use super::audience::Heard;
use crate::ca::record::SigningRecord;

/// While no root is replaced, an attestation is renewed every hour.
const ATTESTED: SignedDuration = SignedDuration::from_mins(65);

/// Why it may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// There is one already, to this goal, begun by somebody.
    UnderWay {
        /// Where it leads.
        goal: String,
        /// Who began it.
        by: String,
    },
    /// There is one already that cannot be read.
    Unreadable,
    /// The record names no issuer.
    NoIssuer,
    /// The goal is the issuer that there is.
    SameRoot,
    /// Nobody attests.
    NoCluster,
    /// This cluster does not attest.
    Silent(String),
    /// Its attestation is none, or old.
    Stale(String),
    /// It could not have a signer of its own.
    NotReady {
        /// Which.
        cluster: String,
        /// What it says itself.
        why: Option<String>,
    },
    /// Its mesh does not work with what the record says.
    NotSettled {
        /// Which.
        cluster: String,
        /// What it says itself.
        why: Option<String>,
    },
    /// Workloads of this cluster have certificates that live longer.
    ShortTtl {
        /// Which.
        cluster: String,
        /// So long.
        seen: Duration,
    },
}

impl Obstacle {
    /// Which cluster it is at, if it is at one.
    pub fn cluster(&self) -> Option<&str> {
        match self {
            Self::Silent(cluster)
            | Self::Stale(cluster)
            | Self::NotReady { cluster, .. }
            | Self::NotSettled { cluster, .. }
            | Self::ShortTtl { cluster, .. } => Some(cluster),
            Self::UnderWay { .. } | Self::Unreadable | Self::NoIssuer | Self::SameRoot | Self::NoCluster => None,
        }
    }
}

/// What stands in the way of a rotation to this goal, which waits for these clusters and for all that attest; all of it
/// at once.
pub fn obstacles(
    record: &SigningRecord,
    goal: &str,
    clusters: &BTreeSet<String>,
    ttl: Duration,
    heard: &Heard,
    now: Timestamp,
) -> Vec<Obstacle> {
    let mut obstacles: Vec<_> = match &record.rotation {
        Some(Ok(rotation)) => {
            vec![Obstacle::UnderWay { goal: rotation.goal.to_string(), by: rotation.by.clone() }]
        }
        Some(Err(_)) => vec![Obstacle::Unreadable],
        None => Vec::new(),
    };
    match &record.issuer {
        None => obstacles.push(Obstacle::NoIssuer),
        Some(issuer) if issuer.as_str() == goal => obstacles.push(Obstacle::SameRoot),
        Some(_) => {}
    }
    obstacles.extend(of_clusters(clusters, heard, now, |name, attestation| {
        let cluster = name.to_owned();
        if attestation.state != Some(record.state()) || attestation.settled.is_none() {
            return Some(Obstacle::NotSettled { cluster, why: attestation.why.clone() });
        }
        let seen = attestation.ttl_seen.filter(|seen| *seen > ttl)?;
        Some(Obstacle::ShortTtl { cluster, seen })
    }));
    obstacles
}

/// What stands in the way of giving these clusters, and all that attest, signers of their own where the record is not of
/// the signing kind yet.
pub fn unready(clusters: &BTreeSet<String>, heard: &Heard, now: Timestamp) -> Vec<Obstacle> {
    of_clusters(clusters, heard, now, |name, attestation| {
        (!attestation.ready).then(|| Obstacle::NotReady { cluster: name.to_owned(), why: attestation.why.clone() })
    })
}

/// What stands in the way at clusters that are not heard of, and at those that are.
fn of_clusters(
    clusters: &BTreeSet<String>,
    heard: &Heard,
    now: Timestamp,
    obstacle: impl Fn(&str, &Attestation) -> Option<Obstacle>,
) -> Vec<Obstacle> {
    if heard.is_empty() && clusters.is_empty() {
        return vec![Obstacle::NoCluster];
    }
    let silent = clusters.iter().filter(|name| !heard.contains_key(*name)).cloned().map(Obstacle::Silent);
    let of_heard = heard.iter().filter_map(|(name, read)| match read {
        Ok(attestation) if is_recent(attestation, now) => obstacle(name, attestation),
        _ => Some(Obstacle::Stale(name.clone())),
    });
    silent.chain(of_heard).collect()
}

fn is_recent(attestation: &Attestation, now: Timestamp) -> bool {
    now.duration_since(attestation.at).abs() <= ATTESTED
}

#[cfg(test)]
mod tests;
