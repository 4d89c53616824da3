//! The auth method `jwt`: tokens are verified with public keys that are configured, and nobody is asked.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::claims::{self, Expected};
use super::method::{Configured, Granting, Method};
use super::reply::Refusal;
use super::roles::{Granted, TokenFields, texts};

/// A mount of this method.
pub(super) type Jwt = Method<Config, Role>;

#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    public_keys: Vec<String>,
    bound_issuer: String,
    default_role: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Role {
    token: TokenFields,
    bound_audiences: Option<Vec<String>>,
    bound_subject: String,
    bound_claims: Option<Map<String, Value>>,
    user_claim: String,
    expiration_leeway: i64,
    not_before_leeway: i64,
    clock_skew_leeway: i64,
}

impl Jwt {
    pub(super) fn login(&self, now: Timestamp, asked: &Asked) -> Result<Granted, Refusal> {
        let config = self.config.as_ref().ok_or_else(|| Refusal::bad("could not load configuration"))?;
        let name = asked.text("role").to_lowercase();
        let name = if name.is_empty() { config.default_role.clone() } else { name };
        if name.is_empty() {
            return Err(Refusal::bad("missing role"));
        }
        let unknown = || Refusal::bad(format!("role {name:?} could not be found"));
        let role = self.roles.get(&name).ok_or_else(unknown)?;
        let token = asked.text("jwt");
        if token.is_empty() {
            return Err(Refusal::bad("missing token"));
        }
        let invalid = |error: String| Refusal::bad(format!("error validating token: {error}"));
        let all = config.verify(token).map_err(|error| invalid(format!("error verifying token signature: {error}")))?;
        let bound = role.bound_audiences.as_deref().unwrap_or_default();
        let expected = Expected {
            issuer: &config.bound_issuer,
            subject: &role.bound_subject,
            audiences: bound,
            needs_time: true,
            expiration_leeway: role.expiration_leeway,
            not_before_leeway: role.not_before_leeway,
            clock_skew_leeway: role.clock_skew_leeway,
        };
        claims::check(&all, &expected, now).map_err(|error| invalid(error.to_owned()))?;
        if bound.is_empty() && !claims::audiences(&all).is_empty() {
            return Err(Refusal::bad("audience claim found in JWT but no audiences bound to the role"));
        }
        let user = &role.user_claim;
        let alias = all.get(user).ok_or_else(|| Refusal::bad(format!("claim {user:?} not found in token")))?;
        let odd = || Refusal::bad(format!("claim {user:?} could not be converted to string"));
        let alias = alias.as_str().ok_or_else(odd)?.to_owned();
        for (claim, wanted) in role.bound_claims.iter().flatten() {
            let has = all.get(claim).ok_or_else(|| Refusal::bad(missing(claim)))?;
            if !listed(has).iter().any(|value| listed(wanted).contains(value)) {
                return Err(Refusal::bad(unmatched(claim)));
            }
        }
        let metadata = texts([("role", &name)]);
        Ok(Granted { display_name: alias.clone(), alias, metadata, token: role.token.clone() })
    }
}

fn missing(claim: &str) -> String {
    format!("error validating claims: claim {claim:?} is missing")
}

fn unmatched(claim: &str) -> String {
    format!("error validating claims: claim {claim:?} does not match any associated bound claim values")
}

/// A claim's values, of which there may be one.
fn listed(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |values| values.iter().collect())
}

impl Configured for Config {
    fn read(asked: &Asked) -> Result<Self, Refusal> {
        let public_keys = asked.strings("jwt_validation_pubkeys")?.unwrap_or_default();
        if public_keys.is_empty() {
            return Err(Refusal::bad(
                "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs' or 'oidc_discovery_url' must be set",
            ));
        }
        if public_keys.iter().any(|pem| decoding_key(pem).is_none()) {
            return Err(Refusal::bad("error parsing public key: data does not contain any valid public keys"));
        }
        let [bound_issuer, default_role] = ["bound_issuer", "default_role"].map(|field| asked.text(field).to_owned());
        Ok(Self { public_keys, bound_issuer, default_role })
    }

