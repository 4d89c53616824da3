#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::ca::fixtures::now;
use crate::reason::{ByItself, Reason};
use crate::samples::{BOTH, R1, R2, ago, clocks, clocks_ago, held, later, pin, verified};

const LATER: SignedDuration = SignedDuration::from_secs(7);

fn contradiction(by: Reason) -> Contradiction {
    Contradiction { by, at: clocks().wall }
}

fn contradicted_pin(by: Reason) -> Pin {
    Pin { contradicted: Some(contradiction(by)), ..pin(R1.root) }
}

/// After an attempt that ended open.
fn open() -> Convergence {
    let mut state = Convergence::default();
    state.began();
    read(&mut state, None);
    state.planned(true, None);
    state.agreed(verified(&R1, 0), LastVerified::of(&R1, clocks()));
    state.ended(None, now());
    state
}

/// The pin is read and nothing comes in between.
fn read(state: &mut Convergence, pin: Option<&Pin>) {
    let learnt = state.pin_learnt;
    assert!(state.pin_was_read(learnt, pin, clocks()));
}

/// The next attempt reads this pin and plans a step that does not open.
fn contradicted(state: &mut Convergence, by: Reason) {
    state.began();
    state.planned(false, Some(contradiction(by)));
}

fn away(state: &mut Convergence) {
    state.ended(Some(held(Reason::VaultUnreachable)), now());
}

fn is_bridged(state: &Convergence) -> bool {
    state.bridgeable().is_some()
}

#[test]
fn at_the_start_nothing_is_known_and_nothing_bridged() {
    let state = Convergence::default();
    assert!(!state.consulted && !state.running && state.finished == 0);
    assert!(state.held.is_none() && state.verified.is_none() && !is_bridged(&state));
}

#[test]
fn an_attempt_that_begins_counts_as_a_consultation_and_runs() {
    let mut state = Convergence::default();
    state.began();
    assert!(state.consulted && state.running && state.finished == 0);
}

#[test]
fn an_attempt_that_ends_is_counted_however_it_ends() {
    let mut state = Convergence::default();
    for (count, end) in [None, Some(held(Reason::RootMissing)), None].into_iter().enumerate() {
        state.began();
        state.ended(end.clone(), now());
        assert_eq!((state.running, state.finished, state.held.clone()), (false, count as u64 + 1, end));
    }
}

#[test]
fn an_end_is_told_if_it_is_another_than_the_last() {
    let mut state = Convergence::default();
    assert!(!state.ended(None, now()));
    assert!(state.ended(Some(held(Reason::RootMissing)), now()));
    assert!(!state.ended(Some(held(Reason::RootMissing)), now()));
    assert!(state.ended(Some(held(Reason::VaultSealed)), now()));
    assert!(state.ended(None, now()));
}

#[test]
fn an_agreement_is_what_is_known_from_then_on() {
    let state = open();
    assert_eq!(state.verified.unwrap().at, clocks());
    let last = state.last_verified.unwrap();
    assert_eq!((last.root, &*last.roots, last.at), (R1.root, R1.roots(), clocks()));
}

#[test]
fn an_outage_after_an_agreement_is_bridged() {
    let mut state = open();
    away(&mut state);
    assert!(is_bridged(&state) && state.verified.is_none());
}

#[test]
fn without_an_outage_there_is_nothing_to_bridge() {
    assert!(!is_bridged(&open()));
}

#[test]
fn exactly_what_says_nothing_against_the_root_is_bridged() {
    for reason in Reason::ALL {
        let mut state = open();
        state.ended(Some(held(*reason)), now());
        assert_eq!(is_bridged(&state), reason.is_bridgeable(), "{reason}");
    }
}

#[test]
fn without_a_verification_no_outage_is_bridged() {
    let mut state = Convergence::default();
    read(&mut state, None);
    away(&mut state);
    assert!(!is_bridged(&state));
}

#[test]
fn trouble_with_the_api_server_leaves_what_was_verified() {
    for reason in [Reason::KubernetesUnreachable, Reason::KubernetesForbidden] {
        let mut state = open();
        state.ended(Some(held(reason)), now());
        assert!(state.verified.is_some() && !is_bridged(&state));
    }
}

#[test]
fn every_other_end_leaves_nothing_verified() {
    for reason in Reason::ALL.iter().filter(|reason| !reason.is_kubernetes()) {
        let mut state = open();
        state.ended(Some(held(*reason)), now());
        assert!(state.verified.is_none(), "{reason}");
    }
}

#[test]
fn a_step_that_does_not_open_ends_what_was_verified_at_once() {
    let mut state = open();
    state.began();
    state.planned(false, None);
    assert!(state.verified.is_none() && state.running);
}

#[test]
fn a_step_that_opens_leaves_what_was_verified_until_it_is_taken() {
    let mut state = open();
    state.began();
    state.planned(true, None);
    assert!(state.verified.is_some());
}

#[test]
fn a_step_that_does_not_open_and_says_nothing_against_the_roots_is_no_contradiction() {
    let mut state = open();
    state.began();
    state.planned(false, None);
    away(&mut state);
    assert!(is_bridged(&state), "Vault has agreed with the roots");
}

