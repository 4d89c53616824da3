//! What a service-account token says of itself. Not verified: that is Vault's part. The token stays in here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The claims that a login depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whom it is for.
    pub audiences: Vec<String>,
    /// Who it is: `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Until when it is good, if it says so.
    pub expires: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    iss: String,
    exp: Option<f64>,
}

/// One, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Reads the claims of a token. `None`: it is not a JWT.
pub(super) fn claims(jwt: &str) -> Option<Claims> {
    let mut parts = jwt.split('.');
    let (_head, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    let Wire { aud, sub, iss, exp } = serde_json::from_slice(&json).ok().filter(|_| parts.next().is_none())?;
    let audiences = match aud {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    };
    // RFC 7519: seconds, which may have a fraction.
    let expires = exp.and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
    Some(Claims { audiences, subject: sub, issuer: iss, expires })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_claims_of_a_projected_token_are_read() {
        let sub = "system:serviceaccount:istio-system:istio-ca-sync";
        let text = format!(r#"{{"aud":["vault"],"exp":1795514400,"iss":"https://nas","sub":"{sub}","nbf":1}}"#);
        let read = claims(&jwt(&text)).unwrap();
        assert_eq!((read.audiences.as_slice(), read.subject.as_str()), (&["vault".to_owned()][..], sub));
        assert_eq!((read.issuer.as_str(), read.expires.unwrap().as_second()), ("https://nas", 1_795_514_400));
    }

    #[test]
    fn an_audience_may_be_one_and_a_time_may_have_a_fraction() {
        let read = claims(&jwt(r#"{"aud":"vault","exp":10.9}"#)).unwrap();
        assert_eq!((read.audiences, read.expires.unwrap().as_second()), (vec!["vault".to_owned()], 10));
    }

    #[test]
    fn an_old_secrets_token_has_neither_audience_nor_end() {
        let read = claims(&jwt(r#"{"sub":"system:serviceaccount:a:b"}"#)).unwrap();
        assert_eq!((read.audiences.len(), read.expires), (0, None));
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for text in ["", "token", "a.b", "a.!.c", &format!("{}.d", jwt("{}")), &jwt("[]"), &jwt("{\"aud\":1}")] {
            assert_eq!(claims(text), None, "{text}");
        }
    }
}
