//! The Kubernetes API, as far as this service needs it, and what its refusals mean.

pub mod access;
pub mod cacerts;
pub mod client;
mod clients;
pub mod controller;
pub mod events;
pub mod external_secrets;
pub mod flux;
pub mod follow;
pub mod istiods;
pub mod mesh;
pub mod owners;
pub mod pin;
mod proxy;
pub mod root_cert;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod split;
mod stream;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::{CONNECTION, DATE};
use http_body_util::Limited;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PatchParams;
use kube::client::Body;
use tower::service_fn;

use client::ThroughProxy;
pub use clients::{Clients, Site};
pub use gate_core::cluster::Write;
pub use gate_core::names::{RECORD_STATE, ROOT_SHA256, VAULT_VERSION};
use gate_core::reason::{ByItself, Held, Reason, foreign_text, innermost};
use gate_core::skew;

/// Our name in `managedFields`, and the value of the managed-by label.
pub const FIELD_MANAGER: &str = "istio-ca-gate";
/// Kubernetes' recommended label for the tool that manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Longest wait for one answer of the API server: a few of them fit into an admission call's ten seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest answer that is held: an object has at most 3 MiB, and lists are read in pages.
const ANSWER_MAX: usize = 8 << 20;

/// How a call ended that was not simply answered.
#[derive(Debug)]
pub enum Failed {
    /// 409: what the write was decided on has changed. Read again, plan again.
    Conflict,
    /// 404.
    NotFound,
    /// Anything else.
    Held(Held),
}

impl Failed {
    /// The reason, where neither a conflict nor an absence has a meaning of its own.
    pub fn into_held(self, doing: &str) -> Held {
        match self {
            Self::Held(held) => held,
            Self::Conflict => unreachable_api(doing, "it was changed meanwhile"),
            Self::NotFound => unreachable_api(doing, "it is not there"),
        }
    }
}

/// Sorts the outcome of a write that carried the version token of a read.
///
/// # Errors
/// That of the write, unless it is a conflict.
pub fn written<T>(written: Result<T, Failed>) -> Result<Write, Held> {
    match written {
        Ok(_) => Ok(Write::Done),
        Err(Failed::Conflict | Failed::NotFound) => Ok(Write::Changed),
        Err(Failed::Held(held)) => Err(held),
    }
}

/// One call with a deadline. `doing` is what the user is told was tried, as "read Secret a/b".
///
/// # Errors
/// The reason, in words that repeat nothing of an object's content.
pub async fn call<T>(doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(doing, &error)),
        Err(_) => Err(Failed::Held(unreachable_api(doing, "its answer took too long"))),
    }
}

/// Sorts an error of kube's. Its own texts may repeat what did not parse, so they are not used.
pub fn failed(doing: &str, error: &kube::Error) -> Failed {
    let held = match error {
        kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
            (409, _) => return Failed::Conflict,
            // A missing namespace is a 404 too, and says something else than a missing object.
            (404, _) if !status.message.starts_with("namespaces ") => return Failed::NotFound,
            (401, _) => refused_credentials(doing),
            // Whatever else is not to be: RBAC, quota, another webhook, an immutable Secret.
            (400..=499, _) if !matches!(status.code, 408 | 410 | 429) => {
                let (said, (known, next)) = (foreign_text(&status.message), remedy(status.code, &status.message));
                let what = format!("the API server refuses to {doing} ({said}){known}");
                Held::new(Reason::KubernetesForbidden, what, next, ByItself::Unsaid)
            }
            (code, _) => unreachable_api(doing, &format!("status {code} {}", foreign_text(&status.message))),
        },
        kube::Error::Auth(error) => unreachable_api(doing, &client::told_of_auth(error, None)),
        kube::Error::SerdeError(_) => unreachable_api(doing, "its answer cannot be read"),
        kube::Error::Service(error) => unreachable_api(doing, &transport(error.as_ref())),
        kube::Error::HyperError(error) => unreachable_api(doing, &innermost(error)),
        _ => unreachable_api(doing, "the connection failed"),
    };
    Failed::Held(held)
}

/// What is known of a refusal, and what to do about it. The API server has codes for kinds of it, and the cause in words
/// alone.
fn remedy(code: u16, message: &str) -> (&'static str, &'static str) {
    let says = |words: &str| message.contains(words);
    if says("admission webhook") || says("ValidatingAdmissionPolicy") {
        (": another admission webhook or policy of this cluster forbids it", "have it let this service account do so")
    } else if says("is being terminated") {
        (": the namespace is being deleted", "make it anew once it is gone")
    } else {
        ("", remedy_alone(code, says))
    }
}

