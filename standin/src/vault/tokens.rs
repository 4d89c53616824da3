//! Tokens, and what is asked of them at `auth/token/`.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::asked::{Asked, Operation};
use super::kv::Actor;
use super::moment::{Moment, timestamp};
use super::policies::Policies;
use super::reply::{Refusal, Said};

/// How long a token lives at most, and by default, in seconds: 32 days.
pub(super) const TTL_MAX: i64 = 768 * 3600;

/// A token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) id: String,
    accessor: String,
    pub(super) policies: Vec<String>,
    /// Where it was made.
    path: String,
    metadata: Option<Map<String, Value>>,
    display_name: String,
    /// It ends with this one.
    parent: Option<String>,
    created: Timestamp,
    /// Zero: without end.
    ttl: i64,
    entity_id: String,
}

/// What a new token is to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) policies: Vec<String>,
    pub(super) path: String,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) display_name: String,
    pub(super) parent: Option<String>,
    pub(super) ttl: i64,
    pub(super) entity_id: String,
}

impl Token {
    fn new(moment: &Moment, wanted: Wanted) -> Self {
        let Wanted { policies, path, metadata, display_name, parent, ttl, entity_id } = wanted;
        Self {
            id: moment.token(),
            accessor: moment.accessor().to_owned(),
            policies,
            path,
            metadata,
            display_name,
            parent,
            created: moment.now,
            ttl,
            entity_id,
        }
    }

    /// As the metadata of a secret name whoever has it.
    pub(super) fn actor(&self) -> Actor {
        let Self { display_name, entity_id, accessor, .. } = self;
        let client_id = if entity_id.is_empty() { accessor } else { entity_id };
        Actor { name: display_name.clone(), client_id: client_id.clone(), entity_id: entity_id.clone() }
    }

    fn expires(&self) -> Option<Timestamp> {
        (self.ttl > 0)
            .then(|| self.created.saturating_add(SignedDuration::from_secs(self.ttl)).unwrap_or(Timestamp::MAX))
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        self.expires().is_none_or(|expires| expires > now)
    }

    /// As an answer gives it away.
    fn auth(&self) -> Value {
        json!({
            "accessor": self.accessor,
            "client_token": self.id,
            "entity_id": self.entity_id,
            "lease_duration": self.ttl,
            "metadata": self.metadata,
            "mfa_requirement": null,
            "num_uses": 0,
            "orphan": self.parent.is_none(),
            "policies": self.policies,
            "renewable": self.ttl > 0,
            "token_policies": self.policies,
            "token_type": "service",
        })
    }

    fn show(&self, now: Timestamp) -> Value {
        let mut shown = json!({
            "accessor": self.accessor,
            "creation_time": self.created.as_second(),
            "creation_ttl": self.ttl,
            "display_name": self.display_name,
            "entity_id": self.entity_id,
            "expire_time": null,
            "explicit_max_ttl": 0,
            "id": self.id,
            "meta": self.metadata,
            "num_uses": 0,
            "orphan": self.parent.is_none(),
            "path": self.path,
            "policies": self.policies,
            "ttl": 0,
            "type": "service",
        });
        if let Some(expires) = self.expires() {
            shown["expire_time"] = timestamp(expires).into();
            shown["issue_time"] = timestamp(self.created).into();
            shown["renewable"] = true.into();
            // The real one rounds to whole seconds.
            let left = expires.duration_since(now).as_millis();
            shown["ttl"] = json!((left + 500) / 1000);
        }
        shown
    }
}

