#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::tests::{ROLES, told};
use super::*;
use crate::ca::fixtures::{Ca, HOUR, NOW, YEARS, at, now};
use crate::ca::record::{CHAIN, ISSUER, ROTATION};
use crate::ca::signer::SharedKey;
use crate::plan::{Mesh, Pin, Role, Stored};
use crate::samples::{
    UNSOUND, VERSION, assert_fit_for_users, every_combination, external_secrets, names, pin, present,
};

const DAY: i64 = 24 * HOUR;

static OLD: LazyLock<Ca> = LazyLock::new(|| Ca::root("Old"));
static NEW: LazyLock<Ca> = LazyLock::new(|| Ca::root("New"));
static CROSS: LazyLock<Ca> = LazyLock::new(|| OLD.cross_sign(&NEW));
static KEY: LazyLock<SharedKey> = LazyLock::new(|| Arc::new(SignerKey::generate().unwrap()));
static TERMS: LazyLock<SignerTerms> =
    LazyLock::new(|| SignerTerms { cluster: "nas".to_owned(), life: Duration::from_hours(90 * 24) });

fn pem(cas: &[&Ca]) -> String {
    cas.iter().map(|ca| ca.certificate.pem()).collect()
}

fn root(ca: &Ca) -> Sha256 {
    Sha256::of(ca.certificate.der())
}

/// The records of a change from the old root to the new one, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Before,
    Trusted,
    Switched,
    SwitchedWithoutCross,
    Dropped,
    /// As a rescue begins: both are trusted, and nobody signs yet.
    Nobody,
}
use At::{Before, Dropped, Nobody, Switched, SwitchedWithoutCross, Trusted};

const EVERYWHERE: [At; 6] = [Before, Trusted, Switched, SwitchedWithoutCross, Dropped, Nobody];

fn record(at: At) -> Arc<SigningRecord> {
    let (old, new) = ([&*OLD], [&*NEW]);
    let both = [&*OLD, &*NEW];
    let (roots, issuer, chain): (&[&Ca], _, &[&Ca]) = match at {
        Before => (&old, Some("root-1"), &[]),
        Trusted => (&both, Some("root-1"), &[]),
        Switched => (&both, Some("root-2"), &[&CROSS]),
        SwitchedWithoutCross => (&both, Some("root-2"), &[]),
        Dropped => (&new, Some("root-2"), &[]),
        Nobody => (&both, None, &[]),
    };
    let mut data: Map<String, Value> = [("root-cert.pem".to_owned(), json!(pem(roots)))].into_iter().collect();
    data.insert(CHAIN.to_owned(), json!(pem(chain)));
    data.insert(ROTATION.to_owned(), json!({}));
    data.extend(issuer.map(|issuer| (ISSUER.to_owned(), json!(issuer))));
    Arc::new(SigningRecord::parse(&data, now()).unwrap())
}

fn in_vault(at: At) -> Stored {
    Stored::Signing { version: VERSION, record: record(at) }
}

/// The root that signs then.
fn signing(at: At) -> &'static Ca {
    match at {
        Before | Trusted | Nobody => &OLD,
        Switched | SwitchedWithoutCross | Dropped => &NEW,
    }
}

/// The signer of that record, of this cluster's key.
fn signer(at: At) -> Arc<Sound> {
    let ca = signing(at);
    let name = common_name(&TERMS.cluster);
    let answer = ca.certify(&KEY.request(&name).unwrap(), &name, |_| ());
    let asked = Asked { key: &KEY, common_name: &name, life: TERMS.life, at: now() };
    Arc::new(certified(&record(at), root(ca), &answer, &asked).unwrap())
}

/// A `cacerts` that the gate has published by that record.
fn ours(at: At) -> Published {
    changed(&present(Owner::Ours, Ok(signer(at))), |copy| copy.annotated_state = Some(record(at).state()))
}

fn changed(published: &Published, change: impl FnOnce(&mut Copy)) -> Published {
    let Published::Present(copy) = published else { panic!("absent") };
    let mut copy = Copy::clone(copy);
    change(&mut copy);
    Published::Present(Arc::new(copy))
}

