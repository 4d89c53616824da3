//! Vault's record of the *signing* kind: the roots that are trusted, and which issuer of Vault's PKI engine certifies
//! the clusters' signers. It has no key.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde_json::{Map, Value};

mod anchors;
mod rotation;

use super::bundle::{CA_KEY, Glance, KEY, MAX_BUNDLE, ROOT_CERT};
use super::flaw::{Flaw, Until};
use super::{InvalidSha256, Sha256};
use anchors::Anchors;
pub use rotation::{InvalidRotation, Rotation, SEEN, Sighting};
use std::collections::BTreeSet;

/// `issuer`: whose name in the PKI engine it is that signers are certified by.
pub const ISSUER: &str = "issuer";
/// `chain.pem`: the issuer's root, certified by the one before it; what stands behind the signer in `cert-chain.pem`.
pub const CHAIN: &str = "chain.pem";
/// `rotation`: where a change of the root leads, and what it waits for.
pub const ROTATION: &str = "rotation";

/// The longest name of an issuer.
const MAX_NAME: usize = 128;

/// A record of the signing kind that passed the check of what is trusted.
#[derive(Clone, Debug)]
pub struct SigningRecord {
    /// `root-cert.pem`, to be published byte for byte.
    pub root_cert: Vec<u8>,
    /// Who certifies. `None`: each cluster keeps the signer that it has.
    pub issuer: Option<IssuerName>,
    /// `chain.pem`; empty without a cross.
    pub chain: Vec<u8>,
    /// The change of the root that is under way. A gate does nothing by it, so that one that cannot be read keeps
    /// nobody out.
    pub rotation: Option<Result<Rotation, InvalidRotation>>,
    anchors: Anchors,
}

/// The name of an issuer of the PKI engine, fit to be a part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerName(String);

/// Not such a name. `default` is none: it stands for another issuer from one day to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of an issuer has letters, digits, dots, dashes and underscores, and is not `default`")]
pub struct InvalidIssuerName;

impl FromStr for IssuerName {
    type Err = InvalidIssuerName;

    fn from_str(text: &str) -> Result<Self, InvalidIssuerName> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let starts = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !starts || text.len() > MAX_NAME || !text.bytes().all(is_part) || text == "default" {
            return Err(InvalidIssuerName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl IssuerName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for IssuerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What of a record decides what clusters have to publish: two with the same are one to them, whatever their versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordState(Sha256);

impl fmt::Display for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordState {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, InvalidSha256> {
        text.parse().map(Self)
    }
}

impl SigningRecord {
    /// Whether a record's data is of this kind. One with a key is of the shared kind, whatever else it has.
    pub fn is_signing(data: &Map<String, Value>) -> bool {
        let has = |key| data.contains_key(key);
        (has(ISSUER) || has(ROTATION)) && !has(KEY) && !has(CA_KEY)
    }

    /// Reads and checks it. Keys that it does not know are left alone.
    ///
    /// # Errors
    /// Why no signer may be published by it.
    pub fn parse(data: &Map<String, Value>, now: Timestamp) -> Result<Self, Flaw> {
        let text = |key: &'static str| match data.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Flaw::NotText(key)),
        };
        let root_cert = text(ROOT_CERT)?.ok_or(Flaw::Missing(ROOT_CERT))?;
        if root_cert.is_empty() {
            return Err(Flaw::Empty(ROOT_CERT));
        }
        let issuer = text(ISSUER)?.map(str::parse).transpose().map_err(|_| Flaw::IssuerName)?;
        let chain = text(CHAIN)?.unwrap_or_default();
        if root_cert.len() + chain.len() > MAX_BUNDLE {
            return Err(Flaw::TooLarge);
        }
        let rotation = data.get(ROTATION).map(Rotation::parse);
        let lasts = rotation.as_ref().and_then(|read| read.as_ref().ok()).map(|rotation| rotation.ttl);
        let anchors = Anchors::check(root_cert.as_bytes(), chain.as_bytes(), lasts, now)?;
        let [root_cert, chain] = [root_cert, chain].map(|text| text.as_bytes().to_vec());
        Ok(Self { root_cert, issuer, chain, rotation, anchors })
    }

    /// The data of a record that trusts one root alone, by which signers are certified.
    pub fn first(root_cert: &str, issuer: &IssuerName) -> Map<String, Value> {
        [(ROOT_CERT, root_cert), (ISSUER, issuer.as_str())]
            .map(|(key, text)| (key.to_owned(), Value::String(text.to_owned())))
            .into_iter()
            .collect()
    }

    /// The change of the root that is under way, where it can be read.
    pub fn under_way(&self) -> Option<&Rotation> {
        self.rotation.as_ref()?.as_ref().ok()
    }

    /// What clusters have to publish, as one number.
    pub fn state(&self) -> RecordState {
        let mut context = digest::Context::new(&digest::SHA256);
        let issuer = self.issuer.as_ref().map_or("", IssuerName::as_str);
        for part in [self.root_cert.as_slice(), issuer.as_bytes(), &self.chain] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        RecordState(Sha256(bytes))
    }

    /// All roots that are trusted.
    pub fn roots(&self) -> &BTreeSet<Sha256> {
        &self.anchors.glance.roots
    }

    /// For people.
    pub fn glance(&self) -> &Glance {
        &self.anchors.glance
    }

    /// When the last of its roots ends.
    pub fn usable_until(&self) -> Until {
        self.anchors.usable_until
    }

    /// The root that is certified once more in `chain.pem`, and the one that did it.
    pub fn cross(&self) -> Option<Cross> {
        self.anchors.cross
    }
}

/// A root that another root certified, for those who trust only that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cross {
    /// The root that it is another certificate of.
    pub of: Sha256,
    /// The root that signed it.
    pub by: Sha256,
}

#[cfg(test)]
mod tests;
