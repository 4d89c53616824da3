//! Policies: named sets of rules in HCL or JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::acl::{Acl, Capabilities, Rule};
use super::asked::{Asked, Operation};
use super::limits::Limits;
use super::reply::{Refusal, Said};

/// What every token may do that was not made without it. The real one has more, on paths that are not here.
const DEFAULT: &str = r#"path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "sys/capabilities-self" {
  capabilities = ["update"]
}
"#;

#[derive(Clone, Debug)]
struct Policy {
    text: String,
    rules: Vec<Rule>,
}

/// All policies but root's.
#[derive(Clone, Debug)]
pub(super) struct Policies(BTreeMap<String, Policy>);

impl Policies {
    pub(super) fn new() -> Self {
        let rules = parse(DEFAULT).unwrap_or_default();
        Self([("default".to_owned(), Policy { text: DEFAULT.to_owned(), rules })].into())
    }

    /// The rights that these policies add up to. A name without a policy adds none.
    pub(super) fn acl(&self, names: &[String]) -> Acl {
        if names.iter().any(|name| name == "root") {
            return Acl::root();
        }
        Acl::new(names.iter().filter_map(|name| self.0.get(name)).flat_map(|policy| &policy.rules))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        name == "root" || self.0.contains_key(name)
    }

    /// `sys/policies/acl/<name>`.
    pub(super) fn handle(&mut self, asked: &Asked, given_name: &str) -> Result<Said, Refusal> {
        let name = given_name.to_lowercase();
        match (asked.operation, name.as_str()) {
            (Operation::List, "") => Ok(Said::keys(self.0.keys().cloned().chain(["root".to_owned()]).collect())),
            (_, "") => Err(Refusal::unsupported_operation()),
            (Operation::Read, "root") => Ok(Said::Data(json!({ "name": "root", "policy": "" }))),
            (Operation::Read, name) => Ok(self
                .0
                .get(name)
                .map_or(Said::Nothing, |policy| Said::Data(json!({ "name": name, "policy": policy.text })))),
            (Operation::Create | Operation::Update, "root") => Err(Refusal::bad("cannot update \"root\" policy")),
            (Operation::Create | Operation::Update, name) => self.write(name, given_name, asked.text("policy")),
            (Operation::Delete, "root") => Err(Refusal::bad("cannot delete \"root\" policy")),
            (Operation::Delete, "default") => Err(Refusal::bad("cannot delete default policy")),
            (Operation::Delete, name) => {
                self.0.remove(name);
                Ok(Said::Nothing)
            }
            (Operation::List | Operation::Patch, _) => Err(Refusal::unsupported_operation()),
        }
    }

    fn write(&mut self, name: &str, given_name: &str, text: &str) -> Result<Said, Refusal> {
        if text.is_empty() {
            return Err(Refusal::bad("'policy' parameter not supplied or empty"));
        }
        let rules = parse(text).map_err(|error| Refusal::bad(format!("failed to parse policy: {error}")))?;
        self.0.insert(name.to_owned(), Policy { text: text.to_owned(), rules });
        let converted = format!("policy name was converted to {name}");
        Ok(if name == given_name { Said::Nothing } else { Said::Warned(vec![converted]) })
    }
}

/// Parses a policy. Of malformed HCL or JSON the error is the parser's, not the real one's.
fn parse(text: &str) -> Result<Vec<Rule>, String> {
    if text.trim_start().starts_with('{') { parse_json(text) } else { parse_hcl(text) }
}

fn parse_json(text: &str) -> Result<Vec<Rule>, String> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(unknown) = object.keys().find(|key| *key != "path") {
        return Err(unknown_key(unknown));
    }
    let paths = object.get("path").and_then(Value::as_object).into_iter().flatten();
    let stanza = |stanza: &Value| stanza.as_object().cloned().unwrap_or_default();
    paths.map(|(path, it)| rule(path, &stanza(it))).collect()
}

