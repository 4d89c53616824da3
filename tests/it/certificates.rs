//! Certificate authorities of the tests: a mesh's root, and the CAs of stand-ins.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};

/// A self-signed P-256 CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    pub fn pem(&self) -> &str {
        &self.certificate
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A TLS server of this name.
    pub fn server(&self, name: &str) -> Result<Arc<ServerConfig>> {
        self.server_but(name, |_| ())
    }

    /// A TLS server whose certificate ended long ago.
    pub fn expired_server(&self, name: &str) -> Result<Arc<ServerConfig>> {
        self.server_but(name, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    /// A TLS server for 127.0.0.1 whose certificate ends in so long.
    pub fn server_for(&self, left: Duration) -> Result<Arc<ServerConfig>> {
        self.server_but("127.0.0.1", |params| params.not_after = (SystemTime::now() + left).into())
    }

    fn server_but(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Arc<ServerConfig>> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?))
    }

    /// A certificate for a server of this name, and its key, in PEM.
    pub fn server_files(&self, name: &str) -> Result<(String, String)> {
        self.files_but(name, |_| ())
    }

    /// A certificate of a client, and its key, in PEM.
    pub fn client_files(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<(String, String)> {
        self.files_but("apiserver.test", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    }

    fn files_but(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<(String, String)> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        change(&mut params);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// Vault's record of it, in the short form.
    pub fn record(&self) -> Map<String, Value> {
        let pair = [("root-cert.pem", self.pem()), ("cert-chain.pem", self.pem()), ("key.pem", &self.key_pem())];
        pair.into_iter().map(|(name, pem)| (name.to_owned(), json!(pem))).collect()
    }

    /// The data of a Secret `cacerts` with it.
    pub fn secret_data(&self) -> Value {
        let file = |pem: &str| json!(ByteString(pem.as_bytes().to_vec()));
        let certificate = file(self.pem());
        json!({
            "root-cert.pem": certificate, "cert-chain.pem": certificate, "ca-cert.pem": certificate,
            "ca-key.pem": file(&self.key_pem()),
        })
    }
}

/// What a client that trusts this PEM, and nothing else, verifies servers by.
pub fn trust(pem: &str) -> Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
    Ok(roots)
}
