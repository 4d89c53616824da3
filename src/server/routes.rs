//! The endpoints.

use std::sync::Arc;
use std::time::Duration;

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
use crate::metrics::{self, Metrics, Moment};
use crate::page::{self, Here};
use crate::peers::Peers;
use crate::plan::Role;
use crate::readiness::Readiness;
use crate::reason::Reason;
use crate::tls::Serving;
use crate::webhook::Webhook;
use crate::webhook::review::{self, Known, Request};

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
    /// What is still missing.
    pub readiness: Arc<Readiness>,
    /// What the servers count.
    pub stats: Arc<Stats>,
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
    let report = webhook
        .converger
        .look(|known| fingerprint::report(&webhook.cluster, *role, known, &webhook.policy, Timestamp::now()));
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/plain") {
        return report.openssl().into_response();
    }
    as_json(StatusCode::OK, &report)
}

async fn page(extract::State(state): extract::State<State>) -> Response {
    let State { webhook, role, peers, .. } = &state;
    let now = Timestamp::now();
    let here = webhook.converger.look(|known| Here::of(&webhook.cluster, *role, known, &webhook.policy, now));
    (page::headers(), page::page(&here, &peers.heard(), now)).into_response()
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    let webhook = &state.webhook;
    let text = webhook.converger.look(|known| {
        state.metrics.text(&Moment {
            known,
            policy: &webhook.policy,
            now: Timestamp::now(),
            stats: &state.stats,
            certificate_ends: state.serving.not_after(),
        })
    });
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn validate(extract::State(state): extract::State<State>, uri: Uri, request: HttpRequest) -> Response {
    admit(&state, &uri, request, Endpoint::Validate).await
}

async fn mutate(extract::State(state): extract::State<State>, uri: Uri, request: HttpRequest) -> Response {
    admit(&state, &uri, request, Endpoint::Mutate).await
}

/// Which of the two admission endpoints was called. They decide alike; only one may patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Validate,
    Mutate,
}

impl Endpoint {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
        }
    }
}

async fn admit(state: &State, uri: &Uri, request: HttpRequest, endpoint: Endpoint) -> Response {
    let mut admission = state.metrics.admissions.begin(endpoint.as_str());
    let request = match receive(request).await {
        Ok(request) => request,
        Err((status, what)) => {
            admission.malformed();
            return refuse(status, &what);
        }
    };
    let webhook = &state.webhook;
    let (decision, release) = webhook.answer(&request, timeout(uri)).await;
    admission.decided(&decision);
    log(&request, endpoint, &decision, release.as_ref(), admission.elapsed());
    // Only a denial names Vault's root by what is known; an allowance has its own.
    let root = match decision {
        Decision::Deny(_) => webhook.converger.look(|known| known.convergence.root.as_ref().map(|root| root.root)),
        _ => None,
    };
    let known = Known { cluster: &webhook.cluster, root, release };
    let answer = review::answer(&request.uid, &decision, &known);
    let answer = match request.self_test() {
        Some(nonce) => review::with_self_test(answer, nonce),
        None => answer,
    };
    match webhook.patch(&request, &decision).filter(|_| endpoint == Endpoint::Mutate) {
        Some(patch) => as_json(StatusCode::OK, &review::with_patch(answer, &patch)),
        None => as_json(StatusCode::OK, &answer),
    }
}

/// The review, whose body is not kept while it waits for its answer.
async fn receive(request: HttpRequest) -> Result<Request, (StatusCode, String)> {
    let body = body::read(request.into_body()).await.map_err(|unread| match unread {
        Unread::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned()),
        Unread::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_MAX} bytes")),
        Unread::Broken => (StatusCode::BAD_REQUEST, "the body ended early".to_owned()),
    })?;
    Request::parse(&body).map_err(|what| (StatusCode::BAD_REQUEST, what))
}

/// The budget of this very call, which the API server tells in the query.
fn timeout(uri: &Uri) -> Option<Duration> {
    let value = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("timeout="))?;
    humantime::parse_duration(value).ok()
}

/// One line an admission. Pods that are not gated are none of the operator's business.
fn log(request: &Request, endpoint: Endpoint, decision: &Decision, release: Option<&HelmRelease>, took: Duration) {
    let (owner, pod) = request.described();
    let owner = owner.unwrap_or("-");
    let (uid, namespace, dry_run) = (&request.uid, &request.namespace, request.is_dry_run());
    let (endpoint, seconds) = (endpoint.as_str(), took.as_secs_f64());
    macro_rules! line {
        ($level:ident, $($field:tt)*) => {
            tracing::$level!(
                decision = decision.as_str(), $($field)* uid, endpoint, namespace, pod, owner, dry_run, seconds,
                "admission"
            )
        };
    }
    match decision {
        // What the gate asks itself is none either, and is told by its own line.
        _ if request.self_test().is_some() => line!(debug, reason = decision.reason().map(Reason::as_str),),
        Decision::NotGated => line!(debug,),
        Decision::Open { root, version } => line!(info, %root, version,),
        Decision::OpenUnverified(last, held) => line!(warn, reason = %held.reason, root = %last.root,),
        Decision::Deny(held) => {
            line!(warn, reason = %held.reason, helm_release = release.map(HelmRelease::to_string),);
        }
        Decision::ReadLive | Decision::Consult => line!(error,),
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
