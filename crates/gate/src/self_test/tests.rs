#![allow(clippy::unwrap_used, clippy::panic)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::verdict::{Answer, Asked, Entry, Webhooks, uncalled};
use super::*;
use crate::gate::GATE_SELECTORS;
use crate::samples::assert_fit_for_users;
use crate::selector;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fn asked() -> Asked {
    Asked {
        namespace: "tests".to_owned(),
        webhook_config: "istio-ca-gate".to_owned(),
        labels: labels(&selector::parse(GATE_SELECTORS[0]).unwrap()).unwrap(),
    }
}

fn answer(status: u16, reason: &str, message: &str) -> Answer {
    let body = json!({ "kind": "Status", "reason": reason, "message": message }).to_string();
    Answer::new(status, Vec::new(), body.as_bytes())
}

fn entry(failure_policy: &str, app: &str) -> Entry {
    let expression = LabelSelectorRequirement {
        key: "app".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![app.to_owned()]),
    };
    Entry {
        name: "app.istio-ca-gate.io".to_owned(),
        failure_policy: Some(failure_policy.to_owned()),
        object_selector: LabelSelector { match_expressions: Some(vec![expression]), match_labels: None },
    }
}

fn sound() -> Webhooks {
    Webhooks::Known(vec![entry("Fail", "istio-eastwestgateway")])
}

/// The finding, in words that are fit for users.
fn seen(verdict: &Verdict) -> String {
    let (Verdict::Broken(Finding { seen, next, .. }) | Verdict::Untold(Finding { seen, next, .. })) = verdict else {
        panic!("it was called")
    };
    assert_fit_for_users(seen);
    assert_fit_for_users(next);
    format!("{seen}: {next}")
}

#[test]
fn a_gates_word_counts_whatever_was_decided_and_another_number_does_not() {
    let with = |status, header: &str| Answer::new(status, vec![header.to_owned()], b"{}");
    for status in [201, 403, 429] {
        assert!(with(status, &format!("299 - \"{}\"", warning(NONCE))).says(NONCE));
        let both = format!("299 - \"x\",299 - \"{}\"", warning(NONCE));
        assert!(with(status, &both).says(NONCE), "as a proxy joins them");
        assert!(!with(status, &format!("299 - \"{}\"", warning(&nonce()))).says(NONCE));
        assert!(!with(status, &format!("299 - \"{}0\"", warning(NONCE))).says(NONCE));
        assert!(!with(status, "299 - \"unknown field\"").says(NONCE));
    }
}

#[test]
fn a_pod_that_was_let_in_tells_what_is_wrong_with_the_webhooks() {
    let of = |webhooks: &Webhooks| uncalled(&answer(201, "", ""), webhooks, &asked());
    for (webhooks, says) in [
        (
            Webhooks::Known(Vec::new()),
            "there is no webhook configuration istio-ca-gate: apply deploy/kustomize/base/webhook.yaml",
        ),
        (Webhooks::Known(vec![entry("Fail", "other")]), "selects a pod that matches the first --gate-selector"),
        (
            Webhooks::Known(vec![entry("Ignore", "istio-eastwestgateway")]),
            "failurePolicy of app.istio-ca-gate.io is Ignore",
        ),
        (sound(), "namespaceSelector"),
        (Webhooks::Unknown, "is missing, does not select the pod, or has another failurePolicy"),
    ] {
        let verdict = of(&webhooks);
        assert!(matches!(verdict, Verdict::Broken(_)), "{verdict:?}");
        assert!(seen(&verdict).contains(says), "not {says:?}: {verdict:?}");
    }
}