#[test]
fn what_was_contradicted_is_not_bridged_however_the_attempt_ends() {
    for end in [Reason::VaultUnreachable, Reason::VaultSealed, Reason::KubernetesForbidden, Reason::Converging] {
        let mut state = open();
        contradicted(&mut state, Reason::RootChanged);
        state.ended(Some(held(end)), now());
        away(&mut state);
        assert!(!is_bridged(&state), "{end}");
    }
}

#[test]
fn a_contradiction_outlasts_any_number_of_attempts() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    for _ in 0..5 {
        away(&mut state);
        state.began();
        read(&mut state, Some(&pin(R1.root)));
        state.planned(false, None);
    }
    away(&mut state);
    assert!(!is_bridged(&state));
}

#[test]
fn a_contradiction_by_a_step_that_opens_lasts_until_the_pin_says_so() {
    let mut state = open();
    state.began();
    state.planned(true, Some(contradiction(Reason::RootChanged)));
    state.ended(Some(held(Reason::KubernetesForbidden)), now());
    away(&mut state);
    assert!(!is_bridged(&state), "the pin could not be written");
    state.agreed(verified(&R2, 0), LastVerified::of(&R2, clocks()));
    away(&mut state);
    assert!(is_bridged(&state));
}

#[test]
fn an_agreement_ends_a_contradiction() {
    for recorded in [false, true] {
        let mut state = open();
        contradicted(&mut state, Reason::RootDeleted);
        if recorded {
            state.contradiction_was_recorded();
        }
        state.agreed(verified(&R1, 0), LastVerified::of(&R1, clocks()));
        assert_eq!(state.contradicted, None);
        away(&mut state);
        assert!(is_bridged(&state));
    }
}

#[test]
fn the_first_contradiction_is_the_one_that_is_told() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    contradicted(&mut state, Reason::RootInvalid);
    assert_eq!(state.contradicted.unwrap().contradiction.by, Reason::RootDeleted);
}

#[test]
fn a_pin_from_before_a_restart_is_bridged() {
    let mut state = Convergence::default();
    state.began();
    read(&mut state, Some(&pin(R1.root)));
    away(&mut state);
    assert!(is_bridged(&state));
}

#[test]
fn a_contradiction_in_the_pin_outlives_a_restart() {
    let mut state = Convergence::default();
    state.began();
    read(&mut state, Some(&contradicted_pin(Reason::RootDeleted)));
    away(&mut state);
    assert!(!is_bridged(&state));
}

#[test]
fn a_contradiction_that_another_replica_wrote_counts_here_too() {
    let mut state = open();
    away(&mut state);
    assert!(is_bridged(&state));
    read(&mut state, Some(&contradicted_pin(Reason::RootChanged)));
    assert!(!is_bridged(&state), "before the next attempt ends");
}

#[test]
fn an_agreement_that_another_replica_wrote_counts_here_too() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    state.contradiction_was_recorded();
    away(&mut state);
    read(&mut state, Some(&pin(R1.root)));
    assert!(is_bridged(&state));
}

#[test]
fn a_contradiction_that_could_not_be_written_is_not_ended_by_a_pin_that_never_knew_it() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    away(&mut state);
    read(&mut state, Some(&pin(R1.root)));
    assert!(!is_bridged(&state));
}

#[test]
fn a_read_that_began_before_more_was_learnt_changes_nothing() {
    type Learns = fn(&mut Convergence);
    let learns: [Learns; 3] = [
        |state| read(state, Some(&contradicted_pin(Reason::RootDeleted))),
        |state| {
            contradicted(state, Reason::RootDeleted);
            state.contradiction_was_recorded();
        },
        |state| state.agreed(verified(&R2, 0), LastVerified::of(&R2, clocks())),
    ];
    for learns in learns {
        let mut state = open();
        let learnt = state.pin_learnt;
        learns(&mut state);
        let before = format!("{state:?}");
        assert!(!state.pin_was_read(learnt, Some(&pin(R1.root)), clocks()));
        assert_eq!(format!("{state:?}"), before);
    }
}

#[test]
fn a_read_that_tells_nothing_new_overtakes_no_other() {
    let mut state = open();
    let pin = pin(R1.root);
    read(&mut state, Some(&pin));
    let learnt = state.pin_learnt;
    for _ in 0..3 {
        assert!(state.pin_was_read(learnt, Some(&pin), clocks()));
    }
    assert!(state.pin_was_read(learnt, Some(&contradicted_pin(Reason::RootDeleted)), clocks()));
    assert!(!state.pin_was_read(learnt, Some(&pin), clocks()));
}

#[test]
fn a_read_of_the_pin_counts_from_when_it_began() {
    let mut state = open();
    let began = later(clocks(), LATER);
    assert!(state.pin_was_read(state.pin_learnt, Some(&pin(R1.root)), began));
    assert_eq!(state.pin_read, Some(began.boot));
}

#[test]
fn a_pin_without_a_date_proves_nothing() {
    let mut state = open();
    read(&mut state, Some(&Pin { verified_at: None, ..pin(R1.root) }));
    away(&mut state);
    assert!(!is_bridged(&state));
}

