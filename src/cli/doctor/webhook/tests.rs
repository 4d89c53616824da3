#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::line::Outcome::{Failed, Note, Ok as Fine, Skipped, Warning};
use super::super::samples::{asked, backend, cluster, configuration, expect, object, webhooks};
use super::*;
use crate::plan::Role;

fn lines_of(cluster: &Cluster) -> Vec<Line> {
    lines(cluster, &asked(Role::Sync))
}

/// The first line, after a change of the configuration.
fn with(change: impl FnOnce(&mut Value)) -> Line {
    let mut changed = webhooks();
    change(&mut changed);
    lines_of(&Cluster { validating: configuration(changed), ..cluster() }).remove(0)
}

/// The same after a change of its second webhook.
fn with_entry(change: impl FnOnce(&mut Value)) -> Line {
    with(|changed| change(&mut changed["webhooks"][1]))
}

#[test]
fn the_manifest_as_it_is_holds() {
    let lines = lines_of(&cluster());
    assert_eq!(lines.len(), 2);
    expect(&lines[0], Fine, "3 webhooks, of Service istio-system/istio-ca-gate, fail closed");
    expect(&lines[1], Fine, "ready endpoints: 2");
}

#[test]
fn what_lets_istiod_in_unasked_fails() {
    expect(&with_entry(|it| it["failurePolicy"] = json!("Ignore")), Failed, "failurePolicy is not Fail");
    expect(&with_entry(|it| it["rules"][0]["operations"] = json!(["UPDATE"])), Failed, "no rule of it is about CREATE");
    expect(
        &with_entry(|it| it["rules"][0]["resources"] = json!(["pods/status"])),
        Failed,
        "no rule of it is about CREATE",
    );
    expect(&with_entry(|it| it["rules"][0]["scope"] = json!("Cluster")), Failed, "no rule of it is about CREATE");
    expect(&with_entry(|it| it["rules"][0]["resources"] = json!(["*"])), Fine, "fail closed");
    expect(&with_entry(|it| drop(it.as_object_mut().unwrap().remove("failurePolicy"))), Fine, "fail closed");
    expect(
        &with_entry(|it| it["matchConditions"] = json!([{ "name": "x", "expression": "false" }])),
        Warning,
        "matchConditions",
    );
    let none = Cluster { validating: Look::Absent, ..cluster() };
    expect(&lines_of(&none)[0], Failed, "there is none");
    expect(&with(|it| it["webhooks"] = json!([])), Failed, "no webhooks that can be read");
}

#[test]
fn what_the_api_server_cannot_call_fails() {
    expect(&with_entry(|it| it["clientConfig"]["service"]["path"] = json!("/mutate")), Failed, "\"/mutate\"");
    expect(
        &with_entry(|it| it["clientConfig"] = json!({ "caBundle": "Y2E=", "url": "https://gate.example/" })),
        Failed,
        "\"/\" of https://gate.example/",
    );
    expect(
        &with_entry(|it| it["clientConfig"] = json!({ "caBundle": "Y2E=", "url": "https://gate.example/validate" })),
        Fine,
        "and https://gate.example/validate",
    );
    expect(&with_entry(|it| it["clientConfig"]["caBundle"] = Value::Null), Failed, "no caBundle");
    expect(&with_entry(|it| it["clientConfig"]["caBundle"] = json!("eA==")), Failed, "caBundle is not the CA");
    expect(&with_entry(|it| it["admissionReviewVersions"] = json!(["v1beta1"])), Failed, "version v1");
}

#[test]
fn what_makes_calls_worse_is_warned_of() {
    expect(&with_entry(|it| it["timeoutSeconds"] = json!(9)), Warning, "timeoutSeconds is 9");
    expect(&with_entry(|it| it["timeoutSeconds"] = json!(30)), Fine, "fail closed");
    expect(&with_entry(|it| it["sideEffects"] = json!("None")), Warning, "sideEffects is None");
}

