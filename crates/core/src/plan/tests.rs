#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::*;
use crate::ca::check::At;
use crate::ca::fixtures::{NOW, YEARS, at, now};
use crate::reason::Held;
use crate::samples::{
    BOTH, FOREIGN_KEY, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, RECORD_1, UNSOUND, VERSION, assert_fit_for_users,
    every_combination, external_secrets, names, pin, present, published, stored as in_vault,
};

pub(super) const ROLES: [Role; 2] = [Role::Bootstrap, Role::Sync];
const CHANGES: [OnRootChange; 2] = [OnRootChange::Halt, OnRootChange::Replace];
const EXPIRED: Flaw = Flaw::Expired(At { file: "root-cert.pem", position: 1 }, Timestamp::UNIX_EPOCH);

const DELETED: Stored = Stored::Deleted { version: 2 };

fn unsound(flaw: Flaw) -> Stored {
    Stored::Unsound { version: 2, flaw }
}

fn owners() -> [Owner; 3] {
    [Owner::Ours, external_secrets(), Owner::Other]
}

fn every_stored() -> Vec<Stored> {
    vec![Stored::Absent, DELETED, unsound(UNSOUND), unsound(EXPIRED), in_vault(&R1), in_vault(&R2), in_vault(&BOTH)]
}

fn every_published() -> Vec<Published> {
    let sound = [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA, &R2, &BOTH].map(|sound| Ok(Arc::clone(sound)));
    let verdicts: Vec<_> = sound.into_iter().chain([Err(UNSOUND), Err(FOREIGN_KEY)]).collect();
    let copies = owners().into_iter().flat_map(|owner| {
        let copy = move |verdict: &Result<_, _>| present(owner.clone(), verdict.clone());
        verdicts.iter().map(copy).collect::<Vec<_>>()
    });
    [Published::Absent].into_iter().chain(copies).collect()
}

/// A pin on this root, with both trusted.
fn pin_on_both(root: Sha256) -> Pin {
    Pin { roots: BOTH.roots().clone(), ..pin(root) }
}

fn every_pin() -> [Option<Pin>; 5] {
    [None, Some(pin(R1.root)), Some(pin(R2.root)), Some(pin_on_both(R1.root)), Some(pin_on_both(R2.root))]
}

/// A step as one line.
pub(super) fn told(step: &Step) -> String {
    match step {
        Step::Bootstrap | Step::MakeRoot => step.as_str().to_owned(),
        Step::Certify { version, issuer, key, .. } => {
            let key = if key.is_some() { "the same" } else { "a new" };
            format!("{} by {issuer} for version {version} with {key} key", step.as_str())
        }
        Step::Publish { version, .. } => format!("publish version {version}"),
        Step::ForceSync { external_secret, held } => {
            format!("sync {}, hold {}", external_secret.as_deref().unwrap_or("-"), held.reason)
        }
        Step::Open { version, other_bytes: false, .. } => format!("open at version {version}"),
        Step::Open { version, other_bytes: true, .. } => format!("open at version {version} in other bytes"),
        Step::Hold(held) => format!("hold {}", held.reason),
    }
}

fn step_of(
    role: Role,
    on_root_change: OnRootChange,
    stored: &Stored,
    published: &Published,
    pin: Option<&Pin>,
) -> Step {
    Situation { role, on_root_change, stored, published, pin, signer: None, now: now(), names: &names() }.step()
}

/// The step in both roles and with both answers to another root, which must be the same.
fn in_any_role(stored: &Stored, published: &Published, pin: Option<&Pin>) -> String {
    let steps: BTreeSet<String> = ROLES
        .into_iter()
        .flat_map(|role| CHANGES.map(|change| told(&step_of(role, change, stored, published, pin))))
        .collect();
    assert_eq!(steps.len(), 1, "{stored:?} {published:?} {pin:?}: {steps:?}");
    steps.into_iter().next().unwrap()
}

/// The step in both roles, which must be the same.
fn in_both_roles(change: OnRootChange, stored: &Stored, published: &Published, pin: Option<&Pin>) -> String {
    let [bootstrap, sync] = ROLES.map(|role| told(&step_of(role, change, stored, published, pin)));
    assert_eq!(bootstrap, sync, "{stored:?} {published:?} {pin:?}");
    sync
}

// The rows of the convergence table, in their order.

