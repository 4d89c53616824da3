//! The auth method `kubernetes`: the API server that a mount is configured for is asked to review each token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::claims::{self, Expected};
use super::method::{Configured, Granting, Method};
use super::reply::Refusal;
use super::review::{Review, Reviewed};
use super::roles::{Granted, TokenFields, texts};

/// A mount of this method.
pub(super) type Kubernetes = Method<Config, Role>;

#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    host: String,
    ca_pem: String,
    reviewer_jwt: String,
    disable_local_ca_jwt: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Role {
    token: TokenFields,
    names: Vec<String>,
    namespaces: Vec<String>,
    audience: String,
}

/// A login that is all right but for the review, and who the token claims to be of.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) account: Reviewed,
    role: String,
    token: TokenFields,
}

impl Kubernetes {
    /// All but the review of a login.
    pub(super) fn login(&self, now: Timestamp, asked: &Asked) -> Result<(Review, Claimed), Refusal> {
        let (name, token) = (asked.text("role"), asked.text("jwt"));
        for (field, value) in [("role", name), ("jwt", token)] {
            if value.is_empty() {
                return Err(Refusal::bad(format!("missing {field}")));
            }
        }
        let unknown = || Refusal::bad(format!("invalid role name {name:?}"));
        let role = self.roles.get(&name.to_lowercase()).ok_or_else(unknown)?;
        let no_config = || Refusal::new(500, "could not load backend configuration");
        let config = self.config.as_ref().ok_or_else(no_config)?;
        let all = parse(token).ok_or_else(denied)?;
        let account = role.account(&all, now)?;
        let audiences = match role.audience.as_str() {
            "" => claims::audiences(&all).into_iter().map(str::to_owned).collect(),
            audience => vec![audience.to_owned()],
        };
        let bearer = if config.reviewer_jwt.is_empty() { token } else { &config.reviewer_jwt };
        let review = Review {
            host: config.host.clone(),
            ca_pem: config.ca_pem.clone(),
            bearer: bearer.to_owned(),
            token: token.to_owned(),
            audiences,
        };
        Ok((review, Claimed { account, role: name.to_owned(), token: role.token.clone() }))
    }
}

impl Claimed {
    /// What the review has to confirm.
    pub(super) fn confirmed(self, reviewed: Option<&Reviewed>) -> Result<Granted, Refusal> {
        if reviewed != Some(&self.account) {
            return Err(denied());
        }
        let Reviewed { name, namespace, uid } = &self.account;
        let metadata = texts([
            ("role", &self.role),
            ("service_account_name", name),
            ("service_account_namespace", namespace),
            ("service_account_secret_name", ""),
            ("service_account_uid", uid),
        ]);
        Ok(Granted { alias: uid.clone(), display_name: format!("{namespace}-{name}"), metadata, token: self.token })
    }
}

/// Vault does not say why a review failed.
fn denied() -> Refusal {
    Refusal::new(403, "permission denied")
}

