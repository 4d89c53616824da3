#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::ca::fixtures::now;
use crate::ca::{InvalidSha256, Sha256};
use crate::plan::Copy;
use crate::samples::{R1, assert_fit_for_users, external_secrets, present};

const ROOT_1: Sha256 = Sha256([0xab; 32]);
const ROOT_2: Sha256 = Sha256([0xcd; 32]);

/// What a ConfigMap with these labels and this data says. The client is never used.
fn parsed_of(labels: serde_json::Value, data: serde_json::Value) -> Result<Option<Pin>, Held> {
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let map = json!({"metadata": {"name": NAME, "labels": labels}, "data": data});
    Pins::new(client, "istio-system").parse(&serde_json::from_value(map).unwrap())
}

fn parsed(data: serde_json::Value) -> Result<Option<Pin>, Held> {
    parsed_of(serde_json::Value::Null, data)
}

#[tokio::test]
async fn a_pin_is_read_in_full() {
    let data = json!({
        "root-sha256": "ab".repeat(32), "vault-version": "3", "verified-at": "2027-01-01T00:00:00Z", "other": "x",
    });
    assert_eq!(parsed(data), Ok(Some(Pin { root: ROOT_1, vault_version: Some(3), verified_at: Some(now()) })));
}

#[tokio::test]
async fn what_is_not_the_root_may_be_missing_or_malformed() {
    let bare = Pin { root: ROOT_1, vault_version: None, verified_at: None };
    let root = "AB".repeat(32);
    assert_eq!(parsed(json!({"root-sha256": root})), Ok(Some(bare.clone())));
    for (version, time) in [("", ""), ("-1", "yesterday"), ("3.0", "2027-01-01"), ("v3", "1798761600")] {
        let data = json!({"root-sha256": root, "vault-version": version, "verified-at": time});
        assert_eq!(parsed(data), Ok(Some(bare.clone())), "{version} {time}");
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_read_holds_and_is_never_no_pin() {
    for root in
        ["", " ", "ab", &"ab".repeat(33), &"xy".repeat(32), &format!("{}\n", "ab".repeat(32)), &ROOT_1.openssl()]
    {
        let held = parsed(json!({ "root-sha256": root })).unwrap_err();
        assert_eq!(held.reason, Reason::RootChanged, "{root:?}");
        assert!(held.sentence.contains("ConfigMap istio-system/istio-ca-gate"), "{held:?}");
        assert!(held.sentence.contains("restore it, or delete the ConfigMap"), "{held:?}");
        assert_fit_for_users(&held.message("nas"));
    }
}

#[tokio::test]
async fn one_of_ours_without_a_root_holds_and_anybody_elses_says_nothing() {
    let data =
        || [serde_json::Value::Null, json!({}), json!({"vault-version": "3", "verified-at": "2027-01-01T00:00:00Z"})];
    for data in data() {
        let held = parsed_of(json!({"app.kubernetes.io/managed-by": "istio-ca-gate"}), data).unwrap_err();
        assert_eq!(held.reason, Reason::RootChanged);
    }
    for data in data() {
        assert_eq!(parsed_of(json!({"app.kubernetes.io/managed-by": "Helm"}), data.clone()), Ok(None));
        assert_eq!(parsed(data), Ok(None));
    }
}

/// A `cacerts` whose annotation names this root.
fn annotated(owner: Owner, root: Option<Sha256>) -> Published {
    annotated_as(owner, root.map(Ok))
}

fn annotated_as(owner: Owner, annotated_root: Option<Result<Sha256, InvalidSha256>>) -> Published {
    let Published::Present(copy) = present(owner, Ok(Arc::clone(&R1))) else { unreachable!() };
    Published::Present(Arc::new(Copy { annotated_root, ..Copy::clone(&copy) }))
}

fn read(root: Option<Sha256>) -> Read {
    let pin = root.map(|root| Pin { root, vault_version: Some(3), verified_at: Some(now()) });
    Read { pin, resource_version: Some("7".to_owned()) }
}

#[test]
fn the_config_map_comes_before_the_annotation() {
    for published in [Published::Absent, annotated(Owner::Ours, Some(ROOT_2)), annotated(Owner::Other, None)] {
        assert_eq!(in_force(&read(Some(ROOT_1)), &published), Ok(read(Some(ROOT_1)).pin), "{published:?}");
    }
}

#[test]
fn the_annotation_of_ours_is_the_pin_where_there_is_no_other() {
    let pin = Pin { root: ROOT_2, vault_version: None, verified_at: None };
    for nothing in [read(None), Read::default()] {
        assert_eq!(in_force(&nothing, &annotated(Owner::Ours, Some(ROOT_2))), Ok(Some(pin.clone())));
        assert_eq!(in_force(&nothing, &annotated(Owner::Ours, None)), Ok(None));
        assert_eq!(in_force(&nothing, &Published::Absent), Ok(None));
    }
}

#[test]
fn the_annotation_of_somebody_else_is_no_pin() {
    for owner in [Owner::Other, external_secrets(), Owner::ExternalSecrets(None)] {
        assert_eq!(in_force(&read(None), &annotated(owner, Some(ROOT_2))), Ok(None));
    }
}

#[test]
fn ours_is_a_pin_even_if_it_is_not_sound() {
    let Published::Present(copy) = present(Owner::Ours, Err(crate::samples::UNSOUND)) else { unreachable!() };
    let copy = Copy { annotated_root: Some(Ok(ROOT_2)), ..Copy::clone(&copy) };
    let pin = in_force(&Read::default(), &Published::Present(Arc::new(copy))).unwrap();
    assert_eq!(pin.map(|pin| pin.root), Some(ROOT_2));
}

#[test]
fn an_annotation_of_ours_that_cannot_be_read_is_never_no_pin() {
    let published = annotated_as(Owner::Ours, Some("x".parse()));
    let held = in_force(&Read::default(), &published).unwrap_err();
    assert_eq!(held.reason, Reason::RootChanged);
    assert_fit_for_users(&held.sentence);
}
