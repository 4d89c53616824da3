//! What a gate of a cluster in which all is well tells.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

#[cfg(test)]
use super::Heard;
use super::served::{Root, Told};
use crate::ca::Sha256;
#[cfg(test)]
use crate::ca::fixtures::now;

/// Of so many equal bytes.
pub fn sha256(byte: u8) -> Sha256 {
    Sha256([byte; 32])
}

/// The JSON of its `/fingerprint`.
pub fn report() -> Value {
    let root = json!({
        "sha256": sha256(1).openssl(), "sha1": "12:34", "roots": [sha256(1).openssl()], "subject": "CN=Root",
        "notAfter": "2036-11-21T10:00:00Z", "usableUntil": "2030-11-21T10:00:00Z",
    });
    json!({
        "cluster": "nas", "role": "sync", "state": "open", "reason": null, "message": null, "match": true,
        "vault": root, "cacerts": root, "more": {},
    })
}

/// A root of one certificate.
pub fn root(byte: u8) -> Root {
    Root {
        sha256: sha256(byte),
        roots: BTreeSet::from([sha256(byte)]),
        not_after: "2036-11-21T10:00:00Z".parse().unwrap(),
        usable_until: Some("2030-11-21T10:00:00Z".parse().unwrap()),
        subject: Some("CN=Root".to_owned()),
        signer: None,
    }
}

/// What is taken from it.
pub fn told(cluster: &str, byte: u8) -> Told {
    Told {
        cluster: cluster.to_owned(),
        state: "open".to_owned(),
        reason: None,
        sentence: String::new(),
        vault: Some(root(byte)),
        cacerts: Some(root(byte)),
        mesh: None,
        rotation: None,
    }
}

/// A peer that has just told this.
#[cfg(test)]
pub(crate) fn heard(told: Told) -> Heard {
    Heard { url: "https://gate.example/fingerprint".to_owned(), reached: Some(now()), told: Some(Ok(told)) }
}
