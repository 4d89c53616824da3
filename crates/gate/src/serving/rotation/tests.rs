#![allow(clippy::unwrap_used)]

use super::*;

const LIVES: Lives = Lives { ca: SignedDuration::from_hours(300), leaf: SignedDuration::from_hours(30) };

/// Hours from some moment.
fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hours)
}

/// The CA of this number, made then.
fn ca(number: u8, made: i64) -> CaCertificate {
    let backdate = super::super::ca::BACKDATE;
    CaCertificate {
        id: Sha256([number; 32]),
        not_before: at(made) - backdate,
        not_after: at(made) + LIVES.ca,
        pem: format!("{number};"),
    }
}

/// CA 1 was made at 0, and signs.
fn alone() -> Trusted {
    Trusted { signing: ca(1, 0), next: None, others: Vec::new(), changed: None }
}

/// CA 2 was made at 200.
fn announced() -> Trusted {
    Trusted { next: Some(ca(2, 200)), ..alone() }
}

/// CA 2 signs since 201.
fn switched() -> Trusted {
    Trusted { signing: ca(2, 200), next: None, others: vec![ca(1, 0)], changed: Some(at(201)) }
}

/// Of a replica whose leaf is by the signing CA.
fn step(trusted: &Trusted, settled: &[u8], hour: i64) -> Step {
    step_of(trusted, Some(&trusted.signing), settled, hour)
}

fn step_of(trusted: &Trusted, mine: Option<&CaCertificate>, settled: &[u8], hour: i64) -> Step {
    plan(trusted, mine, |id| settled.contains(&id.0[0]), at(hour), &LIVES)
}

fn retired(number: u8) -> Step {
    Step::Retire(vec![Sha256([number; 32])])
}

#[test]
fn a_rotation_announces_switches_and_retires() {
    for (trusted, settled, hour, expected) in [
        (alone(), [1].as_slice(), 0, Step::Keep),
        (alone(), &[1], 199, Step::Keep),
        (alone(), &[1], 200, Step::Announce),
        (alone(), &[], 200, Step::Announce),
        (announced(), &[1], 200, Step::Keep),
        (announced(), &[1, 2], 200, Step::Switch),
        (switched(), &[1, 2], 201, Step::Keep),
        (switched(), &[1, 2], 230, Step::Keep),
        (switched(), &[1, 2], 231, retired(1)),
        (Trusted { others: Vec::new(), changed: None, ..switched() }, &[2], 399, Step::Keep),
        (Trusted { others: Vec::new(), changed: None, ..switched() }, &[2], 400, Step::Announce),
    ] {
        assert_eq!(step(&trusted, settled, hour), expected, "{hour}: {trusted:?}");
    }
}

#[test]
fn what_a_new_secret_announces_need_not_be_due() {
    assert_eq!(step(&Trusted { next: Some(ca(2, 10)), ..alone() }, &[2], 10), Step::Switch);
}

#[test]
fn a_ca_that_has_ended_holds_nothing_up() {
    assert_eq!(step(&announced(), &[1], 299), Step::Keep);
    assert_eq!(step(&announced(), &[1], 300), Step::Switch);
    assert_eq!(step(&alone(), &[1], 300), Step::Replace);
    // Ten years on, the next one has ended, too.
    assert_eq!(step(&announced(), &[1, 2], 100_000), Step::Replace);
}

#[test]
fn a_next_ca_that_has_ended_or_is_from_the_future_is_made_anew() {
    for made in [-150, 300] {
        let trusted = Trusted { next: Some(ca(2, made)), ..alone() };
        assert_eq!(step(&trusted, &[1, 2], 200), Step::Announce, "{made}");
    }
}

/// CA 2 signs, and is from hour 500: a clock was ahead. CA 1 signed before.
fn early() -> Trusted {
    Trusted { signing: ca(2, 500), next: None, others: vec![ca(1, 0)], changed: Some(at(501)) }
}

