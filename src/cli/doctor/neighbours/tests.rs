#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::line::Outcome::{Failed, Note, Ok as Fine, Warning};
use super::super::samples::{address, asked, cluster, expect, istiod, object, secret};
use super::super::workloads::Blocked;
use super::*;
use crate::reason::Reason;
use crate::samples::external_secrets as by_es;

fn entry(name: &str, host: &str) -> ServiceEntry {
    let entry = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": name, "namespace": "vault" }, "spec": { "hosts": [host] },
    });
    ServiceEntry::of(&object(entry))
}

fn pod(ready: &str) -> GatewayPod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {},
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    GatewayPod::of(&object(pod))
}

#[test]
fn the_way_of_old_is_of_no_interest_to_the_bootstrap_or_without_istio() {
    let addresses = [address("https://vault.example:8200")];
    let with_istio = || Cluster { service_entries: Look::Seen(Vec::new()), ..cluster() };
    assert!(old_way(&with_istio(), &addresses, &asked(Role::Bootstrap)).is_empty());
    assert!(old_way(&cluster(), &addresses, &asked(Role::Sync)).is_empty());
    assert_eq!(old_way(&with_istio(), &addresses, &asked(Role::Sync)).len(), 2);
}

#[test]
fn the_service_entry_is_known_by_its_name_or_by_a_configured_host() {
    let line = |entries| {
        let addresses = [address("https://vault.mesh.example:8200")];
        old_way(&Cluster { service_entries: Look::Seen(entries), ..cluster() }, &addresses, &asked(Role::Sync))
            .remove(0)
    };
    expect(&line(vec![entry("vault-vault-nas", "a.example")]), Fine, "vault/vault-vault-nas has a.example");
    expect(&line(vec![entry("x", "vault.mesh.example")]), Fine, "vault/x has vault.mesh.example");
    expect(&line(vec![entry("x", "other.example")]), Note, "there is none");
}

#[test]
fn gateways_are_ready_or_warned_of() {
    let line = |pods| {
        let cluster = Cluster { service_entries: Look::Seen(Vec::new()), gateway_pods: Look::Seen(pods), ..cluster() };
        old_way(&cluster, &[], &asked(Role::Sync)).remove(1)
    };
    expect(&line(Vec::new()), Note, "there are none");
    expect(&line(vec![pod("True"), pod("False")]), Fine, "1 of 2 ready");
    expect(&line(vec![pod("False")]), Warning, "none of 1 is ready");
}

fn with_conditions(conditions: Value) -> Look<Vec<ExternalSecret>> {
    let it = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": { "name": "istio-cacerts", "namespace": "istio-system" },
        "spec": { "target": { "name": "cacerts" } }, "status": { "conditions": conditions },
    });
    Look::Seen(vec![ExternalSecret::of(&object(it))])
}

fn es_lines(external_secrets: Look<Vec<ExternalSecret>>, owner: Owner) -> Vec<Line> {
    let cacerts = Look::Seen(secret(owner));
    external_secrets_of(&Cluster { external_secrets, cacerts, ..cluster() })
}

fn external_secrets_of(cluster: &Cluster) -> Vec<Line> {
    external_secrets(cluster, &asked(Role::Sync))
}

#[test]
fn an_external_secret_of_cacerts_is_ready_or_says_why_not() {
    let ready = || with_conditions(json!([{ "type": "Ready", "status": "True" }]));
    let failing = || with_conditions(json!([{ "type": "Ready", "status": "False", "message": "no such key" }]));
    expect(&es_lines(ready(), by_es())[0], Fine, "is ready");
    expect(&es_lines(ready(), Owner::Ours)[0], Warning, "two may write it");
    expect(&es_lines(failing(), by_es())[0], Warning, "no such key; cacerts stays as it is");
    expect(&es_lines(failing(), Owner::Ours)[0], Failed, "no such key");
    expect(&es_lines(with_conditions(Value::Null), by_es())[0], Warning, "does not tell");
}

