//! A webhook of a case's own: a small HTTPS server, registered for one namespace.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use standin::faults::Fault;
use standin::wire::{self, Answer, Request, Server, Service};
use testbed::{KubernetesApi, eventually};

use super::SOON;

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Where the question goes whether a configuration is in force.
const PROBE: &str = "/probe";

/// What a webhook answers to a review, which comes with the number of reviews before it.
type Script = Box<dyn Fn(&Value, usize) -> Answer + Send + Sync>;

/// A webhook and its configuration.
pub struct Webhook {
    cluster: KubernetesApi,
    namespace: String,
    hook: Arc<Hook>,
    server: Server,
    configurations: Mutex<Vec<String>>,
}

struct Hook {
    script: Mutex<Script>,
    asked: Mutex<Vec<Request>>,
}

impl Service for Hook {
    async fn answer(&self, request: Request) -> Answer {
        let review = serde_json::from_slice(&request.body).unwrap_or_default();
        if request.uri.path() == PROBE {
            return denied(&review, json!({"message": "in force"}));
        }
        let before = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(request);
            asked.len() - 1
        };
        (self.script.lock().unwrap_or_else(PoisonError::into_inner))(&review, before)
    }

    fn pretend(&self, _request: &Request, _fault: Fault) -> Answer {
        wire::empty(500)
    }
}

/// An AdmissionReview with this response, and the uid of the review that it answers.
pub fn answered(review: &Value, mut response: Value) -> Answer {
    response["uid"] = review["request"]["uid"].clone();
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    wire::json(200, &answer)
}

/// Yes.
pub fn allowed(review: &Value) -> Answer {
    answered(review, json!({"allowed": true}))
}

/// No, with this Status.
pub fn denied(review: &Value, status: Value) -> Answer {
    answered(review, json!({"allowed": false, "status": status}))
}

