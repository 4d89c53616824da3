#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;

use super::super::line::Outcome::{Failed, Note, Ok as Fine, Warning};
use super::super::samples::{asked, cluster, expect, secret};
use super::*;
use crate::ca::check::Flaw;
use crate::plan::{ReadPin, Role};
use crate::samples::{
    BOTH, FOREIGN_KEY, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, RECORD_1, SOON, UNSOUND, external_secrets, held,
    pin as pin_on, present, signed, stored,
};

/// The line about a `cacerts` like this, beside root 1 in Vault and in the pin.
fn line_of(owner: Owner, verdict: Result<&Arc<Sound>, Flaw>) -> Line {
    let published = present(owner, verdict.cloned());
    let cacerts = Look::Seen(Cacerts { published, ..secret(Owner::Ours) });
    cacerts_line(&Cluster { cacerts, ..cluster() }, Some(&stored(&R1)), Role::Sync)
}

fn cacerts_line(cluster: &Cluster, stored: Option<&Stored>, role: Role) -> Line {
    cacerts(cluster, stored, &asked(role))
}

#[test]
fn who_manages_it_and_whether_it_is_vaults_are_told() {
    expect(&line_of(Owner::Ours, Ok(&R1)), Fine, "managed by the gate; the root that Vault holds");
    expect(&line_of(external_secrets(), Ok(&R1)), Fine, "managed by External Secrets (ExternalSecret cacerts)");
    expect(&line_of(Owner::Other, Ok(&R1)), Fine, "managed by somebody else");
}

/// The line about a cluster's own signer, so many days from now.
fn line_of_signer(sound: &Arc<Sound>, days: i64) -> Line {
    let seen = Look::Seen(Cacerts { published: signed(sound), ..secret(Owner::Ours) });
    let stored = Stored::Signing { version: 3, record: Arc::clone(&RECORD_1) };
    let asked = asked(Role::Sync);
    let asked = Asked { now: asked.now + SignedDuration::from_hours(24 * days), ..asked };
    cacerts(&Cluster { cacerts: seen, ..cluster() }, Some(&stored), &asked)
}

#[test]
fn a_signer_is_told_with_its_end_and_only_one_that_was_not_renewed_is_a_warning() {
    expect(&line_of_signer(&R1_OTHER_CA, 0), Fine, "signs by this cluster's own signer");
    // It lives for ten days.
    expect(&line_of_signer(&SOON, 0), Fine, &SOON.signing_ca.sha256.openssl());
    expect(&line_of_signer(&SOON, 7), Fine, "under that root until");
    let late = line_of_signer(&SOON, 8);
    expect(&late, Warning, "in 2 days");
    assert_eq!(late.reason, Some(Reason::SigningRefused));
}

#[test]
fn what_the_gate_mends_by_itself_is_a_warning() {
    expect(&line_of(Owner::Ours, Ok(&R2)), Warning, "not what Vault holds");
    expect(&line_of(Owner::Ours, Err(UNSOUND)), Warning, "cannot be used: the private key is not");
    expect(&line_of(Owner::Ours, Ok(&R1_OTHER_BYTES)), Warning, "in other bytes");
}

#[test]
fn what_holds_the_gate_fails_with_its_reason() {
    for (owner, verdict, reason) in [
        (Owner::Ours, Err(FOREIGN_KEY), Reason::CacertsInvalid),
        (Owner::Other, Err(UNSOUND), Reason::CacertsInvalid),
        (Owner::Other, Ok(&*R2), Reason::RootChanged),
        (external_secrets(), Ok(&*R2), Reason::CacertsManagedElsewhere),
        (external_secrets(), Err(UNSOUND), Reason::CacertsManagedElsewhere),
    ] {
        let line = line_of(owner, verdict);
        expect(&line, Failed, "");
        assert_eq!(line.reason, Some(reason), "{line:?}");
    }
}

#[test]
fn one_beside_an_empty_vault_is_the_bootstraps_to_ask_about() {
    let cluster = Cluster { pin: Look::Absent, cacerts: Look::Seen(secret(Owner::Other)), ..cluster() };
    let line = cacerts_line(&cluster, Some(&Stored::Absent), Role::Bootstrap);
    expect(&line, Failed, "sound");
    assert_eq!(line.reason, Some(Reason::CacertsUnknown));
    // A mirror has nothing to decide on it: the record line says what is missing.
    expect(&cacerts_line(&cluster, Some(&Stored::Absent), Role::Sync), Note, "see vault-record");
}

#[test]
fn what_is_wrong_with_vault_is_not_said_of_the_secret() {
    for stored in [Stored::Deleted { version: 3 }, Stored::Unsound { version: 3, flaw: UNSOUND }, stored(&R2)] {
        expect(&cacerts_line(&cluster(), Some(&stored), Role::Sync), Note, "sound");
    }
    expect(&cacerts_line(&cluster(), None, Role::Sync), Note, "not compared");
    let broken = Look::Seen(Cacerts { published: present(Owner::Other, Err(UNSOUND)), ..secret(Owner::Ours) });
    expect(&cacerts_line(&Cluster { cacerts: broken, ..cluster() }, None, Role::Sync), Failed, "cannot be used");
}

