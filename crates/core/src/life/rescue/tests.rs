#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use super::super::attestation::Attestation;
use super::super::change::rescuing;
use super::super::fixtures::{HOUR, heard, rotation, settled};
use super::super::rule::{self, Next, Standing, Step};
use super::*;
use crate::ca::fixtures::{Ca, now};
use crate::ca::record::ISSUER;
use crate::plan::Copy;
use crate::samples::{R1, published};

static ROOTS: LazyLock<[Ca; 3]> = LazyLock::new(|| ["Own 1", "Own 2", "Istio Root CA root-1"].map(Ca::root));

fn root(at: usize) -> Sha256 {
    Sha256::of(ROOTS[at].certificate.der())
}

/// The record that a rescue of both begins with.
fn record() -> SigningRecord {
    let [one, other, goal] = ROOTS.each_ref().map(|root| root.certificate.pem());
    let data = rescuing([one.as_str(), &other], &rotation(), &goal);
    SigningRecord::parse(&data, now()).unwrap()
}

fn serves(roots: &[usize]) -> Mesh {
    Mesh::Serves { first: root(roots[0]), roots: roots.iter().map(|at| root(*at)).collect() }
}

fn ready(name: &str) -> Attestation {
    Attestation { ready: true, state: None, settled: None, ..settled(name, HOUR) }
}

fn both_ready() -> Heard {
    heard([ready("homelab"), ready("nas")])
}

/// What is to be done in the two, of which the second is as given.
fn of(
    record: Option<&SigningRecord>,
    own: Option<usize>,
    mesh: &Mesh,
    cacerts: &Published,
) -> Result<Rescue, Vec<Unrescuable>> {
    let first = SplitCluster { name: "homelab", own: Some(root(0)), mesh: &serves(&[0]), cacerts: &Published::Absent };
    let second = SplitCluster { name: "nas", own: own.map(root), mesh, cacerts };
    rescue(record, &[first, second], &both_ready(), now()).map(|todo| todo["nas"])
}

/// What a rescue has put there.
fn brought() -> Published {
    let Published::Present(copy) = published(Owner::Ours, &R1) else { unreachable!() };
    Published::Present(Arc::new(Copy { annotated_state: Some(record().state()), ..Copy::clone(&copy) }))
}

fn nas() -> String {
    "nas".to_owned()
}

#[test]
fn a_cluster_on_a_root_of_its_own_is_brought_then_restarted_and_then_done() {
    assert_eq!(of(None, Some(1), &serves(&[1]), &Published::Absent), Ok(Rescue::Bring));
    let record = record();
    assert_eq!(of(Some(&record), Some(1), &serves(&[1]), &Published::Absent), Ok(Rescue::Bring));
    assert_eq!(of(Some(&record), Some(1), &serves(&[1]), &brought()), Ok(Rescue::Restart));
    assert_eq!(of(Some(&record), Some(1), &serves(&[0, 1, 2]), &brought()), Ok(Rescue::Done));
}

#[test]
fn what_is_not_as_a_rescue_needs_it_is_named() {
    let absent = &Published::Absent;
    assert_eq!(of(None, Some(1), &Mesh::Absent, absent), Err(vec![Unrescuable::NoMesh(nas())]));
    let other = |served| Err(vec![Unrescuable::OtherRoot { cluster: nas(), served }]);
    assert_eq!(of(None, Some(1), &serves(&[2]), absent), other(Some(root(2))));
    assert_eq!(of(None, None, &serves(&[1]), absent), other(Some(root(1))));
    assert_eq!(of(None, Some(1), &Mesh::Unreadable, absent), other(None));
    for there in [published(Owner::Other, &R1), published(Owner::Ours, &R1)] {
        assert_eq!(of(None, Some(1), &serves(&[1]), &there), Err(vec![Unrescuable::HasCacerts(nas())]));
        assert_eq!(of(Some(&record()), Some(1), &serves(&[1]), &there), Err(vec![Unrescuable::HasCacerts(nas())]));
    }
    assert_eq!(of(None, Some(0), &serves(&[0]), absent), {
        Err(vec![Unrescuable::SameRoot("homelab".to_owned(), nas())])
    });
    assert_eq!(of(Some(&record()), Some(2), &serves(&[2]), absent), Ok(Rescue::Bring), "its root is trusted");
}

