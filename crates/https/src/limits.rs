//! What callers may use of a server.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::body::{BODY_MAX, BODY_SMALL};

/// A TLS handshake takes milliseconds; who needs longer holds a place.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A head comes in one packet. This is for a lost one that is sent again.
const HEAD: Duration = Duration::from_secs(10);

/// The API server ends its own idle connections after 90 s. It has to be the first to do so: a connection that is
/// closed here just as it is used again costs a call.
const IDLE: Duration = Duration::from_secs(120);

/// The API server sends a body at once; the longest call takes 30 s in all.
const BODY: Duration = Duration::from_secs(10);

/// A body that has got more than a small one's memory has to be there within this: others wait for it.
const LARGE_BODY: Duration = Duration::from_secs(3);

/// A body that is not there by then loses its room if another request needs it. The API server's come at once; this is
/// for a lost packet that is sent again.
const BODY_GRACE: Duration = Duration::from_millis(500);

/// An answer is a few KiB, which fit into the socket's buffers. Who has not taken it by then does not read.
const ANSWER: Duration = Duration::from_secs(10);

/// The same while another connection needs the place: those that are not read are the first to go.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Longest wait for open requests at the end. The longest admission call takes 30 s.
const DRAIN: Duration = Duration::from_secs(30);

/// All that callers can make this process hold, at all of its ports. What an allocator keeps of it comes on top; with that
/// and what the gate takes for itself it has to stay below the memory limit of deploy/.
const BUDGET: usize = 40 << 20;

/// What a connection takes at most, with all of its buffers full: of TLS, of a head, of a small answer.
const CONNECTION: usize = 80 << 10;

/// Connections at a time. A third more than requests, so that some are always idle and make room for new ones.
const CONNECTIONS: usize = 256;

/// Those with a body at a time. Half as many again as a handler may keep waiting: what is answered at once always finds
/// room beside it.
const REQUESTS: usize = 192;

/// What bodies and answers may take beyond what each of them has anyway. Nearly all fit into that.
const MEMORY: usize = 6 << 20;

const _: () = assert!(CONNECTIONS * CONNECTION + REQUESTS * BODY_SMALL + MEMORY + BODY_MAX <= BUDGET);

/// Descriptors for all but the servers' connections: sockets to Vault and to Kubernetes, files.
const RESERVED: u64 = 128;

/// Fewer are of no use, whatever the descriptors.
const CONNECTIONS_MIN: u64 = 16;

/// The deadlines and caps of all servers of a process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head, once its first byte is there.
    pub head: Duration,
    /// For the next request's first byte.
    pub idle: Duration,
    /// For a body.
    pub body: Duration,
    /// For a body that has got more memory than a small one.
    pub large_body: Duration,
    /// For a body while others need its room.
    pub body_grace: Duration,
    /// For an answer to be taken by its peer.
    pub answer: Duration,
    /// The same while others need the place.
    pub answer_grace: Duration,
    /// For the requests that are open at the end.
    pub drain: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Requests with a body at a time.
    pub requests: usize,
    /// Bytes of bodies and answers beyond the small ones.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE,
            head: HEAD,
            idle: IDLE,
            body: BODY,
            large_body: LARGE_BODY,
            body_grace: BODY_GRACE,
            answer: ANSWER,
            answer_grace: ANSWER_GRACE,
            drain: DRAIN,
            connections: CONNECTIONS.min(descriptors()),
            requests: REQUESTS,
            memory: MEMORY,
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

/// What connections may use of the descriptors.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(RESERVED).max(CONNECTIONS_MIN)).unwrap_or(usize::MAX)
}
