#![allow(clippy::unwrap_used)]

use rustify::Endpoint;
use serde_json::{Value, json};

use super::super::super::samples::reply;
use super::*;
use gate_core::samples::{R1, R1_OTHER_CA, assert_fit_for_users};

fn question() -> Question {
    Question {
        mount: "pki-mesh".to_owned(),
        role: "istio-ca-rotate".to_owned(),
        asked: Asked::Import { name: "root-1".to_owned() },
    }
}

#[test]
fn what_is_brought_along_is_the_root_and_its_key_and_nothing_else() {
    let request = import(&question(), &R1).unwrap();
    let body: Value = serde_json::from_slice(&request.body().unwrap().unwrap()).unwrap();
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().trim().to_owned();
    let wanted = format!("{}\n{}\n", text(&R1.bundle.ca_cert), text(R1.bundle.ca_key.expose()));
    assert_eq!(body, json!({ "pem_bundle": wanted }));
    assert_eq!(request.path(), "pki-mesh/issuers/import/bundle");
}

#[test]
fn a_root_whose_key_is_elsewhere_is_not_brought_along() {
    let held = import(&question(), &R1_OTHER_CA).err().unwrap();
    assert_fit_for_users(&held.message("nas"));
    assert_eq!(held.reason, Reason::SigningRefused);
}

#[test]
fn what_an_import_brings_or_finds_is_the_one_issuer_with_a_key() {
    let of =
        |mapping: Value| imported(&question(), &reply(200, &json!({ "data": { "mapping": mapping } }).to_string()));
    assert_eq!(of(json!({ "i": "k" })), Ok("i".to_owned()));
    assert_eq!(of(json!({ "i": "k", "other": "" })), Ok("i".to_owned()));
    for odd in [json!({}), json!({ "i": "" }), json!({ "i": "k", "j": "l" }), Value::Null] {
        assert_eq!(of(odd).unwrap_err().held.reason, Reason::VaultUnreachable);
    }
    let denied = reply(403, "{\"errors\": [\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}");
    let sentence = imported(&question(), &denied).unwrap_err().held.sentence();
    assert!(sentence.contains("bring root-1 along at pki-mesh/issuers/import/bundle"), "{sentence}");
}

#[test]
fn old_versions_are_those_before_the_one_that_stays() {
    let metadata = json!({ "data": { "current_version": 10, "versions": {
        "1": { "destroyed": true }, "2": { "destroyed": false }, "9": { "destroyed": false }, "10": { "destroyed": false },
    } } });
    let told = reply(200, &metadata.to_string());
    assert_eq!(versions_before(&told, 10), Some(vec![2, 9]));
    assert_eq!(versions_before(&told, 2), Some(vec![]));
    assert_eq!(versions_before(&told, 11), None);
    for odd in [reply(403, &metadata.to_string()), reply(200, "{}"), reply(404, "{\"errors\": []}")] {
        assert_eq!(versions_before(&odd, 10), None);
    }
}
