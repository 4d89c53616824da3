//! A TLS handshake for the certificates that are presented in it. Nothing is said over the connection, and nothing is
//! trusted by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::Sha256;
use crate::life::witness::Presented;

/// Longest wait for one istiod: it is next door.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Shakes hands with istiods.
pub(super) struct Handshake(Option<TlsConnector>);

impl Handshake {
    pub(super) fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        Self(config.ok().map(|config| {
            let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Onlooker(provider)));
            TlsConnector::from(Arc::new(config.with_no_client_auth()))
        }))
    }

    /// What stands behind the leaf of whoever listens there.
    pub(super) async fn with(&self, address: SocketAddr) -> Presented {
        let shaken = tokio::time::timeout(TIMEOUT, self.shake(address)).await;
        shaken.unwrap_or_else(|_| Err("an istiod does not answer on port 15012 in time".to_owned()))
    }

    async fn shake(&self, address: SocketAddr) -> Presented {
        let connector = self.0.as_ref().ok_or("this build has no TLS")?;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|_| "an istiod takes no connection on port 15012".to_owned())?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|_| "an istiod does not speak TLS on port 15012".to_owned())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(chain.iter().skip(1).map(|certificate| Sha256::of(certificate)).collect())
    }
}

/// Looks at whatever is presented. That the peer has the leaf's key is proven all the same.
#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
