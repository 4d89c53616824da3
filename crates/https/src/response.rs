//! Answers in JSON.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// A refusal that says what is wrong.
pub fn refuse(status: StatusCode, what: &str) -> Response {
    json(status, &serde_json::json!({ "error": what }))
}

/// A value as JSON.
pub fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
