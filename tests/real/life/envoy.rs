//! Envoy's verification of certificates, in a handshake.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use judge::boring::{self, Purpose};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Verifies what the other side shows by AWS-LC with Envoy's flags. Signatures of the handshake are rustls' matter.
#[derive(Debug)]
pub struct AsEnvoy {
    roots: String,
    purpose: Purpose,
    signatures: Arc<dyn ClientCertVerifier>,
}

impl AsEnvoy {
    pub fn new(roots: &str, purpose: Purpose, signatures: Arc<dyn ClientCertVerifier>) -> Self {
        Self { roots: roots.to_owned(), purpose, signatures }
    }
}

impl ClientCertVerifier for AsEnvoy {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown: String = std::iter::once(leaf).chain(behind).map(|certificate| pem(certificate)).collect();
        let verified = boring::verify(self.roots.as_bytes(), None, shown.as_bytes(), self.purpose);
        verified.map_err(|why| Error::General(format!("as Envoy: {why}")))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
