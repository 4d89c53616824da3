#![allow(clippy::unwrap_used)]

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::ca::fixtures::{Ca, now};
use crate::samples;

fn attestation(at: Timestamp) -> Attestation {
    samples::attestation("nas", at)
}

fn record(is_rotating: bool) -> SigningRecord {
    let mut data = SigningRecord::first(&Ca::root("Root 1").certificate.pem(), &"root-1".parse().unwrap());
    if is_rotating {
        data.insert("rotation".to_owned(), serde_json::json!({}));
    }
    SigningRecord::parse(&data, now()).unwrap()
}

#[test]
fn what_changed_is_attested_at_once_and_what_did_not_every_minute_of_a_rotation_and_every_hour_of_peace() {
    let (peace, rotating) = (record(false), record(true));
    let after = |seconds| attestation(now() + SignedDuration::from_secs(seconds));
    let first = attestation(now());
    assert!(is_due(None, &first, &peace));
    let changed = Attestation { why: Some("no istiod runs".to_owned()), ..after(1) };
    assert!(is_due(Some(&first), &changed, &peace));
    assert!(!is_due(Some(&first), &after(59), &rotating) && is_due(Some(&first), &after(60), &rotating));
    assert!(!is_due(Some(&first), &after(3599), &peace) && is_due(Some(&first), &after(3600), &peace));
}

#[test]
fn a_replica_goes_by_what_another_attested_to_unless_it_has_looked_later() {
    let [old, new] = [0, 60].map(|seconds| attestation(now() + SignedDuration::from_secs(seconds)));
    let other = Attestation { record_version: 2, ..new.clone() };
    assert_eq!(later(Some(&old), Some(&other)), Some(&other));
    assert_eq!(later(Some(&new), Some(&old)), Some(&new));
    assert_eq!(later(None, Some(&old)), Some(&old));
    assert_eq!(later(Some(&old), None), Some(&old));
}

/// An istiod that presents a leaf and what stands behind it.
async fn istiod(chain: &[&Ca], leaf: &Ca) -> SocketAddr {
    let certificates = chain.iter().map(|ca| ca.certificate.der().clone()).collect();
    let key = leaf.key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn what_stands_behind_the_leaf_is_told_and_the_leaf_is_not() {
    let root = Ca::root("Root 1");
    let signer = root.issue("Signer");
    let leaf = signer.issue("istiod");
    let address = istiod(&[&leaf, &signer, &root], &leaf).await;
    let expected = [&signer, &root].map(|ca| Sha256::of(ca.certificate.der()));
    assert_eq!(Handshake::new().with(address).await, Ok(expected.to_vec()));
}

#[tokio::test]
async fn who_does_not_listen_or_speaks_no_tls_has_presented_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handshake = Handshake::new();
    let (told, _) = tokio::join!(handshake.with(address), async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    });
    assert!(told.unwrap_err().contains("does not speak TLS"));
    drop(listener);
    assert!(handshake.with(address).await.unwrap_err().contains("takes no connection"));
    let none = IstiodPod { name: "istiod-1".to_owned(), ..IstiodPod::default() };
    assert!(presented(&handshake, &none).await.is_err());
}
