#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};

use super::super::samples::reply;
use super::super::transport::Reply;
use super::said::{self, Asked, Question};
use super::*;
use gate_core::ca::fixtures::{Ca, now};
use gate_core::reason::{ByItself, Reason};
use gate_core::samples::assert_fit_for_users;

fn question(asked: Asked) -> Question {
    Question { mount: "pki-mesh".to_owned(), role: "istio-ca-sync".to_owned(), asked }
}

fn of_signer() -> Question {
    question(Asked::Signer {
        issuer: "root-1".to_owned(),
        common_name: "Istio Intermediate CA nas".to_owned(),
        ttl: "2160h".to_owned(),
    })
}

fn of_root() -> Question {
    question(Asked::Root { name: "root-1".to_owned(), life: ROOT_LIFE })
}

fn of_issuer() -> Question {
    question(Asked::Issuer { name: "root-1".to_owned() })
}

fn of_behavior() -> Question {
    question(Asked::Behavior { issuer: "root-1".to_owned() })
}

/// Vault's shape of a refusal.
fn refusal(status: u16, text: &str) -> Reply {
    reply(status, &json!({ "errors": [text] }).to_string())
}

/// One in a list of its own, as most of the engine's are.
fn listed(status: u16, text: &str) -> Reply {
    refusal(status, &format!("1 error occurred:\n\t* {text}\n\n"))
}

fn pem() -> String {
    Ca::root("root").certificate.pem()
}

fn signed(certificate: &str, warnings: Value) -> Reply {
    reply(200, &json!({ "data": { "certificate": certificate }, "warnings": warnings }).to_string())
}

/// The sentence of a refusal, after a look at it.
fn told<T: std::fmt::Debug>(result: Result<T, Refused>) -> (Reason, String) {
    let held = result.unwrap_err().held;
    assert_fit_for_users(&held.message("nas"));
    (held.reason, held.sentence())
}

fn refused(question: &Question, reply: &Reply) -> String {
    let (reason, sentence) = told(Err::<(), _>(said::refused(question, reply)));
    assert_eq!(reason, Reason::SigningRefused, "{sentence}");
    sentence
}

const RETIRED: &str = "error fetching CA certificate: error while attempting to use issuer 925ce8a2-a996-5e6f-7db9-89aca0b44b63: requested usage issuing-certificates for issuer [id:925ce8a2-a996-5e6f-7db9-89aca0b44b63 / name:root-1] but only had usage crl-signing,read-only";
const NO_ISSUER: &str =
    "could not fetch the CA certificate (was one set?): unable to find PKI issuer for reference: root-1";
const ENDS: &str = "cannot satisfy request, as TTL would result in notAfter of 2036-11-25T06:40:53.52085579Z that is beyond the expiration of the CA certificate at 2036-11-25T06:40:26Z";
const NO_KEY: &str = "could not fetch the CA certificate (was one set?): unable to fetch corresponding key for issuer 660db9ec-69d0-9586-06e8-f901a1c66cb6; unable to use this issuer for signing";
const DENIED: &str = "permission denied";
const NO_ROUTE: &str = "no handler for route \"pki-mesh/issuer/root-1/sign-intermediate\". route entry not found.";

