//! Who may call the admission endpoints, where `--client-ca-file` says so.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::{Method, StatusCode};
use https::{Peer, Rarely, refuse};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::files::{Content, Files};

/// Callers with a certificate by one of the CAs in a file.
#[derive(Debug)]
pub struct Callers {
    by: RwLock<Arc<dyn ClientCertVerifier>>,
    refused: Rarely,
}

/// The file, as it was read.
pub struct CallersFile {
    files: Files,
    read: Content,
}

impl Callers {
    /// Reads the file.
    ///
    /// # Errors
    /// In words, if it cannot be read, or is not of CA certificates.
    pub async fn load(file: PathBuf) -> Result<(Arc<Self>, CallersFile), String> {
        let files = Files::new(vec![file]);
        let read = files.read().await?;
        let by = RwLock::new(verifier(&read)?);
        Ok((Arc::new(Self { by, refused: Rarely::default() }), CallersFile { files, read }))
    }

    /// Keeps to what the file says, for ever.
    pub async fn keep(&self, file: CallersFile, every: Duration) {
        let take = |content: Option<&Content>| {
            if let Some(content) = content {
                let by = verifier(content).map_err(|error| format!("--client-ca-file: {error}"))?;
                *self.by.write().unwrap_or_else(PoisonError::into_inner) = by;
                tracing::info!("took up new CAs of callers");
            }
            Ok(())
        };
        file.files.follow(&file.read, every, take).await;
    }

    /// Lets through to a router what may be an admission call only with such a certificate.
    pub fn guard(self: Arc<Self>, router: Router) -> Router {
        router.layer(from_fn_with_state(self, check))
    }

    fn by(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.by.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Verified again at each call: connections live on while certificates end and CAs are replaced.
    fn admit(&self, peer: Option<&Peer>, now: UnixTime) -> bool {
        let certificates = peer.and_then(Peer::certificates).and_then(<[_]>::split_first);
        certificates.is_some_and(|(first, others)| self.by().verify_client_cert(first, others, now).is_ok())
    }
}

async fn check(State(callers): State<Arc<Callers>>, request: Request, next: Next) -> Response {
    // Whatever only reads is open; admission only posts. No spelling of a path gets around this.
    let open = [Method::GET, Method::HEAD].contains(request.method());
    if open || callers.admit(request.extensions().get(), UnixTime::now()) {
        return next.run(request).await;
    }
    callers.refused.tell(|more| {
        tracing::warn!(more, "refused an admission call: its caller shows no certificate by a CA of --client-ca-file");
    });
    refuse(StatusCode::FORBIDDEN, "this call needs a client certificate by a CA that the gate was told to trust")
}

fn verifier(content: &Content) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in content.files.iter().flat_map(|file| CertificateDer::pem_slice_iter(file)) {
        let certificate = certificate.map_err(|_| "it is not PEM")?;
        roots.add(certificate).map_err(|_| "it has a certificate that cannot be a CA's")?;
    }
    if roots.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    // Who shows none may still ask how the gate is.
    let builder = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
    builder.build().map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| error.to_string())
}

/// By what the file says now.
impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: the caller has one certificate for this, and shows it unasked which CA it is by.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.by().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by().supported_verify_schemes()
    }
}
