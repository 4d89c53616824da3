#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::json;

use super::super::samples::{reply, settings};
use super::*;
use gate_core::ca::fixtures::now;
use gate_core::ca::record::SigningRecord;
use gate_core::samples::{R1, assert_fit_for_users};

const ADDRESS: &str = "https://vault.example:8200";

/// Vault's shape of a refusal.
fn refusal(status: u16, text: &str) -> Reply {
    reply(status, &json!({ "errors": [text] }).to_string())
}

/// A version of a record, as Vault 1.21 shows it.
fn version(data: Value, deletion_time: &str, destroyed: bool) -> String {
    let metadata = json!({
        "created_time": "2026-11-24T10:00:00.123456789Z", "custom_metadata": null,
        "deletion_time": deletion_time, "destroyed": destroyed, "version": 2,
    });
    json!({
        "request_id": "8f0b1e5c-0c1b-7a53-9f0f-7f3b6c1d2e4a", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": {"data": data, "metadata": metadata},
        "wrap_info": null, "warnings": null, "auth": null, "mount_type": "kv",
    })
    .to_string()
}

/// What a read found, as one line. A refusal's text is fit for users, whatever Vault said.
fn found(reply: &Reply) -> String {
    match read(reply, &settings(), now()) {
        Ok(Read::NeverWritten) => "never written".to_owned(),
        Ok(Read::Stored(Stored::Absent)) => "absent".to_owned(),
        Ok(Read::Stored(Stored::Deleted { version })) => format!("deleted {version}"),
        Ok(Read::Stored(Stored::Unsound { version, flaw })) => format!("unsound {version}: {flaw}"),
        Ok(Read::Stored(Stored::Sound { version, sound })) => format!("sound {version}: {}", sound.root),
        Ok(Read::Stored(Stored::Signing { version, record })) => {
            format!("signing {version}: {} by {:?}", record.glance().sha256, record.issuer)
        }
        Err(refused) => told_by(&refused.held),
    }
}

/// The code, after a look at the text.
fn told_by(held: &Held) -> String {
    assert_fit_for_users(&held.message("nas"));
    held.reason.to_string()
}

const NO_ROUTE: &str = "no handler for route \"secret/data/istio/ca\". route entry not found.";
const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";
const UPGRADING: &str = "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly.";
const NO_PREFLIGHT: &str =
    "preflight capability check returned 403, please ensure client's policies grant access to path \"secret/\"";

// The read of the record.

#[test]
fn only_a_404_with_no_errors_was_never_written() {
    assert_eq!(found(&reply(404, "{\"errors\":[]}\n")), "never written");
    assert_eq!(found(&reply(404, "{\"errors\":[]}")), "never written");
}

#[test]
fn near_misses_of_it_are_not_taken_for_it() {
    let never = "{\"errors\":[]}";
    for status in [200, 204, 400, 403, 405, 410, 412, 418, 472, 473] {
        assert_ne!(found(&reply(status, never)), "never written", "{status}");
    }
    for body in [
        "[[]]",
        "{\"errors\":[],\"data\":null}",
        "{\"errors\":[],\"status\":404}",
        "{\"errors\":[],\"warnings\":[\"x\"]}",
        "",
        "\n",
        "{}",
        "[]",
        "null",
        "404",
        "\"errors\"",
        "404 page not found",
        "<html><body>{\"errors\":[]}</body></html>",
        "{\"errors\":[]",
        "{\"errors\":[]}{\"errors\":[]}",
        "{\"errors\":[]} Not Found",
        "{\"errors\":[],\"errors\":[]}",
        "{\"errors\":null}",
        "{\"errors\":{}}",
        "{\"errors\":\"\"}",
        "{\"errors\":0}",
        "{\"errors\":[null]}",
        "{\"errors\":[{}]}",
        "{\"errors\":[\"\"]}",
        "{\"errors\":[\"not found\"]}",
        "{\"Errors\":[]}",
        "{\"error\":[]}",
        "{\"error\":\"not found\",\"status\":404}",
        "{\"data\":null}",
        "{\"data\":{}}",
        "{\"data\":{\"data\":null}}",
        "{\"data\":{\"keys\":[]}}",
        "\u{feff}{\"errors\":[]}",
    ] {
        assert_eq!(found(&reply(404, body)), "VaultUnreachable", "{body:?}");
    }
}

