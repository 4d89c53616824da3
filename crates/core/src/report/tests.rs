#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::ca::check::{Flaw, Sound};
use crate::plan::{Copy, Owner, Published};
use crate::reason::{ByItself, Held};
use crate::samples::{
    BOTH, Known, POLICY, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, SOON, known_root, present, published, signed,
};

fn told(known: &Known) -> Value {
    serde_json::to_value(report("nas", Role::Sync, known.snapshot(), &POLICY, known.now)).unwrap()
}

fn open(in_vault: &Sound, in_cluster: &Arc<Sound>) -> Known {
    Known::open(in_cluster).but(|known| known.convergence.root = Some(known_root(in_vault)))
}

#[test]
fn a_signer_is_told_with_its_root_and_its_end_and_a_shared_ca_is_none() {
    let known = open(&R1, &R1_OTHER_CA).but(|known| known.watched.published = Some(signed(&R1_OTHER_CA).facts()));
    let signer = &R1_OTHER_CA.signing_ca;
    let expected = json!({
        "sha256": signer.sha256.openssl(), "root": R1.root.openssl(), "notAfter": stamp(signer.valid_until),
        "renewalDue": stamp(renewal_due(signer, "nas")),
    });
    assert_eq!(told(&known)["cacerts"]["signer"], expected);
    assert!(told(&open(&R1, &R1_OTHER_CA))["cacerts"].get("signer").is_none());
}

#[test]
fn an_open_gate_is_told_in_the_contracts_shape() {
    let root = |sound: &Sound| (sound.glance.sha256.openssl(), sound.glance.sha1.openssl());
    let (sha256, sha1) = root(&R1);
    assert_eq!(
        told(&open(&R1, &R1)),
        json!({
            "cluster": "nas", "role": "sync", "state": "open", "reason": null, "message": null, "match": true,
            "vault": {
                "sha256": sha256, "sha1": sha1, "roots": [sha256], "subject": "CN=Root 1", "version": 1,
                "notAfter": "2036-12-29T00:00:00Z", "usableUntil": stamp(R1.usable_until.at),
                "usableUntilSetBy": "certificate 1 of root-cert.pem", "checkedAt": "2027-01-01T00:00:00Z",
                "address": "https://vault.example:8200",
            },
            "cacerts": {
                "sha256": sha256, "sha1": sha1, "roots": [sha256], "subject": "CN=Root 1",
                "notAfter": "2036-12-29T00:00:00Z", "usableUntil": stamp(R1.usable_until.at),
                "usableUntilSetBy": "certificate 1 of root-cert.pem", "resourceVersion": "1234",
            },
        })
    );
}

#[test]
fn what_ends_first_is_told_on_both_sides() {
    let told = told(&open(&SOON, &SOON));
    for side in ["vault", "cacerts"] {
        assert_eq!(told[side]["usableUntil"], stamp(SOON.usable_until.at));
        assert_eq!(told[side]["usableUntilSetBy"], "certificate 1 of cert-chain.pem");
        assert!(told[side]["notAfter"].as_str() > told[side]["usableUntil"].as_str(), "{told}");
    }
}

#[test]
fn a_version_that_vault_deletes_before_its_certificates_end_ends_then() {
    let deleted = |at| {
        let known = open(&R1, &R1).but(|known| known.convergence.root.as_mut().unwrap().deleted_at = Some(at));
        let told = told(&known);
        assert_eq!(told["cacerts"]["usableUntil"], stamp(R1.usable_until.at));
        (told["vault"]["usableUntil"].clone(), told["vault"]["usableUntilSetBy"].clone())
    };
    let soon = R1.usable_until.at - SignedDuration::from_hours(1);
    assert_eq!(deleted(soon), (json!(stamp(soon)), json!("delete_version_after of version 1")));
    let later = R1.usable_until.at + SignedDuration::from_hours(1);
    assert_eq!(deleted(later).1, "certificate 1 of root-cert.pem");
}

#[test]
fn the_end_of_a_token_that_nobody_renews_is_told() {
    let end = R1.usable_until.at;
    let known = open(&R1, &R1).but(|known| known.convergence.root.as_mut().unwrap().token_end = Some(end));
    assert_eq!(told(&known)["vault"]["tokenEnds"], stamp(end));
    assert_eq!(told(&open(&R1, &R1))["vault"].get("tokenEnds"), None);
}

