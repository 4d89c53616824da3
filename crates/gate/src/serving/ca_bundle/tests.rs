#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;
use crate::k8s::samples::{answered_by, refusal};

const CA: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
/// The same in base64.
const CA_BASE64: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";

/// A configuration with one webhook for each of these.
fn configuration<K: Configuration>(annotations: Value, bundles: &[Option<&str>]) -> K {
    let webhook = |(index, bundle): (usize, &Option<&str>)| {
        json!({
            "name": format!("{index}.istio-ca-gate.io"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"caBundle": bundle, "service": {"name": "istio-ca-gate", "namespace": "istio-system"}},
        })
    };
    let webhooks: Vec<_> = bundles.iter().enumerate().map(webhook).collect();
    let metadata = json!({"name": "istio-ca-gate", "resourceVersion": "7", "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata, "webhooks": webhooks})).unwrap()
}

fn validating(annotations: Value, bundles: &[Option<&str>]) -> ValidatingWebhookConfiguration {
    configuration(annotations, bundles)
}

fn patch_for(kind: &str) -> Value {
    let webhook = |index| json!({"name": format!("{index}.istio-ca-gate.io"), "clientConfig": {"caBundle": CA_BASE64}});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "istio-ca-gate", "resourceVersion": "7"},
        "webhooks": [webhook(0), webhook(1), webhook(2)],
    })
}

#[test]
fn what_is_injected_is_left_alone() {
    assert_eq!(wanted(&validating(json!({}), &[Some(CA_BASE64); 3]), CA), None);
    assert_eq!(wanted(&validating(json!({}), &[]), CA), None);
}

#[test]
fn what_cert_manager_injects_is_left_alone() {
    for key in ["inject-ca-from", "inject-ca-from-secret", "inject-apiserver-ca"] {
        let annotations = json!({format!("cert-manager.io/{key}"): "istio-system/istio-ca-gate"});
        for bundle in [None, Some("QQ=="), Some(CA_BASE64)] {
            assert_eq!(wanted(&validating(annotations.clone(), &[bundle]), CA), None);
        }
    }
}

#[test]
fn otherwise_every_webhook_is_named_and_nothing_else() {
    for bundles in [
        [None, None, None],
        [Some(CA_BASE64), Some(CA_BASE64), None],
        [Some("QQ=="), Some(CA_BASE64), Some(CA_BASE64)],
        [Some(""), None, Some("QQ==")],
    ] {
        let configuration = validating(json!({"other": "x"}), &bundles);
        assert_eq!(wanted(&configuration, CA), Some(patch_for("ValidatingWebhookConfiguration")), "{bundles:?}");
    }
}

#[test]
fn a_mutating_configuration_is_kept_in_the_same_way() {
    let mutating = |bundles: &[Option<&str>]| configuration::<MutatingWebhookConfiguration>(json!({}), bundles);
    assert_eq!(wanted(&mutating(&[None; 3]), CA), Some(patch_for("MutatingWebhookConfiguration")));
    assert_eq!(wanted(&mutating(&[Some(CA_BASE64); 3]), CA), None);
}

#[test]
fn a_bundle_with_more_than_our_ca_is_replaced() {
    let more = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCgo=";
    assert!(wanted(&validating(json!({}), &[Some(more)]), CA).is_some());
}

#[tokio::test]
async fn a_configuration_that_was_deleted_is_written_no_more() {
    let (lists, patches) = (watch::Sender::new(0), watch::Sender::new(0));
    let (mut listed, patched) = (lists.subscribe(), patches.subscribe());
    let before = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istio-ca-gate", "resourceVersion": "7"},
        "webhooks": [{
            "name": "0.istio-ca-gate.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "istio-ca-gate", "namespace": "istio-system"}},
        }],
    });
    let client = answered_by(move |request| {
        let uri = request.uri().to_string();
        if request.method() == http::Method::PATCH {
            patches.send_modify(|patches| *patches += 1);
            refusal(404, "NotFound")
        } else if uri.contains("/secrets/") {
            refusal(404, "NotFound")
        } else if uri.contains("watch=true") {
            // It ends at once, so that there is another list.
            (200, json!(""))
        } else {
            lists.send_modify(|lists| *lists += 1);
            let items = if *lists.borrow() == 1 { vec![before.clone()] } else { Vec::new() };
            (200, json!({ "metadata": { "resourceVersion": "7" }, "items": items }))
        }
    });
    let exchange = Arc::<Exchange>::default();
    exchange.bundle.send_replace(Some("new".into()));
    let secret = ServingSecret::new(client.clone(), "istio-system", "istio-ca-gate-tls");
    let injection = Injection { configuration: "istio-ca-gate".to_owned(), secret, exchange };
    tokio::select! {
        () = keep::<ValidatingWebhookConfiguration>(client, injection, || ()) => {}
        // By its pauses, the sixth list is more than a second after the first.
        listed = listed.wait_for(|lists| *lists >= 6) => assert!(listed.is_ok()),
    }
    assert_eq!(*patched.borrow(), 1);
}
