//! What the real API server cannot be brought to do at will: to forget, and to fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use testbed::eventually;

use super::Kubernetes;
use crate::faults::{Aim, Fault};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn start() -> Kubernetes {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Kubernetes::start("test").await.unwrap()
}

async fn text(cluster: &Kubernetes, path: &str) -> Result<Value> {
    let answer = cluster.raw(Some(cluster.admin_token()), "GET", path, &[], None).await?;
    assert_eq!(answer.status(), 200);
    Ok(serde_json::from_str(&answer.text().await?)?)
}

#[tokio::test]
async fn a_watch_from_what_was_forgotten_is_told_so() {
    let cluster = start().await;
    let (_, list) = cluster.request("GET", SECRETS, None).await.unwrap();
    let then = list["metadata"]["resourceVersion"].as_str().unwrap();
    let secret = json!({"metadata": {"name": "s"}});
    let (_, made) = cluster.request("POST", SECRETS, Some(secret)).await.unwrap();
    cluster.compact();
    let event = text(&cluster, &format!("{SECRETS}?watch=true&resourceVersion={then}")).await.unwrap();
    let now = made["metadata"]["resourceVersion"].as_str().unwrap();
    let message = format!("too old resource version: {then} ({now})");
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Expired", "code": 410});
    assert_eq!(event, json!({"type": "ERROR", "object": status}));
}

#[tokio::test]
async fn a_list_does_not_go_on_from_what_was_forgotten() {
    let cluster = start().await;
    for name in ["a", "b"] {
        let secret = json!({"metadata": {"name": name}});
        cluster.request("POST", SECRETS, Some(secret)).await.unwrap();
    }
    let (_, page) = cluster.request("GET", &format!("{SECRETS}?limit=1"), None).await.unwrap();
    cluster.request("DELETE", &format!("{SECRETS}/b"), None).await.unwrap();
    cluster.compact();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (status, answer) = cluster.request("GET", &format!("{SECRETS}?continue={token}"), None).await.unwrap();
    assert_eq!((status, &answer["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn a_pretended_failure_is_told_as_the_api_server_tells_it() {
    let cluster = start().await;
    for (status, reason) in
        [(401, "Unauthorized"), (403, "Forbidden"), (409, "Conflict"), (429, "TooManyRequests"), (500, "InternalError")]
    {
        // The controllers get things too, but none by its name here.
        let aim = Aim::all().method(Method::GET).path(SECRETS).times(1);
        let switch = cluster.faults().inject(Fault::Status(status), aim);
        let path = format!("{SECRETS}/cacerts");
        let answer = cluster.raw(Some(cluster.admin_token()), "GET", &path, &[], None).await.unwrap();
        let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry, (status == 429).then(|| "1".to_owned()));
        assert_eq!((answer.status().as_u16(), switch.hits()), (status, 1));
        let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&told["kind"], &told["reason"], &told["code"]), (&json!("Status"), &json!(reason), &json!(status)));
    }
    cluster.faults().inject(Fault::Status(410), Aim::all());
    let event = text(&cluster, &format!("{SECRETS}?watch=true")).await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(cluster.request("GET", SECRETS, None).await.unwrap().0, 410);
}

#[tokio::test]
async fn a_late_request_is_acted_on_after_its_connection_has_ended() {
    let cluster = start().await;
    let late = Fault::Late(Duration::from_millis(300));
    let switch = cluster.faults().inject(late, Aim::all().method(Method::POST).path(SECRETS).times(1));
    let secret = json!({"metadata": {"name": "late"}});
    cluster.request("POST", SECRETS, Some(secret.clone())).await.unwrap_err();
    let path = format!("{SECRETS}/late");
    assert_eq!((cluster.request("GET", &path, None).await.unwrap().0, switch.hits()), (404, 1));
    let there = || async {
        let (status, answer) = cluster.request("GET", &path, None).await?;
        anyhow::ensure!(status == 200, "{answer}");
        Ok(())
    };
    eventually("the late write", Duration::from_secs(10), there).await.unwrap();
    assert_eq!(cluster.request("POST", SECRETS, Some(secret)).await.unwrap().0, 409);
}

#[tokio::test]
async fn a_proxy_answers_in_its_place_and_a_body_may_have_no_end() {
    let cluster = start().await;
    let html = cluster.faults().inject(Fault::Html(502), Aim::all().path(SECRETS).times(1));
    let answer = cluster.raw(Some(cluster.admin_token()), "POST", SECRETS, &[], None).await.unwrap();
    assert_eq!((answer.status().as_u16(), html.hits()), (502, 1));
    assert!(answer.headers()["content-type"] == "text/html" && answer.text().await.unwrap().starts_with("<html>"));

    let endless = cluster.faults().inject(Fault::Endless, Aim::all().path(SECRETS).times(1));
    let mut answer = cluster.raw(Some(cluster.admin_token()), "GET", SECRETS, &[], None).await.unwrap();
    let mut read = 0;
    while read < 1 << 20 {
        read += answer.chunk().await.unwrap().expect("an end").len();
    }
    assert_eq!((answer.content_length(), endless.hits()), (None, 1));
}