#[test]
fn a_call_that_failed_tells_why() {
    let failed = |name: &str, why: &str| {
        let message =
            format!("Internal error occurred: failed calling webhook \"{name}\": failed to call webhook: {why}");
        uncalled(&answer(500, "InternalError", &message), &sound(), &asked())
    };
    let post = "Post \"https://istio-ca-gate.istio-system.svc:443/validate?timeout=10s\": ";
    for (why, says) in [
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "wrong caBundle"),
        ("tls: failed to verify certificate: x509: certificate is valid for a, not b", "--dns-name"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "look at the Service"),
        ("no endpoints available for service \"istio-ca-gate\"", "look at the Service"),
        ("context deadline exceeded", "look at the Service"),
    ] {
        let verdict = failed("app.istio-ca-gate.io", &format!("{post}{why}"));
        assert!(matches!(verdict, Verdict::Broken(_)), "{verdict:?}");
        assert!(seen(&verdict).contains(says), "not {says:?}: {verdict:?}");
    }
    let other = failed("inject.istio.io", "connection refused");
    assert!(matches!(other, Verdict::Untold(_)) && seen(&other).contains("another webhook"), "{other:?}");
}

#[test]
fn a_refusal_before_any_gate_says_nothing_of_the_gate() {
    let pods =
        "pods is forbidden: User \"kim\" cannot create resource \"pods\" in API group \"\" in the namespace \"tests\"";
    for (status, reason, message, says) in [
        (403, "Forbidden", pods, "no right to create pods in namespace tests"),
        (404, "NotFound", "namespaces \"tests\" not found", "there is no namespace tests"),
        (
            403,
            "Forbidden",
            "pods \"x\" is forbidden: unable to create new content in namespace tests because it is being terminated",
            "being deleted",
        ),
        (403, "Forbidden", "pods \"x\" is forbidden: exceeded quota: few", "exceeded quota"),
        (
            403,
            "Forbidden",
            "admission webhook \"app.istio-ca-gate.io\" denied the request: RootMissing: x",
            "to this version",
        ),
        (403, "Forbidden", "admission webhook \"policy.example\" denied the request: no", "another webhook refused"),
        (429, "TooManyRequests", "too many", "status 429"),
        (401, "Unauthorized", "Unauthorized", "status 401"),
        (503, "", "", "status 503"),
        (302, "", "", "status 302"),
    ] {
        let verdict = uncalled(&answer(status, reason, message), &sound(), &asked());
        assert!(matches!(verdict, Verdict::Untold(_)), "{verdict:?}");
        assert!(seen(&verdict).contains(says), "not {says:?}: {verdict:?}");
    }
    let effects = answer(400, "BadRequest", "admission webhook \"app.istio-ca-gate.io\" does not support dry run");
    let verdict = uncalled(&effects, &sound(), &asked());
    assert!(matches!(verdict, Verdict::Broken(_)) && seen(&verdict).contains("NoneOnDryRun"), "{verdict:?}");
}

#[test]
fn the_labels_match_the_selector_that_they_are_for() {
    for (text, wanted) in [
        (GATE_SELECTORS[0], &["app", MANAGED_BY, "sidecar.istio.io/inject"][..]),
        ("app", &["app", MANAGED_BY, "sidecar.istio.io/inject"]),
        ("app!=x,!sidecar.istio.io/inject", &[MANAGED_BY]),
        ("sidecar.istio.io/inject=true", &[MANAGED_BY, "sidecar.istio.io/inject"]),
    ] {
        let selector = selector::parse(text).unwrap();
        let labels = labels(&selector).unwrap();
        assert!(selector.matches(&labels), "{text}: {labels:?}");
        assert_eq!(labels.keys().collect::<Vec<_>>(), wanted, "{text}");
    }
    assert_eq!(labels(&selector::parse("app=a,app=b").unwrap()), None);
    assert_eq!(labels(&selector::parse("app,!app").unwrap()), None);
}

#[test]
fn a_number_is_new_each_time_and_nothing_else_passes_for_one() {
    assert!(is_nonce(&nonce()) && nonce() != nonce());
    // A longer warning may be cut.
    assert!(warning(&nonce()).len() <= 120);
    for wrong in ["", "0", &NONCE[1..], &format!("{NONCE}0"), &NONCE.to_uppercase(), &NONCE.replace('0', "g")] {
        assert!(!is_nonce(wrong), "{wrong}");
    }
}
