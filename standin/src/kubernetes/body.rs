//! What comes in the body of a request.

use http::header;
use serde_json::{Value, json};

use super::object::{meta, remove, set_meta, without_empty, without_nulls};
use super::refusal::Refusal;
use super::resources::typed;
use super::server::Call;

/// The object that is sent, as its kind has it.
pub(crate) fn object(call: &Call<'_>) -> Result<Value, Refusal> {
    decode(call, json(call, call.resource.kind)?)
}

/// What is sent, where an object of this kind is awaited.
pub(crate) fn json(call: &Call<'_>, kind: &str) -> Result<Value, Refusal> {
    let format = call.request.header(header::CONTENT_TYPE).unwrap_or("application/json");
    if !format.starts_with("application/json") {
        return Err(Refusal::unknown_format());
    }
    let text = String::from_utf8_lossy(&call.request.body);
    serde_json::from_str(&text).map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why} ({text})"
        ))
    })
}

/// The same, of what was read or made already.
pub(crate) fn decode(call: &Call<'_>, mut object: Value) -> Result<Value, Refusal> {
    let resource = call.resource;
    let api_version = resource.api_version();
    let told = |field: &str, default: &str| object[field].as_str().unwrap_or(default).to_owned();
    let (kind, version) = (told("kind", resource.kind), told("apiVersion", &api_version));
    let cannot = |why: &str| {
        let kind_of = resource.kind;
        Refusal::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind_of}: {why}"))
    };
    if version != api_version {
        let scheme = "pkg/runtime/scheme.go:110";
        return Err(cannot(&format!("no kind {kind:?} is registered for version {version:?} in scheme {scheme:?}")));
    }
    if kind != resource.kind {
        let (from, to) = (format!("({}.{kind})", resource.version), format!("(core.{})", resource.kind));
        return Err(cannot(&format!("converting {from} to {to}: unknown conversion")));
    }
    object["kind"] = kind.clone().into();
    object["apiVersion"] = api_version.into();
    without_nulls(&mut object);
    let mut object = typed(resource, object).map_err(|why| cannot(&why))?;
    without_empty(&mut object);
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let namespace = meta(&object, "namespace").to_owned();
    if resource.namespaced && namespace.is_empty() {
        set_meta(&mut object, "namespace", call.ask.namespace.clone());
    } else if !resource.namespaced {
        remove(&mut object["metadata"], "namespace");
    } else if namespace != call.ask.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(object)
}

/// What is to be true of an object that is deleted, and what becomes of what it owns.
pub(crate) struct Deletion {
    uid: Option<String>,
    version: Option<String>,
    policy: String,
}

/// Reads `DeleteOptions`, from the body or the query.
pub(crate) fn deletion(call: &Call<'_>) -> Result<Deletion, Refusal> {
    let options: Value = if call.request.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&call.request.body).map_err(|error| Refusal::bad_request(error.to_string()))?
    };
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let policy = text(&options["propagationPolicy"]).or_else(|| call.query("propagationPolicy"));
    // A Job's pods outlive it unless it is said otherwise: `DefaultGarbageCollectionPolicy` of `pkg/registry/batch/job`.
    let default = if call.resource.plural == "jobs" { "Orphan" } else { "Background" };
    Ok(Deletion {
        uid: text(&options["preconditions"]["uid"]),
        version: text(&options["preconditions"]["resourceVersion"]),
        policy: policy.unwrap_or_else(|| default.to_owned()),
    })
}

impl Deletion {
    pub(crate) fn preconditions(&self, call: &Call<'_>, object: &Value) -> Result<(), Refusal> {
        let hints = ["The object might have been deleted and then recreated", "The object might have been modified"];
        let fields = [("UID", "uid", &self.uid), ("ResourceVersion", "resourceVersion", &self.version)];
        for ((name, field, wanted), hint) in fields.into_iter().zip(hints) {
            let is = meta(object, field);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != is) {
                let why = format!(
                    "the {name} in the precondition ({wanted}) does not match the {name} in record ({is}). {hint}"
                );
                return Err(Refusal::conflict_of_kind(call.resource, &call.ask.name, &why));
            }
        }
        Ok(())
    }

    /// The object with the finalizer that its policy asks the garbage collector by.
    pub(crate) fn finalized(&self, object: &Value) -> Value {
        let mut object = object.clone();
        let finalizer = match self.policy.as_str() {
            "Foreground" => "foregroundDeletion",
            "Orphan" => "orphan",
            _ => return object,
        };
        let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|other| other == finalizer) {
            finalizers.push(finalizer.into());
        }
        set_meta(&mut object, "finalizers", finalizers);
        object
    }
}