fn remedy_alone(code: u16, says: impl Fn(&str) -> bool) -> &'static str {
    if says("exceeded quota") {
        "raise the quota, or delete what is not needed"
    } else if code == 404 {
        "make the namespace"
    } else if says("immutable") {
        "delete the object to have it made anew"
    } else if code == 403 {
        "apply the RBAC of deploy/"
    } else {
        "mend what it names"
    }
}

fn unreachable_api(doing: &str, what: &str) -> Held {
    Held::new(
        Reason::KubernetesUnreachable,
        format!("cannot {doing} ({})", what.trim_end()),
        "check the API server and the network to it",
        ByItself::TriedAgain,
    )
}

/// 401: the API server answers, and does not know who asks.
fn refused_credentials(doing: &str) -> Held {
    Held::new(
        Reason::KubernetesUnreachable,
        format!("cannot {doing} (status 401)"),
        "the API server does not take the credentials, so log in anew as for kubectl, or see why the token of this pod's service account is not taken",
        ByItself::TriedAgain,
    )
}

/// What a transport error says at the bottom of its chain, and which proxy was on the way.
fn transport(error: &(dyn Error + 'static)) -> String {
    let (what, mut next) = (innermost(error), Some(error));
    while let Some(error) = next {
        if let Some(through) = error.downcast_ref::<ThroughProxy>() {
            return format!("{through}: {what}");
        }
        next = error.source();
    }
    what
}

/// A read told of a version that was gone before it began.
pub fn stale_read(full_name: &str) -> Held {
    unreachable_api(
        &format!("tell what Secret {full_name} is"),
        "a read of it gives an older version than was told before: one of the API servers or of etcd's members is behind",
    )
}

/// The same client, none of whose answers is larger than anything that the API server has to say: it must not fill the
/// memory. A watch ends never, and what is streamed is not held.
pub fn bounded(below: Client) -> Client {
    let namespace = below.default_namespace().to_owned();
    let capped = service_fn(move |request: http::Request<Body>| {
        let is_watch =
            request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("watch=")));
        let is_held = !is_watch && request.extensions().get::<stream::Streamed>().is_none();
        let most = if is_held { ANSWER_MAX } else { usize::MAX };
        let below = below.clone();
        async move { Ok::<_, kube::Error>(below.send(request).await?.map(|body| Limited::new(body, most))) }
    });
    Client::new(capped, namespace)
}

/// The same client, each of whose connections ends with its answer. The buffers of one that is kept keep what came over
/// it: of `cacerts`, the CA's key.
pub fn forgetful(client: &Client) -> Client {
    let (below, namespace) = (client.clone(), client.default_namespace().to_owned());
    let closing = service_fn(move |mut request: http::Request<Body>| {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let below = below.clone();
        async move { below.send(request).await }
    });
    Client::new(closing, namespace)
}

/// How far the API server's clock is ahead of this one, by the last answer that told.
#[derive(Clone, Debug, Default)]
pub struct ApiClock(Arc<Mutex<Option<SignedDuration>>>);

impl ApiClock {
    /// The same client, whose answers tell it.
    pub fn of(&self, client: &Client) -> Client {
        let (below, namespace, told) = (client.clone(), client.default_namespace().to_owned(), self.clone());
        let timed = service_fn(move |request: http::Request<Body>| {
            let (below, told) = (below.clone(), told.clone());
            async move {
                let answer = below.send(request).await?;
                let date = answer.headers().get(DATE).and_then(|date| skew::http_date(date.to_str().ok()?));
                if let Some(date) = date {
                    *told.0.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(date.duration_since(Timestamp::now()));
                }
                kube::Result::<_>::Ok(answer)
            }
        });
        Client::new(timed, namespace)
    }

    /// `None`: no answer has told.
    pub fn ahead(&self) -> Option<SignedDuration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name and managed-by label of an object of ours.
pub fn metadata(name: &str) -> ObjectMeta {
    let labels = [(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned())];
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

/// Patch parameters with our field manager.
pub fn patch() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Create parameters with our field manager.
pub fn post() -> kube::api::PostParams {
    kube::api::PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..kube::api::PostParams::default() }
}

#[cfg(test)]
mod tests;
