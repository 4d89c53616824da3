//! A connection that is no socket.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Room, Server, connection};

/// Serves one connection to its end, without TLS.
pub async fn serve<I>(io: I, router: Router, room: Arc<Room>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = Arc::new(Server::new(router, None, room));
    let place = Arc::new(server.room.place(Ipv4Addr::LOCALHOST.into()).await);
    connection::requests(io, None, &place, &server, GracefulShutdown::new().watcher()).await;
}
