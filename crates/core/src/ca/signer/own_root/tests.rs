#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{DnValue, KeyIdMethod, PKCS_RSA_SHA256, RsaKeySize};

use super::super::super::fixtures::{Ca, now};
use super::super::super::record::{ROTATION, SigningRecord};
use super::super::{SignerFlaw, SignerKey, certified, common_name};
use super::*;

const LIFE: Duration = Duration::from_hours(2160);

/// As istiod's: one name in every cluster, a PrintableString, and a key identifier that is no digest of the key.
fn istiods(identifier: u8) -> Ca {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    Ca::root_with(key, "", |params| {
        params.distinguished_name = DistinguishedName::new();
        let name = "cluster.local".try_into().unwrap();
        params.distinguished_name.push(DnType::OrganizationName, DnValue::PrintableString(name));
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![identifier; 20]);
    })
}

fn own(ca: &Ca) -> OwnRoot {
    let key = KeyPem::new(ca.key.serialize_pem().into_bytes());
    OwnRoot::read(ca.certificate.pem().as_bytes(), &key).unwrap()
}

fn record(roots: &[&Ca]) -> SigningRecord {
    let roots: String = roots.iter().map(|root| root.certificate.pem()).collect();
    let mut data = SigningRecord::first(&roots, &"root-1".parse().unwrap());
    data.remove("issuer");
    data.insert(ROTATION.to_owned(), serde_json::json!({}));
    SigningRecord::parse(&data, now()).unwrap()
}

#[test]
fn a_signer_under_an_istiods_own_root_passes_the_check_that_vaults_do_beside_roots_of_the_same_name() {
    let (ours, theirs, shared) = (istiods(1), istiods(2), Ca::root("Istio Root CA root-1"));
    let record = record(&[&ours, &theirs, &shared]);
    for root in [&ours, &theirs] {
        let (own, key, name) = (own(root), SignerKey::generate().unwrap(), common_name("nas"));
        let asked = Asked { key: &key, common_name: &name, life: LIFE, at: now() };
        let signed = own.certify(&asked).unwrap();
        let sound = certified(&record, own.sha256, &signed, &asked).unwrap();
        assert_eq!((sound.root, sound.roots()), (own.sha256, record.roots()));
        assert_eq!(sound.bundle.root_cert, record.root_cert);
        // And nobody else's.
        let other = certified(&record, Sha256::of(shared.certificate.der()), &signed, &asked);
        assert_eq!(other.unwrap_err(), SignerFlaw::OtherIssuer);
    }
}

#[test]
fn a_key_in_rsas_own_format_is_read() {
    let ca = istiods(1);
    let mut openssl = Command::new("openssl")
        .args(["rsa", "-traditional"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(ca.key.serialize_pem().as_bytes()).unwrap();
    let rsa = openssl.wait_with_output().unwrap().stdout;
    assert!(rsa.starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    let own = OwnRoot::read(ca.certificate.pem().as_bytes(), &KeyPem::new(rsa)).unwrap();
    let (key, name) = (SignerKey::generate().unwrap(), common_name("nas"));
    assert!(own.certify(&Asked { key: &key, common_name: &name, life: LIFE, at: now() }).is_ok());
}

#[test]
fn what_is_no_root_or_has_another_key_certifies_nothing() {
    let (ca, other) = (Ca::root("Root"), Ca::root("Other"));
    let key = |ca: &Ca| KeyPem::new(ca.key.serialize_pem().into_bytes());
    let read = |certificate: &str, key: KeyPem| OwnRoot::read(certificate.as_bytes(), &key).unwrap_err();
    assert_eq!(read(&ca.certificate.pem(), key(&other)), OwnRootFlaw::OtherKey);
    assert_eq!(read(&ca.certificate.pem(), KeyPem::new(b"none".to_vec())), OwnRootFlaw::Key);
    let both = format!("{}{}", ca.certificate.pem(), other.certificate.pem());
    assert_eq!(read(&both, key(&ca)), OwnRootFlaw::NotOneRoot);
    let below = ca.issue("CA");
    assert_eq!(read(&below.certificate.pem(), key(&below)), OwnRootFlaw::NotOneRoot);
    assert!(matches!(read("", key(&ca)), OwnRootFlaw::Flaw(_)));
    assert!(!format!("{:?}", own(&ca)).contains("PRIVATE"));
}
