//! What Vault answers: an envelope with data, a list of errors, or nothing.

use serde_json::{Value, json};

use super::asked::Operation;
use super::moment::Moment;
use crate::wire::{self, Answer};

/// A refusal in Vault's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) errors: Vec<String>,
}

impl Refusal {
    pub(super) fn new(status: u16, error: impl Into<String>) -> Self {
        Self { status, errors: vec![error.into()] }
    }

    /// One that gives no reason.
    pub(super) fn silent(status: u16) -> Self {
        Self { status, errors: Vec::new() }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(400, error)
    }

    /// As Vault lists several errors, or one that it found in several places.
    pub(super) fn listed(status: u16, errors: &[&str]) -> Self {
        let plural = if errors.len() == 1 { "" } else { "s" };
        let lines: String = errors.iter().map(|error| format!("\t* {error}\n")).collect();
        Self::new(status, format!("{} error{plural} occurred:\n{lines}\n", errors.len()))
    }

    /// A field that is wrong, where all are looked at before anything is done.
    pub(super) fn in_validation(self) -> Self {
        let errors = self.errors.iter().map(|error| format!("Field validation failed: {error}")).collect();
        Self { errors, ..self }
    }

    /// The token's policies do not grant it.
    pub(super) fn denied() -> Self {
        Self::listed(403, &["permission denied"])
    }

    pub(super) fn sealed() -> Self {
        Self::new(503, "Vault is sealed")
    }

    pub(super) fn no_route(path: &str) -> Self {
        Self::new(404, format!("no handler for route {path:?}. route entry not found."))
    }

    pub(super) fn unsupported_path() -> Self {
        Self::listed(404, &["unsupported path"])
    }

    pub(super) fn unsupported_operation() -> Self {
        Self::listed(405, &["unsupported operation"])
    }
}

/// What a mount answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// There is nothing to be said: not found, or done.
    Nothing,
    Data(Value),
    /// Data, and the same beside the envelope, as old paths answer.
    Injected(Value),
    /// Nothing but warnings.
    Warned(Vec<String>),
    /// Data, perhaps none, and warnings, perhaps none.
    Told(Value, Vec<String>),
    /// Certificates in PEM, as they are.
    Pem(String),
    /// This, with a 404.
    Gone(Value),
    /// A 404 without a body.
    Absent,
    /// A warning, with a 404.
    Astray(String),
    /// What a login or a new token gives.
    Auth(Value, Vec<String>),
    /// A lease on data that need not be renewed.
    Leased(Value, i64),
}

impl Said {
    pub(super) fn keys(keys: Vec<String>) -> Self {
        if keys.is_empty() { Self::Nothing } else { Self::Data(json!({ "keys": keys })) }
    }
}

/// An answer but for its headers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Without: an empty body.
    pub(super) body: Option<Value>,
}

impl Reply {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, body: Some(body) }
    }

    pub(super) fn done() -> Self {
        Self { status: 204, body: None }
    }

    /// The answer to an operation when a mount of this kind said that.
    pub(super) fn to(moment: &Moment, kind: &str, operation: Operation, said: Said) -> Self {
        let envelope = |status, kind, data| Self::envelope(moment, status, kind, data, &[], None);
        match said {
            Said::Nothing if matches!(operation, Operation::Read | Operation::List) => Refusal::silent(404).into(),
            Said::Nothing => Self::done(),
            Said::Absent => Self { status: 404, body: None },
            Said::Data(data) => envelope(200, kind, data),
            Said::Gone(data) => envelope(404, "", data),
            Said::Astray(warning) => Self::envelope(moment, 404, "", Value::Null, &[warning], None),
            Said::Warned(warnings) => Self::envelope(moment, 200, kind, Value::Null, &warnings, None),
            Said::Told(data, warnings) => Self::envelope(moment, 200, kind, data, &warnings, None),
            Said::Pem(pem) => Self::json(200, Value::String(pem)),
            Said::Auth(auth, warnings) => Self::envelope(moment, 200, kind, Value::Null, &warnings, Some(auth)),
            Said::Injected(data) => {
                let beside = data.as_object().cloned().unwrap_or_default();
                let mut reply = envelope(200, kind, data);
                if let Some(Value::Object(body)) = &mut reply.body {
                    body.extend(beside.into_iter().filter(|(name, _)| name != "data"));
                }
                reply
            }
            Said::Leased(data, seconds) => {
                let mut reply = envelope(200, kind, data);
                if let Some(body) = &mut reply.body {
                    body["lease_duration"] = seconds.into();
                }
                reply
            }
        }
    }

    /// What every answer with data comes in.
    pub(super) fn envelope(
        moment: &Moment,
        status: u16,
        kind: &str,
        data: Value,
        warnings: &[String],
        auth: Option<Value>,
    ) -> Self {
        let warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
        let body = json!({
            "request_id": moment.request_id(),
            "lease_id": "",
            "renewable": false,
            "lease_duration": 0,
            "data": data,
            "wrap_info": null,
            "warnings": warnings,
            "auth": auth,
            "mount_type": kind,
        });
        Self::json(status, body)
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = match self.body {
            // No answer of Vault's in JSON is a text alone.
            Some(Value::String(pem)) => wire::text(self.status, "application/pem-certificate-chain", pem),
            Some(body) => wire::text(self.status, "application/json", format!("{body}\n")),
            None => wire::empty(self.status),
        };
        answer.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        answer
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::json(refusal.status, json!({ "errors": refusal.errors }))
    }
}
