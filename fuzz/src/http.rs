//! Requests as they come over the wire: whatever the pieces, they are the same requests; what is malformed ends its own
//! connection and nothing else.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use https::{Limits, Room, Stats, body};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) const WORDS: &[&str] = &[
    "POST /validate HTTP/1.1\r\n",
    "GET /healthz HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "PUT ",
    "OPTIONS * HTTP/1.1\r\n",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Host: gate\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\n",
    "Trailer: X\r\n",
    "X: y\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "5;a=b\r\nhello\r\n",
    "ffffffffffffffff\r\n",
    "00000005\r\n",
    "hello",
    " ",
    "\t",
    "\r",
    ":",
    "?timeout=10s",
    "/validate",
    "//",
    "%00",
];

/// What a handler saw: the path, and the body unless it was refused.
type Seen = Vec<(String, Option<Vec<u8>>)>;

pub(crate) fn run(input: &[u8]) {
    let whole = answered(&[input]);
    let digest = input.iter().fold(5381_usize, |sum, byte| sum.wrapping_mul(33) ^ usize::from(*byte));
    let at = |nth: usize| if input.is_empty() { 0 } else { digest.rotate_left(nth as u32 * 7) % input.len() };
    let mut cuts = [at(1), at(2), at(3)];
    cuts.sort_unstable();
    let [one, two, three] = cuts;
    let parts = [&input[..one], &input[one..two], &input[two..three], &input[three..]];
    assert_eq!(whole, answered(&parts), "cut at {cuts:?}");
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    if input.len() < 2000 {
        assert_eq!(whole, answered(&bytes), "byte by byte");
    }
    chunked(input, digest);
}

/// The input as a body, in chunks: it arrives as it is.
fn chunked(content: &[u8], digest: usize) {
    let mut wire = b"POST /validate HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for (nth, chunk) in content.chunks(1 + digest % 97).enumerate() {
        let extension = if (digest >> (nth % 16)) & 1 == 1 { ";name=value" } else { "" };
        wire.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
        wire.extend(chunk);
        wire.extend(b"\r\n");
    }
    wire.extend(b"0\r\n\r\n");
    let (seen, answers) = answered(&[&wire]);
    assert_eq!(seen, [("/validate".to_owned(), Some(content.to_vec()))]);
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
}

/// What the handlers saw of a connection with these pieces, and what was answered, without the time of day and without the
/// last word on what is malformed: hyper says it where it has the whole head, and else ends the connection without it.
fn answered(pieces: &[&[u8]]) -> (Seen, String) {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let stats = Arc::<Stats>::default();
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return <_>::default() };
    let io = Wire { pieces: pieces.iter().rev().map(|piece| piece.to_vec()).collect(), written: Arc::clone(&written) };
    runtime.block_on(https::samples::serve(io, router(&seen), Room::new(Limits::default(), Arc::clone(&stats))));
    assert_eq!((stats.panics.get(), stats.connections_open.get(), stats.requests_in_flight.get()), (0, 0, 0));
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let written = written.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut answers = String::from_utf8_lossy(&written).into_owned();
    let end = ["HTTP/1.1 400 ", "HTTP/1.0 400 "].into_iter().filter_map(|refusal| answers.find(refusal)).min();
    answers.truncate(end.unwrap_or(answers.len()));
    assert!(answers.is_empty() || answers.starts_with("HTTP/1."), "{answers}");
    (seen, answers.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n"))
}

fn router(seen: &Arc<Mutex<Seen>>) -> Router {
    let seen = Arc::clone(seen);
    let handler = async move |request: Request| {
        let path = request.uri().path().to_owned();
        let read = body::read(request).await.ok().map(|body| body.to_vec());
        let size = read.as_ref().map_or(0, Vec::len);
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((path, read));
        format!("{size}")
    };
    Router::new().route("/validate", post(handler.clone())).fallback(handler)
}

/// A connection in memory: its pieces are read one by one, then nothing comes any more, as of a caller that keeps it.
struct Wire {
    /// The last comes first.
    pieces: Vec<Vec<u8>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while let Some(mut piece) = self.pieces.pop() {
            if piece.is_empty() {
                continue;
            }
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push(rest);
            }
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