#[test]
fn a_root_that_vault_has_lost_is_never_made_again() {
    for published in every_published() {
        for pin in every_pin().iter().flatten() {
            assert_eq!(in_any_role(&Stored::Absent, &published, Some(pin)), "hold RootDeleted", "{published:?}");
        }
    }
}

#[test]
fn bootstrap_makes_a_root_where_there_is_none_at_all() {
    for change in CHANGES {
        let step = step_of(Role::Bootstrap, change, &Stored::Absent, &Published::Absent, None);
        assert_eq!(told(&step), "bootstrap");
    }
}

#[test]
fn bootstrap_makes_no_root_beside_a_cacerts_that_vault_does_not_know() {
    for published in every_published().into_iter().skip(1) {
        for change in CHANGES {
            let step = step_of(Role::Bootstrap, change, &Stored::Absent, &published, None);
            assert_eq!(told(&step), "hold CacertsUnknown", "{published:?}");
        }
    }
}

#[test]
fn sync_waits_for_a_root_and_makes_none() {
    for published in every_published() {
        for change in CHANGES {
            let step = step_of(Role::Sync, change, &Stored::Absent, &published, None);
            assert_eq!(told(&step), "hold RootMissing", "{published:?}");
        }
    }
}

#[test]
fn a_deleted_root_holds_in_either_role() {
    for published in every_published() {
        for pin in every_pin() {
            assert_eq!(in_any_role(&DELETED, &published, pin.as_ref()), "hold RootDeleted");
        }
    }
}

#[test]
fn a_root_that_fails_the_strict_check_holds() {
    for published in every_published() {
        for pin in every_pin() {
            assert_eq!(in_any_role(&unsound(UNSOUND), &published, pin.as_ref()), "hold RootInvalid");
            assert_eq!(in_any_role(&unsound(EXPIRED), &published, pin.as_ref()), "hold RootExpired");
        }
    }
}

#[test]
fn a_root_other_than_the_pinned_one_holds_whatever_is_published() {
    let pin = pin(R2.root);
    for published in every_published() {
        assert_eq!(in_both_roles(OnRootChange::Halt, &in_vault(&R1), &published, Some(&pin)), "hold RootChanged");
    }
}

#[test]
fn replace_goes_on_as_if_there_were_no_pin() {
    let (pin, stored) = (pin(R2.root), in_vault(&R1));
    for published in every_published() {
        let pinned = in_both_roles(OnRootChange::Replace, &stored, &published, Some(&pin));
        assert_eq!(pinned, in_both_roles(OnRootChange::Replace, &stored, &published, None), "{published:?}");
    }
}

#[test]
fn a_pinned_root_among_several_in_vault_does_not_hold() {
    for pin in [pin(R1.root), pin_on_both(R1.root), pin_on_both(R2.root)] {
        assert_eq!(in_any_role(&in_vault(&BOTH), &Published::Absent, Some(&pin)), "publish version 3");
    }
}

#[test]
fn a_root_that_workloads_do_not_trust_yet_does_not_sign_whatever_is_published() {
    // Both are trusted in Vault, and root 1 signs; workloads trust root 2 alone, under which they were signed.
    let pin = pin(R2.root);
    for published in every_published() {
        let step = step_of(Role::Sync, OnRootChange::Halt, &in_vault(&BOTH), &published, Some(&pin));
        assert_eq!(told(&step), "hold RootChanged", "{published:?}");
        let Step::Hold(held) = step else { panic!("not held") };
        assert!(held.sentence().contains("do not trust yet"), "{held:?}");
        assert!(held.sentence().contains(&R1.root.openssl()) && held.sentence().contains(&R2.root.openssl()));
    }
}

#[test]
fn a_change_of_the_root_departs_from_what_workloads_trust_in_two_ways() {
    let cases = [
        (pin(R1.root), &R1, None),
        (pin(R1.root), &R1_OTHER_CA, None),
        // A root is added, and the old one signs; then the new one signs; then the old one goes.
        (pin(R1.root), &BOTH, None),
        (pin_on_both(R2.root), &BOTH, None),
        (pin_on_both(R2.root), &R2, None),
        (pin_on_both(R1.root), &R1, None),
        // Added and signing in one version.
        (pin(R2.root), &BOTH, Some(Departure::SignsTooEarly)),
        // Gone before another one signed.
        (pin_on_both(R1.root), &R2, Some(Departure::Dropped)),
        (pin(R1.root), &R2, Some(Departure::Dropped)),
    ];
    for (pin, stored, departure) in cases {
        assert_eq!(pin.departure(stored), departure, "{pin:?} {stored:?}");
    }
}

