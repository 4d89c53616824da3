//! One connection: TLS, HTTP/1.1, and the deadlines of its phases.
//!
//! hyper has one deadline, for a head, and counts it from the end of the request before: an idle connection and a slow
//! caller would be the same. So its own is off, and what it reads and writes tells the phase.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use wipe::spared;

use crate::Server;
use crate::limits::Limits;
use crate::peer::Peer;
use crate::places::Place;
use crate::requests::Requests;

/// Largest head, and largest trailers. Those of the API server are below 1 KiB, with a token of its own a few.
const HEAD_MAX: usize = 16 << 10;

/// What is read ahead, of which hyper keeps a buffer for each connection. Whoever fills it gets a larger one of hyper,
/// so that less is handed to it at a time.
const READ_MAX: u64 = 8 << 10;

/// What rustls keeps of an answer that is not taken; its own would be 64 KiB.
const TLS_BUFFER: usize = 16 << 10;

/// Serves a connection to its end, or until its place is needed.
pub(super) async fn serve(stream: TcpStream, place: Place, server: Arc<Server>, watcher: Watcher) {
    let _open = server.room.stats.connections_open.enter();
    let place = Arc::new(place);
    tokio::select! {
        () = place.closed() => tracing::debug!("a connection was closed: its place was needed"),
        () = handshake(stream, &place, &server, watcher) => {}
    }
}

async fn handshake(stream: TcpStream, place: &Arc<Place>, server: &Arc<Server>, watcher: Watcher) {
    // Answers are one small write; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = &server.acceptor else {
        return requests(stream, None, place, server, watcher).await;
    };
    match timeout(
        server.room.limits.handshake,
        acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_BUFFER))),
    )
    .await
    {
        Ok(Ok(stream)) => {
            let peer = Peer::of(stream.get_ref().1);
            return requests(stream, Some(peer), place, server, watcher).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    server.room.stats.handshakes_failed.add();
}

pub(super) async fn requests<I>(io: I, peer: Option<Peer>, place: &Arc<Place>, server: &Arc<Server>, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    place.opened();
    let io = TokioIo::new(Told { io: io.take(0), place: Arc::clone(place) });
    let connection = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(io, Requests::new(place, server, peer));
    match within_deadlines(watcher.watch(connection), place, &server.room.limits).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection ended in an error"),
        None => {
            server.room.stats.connections_timed_out.add();
            tracing::debug!("a connection was too slow");
        }
    }
}

/// Polls a connection to its end; `None` if its phase took too long.
async fn within_deadlines<C: Future>(connection: C, place: &Place, limits: &Limits) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut alarm = pin!(sleep_until(Instant::now() + limits.idle));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        // The phase changes in that poll alone, so that there is nothing else to wait for.
        let Some(deadline) = place.deadline(limits) else { return Poll::Pending };
        // Moved forward at once, and back only when it goes off: rarely more than once a request.
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(deadline);
        }
    })
    .await
}

/// A stream that tells its place what is read and written.
struct Told<I> {
    /// It limits what is read at a time.
    io: Take<I>,
    place: Arc<Place>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Told<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.io.set_limit(READ_MAX - 1);
        // What TLS frees of what it has read is the caller's.
        ready!(spared(|| Pin::new(&mut self.io).poll_read(cx, buffer)))?;
        if buffer.filled().len() > before {
            self.place.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Told<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.io.get_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.io.get_mut()).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.io.get_mut()).poll_flush(cx))?;
        self.place.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_shutdown(cx)
    }
}
