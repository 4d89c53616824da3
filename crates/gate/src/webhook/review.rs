//! `admission.k8s.io/v1` AdmissionReview: the few fields that the gate reads, and the answer.

mod shape;
mod skim;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::ca::Sha256;
use crate::gate::{Ask, Decision};
use crate::k8s::controller::Controller;
use crate::k8s::flux::{HelmRelease, message_about};
use crate::patch::Shape;
use crate::reason::{Held, Reason, foreign_text};
use crate::self_test;
use skim::Raw;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A DNS subdomain's longest.
const NAME_MAX: usize = 253;

/// Longest uid that is echoed; the API server's have 36 characters.
const UID_MAX: usize = 128;

/// Most labels that are read. Kubernetes has no limit of its own but the size of an object; a review
/// at the cap of its body could otherwise cost ten times its size in memory.
const LABELS_MAX: usize = 1000;

/// The wire's shape, with nothing decoded that is not read.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Review<'a> {
    #[serde(borrow, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request: Option<WireRequest<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct WireRequest<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Cow<'a, str>,
    dry_run: Option<bool>,
    #[serde(borrow)]
    object: Option<Object<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    // Only a pod's is looked into, and only where it is patched.
    #[serde(borrow)]
    spec: Option<Raw<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
struct Metadata<'a> {
    labels: Option<Labels>,
    annotations: Option<Unread>,
    #[serde(borrow)]
    generate_name: Cow<'a, str>,
    #[serde(borrow)]
    owner_references: Vec<OwnerReference<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct OwnerReference<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    controller: Option<bool>,
}

/// An object of which nothing is read.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Unread {}

/// A bounded number of labels.
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = BTreeMap<String, String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {LABELS_MAX} labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if labels.len() == LABELS_MAX {
                        return Err(serde::de::Error::invalid_length(LABELS_MAX + 1, &self));
                    }
                    labels.insert(key, value);
                }
                Ok(labels)
            }
        }

        deserializer.deserialize_map(Pairs).map(Self)
    }
}

/// A request, as far as it is of use here. Holds nothing of the body, which may be large, while it waits.
#[derive(Debug)]
pub struct Request {
    /// Echoed in the answer.
    pub uid: String,
    /// For the log.
    pub namespace: String,
    /// For the log; of a pod made from a template, what its name is made from.
    name: String,
    /// For the log: kind and name of its controller.
    owner: Option<String>,
    /// Its controller, where that is one to look up.
    controller: Option<Controller>,
    is_pod: bool,
    is_create: bool,
    dry_run: bool,
    labels: BTreeMap<String, String>,
    shape: Shape,
}

impl Request {
    /// Parses a body. The volumes of a pod that is created are read where `is_patched` says that they matter.
    ///
    /// # Errors
    /// In words that say what is wrong, for the caller of a malformed request.
    pub fn parse(body: &[u8], is_patched: impl FnOnce(&Self) -> bool) -> Result<Self, String> {
        let review: Review<'_> = skim::from_slice(body)
            // serde repeats what it did not expect, at any length.
            .map_err(|error| format!("the body is not an AdmissionReview: {}", foreign_text(&error.to_string())))?;
        if review.kind.as_deref() != Some(KIND) {
            return Err(format!("kind is not {KIND}"));
        }
        if review.api_version.as_deref() != Some(API_VERSION) {
            return Err(format!("apiVersion is not {API_VERSION}"));
        }
        let request = review.request.ok_or("it has no request")?;
        if request.uid.is_empty() || request.uid.len() > UID_MAX {
            return Err(format!("request.uid is empty or longer than {UID_MAX} bytes"));
        }
        let without_object = request.object.is_none();
        let spec = request.object.as_ref().and_then(|object| object.spec);
        let mut request = Self::from(request);
        // Without its labels it cannot be told whether the pod is gated.
        if without_object && request.is_pod && request.is_create {
            return Err("it creates a pod, and has no request.object".to_owned());
        }
        if let Some(Raw(spec)) = spec.filter(|_| request.is_pod && request.is_create && is_patched(&request)) {
            request.shape.secrets = shape::secrets(spec).map_err(|error| {
                format!("the volumes of request.object are not a pod's: {}", foreign_text(&error.to_string()))
            })?;
        }
        Ok(request)
    }

