//! The serving certificate: a CA shared by the replicas, and a short-lived leaf of each one's own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::ca::issue::set_validity;

/// Life of the CA. Rotating it means injecting two, so it is long.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);

/// Life of a leaf. It is only in memory, so a new one costs nothing.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Clocks of API server and node differ.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// How often the age of the leaf is looked at, by the wall clock.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// The CA that the API server trusts by `caBundle`.
pub struct ServingCa {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ServingCa {
    /// Makes a new one.
    ///
    /// # Errors
    /// In words, if the crypto library cannot.
    pub fn make() -> Result<Self, String> {
        let words = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = name("istio-ca-gate serving CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = Timestamp::now();
        set_validity(&mut params, (now - BACKDATE).as_second(), (now + CA_LIFE).as_second());
        let key = KeyPair::generate().map_err(words)?;
        let certificate = params.self_signed(&key).map_err(words)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Takes up one that was made before.
    ///
    /// # Errors
    /// In words, if it is not a certificate and its key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|error| error.to_string())?;
        fits(certificate, &key)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|error| error.to_string())?;
        Ok(Self { certificate: certificate.to_owned(), issuer })
    }

    /// What belongs in `caBundle`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// For the Secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    fn leaf(&self, names: &[String]) -> Result<Leaf, String> {
        let words = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::new(names).map_err(words)?;
        params.distinguished_name = name("istio-ca-gate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = Timestamp::now();
        set_validity(&mut params, (now - BACKDATE).as_second(), (now + LEAF_LIFE).as_second());
        let key = KeyPair::generate().map_err(words)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(words)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = any_supported_type(&der).map_err(|error| error.to_string())?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signing);
        Ok(Leaf { certified: Arc::new(certified), renew_at: now + LEAF_LIFE * 2 / 3 })
    }
}

/// rcgen takes any certificate for any key's.
fn fits(certificate: &str, key: &KeyPair) -> Result<(), String> {
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|_| "its certificate is not PEM")?;
    let x509 = pem.parse_x509().map_err(|_| "its certificate is not X.509")?;
    if x509.public_key().raw != key.subject_public_key_info() {
        return Err("its key is not its certificate's".to_owned());
    }
    let now = Timestamp::now().as_second();
    let validity = x509.validity();
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err("its certificate is not valid now".to_owned());
    }
    Ok(())
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[derive(Debug)]
struct Leaf {
    certified: Arc<CertifiedKey>,
    renew_at: Timestamp,
}

/// The leaf in use. Handshakes take whichever it is at their time.
#[derive(Debug)]
pub struct Serving(Mutex<Leaf>);

impl Serving {
    /// Issues the first leaf for these names.
    ///
    /// # Errors
    /// In words, if a name cannot be in a certificate.
    pub fn issue(ca: &ServingCa, names: &[String]) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self(Mutex::new(ca.leaf(names)?))))
    }

    /// Renews the leaf at two thirds of its life, for ever. By the wall clock: a suspended machine ages too.
    pub async fn keep_fresh(&self, ca: &ServingCa, names: &[String]) {
        loop {
            tokio::time::sleep(RENEWAL_CHECK).await;
            if self.lock().renew_at > Timestamp::now() {
                continue;
            }
            match ca.leaf(names) {
                Ok(leaf) => *self.lock() = leaf,
                Err(error) => tracing::error!(error, "cannot renew the serving certificate; the old one stays in use"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Leaf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.lock().certified))
    }
}

/// The server's side of TLS: 1.2 and 1.3, and HTTP/1.1 alone, which is all that the API server speaks to webhooks.
pub fn server_config(serving: Arc<Serving>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
