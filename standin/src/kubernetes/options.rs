//! The options of a write, which come with its query.

use serde_json::{Value, json};

use super::refusal::{Cause, Refusal};
use super::server::Call;

/// How a write is to be done.
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    /// Who is to own the fields: told, or the client's name.
    pub(crate) manager: String,
    told: Option<String>,
    validation: Option<String>,
    /// What is asked of a deletion.
    deletion: Value,
}

impl Options {
    pub(crate) fn of(call: &Call<'_>) -> Result<Self, Refusal> {
        let told = call.query("fieldManager");
        let agent = call.request.header(http::header::USER_AGENT).unwrap_or_default();
        let kind = match call.ask.verb.as_str() {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        let refused = |cause| Err(Refusal::invalid_of("meta.k8s.io", kind, "", &[cause]));
        let (dry_run, validation) = (call.query("dryRun"), call.query("fieldValidation"));
        if let Some(other) = dry_run.as_ref().filter(|dry_run| *dry_run != "All") {
            return refused(Cause::unsupported("dryRun", &json!([other]), &["All"]));
        }
        let validations = ["", "Ignore", "Strict", "Warn"];
        if let Some(other) = validation.as_ref().filter(|validation| !validations.contains(&validation.as_str())) {
            return refused(Cause::unsupported("fieldValidation", &json!(other), &validations));
        }
        Ok(Self {
            dry_run: dry_run.is_some(),
            force: call.query("force").is_some_and(|force| force == "true"),
            manager: told.clone().unwrap_or_else(|| client(agent)),
            told,
            validation,
            deletion: deletion(call),
        })
    }

    /// As a webhook is told of them.
    pub(crate) fn as_sent(&self, operation: &str) -> Value {
        let kind = match operation {
            "CREATE" => "CreateOptions",
            "DELETE" => "DeleteOptions",
            _ => "UpdateOptions",
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        for (field, value) in self.deletion.as_object().into_iter().flatten() {
            options[field] = value.clone();
        }
        if let Some(manager) = &self.told {
            options["fieldManager"] = manager.clone().into();
        }
        if let Some(validation) = &self.validation {
            options["fieldValidation"] = validation.clone().into();
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }
}

/// The fields of `DeleteOptions` that say how to delete, from the body or the query; none for other requests.
fn deletion(call: &Call<'_>) -> Value {
    let mut deletion = json!({});
    if !call.ask.verb.starts_with("delete") {
        return deletion;
    }
    let sent: Value = serde_json::from_slice(&call.request.body).unwrap_or_default();
    for field in ["gracePeriodSeconds", "orphanDependents", "preconditions", "propagationPolicy"] {
        let asked = || call.query(field).map(|text| text.parse::<i64>().map_or(json!(text), Value::from));
        if let Some(value) = sent.get(field).cloned().or_else(asked) {
            deletion[field] = value;
        }
    }
    deletion
}

/// What stands before the first slash of a user agent: `prefixFromUserAgent` in
/// `k8s.io/apiserver/pkg/endpoints/handlers/create.go`.
fn client(agent: &str) -> String {
    match agent.split('/').next().unwrap_or_default() {
        "" => "unknown".to_owned(),
        name => name.chars().take(128).collect(),
    }
}