#[test]
fn a_signing_ca_from_the_future_is_rotated_at_once() {
    let (good, bad) = (ca(1, 0), ca(2, 500));
    let with = |next| Trusted { next: Some(next), ..early() };
    // The replica of the good CA, the one whose clock was ahead, and one that starts.
    for mine in [Some(&good), Some(&bad), None] {
        for (trusted, settled, expected) in [
            (early(), [1, 2].as_slice(), Step::Announce),
            (early(), &[], Step::Announce),
            // What was announced then is from the future, too.
            (with(ca(4, 700)), &[1, 2, 4], Step::Announce),
            // Nobody is dated or retired meanwhile.
            (with(ca(3, 100)), &[1, 2], Step::Keep),
            (with(ca(3, 100)), &[1, 2, 3], Step::Switch),
        ] {
            assert_eq!(step_of(&trusted, mine, settled, 100), expected, "{mine:?} {settled:?}: {trusted:?}");
        }
    }
    // Of a Secret that was restored or replaced, a replica's own CA is the first that is missing.
    assert_eq!(step_of(&Trusted { others: Vec::new(), ..early() }, Some(&good), &[], 100), Step::Join);
}

#[test]
fn a_replica_joins_whatever_else_is_due() {
    let mine = ca(9, 0);
    for trusted in [alone(), announced(), switched()] {
        for hour in [0, 200, 231, 299] {
            assert_eq!(step_of(&trusted, Some(&mine), &[1, 2], hour), Step::Join, "{hour}: {trusted:?}");
        }
    }
    // Nothing is gained by trust in what has ended, or is not valid yet.
    assert_ne!(step_of(&alone(), Some(&mine), &[1], 300), Step::Join);
    assert_ne!(step_of(&alone(), Some(&ca(9, 10)), &[1], 0), Step::Join);
}

#[test]
fn a_replica_that_starts_does_what_is_due() {
    assert_eq!(step_of(&alone(), None, &[], 0), Step::Keep);
    assert_eq!(step_of(&alone(), None, &[], 300), Step::Replace);
}

#[test]
fn others_are_retired_but_for_the_one_of_this_replicas_leaf() {
    let trusted = Trusted { others: vec![ca(1, 0), ca(3, -200)], ..switched() };
    // The third has ended at 100.
    assert_eq!(step(&trusted, &[2], 202), retired(3));
    assert_eq!(step_of(&trusted, Some(&ca(1, 0)), &[2], 290), retired(3));
    assert_eq!(step_of(&switched(), Some(&ca(1, 0)), &[2], 290), Step::Keep);
}

#[test]
fn others_without_a_date_or_with_one_in_the_future_are_dated() {
    for changed in [None, Some(at(203))] {
        assert_eq!(step(&Trusted { changed, ..switched() }, &[1, 2], 202), Step::Date, "{changed:?}");
    }
}

#[test]
fn a_replica_takes_a_leaf_by_the_signing_ca_once_callers_trust_that() {
    let (old, new) = (ca(1, 0), ca(2, 200));
    for (mine, fresh, settled, hour, expected) in [
        (None, false, false, 201, LeafStep::Switch),
        (None, false, true, 198, LeafStep::Keep),
        (Some(&new), true, true, 201, LeafStep::Keep),
        (Some(&new), false, false, 201, LeafStep::Renew),
        (Some(&new), false, true, 500, LeafStep::Keep),
        (Some(&old), true, false, 201, LeafStep::Keep),
        (Some(&old), false, false, 201, LeafStep::Renew),
        (Some(&old), true, true, 201, LeafStep::Switch),
        (Some(&old), false, false, 300, LeafStep::Switch),
        // From the future: the last good one stays, and is renewed.
        (Some(&old), true, true, 198, LeafStep::Keep),
        (Some(&old), false, true, 198, LeafStep::Renew),
    ] {
        let step = plan_leaf(&new, mine, fresh, |_| settled, at(hour));
        assert_eq!(step, expected, "{mine:?} {fresh} {settled} {hour}");
    }
    // By a CA from the future, when the clock is right again: nobody takes that leaf.
    for fresh in [true, false] {
        assert_eq!(plan_leaf(&new, Some(&ca(3, 500)), fresh, |_| false, at(201)), LeafStep::Switch);
    }
}