#[test]
fn an_answer_contradicts_the_pin_unless_it_is_of_the_very_same_roots() {
    let by = |stored: &Stored, pin: &Pin| {
        let answers: BTreeSet<_> = every_published()
            .iter()
            .flat_map(|published| ROLES.map(|role| CHANGES.map(|change| (published, role, change))))
            .flatten()
            .map(|(published, role, on_root_change)| {
                let (pin, names) = (Some(pin), names());
                Situation { role, on_root_change, stored, published, pin, signer: None, now: now(), names: &names }
                    .contradiction()
            })
            .collect();
        // Neither the role, nor `replace`, nor `cacerts` has a say in it.
        assert_eq!(answers.len(), 1, "{stored:?} {pin:?}");
        answers.into_iter().next().unwrap()
    };
    let (alone, both) = (pin(R1.root), pin_on_both(R1.root));
    for pin in [&alone, &both] {
        assert_eq!(by(&Stored::Absent, pin), Some(Reason::RootDeleted));
        assert_eq!(by(&DELETED, pin), Some(Reason::RootDeleted));
        assert_eq!(by(&unsound(UNSOUND), pin), Some(Reason::RootInvalid));
        assert_eq!(by(&unsound(EXPIRED), pin), Some(Reason::RootExpired));
        assert_eq!(by(&in_vault(&R2), pin), Some(Reason::RootChanged));
    }
    // Other bytes, another signing CA and another version are no other root.
    for same in [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA] {
        assert_eq!(by(&in_vault(same), &alone), None);
        assert_eq!(by(&in_vault(same), &both), Some(Reason::RootChanged));
    }
    assert_eq!(by(&in_vault(&BOTH), &alone), Some(Reason::RootChanged));
    assert_eq!(by(&in_vault(&BOTH), &both), None);
}

#[test]
fn without_a_pin_there_is_nothing_to_contradict() {
    in_every_situation(|on, _| assert!(on.pin.is_some() || on.contradiction().is_none(), "{on:?}"));
}

#[test]
fn a_pin_is_written_if_it_says_something_else_or_ends_a_contradiction_or_is_old() {
    let (hour, later) = (SignedDuration::from_hours(1), |seconds| now() + SignedDuration::from_secs(seconds));
    let old = pin(R1.root);
    let news = |agreed: &Pin, read: Option<&Pin>| agreed.is_news_to(read, hour);
    let at = |seconds| Pin { verified_at: Some(later(seconds)), ..old.clone() };
    assert_eq!(news(&old, None), News::All);
    assert_eq!([news(&at(3599), Some(&old)), news(&at(0), Some(&old))], [News::None; 2]);
    // Old, of a clock that was ahead, or without a date.
    assert_eq!([news(&at(3600), Some(&old)), news(&at(-1), Some(&old))], [News::Date; 2]);
    assert_eq!(news(&old, Some(&Pin { verified_at: None, ..old.clone() })), News::Date);
    for other in [
        pin(R2.root),
        pin_on_both(R1.root),
        Pin { vault_version: Some(VERSION + 1), ..old.clone() },
        Pin { contradicted: Some(Contradiction { by: Reason::RootDeleted, at: now() }), ..old.clone() },
    ] {
        assert_eq!(news(&old, Some(&other)), News::All, "{other:?}");
    }
}

#[test]
fn an_absent_cacerts_is_published() {
    for root in [&R1, &R1_OTHER_CA, &BOTH] {
        for pin in [None, Some(pin(R1.root))] {
            assert_eq!(in_any_role(&in_vault(root), &Published::Absent, pin.as_ref()), "publish version 3");
        }
    }
}

#[test]
fn what_external_secrets_manages_opens_if_it_has_the_same_roots() {
    for sound in [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA] {
        let step = in_any_role(&in_vault(&R1), &published(external_secrets(), sound), None);
        assert_eq!(step, "open at version 3");
    }
}

