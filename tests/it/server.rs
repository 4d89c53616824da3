//! Sockets, TLS and HTTP: who is served, who is not, and how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use https::Bound;
use istio_ca_gate::endpoints;
use istio_ca_gate::readiness::Part;
use testbed::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gate::{Gate, NAME, SOON, read_reply, review};

#[tokio::test(flavor = "multi_thread")]
async fn only_http_1_1_is_offered() -> Result<()> {
    let gate = Gate::start().await?;
    for offered in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let stream = gate.connect_with(&gate.tls(rustls::ALL_VERSIONS, offered)?, NAME).await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(&b"http/1.1"[..]));
    }
    let none = gate.connect_with(&gate.tls(rustls::ALL_VERSIONS, &[])?, NAME).await?;
    ensure!(none.get_ref().1.alpn_protocol().is_none());
    ensure!(gate.connect_with(&gate.tls(rustls::ALL_VERSIONS, &["h2"])?, NAME).await.is_err());
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaf_verifies_under_its_names_and_no_other() -> Result<()> {
    let gate = Gate::start().await?;
    let tls = gate.tls(rustls::ALL_VERSIONS, &["http/1.1"])?;
    for name in [NAME, "127.0.0.1"] {
        gate.connect_with(&tls, name).await.with_context(|| name.to_owned())?;
    }
    for name in ["istio-ca-gate.default.svc", "localhost", "127.0.0.2"] {
        ensure!(gate.connect_with(&tls, name).await.is_err(), "{name}");
    }
    // Another gate's CA has no part in it.
    let stranger = Gate::start().await?.tls(rustls::ALL_VERSIONS, &[])?;
    ensure!(gate.connect_with(&stranger, NAME).await.is_err());
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_work_and_older_ones_do_not() -> Result<()> {
    let gate = Gate::start().await?;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = gate.connect_with(&gate.tls(&[version], &[])?, NAME).await?;
        ensure!(stream.get_ref().1.protocol_version() == Some(version.version));
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n").await?;
        let reply = read_reply(&mut stream).await?;
        ensure!(reply.status == 200 && reply.body == "ok", "{reply:?}");
    }
    // A client hello of TLS 1.1 with one of its ciphers.
    let mut old = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    old.extend([7; 32]);
    old.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    ensure!(refused(&gate, &old).await?);
    gate.serves().await
}

