//! Istiods that a gate's witness finds: pods of an API server without a kubelet, and who answers in their place.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use testbed::side::Side;

/// What component signing grants the gate.
const WITNESS: &str = include_str!("../../deploy/kustomize/components/signing/rbac.yaml");

/// An istiod at the port where proxies call it, with this behind its leaf.
pub async fn presents(address: &str, signer: &[u8]) -> Result<tokio::task::JoinHandle<()>> {
    let made = rcgen::generate_simple_self_signed(vec!["istiod.istio-system.svc".to_owned()])?;
    let signer = rustls::pki_types::CertificateDer::from_pem_slice(signer)?;
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone(), signer], key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind((address, 15012)).await?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    }))
}

/// Grants what component signing grants.
pub async fn grant(side: &Side) -> Result<()> {
    for object in serde_saphyr::from_multiple::<Value>(WITNESS)? {
        let (kind, namespaced) =
            (object["kind"].as_str().unwrap_or_default().to_lowercase(), object["metadata"]["namespace"].is_string());
        let namespace = if namespaced { "namespaces/istio-system/" } else { "" };
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{namespace}{kind}s");
        let (status, answer) = side.api.request("POST", &path, Some(object)).await?;
        ensure!(matches!(status, 201 | 409), "{answer}");
    }
    Ok(())
}

/// The pod's containers run, as a kubelet tells.
pub async fn runs_at(side: &Side, pod: &str, address: &str) -> Result<()> {
    let status = json!({ "status": { "phase": "Running", "podIP": address } });
    let path = format!("/api/v1/namespaces/istio-system/pods/{pod}/status");
    let (code, answer) = side.api.request("PATCH", &path, Some(status)).await?;
    ensure!(code == 200, "{answer}");
    Ok(())
}
