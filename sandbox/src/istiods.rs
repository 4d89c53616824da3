//! What of each cluster's istiod a gate looks at: it presents the signer that is mounted, and tells its namespaces the roots.
//! It takes another bundle while it runs, as with `ISTIO_MULTIROOT_MESH`. Its leaf is nobody's: no peer verifies it here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use testbed::Port;
use testbed::side::Side;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Where istiod takes its proxies' calls.
const XDS_PORT: u16 = 15012;

/// A volume is brought up to date within this; a kubelet takes up to a minute.
const PAUSE: Duration = Duration::from_millis(300);

/// Istiods of both clusters, as long as this lives.
#[derive(Debug, Default)]
pub struct Istiods {
    _tasks: JoinSet<()>,
    _ports: Vec<Port>,
}

type Presented = Arc<Mutex<Option<TlsAcceptor>>>;

impl Istiods {
    /// One on each side, at an address of its own.
    ///
    /// # Errors
    /// Where this machine has no further addresses of loopback, as macOS unless it is told.
    pub async fn start(sides: [&Side; 2]) -> Result<Self> {
        let (mut tasks, mut ports) = (JoinSet::new(), Vec::new());
        for side in sides {
            let port = Port::of_a_pod(XDS_PORT).context("an istiod needs an address 127.x.y.z of its own")?;
            let listener = TcpListener::bind(port.address()).await?;
            let presented = Presented::default();
            tasks.spawn(listen(listener, Arc::clone(&presented)));
            tasks.spawn(follow(side.clone(), port.address().ip(), presented));
            ports.push(port);
        }
        Ok(Self { _tasks: tasks, _ports: ports })
    }
}

async fn listen(listener: TcpListener, presented: Presented) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let acceptor = presented.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(acceptor) = acceptor {
            // Whoever has seen enough goes.
            tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
    }
}

/// Mounts what is published again and again.
async fn follow(side: Side, address: std::net::IpAddr, presented: Presented) {
    let mut mounted = Value::Null;
    loop {
        // What the API server does not answer now, it does later.
        let _ = mount(&side, address, &presented, &mut mounted).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn mount(side: &Side, address: std::net::IpAddr, presented: &Presented, mounted: &mut Value) -> Result<()> {
    side.give_address(address).await?;
    let Some(mut cacerts) = side.cacerts().await? else { return Ok(()) };
    let version = cacerts["metadata"]["resourceVersion"].take();
    if version == *mounted {
        return Ok(());
    }
    let chain = STANDARD.decode(cacerts["data"]["ca-cert.pem"].as_str().context("no ca-cert.pem")?)?;
    let acceptor = acceptor(&chain)?;
    side.tell_roots().await?;
    *presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
    *mounted = version;
    Ok(())
}

fn acceptor(signer: &[u8]) -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(vec!["istiod.istio-system.svc".to_owned()])?;
    let mut chain = vec![made.cert.der().clone()];
    for certificate in CertificateDer::pem_slice_iter(signer) {
        chain.push(certificate?);
    }
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| anyhow!(error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
