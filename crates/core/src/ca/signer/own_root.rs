//! A root that an istiod made for itself, with its key, as far as a rescue needs it: to certify one signer under it.

use std::fmt;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use zeroize::Zeroizing;

use super::super::Sha256;
use super::super::bundle::{CA_CERT, KeyPem};
use super::super::certificate::Certificate;
use super::super::flaw::Flaw;
use super::super::issue::{serial, set_validity};
use super::super::pem::certificates;
use super::{Asked, FIRST, ORGANIZATION};

/// How long before its making the signer begins: a clock that is behind stops istiod.
const BACK_DATED: i64 = 60 * 60;

/// The root and its key. Cannot be printed; the key is wiped when dropped.
pub struct OwnRoot {
    /// One block, ended by one newline.
    pub pem: String,
    /// Its fingerprint.
    pub sha256: Sha256,
    /// Its end.
    pub valid_until: Timestamp,
    key: Zeroizing<KeyPair>,
}

impl fmt::Debug for OwnRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnRoot({})", self.sha256)
    }
}

/// Why nothing is certified by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnRootFlaw {
    /// It cannot be read.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// Text, or several certificates, or one that another CA signed.
    #[error("ca-cert.pem is not one self-signed root")]
    NotOneRoot,
    /// Of no kind that is known, or broken.
    #[error("ca-key.pem cannot be read")]
    Key,
    /// Of another certificate.
    #[error("ca-key.pem is not the key of ca-cert.pem")]
    OtherKey,
}

impl OwnRoot {
    /// Reads both files.
    ///
    /// # Errors
    /// Why nothing can be certified by it.
    pub fn read(certificate: &[u8], key: &KeyPem) -> Result<Self, OwnRootFlaw> {
        let read = certificates(CA_CERT, certificate, 1).map_err(|flaw| match flaw {
            Flaw::TooManyCertificates(_) => OwnRootFlaw::NotOneRoot,
            flaw => flaw.into(),
        })?;
        let ([der], false, Ok(text)) = (&read.ders[..], read.has_text, std::str::from_utf8(certificate)) else {
            return Err(OwnRootFlaw::NotOneRoot);
        };
        let root = Certificate::parse(FIRST, der)?;
        if !root.is_self_issued() || !root.signed(&root) {
            return Err(OwnRootFlaw::NotOneRoot);
        }
        let key = std::str::from_utf8(key.expose()).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = Zeroizing::new(key.ok_or(OwnRootFlaw::Key)?);
        if key.subject_public_key_info() != root.x509.public_key().raw {
            return Err(OwnRootFlaw::OtherKey);
        }
        let pem = format!("{}\n", text.trim().replace("\r\n", "\n"));
        Ok(Self { pem, sha256: root.sha256, valid_until: root.valid_until(), key })
    }

    /// Certifies a signer, in the profile that is asked of Vault. The authority key identifier is copied from the root's
    /// own: one that was worked out anew is taken by istiod and refused by every Envoy.
    ///
    /// # Errors
    /// Where the key does not sign, or there is no randomness.
    pub fn certify(&self, asked: &Asked<'_>) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        let now = asked.at.as_second();
        set_validity(&mut params, now - BACK_DATED, now.saturating_add_unsigned(asked.life.as_secs()));
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, asked.common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&self.pem, &*self.key)?;
        let signed = params.signed_by(&*asked.key.0, &issuer)?;
        Ok(signed.pem().replace("\r\n", "\n"))
    }
}

#[cfg(test)]
mod tests;
