//! Certificates for the servers of the tests.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256,
};

/// A CA made for one server, or one test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate and its private key, both PEM.
#[derive(Debug)]
pub struct Identity {
    /// The leaf certificate.
    pub certificate_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// Makes a CA with this common name.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// The CA's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a serving certificate for DNS names and IP addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate_pem, key_pem: key.serialize_pem() })
    }
}

/// Writes `ca.pem`, `serving.pem` and `serving-key.pem` for a server on 127.0.0.1, and returns the CA.
pub(crate) fn write_serving_files(folder: &Path, common_name: &str) -> Result<Authority> {
    let authority = Authority::new(common_name)?;
    let serving = authority.issue(&["127.0.0.1", "localhost"])?;
    fs::write(folder.join("ca.pem"), authority.certificate_pem())?;
    fs::write(folder.join("serving.pem"), serving.certificate_pem)?;
    fs::write(folder.join("serving-key.pem"), serving.key_pem)?;
    Ok(authority)
}

/// The key pair with which a cluster signs its service-account tokens: private and public PEM. RSA, as kubeadm's.
pub fn token_signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}
