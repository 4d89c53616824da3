//! Calls that fail, and in which words.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde_json::{Value, json};
use standin::faults::{Aim, Fault};
use standin::wire::{self, Answer};
use testbed::{Authority, KubernetesApi};

use crate::suite::webhook::{Kind, Webhook, allowed, internal, is};
use crate::suite::{Case, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    an_answer_to_another_review_is_a_failed_call,
    an_answer_that_is_no_admission_review_is_a_failed_call,
    an_answer_with_a_field_of_a_wrong_type_is_a_failed_call,
    an_unreadable_answer_is_a_failed_call,
    an_answer_of_another_status_is_a_failed_call,
    an_error_status_object_is_told_by_its_message,
    failures_that_are_ignored_let_pass,
    a_webhook_that_takes_longer_than_its_timeout_has_failed,
    a_webhook_that_cannot_be_reached_has_failed,
    a_webhook_that_hangs_up_has_failed,
    a_webhook_behind_a_service_that_is_not_there_has_failed,
    a_webhook_is_trusted_by_its_bundle_only,
    an_answer_with_retry_after_is_followed_by_the_same_review,
    a_review_is_posted_eleven_times_at_most,
    a_refusal_with_retry_after_is_not_retried,
];

/// A webhook that fails in these ways one after the other, and what is said of each.
async fn fails(cluster: &KubernetesApi, namespace: &str, ways: Vec<(Answering, impl Display)>) -> Result<()> {
    let webhook = Webhook::start(cluster, namespace, |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    for (answering, why) in ways {
        webhook.answers(answering);
        let wanted = internal(&format!("failed calling webhook {:?}: {why}", webhook.name()));
        is(&webhook.create_pod("p").await?, 500, &wanted)?;
    }
    webhook.end().await
}

type Answering = Box<dyn Fn(&Value, usize) -> Answer + Send + Sync>;

/// An AdmissionReview, but for what `differs` in it and in its response.
fn but(top: Value, response: Value) -> Answering {
    Box::new(move |review, _| {
        let allowed = json!({"uid": review["request"]["uid"], "allowed": true});
        let mut answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": allowed});
        merge(&mut answer["response"], &response);
        merge(&mut answer, &top);
        wire::json(200, &answer)
    })
}

fn merge(object: &mut Value, differs: &Value) {
    for (field, value) in differs.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
}

fn body(status: u16, content_type: &'static str, text: &'static str) -> Answering {
    Box::new(move |_, _| wire::text(status, content_type, text))
}

async fn an_answer_to_another_review_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "failed-uid", but(json!({}), json!({"uid": "another"}))).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    for (answering, got) in [(but(json!({}), json!({"uid": "x"})), "x"), (but(json!({}), json!({"uid": null})), "")] {
        webhook.answers(answering);
        let answer = webhook.create_pod("p").await?;
        let reviews = webhook.reviews()?;
        let uid = reviews.last().and_then(|review| review["uid"].as_str()).context("never asked")?;
        let why = format!("received invalid webhook response: expected response.uid={uid:?}, got {got:?}");
        is(&answer, 500, &internal(&format!("failed calling webhook \"failed-uid.contract.test\": {why}")))?;
    }
    webhook.end().await
}

async fn an_answer_that_is_no_admission_review_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let top = |top: Value| but(top, json!({}));
    let ways = vec![
        (
            top(json!({"apiVersion": "admission.k8s.io/v1beta1"})),
            "failed to call webhook: converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion",
        ),
        (
            top(json!({"apiVersion": "admission.k8s.io/v2"})),
            "failed to call webhook: no kind \"AdmissionReview\" is registered for version \"admission.k8s.io/v2\" \
             in scheme \"pkg/runtime/scheme.go:110\"",
        ),
        (
            top(json!({"kind": "Review"})),
            "failed to call webhook: no kind \"Review\" is registered for version \"admission.k8s.io/v1\" \
             in scheme \"pkg/runtime/scheme.go:110\"",
        ),
        (
            top(json!({"kind": ""})),
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
             Kind=AdmissionReview, got admission.k8s.io/v1, Kind=",
        ),
        (
            top(json!({"apiVersion": ""})),
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
             Kind=AdmissionReview, got /, Kind=AdmissionReview",
        ),
        (
            top(json!({"apiVersion": "v1", "kind": "Status"})),
            "failed to call webhook: converting (v1.Status) to (v1.AdmissionReview): unknown conversion",
        ),
        (top(json!({"response": null})), "received invalid webhook response: webhook response was absent"),
        (body(200, "application/json", "{}"), "received invalid webhook response: webhook response was absent"),
    ];
    fails(cluster, "failed-kind", ways).await
}

