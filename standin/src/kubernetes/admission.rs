//! Admission webhooks, as kube-apiserver asks them: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod call;
mod matching;
mod refusal;
mod review;

use futures::future::join_all;
use json_patch::Patch;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// A webhook's time where its configuration names none.
const TIMEOUT_SECONDS: u64 = 10;

/// What is asked to be admitted.
pub(crate) struct Attempt<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub(crate) operation: &'static str,
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) namespaced: bool,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) namespace_labels: Map<String, Value>,
    pub(crate) name: &'a str,
    pub(crate) object: Option<Value>,
    pub(crate) old: Option<Value>,
    /// The `userInfo`.
    pub(crate) user: Value,
    pub(crate) dry_run: bool,
    /// The CreateOptions, UpdateOptions or DeleteOptions.
    pub(crate) options: Value,
}

impl Attempt<'_> {
    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }
}

/// What was admitted: the object as the webhooks left it, and what they want the client to be told.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) object: Option<Value>,
    pub(crate) warnings: Vec<String>,
}

/// The webhook configurations as stored, and the Services that webhooks may be behind.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    pub(crate) mutating: Vec<Value>,
    pub(crate) validating: Vec<Value>,
    pub(crate) services: Vec<Value>,
}

/// Asks all webhooks that an attempt matches: the mutating ones one after the other, each about what the former left,
/// then the validating ones.
///
/// # Errors
/// The Status to answer.
pub(crate) async fn admit(webhooks: &Webhooks, mut attempt: Attempt<'_>) -> Result<Admitted, Refusal> {
    let mut warnings = Vec::new();
    for webhook in in_order(&webhooks.mutating) {
        if matching::matches(webhook, &attempt) {
            let (object, warned) = mutate(webhook, webhooks, &attempt).await?;
            attempt.object = object.or(attempt.object);
            warnings.extend(warned);
        }
    }
    let asked = in_order(&webhooks.validating).into_iter().filter(|webhook| matching::matches(webhook, &attempt));
    for answered in join_all(asked.map(|webhook| ask(webhook, webhooks, false, &attempt))).await {
        warnings.extend(answered?.into_iter().flat_map(|verdict| verdict.warnings));
    }
    Ok(Admitted { object: attempt.object, warnings: tellable(warnings) })
}

/// The webhooks of all configurations: these by name, those of each as they stand in it.
fn in_order(configurations: &[Value]) -> Vec<&Value> {
    let mut configurations: Vec<&Value> = configurations.iter().collect();
    configurations.sort_by_key(|configuration| configuration["metadata"]["name"].as_str());
    configurations.into_iter().filter_map(|configuration| configuration["webhooks"].as_array()).flatten().collect()
}

/// A warning is told once, and only if a header can carry it.
fn tellable(warnings: Vec<String>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for warning in warnings {
        if !warning.is_empty() && !warning.chars().any(char::is_control) && !told.contains(&warning) {
            told.push(warning);
        }
    }
    told
}

/// What a webhook makes of the object, if it changes it.
async fn mutate(
    webhook: &Value,
    webhooks: &Webhooks,
    attempt: &Attempt<'_>,
) -> Result<(Option<Value>, Vec<String>), Refusal> {
    let Some(verdict) = ask(webhook, webhooks, true, attempt).await? else { return Ok((None, Vec::new())) };
    if verdict.patch.is_empty() {
        return Ok((None, verdict.warnings));
    }
    match patched(&verdict, attempt) {
        Ok(object) => Ok((object, verdict.warnings)),
        Err(Unpatched::Answer(why)) if fails(webhook) => Err(refusal::uncalled(name(webhook), &why)),
        Err(Unpatched::Answer(_)) => Ok((None, verdict.warnings)),
        Err(Unpatched::Object(why)) => Err(refusal::internal(&why)),
        Err(Unpatched::NoObject) => Err(refusal::internal(&format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            name(webhook)
        ))),
    }
}

/// Why a patch was not applied.
#[derive(Debug, PartialEq)]
enum Unpatched {
    /// The answer is wrong, so that the call counts as failed.
    Answer(String),
    /// It does not fit the object.
    Object(String),
    NoObject,
}

