//! What a rule says of the parameters of a request: those that it must have, and the values that they may have. Vault's
//! documentation, "Policies", *Parameter constraints*.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields;

/// The constraints of one stanza, or of all for one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    required: Vec<String>,
    /// Without any, all are allowed; a name without values may have any.
    allowed: BTreeMap<String, Vec<Value>>,
    denied: BTreeMap<String, Vec<Value>>,
}

impl Limits {
    /// What a stanza calls them.
    pub(super) const KEYS: [&'static str; 3] = ["allowed_parameters", "denied_parameters", "required_parameters"];

    /// Reads those of a stanza. The error is the parser's, not the real one's.
    pub(super) fn of(stanza: &Map<String, Value>) -> Result<Self, String> {
        let values = |key: &str| {
            let names = stanza.get(key).map(|names| names.as_object().ok_or(format!("{key}: not an object")));
            let names = names.transpose()?.into_iter().flatten();
            let values = |(name, values): (&String, &Value)| {
                let values = values.as_array().ok_or(format!("{key}: not a list"))?;
                Ok((name.to_lowercase(), values.clone()))
            };
            names.map(values).collect::<Result<_, String>>()
        };
        let required = stanza.get("required_parameters").map(|names| {
            let names = names.as_array().and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            names.ok_or("required_parameters: not a list of strings")
        });
        let required = required.transpose()?.unwrap_or_default();
        Ok(Self {
            required: required.into_iter().map(str::to_lowercase).collect(),
            allowed: values("allowed_parameters")?,
            denied: values("denied_parameters")?,
        })
    }

    /// Adds those of another stanza for the same path.
    pub(super) fn add(&mut self, other: &Self) {
        self.required.extend(other.required.iter().cloned());
        for (sum, of_other) in [(&mut self.allowed, &other.allowed), (&mut self.denied, &other.denied)] {
            for (name, values) in of_other {
                match sum.get_mut(name) {
                    None => drop(sum.insert(name.clone(), values.clone())),
                    // Any value outweighs a list of them.
                    Some(known) if known.is_empty() || values.is_empty() => known.clear(),
                    Some(known) => known.extend(values.iter().cloned()),
                }
            }
        }
    }

    /// Whether a request may be made with these parameters.
    pub(super) fn allow(&self, data: &Map<String, Value>) -> bool {
        if self.required.iter().any(|name| !data.contains_key(name)) {
            return false;
        }
        let is_denied = |(name, value): (&String, &Value)| {
            self.denied
                .get(&name.to_lowercase())
                .is_some_and(|values| values.is_empty() || is_among(value, values, true))
        };
        let is_allowed = |(name, value): (&String, &Value)| {
            self.allowed
                .get(&name.to_lowercase())
                .is_some_and(|values| values.is_empty() || is_among(value, values, false))
        };
        !data.iter().any(is_denied) && (self.allowed.is_empty() || data.iter().all(is_allowed))
    }
}

/// Whether a value, or what it is a list of, is among these. Every text is taken for a list with commas, also where the
/// parameter is none, so that an empty one has no part that is not among them.
fn is_among(value: &Value, values: &[Value], any_part: bool) -> bool {
    let is_one = |value: &Value| values.contains(value);
    let parts: Vec<Value> = match value {
        _ if is_one(value) => return true,
        Value::Array(parts) => parts.clone(),
        Value::String(_) => fields::strings(value).unwrap_or_default().into_iter().map(Value::from).collect(),
        _ => return false,
    };
    if any_part { parts.iter().any(is_one) } else { parts.iter().all(is_one) }
}
