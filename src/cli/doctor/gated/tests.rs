#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::line::Outcome::{self, Failed, Note, Ok as Fine, Skipped, Warning};
use super::super::samples::{self, asked, cluster, configuration, expect, istiod, webhooks, workload};
use super::*;
use crate::plan::Role;

fn lines_of(workloads: Vec<Workload>, webhooks: Value) -> Vec<Line> {
    let cluster = Cluster { workloads: Look::Seen(workloads), validating: configuration(webhooks), ..cluster() };
    selectors(&cluster, &asked(Role::Sync))
}

fn one(workload: Workload, webhooks: Value) -> Line {
    let lines = lines_of(vec![workload], webhooks);
    assert_eq!(lines.len(), 1);
    lines.into_iter().next().unwrap()
}

#[test]
fn each_label_of_the_charts_is_matched_by_one_webhook_of_the_manifest() {
    for labels in [
        &[("app", "istiod"), ("istio", "pilot")][..],
        &[("app", "istiod"), ("istio", "istiod"), ("istio.io/rev", "r")],
        &[("app", "istio-eastwestgateway"), ("istio", "eastwestgateway")],
        &[("gateway.networking.k8s.io/gateway-class-name", "istio-east-west")],
    ] {
        expect(&one(workload("x", labels), webhooks()), Fine, "Deployment istio-system/x, each by one webhook");
    }
}

#[test]
fn what_no_webhook_matches_starts_unasked() {
    let mut gap = webhooks();
    gap["webhooks"].as_array_mut().unwrap().remove(0);
    expect(&one(istiod(), gap), Failed, "no webhook does");
    let mut elsewhere = webhooks();
    elsewhere["webhooks"][0]["namespaceSelector"] = json!({ "matchLabels": { "mesh": "yes" } });
    expect(&one(istiod(), elsewhere), Failed, "no webhook does");
}

#[test]
fn what_two_webhooks_match_costs_two_calls() {
    let mut overlapping = webhooks();
    overlapping["webhooks"][1]["objectSelector"] = json!({ "matchLabels": { "istio": "pilot" } });
    expect(&one(istiod(), overlapping), Warning, "2 webhooks match its pods");
}

#[test]
fn what_a_webhook_matches_and_the_gate_does_not_is_let_in() {
    let mut wide = webhooks();
    wide["webhooks"][0]["objectSelector"] = json!({});
    expect(&one(workload("web", &[("app", "web")]), wide), Warning, "the gate lets all of them in");
}

#[test]
fn what_looks_like_istiod_and_is_not_gated_is_warned_of() {
    let canary = |name: &str, image: &str| Workload { images: vec![image.to_owned()], ..workload(name, &[("x", "y")]) };
    for (workload, outcome) in [
        (canary("istiod-canary", "registry.example/x"), Warning),
        (canary("control", "docker.io/istio/pilot:1.28"), Warning),
        (canary("control", "registry.example:5000/pilot@sha256:0"), Warning),
        (canary("my-east-west-gateway", "registry.example/proxyv2"), Warning),
        (canary("copilot", "registry.example/copilot:1"), Note),
        (canary("autopilot", "registry.example/pilot-tools:1"), Note),
    ] {
        let line = one(workload, webhooks());
        expect(&line, outcome, if outcome == Warning { "is not gated" } else { "deployed yet" });
    }
}

#[test]
fn without_workloads_or_webhooks_there_is_nothing_to_match() {
    expect(&lines_of(Vec::new(), webhooks())[0], Note, "deployed yet");
    let blind = Cluster { validating: Look::Absent, ..cluster() };
    expect(&selectors(&blind, &asked(Role::Sync))[0], Skipped, "no webhook configuration");
}

fn gate_of(change: impl FnOnce(&mut Workload), namespace: &[(&str, &str)]) -> Vec<Line> {
    let mut gate = samples::gate();
    change(&mut gate);
    let labels = namespace.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let cluster =
        Cluster { workloads: Look::Seen(vec![istiod(), gate]), namespace: Look::Seen((labels, false)), ..cluster() };
    gate_lines(&cluster)
}

fn gate_lines(cluster: &Cluster) -> Vec<Line> {
    gate(cluster, &asked(Role::Sync))
}

#[test]
fn the_gates_pods_have_to_be_ready() {
    let of = |ready, wanted| gate_of(|gate| (gate.ready, gate.wanted) = (ready, wanted), &[]).remove(0);
    expect(&of(2, 2), Fine, "2 of 2 pods ready");
    expect(&of(1, 2), Warning, "1 of 2 pods ready");
    expect(&of(0, 2), Failed, "none of 2 pods is ready");
    expect(&of(0, 0), Failed, "has 0 replicas");
    expect(&of(1, 1), Note, "its restart refuses gated pods");
}

#[test]
fn the_gate_is_found_by_its_label_or_by_the_service_of_the_webhooks() {
    let nobody = Cluster { workloads: Look::Seen(vec![istiod()]), ..cluster() };
    expect(&gate_lines(&nobody)[0], Failed, "no Deployment of it");
    let elsewhere = gate_of(|gate| gate.namespace = "other".to_owned(), &[]);
    expect(&elsewhere[0], Failed, "no Deployment of it");
    let unlabelled = Cluster { backends: BTreeMap::new(), ..cluster() };
    expect(&gate_lines(&unlabelled)[0], Fine, "2 of 2");
}

#[test]
fn the_gates_pods_have_to_stay_outside_of_the_mesh() {
    let inject = "sidecar.istio.io/inject";
    let mode = "istio.io/dataplane-mode";
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], Outcome, &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[("istio-injection", "enabled")], Fine, "outside of the mesh"),
        (&[], &[("istio.io/dataplane-mode", "ambient")], Fine, "outside of the mesh"),
        (&[inject], &[("istio-injection", "enabled")], Failed, "they lack sidecar.istio.io/inject=false"),
        (&[inject], &[("istio.io/rev", "stable")], Failed, "they lack sidecar.istio.io/inject=false"),
        (&[mode], &[("istio.io/dataplane-mode", "ambient")], Failed, "they lack istio.io/dataplane-mode=none"),
        (&[inject], &[], Warning, "only the namespace's labels"),
        (&[mode], &[("istio-injection", "enabled")], Warning, "they lack istio.io/dataplane-mode=none"),
        (
            &[inject],
            &[("istio.io/rev", "stable"), ("istio-injection", "disabled")],
            Warning,
            "only the namespace's labels",
        ),
    ];
    for (lacking, namespace, outcome, says) in cases {
        let lines = gate_of(|gate| gate.labels.retain(|key, _| !lacking.contains(&key.as_str())), namespace);
        expect(&lines[1], *outcome, says);
    }
}
