#![allow(clippy::unwrap_used)]

use k8s_openapi::jiff::SignedDuration;

use super::super::line::Outcome::{Failed, Note, Ok as Fine, Warning};
use super::super::look::Look;
use super::super::samples::{asked, expect, told};
use super::*;
use crate::ca::check::Flaw;
use crate::ca::record::{InvalidRotation, Rotation};
use crate::plan::{Owner, Role};
use crate::reason::ByItself;
use crate::samples::{R1, RECORD_1, UNSOUND, pin, published, rotation, stored as stored_of};

fn keeping(after: &str, versions: u64) -> Option<Keeping> {
    Some(Keeping { delete_version_after: after.to_owned(), max_versions: versions })
}

fn engine_of(engine_keeping: Option<Keeping>, record: Option<Keeping>) -> Line {
    let told = Told { mount: Look::Seen((engine_keeping, record)), ..told(Role::Sync) };
    engine(&told, &asked(Role::Sync))
}

#[test]
fn versions_that_go_by_themselves_are_warned_of() {
    expect(&engine_of(None, None), Fine, "may not be read");
    expect(&engine_of(keeping("0s", 0), keeping("0s", 5)), Fine, "keeps 5 versions");
    expect(&engine_of(keeping("0s", 0), None), Fine, "keeps 10 (the default) versions");
    expect(&engine_of(keeping("72h0m0s", 0), None), Warning, "delete_version_after of secret is 72h0m0s");
    expect(&engine_of(None, keeping("1h", 0)), Warning, "delete_version_after of secret/istio/ca is 1h");
}

#[test]
fn an_engine_of_another_kind_fails_with_the_gates_reason() {
    let what = "secret/ cannot be used (KV version 1)";
    let held = Held::new(Reason::VaultMountInvalid, what, "enable KV version 2", ByItself::Unsaid);
    let line = engine(&Told { mount: Look::Failed(held), ..told(Role::Sync) }, &asked(Role::Sync));
    expect(&line, Failed, "KV version 1");
    assert_eq!(line.reason, Some(Reason::VaultMountInvalid));
}

fn record_of(role: Role, stored: Stored, here: Here<'_>) -> Line {
    let told = Told { record: Look::Seen(Record { stored, deleted_at: None }), ..told(role) };
    record(&told, here, &asked(role))
}

const NOTHING: Here<'_> = Here { published: Some(&Published::Absent), pin: None };

#[test]
fn an_empty_vault_fails_for_a_mirror_and_is_the_bootstraps_to_fill() {
    let missing = record_of(Role::Sync, Stored::Absent, NOTHING);
    expect(&missing, Failed, "no root");
    assert_eq!(missing.reason, Some(Reason::RootMissing));
    expect(&record_of(Role::Bootstrap, Stored::Absent, NOTHING), Note, "no root yet");
    // What is wrong then is said of cacerts.
    let foreign = published(Owner::Other, &R1);
    let here = Here { published: Some(&foreign), pin: None };
    expect(&record_of(Role::Bootstrap, Stored::Absent, here), Note, "no root yet");
}

#[test]
fn metadata_without_a_version_keeps_the_first_one_from_being_written() {
    let record = Look::Seen(Record { stored: Stored::Absent, deleted_at: None });
    let told = Told { record, mount: Look::Seen((None, keeping("0s", 0))), ..told(Role::Bootstrap) };
    let line = super::record(&told, NOTHING, &asked(Role::Bootstrap));
    expect(&line, Failed, "needs `update`");
    assert_eq!(line.reason, Some(Reason::VaultPermissionDenied));
}

#[test]
fn a_vault_that_has_lost_the_root_of_this_cluster_fails_in_either_role() {
    let pin = pin(R1.root);
    for role in [Role::Bootstrap, Role::Sync] {
        let lost = record_of(role, Stored::Absent, Here { pin: Some(&pin), ..NOTHING });
        expect(&lost, Failed, "yet this cluster has used its root");
        let deleted = record_of(role, Stored::Deleted { version: 3 }, NOTHING);
        expect(&deleted, Failed, "version 3 of secret/istio/ca was deleted");
        assert_eq!([lost.reason, deleted.reason], [Some(Reason::RootDeleted); 2]);
    }
}

#[test]
fn a_record_that_is_not_sound_names_its_flaw() {
    let invalid = record_of(Role::Sync, Stored::Unsound { version: 3, flaw: UNSOUND }, NOTHING);
    expect(&invalid, Failed, "version 3 cannot be used: the private key is not that of the signing CA");
    assert_eq!(invalid.reason, Some(Reason::RootInvalid));
    let at = crate::ca::check::At { file: "root-cert.pem", position: 1 };
    let flaw = Flaw::Expired(at, asked(Role::Sync).now);
    let expired = record_of(Role::Sync, Stored::Unsound { version: 3, flaw }, NOTHING);
    assert_eq!(expired.reason, Some(Reason::RootExpired));
}

#[test]
fn a_sound_record_that_will_end_soon_is_warned_of() {
    let sound = |change: &dyn Fn(&mut Record, &mut Asked)| {
        let mut asked = asked(Role::Sync);
        let mut kept = Record { stored: stored_of(&R1), deleted_at: None };
        change(&mut kept, &mut asked);
        record(&Told { record: Look::Seen(kept), ..told(Role::Sync) }, NOTHING, &asked)
    };
    expect(&sound(&|_, _| ()), Fine, "version 3, root sha256 ");
    expect(
        &sound(&|kept, asked| kept.deleted_at = Some(asked.now)),
        Warning,
        "Vault deletes this version by itself at 2027-01-01",
    );
    let days = |days: i64| {
        move |_: &mut Record, asked: &mut Asked| asked.now = R1.usable_until.at - SignedDuration::from_hours(days * 24)
    };
    expect(&sound(&days(91)), Fine, "version 3");
    expect(&sound(&days(89)), Warning, "in 89 days");
}

#[test]
fn a_change_of_the_root_is_told_and_what_cannot_be_read_of_it_is_a_warning() {
    let line = |rotation: Option<Result<Rotation, InvalidRotation>>| {
        let mut record = SigningRecord::clone(&RECORD_1);
        record.rotation = rotation;
        record_of(Role::Sync, Stored::Signing { version: 3, record: record.into() }, NOTHING)
    };
    assert!(line(None).seen.ends_with("signers are certified by root-1"));
    expect(&line(Some(Ok(rotation()))), Fine, "the root is being replaced by root-2");
    expect(&line(Some(Ok(Rotation { paused: true, ..rotation() }))), Fine, "to root-2 is paused");
    let unread = line(Some(Err(InvalidRotation("ttl"))));
    expect(&unread, Warning, "ttl of rotation is missing or of another form");
    assert_eq!(unread.reason, Some(Reason::RotationHeld));
}