#[test]
fn a_deleted_and_a_destroyed_version_had_a_root() {
    let deleted = version(Value::Null, "2026-11-24T11:00:00.5Z", false);
    let destroyed = version(Value::Null, "", true);
    for body in [deleted, destroyed] {
        assert_eq!(found(&reply(404, &body)), "deleted 2");
        // Not what Vault does today, and no reason to make a root tomorrow.
        assert_eq!(found(&reply(200, &body)), "deleted 2");
        let with_errors = body.replacen('{', "{\"errors\":[],", 1);
        assert_eq!(found(&reply(404, &with_errors)), "deleted 2");
    }
}

#[test]
fn a_sound_record_is_read_with_its_version() {
    let body = version(Value::Object(R1.bundle.to_record()), "", false);
    assert_eq!(found(&reply(200, &body)), format!("sound 2: {}", R1.root));
}

#[test]
fn a_record_of_the_signing_kind_is_read_with_its_issuer_and_one_with_a_key_is_of_the_shared_kind() {
    let pem = String::from_utf8(R1.bundle.root_cert.clone()).unwrap();
    let record = SigningRecord::first(&pem, &"root-1".parse().unwrap());
    let read = |data| found(&reply(200, &version(Value::Object(data), "", false)));
    assert_eq!(read(record), format!("signing 2: {} by Some(IssuerName(\"root-1\"))", R1.root));
    let mut shared = R1.bundle.to_record();
    shared.extend([("issuer".to_owned(), json!("root-1"))]);
    assert_eq!(read(shared), format!("sound 2: {}", R1.root));
    let unsound = json!({"root-cert.pem": pem, "issuer": "a/b"});
    assert!(read(unsound.as_object().unwrap().clone()).starts_with("unsound 2: issuer is not the name"));
}

#[test]
fn a_record_that_is_there_and_of_no_use_is_unsound_and_not_absent() {
    for (data, flaw) in [
        (json!({}), "root-cert.pem is missing"),
        (json!({"root-cert.pem": "", "cert-chain.pem": "", "key.pem": ""}), "root-cert.pem is empty"),
        (json!({"root-cert.pem": 1, "cert-chain.pem": "", "key.pem": ""}), "root-cert.pem is not a string"),
    ] {
        assert_eq!(found(&reply(200, &version(data, "", false))), format!("unsound 2: {flaw}"));
    }
}

#[test]
fn a_mount_that_is_not_kv_version_2_is_named() {
    assert_eq!(found(&refusal(404, NO_ROUTE)), "VaultMountInvalid");
    assert_eq!(found(&refusal(400, UPGRADING)), "VaultMountInvalid");
    // KV version 1 answers without a version.
    let version_1 = json!({"lease_id": "", "data": {"root-cert.pem": "x", "key.pem": "y"}}).to_string();
    assert_eq!(found(&reply(200, &version_1)), "VaultMountInvalid");
    assert_eq!(found(&reply(200, &json!({"data": {"data": {}, "metadata": {}}}).to_string())), "VaultMountInvalid");
}

#[test]
fn a_200_that_is_not_vaults_says_nothing_about_the_mount() {
    for body in ["ok", "", "{}", "<html></html>", "{\"data\":null}", "{\"data\":[]}", "{\"errors\":[]}"] {
        assert_eq!(found(&reply(200, body)), "VaultUnreachable", "{body}");
    }
}

#[test]
fn a_refused_read_is_not_an_absent_root() {
    assert_eq!(found(&refusal(403, DENIED)), "VaultPermissionDenied");
    assert_eq!(found(&refusal(403, "permission denied")), "VaultPermissionDenied");
    assert_eq!(found(&reply(403, "<html>Forbidden</html>")), "VaultPermissionDenied");
}

#[test]
fn a_refused_read_says_which_right_is_missing() {
    let Err(refused) = read(&refusal(403, DENIED), &settings(), now()) else { panic!("it was read") };
    assert!(refused.held.sentence().contains("role istio-ca-sync"), "{refused:?}");
    assert!(refused.held.sentence().contains("`read` on secret/data/istio/ca"), "{refused:?}");
}

#[test]
fn other_answers_to_a_read_are_no_answers() {
    for status in [201, 204, 206, 400, 401, 405, 412, 418, 472, 473] {
        assert_eq!(found(&refusal(status, "missing client token")), "VaultUnreachable", "{status}");
    }
}

