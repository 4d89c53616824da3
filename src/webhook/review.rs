//! `admission.k8s.io/v1` AdmissionReview: the few fields that the gate reads, and the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::{Ask, Decision};
use crate::reason::{Held, Reason};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// A request, with nothing decoded that the gate does not read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Echoed in the answer.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// CREATE, UPDATE, DELETE, CONNECT.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// For the log.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    /// Empty for a pod made from a template.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    #[serde(default)]
    dry_run: Option<bool>,
    object: Option<Object>,
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    labels: Option<BTreeMap<String, String>>,
    generate_name: String,
    owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Deserialize)]
struct OwnerReference {
    kind: String,
    name: String,
    #[serde(default)]
    controller: Option<bool>,
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl<'a> Request<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// In words that say what is wrong, for the caller of a malformed request.
    pub fn parse(body: &'a [u8]) -> Result<Self, String> {
        let review: Review<'a> =
            serde_json::from_slice(body).map_err(|error| format!("the body is not an AdmissionReview: {error}"))?;
        if review.kind.as_deref() != Some(KIND) {
            return Err(format!("kind is not {KIND}"));
        }
        if review.api_version.as_deref() != Some(API_VERSION) {
            return Err(format!("apiVersion is not {API_VERSION}"));
        }
        let request = review.request.ok_or("it has no request")?;
        if request.uid.is_empty() {
            return Err("request.uid is empty".to_owned());
        }
        Ok(request)
    }

    /// What the gate reads of it.
    pub fn ask(&self) -> Ask<'_> {
        let object = self.object.as_ref();
        Ask {
            is_pod: self.resource.group.is_empty() && self.resource.resource == "pods" && self.sub_resource.is_empty(),
            is_create: self.operation == "CREATE",
            dry_run: self.dry_run.unwrap_or(false),
            labels: object.and_then(|object| object.metadata.labels.as_ref()).unwrap_or(&NO_LABELS),
        }
    }

    /// Whose pod it is, for the log: its controller, and its name or what its name is made from.
    pub fn described(&self) -> (Option<String>, &str) {
        let Some(Object { metadata }) = &self.object else { return (None, &self.name) };
        let controller = metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let name = if self.name.is_empty() { metadata.generate_name.as_str() } else { &self.name };
        (controller.map(|owner| format!("{}/{}", owner.kind, owner.name)), name)
    }
}

/// The AdmissionReview that answers a request. HTTP 200 for every decision.
pub fn answer(uid: &str, decision: &Decision, cluster: &str) -> Value {
    let response = match decision {
        Decision::NotGated => json!({ "uid": uid, "allowed": true }),
        Decision::Open { root, .. } => json!({
            "uid": uid, "allowed": true,
            "auditAnnotations": { "root-sha256": root.to_string() },
        }),
        Decision::OpenUnverified(last, held) => json!({
            "uid": uid, "allowed": true,
            // Over 120 characters may be cut.
            "warnings": [format!("istio-ca-gate: {}: allowed with the root last verified at {}", held.reason, last.at.strftime("%Y-%m-%dT%H:%M:%SZ"))],
            "auditAnnotations": { "reason": held.reason.as_str(), "root-sha256": last.root.to_string() },
        }),
        Decision::Deny(held) => denial(uid, held, cluster),
        // The caller decides before it answers.
        Decision::ReadLive | Decision::Consult => {
            denial(uid, &Held::new(Reason::Converging, "not decided yet; the pod is retried by itself"), cluster)
        }
    };
    json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response })
}

fn denial(uid: &str, held: &Held, cluster: &str) -> Value {
    let (reason, message) = (held.reason.as_str(), held.message(cluster));
    // With 429 the ReplicaSet controller's client retries in place, once a second.
    let soon = held.reason == Reason::Converging;
    let mut details = json!({ "causes": [{ "reason": reason, "message": message }] });
    if soon {
        details["retryAfterSeconds"] = json!(1);
    }
    json!({
        "uid": uid,
        "allowed": false,
        "status": {
            "status": "Failure",
            "code": if soon { 429 } else { 403 },
            "reason": reason,
            "message": message,
            "details": details,
        },
        "auditAnnotations": { "reason": reason },
    })
}
