//! Whether a token's claims are as expected, in the order and words of the library that both auth methods of Vault use
//! (`hashicorp/cap`, package `jwt`).

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

/// Seconds that a token without an expiry or a beginning is good for beside its other dates.
const DEFAULT_LEEWAY: i64 = 150;

/// Seconds by which clocks may differ where nothing else is set.
const CLOCK_SKEW: i64 = 60;

/// What is expected. Empty: nothing; a leeway of zero: the default one, below zero: none.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) audiences: &'a [String],
    /// Whether a token has to have a date at all.
    pub(super) needs_time: bool,
    pub(super) expiration_leeway: i64,
    pub(super) not_before_leeway: i64,
    pub(super) clock_skew_leeway: i64,
}

pub(super) fn check(claims: &Map<String, Value>, expected: &Expected, now: Timestamp) -> Result<(), &'static str> {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str).unwrap_or_default();
    if !expected.issuer.is_empty() && expected.issuer != text("iss") {
        return Err("invalid issuer (iss) claim");
    }
    if !expected.subject.is_empty() && expected.subject != text("sub") {
        return Err("invalid subject (sub) claim");
    }
    let audiences = audiences(claims);
    if !expected.audiences.is_empty() && !expected.audiences.iter().any(|it| audiences.contains(&it.as_str())) {
        return Err("invalid audience (aud) claim: audience claim does not match any expected audience");
    }
    check_time(claims, expected, now.as_second())
}

fn check_time(claims: &Map<String, Value>, expected: &Expected, now: i64) -> Result<(), &'static str> {
    let date = |claim: &str| claims.get(claim).and_then(Value::as_f64).map_or(0, |seconds| seconds as i64);
    let (issued, mut expiry, mut not_before) = (date("iat"), date("exp"), date("nbf"));
    if (issued, expiry, not_before) == (0, 0, 0) {
        let missing = "no issued at (iat), not before (nbf), or expiration time (exp) claims in token";
        return if expected.needs_time { Err(missing) } else { Ok(()) };
    }
    if expiry == 0 {
        expiry = issued.max(not_before) + leeway(expected.expiration_leeway, DEFAULT_LEEWAY);
    }
    if not_before == 0 {
        let from_expiry = expiry - leeway(expected.not_before_leeway, DEFAULT_LEEWAY);
        not_before = if issued == 0 { from_expiry } else { issued };
    }
    let skew = leeway(expected.clock_skew_leeway, CLOCK_SKEW);
    if now + skew < not_before {
        return Err("invalid not before (nbf) claim: token not yet valid");
    }
    if now - skew > expiry {
        return Err("invalid expiration time (exp) claim: token is expired");
    }
    if now + skew < issued {
        return Err("invalid issued at (iat) claim: token issued in the future");
    }
    Ok(())
}

fn leeway(set: i64, default: i64) -> i64 {
    match set {
        0 => default,
        set => set.max(0),
    }
}

/// A token's audiences: one text, or a list.
pub(super) fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(audience)) if !audience.is_empty() => vec![audience],
        Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn checked(claims: &Value, clock_skew_leeway: i64, needs_time: bool) -> Result<(), &'static str> {
        let audiences = ["vault".to_owned()];
        let expected = Expected {
            issuer: "i",
            subject: "s",
            audiences: &audiences,
            needs_time,
            expiration_leeway: 0,
            not_before_leeway: 0,
            clock_skew_leeway,
        };
        let mut all = json!({ "iss": "i", "sub": "s", "aud": ["other", "vault"] });
        for (claim, value) in claims.as_object().into_iter().flatten() {
            all[claim] = value.clone();
        }
        check(all.as_object().unwrap_or(&Map::new()), &expected, Timestamp::from_second(NOW).unwrap_or_default())
    }

    #[test]
    fn each_claim_has_to_be_as_expected() {
        let with = |claim: &str, value: Value| json!({ "exp": NOW + 60, claim: value });
        assert_eq!(checked(&with("aud", json!("vault")), 0, true), Ok(()));
        assert_eq!(checked(&with("iss", json!("x")), 0, true), Err("invalid issuer (iss) claim"));
        assert_eq!(checked(&with("sub", json!("x")), 0, true), Err("invalid subject (sub) claim"));
        for audience in [json!("x"), json!(["x"]), json!([]), json!(null)] {
            assert!(checked(&with("aud", audience), 0, true).is_err_and(|error| error.contains("(aud)")));
        }
    }

    #[test]
    fn a_token_is_good_from_its_beginning_to_its_end_and_a_minute_around() {
        for (claims, skew, refused) in [
            (json!({ "exp": NOW - 60 }), 0, None),
            (json!({ "exp": NOW - 61 }), 0, Some("(exp)")),
            (json!({ "exp": NOW - 1 }), -1, Some("(exp)")),
            (json!({ "exp": NOW + 600, "nbf": NOW + 60 }), 0, None),
            (json!({ "exp": NOW + 600, "nbf": NOW + 61 }), 0, Some("(nbf)")),
            (json!({ "exp": NOW + 600, "nbf": NOW, "iat": NOW + 61 }), 0, Some("(iat)")),
            // Without an end it ends soon after its beginning.
            (json!({ "iat": NOW - 210 }), 0, None),
            (json!({ "iat": NOW - 211 }), 0, Some("(exp)")),
            // Without a beginning it begins soon before its end.
            (json!({ "exp": NOW + 210 }), 0, None),
            (json!({ "exp": NOW + 211 }), 0, Some("(nbf)")),
        ] {
            let outcome = checked(&claims, skew, true);
            assert_eq!(outcome.is_err(), refused.is_some(), "{claims}: {outcome:?}");
            assert!(outcome.err().unwrap_or_default().contains(refused.unwrap_or_default()), "{claims}: {outcome:?}");
        }
        assert_eq!((checked(&json!({}), 0, false), checked(&json!({}), 0, true).is_err()), (Ok(()), true));
    }
}