fn patched(verdict: &review::Verdict, attempt: &Attempt<'_>) -> Result<Option<Value>, Unpatched> {
    let undecodable = |why: &str| Unpatched::Answer(format!("received undecodable patch in webhook response: {why}"));
    let operations: Value = serde_json::from_slice(&verdict.patch).map_err(|error| undecodable(&error.to_string()))?;
    let Some(operations) = operations.as_array() else {
        return Err(undecodable("json: cannot unmarshal object into Go value of type jsonpatch.Patch"));
    };
    if operations.is_empty() {
        return Ok(None);
    }
    let mut object = attempt.object.clone().ok_or(Unpatched::NoObject)?;
    if verdict.patch_type != "JSONPatch" {
        return Err(Unpatched::Answer(format!("unsupported patch type {:?}", verdict.patch_type)));
    }
    let known = ["add", "remove", "replace", "move", "copy", "test"];
    let op = |operation: &Value| operation["op"].as_str().unwrap_or_default().to_owned();
    if let Some(unknown) = operations.iter().map(op).find(|op| !known.contains(&op.as_str())) {
        return Err(Unpatched::Object(format!("Unexpected kind: {unknown}")));
    }
    let patch: Patch = serde_json::from_slice(&verdict.patch).map_err(|error| undecodable(&error.to_string()))?;
    json_patch::patch(&mut object, &patch)
        .map_err(|error| Unpatched::Object(refusal::inapplicable(&operations[error.operation])))?;
    Ok(Some(object))
}

/// Asks a webhook. None: the call failed, and the webhook's failures do not count.
async fn ask(
    webhook: &Value,
    webhooks: &Webhooks,
    mutating: bool,
    attempt: &Attempt<'_>,
) -> Result<Option<review::Verdict>, Refusal> {
    let name = name(webhook);
    if webhook["matchConditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
        return Err(refusal::uncalled(name, "matchConditions cannot be evaluated here"));
    }
    if attempt.dry_run && !matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        return Err(refusal::dry_run_unsupported(name));
    }
    let uid = super::uid()?;
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
    let posted =
        call::post(&webhook["clientConfig"], &webhooks.services, seconds, &review::review(&uid, attempt)).await;
    match posted.and_then(|body| review::verdict(&uid, mutating, &body)) {
        Ok(verdict) if verdict.allowed => Ok(Some(verdict)),
        Ok(verdict) => Err(Refusal { warnings: tellable(verdict.warnings), ..refusal::denied(name, &verdict.status) }),
        Err(why) if fails(webhook) => Err(refusal::uncalled(name, &why)),
        Err(_) => Ok(None),
    }
}

fn name(webhook: &Value) -> &str {
    webhook["name"].as_str().unwrap_or_default()
}

/// Whether a failed call counts as a refusal.
fn fails(webhook: &Value) -> bool {
    webhook["failurePolicy"] != "Ignore"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attempt(dry_run: bool) -> Attempt<'static> {
        Attempt {
            operation: "CREATE",
            group: "",
            version: "v1",
            plural: "pods",
            kind: "Pod",
            namespaced: true,
            subresource: None,
            namespace: Some("ns"),
            namespace_labels: Map::new(),
            name: "p",
            object: Some(json!({})),
            old: None,
            user: Value::Null,
            dry_run,
            options: Value::Null,
        }
    }

    fn webhooks(differs: &Value) -> Webhooks {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]});
        let mut webhook = json!({"name": "w", "rules": [rule], "sideEffects": "None", "failurePolicy": "Ignore"});
        for (field, value) in differs.as_object().into_iter().flatten() {
            webhook[field] = value.clone();
        }
        Webhooks { validating: vec![json!({"webhooks": [webhook]})], ..Webhooks::default() }
    }

    async fn refused(differs: Value, dry_run: bool) -> Option<Value> {
        admit(&webhooks(&differs), attempt(dry_run)).await.err().map(|refusal| refusal.status["message"].clone())
    }

    #[tokio::test]
    async fn conditions_that_cannot_be_evaluated_refuse_whatever_the_failure_policy() {
        let conditions = json!({"matchConditions": [{"name": "c", "expression": "true"}]});
        let text = "Internal error occurred: failed calling webhook \"w\": matchConditions cannot be evaluated here";
        assert_eq!(refused(conditions, false).await, Some(json!(text)));
    }

    #[tokio::test]
    async fn a_dry_run_is_refused_where_a_webhook_has_side_effects() {
        let some = json!({"sideEffects": "Some", "clientConfig": {"service": {"name": "s", "namespace": "ns"}}});
        let text = "admission webhook \"w\" does not support dry run";
        assert_eq!(refused(some.clone(), true).await, Some(json!(text)));
        assert_eq!(refused(some, false).await, None, "it cannot be called, which is ignored");
    }
}
