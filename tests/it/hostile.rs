//! Callers that mean harm, or that nobody has thought of: each is refused or answered as anybody is, and the next one
//! is served.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use https::{Limits, Stats};
use istio_ca_gate::webhook::WAITING_MAX;
use serde_json::{Value, json};
use testbed::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bodies::chunk;
use crate::gate::{Gate, SOON, review, review_but};
use crate::product::{Product, world};

fn stats(gate: &Gate) -> &Stats {
    gate.state.room.stats()
}

/// One that soon ends a connection which has nothing more to say.
async fn brief() -> Result<Gate> {
    let pause = Duration::from_secs(2);
    Gate::limited(Limits { idle: pause, head: pause, ..Limits::default() }, WAITING_MAX).await
}

/// All that comes back for these bytes on a connection of their own.
async fn answers(gate: &Gate, bytes: &[u8]) -> Result<String> {
    let (mut reader, mut writer) = tokio::io::split(gate.connect().await?);
    let write = async {
        // It may be closed before all is sent.
        let _ = writer.write_all(bytes).await;
        let _ = writer.flush().await;
    };
    let mut answer = Vec::new();
    // Without a close_notify or with a reset: only what came counts.
    let both = async { tokio::join!(write, reader.read_to_end(&mut answer)).1 };
    let _ = tokio::time::timeout(SOON, both).await.context("it hangs")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// Nothing of the kind was served twice, switched, redirected, or broke a handler.
async fn is_unharmed(gate: &Gate) -> Result<()> {
    ensure!(stats(gate).panics.get() == 0, "a handler panicked");
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_answered_once_or_end_the_connection() -> Result<()> {
    let gate = brief().await?;
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let get = |line: &str, headers: &str| format!("{line}\r\nhost: gate\r\n{headers}\r\n");
    let long = "x".repeat(100_000);
    let shapes = [
        ("an obs-fold", get("GET /healthz HTTP/1.1", "x: a\r\n b\r\n"), 400),
        ("bare line feeds", "GET /healthz HTTP/1.1\nhost: gate\n\n".to_owned(), 200),
        ("bare carriage returns", "GET /healthz HTTP/1.1\rhost: gate\r\r".to_owned(), 400),
        ("an absolute form", get("GET http://example.org/healthz HTTP/1.1", ""), 200),
        ("an absolute form of another path", get("GET http://example.org/x HTTP/1.1", ""), 404),
        ("CONNECT", get("CONNECT example.org:443 HTTP/1.1", ""), 404),
        ("an asterisk", get("OPTIONS * HTTP/1.1", ""), 404),
        ("TRACE", get("TRACE /validate HTTP/1.1", ""), 405),
        ("an upgrade to WebSocket", get("GET /healthz HTTP/1.1", "connection: upgrade\r\nupgrade: websocket\r\n"), 200),
        ("an upgrade to HTTP/2", get("GET /healthz HTTP/1.1", "connection: upgrade\r\nupgrade: h2c\r\n"), 200),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(), 400),
        ("HTTP/0.9", "GET /healthz\r\n".to_owned(), 400),
        ("HTTP/1.2", get("GET /healthz HTTP/1.2", ""), 400),
        ("no method", get(" /healthz HTTP/1.1", ""), 400),
        ("a space in the path", get("GET /heal thz HTTP/1.1", ""), 400),
        ("a path of NUL", get("GET /\0 HTTP/1.1", ""), 400),
        ("a path that is no UTF-8", get("GET /%ff%fe HTTP/1.1", ""), 404),
        ("a long path", get(&format!("GET /{long} HTTP/1.1"), ""), 431),
        ("a long header", get("GET /healthz HTTP/1.1", &format!("x: {long}\r\n")), 431),
        ("a hundred headers", get("GET /healthz HTTP/1.1", &many(98)), 200),
        ("a thousand headers", get("GET /healthz HTTP/1.1", &many(1000)), 431),
        ("a header without a name", get("GET /healthz HTTP/1.1", ": x\r\n"), 400),
        ("a header with a space", get("GET /healthz HTTP/1.1", "x y: z\r\n"), 400),
        ("an unknown expectation", get("GET /healthz HTTP/1.1", "expect: teapot\r\n"), 200),
        ("a range", get("GET /healthz HTTP/1.1", "range: bytes=0-0\r\n"), 200),
        ("other names for the host", get("GET /healthz HTTP/1.1", "x-forwarded-host: evil\r\n"), 200),
    ];
    let answered = join_all(shapes.iter().map(|(_, request, _)| answers(&gate, request.as_bytes()))).await;
    for ((what, _, expected), answer) in shapes.into_iter().zip(answered) {
        let answer = answer.context(what)?;
        let got = statuses(&answer);
        // A connection may also be closed on what is no HTTP.
        ensure!(got == [expected] || (expected >= 400 && got.is_empty()), "{what}: {got:?}: {answer}");
        ensure!(!answer.contains("location:") && !answer.contains("upgrade:"), "{what}: {answer}");
    }
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_two_framings_is_refused_and_what_follows_is_not_a_request() -> Result<()> {
    let gate = brief().await?;
    let inner = "GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n";
    let framings = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n".to_owned(),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", inner.len() + 5),
        "content-length: 5\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding: gzip, chunked\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding: chunked, chunked\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding: \x0bchunked\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding: chunked\r\n\ttransfer-encoding: x\r\n".to_owned(),
    ];
    let request = |framing| format!("POST /validate HTTP/1.1\r\nhost: gate\r\n{framing}\r\n0\r\n\r\n{inner}");
    let requests: Vec<_> = framings.iter().map(request).collect();
    let answered = join_all(requests.iter().map(|request| answers(&gate, request.as_bytes()))).await;
    for (framing, answer) in framings.iter().zip(answered) {
        let answer = answer.with_context(|| framing.clone())?;
        ensure!(statuses(&answer) == [400] || answer.is_empty(), "{framing:?}: {answer}");
    }
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_chunks_are_no_review_and_no_request() -> Result<()> {
    let gate = brief().await?;
    let body = review("not-gated").to_string();
    let head = "POST /validate HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = String::from_utf8(chunk(body.as_bytes()))?;
    let sized = |size: &str| format!("{size}\r\n{body}\r\n0\r\n\r\n");
    let size = body.len();
    let shapes = [
        ("a negative size", sized(&format!("-{size:x}"))),
        ("a size with a sign", sized(&format!("+{size:x}"))),
        ("a size in C's notation", sized(&format!("0x{size:x}"))),
        ("a size too large for a number", sized(&"f".repeat(17))),
        ("a size too small", sized("1")),
        ("a size too large", sized(&format!("{:x}", size + 1))),
        ("no size", sized("")),
        ("an endless extension", sized(&format!("{size:x};{}", "x".repeat(100_000)))),
        ("endless trailers", format!("{whole}0\r\n{}\r\n", "x: y\r\n".repeat(100_000))),
    ]
    .map(|(what, chunks)| (what, format!("{head}{chunks}")));
    let answered = join_all(shapes.iter().map(|(_, request)| answers(&gate, request.as_bytes()))).await;
    for ((what, _), answer) in shapes.iter().zip(answered) {
        let answer = answer.context(*what)?;
        ensure!(statuses(&answer).iter().all(|status| [400, 413, 431].contains(status)), "{what}: {answer}");
        ensure!(statuses(&answer).len() <= 1, "{what}: {answer}");
    }
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_at_any_point_leaves_nothing_behind() -> Result<()> {
    let gate = Gate::start().await?;
    let body = review("istiod").to_string();
    let head = format!("POST /validate?timeout=20s HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), body.as_bytes()].concat();
    for at in [0, 1, head.len() - 1, head.len(), head.len() + 1, whole.len() - 1, whole.len()] {
        for reset in [false, true] {
            let mut stream = gate.connect().await?;
            stream.write_all(&whole[..at]).await?;
            stream.flush().await?;
            if reset {
                stream.get_ref().0.set_zero_linger()?;
            }
        }
    }
    let gone = || async {
        let stats = stats(&gate);
        let left = (stats.connections_open.get(), stats.requests_in_flight.get());
        let waiting = WAITING_MAX - gate.state.webhook.waiting.available_permits();
        ensure!(left == (0, 0) && waiting == 0, "{left:?}, {waiting}");
        Ok(())
    };
    eventually("all to be gone", SOON, gone).await?;
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_review_decides_no_more_than_its_pod_does() -> Result<()> {
    let gate = Gate::start().await?;
    let dry = |fields: Value| {
        let mut review = review_but("istiod", fields);
        review["request"]["dryRun"] = json!(true);
        review
    };
    let mut answered = dry(json!({}));
    answered["response"] = json!({ "uid": answered["request"]["uid"], "allowed": true });
    answered["status"] = json!({ "allowed": true });
    for review in [
        answered,
        dry(json!({ "allowed": true, "response": { "allowed": true } })),
        dry(json!({ "userInfo": { "username": "system:admin", "groups": ["system:masters"] } })),
        dry(json!({ "oldObject": review("not-gated")["request"]["object"] })),
        dry(json!({ "kind": { "group": "", "version": "v1", "kind": "ConfigMap" } })),
        dry(json!({ "requestResource": { "group": "", "version": "v1", "resource": "configmaps" } })),
        dry(json!({ "requestSubResource": "status" })),
        dry(json!({ "namespace": "kube-system" })),
        dry(json!({ "namespace": "../../istio-system", "name": "../../../etc/passwd" })),
        dry(json!({ "name": "http://169.254.169.254/latest/meta-data" })),
    ] {
        let response = gate.review("?timeout=10s", &review).await?;
        ensure!(response["allowed"] == false && response["status"]["reason"] == "DryRun", "{review}: {response}");
    }
    ensure!(gate.kubernetes.server.seen().is_empty(), "a dry run had an effect");
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_is_replayed_is_answered_alike() -> Result<()> {
    let gate = Gate::start().await?;
    for review in [review("not-gated"), review_but("istiod", json!({ "dryRun": true }))] {
        let first = gate.review("?timeout=10s", &review).await?;
        for _ in 0..20 {
            ensure!(gate.review("?timeout=10s", &review).await? == first);
        }
    }
    ensure!(gate.kubernetes.server.seen().is_empty());
    is_unharmed(&gate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_queries_change_nothing() -> Result<()> {
    let gate = Gate::start().await?;
    for query in [
        "?timeout=",
        "?timeout=-1s",
        "?timeout=1e99s",
        "?timeout=99999999999999999999999s",
        "?timeout=18446744073709551615s",
        "?timeout=1s&timeout=99999d",
        "?timeout=%00",
        "?timeout",
        "?&&&=&=&",
        "??timeout=1s",
        "?dryRun=false&allowed=true",
    ] {
        let response = gate.review(query, &review_but("istiod", json!({ "dryRun": true }))).await?;
        ensure!(response["status"]["reason"] == "DryRun", "{query}: {response}");
        ensure!(gate.review(query, &review("not-gated")).await?["allowed"] == true, "{query}");
    }
    is_unharmed(&gate).await
}

/// The lines about reviews with names that forge log lines.
async fn logged(format: &str) -> Result<Vec<String>> {
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &["--role", "sync", "--log-format", format]).await?;
    let client = product.client()?;
    let forged = format!("a\nb\r\n{{\"level\":\"INFO\"}}\u{1b}[2J\u{0}\u{85}\u{2028}\"{}", "x".repeat(100_000));
    let owner = json!([{ "apiVersion": "apps/v1", "kind": forged, "name": forged, "controller": true }]);
    let object = json!({ "metadata": { "labels": { "app": "istiod" }, "ownerReferences": owner } });
    for fields in [
        json!({ "name": forged, "object": object }),
        json!({ "namespace": forged }),
        json!({ "uid": "u\nv\u{1b}[2J" }),
        json!({ "operation": "CREATE", "userInfo": { "username": forged } }),
    ] {
        let mut review = review_but("istiod", fields);
        review["request"]["dryRun"] = json!(true);
        let (status, answer) = product.post(&client, review.to_string().into()).await?;
        ensure!(status == 200 && answer.contains("DryRun"), "{status} {answer}");
    }
    ensure!(product.process.terminate().await?.success());
    let text = product.process.log();
    ensure!(text.ends_with('\n') && !text.contains(&"x".repeat(1000)), "{} bytes", text.len());
    // Colours have escapes of their own.
    for raw in ["\u{1b}[2J", "\u{0}", "\r", "b\n"] {
        ensure!(!text.contains(raw), "{raw:?} is in {text}");
    }
    Ok(text.lines().filter(|line| line.contains("denied")).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_logged_escaped_and_cut() -> Result<()> {
    let lines = logged("json").await?;
    ensure!(lines.len() == 4, "{lines:?}");
    for line in lines {
        let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(line["level"] == "WARN" && line["reason"] == "DryRun", "{line}");
    }
    let lines = logged("text").await?;
    ensure!(lines.len() == 4 && lines.iter().all(|line| line.contains("WARN") && line.len() < 2000), "{lines:?}");
    Ok(())
}
