//! Whether a rotation may begin, as far as record and attestations tell.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::attestation::{Attestation, InvalidAttestation};
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
    if heard.is_empty() && clusters.is_empty() {
        obstacles.push(Obstacle::NoCluster);
    }
    let silent = clusters.iter().filter(|name| !heard.contains_key(*name));
    obstacles.extend(silent.cloned().map(Obstacle::Silent));
    obstacles.extend(heard.iter().filter_map(|(name, read)| obstacle(record, name, read, ttl, now)));
    obstacles
}

/// What stands in the way at one cluster.
fn obstacle(
    record: &SigningRecord,
    name: &str,
    read: &Result<Attestation, InvalidAttestation>,
    ttl: Duration,
    now: Timestamp,
) -> Option<Obstacle> {
    let cluster = name.to_owned();
    let Ok(attestation) = read else { return Some(Obstacle::Stale(cluster)) };
    if now.duration_since(attestation.at).abs() > ATTESTED {
        return Some(Obstacle::Stale(cluster));
    }
    if attestation.state != Some(record.state()) || attestation.settled.is_none() {
        return Some(Obstacle::NotSettled { cluster, why: attestation.why.clone() });
    }
    let seen = attestation.ttl_seen.filter(|seen| *seen > ttl)?;
    Some(Obstacle::ShortTtl { cluster, seen })
}

#[cfg(test)]
mod tests;