#[test]
fn a_cluster_that_comes_late_is_not_brought_under_a_root_that_nobody_trusts() {
    let [one, other, goal] = ROOTS.each_ref().map(|root| root.certificate.pem());
    let data = rescuing([one.as_str()], &rotation(), &goal);
    let without = SigningRecord::parse(&data, now()).unwrap();
    let left_out = Err(vec![Unrescuable::LeftOut(nas())]);
    assert_eq!(of(Some(&without), Some(1), &serves(&[1]), &Published::Absent), left_out);
    let mut data = rescuing([one.as_str(), &other], &rotation(), &goal);
    data.insert(ISSUER.to_owned(), "root-1".into());
    let switched = SigningRecord::parse(&data, now()).unwrap();
    let said = of(Some(&switched), Some(1), &serves(&[1]), &Published::Absent).unwrap_err();
    assert!(said.contains(&Unrescuable::Switched(nas())), "{said:?}");
}

#[test]
fn nothing_is_begun_while_a_gate_is_not_ready_or_a_cluster_is_left_out() {
    let first = SplitCluster { name: "homelab", own: Some(root(0)), mesh: &serves(&[0]), cacerts: &Published::Absent };
    let said = |heard: &Heard| rescue(None, &[first], heard, now()).map(|_| ());
    assert_eq!(said(&heard([ready("homelab")])), Ok(()));
    let silent = Unrescuable::Unready(Obstacle::Silent("homelab".to_owned()));
    assert_eq!(said(&Heard::new()), Err(vec![silent.clone()]));
    assert_eq!(said(&both_ready()), Err(vec![Unrescuable::NotGiven(nas())]));
    assert_eq!(said(&heard([ready("nas")])), Err(vec![silent, Unrescuable::NotGiven(nas())]));
    // One that was begun goes on with whichever clusters are given.
    assert!(rescue(Some(&record()), &[first], &Heard::new(), now()).is_ok());
}

#[test]
fn the_record_that_it_begins_with_leads_to_one_root_by_the_rule_of_every_change() {
    let record = record();
    assert_eq!((record.roots().len(), record.issuer.as_ref(), record.cross().is_none()), (3, None, true));
    let rotation = record.under_way().unwrap().clone();
    let next = |heard: &Heard, rotation: &crate::ca::record::Rotation| {
        let standing = Standing { rotation: Some(rotation), ..Standing::of(&record, Some(root(2))) };
        rule::next(&standing, heard, now())
    };
    let settled_since = |since| {
        let of = |name| Attestation { state: Some(record.state()), ..settled(name, since) };
        heard([of("homelab"), of("nas")])
    };
    // It waits for both, takes note, waits for the leaves, and only then is anything under the shared root.
    assert!(matches!(next(&both_ready(), &rotation), Next::Held { then: Step::Switch { crossed: false }, .. }));
    let both = settled_since(HOUR * 30);
    assert_eq!(next(&both, &rotation), Next::Take(Step::Note));
    let noted = crate::ca::record::Rotation { seen: super::super::fixtures::seen(&both), ..rotation };
    assert_eq!(next(&both, &noted), Next::Take(Step::Switch { crossed: false }));
    let lately = settled_since(HOUR);
    let noted = crate::ca::record::Rotation { seen: super::super::fixtures::seen(&lately), ..noted };
    assert!(matches!(next(&lately, &noted), Next::Wait { then: Step::Switch { crossed: false }, .. }));
}