#[test]
fn each_cause_has_vaults_words_and_its_own_next_step() {
    for (reply, parts) in [
        (
            listed(500, RETIRED),
            [
                "issuer root-1 of pki-mesh/ in Vault may not issue any more",
                "requested usage",
                "usage=read-only,issuing-certificates",
            ],
        ),
        (
            listed(500, NO_ISSUER),
            ["pki-mesh/ in Vault has no issuer root-1", "unable to find PKI issuer", "give it this one back"],
        ),
        (
            refusal(400, ENDS),
            [
                "root root-1 of pki-mesh/ in Vault ends before a signer of 2160h would",
                "notAfter of …",
                "change the root",
            ],
        ),
        (
            listed(500, NO_KEY),
            [
                "issuer root-1 of pki-mesh/ in Vault is there without its key",
                "corresponding key",
                "issuers/import/bundle",
            ],
        ),
        (refusal(400, "notAfter before notBefore"), ["ends before a signer", "notAfter before", "change the root"]),
        (
            refusal(400, "notBefore before signer's notBefore"),
            ["is younger than the hour", "notBefore before", "it is tried again by itself"],
        ),
        (
            listed(403, DENIED),
            [
                "does not let role istio-ca-sync certify Istio Intermediate CA nas for 2160h",
                "pki-mesh/issuer/root-1/sign-intermediate",
                "compare its policy",
            ],
        ),
        (
            refusal(404, NO_ROUTE),
            ["pki-mesh/ in Vault has no root to sign under", "nothing is mounted there", "--vault-pki-mount"],
        ),
        (
            reply(404, "{\"warnings\": [\"Invalid path for a versioned K/V secrets engine.\"]}"),
            ["pki-mesh/ in Vault", "it is no PKI engine", "--vault-pki-mount"],
        ),
        (listed(405, "unsupported operation"), ["pki-mesh/ in Vault", "it is no PKI engine", "--vault-pki-mount"]),
        (
            refusal(400, "\"csr\" is empty"),
            ["pki-mesh/ in Vault does not certify", "\"csr\" is empty", "explain SigningRefused"],
        ),
    ] {
        let sentence = refused(&of_signer(), &reply);
        for part in parts {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
        assert!(!sentence.contains("error occurred"), "{sentence}");
    }
}

#[test]
fn a_token_that_vault_does_not_know_is_not_the_policys_fault() {
    let reply = refusal(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n");
    for question in [of_signer(), of_root(), of_issuer(), of_behavior()] {
        assert_eq!(said::refused(&question, &reply).held.reason, Reason::VaultPermissionDenied);
        assert_eq!(told(said::mount(&question, &reply)).0, Reason::VaultPermissionDenied);
    }
}

#[test]
fn a_500_of_the_engine_is_an_answer_and_any_other_is_not() {
    for text in [RETIRED, NO_ISSUER, NO_KEY, "no default issuer currently configured"] {
        assert!(said::is_answer(&listed(500, text)) && !said::is_answer(&listed(503, text)), "{text}");
    }
    for reply in [
        refusal(500, "internal error"),
        refusal(500, "failed to write to storage"),
        refusal(503, "Vault is sealed"),
        reply(500, "<html>PKI issuer</html>"),
        reply(200, "{}"),
    ] {
        assert!(!said::is_answer(&reply));
    }
}

#[test]
fn no_refusal_is_an_answer_about_the_root() {
    for reply in [listed(500, RETIRED), listed(403, DENIED), refusal(404, NO_ROUTE), refusal(400, ENDS)] {
        let refused = said::refused(&of_signer(), &reply);
        assert!(refused.held.reason == Reason::SigningRefused && refused.contradiction().is_none(), "{refused:?}");
    }
}

#[test]
fn what_is_no_answer_of_vaults_is_no_certificate() {
    for reply in [
        reply(200, "<html></html>"),
        reply(200, "{}"),
        signed("", Value::Null),
        signed("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", Value::Null),
        signed(&format!("{0}{0}", pem()), Value::Null),
        signed(&format!("{}x", pem()), Value::Null),
        reply(418, "{}"),
    ] {
        assert_eq!(told(said::signer(&of_signer(), &reply)).0, Reason::VaultUnreachable);
        assert_eq!(told(said::issuer(&of_issuer(), &reply)).0, Reason::VaultUnreachable);
    }
}

#[test]
fn a_certificate_ends_with_one_newline() {
    let pem = pem();
    for of_vault in [pem.trim_end().to_owned(), pem.clone(), format!("{pem}\n\n")] {
        let reply = signed(&of_vault, Value::Null);
        assert_eq!(said::signer(&of_signer(), &reply).unwrap(), pem);
        assert_eq!(said::issuer(&of_issuer(), &reply).unwrap(), pem);
    }
}

#[test]
fn a_life_that_vault_has_shortened_is_none() {
    let aia = "This mount hasn't configured any authority information access (AIA) fields";
    let zero = "Max path length of the signed certificate is zero.";
    let pem = pem();
    assert_eq!(said::signer(&of_signer(), &signed(&pem, json!([aia, zero]))).unwrap(), pem);
    let shorter = "TTL \"2160h0m0s\" is longer than permitted maxTTL \"768h0m0s\", so maxTTL is being used";
    let cut = "the signed intermediary CA certificate's notAfter was truncated to the issuer's notAfter";
    // That of the mount is told first: with it, the other follows.
    for (warnings, part) in [
        (json!([aia, zero, shorter, cut]), "vault secrets tune -max-lease-ttl=87600h pki-mesh"),
        (json!([aia, cut]), "ends before a signer of 2160h would"),
    ] {
        let (reason, sentence) = told(said::signer(&of_signer(), &signed(&pem, warnings)));
        assert!(reason == Reason::SigningRefused && sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_root_of_that_name_is_as_good_as_one_that_was_made() {
    assert_eq!(said::made(&of_root(), &reply(200, "{}")), Ok(()));
    assert_eq!(said::made(&of_root(), &refusal(400, "issuer name already in use")), Ok(()));
    for reply in [refusal(400, "unknown key type x"), listed(403, DENIED), refusal(404, NO_ROUTE)] {
        assert_eq!(told(said::made(&of_root(), &reply)).0, Reason::SigningRefused);
    }
    assert!(refused(&of_root(), &listed(403, DENIED)).contains("make root-1 at pki-mesh/root/generate/internal"));
}

#[test]
fn a_root_is_made_only_where_it_may_live_for_ten_years() {
    let mount = |kind: &str, max: u64| {
        let body = json!({ "data": { "path": "pki-mesh/", "type": kind, "config": { "max_lease_ttl": max } } });
        said::mount(&of_root(), &reply(200, &body.to_string()))
    };
    assert_eq!(mount("pki", 315_360_000), Ok(()));
    for (result, part) in [
        (mount("pki", 2_764_800), "vault secrets tune -max-lease-ttl=87600h pki-mesh"),
        (mount("pki", 315_359_999), "its max_lease_ttl is less than 87600h"),
        (mount("kv", 315_360_000), "it is no PKI engine"),
        (said::mount(&of_root(), &refusal(403, "preflight capability check returned 403")), "does not tell role"),
    ] {
        let (reason, sentence) = told(result);
        assert!(reason == Reason::SigningRefused && sentence.contains(part), "{sentence}");
    }
    for odd in [reply(200, "{}"), reply(404, "{}")] {
        assert_eq!(told(said::mount(&of_root(), &odd)).0, Reason::VaultUnreachable);
    }
}

#[test]
fn a_root_that_ends_within_a_year_is_none_to_begin_with() {
    let days = |days: i64| {
        let until = now().as_second() + days * 24 * 3600;
        Ca::root_but("root", |params| gate_core::ca::issue::set_validity(params, 0, until)).certificate.pem()
    };
    let long = days(366);
    assert_eq!(said::lasting(&of_root(), long.clone(), now()), Ok(long));
    let (reason, sentence) = told(said::lasting(&of_root(), days(32), now()));
    assert!(reason == Reason::SigningRefused && sentence.contains("vault delete pki-mesh/issuer/root-1"), "{sentence}");
    assert!(said::lasting(&of_root(), String::new(), now()).is_err());
}

#[test]
fn a_change_that_is_refused_names_the_right_it_takes() {
    assert_eq!(said::changed(&of_behavior(), &reply(200, "{\"data\": {}}")), Ok(()));
    let sentence = refused(&of_behavior(), &listed(403, DENIED));
    assert!(sentence.contains("patch leaf_not_after_behavior of pki-mesh/issuer/root-1"), "{sentence}");
}

#[test]
fn without_a_token_a_missing_mount_is_a_403() {
    assert!(refused(&of_issuer(), &refusal(403, DENIED)).contains("no PKI engine is mounted there"));
}

#[test]
fn a_gate_that_is_not_told_of_the_engine_says_so() {
    let held = said::no_mount();
    assert_fit_for_users(&held.message("nas"));
    assert!(held.sentence().contains("GATE_VAULT_PKI_MOUNT") && held.by_itself == ByItself::Unsaid, "{held:?}");
}

#[test]
fn a_life_is_written_as_the_policies_have_it() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!([hours(2160), ROOT_LIFE, Duration::from_secs(120)].map(ttl), ["2160h", "87600h", "120s"]);
}
