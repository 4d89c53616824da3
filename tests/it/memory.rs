//! What hostile bodies cost the program: its peak of resident memory, measured from outside, and its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bodies::{chunk, head};
use crate::certificates::trust;
use crate::gate::{read_reply, review, review_but};
use crate::kubernetes::SECRETS;
use crate::product::{Product, SOON, world};

const MIB: usize = 1 << 20;

async fn product() -> Result<Product> {
    let (kubernetes, vault) = world().await?;
    let product = Product::start(kubernetes, vault, &["--role", "sync"]).await?;
    // What a first request costs is not a body's.
    serves(&product).await?;
    Ok(product)
}

pub async fn serves(product: &Product) -> Result<()> {
    product.allows(&review("not-gated")).await
}

async fn connect(product: &Product) -> Result<TlsStream<TcpStream>> {
    let connector = connector(product)?;
    Ok(connector.connect(ServerName::try_from("127.0.0.1")?, TcpStream::connect(product.address()).await?).await?)
}

pub fn connector(product: &Product) -> Result<TlsConnector> {
    let secret = product.kubernetes.get(SECRETS, "istio-ca-gate-tls").context("no serving CA")?;
    let ca: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    let roots = trust(&String::from_utf8(ca.0)?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends a head and then `piece`, so often or until the server has had enough.
async fn send(product: &Product, piece: &[u8], times: usize) -> Result<usize> {
    let (mut reader, mut writer) = tokio::io::split(connect(product).await?);
    let write = async {
        let mut sent = 0;
        let mut open = writer.write_all(&head("transfer-encoding: chunked")).await.is_ok();
        while open && sent < times {
            open = writer.write_all(piece).await.is_ok();
            sent += 1;
        }
        let _ = writer.shutdown().await;
        sent
    };
    let mut answer = Vec::new();
    let both = async { tokio::join!(write, reader.read_to_end(&mut answer)).0 };
    tokio::time::timeout(SOON, both).await.context("the connection does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_garbage_costs_no_more_than_a_body_and_leaves_nothing_behind() -> Result<()> {
    let product = product().await?;
    let before = product.peak()?;
    let piece = chunk(&vec![b'x'; MIB]);
    ensure!(send(&product, &piece, 64).await? < 64, "it took all");
    let once = product.peak()? - before;
    ensure!(once < 24 * MIB, "{} KiB", once >> 10);
    for _ in 0..8 {
        send(&product, &piece, 64).await?;
    }
    // An allocator keeps some of what is freed, in one place a thread; nine bodies would be 63 MiB.
    let often = product.peak()? - before;
    ensure!(often < 40 * MIB, "{} KiB at first, {} KiB then", once >> 10, often >> 10);
    serves(&product).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_of_one_byte_costs_no_more_than_another() -> Result<()> {
    let product = product().await?;
    let before = product.peak()?;
    send(&product, &chunk(b"x").repeat(64 << 10), 32).await?;
    let cost = product.peak()? - before;
    ensure!(cost < 24 * MIB, "{} MiB for a body of 2 MiB", cost / MIB);
    serves(&product).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_at_once_stay_within_the_memory_limit_of_deploy() -> Result<()> {
    let product = product().await?;
    let piece = chunk(&vec![b' '; MIB]);
    let sent = join_all((0..40).map(|_| send(&product, &piece, 7))).await;
    ensure!(sent.iter().all(Result::is_ok), "{sent:?}");
    let peak = product.peak()?;
    ensure!(peak < 128 * MIB, "{} MiB", peak / MIB);
    serves(&product).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stall_are_refused_and_hold_up_no_small_one() -> Result<()> {
    let product = product().await?;
    let mut stalled = Vec::new();
    for sent in [1, MIB].repeat(12) {
        let mut stream = connect(&product).await?;
        stream.write_all(&[head("content-length: 6000000"), vec![b' '; sent]].concat()).await?;
        stream.flush().await?;
        stalled.push(stream);
    }
    let began = Instant::now();
    serves(&product).await?;
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Each of them is told in the end.
    for mut stream in stalled {
        let reply = tokio::time::timeout(SOON, read_reply(&mut stream)).await.context("it hangs")??;
        ensure!(reply.status == 408 && reply.json()?["error"].is_string(), "{reply:?}");
    }
    serves(&product).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_stall_hold_up_no_large_one() -> Result<()> {
    let product = product().await?;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&product).await?;
        stream.write_all(&[head("content-length: 6000000"), vec![b' '; MIB]].concat()).await?;
        stream.flush().await?;
        stalled.push(stream);
    }
    let mut stream = connect(&product).await?;
    let body = review_but("not-gated", json!({ "options": "x".repeat(MIB) })).to_string();
    let request = [head(&format!("content-length: {}", body.len())), body.into_bytes()].concat();
    stream.write_all(&request).await?;
    let reply = tokio::time::timeout(Duration::from_secs(9), read_reply(&mut stream)).await.context("it waits")??;
    ensure!(reply.status == 200, "{reply:?}");
    Ok(())
}

/// Idle connections that a hostile caller opens.
const IDLE: usize = 10_000;

/// Of them, those that end a handshake: more than the server keeps.
const IDLE_TLS: usize = 1_200;

/// From an address that is not the API server's.
async fn from_elsewhere(product: &Product) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse()?)?;
    let (host, port) = product.address();
    Ok(socket.connect(SocketAddr::new(host.parse()?, port)).await?)
}

/// Opens them all, and keeps them open.
async fn idle(product: &Product) -> Result<(Vec<TlsStream<TcpStream>>, Vec<TcpStream>)> {
    let (connector, name) = (connector(product)?, ServerName::try_from("127.0.0.1")?);
    let tls = stream::iter(0..IDLE_TLS)
        .map(|_| async { anyhow::Ok(connector.connect(name.clone(), from_elsewhere(product).await?).await?) });
    let tls = tls.buffer_unordered(16).try_collect().await?;
    let bare = stream::iter(IDLE_TLS..IDLE).map(|_| from_elsewhere(product));
    Ok((tls, bare.buffer_unordered(64).try_collect().await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn under_ten_thousand_idle_connections_each_review_is_answered() -> Result<()> {
    // Both ends of a connection are in different processes: each needs so many descriptors, and some for the rest.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    ensure!(maximum.is_none_or(|maximum| maximum > IDLE as u64 + 1000), "the hard limit of descriptors is {maximum:?}");
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let product = product().await?;
    let (before, client) = (product.resident()?, product.client()?);

    let answered = AtomicUsize::new(0);
    let reviews = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            let (status, text) = product.post(&client, review("not-gated").to_string().into()).await?;
            ensure!(status == 200 && text.contains("\"allowed\":true"), "{status} {text}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let held = tokio::select! {
        ended = reviews => return ended,
        held = idle(&product) => held?,
    };
    let answered = answered.into_inner();
    ensure!(held.0.len() + held.1.len() == IDLE && answered > 10, "{answered} reviews");
    let (under, descriptors) = (product.resident()?, product.descriptors()?);
    // On a new connection, and on one that was made before.
    serves(&product).await?;
    product.post(&client, review("not-gated").to_string().into()).await?;
    ensure!(descriptors < 256 + 128, "{descriptors} descriptors");
    drop(held);
    let closed = || async { (product.descriptors()? < 100).then_some(()).context("they are open") };
    product.process.until("the connections to be closed", SOON, closed).await?;
    serves(&product).await?;
    let (after, peak) = (product.resident()?, product.peak()?);
    eprintln!(
        "{answered} reviews answered; resident: {} KiB idle, {} KiB under {IDLE} connections ({descriptors} descriptors), {} KiB after, {} KiB at most",
        before >> 10,
        under >> 10,
        after >> 10,
        peak >> 10,
    );
    ensure!(peak < 128 * MIB, "{} MiB", peak / MIB);
    ensure!(!product.process.log().contains("panic"), "{}", product.process.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn short_of_descriptors_it_gives_up_idle_connections_and_says_so_now_and_then() -> Result<()> {
    let product = product().await?;
    // Fewer than its own caps reckon with: as if something else had taken them.
    let few = product.descriptors()? as u64 + 20;
    let pid = Pid::from_raw(product.process.pid().cast_signed());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(few), maximum: Some(few) })?;
    let flood = try_join_all((0..100).map(|_| from_elsewhere(&product))).await?;
    let short = || async { product.process.log().contains("cannot accept connections").then_some(()) };
    product.process.until("descriptors to be short", SOON, short).await?;
    serves(&product).await?;
    let said = product.process.log().matches("cannot accept connections").count();
    ensure!(said < 10, "{said} lines");
    drop(flood);
    serves(&product).await
}
