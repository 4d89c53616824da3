//! What a caller can hold of a server, and for how long: deadlines, caps, who has to go, and what is left at the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use futures::future::try_join_all;
use https::{Bound, Limits, Room, Stats};
use istio_ca_gate::webhook::WAITING_MAX;
use serde_json::json;
use testbed::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::bodies::head;
use crate::gate::{Gate, Reply, SOON, read_reply, review, review_but};

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n";

/// A deadline that is waited for.
const SHORT: Duration = Duration::from_millis(300);

/// One that must not pass while a test goes on.
const LONG: Duration = Duration::from_secs(600);

async fn limited(limits: Limits) -> Result<Gate> {
    Gate::limited(limits, WAITING_MAX).await
}

fn stats(gate: &Gate) -> &Stats {
    gate.state.room.stats()
}

async fn ask(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> Result<Reply> {
    stream.write_all(request).await?;
    stream.flush().await?;
    tokio::time::timeout(SOON, read_reply(stream)).await.context("no answer")?
}

/// Waits until the server ends a connection, sending more of something all the time.
async fn ends(stream: TlsStream<TcpStream>, more: &[u8]) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let trickle = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(more).await.is_ok() && writer.flush().await.is_ok() {
            pace.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut rest = Vec::new();
    let end = async {
        tokio::select! { () = trickle => {}, _ = reader.read_to_end(&mut rest) => {} }
    };
    tokio::time::timeout(SOON, end).await.context("it stays open")?;
    ensure!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    Ok(())
}

/// A connection with a request whose body does not come, and what is missing of it.
async fn stalled(gate: &Gate) -> Result<(TlsStream<TcpStream>, Vec<u8>)> {
    let before = stats(gate).requests_in_flight.get();
    let mut stream = gate.connect().await?;
    let body = review("not-gated").to_string().into_bytes();
    stream.write_all(&head(&format!("content-length: {}", body.len()))).await?;
    stream.write_all(&body[..10]).await?;
    stream.flush().await?;
    let begun = || async { (stats(gate).requests_in_flight.get() > before).then_some(()) };
    eventually("the request to be under way", SOON, begun).await?;
    Ok((stream, body[10..].to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_its_own_deadline_from_its_first_byte_on() -> Result<()> {
    let gate = limited(Limits { head: SHORT, idle: LONG, ..Limits::default() }).await?;
    let (mut fresh, mut used, slow) = (gate.connect().await?, gate.connect().await?, gate.connect().await?);
    ensure!(ask(&mut used, HEALTHZ).await?.status == 200);
    // One that had a request before, and one that had none; neither is silent.
    let mut second = gate.connect().await?;
    ensure!(ask(&mut second, HEALTHZ).await?.status == 200);
    tokio::try_join!(ends(slow, b"x"), ends(second, b"x"))?;
    ensure!(stats(&gate).connections_timed_out.get() == 2);
    // Who sends nothing has longer.
    ensure!(ask(&mut fresh, HEALTHZ).await?.status == 200 && ask(&mut used, HEALTHZ).await?.status == 200);
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stays_idle_is_ended() -> Result<()> {
    let gate = limited(Limits { idle: Duration::from_secs(2), ..Limits::default() }).await?;
    let (fresh, mut used) = (gate.connect().await?, gate.connect().await?);
    ensure!(ask(&mut used, HEALTHZ).await?.status == 200);
    tokio::try_join!(ends(fresh, b""), ends(used, b""))?;
    ensure!(stats(&gate).connections_timed_out.get() == 2);
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_too_slow_is_counted() -> Result<()> {
    let gate = limited(Limits { handshake: SHORT, ..Limits::default() }).await?;
    let silent = TcpStream::connect(gate.address).await?;
    let mut garbage = TcpStream::connect(gate.address).await?;
    garbage.write_all(b"no TLS at all").await?;
    let failed = || async { (stats(&gate).handshakes_failed.get() == 2).then_some(()) };
    eventually("both to be counted", SOON, failed).await?;
    drop((silent, garbage));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_takes_the_place_of_the_one_that_was_idle_the_longest() -> Result<()> {
    let gate = limited(Limits { connections: 8, ..Limits::default() }).await?;
    let mut held = try_join_all((0..8).map(|_| gate.connect())).await?;
    // The first has been used since.
    ensure!(ask(&mut held[0], HEALTHZ).await?.status == 200);
    gate.serves().await?;
    ensure!(stats(&gate).connections_closed_for_room.get() == 1);
    let mut served = 0;
    for stream in &mut held {
        served += usize::from(ask(stream, HEALTHZ).await.is_ok_and(|reply| reply.status == 200));
    }
    ensure!(served == 7, "{served}");
    ensure!(ask(&mut held[0], HEALTHZ).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_many_connections_pushes_out_its_own() -> Result<()> {
    let gate = limited(Limits { connections: 8, ..Limits::default() }).await?;
    let mut api_server = [gate.connect().await?, gate.connect().await?];
    let mut flood = Vec::new();
    for _ in 0..200 {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse()?)?;
        flood.push(socket.connect(gate.address).await?);
    }
    let closed = || async { (stats(&gate).connections_closed_for_room.get() == 194).then_some(()) };
    eventually("the flood to push out itself", SOON, closed).await?;
    for stream in &mut api_server {
        ensure!(ask(stream, HEALTHZ).await?.status == 200);
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_request_under_way_keeps_its_place() -> Result<()> {
    let gate = Arc::new(limited(Limits { connections: 4, ..Limits::default() }).await?);
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(stalled(&gate).await?);
    }
    let new = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.serves().await }
    });
    for (stream, rest) in &mut busy {
        ensure!(!new.is_finished() || stats(&gate).connections_closed_for_room.get() == 1);
        let reply = ask(stream, rest).await?;
        ensure!(reply.status == 200 && reply.json()?["response"]["allowed"] == true, "{reply:?}");
    }
    // As soon as one of them was idle, it had to go.
    new.await??;
    ensure!(stats(&gate).connections_closed_for_room.get() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_429_and_leave_room_for_what_has_no_body() -> Result<()> {
    let gate = limited(Limits { requests: 2, body_grace: LONG, ..Limits::default() }).await?;
    let mut busy = [stalled(&gate).await?, stalled(&gate).await?];
    let large = review_but("not-gated", json!({ "options": "x".repeat(5 << 20) })).to_string();
    for body in [review("istiod").to_string(), large] {
        let reply = gate.post(&body).await?;
        ensure!(reply.status == 429 && reply.retry_after.as_deref() == Some("1"), "{reply:?}");
        ensure!(reply.json()?["error"].is_string(), "{reply:?}");
    }
    ensure!(stats(&gate).requests_shed.get() == 2);
    ensure!(gate.send("GET", "/healthz", b"").await?.status == 200);
    ensure!(gate.send("GET", "/readyz", b"").await?.status == 503);

    // The API server sends it again, on the same connection.
    let body = review("not-gated").to_string();
    let request = [head(&format!("content-length: {}", body.len())), body.into_bytes()].concat();
    let mut stream = gate.connect().await?;
    ensure!(ask(&mut stream, &request).await?.status == 429);
    for (stream, rest) in &mut busy {
        ensure!(ask(stream, rest).await?.status == 200);
    }
    ensure!(ask(&mut stream, &request).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_makes_room_for_one_that_does() -> Result<()> {
    let gate = limited(Limits { requests: 2, body_grace: Duration::ZERO, ..Limits::default() }).await?;
    let (first, mut second) = (stalled(&gate).await?, stalled(&gate).await?);
    gate.serves().await?;
    ensure!(stats(&gate).requests_shed.get() == 0 && stats(&gate).connections_closed_for_room.get() == 1);
    ends(first.0, b"").await?;
    ensure!(ask(&mut second.0, &second.1).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_wait_leave_room_and_who_finds_no_place_is_told_at_once() -> Result<()> {
    let gate = Arc::new(Gate::limited(Limits { requests: 3, ..Limits::default() }, 2).await?);
    let ask = |uid: &str| {
        let (gate, review) = (Arc::clone(&gate), review_but("istiod", json!({ "uid": uid })));
        tokio::spawn(async move { gate.review("?timeout=20s", &review).await })
    };
    let waiting = [ask("1"), ask("2")];
    let full = || async { (gate.state.webhook.waiting.available_permits() == 0).then_some(()) };
    eventually("two to wait", SOON, full).await?;
    for _ in 0..10 {
        let status = &ask("3").await??["status"];
        ensure!(status["code"] == 429 && status["reason"] == "Converging", "{status}");
        ensure!(status["details"]["retryAfterSeconds"] == 1, "{status}");
        gate.serves().await?;
    }
    ensure!(waiting.iter().all(|waiting| !waiting.is_finished()), "nobody waits: the test proves nothing");
    waiting.iter().for_each(JoinHandle::abort);
    // Who gives up gives the place back.
    let free = || async { (gate.state.webhook.waiting.available_permits() == 2).then_some(()) };
    eventually("the places", SOON, free).await
}

/// A server of other endpoints, without TLS.
struct Plain {
    address: SocketAddr,
    stats: Arc<Stats>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn plain(router: Router, limits: Limits) -> Result<Plain> {
    let bound = Bound::bind("127.0.0.1:0".parse()?).await?;
    let (address, stats) = (bound.address(), Arc::new(Stats::default()));
    let (stop, stopping) = oneshot::channel();
    let room = Room::new(limits, Arc::clone(&stats));
    let serving = bound.serve(router, None, room, async { drop(stopping.await) });
    Ok(Plain { address, stats, stop, serving: tokio::spawn(serving) })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_an_answer_is_left() -> Result<()> {
    let router = Router::new().route("/", get(|| async { vec![b'x'; 4 << 20] }));
    let Plain { address, stats, stop, serving } = plain(router, Limits { answer: SHORT, ..Limits::default() }).await?;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await?;
    let left = || async { (stats.connections_timed_out.get() == 1 && stats.connections_open.get() == 0).then_some(()) };
    eventually("the connection to be left", SOON, left).await?;
    drop(stop);
    Ok(tokio::time::timeout(SOON, serving).await.context("it does not end")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_reads_the_next_connection_is_served_all_the_same() -> Result<()> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let unread = get(async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        vec![b'x'; 1 << 20]
    });
    let router = Router::new().route("/", unread).route("/healthz", get(|| async { "ok" }));
    let limits = Limits { connections: 4, answer: LONG, answer_grace: SHORT, ..Limits::default() };
    let Plain { address, stats, stop, serving } = plain(router, limits).await?;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await?;
        held.push(stream);
    }
    eventually("four answers", SOON, || async { (asked.load(Ordering::Relaxed) == 4).then_some(()) }).await?;
    let mut next = TcpStream::connect(address).await?;
    next.write_all(HEALTHZ).await?;
    let reply = tokio::time::timeout(SOON, read_reply(&mut next)).await.context("no answer")??;
    ensure!(reply.status == 200 && stats.connections_closed_for_room.get() == 1, "{reply:?}");
    drop((held, stop));
    Ok(tokio::time::timeout(SOON, serving).await.context("it does not end")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_answered_and_counted_and_ends_nothing() -> Result<()> {
    let router = Router::new().route("/", get(|| async { "ok" })).route("/panic", get(broken));
    let Plain { address, stats, stop, serving } = plain(router, Limits::default()).await?;
    let mut stream = TcpStream::connect(address).await?;
    for n in 1..=3 {
        for (path, status) in [("/panic", 500), ("/", 200)] {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: gate\r\n\r\n").as_bytes()).await?;
            let reply = tokio::time::timeout(SOON, read_reply(&mut stream)).await.context("no answer")??;
            ensure!(reply.status == status, "{path}: {reply:?}");
            ensure!(status == 200 || reply.json()?["error"].is_string(), "{reply:?}");
            ensure!(!reply.body.contains("of a request"), "{reply:?}");
        }
        ensure!(stats.panics.get() == n);
    }
    ensure!(stats.requests_in_flight.get() == 0);
    drop(stop);
    Ok(tokio::time::timeout(SOON, serving).await.context("it does not end")??)
}

#[allow(clippy::panic, reason = "it is what is tested")]
async fn broken() -> &'static str {
    panic!("of a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_server_has_ended_nothing_of_it_runs() -> Result<()> {
    let held = Arc::new(());
    let handler = {
        let held = Arc::clone(&held);
        move || {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        }
    };
    let router = Router::new().route("/", get(handler));
    let Plain { address, stats, stop, serving } = plain(router, Limits { drain: SHORT, ..Limits::default() }).await?;
    let mut streams = Vec::new();
    for n in 1..=3 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await?;
        let begun = || async { (stats.requests_in_flight.get() == n).then_some(()) };
        eventually("the request to be under way", SOON, begun).await?;
        streams.push(stream);
    }
    ensure!(Arc::strong_count(&held) > 1);
    drop(stop);
    tokio::time::timeout(SOON, serving).await.context("it does not end")??;
    ensure!(Arc::strong_count(&held) == 1, "a handler is left");
    ensure!(stats.connections_open.get() == 0 && stats.requests_in_flight.get() == 0);
    Ok(())
}
