//! What callers may use of a server.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A TLS handshake takes milliseconds; who needs longer holds a place.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A head comes in one packet. This is for a lost one that is sent again.
const HEAD: Duration = Duration::from_secs(10);

/// The API server ends its own idle connections after 90 s. It has to be the first to do so: a connection that is
/// closed here just as it is used again costs a call.
const IDLE: Duration = Duration::from_secs(120);

/// A body that is not there by then loses its room if another request needs it. The API server's come at once; this is
/// for a lost packet that is sent again.
const BODY_GRACE: Duration = Duration::from_millis(500);

/// An answer is a few KiB, which fit into the socket's buffers. Who has not taken it by then does not read.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for open requests at the end. The longest admission call takes 30 s.
const DRAIN: Duration = Duration::from_secs(30);

/// Two for each request under way, so that a good part is always idle and makes room for new ones. Idle, they have to
/// fit into the memory limit of deploy/.
const CONNECTIONS: usize = 1024;

/// Those with a body, which may be in memory for each of them. Twice what a handler may keep waiting: what is answered
/// at once always finds room beside it.
const REQUESTS: usize = 512;

/// Descriptors for all but the servers' connections: sockets to Vault and to Kubernetes, files.
const RESERVED: u64 = 128;

/// Servers of one process that share its descriptors.
const SERVERS: u64 = 2;

/// Fewer are of no use, whatever the descriptors.
const CONNECTIONS_MIN: u64 = 16;

/// The deadlines and caps of one server. Bodies have more of their own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head, once its first byte is there.
    pub head: Duration,
    /// For the next request's first byte.
    pub idle: Duration,
    /// For a body while others need its room; else it has the deadline that all bodies have.
    pub body_grace: Duration,
    /// For an answer to be taken by its peer.
    pub answer: Duration,
    /// For the requests that are open at the end.
    pub drain: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Requests with a body at a time.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE,
            head: HEAD,
            idle: IDLE,
            body_grace: BODY_GRACE,
            answer: ANSWER,
            drain: DRAIN,
            connections: CONNECTIONS.min(share_of_descriptors()),
            requests: REQUESTS,
        }
    }
}

/// Raises the limit of open descriptors as far as this process may: what is usual at start is for programs that use
/// `select`, and too few for the connections.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it is refused, the connections are fewer.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// What one server may use of the descriptors.
fn share_of_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((limit.saturating_sub(RESERVED) / SERVERS).max(CONNECTIONS_MIN)).unwrap_or(usize::MAX)
}