/// The claims of a token. Its signature is for the API server to verify.
fn parse(token: &str) -> Option<Map<String, Value>> {
    use Algorithm::{ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512};
    let signed_with = jsonwebtoken::decode_header(token).ok()?.alg;
    if ![RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512].contains(&signed_with) {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

impl Configured for Config {
    fn read(asked: &Asked) -> Result<Self, Refusal> {
        let field = |field: &str| asked.text(field).to_owned();
        let (host, ca_pem) = (field("kubernetes_host"), field("kubernetes_ca_cert"));
        if host.is_empty() {
            return Err(Refusal::bad("no host provided"));
        }
        if !ca_pem.is_empty() && !ca_pem.contains("-----BEGIN ") {
            return Err(Refusal::bad("The provided CA PEM data contains no valid certificates"));
        }
        let disable_local_ca_jwt = asked.flag("disable_local_ca_jwt")?.unwrap_or_default();
        Ok(Self { host, ca_pem, reviewer_jwt: field("token_reviewer_jwt"), disable_local_ca_jwt })
    }

    fn show(&self) -> Value {
        json!({
            "disable_iss_validation": true,
            "disable_local_ca_jwt": self.disable_local_ca_jwt,
            "issuer": "",
            "kubernetes_ca_cert": self.ca_pem,
            "kubernetes_host": self.host,
            "pem_keys": [],
            "token_reviewer_jwt_set": !self.reviewer_jwt.is_empty(),
            "use_annotations_as_alias_metadata": false,
        })
    }
}

impl Granting for Role {
    fn change(&mut self, asked: &Asked) -> Result<(), Refusal> {
        self.token.change(asked)?;
        let [names, namespaces] = ["bound_service_account_names", "bound_service_account_namespaces"];
        for (field, list) in [(names, &mut self.names), (namespaces, &mut self.namespaces)] {
            if let Some(given) = asked.strings(field)? {
                *list = given;
            }
        }
        if self.names.is_empty() {
            return Err(Refusal::bad(format!("{names:?} can not be empty")));
        }
        if self.namespaces.is_empty() {
            return Err(Refusal::bad(format!(
                "{namespaces:?} can not be empty if \"bound_service_account_namespace_selector\" is not set"
            )));
        }
        for list in [&self.names, &self.namespaces] {
            if list.len() > 1 && list.iter().any(|item| item == "*") {
                return Err(Refusal::bad("can not mix \"*\" with values"));
            }
        }
        if asked.get("audience").is_some() {
            asked.text("audience").clone_into(&mut self.audience);
        }
        Ok(())
    }

    fn show(&self) -> Value {
        let mut shown = json!({
            "alias_name_source": "serviceaccount_uid",
            "bound_service_account_names": self.names,
            "bound_service_account_namespace_selector": "",
            "bound_service_account_namespaces": self.namespaces,
        });
        if let Some(shown) = shown.as_object_mut() {
            if !self.audience.is_empty() {
                shown.insert("audience".to_owned(), json!(self.audience));
            }
            self.token.show(shown);
        }
        shown
    }

    fn warning(&self, given_name: &str) -> Option<String> {
        self.audience.trim().is_empty().then(|| {
            format!(
                "Role {given_name} does not have an audience configured. While audiences are not required, \
                 consider specifying one if your use case would benefit from additional JWT claim verification."
            )
        })
    }
}

impl Role {
    /// Whose token it is, if the role is for such.
    fn account(&self, all: &Map<String, Value>, now: Timestamp) -> Result<Reviewed, Refusal> {
        let forbidden = |error: &str| Refusal::new(403, error);
        let expected = Expected {
            issuer: "",
            subject: "",
            audiences: if self.audience.is_empty() { &[] } else { std::slice::from_ref(&self.audience) },
            needs_time: false,
            expiration_leeway: 0,
            not_before_leeway: 0,
            clock_skew_leeway: 0,
        };
        claims::check(all, &expected, now).map_err(forbidden)?;
        let claim = |path: &str| {
            let claim = all.get("kubernetes.io").and_then(|claim| claim.pointer(path));
            claim.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let account = Reviewed {
            name: claim("/serviceaccount/name"),
            namespace: claim("/namespace"),
            uid: claim("/serviceaccount/uid"),
        };
        if !self.names.iter().any(|pattern| glob(pattern, &account.name)) {
            return Err(forbidden("service account name not authorized"));
        }
        if !self.namespaces.iter().any(|pattern| glob(pattern, &account.namespace)) {
            return Err(forbidden("namespace not authorized"));
        }
        if account.uid.is_empty() {
            return Err(Refusal::new(500, "could not parse UID from claims"));
        }
        Ok(account)
    }
}

/// A name, or one with `*` at an end or both.
fn glob(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => pattern == name,
    }
}

#[cfg(test)]
mod tests;
