//! This cluster's signer: the key that it has made for itself, and what Vault certified of it. The key is in `cacerts`
//! and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, Error, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::bundle::{Beside, Bundle, CA_CERT, KeyPem, ROOT_CERT};
use super::certificate::{Certificate, timestamp};
use super::check::{Sound, check};
use super::der::{self, Reader, SEQUENCE};
use super::flaw::{At, Flaw};
use super::pem::certificates;
use super::record::SigningRecord;
use super::shape::id;
use super::{Sha256, file};

mod due;
mod own_root;
mod seen;
pub use due::renewal_due;
pub use own_root::{OwnRoot, OwnRootFlaw};
pub use seen::{SeenSigner, seen};

/// How far Vault's clock may be off from this one, and an answer on its way.
const SKEW: Duration = Duration::from_mins(10);

const ORGANIZATION: &str = "Istio";

/// The common name of this cluster's signer.
pub fn common_name(cluster: &str) -> String {
    format!("Istio Intermediate CA {cluster}")
}

/// A signer's private key, P-256: cannot be printed, and is wiped when dropped.
pub struct SignerKey(Zeroizing<KeyPair>);

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignerKey(…)")
    }
}

impl SignerKey {
    /// A new one.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(|key| Self(Zeroizing::new(key)))
    }

    /// The one that is in use here already, sound or not. Another CA's is not taken: what all clusters had of the shared
    /// kind must not sign for one.
    pub fn kept(files: &Bundle, common_name: &str) -> Option<Self> {
        let ders = certificates(CA_CERT, &files.ca_cert, 1).ok()?.ders;
        let signer = Certificate::parse(FIRST, ders.first()?).ok()?;
        let key = KeyPair::from_pem(std::str::from_utf8(files.ca_key.expose()).ok()?).ok().map(Zeroizing::new)?;
        let fits = key.is_compatible(&PKCS_ECDSA_P256_SHA256)
            && key.subject_public_key_info() == signer.x509.public_key().raw
            && names(&signer.x509) == Some(common_name)
            && !signer.is_self_issued();
        fits.then_some(Self(key))
    }

    /// The request that Vault certifies: the key and the name, and nothing else.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn request(&self, common_name: &str) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(&*self.0)?.pem()
    }

    /// Whether the two are one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.subject_public_key_info() == other.0.subject_public_key_info()
    }

    fn pem(&self) -> KeyPem {
        KeyPem::new(self.0.serialize_pem().into_bytes())
    }
}

/// The signing CA of a bundle, as the check has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningCa {
    /// Its certificate.
    pub sha256: Sha256,
    /// Its beginning.
    pub valid_from: Timestamp,
    /// Its end.
    pub valid_until: Timestamp,
}

impl SigningCa {
    pub(super) fn of(certificate: &Certificate<'_>) -> Self {
        let validity = certificate.x509.validity();
        let [valid_from, valid_until] = [validity.not_before, validity.not_after].map(timestamp);
        Self { sha256: certificate.sha256, valid_from, valid_until }
    }
}

/// What is asked of Vault.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of this key.
    pub key: &'a SignerKey,
    /// By this name.
    pub common_name: &'a str,
    /// For so long.
    pub life: Duration,
    /// When.
    pub at: Timestamp,
}

/// Why what Vault gave for a signer is not published. The text is constant for a cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerFlaw {
    /// The issuer that signs is not trusted by the record that names it.
    #[error("the certificate of its issuer is not in root-cert.pem of the record")]
    UntrustedIssuer,
    /// The cross is of another root.
    #[error("chain.pem of the record certifies another root than its issuer")]
    OtherCross,
    /// Several certificates, or text, or none.
    #[error("it is not one PEM block of a certificate")]
    NotOne,
    /// It cannot be read, or could not be used.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// Of another key.
    #[error("it has another key than was asked for")]
    OtherKey,
    /// By another name.
    #[error("it has another name than was asked for")]
    OtherName,
    /// It would let others sign.
    #[error("its path length is not 0")]
    PathLength,
    /// It does not say that it may sign.
    #[error("it has no key usage with keyCertSign")]
    NoKeyCertSign,
    /// It is somebody's, too.
    #[error("it has alternative names")]
    AlternativeName,
    /// Ztunnel refuses some of them.
    #[error("it has name constraints")]
    NameConstraints,
    /// Not signed by the issuer that was asked.
    #[error("it is not signed by the issuer that was asked")]
    OtherIssuer,
    /// The most dangerous one: nothing but the mesh itself notices.
    #[error(
        "its authority key identifier is not its issuer's subject key identifier: istiod takes it, and every Envoy refuses it"
    )]
    KeyIdentifier,
    /// Envoy takes it for another's.
    #[error("its authority key identifier names issuer and serial number, which Envoy refuses beside a cross")]
    IssuerAndSerial,
    /// Vault has cut its life.
    #[error("it ends before what was asked for")]
    EndsEarly,
    /// Vault's clock is ahead, or the set-up is.
    #[error("it is not valid yet")]
    BeginsLate,
}

