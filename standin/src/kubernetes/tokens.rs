//! Bearer tokens: who is who.
//!
//! Service-account tokens are those of `pkg/serviceaccount/claims.go`: JWTs, bound to the account's uid.

use anyhow::Result;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde_json::{Value, json};

/// So many seconds of another clock are forgiven: `DefaultLeeway` of go-jose.
const LEEWAY: i64 = 60;

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// Lists of strings by key.
    pub(crate) extra: Value,
}

impl User {
    pub(crate) fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), uid: String::new(), groups, extra: Value::Null }
    }

    pub(crate) fn admin() -> Self {
        let groups = ["system:masters", "system:authenticated"].map(ToOwned::to_owned).to_vec();
        Self { name: "admin".to_owned(), uid: "admin".to_owned(), groups, extra: Value::Null }
    }

    /// As TokenReview and AdmissionReview tell of it.
    pub(crate) fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.clone().into();
        }
        if !self.extra.is_null() {
            info["extra"] = self.extra.clone();
        }
        info
    }
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Whom a token names, before it is known whether the account is still there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bearer {
    pub(crate) account: Account,
    pub(crate) audiences: Vec<String>,
    id: String,
}

impl Bearer {
    pub(crate) fn user(&self) -> User {
        let Account { namespace, name, uid } = &self.account;
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            extra: json!({"authentication.kubernetes.io/credential-id": [format!("JTI={}", self.id)]}),
        }
    }
}

/// Signs and reads service-account tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    issuer: String,
    key: Jwk,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl Tokens {
    pub(crate) fn new(issuer: &str, private_pem: &str, public_pem: &str) -> Result<Self> {
        let signing = EncodingKey::from_rsa_pem(private_pem.as_bytes())?;
        let mut key = Jwk::from_encoding_key(&signing, Algorithm::RS256)?;
        key.common.public_key_use = Some(PublicKeyUse::Signature);
        key.common.key_id = Some(key.thumbprint(ThumbprintHash::SHA256)?);
        let verifying = DecodingKey::from_rsa_pem(public_pem.as_bytes())?;
        Ok(Self { issuer: issuer.to_owned(), key, signing, verifying })
    }

    /// The public keys, as a JSON Web Key Set.
    pub(crate) fn keys(&self) -> Value {
        json!({"keys": [self.key]})
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for an account from `now` on, in seconds since 1970.
    pub(crate) fn issue(
        &self,
        account: &Account,
        audiences: &[String],
        now: i64,
        seconds: i64,
        id: &str,
    ) -> Result<String> {
        let Account { namespace, name, uid } = account;
        let claims = json!({
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": id,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
            "nbf": now,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let header = Header { typ: None, kid: self.key.common.key_id.clone(), ..Header::new(Algorithm::RS256) };
        Ok(encode(&header, &claims, &self.signing)?)
    }

    /// Whom a token names, if this cluster signed it and it is valid now; else what TokenReview says to it.
    pub(crate) fn read(&self, token: &str, now: i64) -> Result<Bearer, String> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.set_issuer(&[&self.issuer]);
        let invalid = || "invalid bearer token".to_owned();
        let claims = decode::<Value>(token, &self.verifying, &validation).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::Base64(_) if token.matches('.').count() == 2 => {
                rejected("go-jose/go-jose: error in cryptographic primitive")
            }
            _ => invalid(),
        })?;
        let claims = claims.claims;
        if claims["exp"].as_i64().unwrap_or_default() + LEEWAY < now {
            return Err(rejected("service account token has expired"));
        }
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned).ok_or_else(invalid);
        let bound = &claims["kubernetes.io"];
        let account = Account {
            namespace: text(&bound["namespace"])?,
            name: text(&bound["serviceaccount"]["name"])?,
            uid: text(&bound["serviceaccount"]["uid"])?,
        };
        let audiences = claims["aud"].as_array().into_iter().flatten().map(text).collect::<Result<_, _>>()?;
        Ok(Bearer { account, audiences, id: text(&claims["jti"])? })
    }
}

/// As the chain of authenticators tells of a refusal by the last of them.
pub(crate) fn rejected(why: &str) -> String {
    format!("[invalid bearer token, {why}]")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(issuer: &str) -> Tokens {
        let (private_pem, public_pem) = testbed::token_signing_key().unwrap();
        Tokens::new(issuer, &private_pem, &public_pem).unwrap()
    }

    #[test]
    fn a_token_is_read_until_its_end_by_who_signed_it() {
        let account = Account { namespace: "n".into(), name: "a".into(), uid: "u".into() };
        let (ours, theirs) = (tokens("https://ours"), tokens("https://ours"));
        let token = ours.issue(&account, &["vault".to_owned()], 1000, 600, "id").unwrap();
        let bearer = ours.read(&token, 1600 + LEEWAY).unwrap();
        assert_eq!((bearer.account, bearer.audiences), (account, vec!["vault".to_owned()]));
        let expired = "[invalid bearer token, service account token has expired]";
        assert_eq!(ours.read(&token, 1601 + LEEWAY).unwrap_err(), expired);
        let forged = "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]";
        assert_eq!(theirs.read(&token, 1000).unwrap_err(), forged);
        assert_eq!(ours.read("token", 1000).unwrap_err(), "invalid bearer token");
    }
}
