//! Bringing the root of a record of the shared kind into the PKI engine, with its key, which is then in Vault alone. Each
//! step finds what an earlier run has done.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::transport::Reply;
use super::said::{self, Asked, Question};
use super::{Plain, Refused, Signer, Vault, answer};
use gate_core::ca::bundle::Bundle;
use gate_core::ca::check::Sound;
use gate_core::ca::file;
use gate_core::reason::{ByItself, Held, Reason};

/// The root and its key, on their way into the engine: of the CA that signs, which has to be the root itself.
fn import(question: &Question, shared: &Sound) -> Result<Plain, Held> {
    let Bundle { ca_cert, ca_key, .. } = &*shared.bundle;
    let texts = (std::str::from_utf8(ca_cert), std::str::from_utf8(ca_key.expose()));
    let (true, (Ok(certificate), Ok(key))) = (shared.root == shared.signing_ca.sha256, texts) else {
        return Err(question.held(
            "what signs in Vault's record is not the root itself, so that the root's key is not there to be brought along",
            "leave the root where it is, or make another one in the PKI engine and change to it",
        ));
    };
    let bundle = Zeroizing::new(format!("{}\n{}\n", certificate.trim(), key.trim()));
    let quoted = serde_json::to_vec(bundle.as_str()).map(Zeroizing::new).unwrap_or_default();
    let body = Zeroizing::new([b"{\"pem_bundle\":", quoted.as_slice(), b"}"].concat());
    Ok(Plain::post_text(format!("{}/issuers/import/bundle", question.mount), body))
}

impl Vault {
    /// Brings a shared root into the engine, by this name: the same certificate to the last byte, and its key. What it is
    /// called there afterwards is told; a root that is there already keeps the name it has.
    ///
    /// # Errors
    /// Why it is not there, or not known to be. Nothing of the record is changed.
    pub async fn import_root(&mut self, name: &str, shared: &Sound) -> Result<String, Refused> {
        let question = self.question(Asked::Import { name: name.to_owned() })?;
        let import = import(&question, shared)?;
        let at = self.signs_at().await?;
        let token = self.session(at).await?;
        let reply = self.transports[at].call(import, &self.middleware(Some(&token))).await;
        let id = imported(&question, &self.answered(at, &question, reply)?)?;

        let name = match self.named(&id).await? {
            Some(name) => name,
            None => {
                let change = Plain::patch(format!("{}/issuer/{id}", question.mount), json!({ "issuer_name": name }));
                let reply = self.ask_signer(at, &question, &change).await?;
                said::changed(&question, &reply)?;
                name.to_owned()
            }
        };
        self.never_outlived(at, &name).await?;
        let there = file::first(self.issuer(&name).await?.as_bytes()).ok().map(|there| there.sha256);
        if there == Some(shared.root) { Ok(name) } else { Err(other_root(&question, &name).into()) }
    }

    /// What an issuer is called, if anything.
    async fn named(&mut self, id: &str) -> Result<Option<String>, Refused> {
        #[derive(Deserialize)]
        struct Body {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            issuer_name: String,
        }
        let question = self.question(Asked::Issuer { name: id.to_owned() })?;
        let at = self.signs_at().await?;
        let read = Plain::get(format!("{}/issuer/{id}/json", question.mount));
        let reply = self.transports[at].call(read, &self.middleware(None)).await;
        let reply = self.answered(at, &question, reply)?;
        said::issuer(&question, &reply)?;
        let body: Body = serde_json::from_slice(&reply.body).map_err(|_| said::odd(&reply))?;
        Ok(Some(body.data.issuer_name).filter(|name| !name.is_empty()))
    }

    /// Destroys the versions of the record before this one, which hold the key that was shared, and tells which.
    ///
    /// # Errors
    /// If they are not known to be destroyed.
    pub async fn destroy_before(&mut self, version: u64) -> Result<Vec<u64>, Refused> {
        let at = self.signs_at().await?;
        let (mount, path) = (self.settings.mount.clone(), self.settings.path.clone());
        let token = self.session(at).await?;
        let read = Plain::get(format!("{mount}/metadata/{path}"));
        let reply = self.transports[at].call(read, &self.middleware(Some(&token))).await;
        let reply = self.told(at, reply)?;
        let old = versions_before(&reply, version).ok_or_else(|| self.kept(&reply, "read", "metadata"))?;
        if old.is_empty() {
            return Ok(old);
        }
        let destroy = Plain::post(format!("{mount}/destroy/{path}"), json!({ "versions": old }));
        let reply = self.transports[at].call(destroy, &self.middleware(Some(&token))).await;
        let reply = self.told(at, reply)?;
        if matches!(reply.status, 200 | 204) { Ok(old) } else { Err(self.kept(&reply, "update", "destroy")) }
    }

    fn kept(&self, reply: &Reply, right: &str, part: &str) -> Refused {
        let super::super::Settings { mount, path, role, .. } = &self.settings;
        let what =
            format!("old versions of {mount}/{path} in Vault hold the shared key, and are not known to be destroyed");
        if reply.status == 403 {
            let next = format!("give role {role} `{right}` on {mount}/{part}/{path}, or destroy them by hand");
            return Held::new(Reason::VaultPermissionDenied, what, next, ByItself::Unsaid).into();
        }
        answer::unreachable(&reply.address, &format!("status {}: {what}", reply.status)).into()
    }
}

/// The id of the issuer that an import has brought or found, with its key.
fn imported(question: &Question, reply: &Reply) -> Result<String, Refused> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        mapping: BTreeMap<String, String>,
    }
    if reply.status != 200 {
        return Err(said::refused(question, reply));
    }
    let Body { data } = serde_json::from_slice(&reply.body).map_err(|_| said::odd(reply))?;
    let mut with_key = data.mapping.into_iter().filter(|(_, key)| !key.is_empty());
    match (with_key.next(), with_key.next()) {
        (Some((id, _)), None) => Ok(id),
        _ => Err(said::odd(reply)),
    }
}

fn other_root(question: &Question, name: &str) -> Held {
    let what = format!("issuer {name} of {}/ in Vault is another root than the record has", question.mount);
    question.held(what, "give that one another name, and try again")
}

/// Versions before this one that are not destroyed, by the record's metadata. `None`: that is not told.
fn versions_before(reply: &Reply, version: u64) -> Option<Vec<u64>> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        current_version: u64,
        versions: BTreeMap<String, Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        destroyed: bool,
    }
    let Body { data } = serde_json::from_slice(&reply.body).ok().filter(|_| reply.status == 200)?;
    // The one that stays has to be there.
    if data.current_version < version {
        return None;
    }
    let numbered = |(number, known): (String, Version)| Some((number.parse::<u64>().ok()?, known));
    let all: Vec<_> = data.versions.into_iter().map(numbered).collect::<Option<_>>()?;
    let old = all.into_iter().filter(|(number, known)| *number < version && !known.destroyed);
    let mut old: Vec<_> = old.map(|(number, _)| number).collect();
    old.sort_unstable();
    Some(old)
}
