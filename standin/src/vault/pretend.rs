//! Answers of a Vault, or of what stands before it, that something is wrong with.

use http::{HeaderValue, StatusCode, header};
use k8s_openapi::jiff::Timestamp;

use super::reply::{Refusal, Reply};
use super::seal::{self, Seal};
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
            "sys/leader" => seal::leader(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::super::moment;
    use super::*;

    async fn told(path: &str, fault: Fault) -> (u16, Option<String>, String) {
        let moment = moment::some(0);
        let seal = Seal::new(&moment.uuid(), "00");
        let uri = format!("/v1/{path}?x=y").parse().unwrap();
        let request = Request { method: Method::GET, uri, headers: HeaderMap::new(), body: Bytes::new() };
        let answer = answer(&seal, moment.now, &request, fault);
        let retry_after = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, retry_after, String::from_utf8(body.to_vec()).unwrap())
    }

    fn errors(error: &str) -> String {
        format!("{}\n", json!({ "errors": [error] }))
    }

    #[tokio::test]
    async fn a_refusal_and_a_rate_limit_are_in_vaults_words() {
        let denied = errors("1 error occurred:\n\t* permission denied\n\n");
        assert_eq!(told("secret/data/a", Fault::Status(403)).await, (403, None, denied));
        let limited = errors("request path \"secret/data/a\": rate limit quota exceeded");
        assert_eq!(told("secret/data/a", Fault::Status(429)).await, (429, Some("1".to_owned()), limited));
    }

    #[tokio::test]
    async fn what_vault_does_not_say_is_a_proxys() {
        let (status, _, body) = told("secret/data/a", Fault::Status(502)).await;
        assert!(status == 502 && body.contains("<h1>502 Bad Gateway</h1>"), "{body}");
    }

    #[tokio::test]
    async fn a_seal_is_told_as_by_one_that_is_sealed() {
        assert_eq!(told("secret/data/a", Fault::Sealed).await, (503, None, errors("Vault is sealed")));
        let (status, _, body) = told("sys/health", Fault::Sealed).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(status == 503 && body["sealed"] == true && body["cluster_id"].is_null(), "{body}");
        assert_eq!(told("sys/seal-status", Fault::Sealed).await.0, 200);
    }
}
