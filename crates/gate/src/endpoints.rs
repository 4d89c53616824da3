//! What is answered on which path.

mod admit;
mod counted;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use https::{Rarely, Room, json, refuse};

use crate::clock::Clocks;
use crate::explain;
use crate::metrics::{self, Metrics, Moment};
use crate::page::{self, Here, SelfTested};
use crate::peers::Peers;
use crate::plan::Role;
use crate::readiness::Readiness;
use crate::report::{self, Report};
use crate::serving::Serving;
use crate::webhook::Webhook;
use crate::witness::LastLook;
use admit::{mutate, validate};
pub use counted::{Admission, Admissions};
use shared::Shared;

/// Lines about admissions in [`LINES_EVERY`].
const LINES: u32 = 100;
const LINES_EVERY: Duration = Duration::from_secs(60);

/// What the endpoints answer by.
#[derive(Clone)]
pub struct State {
    /// Admission.
    pub webhook: Arc<Webhook>,
    /// What is counted.
    pub metrics: Metrics,
    /// The certificate that is shown to callers.
    pub serving: Arc<Serving>,
    /// This cluster's role.
    pub role: Role,
    /// The gates of other clusters.
    pub peers: Arc<Peers>,
    /// What the witness saw, where there is one.
    pub last_look: LastLook,
    /// The self-test is asked for.
    pub has_self_test: bool,
    /// What is still missing.
    pub readiness: Arc<Readiness>,
    /// Lines about admissions.
    pub lines: Arc<Rarely>,
    /// What the servers share.
    pub room: Arc<Room>,
    /// What is shown to whoever asks.
    pub shown: Arc<Shown>,
}

impl State {
    fn self_tested(&self) -> SelfTested {
        match self.metrics.self_test.last() {
            Some((called, at)) => SelfTested::Last(called, at),
            None if self.has_self_test => SelfTested::Never,
            None => SelfTested::Off,
        }
    }
}

/// What is shown to whoever asks, of the last time.
#[derive(Default)]
pub struct Shown {
    metrics: Shared<Result<Bytes, String>>,
    page: Shared<Bytes>,
    fingerprint: Shared<Arc<Report>>,
}

/// Lines about admissions, of which a cluster that starts has a few dozen.
pub fn lines() -> Arc<Rarely> {
    Arc::new(Rarely::at_most(LINES, LINES_EVERY))
}

/// All endpoints.
pub fn admission(state: State) -> Router {
    finished(Router::new().route("/validate", post(validate)).route("/mutate", post(mutate)), state)
}

/// All but the admission endpoints.
pub fn admin(state: State) -> Router {
    finished(Router::new(), state)
}

fn finished(routes: Router<State>, state: State) -> Router {
    routes
        .route("/", get(page))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/reasons/{code}", get(explanation))
        .route("/fingerprint", get(fingerprint))
        .route("/metrics", get(metrics))
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
    let make = || {
        let (policy, now) = (&webhook.policy, Clocks::now());
        let report = webhook.converger.look(|known| report::report(&webhook.cluster, *role, known, policy, now));
        Arc::new(report.with(state.last_look.last().as_deref()))
    };
    let report = state.shown.fingerprint.get(make).await;
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/plain") {
        return report.openssl().into_response();
    }
    json(StatusCode::OK, &*report)
}

async fn page(extract::State(state): extract::State<State>, uri: Uri) -> Response {
    let State { webhook, role, peers, metrics, .. } = &state;
    let make = || {
        let now = Clocks::now();
        let here = webhook.converger.look(|known| Here::of(&webhook.cluster, *role, known, &webhook.policy, now));
        let here = here.with(webhook.kept_out().all(now.wall), state.self_tested(), state.last_look.last().as_deref());
        Bytes::from(page::page(&here, &peers.heard(), metrics.labels().version, now.wall))
    };
    let page = state.shown.page.get(make).await;
    let mut response = (page::headers(), page).into_response();
    response.headers_mut().extend(page::reload(uri.query()));
    response
}

async fn explanation(
    extract::State(state): extract::State<State>,
    extract::Path(code): extract::Path<String>,
) -> Response {
    match explain::entry(&code) {
        Some(entry) => (page::headers(), page::explanation(&entry, state.metrics.labels().version)).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "no such code"),
    }
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    match state.shown.metrics.get(|| exposition(&state)).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn exposition(state: &State) -> Result<Bytes, String> {
    let webhook = &state.webhook;
    let (labels, certificate_ends, peers) = (state.metrics.labels(), state.serving.not_after(), state.peers.heard());
    let standing = webhook.converger.look(|known| {
        let (policy, now) = (&webhook.policy, Clocks::now());
        Moment { labels, known, policy, now, certificate_ends, peers: &peers }.standing()
    })?;
    state.metrics.text(&standing, state.room.stats()).map(Bytes::from)
}
