//! The strict check: whether istiod and every peer of its workloads can use a bundle. istiod itself
//! accepts more, and its peers then fail.
//!
//! - Every certificate of the three files has to be good, whether or not the chain needs it: an
//!   expired extra root is a flaw too, which names it. Clocks may be five minutes apart.
//! - Every certificate of `root-cert.pem` is a self-signed CA: each becomes a trust anchor, and a
//!   verifier of OpenSSL's kind ends at no other.
//! - `cert-chain.pem` has all of the path but the root, in any order: workloads present it after
//!   their own certificate. So it has `ca-cert.pem`'s certificate, unless that is a root; the root
//!   may be there too, as Istio's own Makefile does it.
//! - Path lengths count every CA beneath, also self-issued ones, as Go does (RFC 5280 would not).
//! - Signatures are RSA PKCS#1 or ECDSA with SHA-256, SHA-384 or SHA-512. A self-signed root may
//!   have RSA with SHA-1: nobody relies on that signature.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;

use super::Sha256;
use super::bundle::{
    Bundle, CA_CERT, CERT_CHAIN, Glance, KeyPem, MAX_BUNDLE, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_KEY, ROOT_CERT,
};
use super::certificate::Certificate;
use super::pem::{Block, Der, Piece, Pieces, certificates};

/// A bundle that passed the strict check.
#[derive(Clone, Debug)]
pub struct Sound {
    /// The files, with the key.
    pub bundle: Arc<Bundle>,
    facts: Arc<Facts>,
}

/// What is known of a sound bundle. It has none of its files, so it may be kept: the key stays in memory no longer than
/// it is at work.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The self-signed root that `ca-cert.pem` chains to.
    pub root: Sha256,
    /// For people; its roots are those of `root-cert.pem`.
    pub glance: Glance,
    /// Before this, a certificate that matters is not valid yet.
    pub valid_from: Timestamp,
    /// After this, the check refuses.
    pub usable_until: Until,
    /// What is unusual about it, and does no harm.
    pub notes: Vec<Note>,
    /// The certificates of `root-cert.pem`, `cert-chain.pem` and `ca-cert.pem`, in their order.
    certificates: [Vec<Sha256>; 3],
}

impl Deref for Sound {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl Sound {
    /// What may be kept of it.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Whether they are the same bytes, file by file.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.bundle == other.bundle
    }
}

impl Facts {
    /// All of `root-cert.pem`.
    pub fn roots(&self) -> &BTreeSet<Sha256> {
        &self.glance.roots
    }

    /// Whether the signing CA is the root itself, and not one beneath it.
    pub fn signs_with_the_root(&self) -> bool {
        self.certificates[2].first() == Some(&self.root)
    }

    /// Whether workloads under the two trust each other.
    pub fn same_roots(&self, other: &Self) -> bool {
        self.roots() == other.roots()
    }

    /// Whether they are the same certificates, file by file and in order, and the same key, whatever
    /// the bytes. In a sound bundle the key is that of `ca-cert.pem`, so it need not be looked at.
    pub fn same_ca(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// The end of what can be used, as the check itself finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The last moment at which the check passes.
    pub at: Timestamp,
    /// The certificate that ends then.
    pub by: At,
}

/// What is accepted because every consumer of the mesh accepts it, and worth a look. The text is constant for a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {}

impl fmt::Display for Note {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Where a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The file's name.
    pub file: &'static str,
    /// Counts from one.
    pub position: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}", self.position, self.file)
    }
}

