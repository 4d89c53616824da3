//! `POST /validate` and `POST /mutate`.

use std::time::Duration;

use axum::extract::{self, Request as HttpRequest};
use axum::response::Response;
use http::{StatusCode, Uri};
use https::body::{self, BODY_MAX, NotRead};
use https::{json, refuse};

use super::State;
use crate::gate::Decision;
use crate::k8s::flux::HelmRelease;
use crate::reason::Reason;
use crate::webhook::review::{self, Known, Request};

pub(super) async fn validate(extract::State(state): extract::State<State>, uri: Uri, request: HttpRequest) -> Response {
    admit(&state, &uri, request, Endpoint::Validate).await
}

pub(super) async fn mutate(extract::State(state): extract::State<State>, uri: Uri, request: HttpRequest) -> Response {
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
    let request = match receive(state, request, endpoint).await {
        Ok(request) => request,
        Err((status, what)) => {
            admission.malformed();
            return refuse(status, &what);
        }
    };
    let webhook = &state.webhook;
    let (decision, release) = webhook.answer(&request, admission.began(), timeout(uri)).await;
    admission.decided(&decision);
    // Whoever reaches the port can cause such lines. The metrics count all.
    if matches!(decision, Decision::NotGated) || request.self_test().is_some() {
        log(&request, endpoint, &decision, release.as_ref(), admission.elapsed(), 0);
    } else {
        state.lines.tell(|more| log(&request, endpoint, &decision, release.as_ref(), admission.elapsed(), more));
    }
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
        Some(patch) => json(StatusCode::OK, &review::with_patch(answer, &patch)),
        None => json(StatusCode::OK, &answer),
    }
}

/// The review, whose body is not kept while it waits for its answer.
async fn receive(state: &State, request: HttpRequest, endpoint: Endpoint) -> Result<Request, (StatusCode, String)> {
    let body = body::read(request).await.map_err(|unread| match unread {
        NotRead::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned()),
        NotRead::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_MAX} bytes")),
        NotRead::Broken => (StatusCode::BAD_REQUEST, "the body ended early".to_owned()),
    })?;
    let is_patched = |request: &Request| endpoint == Endpoint::Mutate && state.webhook.is_gated(request);
    Request::parse(&body, is_patched).map_err(|what| (StatusCode::BAD_REQUEST, what))
}

/// The budget of this very call, which the API server tells in the query.
fn timeout(uri: &Uri) -> Option<Duration> {
    let value = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("timeout="))?;
    humantime::parse_duration(value).ok()
}

/// One line an admission. Pods that are not gated are none of the operator's business.
/// `more` were left out before it.
fn log(
    request: &Request,
    endpoint: Endpoint,
    decision: &Decision,
    release: Option<&HelmRelease>,
    took: Duration,
    more: u64,
) {
    let (owner, pod) = request.described();
    let owner = owner.unwrap_or("-");
    let (uid, namespace, dry_run) = (&request.uid, &request.namespace, request.is_dry_run());
    let (endpoint, seconds) = (endpoint.as_str(), took.as_secs_f64());
    let more = (more > 0).then_some(more);
    macro_rules! line {
        ($level:ident, $($field:tt)*) => {
            tracing::$level!(
                decision = decision.as_str(), $($field)* uid, endpoint, namespace, pod, owner, dry_run, seconds, more,
                "admission"
            )
        };
    }
    match decision {
        // What the gate asks itself is none either, and is told by its own line.
        _ if request.self_test().is_some() => line!(debug, reason = decision.reason().map(Reason::as_str),),
        Decision::NotGated => line!(debug,),
        Decision::Open { root, version } => line!(info, root = root.openssl(), version,),
        Decision::OpenUnverified { root, held, .. } => line!(warn, reason = %held.reason, root = root.openssl(),),
        Decision::Deny(held) => {
            line!(warn, reason = %held.reason, helm_release = release.map(HelmRelease::to_string),);
        }
    }
}
