//! The PKI engine, as far as roots and the signers under them go. What it does is in the documentation of its API, *PKI
//! secrets engine (API)*.

mod import;
mod issuer;
mod request;
mod x509;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::asked::{Asked, Operation};
use super::moment::Moment;
use super::reply::{Refusal, Said};
use issuer::{Issuer, Key};
use request::SignerRequest;
pub(super) use request::{Made, Wanted};

/// What a mount of it is called.
pub(super) const KIND: &str = "pki";

/// Said of each certificate, as long as nobody has configured where its issuer is to be found.
const NO_AIA: &str = "This mount hasn't configured any authority information access (AIA) fields; this may make it \
    harder for systems to find missing certificates in the chain or to validate revocation status of certificates. \
    Consider updating /config/urls or the newly generated issuer with this information.";

/// A mount of PKI.
#[derive(Clone, Debug, Default)]
pub(super) struct Pki {
    /// By id.
    issuers: BTreeMap<String, Issuer>,
    keys: Vec<Key>,
    /// The first that came.
    default: Option<String>,
}

/// What a request is about, below the mount.
enum Part<'a> {
    Generate(&'a str),
    Import,
    Issuers,
    Issuer(&'a str),
    Json(&'a str),
    Pem(&'a str),
    SignIntermediate(&'a str),
    SignSelfIssued(&'a str),
    Unknown,
}

fn part(path: &str) -> Part<'_> {
    let segments: Vec<_> = path.trim_end_matches('/').split('/').collect();
    match segments[..] {
        ["root", "generate", how] => Part::Generate(how),
        ["issuers", "import", "bundle"] => Part::Import,
        ["issuers"] => Part::Issuers,
        ["issuer", name, ..] if !is_name(name) => Part::Unknown,
        ["issuer", name] => Part::Issuer(name),
        ["issuer", name, "json"] => Part::Json(name),
        ["issuer", name, "pem"] => Part::Pem(name),
        ["issuer", name, "sign-intermediate"] => Part::SignIntermediate(name),
        ["issuer", name, "sign-self-issued"] => Part::SignSelfIssued(name),
        _ => Part::Unknown,
    }
}

fn is_name(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
}

impl Pki {
    /// What is told without a token. `None`: nothing of it is.
    pub(super) fn public(&self, asked: &Asked) -> Option<Result<Said, Refusal>> {
        let found = |name: &str| self.find(name).map_err(|error| Refusal::new(500, error));
        Some(match (part(&asked.path), asked.operation) {
            (Part::Json(name), Operation::Read) => found(name).map(|issuer| Said::Data(issuer.show_in_public())),
            (Part::Pem(name), Operation::Read) => found(name).map(|issuer| Said::Pem(issuer.pem.clone())),
            (Part::Issuers, Operation::List) => Ok(self.list()),
            _ => return None,
        })
    }

    /// The root that is to be made, if this is a request for one.
    pub(super) fn wanted(&self, now: Timestamp, max_ttl: i64, asked: &Asked) -> Option<Result<Wanted, Refusal>> {
        match part(&asked.path) {
            Part::Generate("internal") if asked.is_write() => {
                let wanted = Wanted::of(now, max_ttl, asked);
                Some(wanted.and_then(|wanted| self.is_free(&wanted.name, None).map(|()| wanted)))
            }
            _ => None,
        }
    }

    /// Makes a root. Its name may have been taken meanwhile.
    pub(super) fn made(&mut self, moment: &Moment, wanted: Wanted, made: Made) -> Result<Said, Refusal> {
        self.is_free(&wanted.name, None)?;
        let key = Key::new(moment.nth_uuid(0), made.map_err(request::unfit)?);
        let pem = x509::root(moment, &wanted, &key.pair).map_err(request::unfit)?;
        let issuer = Issuer::new(moment.uuid(), wanted.name, &pem, Some(&key)).map_err(request::unfit)?;
        let data = json!({
            "certificate": pem.trim_end(), "expiration": issuer.facts.until, "issuer_id": issuer.id,
            "issuer_name": issuer.name, "issuing_ca": pem.trim_end(), "key_id": key.id, "key_name": "",
            "serial_number": issuer.facts.serial,
        });
        self.keys.push(key);
        self.add(issuer);
        Ok(Said::Told(data, vec![NO_AIA.to_owned()]))
    }

    pub(super) fn handle(&mut self, moment: &Moment, max_ttl: i64, asked: &Asked) -> Result<Said, Refusal> {
        use Operation::{Create, Delete, Patch, Read, Update};
        match (part(&asked.path), asked.operation) {
            (Part::Import, Create | Update) => self.import(moment, asked),
            (Part::Issuer(name), Read) => Ok(Said::Data(self.named(name)?.show())),
            (Part::Issuer(name), Patch) => self.patch(asked, name),
            (Part::Issuer(name), Delete) => Ok(self.delete(name)),
            (Part::SignIntermediate(name), Create | Update) => self.sign(moment, max_ttl, asked, name),
            (Part::SignSelfIssued(name), Create | Update) => self.cross(asked, name),
            (Part::Unknown | Part::Generate(_), _) => Err(Refusal::unsupported_path()),
            _ => Err(Refusal::unsupported_operation()),
        }
    }

    /// The issuer of this name or id.
    fn find(&self, reference: &str) -> Result<&Issuer, String> {
        let default = || self.default.as_ref().and_then(|id| self.issuers.get(id));
        match reference {
            "default" => default().ok_or_else(|| "no default issuer currently configured".to_owned()),
            _ => self
                .issuers
                .values()
                .find(|issuer| issuer.id == reference || issuer.name == reference)
                .ok_or_else(|| format!("unable to find PKI issuer for reference: {reference}")),
        }
    }

    fn named(&self, reference: &str) -> Result<&Issuer, Refusal> {
        self.find(reference).map_err(|error| Refusal::listed(500, &[&error]))
    }

    /// The issuer of this name, if it may sign.
    fn signing(&self, reference: &str) -> Result<(&Issuer, &Key), Refusal> {
        let issuer = self.find(reference).map_err(|error| {
            Refusal::listed(500, &[&format!("could not fetch the CA certificate (was one set?): {error}")])
        })?;
        issuer.may_issue()?;
        let key = self.keys.iter().find(|key| Some(&key.id) == issuer.key_id.as_ref());
        let without = || {
            format!(
                "could not fetch the CA certificate (was one set?): unable to fetch corresponding key for issuer {}; unable \
                 to use this issuer for signing",
                issuer.id
            )
        };
        key.map(|key| (issuer, key)).ok_or_else(|| Refusal::listed(500, &[&without()]))
    }

    fn is_free(&self, name: &str, but: Option<&str>) -> Result<(), Refusal> {
        let is_other = |issuer: &Issuer| Some(issuer.id.as_str()) != but;
        match name {
            "default" => Err(Refusal::bad("reserved keyword 'default' can not be used as issuer name")),
            name if !is_name(name) => Err(Refusal::bad("issuer name contained invalid characters")),
            "" => Ok(()),
            name if self.issuers.values().any(|issuer| issuer.name == name && is_other(issuer)) => {
                Err(Refusal::bad("issuer name already in use"))
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, issuer: Issuer) {
        self.default.get_or_insert_with(|| issuer.id.clone());
        self.issuers.insert(issuer.id.clone(), issuer);
    }

    fn delete(&mut self, name: &str) -> Said {
        let id = self.find(name).ok().map(|issuer| issuer.id.clone());
        let mut warnings = Vec::new();
        if let Some(id) = id {
            self.issuers.remove(&id);
            if self.default.as_ref() == Some(&id) {
                self.default = None;
                warnings.push(format!(
                    "Deleted issuer {id} (via issuer_ref {name}); this was configured as the default issuer. Operations \
                     without an explicit issuer will not work until a new default is configured."
                ));
            }
        }
        Said::Told(Value::Null, warnings)
    }

    fn list(&self) -> Said {
        if self.issuers.is_empty() {
            return Said::Nothing;
        }
        let info = |issuer: &Issuer| {
            json!({
                "is_default": self.default.as_ref() == Some(&issuer.id), "issuer_name": issuer.name,
                "key_id": issuer.key_id.as_deref().unwrap_or_default(), "serial_number": issuer.facts.serial,
            })
        };
        let infos: Map<_, _> = self.issuers.iter().map(|(id, issuer)| (id.clone(), info(issuer))).collect();
        let ids: Vec<_> = self.issuers.keys().collect();
        Said::Data(json!({ "key_info": infos, "keys": ids }))
    }

    fn patch(&mut self, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let mut changed = self.named(name)?.clone();
        if let Some(name) = asked.get("issuer_name").and_then(Value::as_str) {
            self.is_free(name, Some(&changed.id))?;
            name.clone_into(&mut changed.name);
        }
        changed.change(asked)?;
        let shown = changed.show();
        self.issuers.insert(changed.id.clone(), changed);
        Ok(Said::Data(shown))
    }

    /// Certifies the key of a request as that of a CA under this issuer.
    fn sign(&self, moment: &Moment, max_ttl: i64, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let request = SignerRequest::of(asked)?;
        let (issuer, key) = self.signing(name)?;
        let (until, warnings) = request.until(moment.now, max_ttl, issuer)?;
        let from = request.from(moment.now, issuer)?;
        let csr = request.csr()?;
        let pem =
            x509::signer(moment, &request, &csr, (from, until), &issuer.der, &key.pair).map_err(request::unfit)?;
        let facts = x509::facts(&pem).map_err(request::unfit)?;
        let (pem, issuing) = (pem.trim_end(), issuer.pem.trim_end());
        let data = json!({
            "ca_chain": [pem, issuing], "certificate": pem, "expiration": facts.until, "issuing_ca": issuing,
            "serial_number": facts.serial,
        });
        Ok(Said::Told(data, warnings))
    }

    /// Certifies the key and the name of another root under this issuer.
    fn cross(&self, asked: &Asked, name: &str) -> Result<Said, Refusal> {
        let der = x509::only(asked.text("certificate"))
            .ok_or_else(|| Refusal::bad("error parsing certificate: unable to parse certificate: invalid PEM"))?;
        let other = x509::facts_of(&der).map_err(request::unfit)?;
        if !other.is_self_issued {
            return Err(Refusal::bad("given certificate is not self-issued"));
        }
        let (issuer, key) = self.signing(name)?;
        let pem = x509::cross(&der, &issuer.der, &key.pair).map_err(request::unfit)?;
        Ok(Said::Data(json!({ "certificate": pem.trim_end(), "issuing_ca": issuer.pem.trim_end() })))
    }
}
