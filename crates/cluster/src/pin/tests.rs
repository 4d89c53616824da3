#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use gate_core::ca::fixtures::now;
use gate_core::samples::assert_fit_for_users;

const ROOT_1: Sha256 = Sha256([0xab; 32]);
const ROOT_2: Sha256 = Sha256([0xcd; 32]);

/// What a ConfigMap with these labels and this data says.
fn parsed_of(labels: Value, data: Value) -> Result<Option<Pin>, Held> {
    let map = json!({"metadata": {"name": NAME, "labels": labels}, "data": data});
    pin(&serde_json::from_value(map).unwrap(), "istio-system/istio-ca-gate")
}

fn parsed(data: Value) -> Result<Option<Pin>, Held> {
    parsed_of(Value::Null, data)
}

#[test]
fn a_pin_is_read_in_full() {
    let data = json!({
        "root-sha256": "ab".repeat(32), "vault-version": "3", "verified-at": "2027-01-01T00:00:00Z", "other": "x",
    });
    assert_eq!(parsed(data), Ok(Some(Pin { vault_version: Some(3), verified_at: Some(now()), ..Pin::of(ROOT_1) })));
}

#[test]
fn what_is_not_the_root_may_be_missing_or_malformed() {
    let bare = Pin::of(ROOT_1);
    let root = "AB".repeat(32);
    assert_eq!(parsed(json!({"root-sha256": root})), Ok(Some(bare.clone())));
    for (version, time) in [("", ""), ("-1", "yesterday"), ("3.0", "2027-01-01"), ("v3", "1798761600")] {
        let data = json!({"root-sha256": root, "vault-version": version, "verified-at": time});
        assert_eq!(parsed(data), Ok(Some(bare.clone())), "{version} {time}");
    }
}

#[test]
fn the_set_of_roots_is_read_where_the_pinned_one_is_in_it_and_is_that_one_alone_elsewhere() {
    let (one, two) = (ROOT_1.hex(), ROOT_2.hex());
    let roots = |text: &str| parsed(json!({"root-sha256": one, "roots": text})).unwrap().unwrap().roots;
    for both in [format!("{one}\n{two}"), format!("{two}\n{one}\n"), format!("{one}\n{}", two.to_uppercase())] {
        assert_eq!(roots(&both), [ROOT_1, ROOT_2].into(), "{both:?}");
    }
    // Without it, of an older version that moved the root alone, or tampered with.
    for other in ["", &two, &format!("{one}\nx"), &format!("{one} {two}")] {
        assert_eq!(roots(other), [ROOT_1].into(), "{other:?}");
    }
}

#[test]
fn the_signers_of_a_state_are_read_whole_or_not_at_all() {
    let (state, one, two) = ("12".repeat(32), ROOT_1.to_string(), ROOT_2.to_string());
    let signers = |data: Value| {
        let mut whole = json!({"root-sha256": one});
        whole.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        parsed(whole).unwrap().unwrap().signers
    };
    let both = PublishedSigners { state: state.parse().unwrap(), sha256: vec![ROOT_2, ROOT_1] };
    assert_eq!(signers(json!({"record-state": state, "signers": format!("{two}\n{one}")})), Some(both));
    for half in [
        json!({"record-state": state}),
        json!({"signers": one}),
        json!({"record-state": "x", "signers": one}),
        json!({"record-state": state, "signers": format!("{one}\nx")}),
    ] {
        assert_eq!(signers(half.clone()), None, "{half}");
    }
}

#[test]
fn half_a_contradiction_or_one_that_cannot_be_read_is_one() {
    let contradicted = |data: Value| {
        let mut whole = json!({"root-sha256": ROOT_1.hex()});
        whole.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        parsed(whole).unwrap().unwrap().contradicted
    };
    let at = "2027-01-01T00:00:00Z";
    assert_eq!(contradicted(json!({})), None);
    assert_eq!(
        contradicted(json!({"contradicted-at": at, "contradicted-by": "RootDeleted"})),
        Some(Contradiction { by: Reason::RootDeleted, at: now() })
    );
    for half in [
        json!({"contradicted-at": at}),
        json!({"contradicted-by": "RootInvalid"}),
        json!({"contradicted-at": "", "contradicted-by": ""}),
        json!({"contradicted-at": "lately", "contradicted-by": "Whatever"}),
    ] {
        assert!(contradicted(half.clone()).is_some(), "{half}");
    }
}

#[test]
fn a_root_that_cannot_be_read_holds_and_is_never_no_pin() {
    for root in
        ["", " ", "ab", &"ab".repeat(33), &"xy".repeat(32), &format!("{}\n", "ab".repeat(32)), &ROOT_1.openssl()]
    {
        let held = parsed(json!({ "root-sha256": root })).unwrap_err();
        assert_eq!(held.reason, Reason::RootChanged, "{root:?}");
        assert!(held.sentence().contains("ConfigMap istio-system/istio-ca-gate"), "{held:?}");
        assert!(held.sentence().contains("restore it, or delete the ConfigMap"), "{held:?}");
        assert_fit_for_users(&held.message("nas"));
    }
}

#[test]
fn one_of_ours_without_a_root_holds_and_anybody_elses_says_nothing() {
    let data = || [Value::Null, json!({}), json!({"vault-version": "3", "verified-at": "2027-01-01T00:00:00Z"})];
    for data in data() {
        let held = parsed_of(json!({"app.kubernetes.io/managed-by": "istio-ca-gate"}), data).unwrap_err();
        assert_eq!(held.reason, Reason::RootChanged);
    }
    for data in data() {
        assert_eq!(parsed_of(json!({"app.kubernetes.io/managed-by": "Helm"}), data.clone()), Ok(None));
        assert_eq!(parsed(data), Ok(None));
    }
}
