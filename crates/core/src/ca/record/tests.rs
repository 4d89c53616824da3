#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use rcgen::{BasicConstraints, IsCa, KeyPair};
use serde_json::json;

use super::super::check::At;
use super::super::fixtures::{Ca, HOUR, NOW, YEARS, at, now};
use super::super::issue::set_validity;
use super::*;

fn pem(cas: &[&Ca]) -> String {
    cas.iter().map(|ca| ca.certificate.pem()).collect()
}

fn parse(value: Value) -> Result<SigningRecord, Flaw> {
    SigningRecord::parse(value.as_object().unwrap(), now())
}

/// The verdict on these roots, with this cross.
fn verdict(roots: &[&Ca], chain: &[&Ca]) -> Result<(), Flaw> {
    parse(json!({ROOT_CERT: pem(roots), ISSUER: "root-1", CHAIN: pem(chain)})).map(|_| ())
}

fn of(root: &Ca) -> Sha256 {
    Sha256::of(root.certificate.der())
}

const FIRST: At = At { file: ROOT_CERT, position: 1 };
const SECOND: At = At { file: ROOT_CERT, position: 2 };
const CROSS: At = At { file: CHAIN, position: 1 };

#[test]
fn a_record_is_of_the_signing_kind_by_its_issuer_or_its_rotation_and_never_with_a_key() {
    let is_signing = |value: Value| SigningRecord::is_signing(value.as_object().unwrap());
    assert!(is_signing(json!({ROOT_CERT: "x", ISSUER: "root-1"})));
    assert!(is_signing(json!({ROOT_CERT: "x", ROTATION: {}})));
    assert!(is_signing(json!({ISSUER: 7})));
    assert!(!is_signing(json!({ROOT_CERT: "x"})));
    for key in [KEY, CA_KEY] {
        assert!(!is_signing(json!({ROOT_CERT: "x", ISSUER: "root-1", ROTATION: {}, key: "x"})));
    }
}

#[test]
fn a_first_record_trusts_one_root_and_names_its_issuer() {
    let root = Ca::root("Root");
    let data = SigningRecord::first(&root.certificate.pem(), &"root-1".parse().unwrap());
    let record = SigningRecord::parse(&data, now()).unwrap();
    assert_eq!(record.root_cert, root.certificate.pem().into_bytes());
    assert_eq!(record.issuer.as_ref().map(IssuerName::as_str), Some("root-1"));
    assert_eq!(record.roots(), &BTreeSet::from([of(&root)]));
    assert_eq!(record.usable_until(), Until { at: at(NOW + YEARS), by: FIRST });
    assert_eq!((record.cross(), record.rotation.is_none(), record.chain.is_empty()), (None, true, true));
}

#[test]
fn keys_that_it_does_not_know_are_left_alone() {
    let root = Ca::root("Root");
    let record = parse(json!({ROOT_CERT: pem(&[&root]), ISSUER: "root-1", "cert-chain.pem": 4, "note": {}}));
    assert_eq!(record.unwrap().roots().len(), 1);
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let root = pem(&[&Ca::root("Root")]);
    for (record, flaw) in [
        (json!({ISSUER: "root-1"}), Flaw::Missing(ROOT_CERT)),
        (json!({ROOT_CERT: "", ISSUER: "root-1"}), Flaw::Empty(ROOT_CERT)),
        (json!({ROOT_CERT: 7, ISSUER: "root-1"}), Flaw::NotText(ROOT_CERT)),
        (json!({ROOT_CERT: root, ISSUER: {}}), Flaw::NotText(ISSUER)),
        (json!({ROOT_CERT: root, ISSUER: "root-1", CHAIN: []}), Flaw::NotText(CHAIN)),
        (json!({ROOT_CERT: root.repeat(1000), ISSUER: "root-1"}), Flaw::TooLarge),
    ] {
        assert_eq!(parse(record).err(), Some(flaw));
    }
}

