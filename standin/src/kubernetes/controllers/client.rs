//! A client of the API server as the controllers have it: `k8s.io/client-go/rest`.

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use serde_json::Value;
use testbed::KubernetesApi;

use crate::kubernetes::resources::Resource;

/// What fields are owned by, among others.
const AGENT: &str = "kube-controller-manager/v1.34.4";

/// `maxRetries` in `k8s.io/client-go/rest/request.go`.
const RETRIES_MAX: usize = 10;

/// One controller's account.
#[derive(Clone)]
pub(super) struct Client {
    api: KubernetesApi,
    token: String,
}

/// A request that was not granted.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// Zero if there was no answer.
    pub(super) code: u16,
    pub(super) message: String,
    /// The namespace is going, so that nothing can be created in it.
    pub(super) terminating: bool,
}

pub(super) type Result<T> = std::result::Result<T, Refused>;

/// Where the objects of a resource are, or one of them.
pub(super) fn path(resource: &Resource, namespace: &str, name: &str) -> String {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    let mut path = format!("/{root}/{}", resource.api_version());
    if resource.namespaced && !namespace.is_empty() {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{}", resource.plural);
    if !name.is_empty() {
        path += &format!("/{name}");
    }
    path
}

impl Client {
    pub(super) fn new(api: KubernetesApi, token: String) -> Self {
        Self { api, token }
    }

    /// None: there is no such object.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send("GET", path, None).await {
            Ok(object) => Ok(Some(object)),
            Err(refused) if refused.code == 404 => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    pub(super) async fn list(&self, path: &str) -> Result<(Vec<Value>, String)> {
        let mut list = self.send("GET", path, None).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        match list["items"].take() {
            Value::Array(items) => Ok((items, version)),
            _ => Ok((Vec::new(), version)),
        }
    }

    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("POST", path, Some(object)).await
    }

    pub(super) async fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("PUT", path, Some(object)).await
    }

    /// Applies a JSON merge patch.
    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send("PATCH", path, Some(patch)).await
    }

    /// Deletes an object, if it is still there.
    pub(super) async fn delete(&self, path: &str, options: &Value) -> Result<()> {
        match self.send("DELETE", path, Some(options)).await {
            Err(refused) if refused.code != 404 => Err(refused),
            _ => Ok(()),
        }
    }

    /// Begins an answer that goes on, as one to a watch.
    pub(super) async fn open(&self, path: &str) -> Result<reqwest::Response> {
        let answer = self.raw("GET", path, None).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
    }

    /// Sends a request, and again in place as long as the answer asks for it.
    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut tries = 0;
        loop {
            let answer = self.raw(method, path, body.map(Value::to_string)).await?;
            if answer.status().is_success() {
                let text = answer.text().await.map_err(|error| unanswered(&error))?;
                return serde_json::from_str(&text).map_err(|error| unanswered(&error));
            }
            match retry_after(&answer).filter(|_| tries < RETRIES_MAX) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(refused(answer).await),
            }
            tries += 1;
        }
    }

    async fn raw(&self, method: &str, path: &str, body: Option<String>) -> Result<reqwest::Response> {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = [(CONTENT_TYPE.as_str(), content_type), (USER_AGENT.as_str(), AGENT)];
        self.api.raw(Some(&self.token), method, path, &headers, body).await.map_err(|error| unanswered(&error))
    }
}

fn unanswered(error: &impl ToString) -> Refused {
    Refused { code: 0, message: error.to_string(), terminating: false }
}

fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    if answer.status().as_u16() != 429 && !answer.status().is_server_error() {
        return None;
    }
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// `v1.NamespaceTerminatingCause` among the causes means that the namespace is going.
async fn refused(answer: reqwest::Response) -> Refused {
    let code = answer.status().as_u16();
    let status: Value = answer.json().await.unwrap_or_default();
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    Refused {
        code,
        message: status["message"].as_str().unwrap_or("unknown").to_owned(),
        terminating: causes.into_iter().any(|cause| cause["reason"] == "NamespaceTerminating"),
    }
}
