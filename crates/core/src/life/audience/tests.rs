#![allow(clippy::unwrap_used)]

use super::super::fixtures::{HOUR, both, heard, later, rotation, seen, settled, state};
use super::*;
use crate::ca::fixtures::now;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Why the NAS is not ready if this is what it says.
fn unready(nas: Attestation) -> Option<Unready> {
    let heard = heard([settled("homelab", HOUR), nas]);
    let rotation = rotation();
    let mut unready = Audience::of(&rotation, &heard, state(), now()).not_ready();
    assert!(unready.iter().all(|(name, _)| name == "nas"), "{unready:?}");
    unready.pop().map(|(_, unready)| unready)
}

fn nas() -> Attestation {
    settled("nas", HOUR)
}

#[test]
fn a_cluster_that_is_settled_and_says_so_now_is_ready() {
    assert_eq!(unready(nas()), None);
    assert_eq!(unready(Attestation { at: now() - FRESH, ..nas() }), None);
    assert_eq!(unready(Attestation { at: now() + SKEW_MAX, ..nas() }), None);
}

#[test]
fn an_attestation_that_is_older_than_five_minutes_or_from_the_future_counts_for_nothing() {
    let second = SignedDuration::from_secs(1);
    assert_eq!(unready(Attestation { at: now() - FRESH - second, ..nas() }), Some(Unready::Stale));
    assert_eq!(unready(Attestation { at: now() + SKEW_MAX + second, ..nas() }), Some(Unready::ClockAhead));
    assert_eq!(unready(Attestation { settled: Some(now() + MINUTE * 6), ..nas() }), Some(Unready::ClockAhead));
}

#[test]
fn another_state_or_none_is_not_taken_up() {
    let why = Some("SigningRefused".to_owned());
    let other = Attestation { state: Some("00".repeat(32).parse().unwrap()), why: why.clone(), ..nas() };
    assert_eq!(unready(other), Some(Unready::NotTakenUp { why }));
    assert_eq!(unready(Attestation { state: None, ..nas() }), Some(Unready::NotTakenUp { why: None }));
}

#[test]
fn not_settled_or_one_that_is_behind_is_not_ready() {
    let behind = |istiods: &[&str], namespaces: &[&str]| {
        let [istiods, namespaces] =
            [istiods, namespaces].map(|names| names.iter().map(|one| (*one).to_owned()).collect());
        Some(Unready::Behind { istiods, namespaces, why: None })
    };
    assert_eq!(unready(Attestation { settled: None, ..nas() }), behind(&[], &[]));
    let mut lagging = nas();
    lagging.istiods.behind = vec!["istiod-7".to_owned()];
    assert_eq!(unready(lagging), behind(&["istiod-7"], &[]));
    let mut lagging = nas();
    lagging.namespaces.behind = vec!["shop".to_owned()];
    assert_eq!(unready(lagging), behind(&[], &["shop"]));
}

#[test]
fn one_that_is_named_and_silent_is_waited_for_and_so_is_one_that_is_not_named_and_attests() {
    let rotation = rotation();
    let silent = heard([settled("homelab", HOUR)]);
    let audience = Audience::of(&rotation, &silent, state(), now());
    assert_eq!(audience.not_ready(), [("nas".to_owned(), Unready::Silent)]);
    assert_eq!(audience.not_fresh(), audience.not_ready());

    let mut third = both(HOUR);
    third.insert("cloud".to_owned(), Ok(Attestation { settled: None, ..settled("cloud", HOUR) }));
    let audience = Audience::of(&rotation, &third, state(), now());
    assert!(matches!(&audience.not_ready()[..], [(name, Unready::Behind { .. })] if name == "cloud"));
    assert_eq!(audience.not_fresh(), []);
}

#[test]
fn an_attestation_that_cannot_be_read_is_no_attestation() {
    let mut heard = both(HOUR);
    heard.insert("nas".to_owned(), Err(InvalidAttestation("at")));
    let rotation = rotation();
    let audience = Audience::of(&rotation, &heard, state(), now());
    assert_eq!(audience.not_ready(), [("nas".to_owned(), Unready::Unreadable("at"))]);
}

#[test]
fn leaves_have_ended_a_ttl_and_the_skew_after_the_last_was_settled() {
    let heard = heard([settled("homelab", HOUR * 9), settled("nas", HOUR)]);
    let rotation = Rotation { seen: seen(&heard), ..rotation() };
    let audience = Audience::of(&rotation, &heard, state(), now());
    assert_eq!(audience.ended(), Some(now() - HOUR + HOUR * 24 + SKEW));
}

#[test]
fn leaves_that_live_longer_than_was_said_are_waited_for() {
    let mut long = both(HOUR);
    long.insert("nas".to_owned(), Ok(Attestation { ttl_seen: Some(Duration::from_secs(48 * 3600)), ..nas() }));
    let rotation = Rotation { seen: seen(&long), ..rotation() };
    assert_eq!(Audience::of(&rotation, &long, state(), now()).ended(), Some(now() + HOUR * 47 + SKEW));
}

#[test]
fn what_a_gate_said_by_a_clock_that_was_behind_counts_from_when_it_was_seen() {
    let heard = both(HOUR * 100);
    let mut rotation = rotation();
    assert_eq!(Audience::of(&rotation, &heard, state(), now()).ended(), None);
    rotation.seen = Audience::of(&rotation, &heard, state(), now()).sightings(now());
    assert_eq!(Audience::of(&rotation, &heard, state(), later(3)).ended(), Some(now() + HOUR * 24 + SKEW));
    // Seen again, it keeps its time.
    assert_eq!(Audience::of(&rotation, &heard, state(), later(3)).sightings(later(3)), rotation.seen);
}

#[test]
fn a_cluster_that_settles_anew_is_seen_anew_and_no_other() {
    let before = both(HOUR * 5);
    let mut rotation = Rotation { seen: seen(&before), ..rotation() };
    let mut after = before;
    after.insert("nas".to_owned(), Ok(settled("nas", MINUTE)));
    let audience = Audience::of(&rotation, &after, state(), now());
    assert_eq!(audience.ended(), None);
    let seen = audience.sightings(now());
    assert_eq!(seen["homelab"], rotation.seen["homelab"]);
    assert_eq!(seen["nas"], Sighting { settled: now() - MINUTE, at: now() });
    rotation.seen = seen;
    assert_eq!(Audience::of(&rotation, &after, state(), now()).ended(), Some(now() + HOUR * 24 + SKEW));
}
