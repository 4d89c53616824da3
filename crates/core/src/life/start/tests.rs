#![allow(clippy::unwrap_used)]

use serde_json::{Map, Value, json};

use super::super::attestation::{Attestation, InvalidAttestation};
use super::super::fixtures::{HOUR, heard, rotation, settled};
use super::*;
use crate::ca::fixtures::{Ca, now};
use crate::ca::record::ROTATION;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn data() -> Map<String, Value> {
    SigningRecord::first(&Ca::root("Root 1").certificate.pem(), &"root-1".parse().unwrap())
}

fn record() -> SigningRecord {
    SigningRecord::parse(&data(), now()).unwrap()
}

/// Settled by this record.
fn cluster(name: &str, record: &SigningRecord) -> Attestation {
    Attestation { state: Some(record.state()), at: now() - HOUR, ..settled(name, HOUR * 30) }
}

fn obstacles_of(change: impl FnOnce(&mut Attestation)) -> Vec<Obstacle> {
    let record = record();
    let mut nas = cluster("nas", &record);
    change(&mut nas);
    let heard = heard([cluster("homelab", &record), nas]);
    obstacles(&record, "root-2", &BTreeSet::new(), DAY, &heard, now())
}

#[test]
fn nothing_is_in_the_way_where_all_are_settled_by_their_last_hourly_attestation() {
    assert_eq!(obstacles_of(|_| ()), []);
}

#[test]
fn each_cluster_that_is_not_as_it_has_to_be_is_named() {
    let nas = || "nas".to_owned();
    assert_eq!(obstacles_of(|one| one.at = now() - HOUR * 2), [Obstacle::Stale(nas())]);
    assert_eq!(obstacles_of(|one| one.at = now() + HOUR * 2), [Obstacle::Stale(nas())]);
    let why = Some("cacerts is External Secrets'".to_owned());
    let not_settled = Obstacle::NotSettled { cluster: nas(), why: why.clone() };
    assert_eq!(obstacles_of(|one| (one.settled, one.why) = (None, why)), [not_settled]);
    assert_eq!(obstacles_of(|one| one.state = None), [Obstacle::NotSettled { cluster: nas(), why: None }]);
    let long = DAY * 2;
    assert_eq!(obstacles_of(|one| one.ttl_seen = Some(long)), [Obstacle::ShortTtl { cluster: nas(), seen: long }]);
}

#[test]
fn a_mesh_that_nobody_knows_a_cluster_that_is_silent_and_one_that_cannot_be_read_are_in_the_way() {
    let record = record();
    let of = |clusters: &[&str], heard: &Heard| {
        let clusters = clusters.iter().map(|name| (*name).to_owned()).collect();
        obstacles(&record, "root-2", &clusters, DAY, heard, now())
    };
    assert_eq!(of(&[], &Heard::new()), [Obstacle::NoCluster]);
    assert_eq!(of(&["nas"], &Heard::new()), [Obstacle::Silent("nas".to_owned())]);
    let unreadable = Heard::from([("nas".to_owned(), Err(InvalidAttestation("at")))]);
    assert_eq!(of(&[], &unreadable), [Obstacle::Stale("nas".to_owned())]);
}

#[test]
fn who_is_not_ready_for_a_signer_of_its_own_is_named_and_so_is_who_is_silent() {
    let ready = |name: &str| Attestation { ready: true, state: None, settled: None, ..settled(name, HOUR) };
    let clusters: BTreeSet<_> = ["homelab", "nas"].map(str::to_owned).into();
    let of = |heard: &Heard| unready(&clusters, heard, now());
    assert_eq!(of(&heard([ready("homelab"), ready("nas")])), []);
    assert_eq!(of(&heard([ready("homelab")])), [Obstacle::Silent("nas".to_owned())]);
    let why = Some("no istiod runs".to_owned());
    let not = Attestation { ready: false, why: why.clone(), ..ready("attic") };
    let not_ready = Obstacle::NotReady { cluster: "attic".to_owned(), why };
    assert_eq!(of(&heard([ready("homelab"), ready("nas"), not])), [not_ready]);
    let old = Attestation { at: now() - HOUR * 2, ..ready("nas") };
    assert_eq!(of(&heard([ready("homelab"), old])), [Obstacle::Stale("nas".to_owned())]);
    assert_eq!(unready(&BTreeSet::new(), &Heard::new(), now()), [Obstacle::NoCluster]);
}

#[test]
fn a_second_one_is_told_of_the_first() {
    let mut data = data();
    data.insert(ROTATION.to_owned(), rotation().data());
    let record = SigningRecord::parse(&data, now()).unwrap();
    let heard = heard([cluster("nas", &record)]);
    let found = obstacles(&record, "root-3", &BTreeSet::new(), DAY, &heard, now());
    assert_eq!(found, [Obstacle::UnderWay { goal: "root-2".to_owned(), by: "ops@laptop".to_owned() }]);

    data.insert(ROTATION.to_owned(), json!(7));
    let record = SigningRecord::parse(&data, now()).unwrap();
    assert_eq!(obstacles(&record, "root-3", &BTreeSet::new(), DAY, &heard, now()), [Obstacle::Unreadable]);
}

#[test]
fn the_root_that_there_is_is_no_goal() {
    let record = record();
    let heard = heard([cluster("nas", &record)]);
    assert_eq!(obstacles(&record, "root-1", &BTreeSet::new(), DAY, &heard, now()), [Obstacle::SameRoot]);
}
