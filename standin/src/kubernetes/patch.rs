//! What an update, a patch or an apply makes of an object.

use http::header;
use json_patch::{AddOperation, PatchOperation};
use serde_json::{Value, json};

use super::object::{meta, remove, without_nulls};
use super::options::Options;
use super::refusal::{Cause, Refusal};
use super::server::Call;
use super::{body, managed, strategic};

/// A change of an object, as it is sent.
pub(crate) enum Change {
    Update(Value),
    Merge(Value),
    Json(json_patch::Patch, bool),
    Strategic(Value),
    Apply(Value),
}

impl Change {
    pub(crate) fn of(call: &Call<'_>) -> Result<Self, Refusal> {
        if call.ask.verb == "update" {
            return Self::update(call);
        }
        let kind = call.request.header(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind {
            "application/merge-patch+json" => Ok(Self::Merge(map(call)?)),
            "application/json-patch+json" => {
                let steps = parsed(call)?;
                if !steps.is_array() {
                    return Err(not_decoded(&format!("{} into Go value of type []handlers.jsonPatchOp", go(&steps))));
                }
                let pins = steps
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|step| step["path"] == "/metadata/resourceVersion" && step["op"] != "test");
                Ok(Self::Json(serde_json::from_value(steps).map_err(|_| not_applied())?, pins))
            }
            "application/strategic-merge-patch+json" if !call.resource.is_custom() => Ok(Self::Strategic(map(call)?)),
            "application/apply-patch+yaml" => Ok(Self::Apply(applied(call)?)),
            _ => Err(Refusal::media_type()),
        }
    }

    fn update(call: &Call<'_>) -> Result<Self, Refusal> {
        let object = body::object(call)?;
        let name = meta(&object, "name").to_owned();
        if name.is_empty() {
            return Err(nameless(call));
        } else if name != call.ask.name {
            return Err(other_name(call, &name));
        }
        Ok(Self::Update(object))
    }

    /// Whether it is to be made over one version only.
    pub(crate) fn pins_version(&self) -> bool {
        match self {
            Self::Update(object) | Self::Merge(object) | Self::Strategic(object) | Self::Apply(object) => {
                !meta(object, "resourceVersion").is_empty()
            }
            Self::Json(_, pins) => *pins,
        }
    }

    /// The object of an apply.
    pub(crate) fn applied(&self) -> Option<&Value> {
        if let Self::Apply(object) = self { Some(object) } else { None }
    }

    /// The object that it makes where there is none.
    pub(crate) fn creates(&self, call: &Call<'_>) -> Result<Option<Value>, Refusal> {
        let Some(applied) = self.applied().filter(|_| call.ask.subresource.is_empty()) else { return Ok(None) };
        if meta(applied, "name").is_empty() {
            return Err(nameless(call));
        }
        let mut object = applied.clone();
        remove(&mut object["metadata"], "resourceVersion");
        body::decode(call, object).map(Some)
    }

    /// The object that it makes of the one that is there.
    pub(crate) fn made(&self, call: &Call<'_>, options: &Options, old: &Value) -> Result<Value, Refusal> {
        let new = match self {
            Self::Update(object) => return Ok(object.clone()),
            Self::Merge(patch) => {
                let mut new = old.clone();
                json_patch::merge(&mut new, patch);
                new
            }
            Self::Json(patch, _) => {
                let mut new = old.clone();
                for step in &patch.0 {
                    let step = lenient(step, &new);
                    json_patch::patch(&mut new, &[step]).map_err(|_| not_applied())?;
                }
                new
            }
            Self::Strategic(patch) => strategic::merged(call.resource, old, patch),
            Self::Apply(object) => managed::applied(call, options, object, old)?,
        };
        let name = meta(&new, "name");
        if name != call.ask.name {
            return Err(other_name(call, name));
        }
        let shown = new.to_string();
        body::decode(call, new).map_err(|refusal| undecoded(refusal, &shown))
    }