// What any request may be answered.

fn told_of(reply: Reply) -> String {
    match told(ADDRESS, reply) {
        Ok(reply) => format!("status {}", reply.status),
        Err(Refused { held, .. }) => told_by(&held),
    }
}

#[test]
fn a_sealed_vault_is_told_from_one_that_is_broken() {
    assert_eq!(told_of(refusal(503, "Vault is sealed")), "VaultSealed");
    assert_eq!(told_of(refusal(503, "error performing token check: Vault is sealed")), "VaultSealed");
    assert_eq!(told_of(refusal(501, "Vault is not initialized")), "VaultSealed");
    for status in [500, 501, 502, 503, 504, 599] {
        assert_eq!(told_of(reply(status, "<html><h1>the box is sealed</h1></html>")), "VaultUnreachable");
        assert_eq!(told_of(refusal(status, "internal error")), "VaultUnreachable");
        assert_eq!(told_of(reply(status, "")), "VaultUnreachable");
    }
}

#[test]
fn a_rate_limit_is_told_as_one_with_vaults_own_wish() {
    let limited = Reply {
        address: "https://vault.example".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
        ..refusal(429, "request path: rate limit quota exceeded")
    };
    let refused = told(ADDRESS, limited).err().unwrap();
    assert_eq!((refused.held.reason, refused.retry_after), (Reason::VaultRateLimited, Some(Duration::from_secs(7))));
    assert_eq!(told_of(reply(429, "")), "VaultRateLimited");
    // Only a rate limit is a wish to be left alone: a Vault that is unsealed again is to be noticed.
    let sealed = Reply {
        address: "https://vault.example".to_owned(),
        retry_after: Some(Duration::from_secs(3)),
        ..refusal(503, "Vault is sealed")
    };
    assert_eq!(told(ADDRESS, sealed).err().unwrap().retry_after, None);
}

#[test]
fn a_redirect_is_not_followed_and_says_what_to_configure() {
    for status in [301, 302, 303, 307, 308] {
        let Err(Refused { held, .. }) = told(ADDRESS, reply(status, "")) else { panic!("{status}") };
        assert_eq!(held.reason, Reason::VaultUnreachable);
        assert!(held.sentence().contains("configure the active node's address"), "{held:?}");
    }
}

#[test]
fn vaults_own_answers_pass() {
    for status in [200, 204, 400, 403, 404, 405, 412, 472, 473] {
        assert_eq!(told_of(refusal(status, "whatever")), format!("status {status}"));
    }
}

#[test]
fn a_text_that_only_a_5xx_may_have_is_no_seal() {
    assert_eq!(told_of(refusal(400, "Vault is sealed")), "status 400");
}

/// A refusal of this address, as [`told`] makes it.
fn silent(address: &str, status: u16, text: &str) -> Refused {
    told(address, refusal(status, text)).err().unwrap()
}

#[test]
fn of_several_addresses_without_an_answer_one_that_is_sealed_gives_the_code() {
    let down = |address| silent(address, 502, "x");
    let sealed = |address| silent(address, 503, "Vault is sealed");
    for silent in [vec![sealed("a"), down("b")], vec![down("a"), sealed("b"), down("c")], vec![sealed("a")]] {
        assert_eq!(told_by(&none_answered(silent).held), "VaultSealed");
    }
    for silent in [vec![down("a"), down("b")], vec![down("a")], Vec::new()] {
        assert_eq!(none_answered(silent).held.reason, Reason::VaultUnreachable);
    }
}

#[test]
fn of_several_addresses_without_an_answer_each_is_named_with_one_next_step() {
    let held = none_answered(vec![
        silent("https://a", 502, "x"),
        silent("https://b", 503, "Vault is sealed"),
        silent("https://c", 500, "x"),
    ])
    .held;
    assert_eq!(
        held.sentence(),
        "https://a does not answer as Vault should (status 502 x); and Vault at https://b is sealed or not initialised: \
         unseal it; and https://c does not answer as Vault should (status 500 x): check the address, the network and TLS \
         trust; it is tried again by itself"
    );
    let one = silent("https://a", 502, "x");
    assert_eq!(none_answered(vec![one.clone()]), one);
}

