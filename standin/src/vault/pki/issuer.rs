//! An issuer, and what is told of it.

use std::sync::Arc;

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::super::asked::Asked;
use super::super::fields;
use super::super::reply::Refusal;
use super::x509::{self, Facts};

/// A private key, which never leaves.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) pair: Arc<KeyPair>,
}

impl Key {
    pub(super) fn new(id: String, pair: KeyPair) -> Self {
        Self { id, pair: Arc::new(pair) }
    }
}

/// What an issuer may be used for, in the order in which Vault lists it.
const USAGES: [&str; 4] = ["crl-signing", ISSUING, "ocsp-signing", "read-only"];
const ISSUING: &str = "issuing-certificates";

/// A certificate, and what it may be used for.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    pub(super) id: String,
    /// May be empty.
    pub(super) name: String,
    pub(super) key_id: Option<String>,
    /// Ends with a newline.
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    pub(super) facts: Facts,
    usage: Vec<&'static str>,
    /// What becomes of a certificate that would end after it.
    not_after_behavior: String,
}

impl Issuer {
    pub(super) fn new(id: String, name: String, pem: &str, key: Option<&Key>) -> Result<Self, String> {
        let der = x509::only(pem).ok_or("invalid PEM")?;
        let facts = x509::facts_of(&der)?;
        let usage = USAGES.into_iter().filter(|usage| *usage != "crl-signing" || facts.may_sign_lists).collect();
        Ok(Self {
            id,
            name,
            key_id: key.map(|key| key.id.clone()),
            pem: format!("{}\n", pem.trim_end()),
            der,
            facts,
            usage,
            not_after_behavior: "err".to_owned(),
        })
    }

    pub(super) fn may_issue(&self) -> Result<(), Refusal> {
        if self.usage.contains(&ISSUING) {
            return Ok(());
        }
        let Self { id, name, .. } = self;
        let error = format!(
            "error fetching CA certificate: error while attempting to use issuer {id}: requested usage {ISSUING} for \
             issuer [id:{id} / name:{name}] but only had usage {}",
            self.usage.join(",")
        );
        Err(Refusal::listed(500, &[&error]))
    }

    /// Whether a certificate that would end after it is refused, and not cut.
    pub(super) fn is_strict(&self) -> bool {
        self.not_after_behavior == "always_enforce_err"
    }

    pub(super) fn change(&mut self, asked: &Asked) -> Result<(), Refusal> {
        if let Some(behavior) = asked.get("leaf_not_after_behavior").and_then(Value::as_str) {
            if !["err", "truncate", "permit", "always_enforce_err"].contains(&behavior) {
                return Err(Refusal::bad(
                    "Unknown value for field `leaf_not_after_behavior`. Possible values are `err`, `truncate`, and `permit`.",
                ));
            }
            behavior.clone_into(&mut self.not_after_behavior);
        }
        if let Some(wanted) = asked.get("usage").and_then(fields::strings) {
            if wanted.iter().any(|usage| !USAGES.contains(&usage.as_str())) {
                return Err(Refusal::bad(format!(
                    "Unable to parse specified usages: [{}] - valid values are crl-signing,issuing-certificates,ocsp-signing,read-only",
                    wanted.join(" ")
                )));
            }
            // It can always be read.
            let is_wanted = |usage: &&str| *usage == "read-only" || wanted.iter().any(|wanted| wanted == usage);
            self.usage = USAGES.into_iter().filter(is_wanted).collect();
        }
        Ok(())
    }

    pub(super) fn show_in_public(&self) -> Value {
        json!({ "ca_chain": [self.pem], "certificate": self.pem, "issuer_id": self.id, "issuer_name": self.name })
    }

    pub(super) fn show(&self) -> Value {
        json!({
            "ca_chain": [self.pem], "certificate": self.pem, "crl_distribution_points": [],
            "delta_crl_distribution_points": [], "enable_aia_url_templating": false, "issuer_id": self.id,
            "issuer_name": self.name, "issuing_certificates": [],
            "key_id": self.key_id.as_deref().unwrap_or_default(),
            "leaf_not_after_behavior": self.not_after_behavior, "manual_chain": null, "ocsp_servers": [],
            "revocation_signature_algorithm": if self.facts.may_sign_lists { self.facts.algorithm } else { "" },
            "revoked": false, "usage": self.usage.join(","),
        })
    }
}