    /// What the gate reads of it.
    pub fn ask(&self) -> Ask<'_> {
        Ask { is_pod: self.is_pod, is_create: self.is_create, dry_run: self.dry_run, labels: &self.labels }
    }

    /// What a patch of its pod depends on.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whose pod it is, for the log: its controller, and its name or what its name is made from.
    pub fn described(&self) -> (Option<&str>, &str) {
        (self.owner.as_deref(), &self.name)
    }

    /// The pod's controller, if it is of a kind that is known here.
    pub fn controller(&self) -> Option<&Controller> {
        self.controller.as_ref()
    }

    /// The number of a self-test, if it is one.
    pub fn self_test(&self) -> Option<&str> {
        let is_creation = self.is_pod && self.is_create && self.dry_run;
        let nonce = self.labels.get(self_test::LABEL).filter(|_| is_creation)?;
        Some(nonce.as_str()).filter(|nonce| self_test::is_nonce(nonce))
    }

    /// Whether nothing may be written on its behalf.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

impl From<WireRequest<'_>> for Request {
    fn from(wire: WireRequest<'_>) -> Self {
        let metadata = wire.object.and_then(|object| object.metadata);
        let Metadata { labels, annotations, generate_name, owner_references } = metadata.unwrap_or_default();
        let name = if wire.name.is_empty() { generate_name } else { wire.name };
        let owner = owner_references.iter().find(|owner| owner.controller == Some(true));
        let known = |owner: &OwnerReference<'_>| {
            Controller::new(&owner.api_version, &owner.kind, &wire.namespace, &owner.name, &owner.uid)
        };
        let Resource { group, resource } = wire.resource;
        Self {
            uid: wire.uid.into_owned(),
            namespace: short(&wire.namespace),
            name: short(&name),
            owner: owner.map(|owner| format!("{}/{}", short(&owner.kind), short(&owner.name))),
            controller: owner.and_then(known),
            is_pod: group.is_empty() && resource == "pods" && wire.sub_resource.is_empty(),
            is_create: wire.operation == "CREATE",
            dry_run: wire.dry_run.unwrap_or(false),
            labels: labels.map(|Labels(labels)| labels).unwrap_or_default(),
            shape: Shape { has_annotations: annotations.is_some(), secrets: Vec::new() },
        }
    }
}

/// A name as long as Kubernetes' own. What is longer is none, and must not fill the log.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(NAME_MAX)].to_owned()
}

/// What a denial says besides its reason.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// This cluster's name.
    pub cluster: &'a str,
    /// Vault's root, where it is known.
    pub root: Option<Sha256>,
    /// The HelmRelease that the pod is from, where it is known.
    pub release: Option<HelmRelease>,
}

/// The AdmissionReview that answers a request. HTTP 200 for every decision.
pub fn answer(uid: &str, decision: &Decision, known: &Known<'_>) -> Value {
    let response = match decision {
        Decision::NotGated => json!({ "uid": uid, "allowed": true }),
        Decision::Open { root, .. } => json!({
            "uid": uid, "allowed": true,
            "auditAnnotations": { "root-sha256": root.hex() },
        }),
        Decision::OpenUnverified { root, at, held } => json!({
            "uid": uid, "allowed": true,
            // Over 120 characters may be cut.
            "warnings": [format!("istio-ca-gate: {}: allowed with the root last verified at {}", held.reason, at.strftime("%Y-%m-%dT%H:%M:%SZ"))],
            "auditAnnotations": { "reason": held.reason.as_str(), "root-sha256": root.hex() },
        }),
        Decision::Deny(held) => denial(uid, held, known),
    };
    json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response })
}

/// The same with a patch of the pod.
pub fn with_patch(mut review: Value, patch: &Patch) -> Value {
    review["response"]["patchType"] = json!("JSONPatch");
    review["response"]["patch"] = json!(ByteString(json!(patch).to_string().into_bytes()));
    review
}

/// The same with the word that a self-test waits for: it came to a gate.
pub fn with_self_test(mut review: Value, nonce: &str) -> Value {
    let warning = json!(self_test::warning(nonce));
    match review["response"]["warnings"].as_array_mut() {
        Some(warnings) => warnings.push(warning),
        None => review["response"]["warnings"] = json!([warning]),
    }
    review
}

fn denial(uid: &str, held: &Held, known: &Known<'_>) -> Value {
    let reason = held.reason.as_str();
    let message = message_about(held.message(known.cluster), known.release.as_ref());
    // With 429 the ReplicaSet controller's client retries in place, once a second.
    let soon = held.reason == Reason::Converging;
    let mut details = json!({ "causes": [{ "reason": reason, "message": message }] });
    if soon {
        details["retryAfterSeconds"] = json!(1);
    }
    let mut audit = json!({ "reason": reason });
    if let Some(root) = known.root {
        audit["root-sha256"] = json!(root.hex());
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
        "auditAnnotations": audit,
    })
}

#[cfg(test)]
mod tests;