#[test]
fn what_external_secrets_manages_is_otherwise_synced_and_never_written() {
    for verdict in [Ok(Arc::clone(&R2)), Ok(Arc::clone(&BOTH)), Err(UNSOUND), Err(FOREIGN_KEY)] {
        let step = |owner| in_any_role(&in_vault(&R1), &present(owner, verdict.clone()), None);
        assert_eq!(step(external_secrets()), "sync cacerts, hold CacertsManagedElsewhere");
        assert_eq!(step(Owner::ExternalSecrets(None)), "sync -, hold CacertsManagedElsewhere");
    }
}

#[test]
fn ours_with_the_same_certificates_opens() {
    let step = |sound| in_any_role(&in_vault(&R1), &published(Owner::Ours, sound), None);
    assert_eq!(step(&R1), "open at version 3");
    assert_eq!(step(&R1_OTHER_BYTES), "open at version 3 in other bytes");
}

#[test]
fn ours_otherwise_is_mended_and_follows_vault() {
    for verdict in [Ok(&R1_OTHER_CA), Ok(&R2), Ok(&BOTH), Err(UNSOUND), Err(EXPIRED)] {
        let published = present(Owner::Ours, verdict.map(|sound| Arc::clone(sound)));
        assert_eq!(in_any_role(&in_vault(&R1), &published, None), "publish version 3", "{published:?}");
    }
}

#[test]
fn what_is_immutable_is_not_written_in_vain() {
    let immutable = |owner, verdict| {
        let Published::Present(copy) = present(owner, verdict) else { unreachable!() };
        Published::Present(Arc::new(Copy { immutable: true, ..Copy::clone(&copy) }))
    };
    for verdict in [Ok(&R1_OTHER_CA), Ok(&R2), Err(UNSOUND)] {
        let ours = immutable(Owner::Ours, verdict.map(|sound| Arc::clone(sound)));
        assert_eq!(in_any_role(&in_vault(&R1), &ours, None), "hold KubernetesForbidden", "{ours:?}");
    }
    let other = immutable(Owner::Other, Ok(Arc::clone(&R2)));
    let step = |change| in_both_roles(change, &in_vault(&R1), &other, None);
    assert_eq!(step(OnRootChange::Halt), "hold RootChanged");
    assert_eq!(step(OnRootChange::Replace), "hold KubernetesForbidden");
    // What need not be written may be as it is.
    for owner in owners() {
        assert_eq!(in_any_role(&in_vault(&R1), &immutable(owner, Ok(Arc::clone(&R1))), None), "open at version 3");
    }
}

#[test]
fn ours_with_a_foreign_key_is_not_written_for_ever() {
    let published = present(Owner::Ours, Err(FOREIGN_KEY));
    assert_eq!(in_any_role(&in_vault(&R1), &published, None), "hold CacertsInvalid");
}

#[test]
fn nothing_is_published_beside_revocation_lists_that_do_not_fit() {
    let with = |owner, verdict: Result<&Arc<Sound>, Flaw>, crl: &[u8]| {
        let Published::Present(copy) = present(owner, verdict.map(Arc::clone)) else { unreachable!() };
        let beside = Beside { crl: Some(crl.to_vec()), tls: false };
        Published::Present(Arc::new(Copy { beside, ..Copy::clone(&copy) }))
    };
    // What is there fits its lists; Vault's next intermediate would not.
    let published = with(Owner::Ours, Ok(&R1_OTHER_CA), b"no list");
    let Step::Hold(held) = step_of(Role::Sync, OnRootChange::Halt, &in_vault(&R1), &published, None) else {
        panic!("not held");
    };
    assert_eq!(held.reason, Reason::CacertsInvalid);
    assert!(held.sentence().contains("ca-crl.pem"), "{}", held.sentence());
    assert_eq!(in_any_role(&in_vault(&R1), &with(Owner::Ours, Ok(&R1_OTHER_CA), b""), None), "publish version 3");
    // Nor where the lists are why what is there is not sound.
    let published = with(Owner::Ours, Err(Flaw::CrlMalformed), b"no list");
    assert_eq!(in_any_role(&in_vault(&R1), &published, None), "hold CacertsInvalid");
    // What is open stays so.
    assert_eq!(in_any_role(&in_vault(&R1), &with(Owner::Ours, Ok(&R1), b""), None), "open at version 3");
}