#[test]
fn an_issuer_is_a_name_that_may_stand_in_a_path() {
    for name in ["root-1", "Root_2.b", "0f3c8f0e-5dcb-4dc2-8cd7-3b5f0b8d1f62"] {
        assert_eq!(name.parse::<IssuerName>().unwrap().to_string(), name);
    }
    let long = "x".repeat(MAX_NAME + 1);
    for name in ["", "default", "a/b", "..", ".a", "-a", "a b", "a%2f", "ä", &long] {
        assert_eq!(name.parse::<IssuerName>(), Err(InvalidIssuerName), "{name:?}");
        let root = pem(&[&Ca::root("Root")]);
        assert_eq!(parse(json!({ROOT_CERT: root, ISSUER: name})).err(), Some(Flaw::IssuerName));
    }
}

#[test]
fn without_an_issuer_each_cluster_keeps_its_signer() {
    let record = parse(json!({ROOT_CERT: pem(&[&Ca::root("Root")]), ROTATION: {}})).unwrap();
    assert_eq!((record.issuer, record.rotation), (None, Some(Err(InvalidRotation("from")))));
}

#[test]
fn the_state_is_of_roots_issuer_and_cross_and_of_nothing_else() {
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let cross = pem(&[&old.cross_sign(&new)]);
    let record = json!({ROOT_CERT: pem(&[&old, &new]), ISSUER: "root-2", CHAIN: cross, ROTATION: {"paused": true}});
    let state = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut data = record.as_object().unwrap().clone();
        change(&mut data);
        SigningRecord::parse(&data, now()).unwrap().state()
    };
    let whole = state(&|_| ());
    assert_eq!(whole, state(&|data| data[ROTATION] = json!({"paused": false})));
    assert_eq!(whole, state(&|data| data.extend([("note".to_owned(), json!(1))])));
    assert_eq!(whole.to_string().parse(), Ok(whole));
    let others = [
        state(&|data| data[ISSUER] = json!("root-1")),
        state(&|data| drop(data.remove(ISSUER))),
        state(&|data| drop(data.remove(CHAIN))),
        state(&|data| data[ROOT_CERT] = json!(pem(&[&new, &old]))),
        state(&|data| data[ROOT_CERT] = json!(format!("{}\n", pem(&[&old, &new])))),
    ];
    let distinct: BTreeSet<_> = others.into_iter().chain([whole]).collect();
    assert_eq!(distinct.len(), 6);
}

#[test]
fn a_cross_is_of_one_root_by_another() {
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let cross = old.cross_sign(&new);
    let record = parse(json!({ROOT_CERT: pem(&[&old, &new]), ISSUER: "root-2", CHAIN: pem(&[&cross])})).unwrap();
    assert_eq!(record.cross(), Some(Cross { of: of(&new), by: of(&old) }));
    // Whose roots are not both trusted, itself a root, or beside another one.
    assert_eq!(verdict(&[&new], &[&cross]), Err(Flaw::NoCross(CROSS)));
    assert_eq!(verdict(&[&old], &[&cross]), Err(Flaw::NoCross(CROSS)));
    assert_eq!(verdict(&[&old, &new], &[&new]), Err(Flaw::NoCross(CROSS)));
    assert_eq!(verdict(&[&old, &new], &[&old.issue("New")]), Err(Flaw::NoCross(CROSS)));
    let second = At { file: CHAIN, position: 2 };
    assert_eq!(verdict(&[&old, &new], &[&cross, &new]), Err(Flaw::NoCross(second)));
    assert_eq!(verdict(&[&old, &new], &[&new, &cross]), Err(Flaw::NoCross(second)));
}

#[test]
fn a_cross_has_room_for_a_signer() {
    let old = Ca::root("Old");
    for (length, verdict_is) in [(0, Err(Flaw::PathLength(CROSS))), (1, Ok(()))] {
        let new = Ca::root("New");
        let mut params = new.params.clone();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        let key = KeyPair::try_from(new.key.serialized_der()).unwrap();
        let cross = Ca { certificate: old.sign(&params, &key), params, key };
        assert_eq!(verdict(&[&old, &new], &[&cross]), verdict_is, "{length}");
    }
}

