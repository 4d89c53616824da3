//! `/fingerprint` of another gate, read by a client that takes nothing for granted: an answer is capped,
//! a redirect is not followed, and what it says is repeated only as far as it is a root's.

use std::collections::BTreeSet;
use std::path::Path;

use http::header::ACCEPT;
use k8s_openapi::jiff::Timestamp;
use reqwest::redirect::Policy;
use url::Url;

use crate::ca::{Glance, Sha256};
use crate::life::attestation::NAMED_MOST;
use crate::reason::{Reason, foreign_text, gates_sentence, innermost};
use crate::report::{Report, ReportedMesh, ReportedRoot, ReportedRotation, ReportedSigner, UsableUntil, stamp};

/// Largest answer that is read. Ten roots on each side are below 4 KiB.
const ANSWER_MAX: usize = 64 << 10;

/// What is wrong with an answer that does not have a gate's shape.
pub const NOT_A_GATES: &str = "its answer is not that of a gate's /fingerprint: check the address";

/// The address of a gate's `/fingerprint`. One without a path is a gate's.
pub fn address(text: &str) -> Result<Url, String> {
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

/// Asks gates.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The flag by which a CA is trusted, to be named where one is not.
    trusted_by: &'static str,
}

/// What a gate tells of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub cluster: String,
    /// How its gate stands: `open`, `held`, and so on.
    pub state: String,
    /// The reason code, if it is one.
    pub reason: Option<Reason>,
    /// The sentence that goes with it, without the code.
    pub sentence: String,
    /// The roots that it saw in Vault.
    pub vault: Option<Root>,
    /// The roots of its `cacerts`.
    pub cacerts: Option<Root>,
    /// What its mesh works with, where it attests to that.
    pub mesh: Option<ReportedMesh>,
    /// The change of the root that it saw.
    pub rotation: Option<ReportedRotation>,
}

/// The roots of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of the first.
    pub sha256: Sha256,
    /// All of them.
    pub roots: BTreeSet<Sha256>,
    /// The end of the first.
    pub not_after: Timestamp,
    /// Until when the whole CA passes the check. `None`: only its roots were seen, or it does not pass, or an older gate
    /// tells it.
    pub usable_until: Option<Timestamp>,
    /// The subject of the first. Older gates do not tell it.
    pub subject: Option<String>,
    /// The cluster's own signer, where it has one.
    pub signer: Option<ReportedSigner>,
}

impl From<Glance> for Root {
    fn from(glance: Glance) -> Self {
        let Glance { sha256, roots, not_after, subject, .. } = glance;
        Self { sha256, roots, not_after, usable_until: None, subject: Some(subject), signer: None }
    }
}

impl Client {
    /// Trusts the CAs of this file, or else the system's where there is an `https` address. `trusted_by` is the flag
    /// that names the file.
    ///
    /// # Errors
    /// In words.
    pub fn new(ca_cert: Option<&Path>, any_https: bool, trusted_by: &'static str) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .redirect(Policy::none())
            // As for Vault and Kubernetes: a proxy of the environment would see what goes to an http:// address.
            .no_proxy()
            // A place is asked once, or seldom: an idle connection would only keep its descriptor.
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
        let http = builder.build().map_err(|error| innermost(&error))?;
        Ok(Self { http, trusted_by })
    }

    /// What a gate tells. The caller sets the deadline.
    ///
    /// # Errors
    /// Why it tells nothing, and what to do.
    pub async fn ask(&self, url: &Url) -> Result<Told, String> {
        Told::parse(&self.answer(url).await?)
    }

    async fn answer(&self, url: &Url) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| {
            let (cause, trusted_by) = (innermost(&error), self.trusted_by);
            format!("it does not answer ({cause}): check the address, the network and {trusted_by}")
        };
        let asked = self.http.get(url.clone()).header(ACCEPT, "application/json");
        let mut answer = asked.send().await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => {}
            status @ 300..=399 => {
                return Err(format!("status {status}: a redirect is not followed, give the address behind it"));
            }
            status => return Err(format!("status {status}: check the address")),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(format!("its answer is larger than {} KiB: check the address", ANSWER_MAX >> 10));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Told {
    /// Takes what a gate may have said, and nothing else.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let Ok(report) = serde_json::from_slice::<Report>(body) else { return Err(NOT_A_GATES.to_owned()) };
        let reason =
            report.reason.as_deref().and_then(|code| Reason::ALL.iter().find(|reason| reason.as_str() == code));
        let message = report.message.as_deref().map(gates_sentence).unwrap_or_default();
        let sentence = match reason {
            // It begins with the code.
            Some(reason) => message.strip_prefix(&format!("{reason}: ")).unwrap_or(&message).to_owned(),
            None => String::new(),
        };
        let vault = report.vault.as_ref().map(|side| root(&side.root, &side.end));
        let cacerts = report.cacerts.as_ref().map(|side| {
            let signer = side.signer.as_ref().and_then(signer);
            root(&side.root, &side.end).map(|root| Root { signer, ..root })
        });
        Ok(Self {
            cluster: foreign_text(&report.cluster),
            state: foreign_text(&report.state),
            reason: reason.copied(),
            sentence,
            vault: vault.transpose()?,
            cacerts: cacerts.transpose()?,
            mesh: report.mesh.as_ref().and_then(mesh),
            rotation: report.rotation.as_ref().and_then(rotation),
        })
    }
}

