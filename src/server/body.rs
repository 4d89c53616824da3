//! Reads a request's body up to a cap, and drops some more, so that the refusal can arrive.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;

/// Largest AdmissionReview that is read. The API server's own objects end at 3 MiB, and a review has two.
pub(super) const BODY_MAX: usize = 7 << 20;

/// What is read and dropped of a larger body, so that the sender gets to read the answer.
const DROP_MAX: usize = 16 << 20;

/// Why there is no body.
pub(super) enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

/// The API server sends a body at once; the longest call takes 30 s in all.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Unread> {
    tokio::time::timeout(BODY_TIMEOUT, collect(body)).await.unwrap_or(Err(Unread::TooSlow))
}

async fn collect(mut body: Body) -> Result<Bytes, Unread> {
    let mut parts: Vec<Bytes> = Vec::new();
    let mut size = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        size += data.len();
        if size <= BODY_MAX {
            parts.push(data);
        } else {
            parts.clear();
        }
        if size > DROP_MAX {
            break;
        }
    }
    if size > BODY_MAX {
        return Err(Unread::TooLarge);
    }
    // A review mostly comes in one piece.
    match parts.len() {
        0 => Ok(Bytes::new()),
        1 => Ok(parts.swap_remove(0)),
        _ => Ok(parts.concat().into()),
    }
}