async fn an_answer_with_a_field_of_a_wrong_type_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let unmarshal = "failed to call webhook: json: cannot unmarshal";
    let texts = [
        (json!({"uid": 1}), "number into Go struct field AdmissionResponse.response.uid of type types.UID"),
        (json!({"allowed": "yes"}), "string into Go struct field AdmissionResponse.response.allowed of type bool"),
        (json!({"status": "x"}), "string into Go struct field AdmissionResponse.response.status of type v1.Status"),
        (json!({"patch": 1}), "number into Go struct field AdmissionResponse.response.patch of type []uint8"),
        (json!({"warnings": "x"}), "string into Go struct field AdmissionResponse.response.warnings of type []string"),
    ]
    .map(|(response, text)| (but(json!({}), response), format!("{unmarshal} {text}")));
    fails(cluster, "failed-type", texts.into()).await
}

async fn an_unreadable_answer_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let unread = "failed to call webhook: couldn't get version/kind; json parse error: ";
    let meta = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let string = format!("{unread}json: cannot unmarshal string into Go value of type {meta}");
    let array = format!("{unread}json: cannot unmarshal array into Go value of type {meta}");
    let end = format!("{unread}unexpected end of JSON input");
    let ways = vec![
        (body(200, "application/json", "hello"), string.as_str()),
        (body(200, "text/html", "<html>"), string.as_str()),
        (body(200, "application/json", "[1]"), array.as_str()),
        (body(200, "application/json", "{\"response\":"), end.as_str()),
        (
            body(200, "application/json", ""),
            "failed to call webhook: 0-length response with status code: 200 and content type: application/json",
        ),
    ];
    fails(cluster, "failed-json", ways).await
}

async fn an_answer_of_another_status_is_a_failed_call(cluster: &KubernetesApi) -> Result<()> {
    let texts = [
        (400, "the server rejected our request for an unknown reason"),
        (401, "the server has asked for the client to provide credentials"),
        (403, "told"),
        (404, "the server could not find the requested resource"),
        (405, "the server does not allow this method on the requested resource"),
        (409, "the server reported a conflict"),
        (413, "the server responded with the status code 413 but did not return more information"),
        (302, "the server responded with the status code 302 but did not return more information"),
        (422, "the server rejected our request due to an error in our request"),
        (429, "the server has received too many requests and has asked us to try again later"),
        (500, "an error on the server (\"told\") has prevented the request from succeeding"),
        (502, "an error on the server (\"told\") has prevented the request from succeeding"),
        (503, "the server is currently unable to handle the request"),
        (
            504,
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
    ]
    .map(|(status, text)| (body(status, "text/plain", " told\n"), format!("failed to call webhook: {text}")));
    fails(cluster, "failed-status", texts.into()).await
}

async fn an_error_status_object_is_told_by_its_message(cluster: &KubernetesApi) -> Result<()> {
    let status: Answering = Box::new(|_, _| {
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 500, "message": "mine"});
        wire::json(500, &status)
    });
    let unknown =
        "failed to call webhook: an error on the server (\"unknown\") has prevented the request from succeeding";
    let review: Answering = Box::new(|review, _| {
        let mut answer = allowed(review);
        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    });
    fails(cluster, "failed-object", vec![(status, "failed to call webhook: mine"), (review, unknown)]).await
}

async fn failures_that_are_ignored_let_pass(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "ignored", body(500, "text/plain", "broken")).await?;
    webhook.register(Kind::Validating, json!({"failurePolicy": "Ignore"})).await?;
    for (name, answering) in [("a", body(500, "text/plain", "")), ("b", but(json!({}), json!({"uid": "x"})))] {
        webhook.answers(answering);
        let (status, answer) = webhook.create_pod(name).await?;
        ensure!(status == 201, "{status}: {answer}");
    }
    ensure!(webhook.asked().len() == 2);
    webhook.end().await
}

async fn a_webhook_that_takes_longer_than_its_timeout_has_failed(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "silent", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({"timeoutSeconds": 1})).await?;
    let silent = webhook.server().faults().inject(Fault::Silent, Aim::all());
    let started = Instant::now();
    let answer = webhook.create_pod("p").await?;
    ensure!(
        (Duration::from_millis(900)..Duration::from_secs(5)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    ensure!(silent.hits() == 1);
    let url = format!("{}/ask?timeout=1s", webhook.server().url());
    let why = format!("failed to call webhook: Post {url:?}: context deadline exceeded");
    is(&answer, 500, &internal(&format!("failed calling webhook \"silent.contract.test\": {why}")))?;
    webhook.end().await
}

async fn a_webhook_that_cannot_be_reached_has_failed(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "unreachable", |review, _| allowed(review)).await?;
    let nobody = testbed::Port::reserve()?.number();
    let mut client_config = webhook.client_config("");
    client_config["url"] = format!("https://127.0.0.1:{nobody}/ask").into();
    webhook.register(Kind::Validating, json!({"clientConfig": client_config})).await?;
    let why = format!(
        "failed to call webhook: Post \"https://127.0.0.1:{nobody}/ask?timeout=10s\": dial tcp 127.0.0.1:{nobody}: \
         connect: connection refused"
    );
    let wanted = internal(&format!("failed calling webhook \"unreachable.contract.test\": {why}"));
    is(&webhook.create_pod("p").await?, 500, &wanted)?;
    webhook.end().await
}

