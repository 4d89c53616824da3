//! `/fingerprint` of a gate, read by a client that takes nothing for granted: an answer is capped,
//! a redirect is not followed, and what it says is repeated only as far as it is a root's.

use std::collections::BTreeSet;
use std::path::Path;

use http::header::ACCEPT;
use k8s_openapi::jiff::Timestamp;
use reqwest::redirect::Policy;
use serde::Deserialize;
use url::Url;

use super::compare::{Kind, Place, Root};
use crate::ca::Sha256;
use crate::cli::source::Unread;
use crate::reason::{Reason, foreign_text, innermost};

/// Largest answer that is read. Ten roots on each side are below 4 KiB.
const ANSWER_MAX: usize = 64 << 10;

const NOT_A_GATES: &str = "its answer is not that of a gate's /fingerprint: check the address";

/// An address of `--url`. One without a path is a gate's.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let mut url: Url = text.parse().map_err(|error| format!("it is not a URL ({error})"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err("it is not an https:// or http:// address".to_owned());
    }
    // It would be printed.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a user or a password".to_owned());
    }
    if url.path() == "/" {
        url.set_path("/fingerprint");
    }
    Ok(url)
}

/// A client that trusts the CAs of this file, or else the system's where there is an `https` address.
///
/// # Errors
/// In words.
pub(super) fn client(ca_cert: Option<&Path>, any_https: bool) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_rustls()
        .redirect(Policy::none())
        // As for Vault and Kubernetes: a proxy of the environment would see what goes to an http:// address.
        .no_proxy()
        // Each place is asked once: an idle connection would only keep its descriptor.
        .pool_max_idle_per_host(0);
    if let Some(file) = ca_cert {
        let pem = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("no certificate in {} that can be used", file.display()));
        }
        builder = builder.tls_certs_only(certificates);
    } else if !any_https {
        // Without it the system's roots are loaded, and their absence is an error.
        builder = builder.tls_certs_only(Vec::new());
    }
    builder.build().map_err(|error| innermost(&error))
}

/// What a gate tells.
pub(super) async fn ask(client: &reqwest::Client, url: &Url) -> Vec<Place> {
    match answer(client, url).await {
        Ok(body) => places(url.as_str(), &body),
        Err(unread) => vec![Place { kind: Kind::Gate, name: url.to_string(), told: Err(unread) }],
    }
}