impl SignerFlaw {
    /// What makes it right.
    pub fn remedy(&self) -> String {
        match self {
            Self::UntrustedIssuer => "name an issuer in the record whose certificate it trusts".to_owned(),
            Self::OtherCross => "put the issuer's cross into chain.pem, or take it out".to_owned(),
            Self::EndsEarly => {
                "look at the end of the issuer's certificate, and at the mount's max-lease-ttl".to_owned()
            }
            Self::Flaw(flaw) => flaw.remedy(),
            _ => "look at what Vault's PKI engine makes of it: its issuer, and the policy of deploy/".to_owned(),
        }
    }
}

const FIRST: At = At { file: CA_CERT, position: 1 };

/// The root that certifies, if the record trusts it and its cross is of it.
///
/// # Errors
/// Why nothing may be certified by it.
pub fn issuing_root(record: &SigningRecord, issuer: &str) -> Result<Sha256, SignerFlaw> {
    let root = file::first(issuer.as_bytes()).map_err(|_| SignerFlaw::NotOne)?.sha256;
    match record.cross() {
        _ if !record.roots().contains(&root) => Err(SignerFlaw::UntrustedIssuer),
        Some(cross) if cross.of != root => Err(SignerFlaw::OtherCross),
        _ => Ok(root),
    }
}

/// The files to be published with what Vault has certified, once it is seen to be what was asked for and to be of use to
/// everybody.
///
/// # Errors
/// Why it must not be published.
pub fn certified(record: &SigningRecord, issuer: Sha256, answer: &str, asked: &Asked<'_>) -> Result<Sound, SignerFlaw> {
    let ders = certificates(CA_CERT, answer.as_bytes(), 1).map_err(|flaw| match flaw {
        Flaw::TooManyCertificates(_) => SignerFlaw::NotOne,
        flaw => flaw.into(),
    })?;
    let [der] = &ders.ders[..] else { return Err(SignerFlaw::NotOne) };
    if ders.has_text {
        return Err(SignerFlaw::NotOne);
    }
    let roots = certificates(ROOT_CERT, &record.root_cert, usize::MAX)?.ders;
    let issuer = roots.iter().enumerate().find(|(_, der)| Sha256::of(der) == issuer);
    let (index, issuer) = issuer.ok_or(SignerFlaw::UntrustedIssuer)?;
    let issuer = Certificate::parse(At { file: ROOT_CERT, position: index + 1 }, issuer)?;
    let signer = Certificate::parse(FIRST, der)?;
    check_asked(&signer, asked)?;
    check_issued(&signer, &issuer)?;

    let ca_cert = format!("{}\n", answer.trim()).into_bytes();
    let bundle = Bundle {
        root_cert: record.root_cert.clone(),
        cert_chain: [ca_cert.as_slice(), &record.chain].concat(),
        ca_cert,
        ca_key: asked.key.pem(),
        beside: Beside::default(),
    };
    Ok(check(bundle, asked.at)?)
}

fn check_asked(signer: &Certificate<'_>, asked: &Asked<'_>) -> Result<(), SignerFlaw> {
    let has = |id| signer.extension(id).is_some();
    let usage = signer.x509.key_usage().ok().flatten();
    let ends = asked.at.saturating_add(asked.life.saturating_sub(SKEW)).unwrap_or(Timestamp::MAX);
    let flaws = [
        (signer.x509.public_key().raw != asked.key.0.subject_public_key_info(), SignerFlaw::OtherKey),
        (names(&signer.x509) != Some(asked.common_name), SignerFlaw::OtherName),
        (signer.path_length() != Some(0), SignerFlaw::PathLength),
        (!usage.is_some_and(|usage| usage.value.key_cert_sign()), SignerFlaw::NoKeyCertSign),
        (has(id::ALTERNATIVE_NAME), SignerFlaw::AlternativeName),
        (has(id::NAME_CONSTRAINTS), SignerFlaw::NameConstraints),
        (signer.valid_until() < ends, SignerFlaw::EndsEarly),
        (signer.valid_from() > asked.at, SignerFlaw::BeginsLate),
    ];
    first(flaws)?;
    Ok(signer.check_ca(false)?)
}

fn check_issued(signer: &Certificate<'_>, issuer: &Certificate<'_>) -> Result<(), SignerFlaw> {
    let value = signer.extension(id::AUTHORITY_KEY).and_then(|one| der::only(one.value, SEQUENCE));
    let mut reader = Reader::new(value.unwrap_or_default());
    let mut next = |tag| reader.optional(tag).flatten();
    let (key, name, serial) = (next(0x80), next(0xa1), next(0x82));
    first([
        (!issuer.signed(signer), SignerFlaw::OtherIssuer),
        (name.is_some() || serial.is_some(), SignerFlaw::IssuerAndSerial),
        (key.is_none() || key != issuer.key_identifier(), SignerFlaw::KeyIdentifier),
    ])
}

fn first<const N: usize>(flaws: [(bool, SignerFlaw); N]) -> Result<(), SignerFlaw> {
    flaws.into_iter().find_map(|(is_there, flaw)| is_there.then_some(flaw)).map_or(Ok(()), Err)
}

/// The common name, where that is the one name it has.
fn names<'a>(x509: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = x509.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(name)
}

/// How signers are made here.
#[derive(Clone, Debug)]
pub struct SignerTerms {
    /// This cluster, by whose name its signer is called.
    pub cluster: String,
    /// `--signer-life`.
    pub life: Duration,
}

/// A key that may be in use in several places, and is wiped with the last of them.
pub type SharedKey = Arc<SignerKey>;

#[cfg(test)]
mod tests;