async fn a_webhook_that_hangs_up_has_failed(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "hangs-up", |review, _| allowed(review)).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let lost = webhook.server().faults().inject(Fault::RequestLost, Aim::all());
    let answer = webhook.create_pod("p").await?;
    ensure!(lost.hits() == 1, "{} hits", lost.hits());
    let url = format!("{}/ask?timeout=10s", webhook.server().url());
    let why = format!("failed to call webhook: Post {url:?}: EOF");
    is(&answer, 500, &internal(&format!("failed calling webhook \"hangs-up.contract.test\": {why}")))?;
    webhook.end().await
}

async fn a_webhook_behind_a_service_that_is_not_there_has_failed(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "unserved", |review, _| allowed(review)).await?;
    let service = json!({"metadata": {"name": "served"}, "spec": {"ports": [{"port": 443}]}});
    let (status, answer) = webhook.request("POST", "/api/v1", "services", Some(service)).await?;
    ensure!(status == 201, "{status}: {answer}");
    let gone = "https://gone.unserved.svc:443/ask?timeout=10s\": service \"gone\" not found";
    let port = "https://served.unserved.svc:8443/?timeout=10s\": no service port 8443 found for service \"served\"";
    for (configuration, service, why) in [
        ("unserved-gone", json!({"name": "gone", "namespace": "unserved", "path": "/ask"}), gone),
        ("unserved-port", json!({"name": "served", "namespace": "unserved", "port": 8443}), port),
    ] {
        webhook.register_as(configuration, Kind::Validating, json!({"clientConfig": {"service": service}})).await?;
        let why = format!("failed to call webhook: Post \"{why}");
        let wanted = internal(&format!("failed calling webhook \"unserved.contract.test\": {why}"));
        is(&webhook.create_pod("p").await?, 500, &wanted)?;
        webhook.unregister().await?;
    }
    webhook.end().await
}

async fn a_webhook_is_trusted_by_its_bundle_only(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "untrusted", |review, _| allowed(review)).await?;
    let url = format!("{}/ask", webhook.server().url());
    let other = STANDARD.encode(Authority::new("another")?.certificate_pem());
    let unknown = format!(
        "failed to call webhook: Post \"{url}?timeout=10s\": tls: failed to verify certificate: x509: certificate \
         signed by unknown authority"
    );
    let unreadable = "could not get REST client: unable to load root certificates: unable to parse bytes as PEM block";
    let bundles = [
        ("untrusted-other", json!({"url": url, "caBundle": other}), unknown.as_str()),
        ("untrusted-none", json!({"url": url}), unknown.as_str()),
        ("untrusted-text", json!({"url": url, "caBundle": STANDARD.encode("no certificate")}), unreadable),
    ];
    for (configuration, client_config, why) in bundles {
        webhook.register_as(configuration, Kind::Validating, json!({"clientConfig": client_config})).await?;
        let wanted = internal(&format!("failed calling webhook \"untrusted.contract.test\": {why}"));
        is(&webhook.create_pod("p").await?, 500, &wanted)?;
        webhook.unregister().await?;
    }
    ensure!(webhook.asked().is_empty());
    webhook.end().await
}

/// An answer that asks for another try.
fn again(status: u16, seconds: &'static str) -> Answer {
    let mut answer = wire::text(status, "text/plain", "later");
    answer.headers_mut().insert("retry-after", HeaderValue::from_static(seconds));
    answer
}

async fn an_answer_with_retry_after_is_followed_by_the_same_review(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "retried", |review, before| match before {
        0 => again(429, "1"),
        1 => again(503, "0"),
        _ => allowed(review),
    })
    .await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let started = Instant::now();
    let (status, answer) = webhook.create_pod("p").await?;
    ensure!(status == 201, "{status}: {answer}");
    ensure!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let reviews = webhook.reviews()?;
    ensure!(reviews.len() == 3 && reviews.iter().all(|review| *review == reviews[0]), "{reviews:?}");
    webhook.end().await
}

async fn a_review_is_posted_eleven_times_at_most(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "retried-in-vain", |_, _| again(503, "0")).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let why = "failed to call webhook: the server is currently unable to handle the request";
    let wanted = internal(&format!("failed calling webhook \"retried-in-vain.contract.test\": {why}"));
    is(&webhook.create_pod("p").await?, 500, &wanted)?;
    ensure!(webhook.asked().len() == 11, "{}", webhook.asked().len());
    webhook.end().await
}

async fn a_refusal_with_retry_after_is_not_retried(cluster: &KubernetesApi) -> Result<()> {
    let webhook = Webhook::start(cluster, "not-retried", |_, _| again(404, "0")).await?;
    webhook.register(Kind::Validating, json!({})).await?;
    let why = "failed to call webhook: the server could not find the requested resource";
    let wanted = internal(&format!("failed calling webhook \"not-retried.contract.test\": {why}"));
    is(&webhook.create_pod("p").await?, 500, &wanted)?;
    ensure!(webhook.asked().len() == 1, "{}", webhook.asked().len());
    webhook.end().await
}