#[test]
fn four_files_are_never_written_beside_a_tls_secret_that_istiod_prefers() {
    for (owner, sound) in [(Owner::Other, &R2), (Owner::Ours, &R2)] {
        let Published::Present(copy) = published(owner, sound) else { unreachable!() };
        let beside = Beside { crl: None, tls: true };
        let published = Published::Present(Arc::new(Copy { beside, ..Copy::clone(&copy) }));
        let step = step_of(Role::Sync, OnRootChange::Replace, &in_vault(&R1), &published, None);
        let Step::Hold(held) = step else { panic!("not held") };
        assert_eq!(held.reason, Reason::CacertsInvalid);
        assert!(held.sentence().contains("tls.crt"), "{}", held.sentence());
    }
}

#[test]
fn what_is_not_ours_and_not_sound_holds() {
    for flaw in [UNSOUND, EXPIRED, FOREIGN_KEY] {
        let published = present(Owner::Other, Err(flaw));
        assert_eq!(in_any_role(&in_vault(&R1), &published, None), "hold CacertsInvalid");
    }
}

#[test]
fn what_is_not_ours_opens_with_any_signing_ca_under_the_same_roots() {
    for sound in [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA] {
        let step = in_any_role(&in_vault(&R1), &published(Owner::Other, sound), None);
        assert_eq!(step, "open at version 3");
    }
}

#[test]
fn what_is_not_ours_is_left_alone_with_other_roots_unless_told_to_replace() {
    for sound in [&R2, &BOTH] {
        let published = published(Owner::Other, sound);
        let step = |change| in_both_roles(change, &in_vault(&R1), &published, None);
        assert_eq!(step(OnRootChange::Halt), "hold RootChanged");
        assert_eq!(step(OnRootChange::Replace), "publish version 3");
    }
}

/// Every combination of everything that a step is decided on.
fn in_every_situation(mut look: impl FnMut(Situation<'_>, Step)) -> usize {
    let (names, stored, published, pins) = (names(), every_stored(), every_published(), every_pin());
    every_combination(|pick| {
        let situation = Situation {
            role: *pick.of(&ROLES),
            on_root_change: *pick.of(&CHANGES),
            stored: pick.of(&stored),
            published: pick.of(&published),
            pin: pick.of(&pins).as_ref(),
            signer: None,
            now: now(),
            names: &names,
        };
        look(situation, situation.step());
    })
}

#[test]
fn no_situation_leads_to_a_second_root_or_a_split_mesh() {
    let mut reasons = BTreeSet::new();
    let count = in_every_situation(|on, step| {
        let is_lost =
            matches!(on.stored, Stored::Deleted { .. }) || matches!(on.stored, Stored::Absent) && on.pin.is_some();
        let halt = on.on_root_change == OnRootChange::Halt;
        let sound_stored = match on.stored {
            Stored::Sound { sound, .. } => Some(sound),
            _ => None,
        };
        // With halt, nothing is written or opened that the pin speaks against.
        let pin_allows = |stored: &Facts| {
            !halt || on.pin.is_none_or(|pin| stored.roots().contains(&pin.root) && pin.roots.contains(&stored.root))
        };
        match &step {
            Step::Bootstrap => {
                assert_eq!(on.role, Role::Bootstrap);
                assert!(
                    matches!((on.stored, on.published, on.pin), (Stored::Absent, Published::Absent, None)),
                    "{on:?}"
                );
            }
            Step::MakeRoot | Step::Certify { .. } => panic!("{on:?}: {step:?}"),
            Step::Publish { version, sound, state } => {
                assert_eq!(*state, None);
                assert!(
                    Arc::ptr_eq(sound, sound_stored.unwrap()) && *version == VERSION && pin_allows(sound),
                    "{on:?}"
                );
                if let Published::Present(copy) = on.published {
                    let may_be_written = match copy.owner {
                        Owner::Ours => true,
                        Owner::Other => !halt && copy.verdict.is_ok(),
                        Owner::ExternalSecrets(_) => false,
                    };
                    assert!(may_be_written, "{on:?}");
                }
            }
            Step::ForceSync { .. } => {
                let Published::Present(copy) = on.published else { panic!("{on:?}") };
                assert_eq!(copy.owner, external_secrets());
                assert!(pin_allows(sound_stored.unwrap()), "{on:?}");
            }
            Step::Open { version, stored, published, other_bytes } => {
                let Published::Present(copy) = on.published else { panic!("{on:?}") };
                let sound_stored = sound_stored.unwrap();
                assert!(Arc::ptr_eq(stored, sound_stored.facts()) && *version == VERSION, "{on:?}");
                assert!(Arc::ptr_eq(published, copy.verdict.as_ref().unwrap()), "{on:?}");
                assert!(stored.same_roots(published) && pin_allows(stored), "{on:?}");
                assert!(copy.owner != Owner::Ours || stored.same_ca(published), "{on:?}");
                assert_eq!(*other_bytes, copy.owner == Owner::Ours && !sound_stored.same_bytes(published), "{on:?}");
            }
            Step::Hold(_) => {}
        }
        if let Step::Hold(held) | Step::ForceSync { held, .. } = &step {
            assert_eq!(held.reason == Reason::RootDeleted, is_lost, "{on:?}");
            reasons.insert(held.reason);
        } else {
            assert!(!is_lost, "{on:?}: {step:?}");
        }
    });
    assert_eq!(count, 2 * 2 * 7 * (1 + 3 * 7) * 5);
    let here = [
        Reason::RootMissing,
        Reason::RootDeleted,
        Reason::RootInvalid,
        Reason::RootExpired,
        Reason::RootChanged,
        Reason::CacertsUnknown,
        Reason::CacertsManagedElsewhere,
        Reason::CacertsInvalid,
    ];
    assert_eq!(reasons, BTreeSet::from(here));
}

fn next_step(reason: Reason) -> &'static [&'static str] {
    match reason {
        Reason::RootMissing => &["start istiod in the bootstrap cluster"],
        Reason::RootDeleted => &["restore Vault's data", "bring it back with `vault kv undelete` or from a backup"],
        Reason::RootInvalid | Reason::RootExpired => &[" and write it as a new version"],
        Reason::RootChanged => {
            &["accept it with --on-root-change replace", "accept the new one with --on-root-change replace"]
        }
        Reason::CacertsUnknown => &["into Vault with `", "delete the Secret to have a new root made"],
        Reason::CacertsManagedElsewhere => &["look at its ExternalSecret's conditions"],
        Reason::CacertsInvalid => &["only where no mesh runs on it, delete it"],
        other => panic!("{other} is not decided here"),
    }
}

