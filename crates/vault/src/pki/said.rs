//! What the PKI engine's answers mean. Pure; every status and text that Vault is known to give has its own case.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::super::transport::Reply;
use super::super::{Refused, answer};
use super::ttl;
use gate_core::ca::file;
use gate_core::reason::{ByItself, Held, Reason, foreign_text};

/// A root that ends sooner is none to begin with. Vault's own, unless it is told otherwise, lives for 32 days.
const ROOT_AT_LEAST: SignedDuration = SignedDuration::from_hours(365 * 24);

const TUNE: &str = "vault secrets tune -max-lease-ttl=87600h";

/// What was asked, of whom and as whom.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) mount: String,
    pub(super) role: String,
    pub(super) asked: Asked,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// What kind of engine there is.
    Mount,
    /// An issuer's certificate.
    Issuer { name: String },
    /// A signer's certificate.
    Signer { issuer: String, common_name: String, ttl: String },
    /// A root.
    Root { name: String, life: Duration },
    /// That an issuer's signers end before it.
    Behavior { issuer: String },
    /// That a root is brought along with its key.
    Import { name: String },
    /// Whether an issuer may certify.
    Usage { issuer: String },
    /// That it may, or may no more.
    NewUsage { issuer: String },
    /// Another root's certificate by this issuer.
    Cross { issuer: String },
}

impl Question {
    fn issuer(&self) -> &str {
        match &self.asked {
            Asked::Mount => "",
            Asked::Issuer { name } | Asked::Root { name, .. } | Asked::Import { name } => name,
            Asked::Signer { issuer, .. }
            | Asked::Behavior { issuer }
            | Asked::Usage { issuer }
            | Asked::NewUsage { issuer }
            | Asked::Cross { issuer } => issuer,
        }
    }

    /// The right that it takes, and for what.
    fn right(&self) -> String {
        let Self { mount, .. } = self;
        match &self.asked {
            Asked::Mount => format!("look at {mount}"),
            Asked::Issuer { name } => format!("read {mount}/issuer/{name}/json"),
            Asked::Signer { issuer, common_name, ttl } => {
                format!("certify {common_name} for {ttl} at {mount}/issuer/{issuer}/sign-intermediate")
            }
            Asked::Root { name, .. } => format!("make {name} at {mount}/root/generate/internal"),
            Asked::Import { name } => format!("bring {name} along at {mount}/issuers/import/bundle"),
            Asked::Behavior { issuer } => format!("patch leaf_not_after_behavior of {mount}/issuer/{issuer}"),
            Asked::Usage { issuer } => format!("read {mount}/issuer/{issuer}"),
            Asked::NewUsage { issuer } => format!("patch usage of {mount}/issuer/{issuer}"),
            Asked::Cross { issuer } => format!("certify a root at {mount}/issuer/{issuer}/sign-self-issued"),
        }
    }

    pub(super) fn held(&self, what: impl Into<String>, next: impl Into<String>) -> Held {
        Held::new(Reason::SigningRefused, what, next, ByItself::Unsaid)
    }

    fn no_engine(&self, why: &str) -> Held {
        let mount = &self.mount;
        self.held(
            format!("{mount}/ in Vault has no root to sign under ({why})"),
            "set --vault-pki-mount to the PKI engine that has it; if that was disabled, bring it back from a backup of Vault, for its keys were nowhere else",
        )
    }

    fn retired(&self) -> Held {
        let (mount, issuer) = (&self.mount, self.issuer());
        self.held(
            format!("issuer {issuer} of {mount}/ in Vault may not issue any more"),
            format!(
                "it was retired: the record has to name another one; if that is a mistake, `vault patch {mount}/issuer/{issuer} usage=read-only,issuing-certificates,crl-signing`"
            ),
        )
    }

    fn keyless(&self) -> Held {
        let (mount, issuer) = (&self.mount, self.issuer());
        self.held(
            format!("issuer {issuer} of {mount}/ in Vault is there without its key"),
            format!(
                "bring the key along, if it is anywhere: `vault write {mount}/issuers/import/bundle pem_bundle=@FILE`"
            ),
        )
    }

    fn no_issuer(&self) -> Held {
        let (mount, issuer) = (&self.mount, self.issuer());
        self.held(
            format!("{mount}/ in Vault has no issuer {issuer}"),
            format!(
                "if it has another name now (`vault list -detailed {mount}/issuers`), give it this one back; else bring it back from a backup of Vault"
            ),
        )
    }