fn root(told: &ReportedRoot, end: &UsableUntil) -> Result<Root, String> {
    let read = || {
        let sha256 = fingerprint(&told.sha256)?;
        let roots: BTreeSet<_> = told.roots.iter().map(|root| fingerprint(root)).collect::<Option<_>>()?;
        let not_after = told.not_after.parse().ok()?;
        let subject = (!told.subject.is_empty()).then(|| foreign_text(&told.subject));
        let usable_until = end.at.as_ref().and_then(|end| end.parse().ok());
        roots.contains(&sha256).then_some(Root { sha256, roots, not_after, usable_until, subject, signer: None })
    };
    read().ok_or_else(|| NOT_A_GATES.to_owned())
}

/// A moment that can be read, told anew.
fn moment(text: &str) -> Option<String> {
    Some(stamp(text.parse().ok()?))
}

/// The same of one that may not be there.
fn some_moment(text: Option<&str>) -> Option<Option<String>> {
    text.map_or(Some(None), |text| moment(text).map(Some))
}

fn names(told: &[String]) -> Vec<String> {
    told.iter().take(NAMED_MOST).map(|name| foreign_text(name)).collect()
}

/// What a mesh works with, told anew.
fn mesh(told: &ReportedMesh) -> Option<ReportedMesh> {
    Some(ReportedMesh {
        settled: some_moment(told.settled.as_deref())?,
        why: told.why.as_deref().map(foreign_text),
        istiods_behind: names(&told.istiods_behind),
        namespaces_behind: names(&told.namespaces_behind),
        at: moment(&told.at)?,
        ..*told
    })
}

/// A change of the root, told anew.
fn rotation(told: &ReportedRotation) -> Option<ReportedRotation> {
    let goal_sha256 = match &told.goal_sha256 {
        Some(text) => Some(fingerprint(text)?.openssl()),
        None => None,
    };
    Some(ReportedRotation {
        goal: foreign_text(&told.goal),
        goal_sha256,
        from: names(&told.from),
        next: told.next.as_deref().map(foreign_text),
        not_before: some_moment(told.not_before.as_deref())?,
        paused: told.paused,
        ttl: foreign_text(&told.ttl),
        started: moment(&told.started)?,
        by: foreign_text(&told.by),
        clusters: names(&told.clusters),
    })
}

/// A signer that can be read, told anew.
fn signer(told: &ReportedSigner) -> Option<ReportedSigner> {
    Some(ReportedSigner {
        sha256: fingerprint(&told.sha256)?.openssl(),
        root: fingerprint(&told.root)?.openssl(),
        not_after: moment(&told.not_after)?,
        renewal_due: moment(&told.renewal_due)?,
    })
}

/// `AB:CD:…`
fn fingerprint(text: &str) -> Option<Sha256> {
    let pairs: Vec<&str> = text.split(':').collect();
    let sound = pairs.len() == 32 && pairs.iter().all(|pair| pair.len() == 2);
    sound.then(|| pairs.concat().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::peers::samples::{report, sha256};

    fn read(change: impl FnOnce(&mut Value)) -> Result<Told, String> {
        let mut report = report();
        change(&mut report);
        Told::parse(report.to_string().as_bytes())
    }

    #[test]
    fn a_gate_tells_its_cluster_its_state_and_its_roots() {
        let told = read(|_| ()).unwrap();
        assert_eq!((told.cluster.as_str(), told.state.as_str(), told.reason), ("nas", "open", None));
        let root = told.cacerts.unwrap();
        assert_eq!((root.sha256, &root.roots), (sha256(1), &BTreeSet::from([sha256(1)])));
        assert_eq!(
            (root.subject.as_deref(), root.not_after.to_string().as_str()),
            (Some("CN=Root"), "2036-11-21T10:00:00Z")
        );
        assert_eq!(root.usable_until.unwrap().to_string(), "2030-11-21T10:00:00Z");
    }

    #[test]
    fn an_older_gate_tells_neither_a_subject_nor_until_when_its_ca_can_be_used() {
        let without = |key: &str| {
            let told = read(|report| drop(report["cacerts"].as_object_mut().unwrap().remove(key))).unwrap();
            told.cacerts.unwrap()
        };
        assert_eq!(without("subject").subject, None);
        assert_eq!(without("usableUntil").usable_until, None);
    }

    #[test]
    fn a_code_that_is_none_has_no_sentence() {
        let told = read(|report| {
            report["reason"] = json!("Nonsense");
            report["message"] = json!("Nonsense: x");
        });
        assert_eq!(told.map(|told| (told.reason, told.sentence)), Ok((None, String::new())));
    }

    #[test]
    fn what_no_gate_says_is_no_root() {
        assert_eq!(Told::parse(b"<html>"), Err(NOT_A_GATES.to_owned()));
        assert_eq!(Told::parse(b"{}"), Err(NOT_A_GATES.to_owned()));
        for (key, value) in [
            ("sha256", json!(sha256(2).openssl())),
            ("sha256", json!(sha256(1).hex())),
            ("sha256", json!("4711")),
            ("roots", json!([])),
            ("roots", json!([sha256(1).openssl(), "4711"])),
            ("notAfter", json!("soon")),
        ] {
            for side in ["cacerts", "vault"] {
                let told = read(|report| report[side][key] = value.clone());
                assert_eq!(told, Err(NOT_A_GATES.to_owned()), "{side} {key}");
            }
        }
    }

    #[test]
    fn text_of_a_gate_is_one_line_and_no_key() {
        let hostile = json!("-----BEGIN PRIVATE KEY-----\n4711");
        let told = read(|report| {
            for field in ["cluster", "state", "message"] {
                report[field] = hostile.clone();
            }
            report["reason"] = json!("VaultSealed");
            report["cacerts"]["subject"] = hostile.clone();
        });
        assert!(!format!("{:?}", told.unwrap()).contains("4711"));
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
