//! The files of a CA, by their digests: what istiod reads from `cacerts`, and what Vault's record stands for.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which file of `cacerts` is which key of the record, first to last choice.
const FILES: [(&str, &[&str]); 4] = [
    ("root-cert.pem", &["root-cert.pem"]),
    ("cert-chain.pem", &["cert-chain.pem"]),
    ("ca-cert.pem", &["ca-cert.pem", "cert-chain.pem"]),
    ("ca-key.pem", &["ca-key.pem", "key.pem"]),
];

/// A CA as it stands somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// SHA-256 of each root's DER.
    pub roots: BTreeSet<String>,
    /// SHA-256 of each of the four files.
    pub digests: BTreeMap<String, String>,
}

impl Files {
    /// What a record of Vault stands for: text by key.
    pub fn of_record(record: &Value) -> Self {
        Self::of(|keys| keys.iter().find_map(|key| record[*key].as_str()).map(|text| text.as_bytes().to_vec()))
    }

    /// The files of a Secret: base64 by name.
    pub fn of_secret(data: &Value) -> Self {
        Self::of(|keys| {
            let name = FILES.iter().find(|(_, of)| of == &keys)?.0;
            STANDARD.decode(data[name].as_str()?).ok()
        })
    }

    fn of(file: impl Fn(&'static [&'static str]) -> Option<Vec<u8>>) -> Self {
        let mut files = Self::default();
        for (name, keys) in FILES {
            let Some(bytes) = file(keys) else { continue };
            if name == "root-cert.pem" {
                files.roots = certificates(&String::from_utf8_lossy(&bytes)).iter().map(|der| sha256(der)).collect();
            }
            files.digests.insert(name.to_owned(), sha256(&bytes));
        }
        files
    }

    /// Whether all four are there.
    pub fn is_whole(&self) -> bool {
        self.digests.len() == FILES.len() && !self.roots.is_empty()
    }
}

/// Lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The DER of each PEM block of this label.
pub fn blocks(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let bodies = text.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next());
    bodies.filter_map(|body| STANDARD.decode(body.split_whitespace().collect::<String>()).ok()).collect()
}

/// The DER of each certificate.
pub fn certificates(text: &str) -> Vec<Vec<u8>> {
    blocks(text, "CERTIFICATE")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_and_the_secret_that_it_stands_for_are_the_same_files() {
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode("der"));
        let record = json!({ "root-cert.pem": pem, "cert-chain.pem": pem, "key.pem": "key" });
        let secret = json!({
            "root-cert.pem": STANDARD.encode(&pem), "cert-chain.pem": STANDARD.encode(&pem),
            "ca-cert.pem": STANDARD.encode(&pem), "ca-key.pem": STANDARD.encode("key"),
        });
        let files = Files::of_record(&record);
        assert_eq!(files, Files::of_secret(&secret));
        assert!(files.is_whole());
        assert_eq!(files.roots, BTreeSet::from([sha256(b"der")]));
        assert_ne!(files, Files::of_record(&json!({ "root-cert.pem": pem, "cert-chain.pem": pem, "key.pem": "k" })));
        assert!(!Files::of_record(&json!({ "root-cert.pem": pem })).is_whole());
    }

    /// As `openssl x509 -fingerprint -sha256` and FIPS 180 have it.
    #[test]
    fn a_digest_is_the_one_that_everybody_computes() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