/// Why a bundle is not sound. The text is constant for a cause, and has nothing of a key in it.
/// Files are given by their names; the signing CA is `ca-cert.pem`'s first certificate, or
/// `cert-chain.pem`'s where Vault's record has no other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A file is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A file has no bytes.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A value of Vault's record is not a JSON string.
    #[error("{0} is not a string")]
    NotText(&'static str),
    /// Vault's record has the first, but not the second, of the signing CA's two files.
    #[error("{0} is there without {1}")]
    Unpaired(&'static str, &'static str),
    /// A key of the Secret that keeps istiod from using the four files as they are meant.
    #[error("{0} is there too, so that istiod would not use the four files as its plugged-in CA")]
    Foreign(&'static str),
    /// The four files are too large.
    #[error("the four files together have more than {MAX_BUNDLE} bytes")]
    TooLarge,
    /// The key's file is too large.
    #[error("the private key's file has more than {MAX_KEY} bytes")]
    KeyTooLarge,
    /// A certificate's PEM block is too large.
    #[error("{0} has more than {MAX_CERTIFICATE} bytes")]
    CertificateTooLarge(At),
    /// A file has no certificate.
    #[error("{0} has no certificate")]
    NoCertificate(&'static str),
    /// A file has too many certificates.
    #[error("{0} has more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates(&'static str),
    /// A file has text, another block or a broken block in it.
    #[error("{0} has something in it that is not a CERTIFICATE block")]
    NotOnlyCertificates(&'static str),
    /// Not base64, not DER, or not X.509 version 3 as RFC 5280 has it.
    #[error("{0} is malformed")]
    Malformed(At),
    /// Past its end.
    #[error("{0} expired at {1}")]
    Expired(At, Timestamp),
    /// Before its beginning.
    #[error("{0} is not valid before {1}")]
    NotYetValid(At, Timestamp),
    /// Without basicConstraints, or with CA:FALSE.
    #[error("{0} is not a CA certificate (CA:TRUE)")]
    NotCa(At),
    /// With a keyUsage that lacks keyCertSign.
    #[error("{0} has a key usage without keyCertSign")]
    NoKeyCertSign(At),
    /// With an extended key usage that is not for both sides of mutual TLS.
    #[error("{0} has an extended key usage without both serverAuth and clientAuth")]
    ExtendedKeyUsage(At),
    /// With a critical extension, given by its OID, that not every peer understands.
    #[error("{0} has the critical extension {1}, which not every peer understands")]
    CriticalExtension(At, String),
    /// With a key that is weak or that not every peer supports.
    #[error("the key of {0} is not RSA of 2048 to 8192 bits, P-256 or P-384")]
    UnsupportedKey(At),
    /// Signed in a way that is weak or that not every peer supports.
    #[error("{0} is not signed by RSA (PKCS#1) or ECDSA with SHA-256, SHA-384 or SHA-512")]
    UnsupportedSignature(At),
    /// In `root-cert.pem`, but no root.
    #[error("{0} is not self-signed")]
    NotSelfSigned(At),
    /// Workloads would not present their signing CA.
    #[error("cert-chain.pem lacks the certificate of the signing CA")]
    ChainLacksCa,
    /// On the way to a root, more CAs are beneath a certificate than it allows.
    #[error("the path length of {0} does not allow the CA certificates beneath it")]
    PathLength(At),
    /// No way from the signing CA to a root.
    #[error("the signing CA does not chain through cert-chain.pem to a root of root-cert.pem")]
    NoPath,
    /// The key is encrypted.
    #[error("the private key is encrypted")]
    KeyEncrypted,
    /// The key's first PEM block is not a key that can be read.
    #[error("the private key's first PEM block is not a PKCS#8, PKCS#1 or SEC1 key that can be read")]
    KeyMalformed,
    /// Another certificate's key.
    #[error("the private key is not that of the signing CA")]
    KeyMismatch,
}

impl Flaw {
    /// Whether time alone made it so.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(..))
    }

    /// Whether writing the four files would not mend it.
    pub fn is_foreign_key(&self) -> bool {
        matches!(self, Self::Foreign(..))
    }
}

/// The strict check. Its cost is bounded by the caps: 30 certificates are parsed, and signatures
/// verified 10 times for the roots and 10 × 20 times for the path, at the most.
pub fn check(bundle: Bundle, now: Timestamp) -> Result<Sound, Flaw> {
    bundle.check_size()?;
    // In this order: where Vault's record has no ca-cert.pem, its cert-chain.pem is named.
    let roots = certificates(ROOT_CERT, &bundle.root_cert)?;
    let chain = certificates(CERT_CHAIN, &bundle.cert_chain)?;
    let ca = certificates(CA_CERT, &bundle.ca_cert)?;
    let roots = parse(ROOT_CERT, &roots)?;
    let chain = parse(CERT_CHAIN, &chain)?;
    let ca = parse(CA_CERT, &ca)?;

    let all = || roots.iter().chain(&chain).chain(&ca);
    all().try_for_each(|certificate| certificate.check_time(now))?;
    if let Some(root) = roots.iter().find(|root| !root.issued(root)) {
        return Err(Flaw::NotSelfSigned(root.at));
    }
    let (Some(first_root), Some(signing)) = (roots.first(), ca.first()) else {
        return Err(Flaw::NoPath);
    };
    let root = find_root(signing, &chain, &roots)?;
    if public_key(&bundle.ca_key)? != signing.x509.public_key().raw {
        return Err(Flaw::KeyMismatch);
    }

    let prints = |file: &[Certificate<'_>]| file.iter().map(|one| one.sha256).collect();
    let facts = Facts {
        root,
        glance: Glance::of(&first_root.x509, roots.iter().map(|root| root.sha256).collect()),
        valid_from: all().map(Certificate::valid_from).max().unwrap_or(Timestamp::MAX),
        usable_until: all()
            .map(|one| Until { at: one.valid_until(), by: one.at })
            .min_by_key(|until| until.at)
            .unwrap_or(Until { at: Timestamp::MIN, by: signing.at }),
        notes: Vec::new(),
        certificates: [prints(&roots), prints(&chain), prints(&ca)],
    };
    Ok(Sound { bundle: Arc::new(bundle), facts: Arc::new(facts) })
}

fn parse<'a>(file: &'static str, ders: &'a [Der]) -> Result<Vec<Certificate<'a>>, Flaw> {
    let positions = (1..).map(|position| At { file, position });
    positions.zip(ders).map(|(at, der)| Certificate::parse(at, der)).collect()
}

/// Breadth first from the signing CA, so that each certificate is met with the fewest beneath it,
/// which is when its path length is easiest to keep. Each is met once.
fn find_root(ca: &Certificate<'_>, chain: &[Certificate<'_>], roots: &[Certificate<'_>]) -> Result<Sha256, Flaw> {
    let is_in = |file: &[Certificate<'_>], one: &Certificate<'_>| file.iter().any(|other| other.sha256 == one.sha256);
    if !is_in(roots, ca) && !is_in(chain, ca) {
        return Err(Flaw::ChainLacksCa);
    }
    let mut met = BTreeSet::from([ca.sha256]);
    let mut paths = VecDeque::from([(ca, Vec::new())]);
    let mut too_long = None;
    while let Some((last, mut beneath)) = paths.pop_front() {
        if last.path_length.is_some_and(|most| beneath.len() > most as usize) {
            too_long.get_or_insert(Flaw::PathLength(last.at));
            continue;
        }
        if is_in(roots, last) {
            return Ok(last.sha256);
        }
        beneath.push(last);
        for issuer in roots.iter().chain(chain) {
            let is_new = !met.contains(&issuer.sha256) && !beneath.iter().any(|one| issuer.is_same_ca(one));
            if is_new && issuer.issued(last) {
                met.insert(issuer.sha256);
                paths.push_back((issuer, beneath.clone()));
            }
        }
    }
    Err(too_long.unwrap_or(Flaw::NoPath))
}

/// The subjectPublicKeyInfo that belongs to the first PEM block of a key's file, which is what
/// istiod reads of it: text before it and anything behind it do not count.
fn public_key(key: &KeyPem) -> Result<Vec<u8>, Flaw> {
    let text = std::str::from_utf8(key.expose()).map_err(|_| Flaw::KeyMalformed)?;
    let Some(Piece::Block(block)) = Pieces::of(text).find(|piece| *piece != Piece::Text) else {
        return Err(Flaw::KeyMalformed);
    };
    if is_encrypted(&block) {
        return Err(Flaw::KeyEncrypted);
    }
    let der = block.decode().ok_or(Flaw::KeyMalformed)?;
    let key = match block.label {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.as_slice().into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.as_slice().into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.as_slice().into()),
        _ => return Err(Flaw::KeyMalformed),
    };
    let signing = any_supported_type(&key).map_err(|_| Flaw::KeyMalformed)?;
    let public = signing.public_key().ok_or(Flaw::KeyMalformed)?;
    Ok(public.as_ref().to_vec())
}

fn is_encrypted(block: &Block<'_>) -> bool {
    block.label == "ENCRYPTED PRIVATE KEY" || block.body.lines().any(|line| line.starts_with("Proc-Type:"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use rcgen::{
        BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, PKCS_RSA_SHA256,
        RsaKeySize,
    };
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::super::bundle::CA_KEY;
    use super::super::fixtures::{self, Ca, HOUR, NOW, YEARS, at, bundle, now, pem, traditional};
    use super::super::issue::set_validity;
    use super::*;

    fn print(ca: &Ca) -> Sha256 {
        Sha256::of(ca.certificate.der())
    }

    /// The root that was found.
    fn verdict(bundle: Bundle) -> Result<Sha256, Flaw> {
        check(bundle, now()).map(|sound| sound.root)
    }

    fn sound(bundle: Bundle) -> Sound {
        check(bundle, now()).unwrap()
    }

    fn at_most(beneath: u8) -> IsCa {
        IsCa::Ca(BasicConstraints::Constrained(beneath))
    }

    fn root_at(position: usize) -> At {
        At { file: ROOT_CERT, position }
    }

    fn chain_at(position: usize) -> At {
        At { file: CERT_CHAIN, position }
    }

    /// What another peer, which is not ours, makes of a workload's certificate under that bundle.
    fn rustls_verifies_a_workload_under(bundle: &Bundle, ca: &Ca) -> Result<(), rustls::Error> {
        let ders = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
            certificates(CERT_CHAIN, pem).unwrap().iter().map(|der| CertificateDer::from(der.to_vec())).collect()
        };
        let mut roots = RootCertStore::empty();
        ders(&bundle.root_cert).into_iter().for_each(|root| roots.add(root).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let mut params = rcgen::CertificateParams::new(["istiod.istio-system.svc".to_owned()]).unwrap();
        set_validity(&mut params, NOW - HOUR, NOW + HOUR);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = ca.sign(&params, &KeyPair::generate().unwrap());
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW.unsigned_abs()));
        verifier.verify_server_cert(leaf.der(), &ders(&bundle.cert_chain), &name, &[], time).map(|_| ())
    }

    #[test]
    fn a_root_may_sign_directly() {
        let root = Ca::root("Root");
        assert_eq!(verdict(root.bundle()), Ok(print(&root)));
        assert_eq!(rustls_verifies_a_workload_under(&root.bundle(), &root), Ok(()));
    }

    #[test]
    fn a_ca_beneath_a_root_is_accepted() {
        let root = Ca::root("Root");
        let ca = root.issue("CA");
        assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
        assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
    }

    #[test]
    fn a_root_that_signs_itself_is_told_from_a_ca_beneath_it() {
        let (root, other) = (Ca::root("Root"), Ca::root("Other"));
        let ca = root.issue("CA");
        assert!(sound(root.bundle()).signs_with_the_root());
        assert!(sound(bundle(&[&other, &root], &[&root], &root)).signs_with_the_root());
        assert!(!sound(ca.bundle_under(&root)).signs_with_the_root());
    }

    #[test]
    fn the_chain_may_have_the_root_too_and_be_in_any_order() {
        let root = Ca::root("Root");
        let middle = root.issue("Middle");
        let ca = middle.issue("CA");
        let chains: [&[&Ca]; 4] =
            [&[&ca, &middle], &[&ca, &middle, &root], &[&root, &middle, &ca], &[&middle, &ca, &middle]];
        for chain in chains {
            let bundle = bundle(&[&root], chain, &ca);
            assert_eq!(rustls_verifies_a_workload_under(&bundle, &ca), Ok(()));
            assert_eq!(verdict(bundle), Ok(print(&root)));
        }
    }

    #[test]
    fn a_chain_that_lacks_the_signing_ca_is_refused() {
        let root = Ca::root("Root");
        let ca = root.issue("CA");
        let bundle = bundle(&[&root], &[&root], &ca);
        assert!(rustls_verifies_a_workload_under(&bundle, &ca).is_err());
        assert_eq!(verdict(bundle), Err(Flaw::ChainLacksCa));
    }

    #[test]
    fn a_chain_that_lacks_a_ca_in_the_middle_is_refused() {
        let root = Ca::root("Root");
        let middle = root.issue("Middle");
        let ca = middle.issue("CA");
        assert_eq!(verdict(bundle(&[&root], &[&ca], &ca)), Err(Flaw::NoPath));
        assert_eq!(verdict(bundle(&[&root], &[&ca, &root], &ca)), Err(Flaw::NoPath));
    }

    #[test]
    fn a_root_that_is_not_in_root_cert_is_refused() {
        let (root, other) = (Ca::root("Root"), Ca::root("Other"));
        let ca = root.issue("CA");
        assert_eq!(verdict(bundle(&[&other], &[&ca, &root], &ca)), Err(Flaw::NoPath));
        assert_eq!(verdict(bundle(&[&other], &[&root], &root)), Err(Flaw::NoPath));
        assert_eq!(verdict(bundle(&[&other], &[&other], &root)), Err(Flaw::ChainLacksCa));
    }

    #[test]
    fn a_forged_issuer_name_is_refused() {
        let (root, forger) = (Ca::root("Root"), Ca::root("Root"));
        let ca = forger.issue_but("CA", |params| params.use_authority_key_identifier_extension = false);
        assert_eq!(verdict(ca.bundle_under(&forger)), Ok(print(&forger)));
        assert_eq!(verdict(ca.bundle_under(&root)), Err(Flaw::NoPath));
    }

    #[test]
    fn a_right_signature_under_another_name_is_refused() {
        let root = Ca::root("Root");
        let renamed = Ca::root_with(KeyPair::try_from(root.key.serialized_der()).unwrap(), "Renamed", |_| ());
        let ca = root.issue("CA");
        assert_eq!(verdict(ca.bundle_under(&renamed)), Err(Flaw::NoPath));
    }

    #[test]
    fn key_identifiers_that_differ_are_refused() {
        let root = Ca::root("Root");
        let other_id = |params: &mut rcgen::CertificateParams| {
            params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
        };
        let twin = Ca::root_with(KeyPair::try_from(root.key.serialized_der()).unwrap(), "Root", |params| {
            params.use_authority_key_identifier_extension = false;
            other_id(params);
        });
        let ca = root.issue("CA");
        assert_eq!(verdict(ca.bundle_under(&twin)), Err(Flaw::NoPath));
        let unnamed = root.issue_but("CA", |params| params.use_authority_key_identifier_extension = false);
        assert_eq!(verdict(unnamed.bundle_under(&twin)), Ok(print(&twin)));
    }

    #[test]
    fn an_issuers_serial_that_differs_is_refused() {
        let root = Ca::root_but("Root", |params| params.serial_number = Some(vec![7, 7].into()));
        for (serial, expected) in [(7, Ok(print(&root))), (8, Err(Flaw::NoPath))] {
            let ca = root.issue_but("CA", |params| {
                params.use_authority_key_identifier_extension = false;
                // AuthorityKeyIdentifier with authorityCertSerialNumber alone.
                let authority = CustomExtension::from_oid_content(&[2, 5, 29, 35], vec![0x30, 4, 0x82, 2, 7, serial]);
                params.custom_extensions.push(authority);
            });
            assert_eq!(verdict(ca.bundle_under(&root)), expected);
        }
    }

    #[test]
    fn every_root_has_to_be_self_signed() {
        let root = Ca::root("Root");
        let ca = root.issue("CA");
        assert_eq!(verdict(bundle(&[&ca], &[&ca], &ca)), Err(Flaw::NotSelfSigned(root_at(1))));
        assert_eq!(verdict(bundle(&[&root, &ca], &[&ca], &ca)), Err(Flaw::NotSelfSigned(root_at(2))));
    }

    #[test]
    fn several_roots_are_accepted_and_the_right_one_is_found() {
        let (old, new) = (Ca::root("Old"), Ca::root("New"));
        let ca = new.issue("CA");
        let sound = sound(bundle(&[&old, &new], &[&ca], &ca));
        assert_eq!(sound.root, print(&new));
        assert_eq!(sound.roots(), &BTreeSet::from([print(&old), print(&new)]));
        assert_eq!(sound.glance.sha256, print(&old));
    }

    #[test]
    fn an_expired_root_is_refused_even_beside_a_good_one() {
        let good = Ca::root("Good");
        let old = Ca::root_but("Old", |params| set_validity(params, NOW - YEARS, NOW - HOUR));
        let flaw = Flaw::Expired(root_at(2), at(NOW - HOUR));
        assert_eq!(verdict(bundle(&[&good, &old], &[&good], &good)), Err(flaw));
    }

    #[test]
    fn an_expired_ca_in_the_chain_is_refused_even_where_no_path_needs_it() {
        let root = Ca::root("Root");
        let old = root.issue_but("Old", |params| set_validity(params, NOW - YEARS, NOW - HOUR));
        let flaw = Flaw::Expired(chain_at(2), at(NOW - HOUR));
        assert_eq!(verdict(bundle(&[&root], &[&root, &old], &root)), Err(flaw));
    }

    #[test]
    fn a_ca_beneath_a_root_has_to_be_good_itself() {
        let root = Ca::root("Root");
        let no_ca = root.issue_but("CA", |params| params.is_ca = IsCa::NoCa);
        assert_eq!(verdict(no_ca.bundle_under(&root)), Err(Flaw::NotCa(chain_at(1))));
        let server = root.issue_but("CA", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert_eq!(verdict(server.bundle_under(&root)), Err(Flaw::ExtendedKeyUsage(chain_at(1))));
        let flaw = Flaw::NotCa(At { file: CA_CERT, position: 1 });
        assert_eq!(verdict(bundle(&[&root], &[&root], &no_ca)), Err(flaw));
    }

    #[test]
    fn a_root_of_path_length_0_may_sign_directly() {
        let root = Ca::root_but("Root", |params| params.is_ca = at_most(0));
        assert_eq!(rustls_verifies_a_workload_under(&root.bundle(), &root), Ok(()));
        assert_eq!(verdict(root.bundle()), Ok(print(&root)));
    }

    #[test]
    fn a_ca_beneath_a_root_of_path_length_0_is_refused() {
        let root = Ca::root_but("Root", |params| params.is_ca = at_most(0));
        let ca = root.issue("CA");
        assert_eq!(verdict(ca.bundle_under(&root)), Err(Flaw::PathLength(root_at(1))));
    }

    #[test]
    fn a_ca_of_path_length_0_may_sign_workloads() {
        let root = Ca::root_but("Root", |params| params.is_ca = at_most(1));
        let ca = root.issue_but("CA", |params| params.is_ca = at_most(0));
        assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
        assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
    }

    #[test]
    fn path_lengths_in_the_middle_count() {
        let root = Ca::root("Root");
        for (beneath, expected) in [(0, Err(Flaw::PathLength(chain_at(2)))), (1, Ok(print(&root)))] {
            let middle = root.issue_but("Middle", |params| params.is_ca = at_most(beneath));
            let ca = middle.issue("CA");
            assert_eq!(verdict(bundle(&[&root], &[&ca, &middle], &ca)), expected);
        }
    }

    #[test]
    fn a_self_issued_ca_counts_as_go_counts_it() {
        for (beneath, fits) in [(1, false), (2, true)] {
            let root = Ca::root_but("Root", |params| params.is_ca = at_most(beneath));
            let next_key = root.issue("Root");
            let ca = next_key.issue("CA");
            let expected = if fits { Ok(print(&root)) } else { Err(Flaw::PathLength(root_at(1))) };
            assert_eq!(verdict(bundle(&[&root], &[&ca, &next_key], &ca)), expected);
        }
    }

    #[test]
    fn a_cross_signed_root_leads_to_either_root() {
        let (old, new) = (Ca::root("Old"), Ca::root("New"));
        let new_by_old = old.cross_sign(&new);
        let ca = new.issue("CA");
        let chain = [&ca, &new_by_old];
        assert_eq!(verdict(bundle(&[&old], &chain, &ca)), Ok(print(&old)));
        assert_eq!(verdict(bundle(&[&new], &chain, &ca)), Ok(print(&new)));
        assert_eq!(verdict(bundle(&[&old, &new], &chain, &ca)), Ok(print(&new)));
        assert_eq!(rustls_verifies_a_workload_under(&bundle(&[&old], &chain, &ca), &ca), Ok(()));
    }

    #[test]
    fn a_path_that_is_too_long_does_not_hide_one_that_fits() {
        let root = Ca::root_but("Root", |params| params.is_ca = at_most(1));
        let middle = root.issue("Middle");
        let ca = middle.issue("CA");
        assert_eq!(verdict(bundle(&[&root], &[&ca, &middle], &ca)), Err(Flaw::PathLength(root_at(1))));
        let direct = Ca::root_with(KeyPair::try_from(middle.key.serialized_der()).unwrap(), "Middle", |_| ());
        assert_eq!(verdict(bundle(&[&root, &direct], &[&ca, &middle], &ca)), Ok(print(&direct)));
    }

    #[test]
    fn a_self_signed_ca_is_not_saved_by_its_cross_signed_twin() {
        // istiod takes the two for one CA, and finds no way on from the first.
        let (old, new) = (Ca::root("Old"), Ca::root("New"));
        let new_by_old = old.cross_sign(&new);
        assert_eq!(verdict(bundle(&[&old], &[&new, &new_by_old], &new)), Err(Flaw::NoPath));
        assert_eq!(verdict(bundle(&[&old], &[&new, &new_by_old], &new_by_old)), Ok(print(&old)));
    }

    #[test]
    fn cas_that_signed_each_other_end_the_search() {
        let (one, two, root) = (Ca::root("One"), Ca::root("Two"), Ca::root("Root"));
        let (one_by_two, two_by_one) = (two.cross_sign(&one), one.cross_sign(&two));
        assert_eq!(verdict(bundle(&[&root], &[&one_by_two, &two_by_one], &one_by_two)), Err(Flaw::NoPath));
    }

    #[test]
    fn ten_cas_in_a_row_are_accepted() {
        let root = Ca::root("Root");
        let mut cas = vec![root.issue("CA 1")];
        for depth in 2..=10 {
            let next = cas.last().unwrap().issue(&format!("CA {depth}"));
            cas.push(next);
        }
        let chain: Vec<&Ca> = cas.iter().collect();
        assert_eq!(verdict(bundle(&[&root], &chain, &cas[9])), Ok(print(&root)));
    }

    #[test]
    fn further_certificates_in_ca_cert_may_be_there() {
        let root = Ca::root("Root");
        let ca = root.issue("CA");
        let mut bundle = ca.bundle_under(&root);
        bundle.ca_cert.extend_from_slice(root.certificate.pem().as_bytes());
        assert_eq!(verdict(bundle), Ok(print(&root)));
    }

    #[test]
    fn another_key_is_refused() {
        let (root, other) = (Ca::root("Root"), Ca::root("Root"));
        let bundle = Bundle { ca_key: other.bundle().ca_key, ..root.bundle() };
        assert_eq!(verdict(bundle), Err(Flaw::KeyMismatch));
        let ca = root.issue("CA");
        let bundle = Bundle { ca_key: root.bundle().ca_key, ..ca.bundle_under(&root) };
        assert_eq!(verdict(bundle), Err(Flaw::KeyMismatch));
    }

    /// The verdict on a root with this in place of its key's file.
    fn with_key(root: &Ca, key: impl Into<Vec<u8>>) -> Result<Sha256, Flaw> {
        verdict(Bundle { ca_key: KeyPem::new(key.into()), ..root.bundle() })
    }

    #[test]
    fn an_rsa_key_may_be_pkcs1_or_pkcs8() {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let root = Ca::root_with(key, "Root", |_| ());
        let pkcs1 = traditional(root.key.serialized_der());
        assert_eq!(verdict(root.bundle()), Ok(print(&root)));
        assert_eq!(with_key(&root, pem("RSA PRIVATE KEY", &pkcs1, 64, "\n")), Ok(print(&root)));
        assert_eq!(with_key(&root, pem("EC PRIVATE KEY", &pkcs1, 64, "\n")), Err(Flaw::KeyMalformed));
    }

    #[test]
    fn an_ec_key_may_be_sec1_or_pkcs8() {
        let root = Ca::root("Root");
        let sec1 = traditional(root.key.serialized_der());
        assert_eq!(with_key(&root, pem("EC PRIVATE KEY", &sec1, 64, "\n")), Ok(print(&root)));
        assert_eq!(with_key(&root, pem("PRIVATE KEY", &sec1, 64, "\n")), Err(Flaw::KeyMalformed));
    }

    #[test]
    fn an_encrypted_key_is_refused() {
        let root = Ca::root("Root");
        let pkcs8 = pem("ENCRYPTED PRIVATE KEY", &[7; 100], 64, "\n");
        assert_eq!(with_key(&root, pkcs8), Err(Flaw::KeyEncrypted));
        let headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
        let pkcs1 = pem("RSA PRIVATE KEY", &[7; 100], 64, "\n").replacen('\n', &format!("\n{headers}"), 1);
        assert_eq!(with_key(&root, pkcs1), Err(Flaw::KeyEncrypted));
    }

    #[test]
    fn only_the_first_block_of_a_key_counts_and_text_does_not() {
        let (root, other) = (Ca::root("Root"), Ca::root("Other"));
        let (key, other_key) = (root.key.serialize_pem(), other.key.serialize_pem());
        assert_eq!(with_key(&root, format!("Bag Attributes\n  Name: x\n{key}{other_key}")), Ok(print(&root)));
        assert_eq!(with_key(&root, format!("{other_key}{key}")), Err(Flaw::KeyMismatch));
        let parameters = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7], 64, "\n");
        assert_eq!(with_key(&root, format!("{parameters}{key}")), Err(Flaw::KeyMalformed));
        let certificate = root.certificate.pem();
        assert_eq!(with_key(&root, format!("{certificate}{key}")), Err(Flaw::KeyMalformed));
    }

    #[test]
    fn a_broken_key_is_refused() {
        let root = Ca::root("Root");
        let key = root.key.serialize_pem();
        let broken = [
            "key".to_owned(),
            " ".to_owned(),
            key[..key.len() / 2].to_owned(),
            // Go would take the second.
            format!("{}{key}", &key[..key.len() / 2]),
            key.replace('M', "N"),
            pem("PRIVATE KEY", &[7; 100], 64, "\n"),
        ];
        for key in broken {
            assert_eq!(with_key(&root, key.as_bytes()), Err(Flaw::KeyMalformed), "{key}");
        }
        assert_eq!(with_key(&root, [key.as_bytes(), b"\xff"].concat()), Err(Flaw::KeyMalformed));
    }

    #[test]
    fn a_private_key_in_a_file_of_certificates_is_refused() {
        let root = Ca::root("Root");
        for file in [ROOT_CERT, CERT_CHAIN, CA_CERT] {
            let mut bundle = root.bundle();
            let bytes = match file {
                ROOT_CERT => &mut bundle.root_cert,
                CERT_CHAIN => &mut bundle.cert_chain,
                _ => &mut bundle.ca_cert,
            };
            bytes.extend_from_slice(root.key.serialize_pem().as_bytes());
            assert_eq!(verdict(bundle), Err(Flaw::NotOnlyCertificates(file)));
        }
    }

    /// The same certificates and key, in other bytes.
    fn other_bytes(bundle: &Bundle) -> Bundle {
        let crlf = |file: &[u8]| String::from_utf8(file.to_vec()).unwrap().replace('\n', "\r\n").into_bytes();
        Bundle {
            root_cert: crlf(&bundle.root_cert),
            cert_chain: crlf(&bundle.cert_chain),
            ca_cert: crlf(&bundle.ca_cert),
            ca_key: KeyPem::new(crlf(bundle.ca_key.expose())),
        }
    }

    #[test]
    fn other_bytes_may_be_the_same_ca() {
        let root = Ca::root("Root");
        let (one, two) = (sound(root.bundle()), sound(other_bytes(&root.bundle())));
        assert!(one.same_bytes(&one) && one.same_ca(&one) && one.same_roots(&one));
        assert!(!one.same_bytes(&two) && one.same_ca(&two) && one.same_roots(&two));
        let sec1 = pem("EC PRIVATE KEY", &traditional(root.key.serialized_der()), 64, "\n");
        let three = sound(Bundle { ca_key: KeyPem::new(sec1.into_bytes()), ..root.bundle() });
        assert!(!one.same_bytes(&three) && one.same_ca(&three) && one.same_roots(&three));
    }

    #[test]
    fn another_ca_may_have_the_same_roots() {
        let root = Ca::root("Root");
        let (one, two) = (root.issue("CA"), root.issue("CA"));
        let (one, two) = (sound(one.bundle_under(&root)), sound(two.bundle_under(&root)));
        assert!(!one.same_bytes(&two) && !one.same_ca(&two) && one.same_roots(&two));
    }

    #[test]
    fn roots_are_the_same_in_any_order_but_the_files_are_not() {
        let (one, two) = (Ca::root("One"), Ca::root("Two"));
        let both = sound(bundle(&[&one, &two], &[&one], &one));
        let reversed = sound(bundle(&[&two, &one], &[&one], &one));
        let twice = sound(bundle(&[&one, &two, &one], &[&one], &one));
        assert!(both.same_roots(&reversed) && !both.same_ca(&reversed));
        assert!(both.same_roots(&twice) && !both.same_ca(&twice));
        assert!(!both.same_roots(&sound(one.bundle())));
    }

    #[test]
    fn other_roots_are_not_the_same() {
        let (one, two) = (sound(Ca::root("Root").bundle()), sound(Ca::root("Root").bundle()));
        assert!(!one.same_roots(&two) && !one.same_ca(&two) && !one.same_bytes(&two));
    }

    #[test]
    fn the_window_is_that_of_all_certificates() {
        let root = Ca::root_but("Root", |params| set_validity(params, NOW - 3 * HOUR, NOW + 2 * HOUR));
        let ca = root.issue_but("CA", |params| set_validity(params, NOW - 2 * HOUR, NOW + 3 * HOUR));
        let bundle = ca.bundle_under(&root);
        let sound = sound(bundle.clone());
        let skew = 300;
        assert_eq!((sound.valid_from, sound.usable_until.at), (at(NOW - 2 * HOUR - skew), at(NOW + 2 * HOUR + skew)));
        assert!(check(bundle.clone(), sound.valid_from).is_ok());
        assert!(check(bundle.clone(), sound.usable_until.at).is_ok());
        let early = Flaw::NotYetValid(chain_at(1), at(NOW - 2 * HOUR));
        assert_eq!(check(bundle.clone(), at(NOW - 2 * HOUR - skew - 1)).err(), Some(early));
        let late = Flaw::Expired(root_at(1), at(NOW + 2 * HOUR));
        assert_eq!(check(bundle, at(NOW + 2 * HOUR + skew + 1)).err(), Some(late));
    }

    /// Tells the seed of a run that panics.
    struct Seed(u64);

    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }

    fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
        for _ in 0..random.usize(1..4) {
            let start = random.usize(0..=bytes.len());
            let end = random.usize(start..=bytes.len().min(start + 40));
            match random.u8(0..5) {
                0 if start < bytes.len() => bytes[start] ^= 1 << random.u8(0..8),
                1 if start < bytes.len() => bytes[start] = random.u8(..),
                2 => bytes.truncate(start),
                3 => drop(bytes.drain(start..end)),
                _ => bytes.extend_from_within(start..end),
            }
        }
    }

    /// Changes a file's text, or the DER in one of its blocks.
    fn mutate_file(random: &mut fastrand::Rng, file: &mut Vec<u8>) {
        if random.bool() {
            return mutate(random, file);
        }
        let mut ders = certificates(ROOT_CERT, file).unwrap();
        let chosen = random.usize(0..ders.len());
        mutate(random, &mut ders[chosen]);
        *file = ders.iter().map(|der| pem("CERTIFICATE", der, 64, "\n")).collect::<String>().into_bytes();
    }

    #[test]
    fn no_input_makes_a_panic_or_passes_for_what_it_is_not() {
        let root = Ca::root("Root");
        let ca = root.issue_but("CA", |params| {
            params.is_ca = at_most(0);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        });
        let whole = bundle(&[&root], &[&ca, &root], &ca);
        let original = sound(whole.clone());
        for seed in 0..3000 {
            let _told = Seed(seed);
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut changed = whole.clone();
            match random.u8(0..4) {
                0 => mutate_file(random, &mut changed.root_cert),
                1 => mutate_file(random, &mut changed.cert_chain),
                2 => mutate_file(random, &mut changed.ca_cert),
                _ => {
                    let mut key = changed.ca_key.expose().to_vec();
                    mutate(random, &mut key);
                    changed.ca_key = KeyPem::new(key);
                }
            }
            let _ = super::super::bundle::glance(&changed.root_cert);
            let _ = Bundle::from_record(&changed.to_record());
            let _ = Bundle::from_secret([(ROOT_CERT, &*changed.root_cert), (CA_KEY, changed.ca_key.expose())]);
            if let Ok(sound) = check(changed, now()) {
                // What was cut away may not have been needed.
                assert!(sound.same_roots(&original) && sound.root == original.root, "{sound:?}");
                assert_eq!(sound.certificates[2], original.certificates[2]);
            }
        }
    }

    #[test]
    fn what_passes_by_the_contract_passes_with_rustls() {
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let root = Ca::root_but("Root", |params| params.extended_key_usages = both.clone());
        let ca = root.issue_but("CA", |params| {
            params.extended_key_usages = both;
            params.key_usages.clear();
        });
        assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
        assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
    }

    #[test]
    fn an_old_root_with_sha1_may_be_trusted_too() {
        let root = Ca::root("Root");
        let mut bundle = root.bundle();
        bundle.root_cert.extend_from_slice(fixtures::SHA1.as_bytes());
        assert_eq!(rustls_verifies_a_workload_under(&bundle, &root), Ok(()));
        assert_eq!(verdict(bundle), Ok(print(&root)));
    }
}
