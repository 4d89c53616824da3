#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use jiff::SignedDuration;

use super::super::attestation::Attestation;
use super::super::audience::SKEW;
use super::super::fixtures::{A, B, HOUR, both, heard, rotation, seen, settled, state};
use super::*;
use crate::ca::fixtures::now;

const CROSSED: Step = Step::Switch { crossed: true };
const PLAIN: Step = Step::Switch { crossed: false };
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Where a record stands.
#[derive(Clone)]
struct At {
    roots: BTreeSet<Sha256>,
    issuer: Option<IssuerName>,
    crossed_by: Option<Sha256>,
    rotation: Option<Rotation>,
    goal: Option<Sha256>,
    may_cross: bool,
    issuer_retired: bool,
}

impl At {
    fn standing(&self) -> Standing<'_> {
        let Self { roots, issuer, crossed_by, rotation, goal, may_cross, issuer_retired } = self;
        Standing {
            state: state(),
            roots,
            issuer: issuer.as_ref(),
            crossed_by: *crossed_by,
            rotation: rotation.as_ref(),
            goal: *goal,
            may_cross: *may_cross,
            issuer_retired: *issuer_retired,
        }
    }

    fn next(&self, heard: &Heard) -> Next {
        next(&self.standing(), heard, now())
    }

    /// What was seen of them is noted.
    fn noted(mut self, heard: &Heard) -> Self {
        self.rotation.as_mut().unwrap().seen = seen(heard);
        self
    }

    /// Somebody aborts.
    fn aborted(mut self) -> Self {
        let rotation = self.rotation.as_mut().unwrap();
        rotation.goal = "root-1".parse().unwrap();
        rotation.from = vec!["root-2".parse().unwrap()];
        self.goal = Some(A);
        self
    }
}

/// A goal is set, and nothing has happened.
fn begun() -> At {
    At {
        roots: [A].into(),
        issuer: Some("root-1".parse().unwrap()),
        crossed_by: None,
        rotation: Some(rotation()),
        goal: Some(B),
        may_cross: true,
        issuer_retired: false,
    }
}

fn trusted() -> At {
    At { roots: [A, B].into(), ..begun() }
}

fn switched() -> At {
    At { issuer: Some("root-2".parse().unwrap()), crossed_by: Some(A), may_cross: false, ..trusted() }
}

fn dropped() -> At {
    At { roots: [B].into(), crossed_by: None, ..switched() }
}

fn held(next: Next) -> (Step, Vec<Cause>) {
    let Next::Held { then, causes } = next else { panic!("{next:?}") };
    (then, causes)
}

fn about_nas(causes: &[Cause]) -> &Unready {
    let [Cause::Cluster { name, unready }] = causes else { panic!("{causes:?}") };
    assert_eq!(name, "nas");
    unready
}

/// All is well, but for the NAS.
fn but_nas(change: impl FnOnce(&mut Attestation)) -> Heard {
    let mut nas = settled("nas", HOUR);
    change(&mut nas);
    heard([settled("homelab", HOUR), nas])
}

fn stale() -> Heard {
    but_nas(|nas| nas.at = now() - HOUR)
}

#[test]
fn without_a_rotation_nothing_is_due() {
    assert_eq!(At { rotation: None, ..begun() }.next(&both(DAY)), Next::Rest);
    assert_eq!(At { rotation: None, issuer_retired: true, ..switched() }.next(&stale()), Next::Rest);
}

#[test]
fn nothing_is_due_while_it_is_paused_wherever_it_stands() {
    for at in [begun(), trusted(), switched(), dropped(), trusted().aborted()] {
        let rotation = Some(Rotation { paused: true, ..at.rotation.clone().unwrap() });
        assert_eq!(At { rotation, ..at }.next(&both(DAY * 3)), Next::Paused);
    }
}

