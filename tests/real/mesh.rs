//! Istio in one cluster, from its real charts, and what two workloads make of each other's certificates.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use judge::boring::Purpose;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SideData, SignatureScheme,
};
use serde_json::Value;
use testbed::side::Side;
use testbed::{Cluster, Helm, Istiod, IstiodService, Program, WorkloadCertificate, binaries};

use crate::life::envoy::AsEnvoy;
use crate::world::NAMESPACE;

/// Istio as Helm installed it in a cluster. No container runs yet.
pub struct Mesh<'a> {
    side: &'a Side,
    cluster: &'a Cluster,
    service: IstiodService,
}

impl<'a> Mesh<'a> {
    /// Installs the charts `base` and `istiod`.
    pub async fn install(helm: &Helm, side: &'a Side, cluster: &'a Cluster, settings: &[&str]) -> Result<Self> {
        let charts = charts().await?;
        helm.install(cluster, NAMESPACE, "istio-base", &charts.join("base"), &[]).await?;
        let settings = [settings, &[IstiodService::CHART_SETTING]].concat();
        let istiod = charts.join("istio-control/istio-discovery");
        helm.install(cluster, NAMESPACE, "istiod", &istiod, &settings).await?;
        let service = IstiodService::reserve()?;
        service.route_webhooks(cluster).await?;
        Ok(Self { side, cluster, service })
    }

    /// Installs the east-west gateway.
    pub async fn install_gateway(&self, helm: &Helm) -> Result<()> {
        let chart = charts().await?.join("gateway");
        helm.install(self.cluster, NAMESPACE, GATEWAY, &chart, &[]).await?;
        Ok(())
    }

    /// Waits for istiod's pod, and starts it as it was admitted.
    pub async fn start(self) -> Result<Istiod> {
        let pod = self.side.pod("istiod").await?;
        let pod = pod_named(self.side, &pod).await?;
        self.service.start(self.cluster, &pod).await
    }
}

/// The release of the chart `gateway`.
pub const GATEWAY: &str = "istio-eastwestgateway";

/// The folder of Istio's charts.
pub async fn charts() -> Result<PathBuf> {
    tokio::task::spawn_blocking(binaries::istio_charts).await?
}

/// A pod as it was admitted.
pub async fn pod_named(side: &Side, name: &str) -> Result<Value> {
    side.object(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")).await?.context("the pod is gone")
}

/// A certificate of this cluster's istiod for a new service account of this name, with the SPIFFE identity of that.
pub async fn workload(istiod: &Istiod, cluster: &Cluster, account: &str) -> Result<WorkloadCertificate> {
    cluster.kubectl(&["-n", "default", "create", "serviceaccount", account]).await?;
    let certificate = istiod.workload_certificate(cluster, "default", account).await?;
    let names = Program::new("openssl").args(["x509", "-noout", "-ext", "subjectAltName"]);
    let names = names.output(Some(&certificate.chain_pem)).await?;
    ensure!(names.contains(&format!("URI:spiffe://cluster.local/ns/default/sa/{account}")), "{names}");
    Ok(certificate)
}

/// Has openssl check the chain of a workload up to this root and no other.
pub async fn openssl_verifies(root: &str, workload: &WorkloadCertificate) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let (root_file, chain_file) = (folder.path().join("root.pem"), folder.path().join("chain.pem"));
    std::fs::write(&root_file, root)?;
    std::fs::write(&chain_file, &workload.chain_pem)?;
    let program = Program::new("openssl").args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile"]);
    program.arg(root_file).arg("-untrusted").arg(&chain_file).arg(&chain_file).output(None).await
}

/// One end of a connection in the mesh: what it shows, and the roots that it trusts.
pub struct End<'a> {
    pub workload: &'a WorkloadCertificate,
    pub root: &'a str,
}

/// Who verifies certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verifier {
    /// ztunnel's.
    Webpki,
    /// AWS-LC, a fork of BoringSSL, with Envoy's flags.
    Envoy,
}

impl End<'_> {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_slice_iter(self.workload.chain_pem.as_bytes()).collect::<Result<_, _>>()?)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_slice(self.workload.key_pem.as_bytes())?)
    }

    /// Whether the key is that of the chain's leaf.
    pub fn fits(&self) -> Result<bool> {
        let roots = CertificateDer::pem_slice_iter(self.root.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        Ok(!roots.is_empty() && CertifiedKey::from_der(self.chain()?, self.key()?, &provider()).is_ok())
    }

    fn verifier(&self, verifier: Verifier, purpose: Purpose) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.root.as_bytes()) {
            roots.add(root?)?;
        }
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(match verifier {
            Verifier::Webpki => webpki,
            Verifier::Envoy => Arc::new(AsEnvoy::new(self.root, purpose, webpki)),
        })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A mutual TLS handshake, and a word each way. An error of the setting up, or of the handshake.
pub fn handshake(client: &End<'_>, server: &End<'_>) -> Result<Result<(), rustls::Error>> {
    handshake_by(Verifier::Webpki, client, server)
}

/// The same, where both ends verify so.
pub fn handshake_by(by: Verifier, client: &End<'_>, server: &End<'_>) -> Result<Result<(), rustls::Error>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByChain(client.verifier(by, Purpose::Server)?)))
        .with_client_auth_cert(client.chain()?, client.key()?)?;
    // In the mesh the name says nothing.
    let mut client_side = ClientConnection::new(Arc::new(config), ServerName::try_from("mesh.test")?)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(server.verifier(by, Purpose::Client)?)
        .with_single_cert(server.chain()?, server.key()?)?;
    let mut server_side = ServerConnection::new(Arc::new(config))?;

    // Neither end may send a word before it trusts the other.
    if let Err(error) = converse(&mut client_side, &mut server_side)? {
        return Ok(Err(error));
    }
    ensure!(!client_side.is_handshaking() && !server_side.is_handshaking(), "the handshake hangs");
    let shown = server_side.peer_certificates().context("the client showed no certificate")?;
    ensure!(shown == client.chain()?, "the client showed another certificate");
    std::io::Write::write_all(&mut client_side.writer(), b"ping")?;
    std::io::Write::write_all(&mut server_side.writer(), b"pong")?;
    if let Err(error) = converse(&mut client_side, &mut server_side)? {
        return Ok(Err(error));
    }
    let (mut at_server, mut at_client) = ([0; 4], [0; 4]);
    server_side.reader().read_exact(&mut at_server)?;
    client_side.reader().read_exact(&mut at_client)?;
    ensure!(&at_server == b"ping" && &at_client == b"pong", "other words arrived");
    Ok(Ok(()))
}

/// Carries all that both ends have to say, until they are silent.
fn converse(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<Result<(), rustls::Error>> {
    while client.wants_write() || server.wants_write() {
        for outcome in [carry(client, server)?, carry(server, client)?] {
            if outcome.is_err() {
                return Ok(outcome);
            }
        }
    }
    Ok(Ok(()))
}

fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<Result<(), rustls::Error>> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire)?;
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire)?;
        if let Err(error) = to.process_new_packets() {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Verifies a server as a client: by its chain alone, since a SPIFFE identity is no name of a host. Istio's certificates
/// are for both uses.
#[derive(Debug)]
struct ByChain(Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for ByChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