#[test]
fn an_absent_one_is_published_in_time() {
    let none = Cluster { cacerts: Look::Absent, pin: Look::Absent, ..cluster() };
    expect(&cacerts_line(&none, Some(&stored(&R1)), Role::Sync), Note, "the gate publishes it");
    expect(&cacerts_line(&none, Some(&Stored::Absent), Role::Bootstrap), Note, "the gate publishes it");
    expect(&cacerts_line(&none, Some(&Stored::Absent), Role::Sync), Note, "not to be published yet");
    expect(&cacerts_line(&none, None, Role::Sync), Note, "Vault could not be asked");
}

#[test]
fn immutable_and_ending_ones_are_warned_of() {
    let immutable = Look::Seen(Cacerts { immutable: true, ..secret(Owner::Ours) });
    expect(
        &cacerts_line(&Cluster { cacerts: immutable, ..cluster() }, Some(&stored(&R1)), Role::Sync),
        Warning,
        "it is immutable",
    );
    let mut late = asked(Role::Sync);
    late.now = R1.usable_until.at - SignedDuration::from_hours(48);
    expect(&cacerts(&cluster(), Some(&stored(&R1)), &late), Warning, "ends in 2 days");
}

#[test]
fn a_refused_look_names_the_right() {
    let forbidden = Look::Forbidden("no right to get secrets cacerts in istio-system".to_owned());
    let line = cacerts_line(&Cluster { cacerts: forbidden, ..cluster() }, Some(&stored(&R1)), Role::Sync);
    expect(&line, Note, "may not be looked at: no right to get secrets cacerts");
}

#[test]
fn the_namespace_has_to_be_there_and_to_stay() {
    let with = |namespace| self::namespace(&Cluster { namespace, ..cluster() }, &asked(Role::Sync));
    expect(&with(Look::Seen((BTreeMap::new(), false))), Fine, "is there");
    expect(&with(Look::Seen((BTreeMap::new(), true))), Failed, "is being deleted");
    expect(&with(Look::Absent), Failed, "there is none");
}

fn pin_line(pin: Look<ReadPin>, stored: Option<&Stored>) -> Line {
    self::pin(&Cluster { pin, ..cluster() }, stored, &asked(Role::Sync))
}

fn read(pin: Pin) -> Look<ReadPin> {
    Look::Seen(ReadPin::of(pin))
}

#[test]
fn a_pin_agrees_with_vault_or_fails() {
    expect(&pin_line(read(pin_on(R1.root)), Some(&stored(&R1))), Fine, "last verified at 2027-01-01T00:00Z");
    let changed = pin_line(read(pin_on(R2.root)), Some(&stored(&R1)));
    expect(&changed, Failed, "which Vault's record lacks");
    assert_eq!(changed.reason, Some(Reason::RootChanged));
    // Trusted and signing in one step.
    let early = pin_line(read(pin_on(R2.root)), Some(&stored(&BOTH)));
    expect(&early, Failed, "not yet the one that Vault's CA signs under");
    assert!(early.next.as_ref().is_some_and(|next| next.contains("sign until each cluster has both roots")));
    expect(&pin_line(Look::Absent, Some(&stored(&R1))), Note, "none yet");
    expect(&pin_line(Look::Failed(held(Reason::RootChanged)), Some(&stored(&R1))), Failed, "the cause");
}

#[test]
fn what_vault_has_said_against_the_pin_is_warned_of_until_the_gate_agrees() {
    let contradicted = Some(Contradiction { by: Reason::RootDeleted, at: asked(Role::Sync).now });
    let line = pin_line(read(Pin { contradicted, ..pin_on(R1.root) }), Some(&stored(&R1)));
    expect(&line, Warning, "after RootDeleted at 2027-01-01T00:00Z");
}

#[test]
fn a_pin_without_a_record_to_compare_it_with_says_so() {
    expect(&pin_line(read(pin_on(R1.root)), None), Note, "not compared");
    expect(&pin_line(read(pin_on(R1.root)), Some(&Stored::Absent)), Note, "see vault-record");
}

#[test]
fn a_verification_of_long_ago_is_warned_of() {
    let at = |hours: i64| Some(asked(Role::Sync).now - SignedDuration::from_hours(hours));
    let line = |verified_at| pin_line(read(Pin { verified_at, ..pin_on(R1.root) }), Some(&stored(&R1)));
    expect(&line(at(23)), Fine, "last verified");
    expect(&line(at(25)), Warning, "last verified at 2026-12-30T23:00Z");
    expect(&line(None), Fine, "which Vault holds");
}
