#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::ca::fixtures::{NOW, YEARS, at};
use crate::order::Told;
use crate::plan::Contradiction;
use crate::plan::{Copy, Owner};
use crate::reason::Reason;
use crate::samples::{
    BOTH, Known, POLICY, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, UNSOUND, clocks, held, last_verified, later, present,
    published, verified,
};

fn contradicted_by(by: Reason) -> Option<Contradicted> {
    Some(Contradicted { contradiction: Contradiction { by, at: clocks().wall }, recorded: true })
}

/// How the gate stands, as one line.
fn told_by(known: &Known, policy: &Policy) -> String {
    let standing = known.snapshot().standing(policy, known.now);
    let is_open = matches!(standing, Standing::Open(_) | Standing::OpenUnverified(..));
    assert_eq!(known.snapshot().is_open(policy, known.now), is_open);
    match standing {
        Standing::Open(_) => "open".to_owned(),
        Standing::OpenUnverified(_, held) => format!("open despite {}", held.reason),
        Standing::Blind => "blind".to_owned(),
        Standing::Closed => "closed".to_owned(),
    }
}

fn told(known: &Known) -> String {
    told_by(known, &POLICY)
}

fn open() -> Known {
    Known::open(&R1)
}

/// Vault is down, a second after it was not.
fn bridged() -> Known {
    open().held(Reason::VaultUnreachable)
}

fn after(known: Known, time: SignedDuration) -> Known {
    known.but(|known| {
        known.now = later(known.now, time);
        known.watched.heard = Some(known.now.boot);
    })
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);

#[test]
fn nothing_known_is_blind() {
    assert_eq!(told(&Known::nothing()), "blind");
}

#[test]
fn a_watch_is_trusted_for_less_than_90_seconds() {
    let silent = |time| open().but(|known| known.now.boot = known.now.boot.plus(time));
    assert_eq!(told(&silent(WATCH_TRUST - Duration::from_nanos(1))), "open");
    assert_eq!(told(&silent(Duration::from_secs(90))), "blind");
    assert_eq!(told(&silent(Duration::from_secs(90)).held(Reason::VaultUnreachable)), "blind");
    assert_eq!(told(&open().but(|known| known.watched.heard = None)), "blind");
}

#[test]
fn a_live_read_is_trusted_for_its_moment_and_says_nothing_about_the_watch() {
    let read = |ago| {
        open().but(|known| (known.watched.heard, known.watched.read) = (None, Some(Boot(known.now.boot.0 - ago))))
    };
    assert_eq!(told(&read(Duration::from_nanos(999_999_999))), "open");
    assert_eq!(told(&read(Duration::from_secs(1))), "blind");
    let old = open().but(|known| known.watched.read = Some(Boot(known.now.boot.0 - WATCH_TRUST)));
    assert_eq!(told(&old), "open");
}

#[test]
fn a_watch_that_was_heard_of_after_the_look_began_is_trusted() {
    assert_eq!(told(&open().but(|known| known.now.boot = Boot(known.now.boot.0 - Duration::from_secs(1)))), "open");
}

#[test]
fn without_a_sound_cacerts_it_is_closed() {
    for told_cacerts in [None, Some(Published::Absent), Some(present(Owner::Ours, Err(UNSOUND)))] {
        for known in [open(), bridged()] {
            assert_eq!(
                told(&known.but(|known| known.watched.published = told_cacerts.as_ref().map(Published::facts))),
                "closed"
            );
        }
    }
}

#[test]
fn without_a_comparison_it_is_closed() {
    assert_eq!(told(&open().but(|known| known.convergence.verified = None)), "closed");
}

#[test]
fn it_is_open_for_as_long_as_the_comparison_is_current() {
    let edge = POLICY.refresh + SignedDuration::from_secs(30);
    assert_eq!(told(&after(open(), edge)), "open");
    assert_eq!(told(&after(open(), edge + SignedDuration::from_nanos(1))), "closed");
}

#[test]
fn a_clock_set_back_by_more_than_5_minutes_closes_it() {
    for (known, standing) in [(open(), "open"), (bridged(), "open despite VaultUnreachable")] {
        let edge = SignedDuration::from_mins(-5);
        assert_eq!(told(&after(known.clone(), edge)), standing);
        assert_eq!(told(&after(known, edge - SignedDuration::from_nanos(1))), "closed");
    }
}