fn parse_hcl(text: &str) -> Result<Vec<Rule>, String> {
    let body = hcl::parse(text).map_err(|error| error.to_string())?;
    let parse = |structure| match structure {
        hcl::Structure::Block(block) if block.identifier.as_str() == "path" => {
            let path = block.labels.first().map(hcl::BlockLabel::as_str).unwrap_or_default();
            let stanza: Map<_, _> = hcl::from_body(block.body.clone()).map_err(|error| error.to_string())?;
            rule(path, &stanza)
        }
        other => Err(unknown_key(&name_of(&other))),
    };
    body.into_iter().map(parse).collect()
}

fn name_of(structure: &hcl::Structure) -> String {
    match structure {
        hcl::Structure::Attribute(attribute) => attribute.key.to_string(),
        hcl::Structure::Block(block) => block.identifier.to_string(),
    }
}

fn unknown_key(key: &str) -> String {
    format!("1 error occurred:\n\t* invalid key {key:?} on line 0\n\n")
}

fn rule(path: &str, stanza: &Map<String, Value>) -> Result<Rule, String> {
    if path.contains("+*") {
        return Err(format!("path {path:?}: invalid use of wildcards ('+*' is forbidden)"));
    }
    if let Some(unknown) = stanza.keys().find(|key| *key != "capabilities" && !Limits::KEYS.contains(&key.as_str())) {
        return Err(format!("1 error occurred:\n\t* path {path:?}: invalid key {unknown:?} on line 0\n\n"));
    }
    let names = stanza.get("capabilities").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut capabilities = Capabilities::default();
    for name in names {
        let unknown = || format!("path {path:?}: invalid capability {name:?}");
        capabilities = capabilities | Capabilities::named(name).ok_or_else(unknown)?;
    }
    let limits = Limits::of(stanza).map_err(|error| format!("path {path:?}: {error}"))?;
    Ok(Rule { path: path.trim_start_matches('/').to_owned(), capabilities, limits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, path: &str) -> Vec<&'static str> {
        Acl::new(&parse(text).unwrap_or_default()).names(path)
    }

    #[test]
    fn a_policy_is_read_as_hcl_and_as_json() {
        let hcl = "# why\npath \"secret/data/a\" {\n  capabilities = [\"create\", \"read\"]\n}\n";
        let json = r#"{"path": {"secret/data/a": {"capabilities": ["create", "read"]}}}"#;
        assert_eq!(parse(hcl), parse(json));
        assert_eq!(names(hcl, "secret/data/a"), ["create", "read"]);
    }

    #[test]
    fn the_policies_that_come_with_the_gate_grant_what_they_say() {
        let bootstrap = include_str!("../../../deploy/vault/istio-ca-bootstrap.hcl");
        let sync = include_str!("../../../deploy/vault/istio-ca-sync.hcl");
        assert_eq!(names(bootstrap, "secret/data/istio/ca"), ["create", "read"]);
        assert_eq!(names(sync, "secret/data/istio/ca"), ["read"]);
    }

    #[test]
    fn every_token_may_look_itself_up() {
        let policies = Policies::new();
        let acl = policies.acl(&["default".to_owned(), "none".to_owned()]);
        assert!(acl.names("auth/token/lookup-self") == ["read"]);
        assert!(acl.names("sys/capabilities-self") == ["update"]);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_reason() {
        let error = |text| parse(text).err().unwrap_or_default();
        assert_eq!(error("path \"a\" { capabilities=[\"fly\"] }"), "path \"a\": invalid capability \"fly\"");
        assert!(error("path \"a\" { wings=[\"fly\"] }").contains("path \"a\": invalid key \"wings\""));
        assert!(error("road \"a\" { capabilities=[\"read\"] }").contains("invalid key \"road\""));
        assert!(error("path \"a/+*\" { capabilities=[\"read\"] }").contains("'+*' is forbidden"));
        assert!(!error("path \"a\" {").is_empty() && !error("{\"path\":").is_empty());
    }
}
