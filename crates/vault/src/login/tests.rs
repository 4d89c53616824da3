#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::json;

use super::super::samples::{reply, settings};
use super::*;
use gate_core::samples::assert_fit_for_users;

fn with_jwt(jwt_files: &[&Path]) -> Settings {
    Settings { jwt_files: jwt_files.iter().copied().map(PathBuf::from).collect(), ..settings() }
}

fn token(text: &str) -> Result<Token, &'static str> {
    Token::new(Zeroizing::new(text.to_owned()))
}

/// Why a login failed, in a text that is fit for users.
fn denial(status: u16, body: &str) -> String {
    let held = session(&reply(status, body), &settings()).unwrap_err().held;
    assert_eq!(held.reason, Reason::VaultLoginDenied);
    assert_fit_for_users(&held.message("nas"));
    held.sentence()
}

fn refusal(status: u16, text: &str) -> String {
    denial(status, &json!({ "errors": [text] }).to_string())
}

#[test]
fn a_token_is_what_may_stand_in_a_header() {
    assert_eq!(token("hvs.CAESIJ-_~9").unwrap().expose(), "hvs.CAESIJ-_~9");
    for wrong in ["", " ", "hvs.a b", "hvs.a\n", "\thvs.a", "hvs.a\0", "hvs.é", "hvs.a\r\nX-Vault-Token: b"] {
        assert!(token(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn neither_a_token_nor_its_error_can_be_printed() {
    assert_eq!(format!("{:?}", token("hvs.secret").unwrap()), "Token(…)");
    assert!(!token("hvs.secret\n").unwrap_err().contains("secret"));
    let body = json!({"auth": {"client_token": "hvs.secret", "lease_duration": 60}}).to_string();
    let session = session(&reply(200, &body), &settings()).unwrap();
    assert!(!format!("{session:?}").contains("secret"));
}

#[test]
fn a_login_gives_a_token_for_two_thirds_of_its_lease() {
    let body = json!({
        "request_id": "8f0b", "data": null, "warnings": null,
        "auth": {"client_token": "hvs.a", "accessor": "b", "policies": ["default"], "lease_duration": 3600, "renewable": true},
    });
    let mut session = session(&reply(200, &body.to_string()), &settings()).unwrap();
    assert_eq!((session.token().unwrap().expose(), session.lease()), ("hvs.a", Duration::from_secs(3600)));
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    session.lease = Duration::from_secs(30);
    session.began = ago(19);
    assert!(session.token().is_some());
    session.began = ago(20);
    assert!(session.token().is_none());
    session.lease = Duration::ZERO;
    assert!(session.token().is_some(), "a token without end");
}

#[test]
fn a_lease_of_any_length_is_taken() {
    for lease in [0, 1, 2_764_800, u64::MAX] {
        let body = json!({"auth": {"client_token": "hvs.a", "lease_duration": lease}}).to_string();
        assert!(session(&reply(200, &body), &settings()).unwrap().token().is_some(), "{lease}");
    }
}

#[test]
fn an_answer_without_a_token_that_can_be_used_is_a_denial() {
    for body in [
        "",
        "ok",
        "{}",
        "{\"auth\":null}",
        "{\"auth\":{\"client_token\":\"\",\"lease_duration\":1}}",
        "{\"auth\":{\"client_token\":\"a b\",\"lease_duration\":1}}",
        "{\"auth\":{\"client_token\":\"a\",\"lease_duration\":-1}}",
        "{\"auth\":{\"client_token\":\"a\"}}",
    ] {
        assert!(denial(200, body).contains("no token that can be used"), "{body}");
    }
    denial(204, "");
}

#[test]
fn an_unknown_role_is_told_from_other_denials() {
    let sentence = refusal(400, "invalid role name \"istio-ca-sync\"");
    assert!(sentence.contains("(invalid role name \"istio-ca-sync\")"), "{sentence}");
    assert!(sentence.ends_with("create role istio-ca-sync at auth/kubernetes-nas, or set --vault-role"), "{sentence}");
    // A jwt mount's words.
    assert!(refusal(400, "role \"istio-ca-sync\" could not be found").contains("create role istio-ca-sync"));
}

#[test]
fn a_wrong_service_account_namespace_or_audience_is_repeated_with_where_to_look() {
    for said in [
        "service account name not authorized",
        "namespace not authorized",
        "invalid audience (aud) claim: audience claim does not match any expected audience",
    ] {
        let sentence = refusal(403, said);
        assert!(sentence.contains(said) && sentence.contains("compare role istio-ca-sync"), "{sentence}");
    }
}

#[test]
fn a_bare_403_says_that_the_mount_may_be_another_clusters() {
    let sentence = refusal(403, "permission denied");
    assert!(sentence.contains("each cluster needs its own, see --vault-auth-mount"), "{sentence}");
}

#[test]
fn a_missing_mount_is_named() {
    let sentence = refusal(404, "no handler for route \"auth/kubernetes-nas/login\". route entry not found.");
    assert!(
        sentence.ends_with("enable an auth method at auth/kubernetes-nas, or set --vault-auth-mount"),
        "{sentence}"
    );
}

#[test]
fn a_denial_without_vaults_words_names_its_status() {
    assert!(denial(403, "<html>").contains("(status 403)"));
    assert!(denial(400, "{\"errors\":[]}").contains("(status 400)"));
}

#[test]
fn no_text_of_vaults_is_repeated_at_length_in_lines_or_with_a_key() {
    let key = std::str::from_utf8(gate_core::samples::R1.bundle.ca_key.expose()).unwrap();
    for text in [key, &gate_core::ca::fixtures::base64(key.as_bytes()), &"x".repeat(1 << 20), "a\nb\r\n\u{1b}[31m\0"] {
        for status in [204, 400, 403, 404, 418] {
            refusal(status, text);
        }
    }
}

#[test]
fn the_first_token_file_that_exists_is_read_at_each_login() {
    let directory = tempfile::tempdir().unwrap();
    let [missing, first, second] = ["missing", "first", "second"].map(|name| directory.path().join(name));
    std::fs::write(&first, "ey.a.b\n").unwrap();
    std::fs::write(&second, "ey.c.d").unwrap();
    let settings = with_jwt(&[&missing, &first, &second]);
    let jwt = || Credentials::read(&settings).map(|credentials| credentials.jwt.to_string());
    assert_eq!(jwt().unwrap(), "ey.a.b");
    std::fs::write(&first, "ey.e.f\n").unwrap();
    assert_eq!(jwt().unwrap(), "ey.e.f");
    std::fs::remove_file(&first).unwrap();
    assert_eq!(jwt().unwrap(), "ey.c.d");
}

#[test]
fn a_token_file_that_is_none_is_a_denial_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let denial = |settings: &Settings| {
        let Err(held) = Credentials::read(settings) else { unreachable!("a token was read") };
        assert_eq!(held.reason, Reason::VaultLoginDenied);
        assert_fit_for_users(&held.message("nas"));
        held.sentence()
    };
    let of_file = with_jwt(&[&file]);
    assert!(denial(&of_file).contains(&format!("{} (No such file", file.display())));
    for (content, what) in [(&b" \n"[..], "it is empty"), (b"\xff\xfe", "valid UTF-8"), (&[b'a'; 65_537], "too large")]
    {
        std::fs::write(&file, content).unwrap();
        assert!(denial(&of_file).contains(what), "{what}: {}", denial(&of_file));
    }
    assert!(denial(&settings()).contains("none configured"));
}

#[test]
fn a_login_sends_role_and_token_to_the_configured_mount() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "ey.a.b").unwrap();
    let settings = with_jwt(&[&file]);
    let credentials = Credentials::read(&settings).unwrap();
    let request = credentials.request().unwrap();
    assert_eq!(rustify::Endpoint::path(&request), "/auth/kubernetes-nas/login");
    let body: serde_json::Value = serde_json::from_slice(&rustify::Endpoint::body(&request).unwrap().unwrap()).unwrap();
    assert_eq!(body, json!({"role": "istio-ca-sync", "jwt": "ey.a.b"}));
}

/// As Vault 1.21.1 says them, with what the real one was asked by.
#[test]
fn each_of_vaults_texts_has_its_own_next_step() {
    let of_token = |what: &str| format!("error validating token: {what}");
    let bound = "compare role istio-ca-sync at auth/kubernetes-nas with this pod's service account";
    for (status, text, next) in [
        (400, of_token("invalid issuer (iss) claim"), "set bound_issuer of auth/kubernetes-nas/config"),
        (
            400,
            of_token("error verifying token signature: no known key successfully validated the token signature"),
            "has other public keys than this cluster signs its tokens with",
        ),
        (400, of_token("invalid audience (aud) claim: audience claim does not match any expected audience"), bound),
        (400, of_token("invalid subject (sub) claim"), bound),
        (400, of_token("invalid expiration time (exp) claim: token is expired"), "compare the clocks"),
        (400, of_token("invalid not before (nbf) claim: token not yet valid"), "compare the clocks"),
        (
            400,
            of_token("error verifying token signature: go-jose/go-jose: compact JWS format must have three parts"),
            "it was given no service-account token",
        ),
        (400, "role \"istio-ca-sync\" could not be found".to_owned(), "create role istio-ca-sync"),
        (400, "invalid role name \"istio-ca-sync\"".to_owned(), "create role istio-ca-sync"),
        (400, "missing client token".to_owned(), "enable an auth method at auth/kubernetes-nas"),
        (404, "namespace not found".to_owned(), "set --vault-namespace"),
        (403, "permission denied".to_owned(), "that its token reviewer still works"),
    ] {
        let sentence = refusal(status, &text);
        assert!(sentence.contains(next), "{text}: {sentence}");
        assert!(text == "permission denied" || sentence.contains(text.split(": ").last().unwrap()), "{sentence}");
    }
}