/// A comparison and a pin of this very moment, whenever it is.
fn just_verified(known: &mut Known) {
    let now = known.now;
    known.convergence.verified.iter_mut().for_each(|verified| verified.at = now);
    known.convergence.last_verified.iter_mut().for_each(|last| last.at = now);
}

#[test]
fn it_is_closed_outside_of_the_time_in_which_the_certificates_are_valid() {
    // As made by the fixtures.
    let (from, until) = (at(NOW - 3600), at(NOW + YEARS));
    assert_eq!((R1.valid_from, R1.usable_until.at), (from, until));
    for (known, standing) in [(open(), "open"), (bridged(), "open despite VaultUnreachable")] {
        let told_at = |now| told(&known.clone().but(|known| known.now.wall = now).but(just_verified));
        assert_eq!([told_at(from), told_at(until)], [standing; 2]);
        assert_eq!([told_at(from - SECOND), told_at(until + SECOND)], ["closed"; 2]);
    }
}

#[test]
fn either_sides_certificates_may_end_first() {
    let mut ended = Facts::clone(R1.facts());
    ended.usable_until.at = at(NOW - 1);
    let ended = Arc::new(ended);
    let in_vault = open()
        .but(|known| known.convergence.verified = Some(Verified { stored: Arc::clone(&ended), ..verified(&R1, 0) }));
    let in_cluster = open().but(|known| {
        let Some(Published::Present(copy)) = &mut known.watched.published else { panic!("no cacerts") };
        *copy = Arc::new(Copy { verdict: Ok(Arc::clone(&ended)), ..Copy::clone(copy) });
    });
    assert_eq!([told(&in_vault), told(&in_cluster)], ["closed"; 2]);
}

#[test]
fn a_cacerts_that_changed_since_is_open_only_with_the_same_roots() {
    let now_holds = |sound| open().but(|known| known.watched.published = Some(published(Owner::Other, sound).facts()));
    for sound in [&R1_OTHER_BYTES, &R1_OTHER_CA] {
        assert_eq!(told(&now_holds(sound)), "open");
    }
    for sound in [&R2, &BOTH] {
        assert_eq!(told(&now_holds(sound)), "closed");
    }
}

#[test]
fn trouble_with_the_api_server_says_nothing_about_the_ca() {
    let reasons = Reason::ALL.iter().filter(|reason| reason.is_kubernetes());
    let known = |reason: &Reason| open().but(|known| known.convergence.held = Some(held(*reason)));
    assert_eq!(reasons.map(|reason| told(&known(reason))).collect::<Vec<_>>(), ["open"; 2]);
}

#[test]
fn exactly_seven_reasons_are_bridged() {
    for reason in Reason::ALL {
        let standing = match reason {
            Reason::VaultUnreachable
            | Reason::VaultSealed
            | Reason::VaultRateLimited
            | Reason::VaultLoginDenied
            | Reason::VaultPermissionDenied
            | Reason::SigningRefused
            | Reason::ClockWrong => format!("open despite {reason}"),
            _ => "closed".to_owned(),
        };
        assert_eq!(told(&open().held(*reason)), standing);
    }
    assert_eq!(told(&bridged().but(|known| known.convergence.held = None)), "closed");
}

#[test]
fn what_an_answer_about_the_ca_has_contradicted_is_not_bridged() {
    let contradicted =
        |reason| open().held(reason).but(|known| known.convergence.contradicted = contradicted_by(Reason::RootDeleted));
    for reason in Reason::ALL {
        assert_eq!(told(&contradicted(*reason)), "closed", "{reason}");
    }
}

#[test]
fn with_deny_no_reason_is_bridged() {
    let policy = Policy { vault_unavailable: VaultUnavailable::Deny, ..POLICY };
    assert_eq!(told_by(&open(), &policy), "open");
    for reason in Reason::ALL {
        assert_eq!(told_by(&open().held(*reason), &policy), "closed", "{reason}");
    }
}

#[test]
fn only_the_root_last_verified_is_bridged() {
    let now_holds =
        |sound| bridged().but(|known| known.watched.published = Some(published(Owner::Ours, sound).facts()));
    assert_eq!(told(&now_holds(&R1_OTHER_CA)), "open despite VaultUnreachable");
    for sound in [&R2, &BOTH] {
        assert_eq!(told(&now_holds(sound)), "closed");
    }
    let last = |last| bridged().but(|known| known.convergence.last_verified = last);
    assert_eq!(told(&last(last_verified(&R2, 0))), "closed");
    assert_eq!(told(&last(None)), "closed");
}

