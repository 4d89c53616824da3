//! What a Service does: each connection goes to one of the replicas, the next one if that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// It ends on drop.
#[derive(Debug)]
pub struct Balancer {
    pub port: u16,
    accepting: AbortHandle,
}

impl Balancer {
    /// Before these ports of this machine.
    pub async fn start(backends: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (backends, next) = (Arc::new(backends), Arc::new(AtomicUsize::new(0)));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(near, Arc::clone(&backends), next.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Ok(Self { port, accepting: accepting.abort_handle() })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut near: TcpStream, backends: Arc<Vec<u16>>, first: usize) {
    for number in 0..backends.len() {
        let backend = backends[(first + number) % backends.len()];
        if let Ok(mut far) = TcpStream::connect(("127.0.0.1", backend)).await {
            let _ = copy_bidirectional(&mut near, &mut far).await;
            return;
        }
    }
}