    /// An object's uid is for good.
    pub(crate) fn keeps_uid(&self, call: &Call<'_>, new: &Value, old: &Value) -> Result<(), Refusal> {
        let (asked, is) = (meta(new, "uid"), meta(old, "uid"));
        if asked == is {
            return Ok(());
        }
        let (resource, name) = (call.resource, &call.ask.name);
        if !matches!(self, Self::Update(_)) {
            let cause = Cause::invalid("metadata.uid", &asked.into(), "field is immutable");
            return Err(Refusal::invalid(resource, name, &[cause]));
        }
        let path: Vec<&str> = [resource.plural, call.within().unwrap_or_default(), name.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {asked}, UID in object meta: {is}",
            path.join("/")
        );
        Err(Refusal::conflict(resource, name, &why))
    }
}

/// The real one takes the replacement of a field that is not there for its addition.
fn lenient(step: &PatchOperation, object: &Value) -> PatchOperation {
    match step {
        PatchOperation::Replace(replace) if object.pointer(replace.path.as_str()).is_none() => {
            PatchOperation::Add(AddOperation { path: replace.path.clone(), value: replace.value.clone() })
        }
        step => step.clone(),
    }
}

fn parsed(call: &Call<'_>) -> Result<Value, Refusal> {
    serde_json::from_slice(&call.request.body).map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        Refusal::bad_request(format!("error decoding patch: {why}"))
    })
}

fn map(call: &Call<'_>) -> Result<Value, Refusal> {
    let patch = parsed(call)?;
    if patch.is_object() {
        return Ok(patch);
    }
    Err(not_decoded(&format!("{} into Go value of type map[string]interface {{}}", go(&patch))))
}

fn not_decoded(why: &str) -> Refusal {
    Refusal::bad_request(format!("error decoding patch: json: cannot unmarshal {why}"))
}

/// A kind of JSON, as Go calls it.
pub(super) fn go(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn not_applied() -> Refusal {
    let message = "the server rejected our request due to an error in our request";
    Refusal::new(422, "Invalid", message, Some(json!({})))
}

/// Of what a patch makes, other words are used than of what is sent as it is.
fn undecoded(refusal: Refusal, shown: &str) -> Refusal {
    let text = refusal.status["message"].as_str().unwrap_or_default();
    match text.split_once(": ") {
        Some((start, why)) if start.contains(" cannot be handled as a ") => {
            Refusal::invalid_of("", "", "", &[Cause::invalid("patch", &shown.into(), why)])
        }
        _ => refusal,
    }
}

fn nameless(call: &Call<'_>) -> Refusal {
    let name = &call.ask.name;
    let why = "was undeterminable: name must be provided";
    Refusal::bad_request(format!("the name of the object ({name} based on URL) {why}"))
}

fn other_name(call: &Call<'_>, name: &str) -> Refusal {
    let url = &call.ask.name;
    Refusal::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({url})"))
}

/// The object of an apply, in YAML, of which JSON is a part.
fn applied(call: &Call<'_>) -> Result<Value, Refusal> {
    if call.query("fieldManager").is_none() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Refusal::invalid_of("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let text = String::from_utf8_lossy(&call.request.body);
    let mut object: Value =
        serde_saphyr::from_str(&text).map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    let told = |field: &str| object[field].as_str().unwrap_or_default();
    if told("kind").is_empty() || told("apiVersion").is_empty() {
        let (group, version) = told("apiVersion").split_once('/').unwrap_or(("", told("apiVersion")));
        let why = format!("invalid object type: {group}/{version}, Kind={}", told("kind"));
        return Err(Refusal::bad_request(why));
    }
    if !object["metadata"]["managedFields"].is_null() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let name = meta(&object, "name");
    if !name.is_empty() && name != call.ask.name {
        return Err(other_name(call, name));
    }
    without_nulls(&mut object);
    Ok(object)
}