#[test]
fn the_whole_set_of_roots_is_bridged_and_no_part_of_it() {
    let verified_both = Known::open(&BOTH).held(Reason::VaultUnreachable);
    let now_holds = |sound| {
        verified_both.clone().but(|known| known.watched.published = Some(published(Owner::Ours, sound).facts()))
    };
    // Both sign under root 1.
    assert_eq!(told(&now_holds(&BOTH)), "open despite VaultUnreachable");
    assert_eq!(told(&now_holds(&R1)), "closed");
}

#[test]
fn staleness_counts_by_the_clock_that_says_more() {
    let (day, more) = (Duration::from_secs(24 * 3600), Duration::from_nanos(1));
    // The wall clock stands still, or is set back, while the other goes on.
    for back in [0, 60, 299].map(SignedDuration::from_secs) {
        let at = |time| {
            bridged().but(|known| known.now = Clocks { wall: known.now.wall - back, boot: known.now.boot.plus(time) })
        };
        let kept_alive = |known: Known| known.but(|known| known.watched.heard = Some(known.now.boot));
        assert_eq!(told(&kept_alive(at(day))), "open despite VaultUnreachable");
        assert_eq!(told(&kept_alive(at(day + more))), "closed");
    }
    // The other stands still: its process was restored from a picture of its memory.
    let ahead = bridged().but(|known| known.now.wall += POLICY.max_staleness + SignedDuration::from_nanos(1));
    assert_eq!(told(&ahead), "closed");
}

#[test]
fn a_comparison_grows_old_by_the_clock_that_says_more() {
    let edge = Duration::from_secs(90);
    let at = |time| {
        open().but(|known| {
            known.now.boot = known.now.boot.plus(time);
            known.watched.heard = Some(known.now.boot);
        })
    };
    assert_eq!(told(&at(edge)), "open");
    assert_eq!(told(&at(edge + Duration::from_nanos(1))), "closed");
}

#[test]
fn a_pin_is_known_for_the_moment_in_which_it_was_read() {
    let read = |ago| bridged().but(|known| known.convergence.pin_read = Some(Boot(known.now.boot.0 - ago)));
    let knows = |known: &Known| known.snapshot().knows_the_pin(known.now);
    assert!(knows(&read(Duration::from_nanos(999_999_999))) && !knows(&read(Duration::from_secs(1))));
    assert!(!knows(&bridged().but(|known| known.convergence.pin_read = None)));
}

#[test]
fn an_outage_is_bridged_for_max_staleness() {
    let edge = POLICY.max_staleness;
    assert_eq!(told(&after(bridged(), edge)), "open despite VaultUnreachable");
    assert_eq!(told(&after(bridged(), edge + SignedDuration::from_nanos(1))), "closed");
}

#[test]
fn another_resource_version_is_another_cacerts() {
    let compared = verified(&R1, 0);
    let is_other = |published: Option<Published>| {
        Watched { published: published.as_ref().map(Published::facts), ..Watched::default() }.is_other_than(&compared)
    };
    assert!(!is_other(Some(published(Owner::Ours, &R2))));
    assert!(is_other(Some(Published::Absent)));
    assert!(is_other(None));
    let newer = Verified { resource_version: "1235".to_owned(), ..compared.clone() };
    let watched = Watched { published: Some(published(Owner::Ours, &R1).facts()), ..Watched::default() };
    assert!(watched.is_other_than(&newer));
}

#[test]
fn a_version_that_is_told_and_not_read_is_no_ground_to_open() {
    let told_of = |known: Known, version: &str| {
        known.but(|known| {
            known.watched.order.tell(Told::present(version.to_owned()));
        })
    };
    let told_another = |known| told_of(known, "1235");
    assert_eq!([told(&told_another(open())), told(&told_another(bridged()))], ["blind"; 2]);
    let just_read = open().but(|known| known.watched.read = Some(known.now.boot));
    assert_eq!(told(&told_another(just_read)), "blind");
    assert_eq!(told(&told_of(open(), "1234")), "open");
}
