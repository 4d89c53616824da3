//! The API server's audit log: what became of `cacerts`, and which pods were let in or refused.

use jiff::Timestamp;
use serde_json::Value;

use crate::files::Files;
use crate::history::{By, Deed, Line, Said};

/// The namespace that is looked at.
const NAMESPACE: &str = "istio-system";

/// The gate's label, and its value.
const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "istio-ca-gate");

/// Reads the log of this cluster. The gate's service accounts are these.
pub fn read(cluster: &str, log: &str, accounts: &[&str]) -> Vec<Line> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = events.filter(|event| event["stage"] == "ResponseComplete");
    let mut last = 0;
    events
        .flat_map(|event| {
            last = revision(&event).map_or(last, |revision| revision.max(last));
            lines(cluster, &event, accounts, last)
        })
        .collect()
}

fn revision(event: &Value) -> Option<u64> {
    event["responseObject"]["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// RFC 3339 as milliseconds since 1970.
pub fn milliseconds(time: &Value) -> Option<u64> {
    u64::try_from(time.as_str()?.parse::<Timestamp>().ok()?.as_millisecond()).ok()
}

fn lines(cluster: &str, event: &Value, accounts: &[&str], last: u64) -> Vec<Line> {
    let of = &event["objectRef"];
    let is_dry = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun="));
    let Some(at) = milliseconds(&event["stageTimestamp"]) else { return Vec::new() };
    if is_dry || of["namespace"] != NAMESPACE || !of["subresource"].is_null() {
        return Vec::new();
    }
    let said = match of["resource"].as_str() {
        Some("secrets") => secret(cluster, event, accounts, last).into_iter().collect(),
        Some("pods") if event["verb"] == "create" => pod(cluster, event),
        _ => Vec::new(),
    };
    said.into_iter().map(|said| Line { at, said }).collect()
}

fn succeeded(event: &Value) -> bool {
    event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
}

fn secret(cluster: &str, event: &Value, accounts: &[&str], last: u64) -> Option<Said> {
    let (object, sent) = (&event["responseObject"], &event["requestObject"]);
    let name = event["objectRef"]["name"].as_str().or(object["metadata"]["name"].as_str());
    let verb = event["verb"].as_str()?;
    let is_all = verb == "deletecollection";
    if !succeeded(event) || (name != Some("cacerts") && !is_all) {
        return None;
    }
    let user = event["user"]["username"].as_str().unwrap_or_default();
    let is_gate = accounts.iter().any(|account| user == format!("system:serviceaccount:{NAMESPACE}:{account}"));
    let is_gone = is_all || verb == "delete";
    Some(Said::Cacerts {
        cluster: cluster.to_owned(),
        by: if is_gate { By::Gate } else { By::Other },
        deed: if is_gone { Deed::Delete } else { Deed::Write },
        // The answer to a deletion may have none: it was after all that is known.
        revision: revision(event).filter(|_| !is_gone).unwrap_or(last),
        checked: verb == "create"
            || sent["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()),
        ours: !is_gone && object["metadata"]["labels"][OURS.0] == OURS.1,
        files: (!is_gone).then(|| Files::of_secret(&object["data"])),
    })
}

fn pod(cluster: &str, event: &Value) -> Vec<Said> {
    let (object, sent) = (&event["responseObject"], &event["requestObject"]);
    let cluster = cluster.to_owned();
    let gated = is_gated(&sent["metadata"]["labels"]);
    if !succeeded(event) {
        let message = event["responseStatus"]["message"].as_str().unwrap_or_default().to_owned();
        let is_by_webhook = message.contains("denied the request") || message.contains("webhook");
        return if is_by_webhook { vec![Said::Denied { cluster, gated, message }] } else { Vec::new() };
    }
    let Some(revision) = revision(event) else { return Vec::new() };
    let annotations = event["annotations"].as_object().into_iter().flatten();
    let failed = annotations.filter(|(key, _)| gated && key.starts_with("failed-open."));
    let failed = failed.map(|(key, value)| {
        let webhook = value.as_str().unwrap_or(key).to_owned();
        Said::FailedOpen { cluster: cluster.clone(), webhook }
    });
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let pod = Said::Pod { cluster: cluster.clone(), name, gated, revision };
    failed.chain([pod]).collect()
}

/// By the selectors that the contract has as its default.
fn is_gated(labels: &Value) -> bool {
    let is = |label: &str, values: &[&str]| labels[label].as_str().is_some_and(|value| values.contains(&value));
    is("app", &["istiod", "istio-eastwestgateway"])
        || is("istio", &["pilot", "istiod", "eastwestgateway"])
        || is("gateway.networking.k8s.io/gateway-class-name", &["istio-east-west"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(verb: &str, resource: &str, user: &str, code: u16, sent: &Value, object: &Value) -> Value {
        json!({
            "stage": "ResponseComplete", "verb": verb, "requestURI": "/", "stageTimestamp": "2026-11-28T10:00:00Z",
            "user": { "username": format!("system:serviceaccount:istio-system:{user}") },
            "objectRef": { "resource": resource, "namespace": "istio-system", "name": object["metadata"]["name"] },
            "requestObject": sent, "responseObject": object, "responseStatus": { "code": code },
        })
    }

    fn object(name: &str, version: &str, labels: &Value) -> Value {
        json!({ "metadata": { "name": name, "resourceVersion": version, "labels": labels }, "data": {} })
    }

    #[test]
    fn writes_and_deletions_of_cacerts_are_read_by_author_version_and_label() {
        let labels = json!({ "app.kubernetes.io/managed-by": "istio-ca-gate" });
        let (ours, theirs) = (object("cacerts", "7", &labels), object("cacerts", "9", &json!({})));
        let log = [
            event("create", "secrets", "istio-ca-gate", 201, &json!({}), &ours),
            event("patch", "secrets", "istio-ca-gate", 409, &json!({}), &ours),
            event("patch", "secrets", "istio-ca-gate", 200, &json!({}), &object("cacerts", "8", &labels)),
            event("update", "secrets", "someone", 200, &json!({ "metadata": { "resourceVersion": "8" } }), &theirs),
            event("create", "secrets", "someone", 201, &json!({}), &object("other", "10", &json!({}))),
            event("delete", "secrets", "someone", 200, &json!({}), &json!({ "metadata": { "name": "cacerts" } })),
        ];
        let text = log.map(|event| event.to_string()).join("\n");
        let read: Vec<_> = read("nas", &text, &["istio-ca-gate"])
            .into_iter()
            .filter_map(|line| match line.said {
                Said::Cacerts { by, deed, revision, checked, ours, .. } => Some((by, deed, revision, checked, ours)),
                _ => None,
            })
            .collect();
        assert_eq!(
            read,
            [
                (By::Gate, Deed::Write, 7, true, true),
                (By::Gate, Deed::Write, 8, false, true),
                (By::Other, Deed::Write, 9, true, false),
                // It has no version of its own, and is after all others.
                (By::Other, Deed::Delete, 10, false, false),
            ]
        );
    }

    #[test]
    fn pods_are_read_as_let_in_refused_or_let_in_in_vain() {
        let gated = json!({ "metadata": { "labels": { "app": "istiod" } } });
        let created = object("istiod-1", "11", &json!({}));
        let mut refused = event("create", "pods", "rs", 403, &gated, &json!({}));
        refused["responseStatus"]["message"] = json!("admission webhook \"a\" denied the request: RootMissing: …");
        let mut open = event("create", "pods", "rs", 201, &gated, &created);
        open["annotations"] = json!({ "failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "a" });
        let mut dry = event("create", "pods", "rs", 201, &gated, &created);
        dry["requestURI"] = json!("/api/v1/namespaces/istio-system/pods?dryRun=All");
        let other = event("create", "pods", "rs", 201, &json!({}), &object("web-1", "12", &json!({})));
        let log = [&refused, &open, &dry, &other].map(Value::to_string).join("\n");
        let read: Vec<_> = read("nas", &log, &[]).into_iter().map(|line| line.said).collect();
        let pod = |name: &str, gated, revision| Said::Pod {
            cluster: "nas".to_owned(),
            name: name.to_owned(),
            gated,
            revision,
        };
        assert_eq!(read.len(), 4, "{read:?}");
        assert!(read.contains(&pod("istiod-1", true, 11)) && read.contains(&pod("web-1", false, 12)), "{read:?}");
        assert!(read.iter().any(|said| matches!(said, Said::FailedOpen { .. })), "{read:?}");
        assert!(read.iter().any(|said| matches!(said, Said::Denied { gated: true, .. })), "{read:?}");
    }

    #[test]
    fn east_west_gateways_are_gated_by_each_of_their_labels() {
        for labels in [
            json!({ "app": "istio-eastwestgateway" }),
            json!({ "istio": "eastwestgateway" }),
            json!({ "gateway.networking.k8s.io/gateway-class-name": "istio-east-west" }),
        ] {
            assert!(is_gated(&labels), "{labels}");
        }
        assert!(!is_gated(&json!({ "app": "ztunnel" })) && !is_gated(&Value::Null));
    }
}
