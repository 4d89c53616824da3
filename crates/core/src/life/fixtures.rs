//! Two clusters between two roots.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::attestation::{Attestation, AttestedSigner, Istiods, Namespaces};
use super::audience::Heard;
use crate::ca::Sha256;
use crate::ca::fixtures::now;
use crate::ca::record::{RecordState, Rotation, Sighting};
use crate::samples::{self, attestation};

pub(super) const A: Sha256 = Sha256([0xaa; 32]);
pub(super) const B: Sha256 = Sha256([0xbb; 32]);
pub(super) const HOUR: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn state() -> RecordState {
    "3f".repeat(32).parse().unwrap()
}

/// From A to B.
pub(super) fn rotation() -> Rotation {
    Rotation { started: now() - HOUR, ..samples::rotation() }
}

/// What a cluster says that has been settled for so long.
pub(super) fn settled(cluster: &str, since: SignedDuration) -> Attestation {
    Attestation {
        state: Some(state()),
        settled: Some(now() - since),
        record_version: 3,
        signer: Some(AttestedSigner { sha256: Sha256([1; 32]), root: A, not_after: now() + HOUR * 2000 }),
        roots: BTreeSet::from([A]),
        istiods: Istiods { settled: 2, behind: Vec::new() },
        namespaces: Namespaces { total: 7, behind: Vec::new() },
        version: "0.2.0".to_owned(),
        ..attestation(cluster, now() - SignedDuration::from_secs(30))
    }
}

pub(super) fn heard(attestations: impl IntoIterator<Item = Attestation>) -> Heard {
    attestations.into_iter().map(|one| (one.cluster.clone(), Ok(one))).collect()
}

/// Both, settled for so long.
pub(super) fn both(since: SignedDuration) -> Heard {
    heard(["homelab", "nas"].map(|name| settled(name, since)))
}

/// As if both had been seen as soon as they were settled.
pub(super) fn seen(heard: &Heard) -> BTreeMap<String, Sighting> {
    let one = |(name, read): (&String, &Result<Attestation, _>)| {
        let settled = read.as_ref().ok()?.settled?;
        Some((name.clone(), Sighting { settled, at: settled }))
    };
    heard.iter().filter_map(one).collect()
}

pub(super) fn later(minutes: i64) -> Timestamp {
    now() + SignedDuration::from_mins(minutes)
}
