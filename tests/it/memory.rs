//! What hostile bodies cost the program: its peak of resident memory, measured from outside, and its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::ByteString;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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

async fn serves(product: &Product) -> Result<()> {
    product.allows(&review("not-gated")).await
}

async fn connect(product: &Product) -> Result<TlsStream<TcpStream>> {
    let secret = product.kubernetes.get(SECRETS, "istio-ca-gate-tls").context("no serving CA")?;
    let ca: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    let roots = trust(&String::from_utf8(ca.0)?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(product.address()).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1")?, stream).await?)
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
