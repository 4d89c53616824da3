//! A homelab and a NAS in which all is well: what the tests of each link break one thing of.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::asked::Asked;
use super::cacerts::Cacerts;
use super::cluster::Cluster;
use super::line::{Line, Outcome};
use super::look::Look;
use super::rights::{Behalf, Rights};
use super::vault::{Address, Reach, Told, Way};
use super::webhook::{Backend, Configuration};
use super::workloads::Workload;
use crate::ca::fixtures::now;
use crate::gate::GATE_SELECTORS;
use crate::gate::Gated;
use crate::plan::{Owner, ReadPin, Role};
use crate::samples::{R1, assert_fit_for_users, names, pin as pin_on, published, stored};
use crate::selector;
use crate::self_test::Verdict;
use crate::vault::{AuthMount, Claims, Granted, Health, Node, Record};

pub(super) fn asked(role: Role) -> Asked {
    Asked {
        role,
        pre: false,
        namespace: "istio-system".to_owned(),
        secret: "cacerts".to_owned(),
        tls_secret: Some("istio-ca-gate-tls".to_owned()),
        webhook_config: "istio-ca-gate".to_owned(),
        self_test: "istio-system".to_owned(),
        gated: Gated(GATE_SELECTORS.iter().map(|text| selector::parse(text).unwrap()).collect()),
        account: format!("istio-ca-{}", role.as_str()),
        names: names(),
        signer: None,
        own_token: false,
        auth_mount: "kubernetes-nas".to_owned(),
        vault_role: format!("istio-ca-{}", role.as_str()),
        mount: "secret".to_owned(),
        path: "istio/ca".to_owned(),
        now: now(),
    }
}

pub(super) fn health(status: u16, cluster_id: &str) -> Health {
    Health {
        status,
        version: "1.21.1".to_owned(),
        cluster_name: Some("vault".to_owned()),
        cluster_id: Some(cluster_id.to_owned()).filter(|id| !id.is_empty()),
        node: match status {
            200 => Node::Active,
            429 => Node::Forwards,
            473 => Node::Reads { heard: Some(std::time::Duration::from_secs(1)) },
            472 => Node::Recovery,
            501 | 503 => Node::Sealed,
            _ => Node::Other,
        },
        ahead: Some(k8s_openapi::jiff::SignedDuration::ZERO),
        certificate: None,
    }
}

pub(super) fn address(url: &str) -> Address {
    let health = Some(Ok(health(200, "one")));
    Address {
        url: url.parse().unwrap(),
        gone: false,
        way: Way::Direct,
        reach: Reach::Connected(([10, 0, 0, 1], 8200).into()),
        health,
    }
}

/// What a login of a role is allowed by the policies of deploy/.
pub(super) fn allowed(role: Role) -> BTreeMap<String, Vec<String>> {
    let data: &[&str] = if role == Role::Bootstrap { &["create", "read"] } else { &["read"] };
    let of =
        |kind: &str, has: &[&str]| (format!("secret/{kind}/istio/ca"), has.iter().map(|it| (*it).to_owned()).collect());
    [of("data", data), of("metadata", &["deny"]), of("delete", &["deny"]), of("destroy", &["deny"])].into()
}

pub(super) fn told(role: Role) -> Told {
    let claims = Claims {
        audiences: vec!["vault".to_owned()],
        subject: format!("system:serviceaccount:istio-system:istio-ca-{}", role.as_str()),
        issuer: "https://kubernetes.default.svc".to_owned(),
        expires: Some(now() + k8s_openapi::jiff::SignedDuration::from_hours(1)),
    };
    let granted = Granted { policies: vec!["default".to_owned(), format!("istio-ca-{}", role.as_str())], lease: 3600 };
    Told {
        addresses: vec![address("https://vault.example:8200")],
        claims: Look::Seen(claims),
        auth_mount: Look::Seen(AuthMount::AsksForRole),
        login: Look::Seen(("https://vault.example:8200".to_owned(), Some(granted))),
        token_end: Look::Absent,
        rights: Look::Seen(allowed(role)),
        mount: Look::Seen((None, None)),
        record: Look::Seen(Record { stored: stored(&R1), deleted_at: None }),
        given_up: Look::Seen(()),
    }
}

/// The webhooks of deploy/kustomize/base/webhook.yaml, with a `caBundle`.
pub(super) fn webhooks() -> Value {
    let manifest = include_str!("../../../deploy/kustomize/base/webhook.yaml");
    let mut object = serde_saphyr::from_multiple::<Value>(manifest).unwrap().remove(0);
    for webhook in object["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = json!("Y2E=");
    }
    object
}

pub(super) fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn configuration(value: Value) -> Look<Configuration> {
    Look::Seen(Configuration::of(&object(value)))
}

/// A Service like deploy/kustomize/base/deployment.yaml's, with so many endpoints.
pub(super) fn backend(ready: usize) -> Backend {
    let service =
        json!({ "metadata": {}, "spec": { "selector": { "app": "istio-ca-gate" }, "ports": [{ "port": 443 }] } });
    let endpoints = vec![json!({ "conditions": { "ready": true } }); ready];
    let slice =
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {}, "endpoints": endpoints });
    Backend::of(Look::Seen(object(service)), Look::Seen(vec![object(slice)]))
}