#[test]
fn times_fit_the_life_of_a_leaf() {
    let of = |leaf| {
        let lives = Lives { ca: LIVES.ca, leaf };
        (lives.settle(), lives.look_again())
    };
    let seconds = Duration::from_secs;
    assert_eq!(of(SignedDuration::from_hours(24 * 30)), (SETTLE, seconds(1)));
    assert_eq!(of(SignedDuration::from_secs(8)), (seconds(2), Duration::from_millis(200)));
}

/// CAs as they are made, and what becomes of them.
mod steps {
    use super::*;

    fn made(hour: i64) -> Arc<ServingCa> {
        Arc::new(ServingCa::make(at(hour), LIVES.ca).unwrap())
    }

    fn pems(cas: &[&ServingCa]) -> String {
        cas.iter().map(|ca| ca.certificate_pem()).collect()
    }

    #[test]
    fn the_bundle_has_the_signing_ca_first_and_grows_before_it_shrinks() {
        let (old, new) = (made(0), made(200));
        let first = Authorities::new(Arc::clone(&old));
        assert_eq!(first.bundle(), pems(&[&old]));
        let announced = first.after(&Step::Announce, None, Some(Arc::clone(&new)), at(200));
        assert_eq!(announced.bundle(), pems(&[&old, &new]));
        let switched = announced.after(&Step::Switch, None, None, at(201));
        assert_eq!(switched.bundle(), pems(&[&new, &old]));
        assert_eq!(switched.changed, Some(at(201)));
        let retired = switched.after(&Step::Retire(vec![old.certificate().id]), None, None, at(231));
        assert_eq!((retired.bundle(), retired.changed), (pems(&[&new]), None));
    }

    #[test]
    fn a_ca_that_joins_is_trusted_and_does_not_sign() {
        let (mine, theirs) = (made(0), made(10));
        let joined = Authorities::new(Arc::clone(&theirs)).after(&Step::Join, Some(mine.certificate()), None, at(20));
        assert_eq!((joined.bundle(), joined.changed), (pems(&[&theirs, &mine]), Some(at(20))));
    }

    #[test]
    fn a_ca_from_the_future_and_the_one_before_it_stay_trusted_beside_the_new_one() {
        let (good, early, new) = (made(0), made(500), made(100));
        let others = vec![good.certificate().clone()];
        let before = Authorities { others, changed: Some(at(501)), ..Authorities::new(Arc::clone(&early)) };
        let announced = before.after(&Step::Announce, None, Some(Arc::clone(&new)), at(100));
        let switched = announced.after(&Step::Switch, None, None, at(101));
        assert_eq!(switched.bundle(), pems(&[&new, &early, &good]));
        assert_eq!(switched.changed, Some(at(101)));
    }

    #[test]
    fn a_replacement_leaves_out_what_has_ended() {
        let (ended, other, new) = (made(-300), made(-10), made(0));
        let before = Authorities {
            others: vec![other.certificate().clone(), ended.certificate().clone()],
            changed: Some(at(-5)),
            ..Authorities::restored(Arc::clone(&ended), made(-290))
        };
        let after = before.after(&Step::Replace, None, Some(Arc::clone(&new)), at(0));
        assert_eq!(after.bundle(), pems(&[&new, &other]));
    }

    #[test]
    fn never_more_are_trusted_than_the_cap() {
        let mut authorities = Authorities::restored(made(0), made(1));
        let joining: Vec<_> = (0..12).map(|_| made(2)).collect();
        for mine in &joining {
            authorities = authorities.after(&Step::Join, Some(mine.certificate()), None, at(3));
        }
        assert_eq!(authorities.trusted().all().count(), TRUSTED_MAX);
        assert!(authorities.trusted().has(&joining[11].certificate().id), "the last one has no place");
    }
}