#[test]
fn of_several_addresses_without_an_answer_the_promise_is_made_once_and_at_the_end() {
    let lost = || silent("https://a", 500, "local node not active but active cluster node not found");
    let held = none_answered(vec![lost(), silent("https://b", 429, "x"), silent("https://c", 502, "x")]).held;
    assert_eq!(
        held.sentence(),
        "https://a does not answer as Vault should (status 500 local node not active but active cluster node not found): \
         Vault has no active node: look at the log of its nodes; more than half of them must run, unsealed; and https://b \
         asks for fewer requests (429): raise its rate limit quota; and https://c does not answer as Vault should (status \
         502 x): check the address, the network and TLS trust; it is tried again by itself"
    );
    assert_eq!(held.next.as_deref(), Some(NEXT));
    assert_eq!(
        lost().held.next.as_deref(),
        Some("look at the log of its nodes; more than half of them must run, unsealed")
    );
}

#[test]
fn a_vault_that_asks_for_fewer_requests_is_asked_when_it_allows() {
    assert_eq!(
        silent("https://a", 429, "x").held,
        Held::new(
            Reason::VaultRateLimited,
            "https://a asks for fewer requests (429)",
            "raise its rate limit quota",
            ByItself::TriedWhenVaultAllows
        )
    );
}

// The preflight of the mount.

fn mount(status: u16, data: Value) -> String {
    let reply = reply(status, &json!({"request_id": "8f0b", "lease_id": "", "data": data, "auth": null}).to_string());
    preflight(&reply, &settings()).map_or_else(|refused| told_by(&refused.held), |()| "KV version 2".to_owned())
}

#[test]
fn only_a_positive_kv_version_2_is_one() {
    let real = json!({
        "accessor": "kv_a1b2c3d4", "config": {"default_lease_ttl": 0, "max_lease_ttl": 0}, "description": "",
        "external_entropy_access": false, "local": false, "options": {"version": "2"}, "path": "secret/",
        "plugin_version": "", "seal_wrap": false, "type": "kv", "uuid": "d5a1a2b3",
    });
    assert_eq!(mount(200, real), "KV version 2");
    for data in [
        json!({"type": "kv", "options": {"version": "2"}, "path": "secret/other/"}),
        json!({"type": "kv", "options": {"version": "2"}, "path": "secre/"}),
        json!({"type": "kv", "options": {"version": "2"}, "path": ""}),
        json!({"type": "kv", "options": {"version": "1"}}),
        json!({"type": "kv", "options": {"version": 2}}),
        json!({"type": "kv", "options": {"version": "20"}}),
        json!({"type": "kv", "options": {"version": ""}}),
        json!({"type": "kv", "options": {}}),
        json!({"type": "kv", "options": null}),
        json!({"type": "kv"}),
        json!({"type": "generic", "options": {"version": "2"}}),
        json!({"type": "KV", "options": {"version": "2"}}),
        json!({"type": "", "options": {"version": "2"}}),
        json!({"options": {"version": "2"}}),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(mount(200, data.clone()), "VaultMountInvalid", "{data}");
    }
    assert_eq!(told_by(&preflight(&reply(200, "ok"), &settings()).err().unwrap().held), "VaultMountInvalid");
}

#[test]
fn a_preflight_that_is_refused_or_not_understood_is_not_positive() {
    let of = |reply: &Reply| told_by(&preflight(reply, &settings()).err().unwrap().held);
    assert_eq!(of(&refusal(403, NO_PREFLIGHT)), "VaultPermissionDenied");
    for status in [204, 400, 404, 405, 472, 473] {
        assert_eq!(of(&refusal(status, "x")), "VaultUnreachable", "{status}");
        let positive = json!({"data": {"type": "kv", "options": {"version": "2"}}}).to_string();
        assert_eq!(of(&reply(status, &positive)), "VaultUnreachable", "{status}");
    }
}

// The write.