#[test]
fn a_root_has_room_for_a_signer_and_beneath_a_cross_for_two() {
    let limited = |length| Ca::root_but("Old", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length)));
    let new = Ca::root("New");
    let with_cross = |old: &Ca| verdict(&[old, &new], &[&old.cross_sign(&new)]);
    assert_eq!(verdict(&[&limited(0)], &[]), Err(Flaw::PathLength(FIRST)));
    assert_eq!(verdict(&[&limited(1)], &[]), Ok(()));
    assert_eq!(with_cross(&limited(1)), Err(Flaw::PathLength(FIRST)));
    assert_eq!(with_cross(&limited(2)), Ok(()));
}

#[test]
fn only_roots_are_trusted() {
    let root = Ca::root("Root");
    assert_eq!(verdict(&[&root, &root.issue("CA")], &[]), Err(Flaw::NoRoot(SECOND)));
    assert_eq!(
        verdict(&[&root, &Ca::root_but("B", |params| params.is_ca = IsCa::NoCa)], &[]),
        Err(Flaw::NotCa(SECOND))
    );
}

#[test]
fn roots_of_one_name_are_told_apart_by_their_identifiers() {
    // As each istiod's own root is called.
    assert_eq!(verdict(&[&Ca::root("cluster.local"), &Ca::root("cluster.local")], &[]), Ok(()));
    let silent = |name| {
        Ca::root_but(name, |params| {
            // rcgen writes an identifier for a CA, so that this one says so by itself.
            params.is_ca = IsCa::NoCa;
            params.use_authority_key_identifier_extension = false;
            let ca = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
            params.custom_extensions.push(ca);
        })
    };
    let (one, other) = (silent("cluster.local"), silent("Cluster.LOCAL"));
    assert_eq!(verdict(&[&one, &other], &[]), Err(Flaw::Ambiguous(FIRST, SECOND)));
    assert_eq!(verdict(&[&one, &silent("other")], &[]), Ok(()));
    assert_eq!(verdict(&[&one, &one], &[]), Ok(()), "one and the same twice");
}

#[test]
fn a_key_is_in_two_roots_only_as_long_as_both_outlast_a_rotation() {
    let old = |until| Ca::root_but("Root", |params| set_validity(params, NOW - HOUR, until));
    let renewed = |old: &Ca| Ca::root_with(KeyPair::try_from(old.key.serialized_der()).unwrap(), "Root", |_| ());
    let day = 24 * HOUR;
    let long = old(NOW + 3 * day);
    assert_eq!(verdict(&[&long, &renewed(&long)], &[]), Ok(()));
    let short = old(NOW + day);
    assert_eq!(verdict(&[&short, &renewed(&short)], &[]), Err(Flaw::OneKey(FIRST, SECOND)));
    let rotation =
        json!({"goal": "b", "from": ["a"], "clusters": [], "ttl": "36h", "started": now().to_string(), "by": "x"});
    let record = json!({ROOT_CERT: pem(&[&long, &renewed(&long)]), ISSUER: "a", ROTATION: rotation});
    assert!(parse(record.clone()).is_ok());
    let mut slow = record;
    slow[ROTATION]["ttl"] = json!("37h");
    assert_eq!(parse(slow).err(), Some(Flaw::OneKey(FIRST, SECOND)));
}

#[test]
fn a_record_ends_with_the_last_of_its_roots() {
    let root = |name, from, until| Ca::root_but(name, |params| set_validity(params, NOW + from, NOW + until));
    let (past, good) = (root("Past", -2 * HOUR, -HOUR), root("Good", -HOUR, HOUR));
    let record = parse(json!({ROOT_CERT: pem(&[&past, &good]), ISSUER: "a"})).unwrap();
    assert_eq!(record.usable_until(), Until { at: at(NOW + HOUR), by: SECOND });
    assert_eq!(verdict(&[&past], &[]), Err(Flaw::Expired(FIRST, at(NOW - HOUR))));
    let future = root("Future", HOUR, 2 * HOUR);
    assert_eq!(verdict(&[&future], &[]), Err(Flaw::NotYetValid(FIRST, at(NOW + HOUR))));
}