/// Whether the server ends a connection that begins with these bytes, without having served it.
async fn refused(gate: &Gate, bytes: &[u8]) -> Result<bool> {
    let mut stream = TcpStream::connect(gate.address).await?;
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.context("it hangs")?;
    // A reset is an end, too; a TLS alert is all that may come before it.
    Ok(end.is_err() || answer.is_empty() || answer[0] == 0x15)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_is_refused_and_does_not_hang() -> Result<()> {
    let gate = Gate::start().await?;
    let huge_hello = [&[0x16, 3, 1, 0xff, 0xff][..], &vec![1; 1 << 20]].concat();
    for bytes in [
        b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n".as_slice(),
        b"\0\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &huge_hello,
    ] {
        let began = Instant::now();
        ensure!(refused(&gate, bytes).await?, "{:?}", &bytes[..8]);
        ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_end_is_ended_and_blocks_nobody() -> Result<()> {
    let gate = Gate::start().await?;
    let mut silent = TcpStream::connect(gate.address).await?;
    let mut half = TcpStream::connect(gate.address).await?;
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).await?;
    gate.serves().await?;
    for stream in [&mut silent, &mut half] {
        let end = tokio::time::timeout(SOON, stream.read(&mut [0; 64])).await.context("it stays open")?;
        ensure!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_block_nobody() -> Result<()> {
    let gate = Gate::start().await?;
    let body = review("not-gated").to_string();
    let head = format!("POST /validate HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), body.as_bytes()].concat();
    let mut slow = Vec::new();
    for at in [0, 1, 10, head.len() - 2, head.len(), head.len() + 5, whole.len() - 1] {
        let mut stream = gate.connect().await?;
        stream.write_all(&whole[..at]).await?;
        stream.flush().await?;
        slow.push((stream, at));
    }
    gate.serves().await?;
    for (mut stream, at) in slow {
        stream.write_all(&whole[at..]).await?;
        stream.flush().await?;
        let reply = read_reply(&mut stream).await.with_context(|| format!("after a pause at {at}"))?;
        ensure!(reply.status == 200, "{reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_500_idle_connections_a_new_one_is_served() -> Result<()> {
    let gate = Gate::start().await?;
    let bare = try_join_all((0..400).map(|_| TcpStream::connect(gate.address))).await?;
    let tls = try_join_all((0..100).map(|_| gate.connect())).await?;
    ensure!(bare.len() + tls.len() == 500);
    gate.serves().await?;
    gate.post("").await?;
    drop((bare, tls));
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_many_requests() -> Result<()> {
    let gate = Gate::start().await?;
    let mut stream = gate.connect().await?;
    let body = review("not-gated").to_string();
    let request = format!("POST /validate HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..50 {
        stream.write_all(request.as_bytes()).await?;
        ensure!(read_reply(&mut stream).await?.status == 200);
    }
    // Also where the second is sent before the first is answered.
    stream.write_all(request.repeat(2).as_bytes()).await?;
    for _ in 0..2 {
        ensure!(read_reply(&mut stream).await?.status == 200);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggling_shapes_are_refused_or_end_the_connection() -> Result<()> {
    let gate = Gate::start().await?;
    let inner = "GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n";
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5,6\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "x: \0\r\n",
    ] {
        let mut stream = gate.connect().await?;
        let request = format!("POST /validate HTTP/1.1\r\nhost: gate\r\n{headers}\r\n0\r\n\r\n{inner}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Without a close_notify: only what came counts.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.context("it hangs")?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
        ensure!(!answer.contains("\r\n\r\nok"), "{headers:?}: the inner request was served");
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_404_and_405_and_never_a_redirect() -> Result<()> {
    let gate = Gate::start().await?;
    let body = review("not-gated").to_string();
    for (method, path, status) in [
        ("GET", "/validate", 405),
        ("PUT", "/validate", 405),
        ("DELETE", "/validate", 405),
        ("OPTIONS", "/validate", 405),
        ("BREW", "/validate", 405),
        ("POST", "/healthz", 405),
        ("POST", "/readyz", 405),
        ("POST", "/fingerprint", 405),
        ("POST", "/validate/", 404),
        ("POST", "//validate", 404),
        ("POST", "/Validate", 404),
        ("POST", "/validate/../healthz", 404),
        ("POST", "/%76alidate", 404),
        ("GET", "/healthz/", 404),
        ("GET", "/http://example.org/", 404),
        ("GET", "//example.org/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/.well-known/x", 404),
    ] {
        let reply = gate.send(method, path, body.as_bytes()).await?;
        ensure!(reply.status == status, "{method} {path}: {reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_or_path_is_told_in_json() -> Result<()> {
    let gate = Gate::start().await?;
    for (method, path) in [("GET", "/nowhere"), ("POST", "/healthz"), ("GET", "/validate")] {
        let reply = gate.send(method, path, b"").await?;
        ensure!(reply.json()?["error"].is_string(), "{method} {path}: {reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_endpoints_are_all_but_admission_and_plain() -> Result<()> {
    let gate = Gate::start().await?;
    let bound = Bound::bind("127.0.0.1:0".parse()?).await?;
    let address = bound.address();
    let url = |path: &str| format!("http://{address}/{path}");
    let (healthz, readyz, validate, report) = (url("healthz"), url("readyz"), url("validate"), url("fingerprint"));
    let (router, room) = (endpoints::admin(gate.state.clone()), Arc::clone(&gate.state.room));
    let serving = tokio::spawn(bound.serve(router, None, room, std::future::pending()));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let get = async |url: &str| {
        let answer = client.get(url).send().await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    ensure!(get(&healthz).await? == (200, "ok".to_owned()));
    let posted = client.post(&validate).body(review("not-gated").to_string()).send().await?;
    ensure!(posted.status() == 404);

    // What is missing is named, until nothing is; at the end, it is not ready again.
    let (status, text) = get(&readyz).await?;
    ensure!(status == 503 && text.contains("serving certificate") && text.contains("cacerts"), "{status} {text}");
    gate.state.readiness.done(Part::Tls);
    let (status, text) = get(&readyz).await?;
    ensure!(status == 503 && !text.contains("serving certificate") && text.contains("caBundle"), "{status} {text}");
    for part in [Part::ValidatingCaBundle, Part::MutatingCaBundle, Part::Cacerts, Part::Consulted] {
        gate.state.readiness.done(part);
    }
    ensure!(get(&readyz).await?.0 == 200);
    gate.state.readiness.ending();
    let (status, text) = get(&readyz).await?;
    ensure!(status == 503 && text.contains("shutting down"), "{status} {text}");

    let (status, text) = get(&report).await?;
    let dormant = serde_json::json!({
        "cluster": "nas", "role": "sync", "state": "dormant", "reason": null, "message": null, "match": false,
        "vault": null, "cacerts": null,
    });
    ensure!(status == 200 && serde_json::from_str::<serde_json::Value>(&text)? == dormant, "{text}");
    serving.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_an_open_request_gets_its_answer_and_a_new_one_none() -> Result<()> {
    let mut gate = Gate::start().await?;
    let idle = [gate.connect().await?, gate.connect().await?];
    let mut stream = gate.connect().await?;
    let body = review("istiod").to_string();
    let head = format!("POST /validate?timeout=4s HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
    stream.flush().await?;
    let reads = || gate.kubernetes.server.count("GET /api/v1/namespaces/istio-system/secrets/cacerts");
    eventually("the request to be in flight", SOON, || async { (reads() == 1).then_some(()) }).await?;

    gate.stop();
    let address = gate.address;
    let closed = eventually("the listener to be closed", Duration::from_secs(2), || async {
        TcpStream::connect(address).await.err().context("it accepts").map(|_| Instant::now())
    })
    .await?;
    let reply = tokio::time::timeout(SOON, read_reply(&mut stream)).await.context("no answer")??;
    ensure!(reply.status == 200 && reply.json()?["response"]["status"]["reason"] == "Converging", "{reply:?}");
    ensure!(Instant::now() > closed, "it was answered before the stop: the test proves nothing");
    // Connections without a request do not hold the end up.
    gate.ended().await?;
    ensure!(closed.elapsed() < Duration::from_secs(10), "{:?}", closed.elapsed());
    drop(idle);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_at_once_are_all_answered() -> Result<()> {
    let gate = Arc::new(Gate::start().await?);
    let answers = (0..100).map(|n| {
        let gate = Arc::clone(&gate);
        async move {
            let app = if n % 2 == 0 { "istiod" } else { "not-gated" };
            let review = crate::gate::review_but(app, serde_json::json!({ "uid": format!("uid-{n}") }));
            let response = gate.review("?timeout=1s", &review).await?;
            ensure!(response["allowed"] == (n % 2 == 1), "{response}");
            anyhow::Ok(())
        }
    });
    try_join_all(answers).await?;
    Ok(())
}