#[test]
fn a_write_is_applied_lost_forbidden_or_unclear() {
    let of = |reply: &Reply| match written(reply, &settings()) {
        Created::Applied => "applied".to_owned(),
        Created::Lost => "lost".to_owned(),
        Created::Forbidden(held) => format!("forbidden, {}", told_by(&held)),
        Created::Unclear(refused) => format!("unclear, {}", told_by(&refused.held)),
    };
    let version_1 = json!({"data": {"created_time": "2026-11-24T10:00:00Z", "destroyed": false, "version": 1}});
    assert_eq!(of(&reply(200, &version_1.to_string())), "applied");
    assert_eq!(of(&reply(204, "")), "applied");
    assert_eq!(of(&refusal(400, "check-and-set parameter did not match the current version")), "lost");
    assert_eq!(of(&refusal(403, DENIED)), "forbidden, VaultPermissionDenied");
    assert_eq!(of(&refusal(400, UPGRADING)), "unclear, VaultUnreachable");
    assert_eq!(of(&refusal(400, "check-and-get")), "unclear, VaultUnreachable");
    assert_eq!(of(&reply(400, "check-and-set")), "unclear, VaultUnreachable");
    for status in [201, 202, 404, 405, 412, 413] {
        assert_eq!(of(&refusal(status, NO_ROUTE)), "unclear, VaultUnreachable", "{status}");
    }
}

#[test]
fn a_forbidden_write_says_which_rights_are_missing() {
    let Created::Forbidden(held) = written(&refusal(403, DENIED), &settings()) else { panic!("not forbidden") };
    assert!(held.sentence().contains("`create` and `read` on secret/data/istio/ca"), "{held:?}");
}

// Which Vault it is.

#[test]
fn errors_are_those_of_vaults_own_shape() {
    assert_eq!(errors(&refusal(400, "a")), Some(vec!["a".to_owned()]));
    assert_eq!(errors(&reply(404, "{\"errors\":[]}")), Some(Vec::new()));
    assert_eq!(errors(&reply(502, "<html></html>")), None);
}

#[test]
fn no_text_of_vaults_reaches_users_at_length_in_lines_or_with_a_key() {
    let key = std::str::from_utf8(R1.bundle.ca_key.expose()).unwrap();
    let base64 = gate_core::ca::fixtures::base64(key.as_bytes());
    for text in [key, &base64, &"x".repeat(1 << 20), "a\nb\r\n\u{1b}[31m\0", "\u{85}"] {
        for status in [200, 204, 400, 403, 404, 405, 429, 500, 503] {
            for body in
                [json!({"errors": [text]}), json!({"errors": ["Vault is sealed", text, text]}), json!({"data": text})]
            {
                let answer = || reply(status, &body.to_string());
                // Each of these looks at the text of its refusal.
                found(&answer());
                told_of(answer());
                preflight(&answer(), &settings()).err().map(|refused| told_by(&refused.held));
                match written(&answer(), &settings()) {
                    Created::Forbidden(held) | Created::Unclear(Refused { held, .. }) => drop(told_by(&held)),
                    Created::Applied | Created::Lost => {}
                }
            }
        }
        assert_eq!(mount(200, json!({"type": text, "options": {}})), "VaultMountInvalid");
    }
}

#[test]
fn each_of_vaults_texts_of_a_5xx_is_kept_with_its_own_next_step() {
    for (text, next) in [
        ("local node not active but active cluster node not found", "Vault has no active node"),
        ("failed to determine alias name from login request", "set --vault-auth-mount"),
        ("no space left on device", "check the address"),
    ] {
        let Err(refused) = told(ADDRESS, refusal(500, text)) else { panic!("{text}") };
        assert_eq!(told_by(&refused.held), "VaultUnreachable");
        let sentence = refused.held.sentence();
        assert!(sentence.contains(&format!("(status 500 {text}): ")) && sentence.contains(next), "{sentence}");
    }
}

#[test]
fn a_token_that_vault_does_not_know_is_no_want_of_a_right() {
    let ended = refusal(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n");
    assert!(is_no_token(&ended) && !is_no_token(&refusal(403, DENIED)));
    let Err(refused) = read(&ended, &settings(), now()) else { panic!("it was read") };
    assert_eq!(told_by(&refused.held), "VaultPermissionDenied");
    assert!(refused.held.sentence().contains("invalid token") && !refused.held.sentence().contains("policy"));
}

#[test]
fn where_the_policy_has_the_right_the_metadata_is_named() {
    let said = json!({ "data": { "capabilities": ["create", "read"], "secret/data/istio/ca": ["create", "read"] } });
    let told = capabilities(&reply(200, &said.to_string())).unwrap();
    assert_eq!(told["secret/data/istio/ca"], ["create", "read"]);
    assert!(capabilities(&refusal(403, DENIED)).is_none());
    let held = metadata_stands(&settings());
    assert_eq!(told_by(&held), "VaultPermissionDenied");
    assert!(!held.sentence().contains("give its policy"), "{}", held.sentence());
}