    fn root_ends(&self) -> Held {
        let Self { mount, .. } = self;
        let issuer = self.issuer();
        let what = match &self.asked {
            Asked::Signer { ttl, .. } => {
                format!("root {issuer} of {mount}/ in Vault ends before a signer of {ttl} would")
            }
            _ => format!("root {issuer} of {mount}/ in Vault ends too soon"),
        };
        self.held(what, "change the root (docs/operate.md), or set a shorter --signer-life here and in the policy")
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    data: Data,
    warnings: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Data {
    certificate: Option<String>,
    usage: Option<String>,
}

/// What the engine says of an issuer that was brought along without its key.
const NO_KEY: &str = "unable to fetch corresponding key for issuer";

/// No flag says where to ask.
pub(super) fn no_mount() -> Held {
    Held::new(
        Reason::SigningRefused,
        "Vault's record names an issuer of the PKI engine, and this gate is not told where that is mounted",
        "set --vault-pki-mount (GATE_VAULT_PKI_MOUNT)",
        ByItself::Unsaid,
    )
}

/// What Vault says, without the count that it puts before a single error.
fn text(reply: &Reply) -> String {
    let said = answer::errors(reply).unwrap_or_default().join("; ");
    foreign_text(said.trim_start_matches("1 error occurred:").trim_matches(['\n', '\t', '*', ' ']))
}

/// Whether this status of a server in trouble is the engine's answer to the question.
pub(super) fn is_answer(reply: &Reply) -> bool {
    let said = answer::errors(reply).unwrap_or_default();
    let says = |words: &str| said.iter().any(|said| said.contains(words));
    let words = ["requested usage", "PKI issuer", "default issuer", NO_KEY];
    reply.status == 500 && words.into_iter().any(says)
}

/// The meaning of a refusal, by its cause.
pub(super) fn refused(question: &Question, reply: &Reply) -> Refused {
    let said = text(reply);
    let issuer = question.issuer();
    let mount = &question.mount;
    let held = match reply.status {
        403 if answer::is_no_token(reply) => return answer::no_token().into(),
        403 if matches!(question.asked, Asked::Issuer { .. }) => {
            return question.no_engine("no PKI engine is mounted there").into();
        }
        403 => question.held(
            format!("Vault does not let role {} {}", question.role, question.right()),
            "compare its policy with the one that the set-up writes: name, life and all else have to be the same to the letter",
        ),
        404 if said.contains("no handler for route") => return question.no_engine("nothing is mounted there").into(),
        404 | 405 => return question.no_engine("it is no PKI engine").into(),
        _ if said.contains("requested usage") => question.retired(),
        _ if said.contains(NO_KEY) => question.keyless(),
        500 => question.no_issuer(),
        _ if said.contains("cannot satisfy request, as TTL") || said.contains("notAfter before") => question.root_ends(),
        _ if said.contains("notBefore before") => Held::without_next(
            Reason::SigningRefused,
            format!("issuer {issuer} of {mount}/ in Vault is younger than the hour by which signers are dated back"),
            ByItself::TriedAgain,
        ),
        400 => question.held(
            format!("{mount}/ in Vault does not {}", question.right()),
            "see `istio-ca-gate explain SigningRefused`",
        ),
        status => {
            let what = format!("asking it to {} gave status {status} {said}", question.right());
            return answer::unreachable(&reply.address, what.trim_end()).into();
        }
    };
    if said.is_empty() || reply.status == 403 {
        held.into()
    } else {
        held.because(format!("Vault says: {said}")).into()
    }
}

fn body(question: &Question, reply: &Reply) -> Result<Body, Refused> {
    if reply.status != 200 {
        return Err(refused(question, reply));
    }
    serde_json::from_slice(&reply.body).map_err(|_| odd(reply))
}

pub(super) fn odd(reply: &Reply) -> Refused {
    answer::unreachable(&reply.address, "an answer of its PKI engine that is not Vault's").into()
}

/// The one certificate of an answer, ended by exactly one newline.
fn certificate(reply: &Reply, data: Data) -> Result<String, Refused> {
    let pem = data.certificate.ok_or_else(|| odd(reply))?;
    let pem = pem.trim();
    let is_one = pem.starts_with("-----BEGIN") && pem.ends_with("-----") && pem.matches("-----BEGIN").count() == 1;
    if is_one && file::roots(pem.as_bytes()).is_ok() { Ok(format!("{pem}\n")) } else { Err(odd(reply)) }
}

/// The meaning of an answer to the read of an issuer.
pub(super) fn issuer(question: &Question, reply: &Reply) -> Result<String, Refused> {
    let body = body(question, reply)?;
    certificate(reply, body.data)
}

/// What an issuer may do, by the answer to the read of it.
pub(super) fn usage(question: &Question, reply: &Reply) -> Result<Vec<String>, Refused> {
    let usage = body(question, reply)?.data.usage.ok_or_else(|| odd(reply))?;
    Ok(usage.split(',').map(|one| one.trim().to_owned()).collect())
}

/// The meaning of an answer to a request for a signer's certificate. One with a shorter life than asked for is none:
/// Vault only warns of it.
pub(super) fn signer(question: &Question, reply: &Reply) -> Result<String, Refused> {
    let Body { data, warnings } = body(question, reply)?;
    let warns = |words: &str| warnings.iter().flatten().any(|warning| warning.contains(words));
    if warns("longer than permitted maxTTL") {
        let mount = &question.mount;
        let what = format!("{mount}/ in Vault shortens what it signs: its max_lease_ttl is less than a signer's life");
        return Err(question.held(what, format!("`{TUNE} {mount}`")).into());
    }
    if warns("notAfter was truncated") {
        return Err(question.root_ends().into());
    }
    certificate(reply, data)
}

/// What is told of a mount.
#[derive(Deserialize)]
struct Mounted {
    data: Engine,
}

#[derive(Deserialize)]
struct Engine {
    path: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    config: EngineConfig,
}

#[derive(Deserialize)]
struct EngineConfig {
    max_lease_ttl: u64,
}

/// Holds unless the mount is one in which a root of that life can be made: in another, Vault shortens it without a word.
pub(super) fn mount(question: &Question, reply: &Reply) -> Result<(), Refused> {
    let Question { mount, role, asked } = question;
    match reply.status {
        200 => {}
        403 if answer::is_no_token(reply) => return Err(answer::no_token().into()),
        403 => {
            return Err(question
                .held(
                    format!("Vault does not tell role {role} what is mounted at {mount}"),
                    format!("its policy needs a right below {mount}/, or there is no such mount"),
                )
                .into());
        }
        status => {
            let what = format!("asking for mount {mount} gave status {status}");
            return Err(answer::unreachable(&reply.address, &what).into());
        }
    }
    let Mounted { data } = serde_json::from_slice(&reply.body).map_err(|_| odd(reply))?;
    if data.kind != "pki" || data.path.is_some_and(|path| path.trim_matches('/') != mount) {
        return Err(question.no_engine("it is no PKI engine").into());
    }
    if let Asked::Root { life, .. } = asked
        && data.config.max_lease_ttl < life.as_secs()
    {
        let what = format!("{mount}/ in Vault would shorten the root: its max_lease_ttl is less than {}", ttl(*life));
        return Err(question.held(what, format!("`{TUNE} {mount}`")).into());
    }
    Ok(())
}

/// The meaning of an answer to the request for a root. That there is one of this name is as good as having made it.
pub(super) fn made(question: &Question, reply: &Reply) -> Result<(), Refused> {
    match reply.status {
        200 => Ok(()),
        400 if text(reply).contains("issuer name already in use") => Ok(()),
        _ => Err(refused(question, reply)),
    }
}

/// The meaning of an answer to a change of an issuer.
pub(super) fn changed(question: &Question, reply: &Reply) -> Result<(), Refused> {
    body(question, reply).map(drop)
}

/// Holds unless a root lasts long enough to begin with it, whoever made it.
pub(super) fn lasting(question: &Question, pem: String, now: Timestamp) -> Result<String, Refused> {
    let until = file::first(pem.as_bytes()).ok().map(|root| root.not_after);
    if until.is_some_and(|until| until.duration_since(now) >= ROOT_AT_LEAST) {
        return Ok(pem);
    }
    let Question { mount, .. } = question;
    let issuer = question.issuer();
    let what = format!("root {issuer} of {mount}/ in Vault ends within a year, and nothing is signed under it yet");
    let next = format!("`{TUNE} {mount}`, then `vault delete {mount}/issuer/{issuer}`: the gate makes it anew");
    Err(question.held(what, next).into())
}
