//! Bodies of every size, as one piece and as many.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gate::{Gate, SOON, read_reply, review, review_but};

const CAP: usize = 7 << 20;
const MIB: usize = 1 << 20;

/// A sound review of exactly so many bytes.
fn padded(size: usize) -> Vec<u8> {
    let pad = |len: usize| review_but("not-gated", json!({ "options": "x".repeat(len) })).to_string().into_bytes();
    pad(size - pad(0).len())
}

/// A request of chunks of at most so many bytes.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut wire = head("transfer-encoding: chunked");
    body.chunks(size).for_each(|piece| wire.extend(chunk(piece)));
    wire.extend(b"0\r\n\r\n");
    wire
}

pub fn head(framing: &str) -> Vec<u8> {
    format!("POST /validate HTTP/1.1\r\nhost: gate\r\n{framing}\r\n\r\n").into_bytes()
}

pub fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_the_cap_a_review_is_read_and_beyond_it_is_413() -> Result<()> {
    let gate = Gate::start().await?;
    for (size, status) in [(CAP - 1, 200), (CAP, 200), (CAP + 1, 413), (8 * MIB, 413), (15 * MIB, 413)] {
        let body = padded(size);
        ensure!(body.len() == size);
        for (how, reply) in [
            ("whole", gate.post(&body).await?),
            ("64 KiB", gate.exchange(&chunked(&body, 64 << 10)).await?),
            ("4000 B", gate.exchange(&chunked(&body, 4000)).await?),
        ] {
            ensure!(reply.status == status, "{size} bytes, {how}: {}", reply.status);
            let answer = reply.json()?;
            let as_expected = match status {
                200 => answer["response"]["allowed"] == true,
                _ => answer["error"].as_str().is_some_and(|what| what.contains("larger than 7340032 bytes")),
            };
            ensure!(as_expected, "{size} bytes, {how}: {answer}");
        }
    }
    ensure!(gate.post("").await?.status == 400);
    ensure!(gate.exchange(&chunked(b"", 1)).await?.status == 400);
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_413_of_a_body_that_was_read_the_connection_serves_on() -> Result<()> {
    let gate = Gate::start().await?;
    let mut stream = gate.connect().await?;
    for (body, status) in [(padded(CAP + 1), 413), (padded(2000), 200)] {
        stream.write_all(&[head(&format!("content-length: {}", body.len())), body].concat()).await?;
        let reply = tokio::time::timeout(SOON, read_reply(&mut stream)).await.context("no answer")??;
        ensure!(reply.status == status, "{reply:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_garbage_ends_the_connection() -> Result<()> {
    let gate = Gate::start().await?;
    for framing in ["transfer-encoding: chunked", "content-length: 1073741824"] {
        let (mut reader, mut writer) = tokio::io::split(gate.connect().await?);
        writer.write_all(&head(framing)).await?;
        let piece = chunk(&vec![b'x'; MIB]);
        let write = async {
            let mut sent = 0;
            // Until the server has had enough.
            while sent < 64 * MIB && writer.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        };
        let mut answer = Vec::new();
        let both = async { tokio::join!(write, reader.read_to_end(&mut answer)).0 };
        let sent = tokio::time::timeout(SOON, both).await.context("the connection does not end")?;
        ensure!(sent < 64 * MIB, "it took all");
        let answer = String::from_utf8_lossy(&answer);
        // It may be lost on the way, but it is no other.
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    gate.serves().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_no_review() -> Result<()> {
    let gate = Gate::start().await?;
    let body = review("istiod").to_string().into_bytes();
    for (framing, body) in [
        (format!("content-length: {}", body.len() + 1), body.clone()),
        ("transfer-encoding: chunked".to_owned(), chunk(&body)),
        ("transfer-encoding: chunked".to_owned(), [b"zz\r\n", &body[..]].concat()),
        ("transfer-encoding: chunked".to_owned(), b"ffffffffffffffff1\r\n".to_vec()),
    ] {
        let mut stream = gate.connect().await?;
        stream.write_all(&[head(&framing), body].concat()).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.context("it hangs")?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    ensure!(gate.kubernetes.server.seen().is_empty());
    gate.serves().await
}