/// Yes, with this JSON Patch.
pub fn patched(review: &Value, patch: &Value) -> Answer {
    let patch = STANDARD.encode(patch.to_string());
    answered(review, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// Which list of configurations.
#[derive(Clone, Copy)]
pub enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

impl Webhook {
    /// Makes a namespace, and a webhook that is registered nowhere yet.
    pub async fn start(
        cluster: &KubernetesApi,
        namespace: &str,
        script: impl Fn(&Value, usize) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        make_namespace(cluster, namespace).await?;
        let hook = Arc::new(Hook { script: Mutex::new(Box::new(script)), asked: Mutex::default() });
        let server = Server::start(namespace, Arc::clone(&hook)).await?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            hook,
            server,
            configurations: Mutex::default(),
        })
    }

    /// From now on it answers thus.
    pub fn answers(&self, script: impl Fn(&Value, usize) -> Answer + Send + Sync + 'static) {
        *self.hook.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Its server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The name by which it is registered, told in every refusal.
    pub fn name(&self) -> String {
        format!("{}.contract.test", self.namespace)
    }

    /// A `clientConfig` for this path of it.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("{}{path}", self.server.url()), "caBundle": STANDARD.encode(self.server.ca_pem())})
    }

    /// Registers it for the creation of pods in its namespace, but for what `differs`, and waits until that is in force.
    pub async fn register(&self, kind: Kind, differs: Value) -> Result<()> {
        self.register_as(&self.namespace, kind, differs).await
    }

    /// The same, with a configuration of this name.
    pub async fn register_as(&self, configuration: &str, kind: Kind, differs: Value) -> Result<()> {
        let in_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": self.namespace}});
        let rule = |resource: &str| json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}]);
        let webhook = |name: String, path: &str, resource: &str| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": self.client_config(path),
                "namespaceSelector": in_namespace,
                "rules": rule(resource),
            })
        };
        let mut asked = webhook(self.name(), "/ask", "pods");
        for (field, value) in differs.as_object().into_iter().flatten() {
            asked[field] = value.clone();
        }
        let mut probe = webhook(format!("probe.{}", self.name()), PROBE, "services");
        probe["objectSelector"] = json!({"matchLabels": {"probe": configuration}});
        let body = json!({"metadata": {"name": configuration}, "webhooks": [asked, probe]});
        let path = format!("{REGISTRATION}/{}", kind.plural());
        let (status, answer) = self.cluster.request("POST", &path, Some(body)).await?;
        ensure!(status == 201, "{status}: {answer}");
        let registered = format!("{path}/{configuration}");
        self.configurations.lock().unwrap_or_else(PoisonError::into_inner).push(registered);
        eventually("the configuration in force", SOON, || self.is_in_force(configuration)).await
    }

    async fn is_in_force(&self, configuration: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/services?dryRun=All", self.namespace);
        let labels = json!({"probe": configuration});
        let body = json!({"metadata": {"name": "probe", "labels": labels}, "spec": {"ports": [{"port": 443}]}});
        let (status, answer) = self.cluster.request("POST", &path, Some(body)).await?;
        ensure!(
            status == 400 && answer["message"].as_str().is_some_and(|text| text.ends_with(": in force")),
            "{answer}"
        );
        Ok(())
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.hook.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests of all reviews so far.
    pub fn reviews(&self) -> Result<Vec<Value>> {
        let of = |request: &Request| Ok(serde_json::from_slice::<Value>(&request.body)?["request"].clone());
        self.asked().iter().map(of).collect()
    }

    /// The one review so far.
    pub fn review(&self) -> Result<Value> {
        let mut reviews = self.reviews()?;
        ensure!(reviews.len() == 1, "{} reviews: {reviews:?}", reviews.len());
        reviews.pop().context("no review")
    }

    /// Sends a request with all rights, about its namespace: the path is that below it, behind the API's root.
    pub async fn request(&self, method: &str, root: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let path = format!("{root}/namespaces/{}/{path}", self.namespace);
        self.cluster.request(method, &path, body).await
    }

    /// Tries to create a pod of this name.
    pub async fn create_pod(&self, name: &str) -> Result<(u16, Value)> {
        self.request("POST", "/api/v1", "pods", Some(pod(name))).await
    }

    /// Removes its configurations.
    pub async fn end(self) -> Result<()> {
        self.unregister().await
    }

    /// The same, to go on without them.
    pub async fn unregister(&self) -> Result<()> {
        let configurations = std::mem::take(&mut *self.configurations.lock().unwrap_or_else(PoisonError::into_inner));
        for configuration in configurations {
            let (status, answer) = self.cluster.request("DELETE", &configuration, None).await?;
            ensure!(status == 200, "{status}: {answer}");
        }
        Ok(())
    }
}

/// A pod of one container.
pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "example.test/main"}]}})
}

/// Makes a namespace in which pods can be created.
pub async fn make_namespace(cluster: &KubernetesApi, name: &str) -> Result<()> {
    let body = json!({"metadata": {"name": name}});
    let (status, answer) = cluster.request("POST", "/api/v1/namespaces", Some(body)).await?;
    ensure!(status == 201, "{status}: {answer}");
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    let made = || async {
        let (status, answer) = cluster.request("GET", &account, None).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    };
    eventually("the default service account", SOON, made).await
}

/// Whether an answer is this one, to the letter.
pub fn is(answer: &(u16, Value), status: u16, body: &Value) -> Result<()> {
    ensure!(answer.0 == status && answer.1 == *body, "wanted {status}: {body}\ngot {}: {}", answer.0, answer.1);
    Ok(())
}

/// A Status of failure; reason and details where there are any.
pub fn failure(code: u16, message: &str, reason: &str, details: Value) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    if !details.is_null() {
        status["details"] = details;
    }
    status
}

/// The Status of an error within the API server.
pub fn internal(why: &str) -> Value {
    let message = format!("Internal error occurred: {why}");
    failure(500, &message, "InternalError", json!({"causes": [{"message": why}]}))
}
