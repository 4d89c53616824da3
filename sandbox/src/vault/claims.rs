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