#[test]
fn the_goal_is_trusted_first_as_soon_as_all_have_been_heard_of() {
    assert_eq!(begun().next(&both(DAY)), Next::Take(Step::Trust));
    let unsettled = but_nas(|nas| nas.settled = None);
    assert_eq!(begun().next(&unsettled), Next::Take(Step::Trust));
    let (then, causes) = held(begun().next(&stale()));
    assert_eq!((then, about_nas(&causes)), (Step::Trust, &Unready::Stale));
    let (_, causes) = held(begun().next(&heard([settled("homelab", HOUR)])));
    assert_eq!(about_nas(&causes), &Unready::Silent);
}

#[test]
fn a_bundle_of_ten_roots_takes_no_further_one() {
    let full = |roots: u8| At { roots: (0..roots).map(|index| Sha256([index; 32])).collect(), ..begun() };
    assert_eq!(full(9).next(&both(DAY)), Next::Take(Step::Trust));
    assert_eq!(held(full(10).next(&both(DAY))), (Step::Trust, vec![Cause::BundleFull]));
}

#[test]
fn by_a_cross_the_switch_follows_as_soon_as_all_are_settled() {
    assert_eq!(trusted().next(&both(SignedDuration::ZERO)), Next::Take(CROSSED));
    let (then, causes) = held(trusted().next(&but_nas(|nas| nas.settled = None)));
    assert_eq!(then, CROSSED);
    assert!(matches!(about_nas(&causes), Unready::Behind { .. }));
}

#[test]
fn without_a_cross_the_switch_waits_until_all_have_renewed() {
    let at = At { may_cross: false, ..trusted() };
    let young = both(HOUR);
    assert_eq!(at.next(&young), Next::Take(Step::Note));
    let until = now() - HOUR + DAY + SKEW;
    assert_eq!(at.clone().noted(&young).next(&young), Next::Wait { until, then: PLAIN });
    let old = both(DAY + SKEW);
    assert_eq!(at.noted(&old).next(&old), Next::Take(PLAIN));
}

#[test]
fn a_cross_of_another_root_in_the_chain_is_no_way_for_a_second_one() {
    let other = At { crossed_by: Some(Sha256([7; 32])), ..trusted() };
    let old = both(DAY * 2);
    assert_eq!(other.next(&old), Next::Take(Step::Note));
    assert_eq!(other.noted(&old).next(&old), Next::Take(PLAIN));
}

#[test]
fn the_old_root_is_dropped_once_the_last_leaf_under_it_has_ended() {
    let young = both(HOUR);
    assert_eq!(switched().next(&young), Next::Take(Step::Note));
    let until = now() - HOUR + DAY + SKEW;
    assert_eq!(switched().noted(&young).next(&young), Next::Wait { until, then: Step::Drop });
    let old = both(DAY + SKEW);
    assert_eq!(switched().noted(&old).next(&old), Next::Take(Step::Drop));
    let nearly = both(DAY + SKEW - SignedDuration::from_secs(1));
    assert!(matches!(switched().noted(&nearly).next(&nearly), Next::Wait { .. }));
}

#[test]
fn it_is_over_when_all_work_with_the_goal_alone() {
    assert_eq!(dropped().next(&both(SignedDuration::ZERO)), Next::Take(Step::Done));
    assert_eq!(held(dropped().next(&stale())).0, Step::Done);
}

#[test]
fn an_abort_before_anything_was_done_ends_it() {
    assert_eq!(begun().aborted().next(&both(HOUR)), Next::Take(Step::Done));
}

#[test]
fn an_abort_after_trust_takes_the_new_root_out_when_no_leaf_can_be_under_it() {
    let old = both(DAY * 2);
    assert_eq!(trusted().aborted().next(&old), Next::Take(Step::Note));
    assert_eq!(trusted().aborted().noted(&old).next(&old), Next::Take(Step::Drop));
}

#[test]
fn an_abort_after_the_switch_leads_back_at_once_whoever_is_not_there() {
    for heard in [both(HOUR), stale(), Heard::new()] {
        assert_eq!(switched().aborted().next(&heard), Next::Take(Step::Return));
    }
}

