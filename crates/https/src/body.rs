//! Reads a request's body up to a cap, and drops some more, so that the refusal can arrive.

use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Largest AdmissionReview that is read. The API server's own objects end at 3 MiB, and a review has two.
pub const BODY_MAX: usize = 7 << 20;

/// What is read and dropped of a larger body, so that the sender gets to read the answer.
const DROP_MAX: usize = 16 << 20;

/// A whole body. A large one keeps its place until it is dropped.
pub struct Whole {
    read: Vec<u8>,
    _place: Option<SemaphorePermit<'static>>,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.read
    }
}

/// Why there is no body.
#[derive(Debug)]
pub enum Unread {
    /// Larger than [`BODY_MAX`].
    TooLarge,
    /// Not whole in time.
    TooSlow,
    /// It ended early.
    Broken,
}

/// Bodies up to this are read without waiting for a place: nearly all that the API server sends. As many as there may
/// be requests at a time have to fit into the memory limit of deploy/, too.
const SMALL: usize = 64 << 10;

/// A large body that has its place has to be there within this: others wait for the place.
const LARGE_TIMEOUT: Duration = Duration::from_secs(3);

/// Larger bodies at a time. They and what is made of them have to fit into the memory limit of deploy/.
static LARGE: Semaphore = Semaphore::const_new(4);

/// The API server sends a body at once; the longest call takes 30 s in all.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that nobody wants is read for so long, so that the sender gets to read the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads and drops a body: a connection that is closed with something unread takes the answer with it.
pub(crate) async fn discard(mut body: Body) {
    let deadline = Instant::now() + DISCARD_TIMEOUT;
    let mut size = 0_usize;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        size += frame.data_ref().map_or(0, |data| data.len());
        if size > DROP_MAX {
            break;
        }
    }
}

/// The whole body.
///
/// # Errors
/// Why there is none.
pub async fn read(body: Body) -> Result<Whole, Unread> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    timeout_at(deadline, collect(body, deadline)).await.unwrap_or(Err(Unread::TooSlow))
}

async fn collect(mut body: Body, mut deadline: Instant) -> Result<Whole, Unread> {
    let mut read = Vec::new();
    let mut size = 0_usize;
    let mut place = None;
    while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(|_| Unread::TooSlow)? {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        size += data.len();
        if size > DROP_MAX {
            break;
        }
        if size > BODY_MAX {
            read = Vec::new();
            continue;
        }
        if size > SMALL && place.is_none() {
            // Never closed, so that there always is a place to be had.
            place = LARGE.acquire().await.ok();
            deadline = deadline.min(Instant::now() + LARGE_TIMEOUT);
            read.reserve_exact(BODY_MAX);
        }
        read.extend_from_slice(&data);
    }
    if size > BODY_MAX { Err(Unread::TooLarge) } else { Ok(Whole { read, _place: place }) }
}
