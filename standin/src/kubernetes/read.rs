//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::resources::Resource;
use super::selectors::Selector;
use super::server::{Call, Core};
use super::store::{Key, TooOld};
use crate::wire::Answer;

impl Core {
    pub(crate) fn get(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let object = self.store().get(&call.key());
        let object = object.ok_or_else(|| Refusal::not_found(call.resource, &call.ask.name))?;
        Ok(call.object(200, &object))
    }

    pub(crate) fn list(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let selector = selector(call)?;
        let limit = call.query("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
        let store = self.store();
        let asked = call.query("resourceVersion").map(|version| version_number(&version)).transpose()?;
        if asked.is_some_and(|asked| asked > store.version()) {
            return Err(too_large(asked.unwrap_or_default(), store.version()));
        }
        let (version, after) = match call.query("continue") {
            Some(token) => continued(call.resource.plural, call.within(), &token)?,
            None => (store.version(), None),
        };
        let all = store.list_at(version, call.resource.plural, call.within()).map_err(|TooOld(_)| {
            Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter.",
            )
        })?;
        let rest = all.into_iter().skip_while(|(key, _)| after.as_ref().is_some_and(|after| key <= after));
        let mut rest = rest.filter(|(_, object)| selector.matches(object));
        let page: Vec<(Key, Arc<Value>)> = rest.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
        let remaining = rest.count();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if let Some((last, _)) = page.last().filter(|_| remaining > 0) {
            metadata["continue"] = token(version, last).into();
            if selector.is_empty() {
                metadata["remainingItemCount"] = remaining.into();
            }
        }
        let items = page.into_iter().map(|(_, object)| item(call.resource, &object)).collect();
        Ok(call.object(200, &list(call.resource, metadata, items)))
    }
}

/// The objects that a request selects.
pub(crate) fn selector(call: &Call<'_>) -> Result<Selector, Refusal> {
    let query = |name| call.query(name).unwrap_or_default();
    Selector::parse(call.resource, &query("labelSelector"), &query("fieldSelector")).map_err(Refusal::bad_request)
}

/// The number of a version that a client sends.
pub(crate) fn version_number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        let why = format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
        Refusal::bad_request(format!("invalid resource version: resourceVersion: {why}"))
    })
}

fn too_large(asked: u64, now: u64) -> Refusal {
    let message = format!("Timeout: Too large resource version: {asked}, current: {now}");
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    Refusal::new(504, "Timeout", message, Some(json!({"causes": [cause], "retryAfterSeconds": 1})))
}

/// Items tell their kind only where it is not the list's: in lists of custom resources.
pub(crate) fn item(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    if !resource.is_custom()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

pub(crate) fn list(resource: &Resource, metadata: Value, items: Vec<Value>) -> Value {
    let kind = format!("{}List", resource.kind);
    json!({"kind": kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items})
}

/// Where a list goes on: `encodeContinue` in `k8s.io/apiserver/pkg/storage/continue.go`.
fn token(version: u64, last: &Key) -> String {
    let start = format!("{}/{}\0", last.namespace, last.name);
    let start = start.trim_start_matches('/');
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": version, "start": start}).to_string())
}

fn continued(plural: &'static str, within: Option<&str>, token: &str) -> Result<(u64, Option<Key>), Refusal> {
    const WHAT: &str = "invalid continue token: continue key is not valid";
    let refusal = || Refusal::bad_request(WHAT);
    let json = URL_SAFE_NO_PAD.decode(token).map_err(|_| refusal())?;
    let token: Value = serde_json::from_slice(&json).map_err(|_| {
        let first = String::from_utf8_lossy(&json).chars().next().unwrap_or_default();
        Refusal::bad_request(format!("{WHAT}: invalid character '{first}' looking for beginning of value"))
    })?;
    let version = token["rv"].as_u64().ok_or_else(refusal)?;
    let start = token["start"].as_str().ok_or_else(refusal)?.trim_end_matches('\0');
    let (namespace, name) = start.split_once('/').unwrap_or((within.unwrap_or_default(), start));
    Ok((version, Some(Key { plural, namespace: namespace.to_owned(), name: name.to_owned() })))
}