#[test]
fn an_abort_after_a_switch_without_a_cross_goes_back_by_one() {
    let at = At { crossed_by: None, may_cross: true, ..switched().aborted() };
    assert_eq!(at.next(&both(HOUR)), Next::Take(CROSSED));
}

#[test]
fn an_abort_after_the_drop_begins_with_trust() {
    assert_eq!(dropped().aborted().next(&both(HOUR)), Next::Take(Step::Trust));
}

#[test]
fn an_abort_of_an_abort_leads_on() {
    let again = switched().aborted();
    // After the return there is no cross in the chain.
    let again = At { issuer: Some("root-1".parse().unwrap()), crossed_by: None, goal: Some(B), ..again };
    let again = At { rotation: Some(rotation()), may_cross: true, ..again };
    assert_eq!(again.next(&both(HOUR)), Next::Take(CROSSED));
}

#[test]
fn a_goal_whose_right_to_issue_was_taken_away_gets_it_back_and_no_other() {
    let retired = |at: At| At { issuer_retired: true, ..at }.next(&both(HOUR));
    assert_eq!(retired(switched()), Next::Take(Step::GiveBack));
    // Of the old root it may have been taken away on purpose; without it there is no cross.
    assert_eq!(retired(At { may_cross: false, ..trusted() }), Next::Take(Step::Note));
}

#[test]
fn a_goal_that_cannot_be_read_holds_everything() {
    for at in [begun(), trusted(), switched(), dropped()] {
        assert_eq!(held(At { goal: None, ..at }.next(&both(DAY * 2))).1, [Cause::NoGoal]);
    }
}

#[test]
fn a_mesh_that_nobody_knows_is_no_mesh_that_is_ready() {
    for at in [begun(), trusted(), switched(), dropped()] {
        let rotation = Some(Rotation { clusters: BTreeSet::new(), ..rotation() });
        assert_eq!(held(At { rotation, ..at }.next(&Heard::new())).1, [Cause::NoCluster]);
    }
}

#[test]
fn a_cluster_that_is_off_holds_each_step_forward_and_is_named() {
    for (at, then) in [(begun(), Step::Trust), (trusted(), CROSSED), (switched(), Step::Drop), (dropped(), Step::Done)]
    {
        let (step, causes) = held(at.next(&stale()));
        assert_eq!((step, about_nas(&causes)), (then, &Unready::Stale));
    }
}

#[test]
fn a_cluster_restored_from_an_old_backup_makes_the_wait_begin_anew() {
    let old = both(DAY * 2);
    let at = switched().noted(&old);
    assert_eq!(at.next(&old), Next::Take(Step::Drop));
    let restored = but_nas(|nas| nas.settled = None);
    assert!(matches!(about_nas(&held(at.next(&restored)).1), Unready::Behind { .. }));
    let mut mended = old;
    mended.insert("nas".to_owned(), Ok(settled("nas", SignedDuration::ZERO)));
    assert_eq!(at.next(&mended), Next::Take(Step::Note));
}

#[test]
fn an_istiod_that_refuses_the_bundle_is_named() {
    let refusing = but_nas(|nas| {
        nas.settled = None;
        nas.istiods.behind = vec!["istiod-7".to_owned()];
    });
    let (_, causes) = held(trusted().next(&refusing));
    assert!(matches!(about_nas(&causes), Unready::Behind { istiods, .. } if istiods == &["istiod-7"]));
}

#[test]
fn a_gate_whose_clock_is_ahead_holds_it_and_one_whose_clock_was_behind_shortens_nothing() {
    let ahead = but_nas(|nas| nas.at = now() + HOUR);
    assert_eq!(about_nas(&held(switched().next(&ahead)).1), &Unready::ClockAhead);
    // It says that it has been settled for a year, and was seen so an hour ago.
    let behind = both(DAY * 365);
    let mut at = switched().noted(&behind);
    at.rotation.as_mut().unwrap().seen.values_mut().for_each(|sighting| sighting.at = now() - HOUR);
    assert_eq!(at.next(&behind), Next::Wait { until: now() - HOUR + DAY + SKEW, then: Step::Drop });
}

