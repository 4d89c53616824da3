//! Answers of a Vault, or of what stands before it, that something is wrong with.

use http::{HeaderValue, StatusCode, header};
use k8s_openapi::jiff::Timestamp;

use super::reply::{Refusal, Reply};
use super::seal::Seal;
use crate::faults::Fault;
use crate::wire::{self, Answer, Request};

/// The answer for a fault that is only pretended.
pub(super) fn answer(seal: &Seal, now: Timestamp, request: &Request, fault: Fault) -> Answer {
    let path = request.uri.path().trim_start_matches("/v1/");
    match fault {
        Fault::Status(403) => Reply::from(Refusal::denied()).into_answer(),
        Fault::Status(429) => {
            let refusal = Refusal::new(429, format!("request path {path:?}: rate limit quota exceeded"));
            let mut answer = Reply::from(refusal).into_answer();
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        Fault::Status(status) => proxy(status),
        _ => match path {
            "sys/health" => seal.health(now, true),
            "sys/seal-status" => seal.status(true),
            _ => Refusal::sealed().into(),
        }
        .into_answer(),
    }
}

/// Statuses that Vault does not give: those of a load balancer before it, in HTML.
fn proxy(status: u16) -> Answer {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let title = format!("{status} {reason}");
    wire::text(
        status,
        "text/html",
        format!(
            "<html>\n<head><title>{title}</title></head>\n<body>\n<center><h1>{title}</h1></center>\n</body>\n</html>\n"
        ),
    )
}
