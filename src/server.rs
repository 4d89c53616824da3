//! The HTTPS server: accept, TLS, HTTP/1.1, and the routes.

mod body;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls::client::Peer;
pub use routes::{State, admin, admission};

/// A TLS handshake takes milliseconds; who needs longer holds a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Likewise for a request's head. It also ends idle connections.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause after a failed accept: it fails again at once while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for open requests at the end. The longest admission call takes 30 s.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A bound socket that is not served yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds an address.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was chosen where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then lets open requests end. Without `tls` it speaks plain HTTP.
    pub async fn serve(self, router: Router, tls: Option<Arc<rustls::ServerConfig>>, stop: impl Future<Output = ()>) {
        let acceptor = tls.map(TlsAcceptor::from);
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (router, acceptor, watcher) = (router.clone(), acceptor.clone(), graceful.watcher());
            tokio::spawn(connection(stream, acceptor, router, watcher));
        }
        drop(self.listener);
        if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests were still open at the end");
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Answers are one small write; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return serve(TokioIo::new(stream), router, watcher).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Who the caller is, for whoever asks.
            let router = router.layer(Extension(Peer::of(stream.get_ref().1)));
            serve(TokioIo::new(stream), router, watcher).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve<I>(io: TokioIo<I>, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended in an error");
    }
}
