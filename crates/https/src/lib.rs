//! An HTTPS server for any router: accept, TLS, HTTP/1.1. Whoever reaches the port may be hostile: each thing that a
//! caller can hold has a deadline and a cap, and others get in at any time.

pub mod body;
mod connection;
mod limits;
mod listen;
mod peer;
mod places;
mod rarely;
mod requests;
mod response;
mod room;
#[cfg(feature = "samples")]
pub mod samples;
mod stats;

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::StatusCode;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower_http::catch_panic::CatchPanicLayer;

pub use limits::{Limits, raise_descriptor_limit};
pub use peer::Peer;
pub use rarely::Rarely;
pub use response::{json, refuse};
pub use room::Room;
pub use stats::{Counter, Gauge, Stats};

/// Pause after an accept that failed for want of something: it fails again at once until there is more of it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket that is not served yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds an address. `[::]` stands for every address of both families, or of IPv4 where the kernel has no IPv6.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = listen::listen(address)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was chosen where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then lets open requests end. Without `tls` it speaks plain HTTP.
    ///
    /// Every connection has ended when this does, and ends when this is dropped.
    pub async fn serve(
        self,
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
        room: Arc<Room>,
        stop: impl Future<Output = ()>,
    ) {
        let server = Arc::new(Server::new(router, tls, room));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => server.ended(ended),
                (stream, caller) = server.accept(&self.listener) => {
                    // Not beside the others: the stream would be lost with it.
                    let place = tokio::select! {
                        () = &mut stop => break,
                        place = server.room.place(caller) => place,
                    };
                    connections.spawn(connection::serve(stream, place, Arc::clone(&server), graceful.watcher()));
                }
            }
        }
        drop(self.listener);
        let drained = async {
            graceful.shutdown().await;
            while let Some(ended) = connections.join_next().await {
                server.ended(ended);
            }
        };
        if tokio::time::timeout(server.room.limits.drain, drained).await.is_err() {
            tracing::warn!("some requests were still open at the end");
        }
        connections.shutdown().await;
    }
}

/// What the connections of a server share.
struct Server {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    room: Arc<Room>,
}

impl Server {
    fn new(router: Router, tls: Option<Arc<rustls::ServerConfig>>, room: Arc<Room>) -> Self {
        let router = contained(router, Arc::clone(&room.stats));
        Self { router, acceptor: tls.map(TlsAcceptor::from), room }
    }

    /// The next connection. It may be dropped at any point.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, IpAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, caller)) => return (stream, caller.ip().to_canonical()),
                Err(error) => self.cannot_accept(&error).await,
            }
        }
    }

    async fn cannot_accept(&self, error: &Error) {
        if is_of_one_connection(error) {
            return;
        }
        self.room.told.accept.tell(|more| tracing::warn!(%error, more, "cannot accept connections"));
        // Descriptors are short: this gives one back.
        self.room.close_waiting();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn ended(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.room.stats.panics.add();
            tracing::error!("a connection's task panicked; please report this");
        }
    }
}

/// Whether it is a matter of one caller, who gave up or broke before it was accepted: Linux tells by accept what the
/// network said of the connection.
fn is_of_one_connection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
    )
}

/// A handler that panics is answered for, and nothing of what it panicked with is told: it may be of a request.
fn contained(router: Router, stats: Arc<Stats>) -> Router {
    router.layer(CatchPanicLayer::custom(move |_| {
        stats.panics.add();
        tracing::error!("a request's handler panicked: the line before says where; please report this");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "it broke here: the log says where")
    }))
}
