//! What an update, a patch or an apply makes of an object.

use http::header;
use serde_json::Value;

use super::object::{meta, set_meta};
use super::options::Options;
use super::refusal::Refusal;
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
        let parsed = || -> Result<Value, Refusal> {
            serde_json::from_slice(&call.request.body)
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))
        };
        match kind {
            "application/merge-patch+json" => Ok(Self::Merge(parsed()?)),
            "application/json-patch+json" => {
                let value = parsed()?;
                let pins = value.as_array().is_some_and(|steps| {
                    steps.iter().any(|step| step["path"] == "/metadata/resourceVersion" && step["op"] != "test")
                });
                let patch = serde_json::from_value(value)
                    .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
                Ok(Self::Json(patch, pins))
            }
            "application/strategic-merge-patch+json" if !call.resource.is_custom() => Ok(Self::Strategic(parsed()?)),
            "application/apply-patch+yaml" => Ok(Self::Apply(applied(call)?)),
            _ => Err(Refusal::media_type()),
        }
    }

    fn update(call: &Call<'_>) -> Result<Self, Refusal> {
        let mut object = body::object(call)?;
        let name = meta(&object, "name").to_owned();
        if name.is_empty() {
            set_meta(&mut object, "name", call.ask.name.clone());
        } else if name != call.ask.name {
            let url = &call.ask.name;
            let message = format!("the name of the object ({name}) does not match the name on the URL ({url})");
            return Err(Refusal::bad_request(message));
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

    /// The object that it makes where there is none.
    pub(crate) fn creates(&self, call: &Call<'_>) -> Result<Option<Value>, Refusal> {
        match self {
            Self::Apply(object) if call.ask.subresource.is_empty() => {
                if !meta(object, "resourceVersion").is_empty() {
                    return Err(Refusal::not_found(call.resource, &call.ask.name));
                }
                body::decode(call, object.clone()).map(Some)
            }
            _ => Ok(None),
        }
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
                json_patch::patch(&mut new, patch)
                    .map_err(|error| Refusal::new(422, "Invalid", format!("{error}"), None))?;
                new
            }
            Self::Strategic(patch) => strategic::merged(old, patch),
            Self::Apply(object) => managed::applied(call, options, object, old)?,
        };
        body::decode(call, new)
    }
}

/// The object of an apply, in YAML, of which JSON is a part.
fn applied(call: &Call<'_>) -> Result<Value, Refusal> {
    if call.query("fieldManager").is_none() {
        return Err(Refusal::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let text = String::from_utf8_lossy(&call.request.body);
    let mut object: Value =
        serde_saphyr::from_str(&text).map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    set_meta(&mut object, "name", call.ask.name.clone());
    Ok(object)
}
