//! An API server that answers as a test says.
#![allow(clippy::unwrap_used)]

use kube::Client;
use kube::client::Body;
use tower::service_fn;

/// A client of an API server that answers so. A string is its body as it is.
pub fn answered_by(answer: impl Fn(&http::Request<Body>) -> (u16, serde_json::Value) + Send + 'static) -> Client {
    let answering = service_fn(move |request: http::Request<Body>| {
        let (status, body) = answer(&request);
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let answer = http::Response::builder().status(status).body(Body::from(text.into_bytes()));
        async { answer }
    });
    Client::new(answering, "istio-system")
}

/// An answer of it, about something that is not there, or is refused.
pub fn refusal(code: u16, reason: &str) -> (u16, serde_json::Value) {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "no", "reason": reason, "code": code,
    });
    (code, status)
}