    fn show(&self) -> Value {
        json!({
            "bound_issuer": self.bound_issuer,
            "default_role": self.default_role,
            "jwks_ca_pem": "",
            "jwks_pairs": [],
            "jwks_url": "",
            "jwt_supported_algs": [],
            "jwt_validation_pubkeys": self.public_keys,
            "namespace_in_state": true,
            "oidc_client_id": "",
            "oidc_discovery_ca_pem": "",
            "oidc_discovery_url": "",
            "oidc_response_mode": "",
            "oidc_response_types": [],
            "provider_config": {},
            "unsupported_critical_cert_extensions": [],
        })
    }
}

impl Config {
    /// The claims of a token that one of the keys signed.
    fn verify(&self, token: &str) -> Result<Map<String, Value>, &'static str> {
        if token.split('.').count() != 3 {
            return Err("go-jose/go-jose: compact JWS format must have three parts");
        }
        let verified = self.public_keys.iter().filter_map(|pem| decoding_key(pem)).find_map(|key| {
            let mut validation = Validation::new(jsonwebtoken::decode_header(token).ok()?.alg);
            if !key.1.contains(&validation.algorithms[0]) {
                return None;
            }
            // What the claims say is looked at afterwards, in Vault's order and words.
            validation.validate_exp = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            Some(jsonwebtoken::decode(token, &key.0, &validation).ok()?.claims)
        });
        verified.ok_or("no known key successfully validated the token signature")
    }
}

/// A public key in PEM, and what it may verify.
fn decoding_key(pem: &str) -> Option<(DecodingKey, &'static [Algorithm])> {
    use Algorithm::{ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512};
    let rsa =
        DecodingKey::from_rsa_pem(pem.as_bytes()).map(|key| (key, &[RS256, RS384, RS512, PS256, PS384, PS512][..]));
    rsa.or_else(|_| DecodingKey::from_ec_pem(pem.as_bytes()).map(|key| (key, &[ES256, ES384][..]))).ok()
}

impl Granting for Role {
    fn change(&mut self, asked: &Asked) -> Result<(), Refusal> {
        match asked.text("role_type") {
            "jwt" => {}
            "" | "oidc" => {
                return Err(Refusal::bad(
                    "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.",
                ));
            }
            other => return Err(Refusal::bad(format!("invalid 'role_type': {other}"))),
        }
        self.token.change(asked)?;
        for (field, seconds) in [
            ("expiration_leeway", &mut self.expiration_leeway),
            ("not_before_leeway", &mut self.not_before_leeway),
            ("clock_skew_leeway", &mut self.clock_skew_leeway),
        ] {
            *seconds = asked.seconds(field)?.unwrap_or(*seconds);
        }
        if let Some(audiences) = asked.strings("bound_audiences")? {
            self.bound_audiences = Some(audiences);
        }
        for (field, text) in [("bound_subject", &mut self.bound_subject), ("user_claim", &mut self.user_claim)] {
            if asked.get(field).is_some() {
                *text = asked.text(field).to_owned();
            }
        }
        if let Some(claims) = asked.get("bound_claims").and_then(Value::as_object) {
            self.bound_claims = Some(claims.clone());
        }
        if self.user_claim.is_empty() {
            return Err(Refusal::bad("a user claim must be defined on the role"));
        }
        let claims = self.bound_claims.as_ref().is_some_and(|claims| !claims.is_empty());
        if !claims && self.bound_subject.is_empty() && self.bound_audiences.as_ref().is_none_or(Vec::is_empty) {
            return Err(Refusal::bad("must have at least one bound constraint when creating/updating a role"));
        }
        Ok(())
    }

    fn show(&self) -> Value {
        let mut shown = json!({
            "allowed_redirect_uris": null,
            "bound_audiences": self.bound_audiences,
            "bound_claims": self.bound_claims,
            "bound_claims_type": "string",
            "bound_subject": self.bound_subject,
            "claim_mappings": null,
            "clock_skew_leeway": self.clock_skew_leeway,
            "expiration_leeway": self.expiration_leeway,
            "groups_claim": "",
            "max_age": 0,
            "not_before_leeway": self.not_before_leeway,
            "oidc_scopes": null,
            "role_type": "jwt",
            "user_claim": self.user_claim,
            "user_claim_json_pointer": false,
            "verbose_oidc_logging": false,
        });
        if let Some(shown) = shown.as_object_mut() {
            self.token.show(shown);
        }
        shown
    }
}

#[cfg(test)]
mod tests;