#[test]
fn every_hold_is_one_constant_sentence_with_a_next_step_and_no_key() {
    let mut seen = BTreeSet::new();
    in_every_situation(|on, step| {
        let (Step::Hold(held) | Step::ForceSync { held, .. }) = step else { return };
        let (Step::Hold(again) | Step::ForceSync { held: again, .. }) = on.step() else { panic!("{on:?}") };
        assert_eq!(held, again);
        seen.insert((held.reason, held.message("nas")));
    });
    for (reason, message) in seen {
        assert_fit_for_users(&message);
        assert!(message.starts_with(&format!("{reason}: cluster nas: ")), "{message}");
        assert!(next_step(reason).iter().any(|next| message.contains(next)), "{message}");
    }
}

/// Users, runbooks and events know them by these words.
#[test]
fn the_sentences_of_all_holds_are_these() {
    let mut said = BTreeSet::new();
    let told = |held: &Held| {
        let mut text = held.sentence();
        for (sound, name) in [(&*R1, "R1"), (&*R2, "R2"), (&*BOTH, "BOTH")] {
            text = text.replace(&sound.root.openssl(), name);
        }
        format!("{}: {text}", held.reason)
    };
    in_every_situation(|on, step| {
        said.extend(step.held().map(told));
        said.extend(every_mesh().iter().filter_map(|mesh| on.beside(mesh, step.clone()).held().map(told)));
    });
    said.insert(told(&left_behind(&names())));
    let said: Vec<_> = said.into_iter().collect();
    assert_eq!(said.join("\n"), include_str!("sentences.txt").trim_end());
}

fn every_mesh() -> [Mesh; 5] {
    let serves = |sound: &Sound| Mesh::Serves { first: sound.root, roots: sound.roots().clone() };
    [Mesh::Absent, serves(&R1), serves(&R2), serves(&BOTH), Mesh::Unreadable]
}

