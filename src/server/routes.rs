//! The endpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{self, Request as HttpRequest};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::body::{self, BODY_MAX, Unread};
use super::stats::Stats;
use crate::fingerprint;
use crate::gate::Decision;
use crate::k8s::flux::HelmRelease;
use crate::plan::Role;
use crate::readiness::Readiness;
use crate::webhook::Webhook;
use crate::webhook::review::{self, Known, Request};

/// What the endpoints answer by.
#[derive(Clone)]
pub struct State {
    /// Admission.
    pub webhook: Arc<Webhook>,
    /// This cluster's role.
    pub role: Role,
    /// What is still missing.
    pub readiness: Arc<Readiness>,
    /// What the servers count.
    pub stats: Arc<Stats>,
}

/// All endpoints.
pub fn admission(state: State) -> Router {
    finished(Router::new().route("/validate", post(validate)), state)
}

/// All but the admission endpoints.
pub fn admin(state: State) -> Router {
    finished(Router::new(), state)
}

fn finished(routes: Router<State>, state: State) -> Router {
    routes
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/fingerprint", get(fingerprint))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, "wrong method for this path") })
        .layer(map_response_with_state(Arc::clone(&state.readiness), close_when_ending))
        .with_state(state)
}

/// The API server keeps its connections open: it has to be told to go elsewhere.
async fn close_when_ending(
    extract::State(readiness): extract::State<Arc<Readiness>>,
    mut response: Response,
) -> Response {
    if readiness.is_ending() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn readyz(extract::State(state): extract::State<State>) -> Response {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))).into_response()
}

async fn fingerprint(extract::State(state): extract::State<State>, headers: HeaderMap) -> Response {
    let State { webhook, role, .. } = &state;
    let report = webhook
        .converger
        .look(|known| fingerprint::report(&webhook.cluster, *role, known, &webhook.policy, Timestamp::now()));
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/plain") {
        return report.openssl().into_response();
    }
    as_json(StatusCode::OK, &report)
}

async fn validate(extract::State(state): extract::State<State>, uri: Uri, request: HttpRequest) -> Response {
    let began = Instant::now();
    let body = match body::read(request.into_body()).await {
        Ok(body) => body,
        Err(Unread::TooSlow) => return refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        Err(Unread::TooLarge) => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {BODY_MAX} bytes"));
        }
        Err(Unread::Broken) => return refuse(StatusCode::BAD_REQUEST, "the body ended early"),
    };
    let parsed = Request::parse(&body);
    // It is not kept while the request waits.
    drop(body);
    let request = match parsed {
        Ok(request) => request,
        Err(what) => return refuse(StatusCode::BAD_REQUEST, &what),
    };
    let (decision, release) = state.webhook.answer(&request, timeout(&uri)).await;
    log(&request, &decision, release.as_ref(), began.elapsed());
    // Only a denial names Vault's root by what is known; an allowance has its own.
    let root = match decision {
        Decision::Deny(_) => {
            state.webhook.converger.look(|known| known.convergence.root.as_ref().map(|root| root.root))
        }
        _ => None,
    };
    let known = Known { cluster: &state.webhook.cluster, root, release };
    as_json(StatusCode::OK, &review::answer(&request.uid, &decision, &known))
}

/// The budget of this very call, which the API server tells in the query.
fn timeout(uri: &Uri) -> Option<Duration> {
    let value = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("timeout="))?;
    humantime::parse_duration(value).ok()
}

/// One line an admission. Pods that are not gated are none of the operator's business.
fn log(request: &Request, decision: &Decision, release: Option<&HelmRelease>, took: Duration) {
    let (owner, name) = request.described();
    let owner = owner.unwrap_or("-");
    let (uid, namespace) = (&request.uid, &request.namespace);
    let seconds = took.as_secs_f64();
    match decision {
        Decision::NotGated => tracing::debug!(uid, namespace, name, owner, seconds, "not gated"),
        Decision::Open { root, version } => {
            tracing::info!(uid, namespace, name, owner, seconds, %root, version, "allowed");
        }
        Decision::OpenUnverified(last, held) => {
            tracing::warn!(uid, namespace, name, owner, seconds, root = %last.root, reason = %held.reason, "allowed unverified");
        }
        Decision::Deny(held) => {
            let helm_release = release.map(HelmRelease::to_string);
            tracing::warn!(uid, namespace, name, owner, helm_release, seconds, reason = %held.reason, "denied");
        }
        Decision::ReadLive | Decision::Consult => tracing::error!(uid, "answered without a decision"),
    }
}

pub(super) fn refuse(status: StatusCode, what: &str) -> Response {
    as_json(status, &json!({ "error": what }))
}

fn as_json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