/// A situation in which most is as it usually is.
struct Case {
    stored: Stored,
    published: Published,
    pin: Option<Pin>,
    on_root_change: OnRootChange,
    role: Role,
    signs: bool,
    later: i64,
}

impl Case {
    fn of(at: At, published: Published) -> Self {
        let (pin, on_root_change, role) = (None, OnRootChange::Halt, Role::Sync);
        Self { stored: in_vault(at), published, pin, on_root_change, role, signs: true, later: 0 }
    }

    fn look<T>(&self, look: impl FnOnce(Situation<'_>) -> T) -> T {
        look(Situation {
            role: self.role,
            on_root_change: self.on_root_change,
            stored: &self.stored,
            published: &self.published,
            pin: self.pin.as_ref(),
            signer: self.signs.then_some(&*TERMS),
            now: at(NOW + self.later),
            names: &names(),
        })
    }

    fn step(&self) -> Step {
        self.look(|on| on.step())
    }

    fn told(&self) -> String {
        told(&self.step())
    }
}

fn step(at: At, published: Published) -> String {
    Case::of(at, published).told()
}

/// A pin on one root, with all of that record's trusted.
fn pinned(ca: &Ca, at: At) -> Option<Pin> {
    Some(Pin { roots: record(at).roots().clone(), ..pin(root(ca)) })
}

const NEW_KEY: &str = "certify by root-1 for version 3 with a new key";
const SAME_KEY: &str = "certify by root-1 for version 3 with the same key";
const OPEN: &str = "open at version 3";

// The rows of the table, in their order.

#[test]
fn bootstrap_has_the_root_made_in_the_pki_engine_where_there_is_one() {
    let case = |role, signs| Case { stored: Stored::Absent, role, signs, ..Case::of(Before, Published::Absent) };
    assert_eq!(case(Role::Bootstrap, true).told(), "make_root");
    assert_eq!(case(Role::Bootstrap, false).told(), "bootstrap");
    assert_eq!(case(Role::Sync, true).told(), "hold RootMissing");
    let present = Case { published: ours(Before), ..case(Role::Bootstrap, true) };
    assert_eq!(present.told(), "hold CacertsUnknown");
    assert_eq!(Case { pin: pinned(&OLD, Before), ..case(Role::Bootstrap, true) }.told(), "hold RootDeleted");
}

#[test]
fn nothing_is_made_or_certified_over_a_mesh_on_another_root() {
    let mesh = Mesh::Serves { first: Sha256([1; 32]), roots: [Sha256([1; 32])].into() };
    let absent = Case { stored: Stored::Absent, role: Role::Bootstrap, ..Case::of(Before, Published::Absent) };
    for case in [absent, Case::of(Before, Published::Absent)] {
        let step = case.step();
        assert!(step.brings_root());
        assert_eq!(told(&case.look(|on| on.beside(&mesh, step.clone()))), "hold MeshOnOtherRoot");
        let same = Mesh::Serves { first: root(&OLD), roots: record(Before).roots().clone() };
        let kept = case.look(|on| on.beside(&same, step.clone()));
        assert_eq!(told(&kept) == told(&step), matches!(step, Step::Certify { .. }));
    }
}

#[test]
fn where_there_is_no_cacerts_a_new_key_is_certified() {
    assert_eq!(step(Before, Published::Absent), NEW_KEY);
}

#[test]
fn where_its_key_cannot_be_used_a_new_key_is_certified() {
    // The shared kind's: the root itself signs, with the key that all clusters have.
    assert_eq!(step(Before, present(Owner::Ours, Ok(shared()))), NEW_KEY);
    assert_eq!(step(Before, present(Owner::Ours, Err(UNSOUND))), NEW_KEY);
}

fn shared() -> Arc<Sound> {
    Arc::new(check(OLD.bundle(), now()).unwrap())
}

#[test]
fn what_is_as_the_record_wants_it_is_open() {
    for place in EVERYWHERE {
        assert_eq!(step(place, ours(place)), OPEN, "{place:?}");
    }
}

#[test]
fn a_signer_is_renewed_with_its_key_from_two_thirds_of_its_life_on() {
    for (later, expected) in [
        (59 * DAY, OPEN.to_owned()),
        (62 * DAY, SAME_KEY.replace("certify", "renew")),
        (89 * DAY, SAME_KEY.replace("certify", "renew")),
    ] {
        let case = Case { later, ..Case::of(Before, ours(Before)) };
        assert_eq!(case.told(), expected, "{later}");
        assert!(case.step().agrees() && !case.step().brings_root());
    }
    let open = [
        Case { signs: false, ..Case::of(Before, ours(Before)) },
        Case::of(Before, changed(&ours(Before), |copy| copy.immutable = true)),
        Case::of(Nobody, ours(Nobody)),
    ];
    for case in open {
        assert_eq!(Case { later: 62 * DAY, ..case }.told(), OPEN, "nobody can renew it, and it is good");
    }
}

#[test]
fn a_signer_past_its_end_is_certified_anew_with_the_same_key() {
    let files = Arc::clone(&signer(Before).bundle);
    let past = changed(&ours(Before), |copy| (copy.verdict, copy.unsound) = (Err(UNSOUND), Some(files)));
    assert_eq!(Case { later: 91 * DAY, ..Case::of(Before, past) }.told(), SAME_KEY);
}

#[test]
fn otherwise_the_same_key_is_certified_by_the_issuer() {
    let certify = "certify by root-2 for version 3 with the same key";
    assert_eq!(step(Trusted, ours(Before)), SAME_KEY);
    assert_eq!(step(Switched, ours(Trusted)), certify);
    assert_eq!(step(SwitchedWithoutCross, ours(Trusted)), certify);
    assert_eq!(step(Dropped, ours(Switched)), certify);
    // And back, as an abort leads.
    assert_eq!(step(Trusted, ours(Switched)), SAME_KEY);
    assert_eq!(step(Before, ours(Trusted)), SAME_KEY);
}

#[test]
fn a_signer_that_was_not_certified_for_this_state_is_certified_anew() {
    for state in [None, Some(record(Trusted).state())] {
        assert_eq!(step(Before, changed(&ours(Before), |copy| copy.annotated_state = state)), SAME_KEY);
    }
}

#[test]
fn roots_in_other_bytes_are_not_what_the_record_wants() {
    let published = changed(&ours(Before), |copy| {
        let files = &copy.verdict.as_ref().unwrap().bundle;
        let bundle = Bundle { root_cert: [&files.root_cert[..], b"\n"].concat(), ..Bundle::clone(files) };
        copy.verdict = Ok(Arc::new(check(bundle, now()).unwrap()));
    });
    assert_eq!(step(Before, published), SAME_KEY);
}

#[test]
fn without_an_issuer_the_signer_stays_and_gets_the_records_roots() {
    let case = Case::of(Nobody, ours(Before));
    let Step::Publish { version: VERSION, sound, state } = case.step() else { panic!("{:?}", case.step()) };
    assert_eq!(state, Some(record(Nobody).state()));
    assert_eq!(sound.bundle.root_cert, record(Nobody).root_cert);
    assert_eq!(sound.signing_ca, signer_of(&case.published).signing_ca);
    assert_eq!(step(Nobody, Published::Absent), "hold SigningRefused");
    assert_eq!(step(Nobody, present(Owner::Ours, Err(UNSOUND))), "hold SigningRefused");
    // Who has no engine does not attest, and so is not waited for.
    assert_eq!(Case { signs: false, ..Case::of(Nobody, ours(Before)) }.told(), "hold SigningRefused");
}

fn signer_of(published: &Published) -> Arc<Sound> {
    let Published::Present(copy) = published else { panic!("absent") };
    Arc::clone(copy.verdict.as_ref().unwrap())
}

#[test]
fn without_a_pki_engine_nothing_can_be_certified_and_what_is_there_stays_open() {
    for (published, expected) in
        [(Published::Absent, "hold SigningRefused"), (ours(Trusted), "hold SigningRefused"), (ours(Before), OPEN)]
    {
        let case = Case { signs: false, ..Case::of(Before, published) };
        assert_eq!(case.told(), expected);
        if let Step::Hold(held) = case.step() {
            assert!(held.sentence().contains("--vault-pki-mount"), "{}", held.sentence());
        }
    }
}

#[test]
fn what_external_secrets_or_others_manage_is_left_to_them() {
    let by = |owner: Owner, at| changed(&ours(at), |copy| copy.owner = owner);
    assert_eq!(step(Before, by(external_secrets(), Before)), OPEN);
    assert_eq!(step(Before, by(Owner::Other, Before)), OPEN);
    assert_eq!(step(Before, by(external_secrets(), Dropped)), "sync cacerts, hold CacertsManagedElsewhere");
    assert_eq!(step(Before, present(external_secrets(), Err(UNSOUND))), "sync cacerts, hold CacertsManagedElsewhere");
    assert_eq!(step(Before, by(Owner::Other, Dropped)), "hold RootChanged");
    assert_eq!(step(Before, present(Owner::Other, Err(UNSOUND))), "hold CacertsInvalid");
    let replace = Case { on_root_change: OnRootChange::Replace, ..Case::of(Before, by(Owner::Other, Dropped)) };
    assert_eq!(replace.told(), NEW_KEY, "never with a key of somebody else's");
}

#[test]
fn what_cannot_be_written_or_used_is_not_certified() {
    let tls = |copy: &mut Copy| copy.beside.tls = true;
    assert_eq!(step(Trusted, changed(&ours(Before), tls)), "hold CacertsInvalid");
    let generated = present(Owner::Ours, Err(Flaw::Foreign("istio-generated")));
    assert_eq!(step(Trusted, generated), "hold CacertsInvalid");
    assert_eq!(step(Trusted, changed(&ours(Before), |copy| copy.immutable = true)), "hold KubernetesForbidden");
}

// The pin.

#[test]
fn a_cluster_whose_root_was_dropped_holds_whatever_is_published() {
    for published in [Published::Absent, ours(Before), ours(Dropped), present(Owner::Ours, Err(UNSOUND))] {
        let case = Case { pin: pinned(&OLD, Before), ..Case::of(Dropped, published) };
        assert_eq!(case.told(), "hold RootChanged");
        let replace = Case { on_root_change: OnRootChange::Replace, ..case };
        assert_ne!(replace.told(), "hold RootChanged");
    }
}

#[test]
fn only_a_root_that_is_trusted_no_more_contradicts_the_pin() {
    let by = |place, pin| Case { pin, ..Case::of(place, Published::Absent) }.look(|on| on.contradiction());
    for place in [Before, Trusted, Switched, SwitchedWithoutCross, Nobody] {
        assert_eq!(by(place, pinned(&OLD, Before)), None, "{place:?}");
        assert_eq!(by(place, pinned(&OLD, Trusted)), None, "{place:?}");
        assert_eq!(by(place, None), None, "{place:?}");
    }
    assert_eq!(by(Dropped, pinned(&OLD, Trusted)), Some(Reason::RootChanged));
    assert_eq!(by(Dropped, pinned(&NEW, Trusted)), None);
}

#[test]
fn a_root_that_workloads_do_not_trust_yet_signs_only_with_a_cross() {
    let issuing = |place, pin| {
        let case = Case { pin, ..Case::of(place, ours(Before)) };
        let issuer = signing(place).certificate.pem();
        case.look(|on| on.issuing(&record(place), &issuer)).map_err(|held| held.reason)
    };
    assert_eq!(issuing(Before, pinned(&OLD, Before)), Ok(root(&OLD)));
    // It slept through the step in which the new root became trusted.
    assert_eq!(issuing(Switched, pinned(&OLD, Before)), Ok(root(&NEW)));
    assert_eq!(issuing(SwitchedWithoutCross, pinned(&OLD, Before)), Err(Reason::RootChanged));
    assert_eq!(issuing(SwitchedWithoutCross, pinned(&OLD, Trusted)), Ok(root(&NEW)));
    assert_eq!(issuing(SwitchedWithoutCross, None), Ok(root(&NEW)));
    let replace = Case { on_root_change: OnRootChange::Replace, ..Case::of(SwitchedWithoutCross, ours(Before)) };
    let replace = Case { pin: pinned(&OLD, Before), ..replace };
    assert!(replace.look(|on| on.issuing(&record(SwitchedWithoutCross), &pem(&[&NEW]))).is_ok());
}

#[test]
fn an_issuer_that_the_record_does_not_trust_certifies_nothing() {
    let held = Case::of(Before, Published::Absent).look(|on| on.issuing(&record(Before), &pem(&[&NEW]))).unwrap_err();
    assert_eq!(held.reason, Reason::SigningRefused);
    assert_fit_for_users(&held.message("nas"));
}

// What Vault has certified.

fn certified_by(ca: &Ca, published: Published) -> Step {
    let name = common_name("nas");
    let answer = ca.certify(&KEY.request(&name).unwrap(), &name, |_| ());
    let case = Case::of(Before, published);
    case.look(|on| on.certified(VERSION, &record(Before), root(&OLD), &answer, &KEY, &TERMS))
}

#[test]
fn what_was_certified_is_published_for_the_state_that_it_was_certified_for() {
    let Step::Publish { version: VERSION, sound, state } = certified_by(&OLD, ours(Before)) else { panic!("held") };
    assert_eq!(state, Some(record(Before).state()));
    assert_eq!(sound.root, root(&OLD));
    // What is read again then is open, and so nothing is certified twice.
    let read = changed(&present(Owner::Ours, Ok(sound)), |copy| copy.annotated_state = state);
    assert_eq!(step(Before, read), OPEN);
}

#[test]
fn what_does_not_pass_the_check_is_not_published() {
    let Step::Hold(held) = certified_by(&NEW, ours(Before)) else { panic!("not held") };
    assert_eq!(held.reason, Reason::SigningRefused);
    assert!(held.sentence().contains("not signed by the issuer that was asked"), "{}", held.sentence());
    assert_fit_for_users(&held.message("nas"));
}

#[test]
fn what_istiod_could_not_use_beside_a_list_is_not_published() {
    let listed = changed(&ours(Before), |copy| copy.beside.crl = Some(b"a list".to_vec()));
    assert_eq!(told(&certified_by(&OLD, listed)), "hold CacertsInvalid");
}

#[test]
fn no_situation_cuts_a_cluster_off_from_itself() {
    let published: Vec<_> = EVERYWHERE
        .into_iter()
        .map(ours)
        .chain([Published::Absent, present(Owner::Ours, Err(UNSOUND)), present(Owner::Other, Ok(signer(Switched)))])
        .collect();
    let pins = [None, pinned(&OLD, Before), pinned(&OLD, Trusted), pinned(&NEW, Trusted), pinned(&NEW, Dropped)];
    let count = every_combination(|pick| {
        let place = *pick.of(&EVERYWHERE);
        let case = Case {
            role: *pick.of(&ROLES),
            pin: pick.of(&pins).clone(),
            signs: *pick.of(&[true, false]),
            later: *pick.of(&[0, 70 * DAY]),
            ..Case::of(place, pick.of(&published).clone())
        };
        let record = record(place);
        let keeps =
            |step: &Step| case.pin.as_ref().is_none_or(|pin| record.roots().contains(&pin.root)) || panic!("{step:?}");
        match case.step() {
            step @ Step::Publish { .. } => {
                let Step::Publish { sound, .. } = &step else { panic!() };
                assert!(keeps(&step) && record.issuer.is_none() && sound.roots() == record.roots());
            }
            step @ Step::Open { .. } => {
                let Step::Open { published, .. } = &step else { panic!() };
                assert!(keeps(&step) && published.roots() == record.roots());
            }
            step @ Step::Certify { .. } => assert!(keeps(&step) && case.signs && record.issuer.is_some()),
            Step::Hold(held) => assert_fit_for_users(&held.message("nas")),
            step => panic!("{step:?}"),
        }
    });
    assert_eq!(count, 6 * 2 * 5 * 2 * 2 * 9);
    assert!(at(NOW + YEARS) > at(NOW + 70 * DAY), "the roots outlast all of it");
}