#[test]
fn over_a_root_that_the_mesh_has_and_vault_has_not_nothing_is_made_or_published() {
    let mut held_back = BTreeSet::new();
    in_every_situation(|on, step| {
        for mesh in every_mesh() {
            let beside = on.beside(&mesh, step.clone());
            let vaults: Option<&BTreeSet<Sha256>> = match on.stored {
                Stored::Sound { sound, .. } => Some(sound.roots()),
                _ => None,
            };
            let fits = match &mesh {
                Mesh::Absent => true,
                Mesh::Unreadable => false,
                Mesh::Serves { roots, .. } => vaults.is_some_and(|vaults| !vaults.is_disjoint(roots)),
            };
            if fits || on.on_root_change == OnRootChange::Replace || !step.brings_root() {
                assert_eq!(told(&beside), told(&step), "{mesh:?}");
                continue;
            }
            let Step::Hold(held) = beside else { panic!("{} beside {mesh:?}", told(&beside)) };
            assert_eq!(held.reason, Reason::MeshOnOtherRoot);
            assert_fit_for_users(&held.message("nas"));
            held_back.insert((on.role.as_str(), step.as_str()));
        }
    });
    assert_eq!(
        held_back.into_iter().collect::<Vec<_>>(),
        [("bootstrap", "bootstrap"), ("bootstrap", "publish"), ("sync", "publish")]
    );
}

#[test]
fn the_root_of_the_mesh_is_named_with_the_ways_out() {
    let mesh = Mesh::Serves { first: R2.root, roots: R2.roots().clone() };
    for (stored, running) in [(Stored::Absent, "gate adopt`"), (in_vault(&R1), "explain MeshOnOtherRoot`")] {
        let names = names();
        let on = Situation {
            role: Role::Bootstrap,
            on_root_change: OnRootChange::Halt,
            stored: &stored,
            published: &Published::Absent,
            pin: None,
            signer: None,
            now: now(),
            names: &names,
        };
        let Step::Hold(held) = on.beside(&mesh, on.step()) else { panic!("not held") };
        for says in [
            &R2.root.openssl(),
            "istio-system/istio-ca-root-cert",
            running,
            "delete that ConfigMap",
            "--on-root-change replace",
        ] {
            assert!(held.sentence().contains(says), "{says} is not in {}", held.sentence());
        }
    }
}

#[test]
fn a_changed_root_is_told_with_both_fingerprints() {
    let (pin, foreign) = (pin(R2.root), published(Owner::Other, &R2));
    for (published, pin) in [(&Published::Absent, Some(&pin)), (&foreign, None)] {
        let Step::Hold(held) = step_of(Role::Sync, OnRootChange::Halt, &in_vault(&R1), published, pin) else {
            panic!("not held");
        };
        assert!(held.sentence().contains(&R1.root.openssl()) && held.sentence().contains(&R2.root.openssl()));
    }
}

#[test]
fn what_vault_holds_is_checked_at_the_time_of_reading() {
    let bundle = R1.bundle.to_record();
    let Stored::Sound { version: 7, sound } = stored(7, &bundle, now()) else { panic!("not sound") };
    assert_eq!(sound.root, R1.root);
    let Stored::Unsound { version: 7, flaw } = stored(7, &bundle, at(NOW + 2 * YEARS)) else { panic!("not expired") };
    assert!(flaw.is_expired());
    let mut keyless = bundle;
    keyless.remove("key.pem");
    let Stored::Unsound { version: 7, flaw } = stored(7, &keyless, now()) else {
        panic!("not missing");
    };
    assert_eq!(flaw, Flaw::Missing("key.pem"));
}

#[test]
fn a_root_that_is_not_valid_yet_is_invalid_and_not_expired() {
    let early = stored(2, &R1.bundle.to_record(), at(NOW - 24 * 3600));
    assert_eq!(in_any_role(&early, &Published::Absent, None), "hold RootInvalid");
}

#[test]
fn what_vault_holds_tells_the_roots_that_it_trusts_if_it_is_sound() {
    let signing = Stored::Signing { version: VERSION, record: Arc::clone(&RECORD_1) };
    assert_eq!(in_vault(&BOTH).roots(), Some(&[R1.root, R2.root].into()));
    assert_eq!(signing.roots(), Some(&[R1.root].into()));
    for none in [Stored::Absent, DELETED, unsound(UNSOUND)] {
        assert_eq!(none.roots(), None, "{none:?}");
    }
}

#[test]
fn nothing_is_published_beside_what_istiod_generated() {
    for owner in [Owner::Ours, Owner::Other] {
        for change in CHANGES {
            let published = present(owner.clone(), Err(Flaw::Foreign(GENERATED)));
            let step = step_of(Role::Sync, change, &in_vault(&R1), &published, None);
            assert_eq!(told(&step), "hold CacertsInvalid", "{owner:?} {change:?}");
        }
    }
}