async fn answer(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, Unread> {
    let failed = |error: reqwest::Error| {
        Unread::new(format!("it does not answer ({}): check the address, the network and --ca-cert", innermost(&error)))
    };
    let mut answer = client.get(url.clone()).header(ACCEPT, "application/json").send().await.map_err(failed)?;
    match answer.status().as_u16() {
        200 => {}
        status @ 300..=399 => {
            return Err(Unread::new(format!(
                "status {status}: a redirect is not followed, give the address behind it"
            )));
        }
        status => return Err(Unread::new(format!("status {status}: check the address"))),
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(Unread::new(format!("its answer is larger than {} KiB: check the address", ANSWER_MAX >> 10)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The JSON of `GET /fingerprint`, as far as it is needed.
#[derive(Deserialize)]
struct Report {
    state: String,
    reason: Option<String>,
    message: Option<String>,
    vault: Option<Told>,
    cacerts: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    sha256: String,
    roots: Vec<String>,
    subject: Option<String>,
    not_after: String,
}

/// What an answer says: the cluster's roots, and Vault's where the gate saw others there.
fn places(url: &str, body: &[u8]) -> Vec<Place> {
    let place = |kind, name: String, told| Place { kind, name, told };
    let gate = |told| place(Kind::Gate, url.to_owned(), told);
    let Ok(report) = serde_json::from_slice::<Report>(body) else {
        return vec![gate(Err(Unread::new(NOT_A_GATES)))];
    };
    let cluster = report.cacerts.as_ref().map_or_else(|| Err(unread(&report)), root);
    let vault = report.vault.as_ref().map(root).transpose();
    match (cluster, vault) {
        (_, Err(unread)) => vec![gate(Err(unread))],
        (Ok(cluster), Ok(Some(vault))) if vault.roots != cluster.roots => {
            vec![gate(Ok(cluster)), place(Kind::GateVault, format!("{url}, of Vault"), Ok(vault))]
        }
        (cluster, _) => vec![gate(cluster)],
    }
}

fn unread(report: &Report) -> Unread {
    let reason = report.reason.as_deref().and_then(|code| Reason::ALL.iter().find(|reason| reason.as_str() == code));
    let reason = reason.copied();
    let message = report.message.as_deref().map(foreign_text).unwrap_or_default();
    let sentence = match reason {
        // It begins with the code.
        Some(reason) => message.strip_prefix(&format!("{reason}: ")).unwrap_or(&message).to_owned(),
        None => String::new(),
    };
    if sentence.is_empty() {
        let state = foreign_text(&report.state);
        return Unread { reason, sentence: format!("the gate knows of no root in cacerts (state {state})") };
    }
    Unread { reason, sentence }
}

/// Takes what a gate may have said, and nothing else.
fn root(told: &Told) -> Result<Root, Unread> {
    let sha256 = fingerprint(&told.sha256);
    let roots: Option<BTreeSet<_>> = told.roots.iter().map(|root| fingerprint(root)).collect();
    let not_after: Option<Timestamp> = told.not_after.parse().ok();
    match (sha256, roots, not_after) {
        (Some(sha256), Some(roots), Some(not_after)) if roots.contains(&sha256) => {
            Ok(Root { sha256, roots, not_after, subject: told.subject.as_deref().map(foreign_text) })
        }
        _ => Err(Unread::new(NOT_A_GATES)),
    }
}

/// `AB:CD:…`
fn fingerprint(text: &str) -> Option<Sha256> {
    let pairs: Vec<&str> = text.split(':').collect();
    let sound = pairs.len() == 32 && pairs.iter().all(|pair| pair.len() == 2);
    sound.then(|| pairs.concat().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::{Value, json};

    use super::*;

    fn sha256(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    fn told(roots: &[u8]) -> Value {
        let roots: Vec<String> = roots.iter().map(|root| sha256(*root).openssl()).collect();
        json!({ "sha256": roots[0], "sha1": "12:34", "roots": roots, "subject": "CN=Root", "notAfter": "2036-11-21T10:00:00Z" })
    }

    fn report() -> Value {
        json!({
            "cluster": "nas", "role": "sync", "state": "open", "reason": null, "message": null, "match": true,
            "vault": told(&[1]), "cacerts": told(&[1]), "more": {},
        })
    }

    fn read(change: impl FnOnce(&mut Value)) -> Vec<Place> {
        let mut report = report();
        change(&mut report);
        places("https://gate.example/fingerprint", report.to_string().as_bytes())
    }

    fn unread(places: &[Place]) -> String {
        let [Place { kind: Kind::Gate, told: Err(unread), .. }] = places else { panic!("{places:?}") };
        unread.to_string()
    }

    #[test]
    fn a_gate_tells_its_clusters_roots() {
        let [Place { kind: Kind::Gate, name, told: Ok(root) }] = &read(|_| ())[..] else { panic!() };
        assert_eq!(name, "https://gate.example/fingerprint");
        assert_eq!((root.sha256, &root.roots), (sha256(1), &BTreeSet::from([sha256(1)])));
        assert_eq!(
            (root.subject.as_deref(), root.not_after.to_string().as_str()),
            (Some("CN=Root"), "2036-11-21T10:00:00Z")
        );
    }

    #[test]
    fn an_older_gate_tells_no_subject() {
        let places = read(|report| drop(report["cacerts"].as_object_mut().unwrap().remove("subject")));
        assert_eq!(places[0].told.as_ref().unwrap().subject, None);
    }

    #[test]
    fn a_gate_that_sees_other_roots_in_vault_says_so() {
        let [_, Place { kind: Kind::GateVault, told: Ok(root), .. }] = &read(|report| report["vault"] = told(&[2]))[..]
        else {
            panic!()
        };
        assert_eq!(root.sha256, sha256(2));
        assert_eq!(read(|report| report["vault"] = Value::Null).len(), 1);
    }

    #[test]
    fn a_gate_without_a_cacerts_gives_its_reason() {
        let held = |reason: Value, message: Value| {
            unread(&read(|report| {
                report["state"] = json!("held");
                report["cacerts"] = Value::Null;
                report["reason"] = reason;
                report["message"] = message;
            }))
        };
        assert_eq!(
            held(json!("VaultSealed"), json!("VaultSealed: cluster nas: unseal it\u{1b}[0m")),
            "VaultSealed: cluster nas: unseal it [0m"
        );
        assert_eq!(held(Value::Null, Value::Null), "the gate knows of no root in cacerts (state held)");
        assert_eq!(held(json!("Nonsense"), json!("x")), "the gate knows of no root in cacerts (state held)");
    }

    #[test]
    fn what_no_gate_says_is_no_root() {
        assert_eq!(unread(&places("u", b"<html>")), NOT_A_GATES);
        assert_eq!(unread(&places("u", b"{}")), NOT_A_GATES);
        for (key, value) in [
            ("sha256", json!(sha256(2).openssl())),
            ("sha256", json!(sha256(1).to_string())),
            ("sha256", json!("4711")),
            ("roots", json!([])),
            ("roots", json!([sha256(1).openssl(), "4711"])),
            ("notAfter", json!("soon")),
        ] {
            for side in ["cacerts", "vault"] {
                assert_eq!(unread(&read(|report| report[side][key] = value.clone())), NOT_A_GATES, "{side} {key}");
            }
        }
    }

    #[test]
    fn text_of_a_gate_is_one_line_and_no_key() {
        let places = read(|report| report["cacerts"]["subject"] = json!("-----BEGIN PRIVATE KEY-----\n4711"));
        assert!(!places[0].told.as_ref().unwrap().subject.as_deref().unwrap().contains("4711"));
    }

    #[test]
    fn an_address_is_a_gates_and_holds_no_password() {
        assert_eq!(address("https://gate.example").unwrap().as_str(), "https://gate.example/fingerprint");
        assert_eq!(
            address("http://127.0.0.1:8080/a/fingerprint?x").unwrap().as_str(),
            "http://127.0.0.1:8080/a/fingerprint?x"
        );
        for wrong in ["gate.example", "ftp://gate.example/", "https://u:p@gate.example/fingerprint", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
