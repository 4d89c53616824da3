//! AdmissionReviews, by the API server's own types: the same labels, the same pods that are gated.

use std::sync::LazyLock;

use istio_ca_gate::gate::{GATE_SELECTORS, Gated};
use istio_ca_gate::patch::SecretSource;
use istio_ca_gate::selector;
use istio_ca_gate::webhook::review::Request;
use judge::consumers::{Reviewed, ReviewedSecret};
use serde::de::IgnoredAny;

use crate::judged::by_go;

pub(crate) const WORDS: &[&str] = &[
    "apiVersion",
    "kind",
    "request",
    "uid",
    "operation",
    "namespace",
    "name",
    "resource",
    "subResource",
    "dryRun",
    "object",
    "oldObject",
    "metadata",
    "labels",
    "annotations",
    "generateName",
    "ownerReferences",
    "controller",
    "group",
    "version",
    "spec",
    "volumes",
    "secret",
    "secretName",
    "optional",
    "projected",
    "sources",
    "items",
    "options",
    "CREATE",
    "UPDATE",
    "DELETE",
    "CONNECT",
    "pods",
    "binding",
    "ephemeralcontainers",
    "deployments",
    "apps",
    "v1",
    "admission.k8s.io/v1",
    "AdmissionReview",
    "Pod",
    "app",
    "istio",
    "istiod",
    "pilot",
    "istio-eastwestgateway",
    "gateway.networking.k8s.io/gateway-class-name",
    "istio-east-west",
    "cacerts",
    "istiod-",
    "App",
    "Labels",
    "REQUEST",
    "true",
    "false",
    "null",
    "\"labels\":null",
    "\"app\":\"istiod\"",
    "\\u0061pp",
    "\\ud800",
    "\\u0000",
    "1e3",
    "0.0",
];

/// Why the gate refuses what the API server's types take. None of it is ever sent: Go writes each key once, no null for
/// text or lists, and UTF-8.
const STRICTER: [&str; 14] = [
    // serde's words for a null in place of text or of a list.
    "invalid type: null",
    "duplicate field",
    // Halves of surrogate pairs, and what is not UTF-8.
    "lone leading surrogate",
    "unexpected end of hex escape",
    "invalid unicode code point",
    // Bounds of its own.
    "request.uid is empty or longer than",
    "labels, expected at most",
    "invalid length",
    "recursion limit exceeded",
    // Go takes a number with a fraction of zero for a whole one.
    "control character",
    "trailing characters",
    "missing field",
    "kind is not AdmissionReview",
    "apiVersion is not admission.k8s.io/v1",
];

static GATED: LazyLock<Gated> =
    LazyLock::new(|| Gated(GATE_SELECTORS.iter().filter_map(|text| selector::parse(text).ok()).collect()));

pub(crate) fn run(input: &[u8]) {
    let read = Request::parse(input, |_| true);
    let told = by_go(|go| go.review(input, &GATE_SELECTORS));
    match read {
        Ok(request) if told.refused.is_empty() => compare(&request, &told),
        // It looks at less of it, but it is JSON.
        Ok(_) => {
            assert!(serde_json::from_slice::<IgnoredAny>(input).is_ok(), "what is no JSON is read: {}", told.refused)
        }
        Err(why) => {
            assert!(!why.contains(char::is_control) && why.len() < 400, "{why:?}");
            // The API server asks about the creation of pods alone.
            let is_known =
                !told.refused.is_empty() || !told.creates || STRICTER.iter().any(|known| why.contains(known));
            assert!(is_known, "the API server reads it as {told:?}, and the gate: {why}");
        }
    }
}

fn compare(request: &Request, told: &Reviewed) {
    let ask = request.ask();
    assert_eq!((&request.uid, ask.is_pod && ask.is_create), (&told.uid, told.creates));
    if !told.creates {
        return;
    }
    assert_eq!(ask.dry_run, told.dry_run);
    assert_eq!(*ask.labels, told.labels.clone().unwrap_or_default());
    assert_eq!(GATED.matches(ask.labels), told.matches, "{:?}", ask.labels);
    let secrets = told.secrets.as_deref().unwrap_or_default();
    let found = &request.shape().secrets;
    assert_eq!(found.len(), secrets.len());
    assert!(found.iter().zip(secrets).all(|(one, other)| is_same(one, other)), "{found:?} {secrets:?}");
}

fn is_same(one: &SecretSource, other: &ReviewedSecret) -> bool {
    let source = usize::try_from(other.source).ok();
    // A name that is longer than any Secret's is cut.
    (one.volume, one.source, one.optional) == (other.volume, source, other.optional)
        && other.name.starts_with(&one.name)
}
