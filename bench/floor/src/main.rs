//! The floor: hyper, tokio-rustls and serde_json with nothing around them. It reads the labels of a review's object, and
//! lets it in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde::Deserialize;
use serde_json::json;
use tokio_rustls::TlsAcceptor;

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    uid: &'a str,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Its port and the folder for its certificate are its arguments.
#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().context("no port")?.parse()?;
    let folder = words.next().context("no folder")?;
    let acceptor = TlsAcceptor::from(certified(folder.as_ref())?);
    let bound = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = bound.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer))
                .await;
        });
    }
}

fn certified(folder: &Path) -> Result<Arc<ServerConfig>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (ca_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let ca = params.self_signed(&ca_key)?.pem();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &Issuer::new(params, ca_key))?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    std::fs::write(folder.join("ca.pem"), ca)?;
    Ok(Arc::new(config))
}

async fn answer(
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Full<bytes::Bytes>>, Infallible> {
    let refused = || {
        let mut response = hyper::Response::new(Full::default());
        *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
        response
    };
    let Ok(body) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(refused());
    };
    let Ok(Review { request }) = serde_json::from_slice(&body) else { return Ok(refused()) };
    let labels = request.object.map(|object| object.metadata.labels).unwrap_or_default();
    let root = labels.get("app").is_some_and(|app| app == "istiod").then(|| "0".repeat(64));
    let answer = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": request.uid, "allowed": true, "auditAnnotations": { "root-sha256": root } } });
    let mut response = hyper::Response::new(Full::from(answer.to_string()));
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