#[test]
fn a_pin_that_is_gone_proves_nothing() {
    let mut state = open();
    read(&mut state, None);
    away(&mut state);
    assert!(!is_bridged(&state));
}

#[test]
fn a_pin_that_is_older_than_what_this_process_knows_does_not_make_it_older() {
    let mut state = open();
    let written = Pin { verified_at: Some(clocks_ago(3000).wall), ..pin(R1.root) };
    read(&mut state, Some(&written));
    assert_eq!(state.last_verified.unwrap().at, clocks());
}

#[test]
fn a_pin_that_another_replica_has_written_later_counts() {
    let mut state = open();
    let written = later(clocks(), LATER);
    let newer = Pin { verified_at: Some(written.wall), ..pin(R1.root) };
    assert!(state.pin_was_read(state.pin_learnt, Some(&newer), later(written, LATER)));
    assert_eq!(state.last_verified.unwrap().at, written);
}

#[test]
fn a_pin_on_other_roots_replaces_what_this_process_knows_whatever_its_date() {
    let roots = |state: &Convergence| state.last_verified.as_ref().map(|last| (last.root, (*last.roots).clone()));
    let both = Pin { roots: BOTH.roots().clone(), ..pin(R1.root) };
    for other in [pin(R2.root), both] {
        let mut state = open();
        let older = Pin { verified_at: Some(clocks_ago(3000).wall), ..other };
        read(&mut state, Some(&older));
        assert_eq!(roots(&state), Some((older.root, older.roots.clone())));
    }
}

#[test]
fn the_same_pin_read_again_does_not_become_younger_by_a_wall_clock_that_is_set_back() {
    let mut state = Convergence::default();
    let dated = Pin { verified_at: Some(clocks_ago(3600).wall), ..pin(R1.root) };
    read(&mut state, Some(&dated));
    // An hour on, the wall clock has been set back to when the pin was written.
    let mut now = later(clocks(), SignedDuration::from_hours(1));
    now.wall = clocks_ago(3600).wall;
    assert!(state.pin_was_read(state.pin_learnt, Some(&dated), now));
    assert_eq!(now.age(state.last_verified.unwrap().at), Some(SignedDuration::from_hours(2)));
}

#[test]
fn what_is_bridged_is_what_was_verified_root_and_set() {
    let last = LastVerified::of(&BOTH, clocks());
    assert!(last.is_of(&BOTH) && !last.is_of(&R1) && !last.is_of(&R2));
    let alone = LastVerified::of(&R1, clocks());
    assert!(alone.is_of(&R1) && !alone.is_of(&BOTH));
    let signed_by_the_other = LastVerified { root: R2.root, ..last };
    assert!(!signed_by_the_other.is_of(&BOTH));
}

fn out_of_reach() -> Held {
    Held::new(Reason::VaultUnreachable, "it is away", "look", ByItself::TriedAgain)
}

#[test]
fn an_outage_that_is_not_bridged_says_why() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    state.ended(Some(out_of_reach()), now());
    assert_eq!(
        state.held.as_ref().unwrap().sentence(),
        "it is away: look; what was verified before does not count, since Vault then said RootDeleted; it is tried again by itself"
    );
    assert!(!state.ended(Some(out_of_reach()), now()));
}

#[test]
fn a_hold_that_is_no_outage_needs_no_such_word() {
    let mut state = open();
    contradicted(&mut state, Reason::RootDeleted);
    state.ended(Some(held(Reason::RootDeleted)), now());
    assert_eq!(state.held, Some(held(Reason::RootDeleted)));
}

#[test]
fn vaults_root_is_the_one_last_read() {
    let mut state = open();
    let root = KnownRoot {
        glance: R1.glance.clone(),
        root: R1.root,
        version: 3,
        usable_until: R1.usable_until,
        deleted_at: None,
        token_end: None,
        checked_at: clocks().wall,
        address: "https://vault".to_owned(),
    };
    state.vault_was_read(Some(root));
    assert_eq!(state.root.as_ref().unwrap().root, R1.root);
    state.vault_was_read(None);
    assert!(state.root.is_none());
}

#[test]
fn what_the_pin_says_is_as_old_by_the_other_clock() {
    let mut state = Convergence::default();
    read(&mut state, Some(&Pin { verified_at: Some(clocks_ago(60).wall), ..pin(R1.root) }));
    let at = state.last_verified.unwrap().at;
    assert_eq!(at, clocks_ago(60));
    assert_eq!(at.boot.plus(Duration::from_secs(60)), clocks().boot);
}

#[test]
fn it_is_held_since_the_first_end_that_was_not_open_whatever_the_reasons() {
    let mut state = Convergence::default();
    state.ended(Some(held(Reason::RootMissing)), ago(60));
    state.ended(Some(held(Reason::VaultSealed)), now());
    assert_eq!(state.held_since, Some(ago(60)));
    state.ended(None, now());
    assert_eq!(state.held_since, None);
    state.ended(Some(held(Reason::RootMissing)), now());
    assert_eq!(state.held_since, Some(now()));
}
