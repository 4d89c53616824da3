//! Reads a request's body up to a cap, and drops some more, so that the refusal can arrive.
//!
//! A body takes memory as it arrives: a little without asking, more of what all share, and beyond that one at a time. It is
//! read into one buffer, of the length that it has if that is told.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};
use wipe::spared;

use crate::limits::Limits;
use crate::room::{Occupied, Room};

/// Largest AdmissionReview that is read. The API server's own objects end at 3 MiB, and a review has two.
pub const BODY_MAX: usize = 7 << 20;

/// What is read and dropped of a larger body, so that the sender gets to read the answer.
const DROP_MAX: usize = 16 << 20;

/// Bodies up to this are read without waiting: nearly all that the API server sends.
pub(crate) const BODY_SMALL: usize = 32 << 10;

/// Address space for a body whose length is told, from its first byte. It is no memory before something is written there.
const RESERVED: usize = 64 << 10;

/// Bodies up to this take of what all share; larger ones are read one at a time.
const BODY_LARGE: usize = 1 << 20;

/// A body that nobody wants is read for so long, so that the sender gets to read the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// A whole body. It keeps its room until it is dropped. What callers send is no secret of this process, and much: it is
/// not wiped.
#[derive(Default)]
pub struct Whole {
    read: Vec<u8>,
    /// So many bytes it may have.
    granted: usize,
    held: Option<Occupied>,
}

impl Drop for Whole {
    fn drop(&mut self) {
        spared(|| drop(std::mem::take(&mut self.read)));
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.read
    }
}

/// Why there is no body.
#[derive(Debug)]
pub enum NotRead {
    /// Larger than [`BODY_MAX`].
    TooLarge,
    /// Not whole in time.
    TooSlow,
    /// It ended early.
    Broken,
}

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

/// The whole body of a request.
///
/// # Errors
/// Why there is none.
pub async fn read(request: Request) -> Result<Whole, NotRead> {
    // A router that is called without a server has nobody to share with.
    let room = request.extensions().get().map_or_else(|| Room::new(Limits::default(), Arc::default()), Arc::clone);
    let deadline = Instant::now() + room.limits.body;
    timeout_at(deadline, collect(request.into_body(), &room, deadline)).await.unwrap_or(Err(NotRead::TooSlow))
}

async fn collect(mut body: Body, room: &Room, mut deadline: Instant) -> Result<Whole, NotRead> {
    let told = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let mut whole = Whole::default();
    let mut size = 0_usize;
    while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(|_| NotRead::TooSlow)? {
        let Ok(data) = frame.map_err(|_| NotRead::Broken)?.into_data() else { continue };
        size += data.len();
        if size > DROP_MAX {
            break;
        }
        if size > BODY_MAX {
            whole = Whole::default();
            continue;
        }
        if size > whole.granted {
            timeout_at(deadline, whole.grow(size, told, room)).await.map_err(|_| NotRead::TooSlow)?;
            if whole.held.is_some() {
                deadline = deadline.min(Instant::now() + room.limits.large_body);
            }
        }
        whole.read.extend_from_slice(&data);
        spared(|| drop(data));
    }
    if size > BODY_MAX { Err(NotRead::TooLarge) } else { Ok(whole) }
}

impl Whole {
    /// Makes room for `size` bytes.
    async fn grow(&mut self, size: usize, told: Option<usize>, room: &Room) {
        self.granted = granted(size, told);
        self.held = if self.granted <= BODY_SMALL {
            None
        } else if self.granted <= BODY_LARGE {
            room.memory(self.granted).await
        } else {
            room.largest().await
        };
        let capacity = self.granted.max(told.unwrap_or(0).min(RESERVED));
        spared(|| self.read.reserve_exact(capacity - self.read.len()));
    }
}

/// The memory for a body of which `size` bytes are there: beyond a little, twice as much each time, and not more than it
/// will need.
fn granted(size: usize, told: Option<usize>) -> usize {
    let most = told.unwrap_or(BODY_MAX).clamp(size, BODY_MAX);
    if size <= BODY_SMALL {
        BODY_SMALL.min(most)
    } else if size <= BODY_LARGE {
        size.next_power_of_two().min(most)
    } else {
        // All of it is there soon, and nobody else has one.
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_little_a_body_takes_at_most_twice_what_has_arrived_until_it_is_very_large() {
        assert_eq!(granted(1, None), BODY_SMALL);
        assert_eq!(granted(5000, Some(6000)), 6000);
        assert_eq!(granted(BODY_SMALL + 1, Some(60_000)), 60_000);
        assert_eq!(granted((64 << 10) + 1, None), 128 << 10);
        assert_eq!(granted((64 << 10) + 1, Some(BODY_MAX)), 128 << 10);
        assert_eq!(granted(BODY_LARGE, Some(usize::MAX)), BODY_LARGE);
        assert_eq!(granted(BODY_LARGE + 1, None), BODY_MAX);
        assert_eq!(granted(BODY_LARGE + 1, Some(2 << 20)), 2 << 20);
    }
}