#[test]
fn a_gate_that_cannot_have_cacerts_synced_is_warned_of() {
    let ready = with_conditions(json!([{ "type": "Ready", "status": "True" }]));
    let missing = rights::of_external_secret("istio-system", "istio-cacerts");
    let lacks = |behalf, missing| Cluster {
        external_secrets: ready.clone(),
        cacerts: Look::Seen(secret(by_es())),
        sync_rights: Look::Seen(Rights { behalf, missing }),
        ..cluster()
    };
    let line = &external_secrets_of(&lacks(Behalf::Gate, missing.clone()))[0];
    expect(line, Warning, "lacks get, patch externalsecrets.external-secrets.io istio-cacerts; list");
    assert_eq!(line.reason, Some(Reason::KubernetesForbidden));
    expect(&external_secrets_of(&lacks(Behalf::Gate, Vec::new()))[0], Fine, "is ready");
    expect(&external_secrets_of(&lacks(Behalf::Asker, missing))[0], Fine, "is ready");
}

#[test]
fn other_external_secrets_are_of_no_interest() {
    let other = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": { "name": "x", "namespace": "istio-system" }, "spec": {},
    });
    let other = ExternalSecret::of(&object(other));
    assert_eq!(other.target, "x");
    assert!(es_lines(Look::Seen(vec![other]), Owner::Ours).is_empty());
    assert!(es_lines(Look::Absent, Owner::Ours).is_empty());
    let forbidden = || Look::Forbidden("no right to list externalsecrets".to_owned());
    expect(&es_lines(forbidden(), Owner::Ours)[0], Note, "no right to list externalsecrets");
    expect(&es_lines(forbidden(), by_es())[0], Note, "no right to list externalsecrets");
}

fn release(name: &str, chart: &str, conditions: Value) -> HelmRelease {
    let it = json!({
        "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
        "metadata": { "name": name, "namespace": "istio-system" },
        "spec": { "chart": { "spec": { "chart": chart } } }, "status": { "conditions": conditions },
    });
    HelmRelease::of(&object(it))
}

fn release_lines(releases: Vec<HelmRelease>) -> Vec<Line> {
    let made = Some(("istio-system".to_owned(), "mine".to_owned()));
    let istiod = super::super::workloads::Workload { release: made, ..istiod() };
    let cluster = Cluster { helm_releases: Look::Seen(releases), workloads: Look::Seen(vec![istiod]), ..cluster() };
    helm_releases(&cluster, &asked(Role::Sync))
}

#[test]
fn releases_of_gated_pods_are_ready_waiting_or_stalled() {
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let waiting = json!([{ "type": "Ready", "status": "False", "message": "timed out" }]);
    let stalled = json!([{ "type": "Ready", "status": "False", "message": "exhausted" }, { "type": "Stalled", "status": "True" }]);
    let lines = release_lines(vec![
        release("istiod", "istiod", ready.clone()),
        release("gw", "gateway", waiting),
        release("mine", "umbrella", stalled),
        release("new", "istiod", Value::Null),
        release("other", "nginx", ready),
    ]);
    assert_eq!(lines.len(), 4);
    expect(&lines[0], Fine, "is ready");
    expect(&lines[1], Warning, "is not ready: timed out");
    expect(&lines[2], Failed, "has given up: exhausted");
    assert!(lines[2].next.as_ref().unwrap().ends_with("--reset`"));
    expect(&lines[3], Warning, "is not ready yet");
}

fn replica_set(app: &str, message: &str) -> Option<Blocked> {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "istiod-1", "namespace": "istio-system" },
        "spec": { "template": { "metadata": { "labels": { "app": app } } } },
        "status": { "conditions": [{ "type": "ReplicaFailure", "status": "True", "message": message }] },
    });
    Blocked::of(&object(set), &asked(Role::Sync).gated)
}

#[test]
fn a_blocked_replica_set_tells_the_gates_code_where_the_gate_refused() {
    let denied =
        "admission webhook \"app.istio-ca-gate.io\" denied the request: RootMissing: cluster nas: Vault has no root";
    let sets = vec![replica_set("istiod", denied).unwrap(), replica_set("istiod", "failed calling webhook").unwrap()];
    let lines = blocked(&Cluster { blocked: Look::Seen(sets), ..cluster() });
    expect(&lines[0], Failed, "RootMissing: cluster nas");
    assert_eq!((lines[0].reason, lines[1].reason), (Some(Reason::RootMissing), None));
    assert_eq!(lines[0].looked, "ReplicaSet istio-system/istiod-1");
    assert_eq!(replica_set("web", denied), None);
}
