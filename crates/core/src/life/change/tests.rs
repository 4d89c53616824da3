#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use super::super::fixtures::rotation;
use super::*;
use crate::ca::fixtures::{Ca, now};
use crate::ca::record::IssuerName;

static OLD: LazyLock<Ca> = LazyLock::new(|| Ca::root("Root 1"));
static NEW: LazyLock<Ca> = LazyLock::new(|| Ca::root("Root 2"));

fn pem(ca: &Ca) -> String {
    ca.certificate.pem()
}

/// With a goal, and a key that this version does not know.
fn begun() -> Data {
    let mut data = SigningRecord::first(&pem(&OLD), &"root-1".parse().unwrap());
    data.insert("note".to_owned(), json!("from a later version"));
    let mut data = started(&data, &rotation());
    data[ROTATION]["note"] = json!(7);
    data
}

fn take(data: &Data, step: &Step) -> Data {
    let record = SigningRecord::parse(data, now()).unwrap();
    let cross = OLD.cross_sign(&NEW).certificate.pem();
    let sightings = BTreeMap::new();
    let rotation = record.rotation.clone().unwrap().unwrap();
    let goal = if rotation.goal.as_str() == "root-2" { pem(&NEW) } else { pem(&OLD) };
    // As Vault has it: without a newline at the end.
    let material = Material { goal: goal.trim_end(), cross: Some(cross.trim_end()), sightings: &sightings };
    let after = after(data, &record, step, &material).unwrap().unwrap();
    SigningRecord::parse(&after, now()).expect("what is written passes the check");
    after
}

fn record(data: &Data) -> SigningRecord {
    SigningRecord::parse(data, now()).unwrap()
}

fn roots(data: &Data) -> &str {
    data[ROOT_CERT].as_str().unwrap()
}

#[test]
fn trust_appends_a_block_and_keeps_the_bytes_that_are_there() {
    let mut data = begun();
    let odd = format!("\n{}", pem(&OLD).trim_end());
    data.insert(ROOT_CERT.to_owned(), json!(odd));
    let after = take(&data, &Step::Trust);
    let end = pem(&NEW).replace("\r\n", "\n");
    assert_eq!(roots(&after), format!("{odd}\n{}\n", end.trim()));
    assert_eq!(record(&after).issuer, record(&data).issuer);
}

#[test]
fn a_whole_rotation_ends_with_the_new_root_alone_and_leaves_other_keys_alone() {
    let begun = begun();
    let trusted = take(&begun, &Step::Trust);
    let switched = take(&trusted, &Step::Switch { crossed: true });
    assert_eq!(roots(&switched), roots(&trusted));
    assert_eq!(record(&switched).issuer.as_ref().map(IssuerName::as_str), Some("root-2"));
    let [old, new] = [&*OLD, &*NEW].map(|ca| Sha256::of(ca.certificate.der()));
    let cross = record(&switched).cross().unwrap();
    assert_eq!((cross.of, cross.by), (new, old));
    let dropped = take(&switched, &Step::Drop);
    assert_eq!(record(&dropped).roots(), &[new].into());
    assert!(roots(&trusted).contains(roots(&dropped)), "what is left is a part of what was there");
    assert!(!dropped.contains_key(CHAIN));
    assert_eq!(dropped[ROTATION]["note"], json!(7));
    let done = take(&dropped, &Step::Done);
    assert!(record(&done).rotation.is_none());
    assert_eq!(done["note"], begun["note"]);
}

#[test]
fn no_step_but_done_ends_the_rotation_and_each_change_of_state_forgets_what_was_seen() {
    let mut trusted = take(&begun(), &Step::Trust);
    let settled = now();
    let seen = BTreeMap::from([("nas".to_owned(), Sighting { settled, at: settled })]);
    trusted[ROTATION][SEEN] = Sighting::data(&seen);
    for step in [Step::Switch { crossed: true }, Step::Switch { crossed: false }, Step::Return, Step::Drop] {
        let after = record(&take(&trusted, &step)).rotation.unwrap().unwrap();
        assert_eq!(after.seen, BTreeMap::new(), "{step:?}");
    }
}

#[test]
fn what_is_noted_changes_no_state_and_neither_does_a_pause() {
    let trusted = take(&begun(), &Step::Trust);
    let before = record(&trusted);
    let sightings = BTreeMap::from([("nas".to_owned(), Sighting { settled: now(), at: now() })]);
    let material = Material { goal: &pem(&NEW), cross: None, sightings: &sightings };
    let noted = after(&trusted, &before, &Step::Note, &material).unwrap().unwrap();
    assert_eq!(record(&noted).rotation.unwrap().unwrap().seen, sightings);
    assert_eq!(record(&noted).state(), before.state());

    let paused = paused(&noted, true).unwrap();
    let rotation = record(&paused).rotation.unwrap().unwrap();
    assert!(rotation.paused && rotation.seen == sightings);
    assert_eq!(record(&paused).state(), before.state());
    assert_eq!(super::paused(&paused, false).unwrap(), noted);
}

#[test]
fn a_return_takes_the_cross_out() {
    let switched = take(&take(&begun(), &Step::Trust), &Step::Switch { crossed: true });
    let back = take(&aborted(&switched).unwrap(), &Step::Return);
    assert!(record(&back).cross().is_none());
    assert_eq!(record(&back).issuer.as_ref().map(IssuerName::as_str), Some("root-1"));
    let alone = take(&back, &Step::Drop);
    assert_eq!(record(&alone).roots(), &[Sha256::of(OLD.certificate.der())].into());
}

#[test]
fn an_abort_turns_round_and_a_second_one_again() {
    let begun = begun();
    let aborted = aborted(&paused(&begun, true).unwrap()).unwrap();
    let rotation = record(&aborted).rotation.unwrap().unwrap();
    assert_eq!((rotation.goal.as_str(), rotation.from[0].as_str(), rotation.paused), ("root-1", "root-2", false));
    assert_eq!(record(&aborted).state(), record(&begun).state());
    assert_eq!(super::aborted(&aborted).unwrap(), begun);
}

#[test]
fn without_a_way_back_nothing_is_aborted() {
    let mut data = begun();
    data[ROTATION]["from"] = json!([]);
    assert_eq!(aborted(&data), Err(Unchangeable::NoWayBack));
    data.remove(ROTATION);
    assert_eq!(aborted(&data), Err(Unchangeable::NoRotation));
    assert_eq!(paused(&data, true), Err(Unchangeable::NoRotation));
    assert_eq!(forgotten(&data, "nas"), Err(Unchangeable::NoRotation));
}

#[test]
fn who_is_forgotten_is_not_waited_for_by_name() {
    let data = forgotten(&begun(), "nas").unwrap();
    assert_eq!(record(&data).rotation.unwrap().unwrap().clusters, ["homelab".to_owned()].into());
    assert_eq!(forgotten(&data, "nas"), Err(Unchangeable::NotAwaited));
}

#[test]
fn a_switch_by_a_cross_needs_one_and_a_drop_needs_the_goal_in_the_bundle() {
    let data = begun();
    let record = record(&data);
    let (goal, sightings) = (pem(&NEW), BTreeMap::new());
    let material = Material { goal: &goal, cross: None, sightings: &sightings };
    let try_it = |step| after(&data, &record, &step, &material);
    assert_eq!(try_it(Step::Switch { crossed: true }), Err(Unchangeable::Cross));
    assert_eq!(try_it(Step::Drop), Err(Unchangeable::Goal));
    assert_eq!(try_it(Step::GiveBack), Ok(None));
}