#[test]
fn of_several_flawed_webhooks_each_has_its_line() {
    let mut changed = webhooks();
    changed["webhooks"][0]["timeoutSeconds"] = json!(1);
    changed["webhooks"][2]["failurePolicy"] = json!("Ignore");
    let lines = lines_of(&Cluster { validating: configuration(changed), ..cluster() });
    assert!(lines[0].looked.starts_with("app.istio-ca-gate.io of Validating"), "{:?}", lines[0]);
    assert!(lines[1].looked.starts_with("class.istio-ca-gate.io of Validating"), "{:?}", lines[1]);
    assert_eq!(lines.iter().filter(|line| line.id == "webhook").count(), 2);
}

#[test]
fn with_cert_manager_any_ca_bundle_does_and_none_does_not() {
    let annotate = |it: &mut Value| it["metadata"]["annotations"] = json!({ "cert-manager.io/inject-ca-from": "a/b" });
    let other = with(|it| {
        annotate(it);
        it["webhooks"][0]["clientConfig"]["caBundle"] = json!("eA==");
    });
    expect(&other, Fine, "fail closed");
    let none = with(|it| {
        annotate(it);
        it["webhooks"][0]["clientConfig"]["caBundle"] = Value::Null;
    });
    expect(&none, Failed, "no caBundle");
    assert!(none.next.unwrap().contains("cert-manager"));
}

#[test]
fn a_certificate_from_files_is_by_a_ca_that_the_user_fills_in() {
    let asked = Asked { tls_secret: None, ..asked(Role::Sync) };
    let line = |bundle: Value| {
        let mut changed = webhooks();
        changed["webhooks"][1]["clientConfig"]["caBundle"] = bundle;
        lines(&Cluster { validating: configuration(changed), ..cluster() }, &asked).remove(0)
    };
    assert_eq!(line(json!("eA==")).outcome, Fine);
    let none = line(Value::Null);
    assert_eq!(none.outcome, Failed);
    assert!(none.next.unwrap().contains("the CA of the gate's certificate"));
}

#[test]
fn the_serving_ca_has_to_be_there_as_far_as_it_may_be_seen() {
    let with = |serving_ca| lines_of(&Cluster { serving_ca, ..cluster() }).remove(0);
    expect(&with(Look::Absent), Failed, "there is no Secret istio-system/istio-ca-gate-tls");
    expect(&with(Look::Seen(None)), Failed, "has no certificate");
    expect(&with(Look::Forbidden(String::new())), Fine, "fail closed");
}

#[test]
fn a_mutating_configuration_is_looked_at_where_there_is_one() {
    let mut mutating = webhooks();
    for webhook in mutating["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["service"]["path"] = json!("/mutate");
    }
    let lines = lines_of(&Cluster { mutating: configuration(mutating), ..cluster() });
    assert_eq!(lines[1].looked, "MutatingWebhookConfiguration istio-ca-gate");
    expect(&lines[1], Fine, "3 webhooks");
    let lines = lines_of(&Cluster { mutating: configuration(webhooks()), ..cluster() });
    expect(&lines[1], Failed, "and not to /mutate");
}

fn with_backend(backend: Backend) -> Line {
    let key = ("istio-system".to_owned(), "istio-ca-gate".to_owned());
    lines_of(&Cluster { backends: [(key, backend)].into(), ..cluster() }).remove(1)
}

#[test]
fn behind_the_webhooks_there_has_to_be_a_service_with_endpoints() {
    expect(&with_backend(Backend::of(Look::Absent, Look::Seen(Vec::new()))), Failed, "there is none");
    expect(&with_backend(backend(0)), Failed, "no endpoint that is ready");
    let port = json!({ "metadata": {}, "spec": { "ports": [{ "port": 8443 }] } });
    expect(&with_backend(Backend::of(Look::Seen(object(port)), Look::Seen(Vec::new()))), Failed, "no port 443");
    let forbidden = || Look::Forbidden("no right to get services".to_owned());
    expect(&with_backend(Backend::of(forbidden(), Look::Seen(Vec::new()))), Note, "no right to get services");
}

#[test]
fn a_cluster_that_does_not_answer_is_not_looked_at() {
    expect(&lines_of(&Cluster::default())[0], Skipped, "kubernetes-api failed");
}
