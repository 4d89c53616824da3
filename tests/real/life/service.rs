//! The Service of a cluster's istiods: one address, from which each connection leads to one that is ready.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use testbed::Port;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

type Backends = Arc<Mutex<Vec<SocketAddr>>>;

/// What kube-proxy does for one Service.
pub struct Service {
    port: Port,
    backends: Backends,
    accepting: AbortHandle,
}

impl Service {
    /// One that leads nowhere yet.
    pub async fn start(number: u16) -> Result<Self> {
        let port = Port::of_a_pod(number)?;
        let listener = TcpListener::bind(port.address()).await?;
        let backends = Backends::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&backends))).abort_handle();
        Ok(Self { port, backends, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, backends: Vec<SocketAddr>) {
        *self.backends.lock().unwrap_or_else(PoisonError::into_inner) = backends;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, backends: Backends) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    while let Ok((mut client, _)) = listener.accept().await {
        let mut backends = backends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !backends.is_empty() {
            let first = turn % backends.len();
            backends.rotate_left(first);
        }
        turn += 1;
        connections.spawn(async move {
            for backend in backends {
                if let Ok(mut server) = TcpStream::connect(backend).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
