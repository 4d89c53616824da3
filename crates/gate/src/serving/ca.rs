//! The CA of the service's own certificates, and the leaves that it signs.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::leaf::Leaf;
use crate::ca::Sha256;
use crate::ca::issue::set_validity;

/// Clocks of API server and node differ.
pub const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// A CA's certificate, as far as anything is decided by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    /// What it is told apart by.
    pub id: Sha256,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// Itself.
    pub pem: String,
}

impl CaCertificate {
    /// The CA certificates of a PEM file, in its order.
    ///
    /// # Errors
    /// In words that repeat nothing of it.
    pub fn all_of(pem: &[u8]) -> Result<Vec<Self>, String> {
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            certificates.push(Self::of(&der.map_err(|_| "a certificate is not PEM")?)?);
        }
        Ok(certificates)
    }

    fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, x509) =
            x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| "a certificate is not X.509")?;
        if !x509.is_ca() {
            return Err("a certificate is not a CA's".to_owned());
        }
        Ok(Self {
            id: Sha256::of(der),
            not_before: moment(x509.validity().not_before.timestamp()),
            not_after: moment(x509.validity().not_after.timestamp()),
            pem: pem_of(der),
        })
    }

    /// Whether it is valid at this time.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// When two thirds of its life are over.
    pub fn due(&self) -> Timestamp {
        // It was made later than it says.
        let made = later(self.not_before, BACKDATE).min(self.not_after);
        self.not_after - self.not_after.duration_since(made) / 3
    }
}

/// Written as rcgen does, so that it is the same bytes wherever it comes from.
fn pem_of(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem += &String::from_utf8_lossy(line);
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// A CA with its key.
pub struct ServingCa {
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
}

impl ServingCa {
    /// Makes a new one that lives for so long.
    ///
    /// # Errors
    /// In words, if the crypto library cannot.
    pub fn make(now: Timestamp, life: SignedDuration) -> Result<Self, String> {
        let words = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = name("istio-ca-gate serving CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, (now - BACKDATE).as_second(), later(now, life).as_second());
        let key = KeyPair::generate().map_err(words)?;
        let certificate = CaCertificate::of(params.self_signed(&key).map_err(words)?.der())?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Takes up the one of these certificates whose key this is.
    ///
    /// # Errors
    /// In words, if it is no key, or that of none of them.
    pub fn with_key(certificates: &[CaCertificate], key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|_| "its key cannot be read")?;
        for certificate in certificates {
            if public_key(&certificate.pem).is_some_and(|public| public == key.subject_public_key_info()) {
                let issuer = Issuer::from_ca_cert_pem(&certificate.pem, key).map_err(|error| error.to_string())?;
                return Ok(Self { certificate: certificate.clone(), issuer });
            }
        }
        Err("its key is not its certificate's".to_owned())
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// What callers have to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate.pem
    }

    /// For the Secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Signs a leaf for these names that lives for so long, and no longer than this CA.
    ///
    /// # Errors
    /// In words, if a name cannot be in a certificate.
    pub(super) fn leaf(&self, names: &[String], now: Timestamp, life: SignedDuration) -> Result<Leaf, String> {
        let words = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::new(names).map_err(words)?;
        params.distinguished_name = name("istio-ca-gate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after = later(now, life).min(self.certificate.not_after);
        set_validity(&mut params, (now - BACKDATE).as_second(), not_after.as_second());
        let key = KeyPair::generate().map_err(words)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(words)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = any_supported_type(&der).map_err(|error| error.to_string())?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signing);
        Ok(Leaf { certified: Arc::new(certified), not_before: now - BACKDATE, not_after, made: now })
    }
}

/// A certificate's second. Its years go up to 9999, whose end often means "never".
pub(super) fn moment(second: i64) -> Timestamp {
    let limit = if second < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(second).unwrap_or(limit)
}

/// Where the dates are somebody else's, there need not be a later one.
pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn public_key(pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, x509) = x509_parser::certificate::X509Certificate::from_der(&der).ok()?;
    Some(x509.public_key().raw.to_vec())
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn what_was_made_is_taken_up_from_pem() {
        let (one, other) = (ServingCa::make(now(), HOUR).unwrap(), ServingCa::make(now(), HOUR).unwrap());
        let bundle = [one.certificate_pem(), other.certificate_pem()].concat();
        let certificates = CaCertificate::all_of(bundle.as_bytes()).unwrap();
        assert_eq!(certificates, [one.certificate().clone(), other.certificate().clone()]);
        for ca in [&one, &other] {
            let taken_up = ServingCa::with_key(&certificates, &ca.key_pem()).unwrap();
            assert_eq!(taken_up.certificate(), ca.certificate());
        }
        assert!(ServingCa::with_key(&certificates[..1], &other.key_pem()).is_err());
        assert!(ServingCa::with_key(&certificates, "no key").is_err());
    }

    #[test]
    fn pem_is_rcgens() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(CaCertificate::of(certificate.der()).unwrap().pem, certificate.pem());
    }

    #[test]
    fn a_ca_is_due_at_two_thirds_of_its_life() {
        let certificate = ServingCa::make(now(), HOUR * 3).unwrap().certificate().clone();
        assert_eq!(certificate.due(), now() + HOUR * 2);
        // Others' certificates are not dated back.
        let short = CaCertificate { not_after: certificate.not_before + HOUR / 2, ..certificate };
        assert_eq!(short.due(), short.not_after);
    }

    #[test]
    fn a_leaf_ends_no_later_than_its_ca() {
        let ca = ServingCa::make(now(), HOUR).unwrap();
        let leaf = |life| ca.leaf(&["gate.test".to_owned()], now(), life).unwrap();
        assert_eq!(leaf(HOUR / 2).not_after, now() + HOUR / 2);
        assert_eq!(leaf(HOUR * 2).not_after, ca.certificate().not_after);
    }

    #[test]
    fn dates_at_the_end_of_time_make_no_panic() {
        for (from, until) in [(0, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN), (253_402_300_799, 0)] {
            let (not_before, not_after) = (moment(from), moment(until));
            let certificate = CaCertificate { id: Sha256([0; 32]), not_before, not_after, pem: String::new() };
            assert!(certificate.due() <= certificate.not_after);
            assert!(ServingCa::make(later(not_after, HOUR).max(now()), HOUR).is_ok());
        }
    }

    #[test]
    fn what_is_no_ca_is_refused() {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().self_signed(&key).unwrap();
        assert!(CaCertificate::all_of(leaf.pem().as_bytes()).is_err());
        let cut = ServingCa::make(now(), HOUR).unwrap().certificate_pem().replace("-----END", "");
        assert!(CaCertificate::all_of(cut.as_bytes()).is_err());
    }
}