/// All tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// The one with all rights and no end.
    pub(super) fn with_root(moment: &Moment, id: &str) -> Self {
        let wanted = Wanted {
            policies: vec!["root".to_owned()],
            path: "auth/token/root".to_owned(),
            display_name: "root".to_owned(),
            ..Wanted::default()
        };
        Self([(id.to_owned(), Token { id: id.to_owned(), ..Token::new(moment, wanted) })].into())
    }

    /// The token with this id, if it is still good.
    pub(super) fn find(&self, now: Timestamp, id: &str) -> Option<&Token> {
        self.0.get(id).filter(|token| token.is_alive(now))
    }

    /// Makes a token, and returns the answer that gives it away.
    pub(super) fn make(&mut self, moment: &Moment, wanted: Wanted) -> Value {
        let token = Token::new(moment, wanted);
        let auth = token.auth();
        self.0.insert(token.id.clone(), token);
        auth
    }

    /// Ends all that were made at paths with this prefix.
    pub(super) fn revoke_prefix(&mut self, prefix: &str) {
        self.0.retain(|_, token| !token.path.starts_with(prefix));
    }

    /// Ends a token and its children.
    fn revoke(&mut self, id: &str) {
        self.0.remove(id);
        let children = self.0.values().filter(|token| token.parent.as_deref() == Some(id));
        for child in children.map(|token| token.id.clone()).collect::<Vec<_>>() {
            self.revoke(&child);
        }
    }

    /// What is below `auth/token/`.
    pub(super) fn handle(&mut self, moment: &Moment, asked: &Asked, policies: &Policies) -> Result<Said, Refusal> {
        match (asked.path.as_str(), asked.operation) {
            ("lookup-self", Operation::Read | Operation::Update) => {
                Ok(self.0.get(&asked.token).map_or(Said::Nothing, |token| Said::Data(token.show(moment.now))))
            }
            ("create", Operation::Update) => self.create(moment, asked, policies),
            ("revoke-self", Operation::Update) => {
                self.revoke(&asked.token);
                Ok(Said::Nothing)
            }
            ("lookup-self" | "create" | "revoke-self", _) => Err(Refusal::unsupported_operation()),
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn create(&mut self, moment: &Moment, asked: &Asked, policies: &Policies) -> Result<Said, Refusal> {
        let parent = self.0.get(&asked.token).ok_or_else(Refusal::denied)?;
        let is_root = parent.policies.iter().any(|name| name == "root");
        let wanted = sanitised(asked.strings("policies")?.unwrap_or_default());
        let mut warnings = Vec::new();
        let ttl = ttl(asked, &mut warnings)?;
        let granted = if wanted.is_empty() { parent.policies.clone() } else { wanted };
        if !is_root && !granted.iter().all(|name| parent.policies.contains(name)) {
            return Err(Refusal::bad("child policies must be subset of parent"));
        }
        let no_default = asked.flag("no_default_policy")?.unwrap_or_default();
        let granted = if no_default { granted } else { with_default(granted) };
        let missing = granted.iter().filter(|name| !policies.has(name));
        warnings.extend(missing.map(|name| format!("Policy {name:?} does not exist")));
        let is_endless = granted == ["root"] && ttl.is_none();
        let wanted = Wanted {
            policies: granted,
            path: "auth/token/create".to_owned(),
            display_name: "token".to_owned(),
            parent: Some(asked.token.clone()),
            ttl: if is_endless { 0 } else { ttl.unwrap_or(TTL_MAX) },
            ..Wanted::default()
        };
        Ok(Said::Auth(self.make(moment, wanted), warnings))
    }
}

/// The time that is asked for, as far as it is granted.
fn ttl(asked: &Asked, warnings: &mut Vec<String>) -> Result<Option<i64>, Refusal> {
    let given = asked.text("ttl");
    let invalid = |_| Refusal::bad(format!("time: invalid duration {given:?}"));
    let ttl = asked.seconds("ttl").map_err(invalid)?.filter(|ttl| *ttl > 0);
    if ttl.is_some_and(|ttl| ttl > TTL_MAX) {
        warnings.push(format!(
            "TTL of {given:?} exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly"
        ));
    }
    Ok(ttl.map(|ttl| ttl.min(TTL_MAX)))
}

/// Policies as Vault keeps them: in lower case, sorted, each once, and nothing beside root.
pub(super) fn sanitised(names: Vec<String>) -> Vec<String> {
    let mut names: Vec<_> =
        names.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.iter().any(|name| name == "root") { vec!["root".to_owned()] } else { names }
}

pub(super) fn with_default(names: Vec<String>) -> Vec<String> {
    if names == ["root"] {
        return names;
    }
    sanitised(names.into_iter().chain(["default".to_owned()]).collect())
}

#[cfg(test)]
mod tests {
    use super::super::moment;
    use super::*;

    fn with_ttl(ttl: i64) -> (Tokens, String) {
        let mut tokens = Tokens::default();
        let made = tokens.make(&moment::some(0), Wanted { ttl, ..Wanted::default() });
        (tokens, made["client_token"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_token_ends_with_its_time() {
        let (tokens, id) = with_ttl(10);
        assert!(tokens.find(moment::some(9).now, &id).is_some());
        assert!(tokens.find(moment::some(10).now, &id).is_none());
        let (tokens, id) = with_ttl(0);
        assert!(tokens.find(moment::some(1 << 30).now, &id).is_some(), "one without end");
    }

    #[test]
    fn a_token_ends_with_its_parent() {
        let (mut tokens, parent) = with_ttl(0);
        let child = tokens.make(&moment::some(1), Wanted { parent: Some(parent.clone()), ..Wanted::default() });
        let child = child["client_token"].as_str().unwrap_or_default();
        assert!(child != parent && tokens.find(moment::some(2).now, child).is_some());
        tokens.revoke(&parent);
        assert!(tokens.find(moment::some(2).now, child).is_none());
    }

    #[test]
    fn policies_are_kept_in_order_and_root_stands_alone() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(with_default(names(&["P2", "a", "p2", ""])), ["a", "default", "p2"]);
        assert_eq!(with_default(names(&["root"])), ["root"]);
        assert_eq!(sanitised(names(&["x", "root"])), ["root"]);
    }
}
