//! AdmissionReviews: what is malformed, what is let through, and the exact answers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::reason::Reason;
use serde_json::{Value, json};

use crate::gate::{Gate, review, review_but};
use crate::kubernetes::{SECRETS, status};
use standin::scripted::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_400_and_says_what_is_wrong() -> Result<()> {
    let gate = Gate::start().await?;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut review = review("istiod");
        change(&mut review);
        review.to_string().into_bytes()
    };
    let sound = review("istiod").to_string();
    let after = |text: &str, more: &str| sound.replacen(text, &format!("{text}{more}"), 1).into_bytes();
    let uid = |escaped: &str| sound.replacen("705ab4f5", escaped, 1).into_bytes();
    let mut bodies = vec![
        (b"".to_vec(), "EOF"),
        (b" \n".to_vec(), "EOF"),
        (b"not JSON".to_vec(), "expected"),
        (b"null".to_vec(), "not an AdmissionReview"),
        (b"\"AdmissionReview\"".to_vec(), "not an AdmissionReview"),
        (b"4711".to_vec(), "not an AdmissionReview"),
        (b"[]".to_vec(), "not an AdmissionReview"),
        (b"{}".to_vec(), "kind is not AdmissionReview"),
        (with(&|review| review["kind"] = json!("Pod")), "kind is not AdmissionReview"),
        (with(&|review| review["kind"] = json!(["AdmissionReview"])), "not an AdmissionReview"),
        (
            with(&|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            "apiVersion is not admission.k8s.io/v1",
        ),
        (with(&|review| review["apiVersion"] = json!("v1")), "apiVersion is not admission.k8s.io/v1"),
        (with(&|review| review["apiVersion"] = Value::Null), "apiVersion is not admission.k8s.io/v1"),
        (with(&|review| review["request"] = Value::Null), "no request"),
        (with(&|review| drop(review.as_object_mut().map(|review| review.remove("request")))), "no request"),
        (with(&|review| review["request"] = json!({})), "missing field `uid`"),
        (with(&|review| review["request"]["uid"] = json!("")), "uid is empty"),
        (with(&|review| review["request"]["uid"] = json!(1)), "invalid type"),
        (with(&|review| review["request"]["uid"] = json!("x".repeat(1000))), "uid is empty or longer"),
        (with(&|review| review["request"]["operation"] = Value::Null), "invalid type"),
        (with(&|review| review["request"]["resource"] = json!("pods")), "invalid type"),
        (with(&|review| review["request"]["dryRun"] = json!("false")), "invalid type"),
        (with(&|review| review["request"]["object"]["metadata"]["labels"] = json!(["app"])), "invalid type"),
        (after("{", "\"kind\":\"AdmissionReview\","), "duplicate field"),
        (after("{\"apiVersion\":", "\"v1\",\"apiVersion\":"), "duplicate field"),
        (after("\"request\":{", "\"uid\":\"other\","), "duplicate field"),
        (after("\"object\":{", "\"metadata\":{},"), "duplicate field"),
        (after("\"metadata\":{", "\"labels\":{},"), "duplicate field"),
        (uid("\\ud800"), "hex escape"),
        (uid("\\udc00\\ud800"), "surrogate"),
        (uid("\\u12"), "invalid escape"),
        (uid("\0"), "control character"),
        (uid("\n"), "control character"),
        ([b"\xef\xbb\xbf", sound.as_bytes()].concat(), "expected value"),
        ([sound.as_bytes(), b"\0"].concat(), "trailing characters"),
        ([sound.as_bytes(), sound.as_bytes()].concat(), "trailing characters"),
        (sound.replacen("705ab4f5", "\u{1}", 1).into_bytes(), "control character"),
        (sound.as_bytes().iter().map(|byte| if *byte == b'7' { 0xff } else { *byte }).collect(), ""),
        ("[".repeat(1_000_000).into_bytes(), ""),
        ("{\"a\":".repeat(1_000_000).into_bytes(), ""),
        (with(&|review| review["request"]["object"]["metadata"]["labels"] = json!({ "app": [[[]]] })), "invalid type"),
        (sound.encode_utf16().flat_map(u16::to_le_bytes).collect(), ""),
    ];
    // In each of its parts the end is missed.
    bodies.extend((1..sound.len()).step_by(61).map(|at| (sound.as_bytes()[..at].to_vec(), "EOF")));
    for (body, says) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let reply = gate.post(&body).await.with_context(|| shown.clone())?;
        ensure!(reply.status == 400, "{shown}: {reply:?}");
        let what = reply.json()?["error"].as_str().context("no error")?.to_owned();
        ensure!(what.contains(says) && what.len() < 1000, "{shown}: {what}");
    }
    ensure!(gate.kubernetes.server.seen().is_empty(), "a malformed review was acted on");
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_400_does_not_repeat_the_body() -> Result<()> {
    let gate = Gate::start().await?;
    let reply = gate.post(review_but("istiod", json!({ "resource": "x".repeat(5 << 20) })).to_string()).await?;
    ensure!(reply.status == 400 && reply.body.len() < 1000, "{} with {} bytes", reply.status, reply.body.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_no_review() -> Result<()> {
    let gate = Gate::start().await?;
    let request = json!(["uid", "UPDATE", "default", "name", ["", "pods"], "", false, null]);
    let reply = gate.post(json!(["admission.k8s.io/v1", "AdmissionReview", request]).to_string()).await?;
    ensure!(reply.status == 400, "{reply:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_does_not_read_may_be_anything() -> Result<()> {
    let gate = Gate::start().await?;
    let sound = review("not-gated").to_string();
    let spec = |value: &str| sound.replacen("\"spec\":{", &format!("\"x\":{value},\"spec\":{{"), 1);
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let many = format!("{{{}}}", (0..200_000).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
    for body in [spec(&deep), spec(&many), spec("\"\\ud800\""), spec("1e999"), spec("{\"a\":1,\"a\":2}")] {
        let reply = gate.post(&body).await?;
        ensure!(reply.status == 200 || reply.status == 400, "{reply:?}");
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_creation_of_a_gated_pod_is_allowed_at_once() -> Result<()> {
    let gate = Gate::start().await?;
    let pods = |resource: &str| json!({ "group": "", "version": "v1", "resource": resource });
    for review in [
        review("not-gated"),
        review_but("istiod", json!({ "operation": "UPDATE" })),
        review_but("istiod", json!({ "operation": "CONNECT", "subResource": "exec" })),
        review_but("istiod", json!({ "operation": "DELETE", "object": null })),
        review_but("istiod", json!({ "subResource": "eviction" })),
        review_but("istiod", json!({ "subResource": "status", "operation": "UPDATE" })),
        review_but("istiod", json!({ "resource": pods("configmaps") })),
        review_but("istiod", json!({ "resource": { "group": "x.io", "version": "v1", "resource": "pods" } })),
        review_but("istiod", json!({ "object": { "metadata": { "name": "x" } } })),
        review_but("istiod", json!({ "object": { "metadata": { "labels": null } } })),
        review_but("not-gated", json!({ "dryRun": true })),
        review_but("not-gated", json!({ "dryRun": null, "namespace": "default", "uid": "ü\u{0}\"\\" })),
    ] {
        let began = Instant::now();
        let response = gate.review("?timeout=10s", &review).await?;
        ensure!(response == json!({ "uid": review["request"]["uid"], "allowed": true }), "{review}: {response}");
        ensure!(began.elapsed() < Duration::from_secs(5));
    }
    ensure!(gate.kubernetes.server.seen().is_empty(), "it was not needed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_pod_of_which_nothing_is_known_converges_within_its_own_timeout() -> Result<()> {
    let gate = Gate::start().await?;
    for (query, least, most) in [("?timeout=1s", 0.3, 1.0), ("?timeout=2s", 0.9, 2.0), ("?x=1&timeout=3s&y", 1.9, 3.0)]
    {
        let began = Instant::now();
        let response = gate.review(query, &review("istiod")).await?;
        let took = began.elapsed().as_secs_f64();
        ensure!(took > least && took < most, "{query}: {took}");
        let message = response["status"]["message"].as_str().context("no message")?;
        ensure!(message.starts_with("Converging: cluster nas: "), "{message}");
        let expected = json!({
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "allowed": false,
            "status": {
                "status": "Failure",
                "code": 429,
                "reason": "Converging",
                "message": message,
                "details": { "retryAfterSeconds": 1, "causes": [{ "reason": "Converging", "message": message }] },
            },
            "auditAnnotations": { "reason": "Converging" },
        });
        ensure!(response == expected, "{response}");
    }
    // What is no timeout, or none that can be kept, does no harm.
    for query in ["?timeout=0s", "?timeout=1ms"] {
        ensure!(gate.review(query, &review("istiod")).await?["allowed"] == false);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_dry_run_is_told_so_at_once_and_starts_nothing() -> Result<()> {
    let gate = Gate::start().await?;
    let began = Instant::now();
    let response = gate.review("?timeout=10s", &review_but("istiod", json!({ "dryRun": true }))).await?;
    ensure!(began.elapsed() < Duration::from_secs(5));
    let status = &response["status"];
    ensure!(status["code"] == 403 && status["reason"] == "DryRun", "{response}");
    ensure!(status["details"]["causes"][0]["reason"] == "DryRun", "{response}");
    ensure!(status["details"].get("retryAfterSeconds").is_none());
    ensure!(response["auditAnnotations"] == json!({ "reason": "DryRun" }));
    ensure!(gate.kubernetes.server.seen().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_is_told_within_the_timeout() -> Result<()> {
    let gate = Gate::start().await?;
    let read = format!("GET {SECRETS}/cacerts");
    for (answer, reason) in [
        (Answer::silence(), Reason::KubernetesUnreachable),
        (status(500, "InternalError"), Reason::KubernetesUnreachable),
        (status(429, "TooManyRequests"), Reason::KubernetesUnreachable),
        (status(403, "Forbidden"), Reason::KubernetesForbidden),
        (status(401, "Unauthorized"), Reason::KubernetesUnreachable),
        (Answer::html(502), Reason::KubernetesUnreachable),
        (Answer::hang_up(), Reason::KubernetesUnreachable),
        (Answer::json(200, &json!({ "data": { "ca-key.pem": 1 } })), Reason::KubernetesUnreachable),
    ] {
        let before = gate.kubernetes.server.count(&read);
        gate.kubernetes.server.always(&read, answer.clone());
        let began = Instant::now();
        let response = gate.review("?timeout=2s", &review("istiod")).await?;
        ensure!(began.elapsed() < Duration::from_secs(2), "{answer:?}: {:?}", began.elapsed());
        ensure!(response["status"]["reason"] == reason.as_str(), "{answer:?}: {response}");
        ensure!(gate.kubernetes.server.count(&read) > before);
    }
    Ok(())
}