/// The rule on whatever there may be.
mod whatever_there_may_be {
    use super::*;

    fn any_at(random: &mut fastrand::Rng) -> At {
        let mut at = [begun(), trusted(), switched(), dropped()][random.usize(..4)].clone();
        if random.bool() {
            at = at.aborted();
        }
        at.may_cross = random.bool();
        at.issuer_retired = random.u8(..8) == 0;
        at.crossed_by = [None, Some(A), Some(B)][random.usize(..3)];
        at.rotation.as_mut().unwrap().paused = random.u8(..8) == 0;
        at
    }

    fn any_attestation(name: &str, random: &mut fastrand::Rng) -> Attestation {
        let mut one = settled(name, HOUR * random.i32(0..50));
        match random.u8(..12) {
            0 => one.at = now() - HOUR,
            1 => one.at = now() + HOUR,
            2 => one.settled = None,
            3 => one.state = None,
            4 => one.istiods.behind = vec!["istiod-1".to_owned()],
            5 => one.ttl_seen = Some(Duration::from_secs(3600 * 48)),
            _ => {}
        }
        one
    }

    fn cases(check: impl Fn(&At, &Heard, Next)) {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let names = ["homelab", "nas", "cloud"];
            let heard = heard(names.iter().take(random.usize(..4)).map(|name| any_attestation(name, &mut random)));
            let mut at = any_at(&mut random);
            if random.bool() {
                at = at.noted(&heard);
            }
            let next = at.next(&heard);
            check(&at, &heard, next);
        }
    }

    fn all_ready(at: &At, heard: &Heard) -> bool {
        let rotation = at.rotation.as_ref().unwrap();
        Audience::of(rotation, heard, state(), now()).not_ready().is_empty()
    }

    #[test]
    fn nothing_is_switched_or_dropped_while_one_cluster_is_not_known_to_be_ready() {
        cases(|at, heard, next| {
            if let Next::Take(Step::Switch { .. } | Step::Drop | Step::Done | Step::Note) | Next::Wait { .. } = next {
                assert!(all_ready(at, heard), "{next:?}");
            }
        });
    }

    #[test]
    fn no_signer_is_put_under_a_root_that_is_not_trusted_by_the_same_record() {
        cases(|at, _, next| {
            if let Next::Take(Step::Switch { .. } | Step::Return) = next {
                assert!(at.roots.contains(&at.goal.unwrap()));
            }
        });
    }

    #[test]
    fn no_root_is_dropped_that_signers_are_under_or_before_the_last_leaf_ended() {
        cases(|at, heard, next| {
            if next != Next::Take(Step::Drop) {
                return;
            }
            let rotation = at.rotation.as_ref().unwrap();
            assert_eq!(at.issuer.as_ref(), Some(&rotation.goal));
            for attestation in heard.values() {
                let since = now().duration_since(attestation.as_ref().unwrap().settled.unwrap());
                assert!(since >= DAY + SKEW, "{since}");
            }
        });
    }

    #[test]
    fn what_is_held_has_a_cause_and_whatever_is_due_is_due_again() {
        cases(|at, heard, next| {
            if let Next::Held { causes, .. } = &next {
                assert!(!causes.is_empty());
            }
            assert_eq!(at.next(heard), next);
        });
    }

    #[test]
    fn one_cluster_that_falls_silent_never_brings_a_step_nearer() {
        cases(|at, heard, next| {
            for name in heard.keys() {
                let mut fewer = heard.clone();
                fewer.insert(name.clone(), Err(super::super::super::attestation::InvalidAttestation("at")));
                let worse = at.next(&fewer);
                let is_held = matches!(worse, Next::Held { .. });
                assert!(worse == next || is_held, "{next:?} became {worse:?}");
            }
        });
    }
}
