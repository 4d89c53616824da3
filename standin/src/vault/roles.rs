//! What the roles of both auth methods have in common: the tokens that they give.

use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::reply::Refusal;
use super::tokens::{TTL_MAX, sanitised, with_default};

/// The fields of a role about its tokens. Each may be set by an older name, too, which is then shown as well.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenFields {
    policies: Vec<String>,
    ttl: i64,
    max_ttl: i64,
    no_default_policy: bool,
    by_old_name: Vec<&'static str>,
}

impl TokenFields {
    /// Changes what the request sets.
    pub(super) fn change(&mut self, asked: &Asked) -> Result<(), Refusal> {
        if let Some(policies) = self.strings(asked, "token_policies", "policies")? {
            self.policies = policies;
        }
        if let Some(ttl) = self.seconds(asked, "token_ttl", "ttl")? {
            self.ttl = ttl;
        }
        if let Some(max_ttl) = self.seconds(asked, "token_max_ttl", "max_ttl")? {
            self.max_ttl = max_ttl;
        }
        if let Some(no_default) = asked.flag("token_no_default_policy")? {
            self.no_default_policy = no_default;
        }
        if self.max_ttl > 0 && self.ttl > self.max_ttl {
            return Err(Refusal::bad("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        Ok(())
    }

    fn strings(&mut self, asked: &Asked, name: &str, old_name: &'static str) -> Result<Option<Vec<String>>, Refusal> {
        self.note(asked, name, old_name);
        match asked.strings(name)? {
            None => Ok(asked.strings(old_name)?.map(sanitised)),
            given => Ok(given),
        }
    }

    fn seconds(&mut self, asked: &Asked, name: &str, old_name: &'static str) -> Result<Option<i64>, Refusal> {
        self.note(asked, name, old_name);
        match asked.seconds(name)? {
            None => asked.seconds(old_name),
            given => Ok(given),
        }
    }

    /// Which name a field has from now on.
    fn note(&mut self, asked: &Asked, name: &str, old_name: &'static str) {
        let by_old_name = asked.get(old_name).is_some();
        if by_old_name || asked.get(name).is_some() {
            self.by_old_name.retain(|other| *other != old_name);
        }
        if by_old_name {
            self.by_old_name.push(old_name);
        }
    }

    /// Adds the fields as a read of the role shows them.
    pub(super) fn show(&self, shown: &mut Map<String, Value>) {
        let fields = [
            ("token_bound_cidrs", json!([])),
            ("token_explicit_max_ttl", json!(0)),
            ("token_max_ttl", json!(self.max_ttl)),
            ("token_no_default_policy", json!(self.no_default_policy)),
            ("token_num_uses", json!(0)),
            ("token_period", json!(0)),
            ("token_policies", json!(self.policies)),
            ("token_ttl", json!(self.ttl)),
            ("token_type", json!("default")),
        ];
        let old = self.by_old_name.iter().filter_map(|old| {
            let (_, value) = fields.iter().find(|(name, _)| name.strip_prefix("token_") == Some(old))?;
            Some(((*old).to_owned(), value.clone()))
        });
        shown.extend(old.collect::<Vec<_>>());
        shown.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }

    /// The policies of a token.
    pub(super) fn policies(&self) -> Vec<String> {
        let policies = sanitised(self.policies.clone());
        if self.no_default_policy { policies } else { with_default(policies) }
    }

    /// How long a token lives.
    pub(super) fn ttl(&self) -> i64 {
        let max = if self.max_ttl > 0 { self.max_ttl.min(TTL_MAX) } else { TTL_MAX };
        if self.ttl > 0 { self.ttl.min(max) } else { max }
    }
}

/// A login that succeeded.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    /// Whom the auth method knows it as: one identity, however often it logs in.
    pub(super) alias: String,
    pub(super) display_name: String,
    pub(super) metadata: Map<String, Value>,
    pub(super) token: TokenFields,
}

/// Fields as text.
pub(super) fn texts<const N: usize>(fields: [(&str, &str); N]) -> Map<String, Value> {
    fields.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect()
}