pub(super) fn workload(name: &str, labels: &[(&str, &str)]) -> Workload {
    Workload {
        kind: "Deployment",
        namespace: "istio-system".to_owned(),
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        images: vec!["registry.example/image:1".to_owned()],
        wanted: 2,
        ready: 2,
        release: None,
    }
}

pub(super) fn gate() -> Workload {
    let outside = [("app", "istio-ca-gate"), ("sidecar.istio.io/inject", "false"), ("istio.io/dataplane-mode", "none")];
    workload("istio-ca-gate", &outside)
}

pub(super) fn istiod() -> Workload {
    workload("istiod", &[("app", "istiod"), ("istio", "pilot")])
}

pub(super) fn cluster() -> Cluster {
    let service = ("istio-system".to_owned(), "istio-ca-gate".to_owned());
    Cluster {
        ahead: None,
        version: Look::Seen("v1.34.4".to_owned()),
        me: Look::Seen("kim".to_owned()),
        rights: Look::Seen(Rights { behalf: Behalf::Gate, missing: Vec::new() }),
        namespace: Look::Seen((BTreeMap::new(), false)),
        namespaces: Look::Seen([("istio-system".to_owned(), BTreeMap::new())].into()),
        cacerts: Look::Seen(secret(Owner::Ours)),
        pin: Look::Seen(ReadPin::of(pin_on(R1.root))),
        own_root: Look::Absent,
        served_root: Look::Seen(Some(R1.glance.clone())),
        serving_ca: Look::Seen(Some(b"ca".to_vec())),
        validating: configuration(webhooks()),
        mutating: Look::Absent,
        self_test: Look::Seen(Verdict::Called),
        backends: [(service, backend(2))].into(),
        workloads: Look::Seen(vec![gate(), istiod()]),
        blocked: Look::Seen(Vec::new()),
        service_entries: Look::Absent,
        gateway_pods: Look::Seen(Vec::new()),
        external_secrets: Look::Absent,
        sync_rights: Look::Seen(Rights { behalf: Behalf::Gate, missing: Vec::new() }),
        helm_releases: Look::Absent,
    }
}

pub(super) fn secret(owner: Owner) -> Cacerts {
    Cacerts { published: published(owner, &R1), immutable: false, managers: Vec::new() }
}

/// The outcome and what was seen, in a line that is fit for users and says what to do about what is not well.
pub(super) fn told_by(line: &Line) -> (Outcome, &str) {
    for text in [&line.looked, &line.seen].into_iter().chain(&line.next) {
        assert_fit_for_users(text);
    }
    assert_eq!(line.next.is_some(), matches!(line.outcome, Outcome::Warning | Outcome::Failed), "{line:?}");
    (line.outcome, &line.seen)
}

/// Expects a line of this outcome that says this.
pub(super) fn expect(line: &Line, outcome: Outcome, says: &str) {
    let (is, seen) = told_by(line);
    assert!(is == outcome && seen.contains(says), "not {outcome:?} with {says:?}: {line:?}");
}

mod tests {
    use super::super::check::{BEFORE, CHECKS, Check, Group, Sight};
    use super::*;

    fn report(checks: &[(Group, &dyn Check)], told: Told, cluster: Cluster, asked: &Asked) -> Vec<Line> {
        let seen = Sight { told, cluster, taken: Vec::new() };
        checks.iter().flat_map(|(_, check)| check.lines(&seen, asked)).collect()
    }

    #[test]
    fn of_what_is_well_nothing_fails_and_nothing_is_warned_of() {
        for role in [Role::Bootstrap, Role::Sync] {
            for line in report(CHECKS, told(role), cluster(), &asked(role)) {
                assert_eq!(told_by(&line).0, Outcome::Ok, "{line:?}");
            }
        }
    }

    #[test]
    fn before_an_installation_nothing_fails_in_an_empty_cluster() {
        for role in [Role::Bootstrap, Role::Sync] {
            let asked = Asked { pre: true, ..asked(role) };
            let empty = Cluster {
                namespace: Look::Absent,
                cacerts: Look::Absent,
                pin: Look::Absent,
                served_root: Look::Absent,
                ..cluster()
            };
            let record = Record { stored: crate::plan::Stored::Absent, deleted_at: None };
            let told = Told { record: Look::Seen(record), ..told(role) };
            for line in report(BEFORE, told, empty, &asked) {
                assert!(told_by(&line).0 != Outcome::Failed, "{line:?}");
            }
        }
    }

    #[test]
    fn of_what_cannot_be_looked_at_nothing_is_said_to_be_well() {
        let down = Cluster {
            version: Look::Failed(crate::samples::held(crate::reason::Reason::KubernetesUnreachable)),
            ..Cluster::default()
        };
        let mut silent = told(Role::Sync);
        silent.addresses[0].reach = Reach::Refused("nobody".to_owned());
        silent.addresses[0].health = None;
        let told = Told { addresses: silent.addresses, ..Told::nothing("no address of Vault is usable") };
        let lines = report(CHECKS, told, down, &asked(Role::Sync));
        let failed: Vec<_> = lines.iter().filter(|line| line.outcome == Outcome::Failed).map(|line| line.id).collect();
        assert_eq!(failed, ["vault-address", "kubernetes-api"]);
        for line in lines.iter().filter(|line| line.outcome != Outcome::Failed) {
            expect(line, Outcome::Skipped, "not looked at: ");
        }
    }
}