#[test]
fn what_is_not_known_is_null() {
    assert_eq!(
        told(&Known::nothing()),
        json!({
            "cluster": "nas", "role": "sync", "state": "dormant", "reason": null, "message": null, "match": false,
            "vault": null, "cacerts": null,
        })
    );
    let absent = open(&R1, &R1).but(|known| known.watched.published = Some(Published::Absent));
    assert_eq!((&told(&absent)["cacerts"], &told(&absent)["match"]), (&Value::Null, &json!(false)));
}

#[test]
fn the_state_follows_the_gate_and_then_the_convergence() {
    let state = |known: &Known| told(known)["state"].clone();
    let consulted = Known::nothing().but(|known| known.convergence.consulted = true);
    assert_eq!(state(&consulted), "converging");
    let held = consulted.held(Reason::RootMissing);
    assert_eq!(state(&held), "held");
    assert_eq!(state(&held.but(|known| known.convergence.running = true)), "converging");
    assert_eq!(state(&open(&R1, &R1)), "open");
    assert_eq!(state(&open(&R1, &R1).but(|known| known.convergence.running = true)), "open");
    assert_eq!(state(&open(&R1, &R1).held(Reason::VaultSealed)), "open");
    assert_eq!(state(&open(&R1, &R1).held(Reason::RootDeleted)), "held");
}

#[test]
fn a_hold_is_told_with_its_code_and_the_text_of_a_denial() {
    let told = told(&open(&R1, &R1).held(Reason::RootDeleted));
    assert_eq!(told["reason"], "RootDeleted");
    assert_eq!(told["message"], "RootDeleted: cluster nas: the cause: the next step");
}

#[test]
fn roots_match_as_sets_whatever_their_bytes() {
    let matches = |in_vault, in_cluster| told(&open(in_vault, in_cluster))["match"].clone();
    assert_eq!(matches(&R1, &R1_OTHER_BYTES), true);
    assert_eq!(matches(&BOTH, &BOTH), true);
    assert_eq!(matches(&R1, &R2), false);
    assert_eq!(matches(&R1, &BOTH), false);
}

#[test]
fn all_roots_are_told_on_both_sides() {
    let told = told(&open(&BOTH, &BOTH));
    for side in ["vault", "cacerts"] {
        let roots: Vec<_> = told[side]["roots"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let must: Vec<String> = BOTH.roots().iter().map(|root| root.openssl()).collect();
        assert_eq!(roots, must);
        // The first of the file, as openssl has it, and not the one that signs.
        assert_eq!((&told[side]["sha256"], BOTH.root), (&json!(R2.root.openssl()), R1.root));
    }
}

#[test]
fn a_cacerts_that_is_not_sound_is_shown_as_far_as_it_can_be_read() {
    let Published::Present(copy) = present(Owner::Other, Err(Flaw::KeyMismatch)) else { unreachable!() };
    let shown = |glance| {
        let copy = Copy { glance, ..Copy::clone(&copy) };
        told(&open(&R1, &R1).but(|known| known.watched.published = Some(Published::Present(Arc::new(copy)).facts())))
    };
    let told = shown(Some(R1.glance.clone()));
    assert_eq!((&told["cacerts"]["sha256"], &told["match"]), (&json!(R1.root.openssl()), &json!(true)));
    assert_eq!(told["state"], "converging");
    assert_eq!(shown(None)["cacerts"], Value::Null);
}

fn lines(known: &Known) -> String {
    report("nas", Role::Sync, known.snapshot(), &POLICY, known.now).openssl()
}

#[test]
fn plain_text_is_what_openssl_prints() {
    let of = |sound: &Sound| {
        let (sha256, sha1) = (sound.glance.sha256.openssl(), sound.glance.sha1.openssl());
        format!("sha256 Fingerprint={sha256}\nSHA1 Fingerprint={sha1}\n")
    };
    assert_eq!(lines(&open(&R1, &R2)), of(&R2));
    assert_eq!(lines(&open(&R1, &R2).but(|known| known.watched.published = None)), of(&R1));
    assert_eq!(lines(&Known::nothing()), "");
}

#[test]
fn nothing_of_a_key_is_told() {
    let mut known = open(&R1, &R1);
    known.watched.published = Some(published(Owner::Ours, &R1).facts());
    known.convergence.held = Some(Held::without_next(Reason::VaultSealed, "unseal it", ByItself::Unsaid));
    let told = told(&known).to_string();
    assert!(!crate::samples::traces().iter().any(|trace| told.contains(trace)), "{told}");
}
