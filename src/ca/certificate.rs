//! One certificate: what it has to be by itself, and whether it issued another.

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use k8s_openapi::jiff::Timestamp;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA1WITHRSA,
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::Sha256;
use super::check::{At, Flaw};

/// How far, in seconds, the clocks of those who made a certificate may be from ours.
const SKEW: i64 = 5 * 60;

/// What aws-lc and Go's TLS verify with.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// The extensions that may be critical: ztunnel refuses any other, and Go and Envoy most.
const UNDERSTOOD: [Oid<'static>; 5] = [
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_NAME_CONSTRAINTS,
];

/// A CA certificate that is good by itself, but for the time.
pub(super) struct Certificate<'a> {
    pub(super) at: At,
    pub(super) sha256: Sha256,
    pub(super) x509: X509Certificate<'a>,
    /// How many CA certificates may be beneath it.
    pub(super) path_length: Option<u32>,
    key: KeyKind,
}

/// The keys that every peer verifies with.
#[derive(Clone, Copy)]
enum KeyKind {
    Rsa,
    P256,
    P384,
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(at: At, der: &'a [u8]) -> Result<Self, Flaw> {
        let Ok(([], x509)) = X509Certificate::from_der(der) else {
            return Err(Flaw::Malformed(at));
        };
        if !is_well_formed(&x509) {
            return Err(Flaw::Malformed(at));
        }
        if let Some(oid) = unknown_critical_extension(&x509) {
            return Err(Flaw::CriticalExtension(at, oid));
        }
        let Some(path_length) = ca_path_length(&x509) else {
            return Err(Flaw::NotCa(at));
        };
        if !may_sign_certificates(&x509).map_err(|_| Flaw::Malformed(at))? {
            return Err(Flaw::NoKeyCertSign(at));
        }
        if !is_for_both_sides(&x509).map_err(|_| Flaw::Malformed(at))? {
            return Err(Flaw::ExtendedKeyUsage(at));
        }
        let Some(key) = KeyKind::of(x509.public_key()) else {
            return Err(Flaw::UnsupportedKey(at));
        };
        if !has_usable_signature(&x509) {
            return Err(Flaw::UnsupportedSignature(at));
        }
        Ok(Self { at, sha256: Sha256::of(der), x509, path_length, key })
    }

    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Flaw> {
        let validity = self.x509.validity();
        if now > self.valid_until() {
            return Err(Flaw::Expired(self.at, timestamp(validity.not_after, 0)));
        }
        if now < self.valid_from() {
            return Err(Flaw::NotYetValid(self.at, timestamp(validity.not_before, 0)));
        }
        Ok(())
    }

    /// The first moment at which it passes, skew included.
    pub(super) fn valid_from(&self) -> Timestamp {
        timestamp(self.x509.validity().not_before, -SKEW)
    }

    /// The last moment at which it passes, skew included.
    pub(super) fn valid_until(&self) -> Timestamp {
        timestamp(self.x509.validity().not_after, SKEW)
    }

    /// Whether this one issued `subject`: by name, by key identifiers where both have them (as
    /// Envoy's verifier wants it), and by signature.
    pub(super) fn issued(&self, subject: &Certificate<'_>) -> bool {
        self.x509.subject().as_raw() == subject.x509.issuer().as_raw()
            && key_identifiers_agree(&self.x509, &subject.x509)
            && self.verifies(subject)
    }

    /// Whether the two stand for the same CA, which a path may not pass twice (RFC 4158, 5.2).
    pub(super) fn is_same_ca(&self, other: &Certificate<'_>) -> bool {
        self.x509.subject().as_raw() == other.x509.subject().as_raw()
            && self.x509.public_key().raw == other.x509.public_key().raw
    }

    fn verifies(&self, subject: &Certificate<'_>) -> bool {
        let x509 = &subject.x509;
        let by_itself = self.sha256 == subject.sha256;
        let Some(algorithm) = self.key.verifier(&x509.signature_algorithm.algorithm, by_itself) else {
            return false;
        };
        UnparsedPublicKey::new(algorithm, &self.x509.public_key().subject_public_key.data)
            .verify(x509.tbs_certificate.as_ref(), &x509.signature_value.data)
            .is_ok()
    }
}

/// What the parser lets pass, and Go's does not.
fn is_well_formed(x509: &X509Certificate<'_>) -> bool {
    let negative = |serial: &[u8]| serial.first().is_none_or(|first| first & 0x80 != 0);
    x509.version() == X509Version::V3
        && !negative(x509.raw_serial())
        && x509.signature == x509.signature_algorithm
        && x509.signature_value.unused_bits == 0
        // Fails on duplicates.
        && x509.extensions_map().is_ok()
        && x509.iter_extensions().all(|extension| extension.parsed_extension().error().is_none())
}

fn unknown_critical_extension(x509: &X509Certificate<'_>) -> Option<String> {
    x509.iter_extensions()
        .find(|extension| extension.critical && !UNDERSTOOD.contains(&extension.oid))
        .map(|extension| extension.oid.to_id_string())
}

/// `None` if it is no CA.
fn ca_path_length(x509: &X509Certificate<'_>) -> Option<Option<u32>> {
    let constraints = x509.basic_constraints().ok()??.value;
    constraints.ca.then_some(constraints.path_len_constraint)
}

/// keyUsage may be absent, as openssl's default roots have it.
fn may_sign_certificates(x509: &X509Certificate<'_>) -> Result<bool, X509Error> {
    Ok(x509.key_usage()?.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// Workloads are both clients and servers. `anyExtendedKeyUsage` alone does not do: Go would take it,
/// but webpki (ztunnel) and OpenSSL want a CA's usages by name.
fn is_for_both_sides(x509: &X509Certificate<'_>) -> Result<bool, X509Error> {
    let usage = x509.extended_key_usage()?.map(|usage| usage.value);
    Ok(usage.is_none_or(|usage| usage.server_auth && usage.client_auth))
}

/// Nobody relies on a root's own signature, so that old roots may keep theirs with SHA-1.
fn has_usable_signature(x509: &X509Certificate<'_>) -> bool {
    let is_self_issued = x509.subject().as_raw() == x509.issuer().as_raw();
    let algorithm = &x509.signature_algorithm.algorithm;
    SHA2.contains(algorithm) || is_self_issued && *algorithm == OID_PKCS1_SHA1WITHRSA
}

fn key_identifiers_agree(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    let authority = subject.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => Some(authority),
        _ => None,
    });
    let named = issuer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
        _ => None,
    });
    authority.is_none_or(|authority| {
        let ids = authority.key_identifier.as_ref().zip(named);
        ids.is_none_or(|(wanted, named)| wanted == named)
            && authority.authority_cert_serial.is_none_or(|serial| serial == issuer.raw_serial())
    })
}

/// What every peer verifies.
const SHA2: [Oid<'static>; 6] = [
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512,
];

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let parameters = key.algorithm.parameters.as_ref()?;
        if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            return match parameters.as_oid().ok()? {
                curve if curve == OID_EC_P256 => Some(Self::P256),
                curve if curve == OID_NIST_EC_P384 => Some(Self::P384),
                _ => None,
            };
        }
        // Keys for RSASSA-PSS alone have another algorithm, which few understand.
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION || parameters.tag() != Tag::Null {
            return None;
        }
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return None;
        };
        let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        RSA_BITS.contains(&bits).then_some(Self::Rsa)
    }

    /// How to verify a signature made with such a key; with SHA-1, a root's by itself only.
    fn verifier(self, signature: &Oid<'_>, by_itself: bool) -> Option<&'static dyn VerificationAlgorithm> {
        let is = |oid: Oid<'static>| *signature == oid;
        Some(match self {
            Self::Rsa if is(OID_PKCS1_SHA256WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rsa if is(OID_PKCS1_SHA384WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rsa if is(OID_PKCS1_SHA512WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Rsa if is(OID_PKCS1_SHA1WITHRSA) && by_itself => {
                &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY
            }
            Self::P256 if is(OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
            Self::P256 if is(OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
            Self::P256 if is(OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
            Self::P384 if is(OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
            Self::P384 if is(OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
            Self::P384 if is(OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
            _ => return None,
        })
    }
}

/// A certificate's time, moved by some seconds. Its years go up to 9999, whose last second often
/// means "never": what cannot be told is taken for the last that can.
pub(super) fn timestamp(time: ASN1Time, moved_by: i64) -> Timestamp {
    let seconds = time.timestamp().saturating_add(moved_by);
    let limit = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
        KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        PKCS_RSA_SHA256, PKCS_RSA_SHA384, PKCS_RSA_SHA512, RsaKeySize, SerialNumber, SignatureAlgorithm,
    };

    use super::super::bundle::{Bundle, ROOT_CERT};
    use super::super::check::check;
    use super::super::fixtures::{self, Ca, HOUR, NOW, YEARS, at, now, pem};
    use super::super::issue::set_validity;
    use super::super::pem::certificates;
    use super::*;

    /// The verdict on a root that signs directly.
    fn verdict_on(root: &Ca) -> Result<Sha256, Flaw> {
        check(root.bundle(), now()).map(|sound| sound.root)
    }

    /// The verdict on such a root, made with other parameters.
    fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<(), Flaw> {
        verdict_on(&Ca::root_but("Root", change)).map(|_| ())
    }

    /// The verdict on a root beside a good one: by openssl, so that its key is not at hand.
    fn verdict_on_second(pem: &str) -> Result<(), Flaw> {
        let mut bundle = Ca::root("Root").bundle();
        bundle.root_cert.extend_from_slice(pem.as_bytes());
        check(bundle, now()).map(|_| ())
    }

    /// A root's DER, changed behind its signer's back.
    fn verdict_on_changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Flaw> {
        let root = Ca::root("Root");
        let mut der = root.certificate.der().to_vec();
        change(&mut der);
        let pem = pem("CERTIFICATE", &der, 64, "\n").into_bytes();
        let bundle = Bundle { root_cert: pem.clone(), cert_chain: pem.clone(), ca_cert: pem, ..root.bundle() };
        check(bundle, now()).map(|_| ())
    }

    fn find(der: &[u8], needle: &[u8]) -> usize {
        der.windows(needle.len()).position(|window| window == needle).unwrap()
    }

    const FIRST: At = At { file: ROOT_CERT, position: 1 };
    const SECOND: At = At { file: ROOT_CERT, position: 2 };

    #[test]
    fn a_p256_root_is_accepted() {
        let root = Ca::root("Root");
        assert_eq!(verdict_on(&root), Ok(Sha256::of(root.certificate.der())));
    }

    #[test]
    fn a_p384_root_is_accepted() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let root = Ca::root_with(key, "Root", |_| ());
        assert_eq!(verdict_on(&root), Ok(Sha256::of(root.certificate.der())));
    }

    #[test]
    fn either_curve_is_accepted_with_every_sha2() {
        let roots = [fixtures::P256_SHA384, fixtures::P256_SHA512, fixtures::P384_SHA256, fixtures::P384_SHA512];
        for root in roots {
            assert_eq!(verdict_on_second(root), Ok(()), "{root}");
        }
    }

    #[test]
    fn rsa_2048_is_accepted_with_every_sha2() {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        for algorithm in [&PKCS_RSA_SHA256, &PKCS_RSA_SHA384, &PKCS_RSA_SHA512] {
            let key = KeyPair::from_der_and_sign_algo(&key.serialized_der().try_into().unwrap(), algorithm).unwrap();
            let root = Ca::root_with(key, "Root", |_| ());
            assert_eq!(verdict_on(&root), Ok(Sha256::of(root.certificate.der())), "{algorithm:?}");
        }
    }

    #[test]
    fn rsa_1024_is_refused() {
        assert_eq!(verdict_on_second(fixtures::RSA_1024), Err(Flaw::UnsupportedKey(SECOND)));
    }

    #[test]
    fn ed25519_and_p521_are_refused() {
        let algorithms: [&SignatureAlgorithm; 2] = [&PKCS_ED25519, &PKCS_ECDSA_P521_SHA512];
        for algorithm in algorithms {
            let root = Ca::root_with(KeyPair::generate_for(algorithm).unwrap(), "Root", |_| ());
            assert_eq!(verdict_on(&root), Err(Flaw::UnsupportedKey(FIRST)), "{algorithm:?}");
        }
    }

    #[test]
    fn rsa_without_its_null_is_refused() {
        let mut der = certificates(ROOT_CERT, fixtures::SHA1.as_bytes()).unwrap().remove(0);
        // rsaEncryption and NULL.
        let algorithm = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        let null = find(&der, &algorithm) + algorithm.len() - 2;
        der[null] = 0x30;
        assert_eq!(Certificate::parse(FIRST, &der).map(|_| ()), Err(Flaw::UnsupportedKey(FIRST)));
    }

    #[test]
    fn a_self_signed_root_may_have_sha1() {
        assert_eq!(verdict_on_second(fixtures::SHA1), Ok(()));
    }

    #[test]
    fn a_ca_beneath_a_root_may_not_have_sha1() {
        let mut bundle = Ca::root("Root").bundle();
        bundle.cert_chain.extend_from_slice(fixtures::UNDER_SHA1.as_bytes());
        let second = At { file: "cert-chain.pem", position: 2 };
        assert_eq!(check(bundle, now()).err(), Some(Flaw::UnsupportedSignature(second)));
    }

    #[test]
    fn nor_may_one_with_the_roots_own_name() {
        let bundle = Bundle {
            root_cert: fixtures::SHA1.into(),
            cert_chain: fixtures::SELF_ISSUED_SHA1.into(),
            ca_cert: fixtures::SELF_ISSUED_SHA1.into(),
            ..Ca::root("Root").bundle()
        };
        assert_eq!(check(bundle, now()).err(), Some(Flaw::NoPath));
    }

    #[test]
    fn md5_and_rsassa_pss_are_refused() {
        assert_eq!(verdict_on_second(fixtures::MD5), Err(Flaw::UnsupportedSignature(SECOND)));
        assert_eq!(verdict_on_second(fixtures::PSS), Err(Flaw::UnsupportedSignature(SECOND)));
    }

    #[test]
    fn version_1_is_refused() {
        assert_eq!(verdict_on_second(fixtures::VERSION_1), Err(Flaw::Malformed(SECOND)));
    }

    #[test]
    fn a_key_usage_may_be_absent() {
        assert_eq!(verdict(|params| params.key_usages.clear()), Ok(()));
    }

    #[test]
    fn a_key_usage_without_key_cert_sign_is_refused() {
        let verdict = verdict(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        assert_eq!(verdict, Err(Flaw::NoKeyCertSign(FIRST)));
    }

    #[test]
    fn no_basic_constraints_is_refused() {
        assert_eq!(verdict(|params| params.is_ca = IsCa::NoCa), Err(Flaw::NotCa(FIRST)));
    }

    #[test]
    fn ca_false_is_refused() {
        assert_eq!(verdict(|params| params.is_ca = IsCa::ExplicitNoCa), Err(Flaw::NotCa(FIRST)));
    }

    #[test]
    fn an_extended_key_usage_for_both_sides_is_accepted() {
        use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        for usages in [vec![ServerAuth, ClientAuth], vec![CodeSigning, ClientAuth, ServerAuth]] {
            assert_eq!(verdict(|params| params.extended_key_usages = usages.clone()), Ok(()), "{usages:?}");
        }
    }

    #[test]
    fn an_extended_key_usage_for_one_side_or_neither_or_any_is_refused() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for usages in [vec![Any], vec![ServerAuth], vec![ClientAuth], vec![CodeSigning], vec![ServerAuth, CodeSigning]]
        {
            let verdict = verdict(|params| params.extended_key_usages = usages.clone());
            assert_eq!(verdict, Err(Flaw::ExtendedKeyUsage(FIRST)), "{usages:?}");
        }
    }

    #[test]
    fn a_critical_extension_that_peers_do_not_know_is_refused() {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        assert_eq!(verdict(|params| params.custom_extensions.push(extension.clone())), Ok(()));
        extension.set_criticality(true);
        let verdict = verdict(|params| params.custom_extensions.push(extension));
        assert_eq!(verdict, Err(Flaw::CriticalExtension(FIRST, "1.3.6.1.4.1.99999.1".to_owned())));
    }

    #[test]
    fn name_constraints_are_accepted() {
        let verdict = verdict(|params| {
            let permitted_subtrees = vec![GeneralSubtree::DnsName("cluster.local".to_owned())];
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
        });
        assert_eq!(verdict, Ok(()));
    }

    #[test]
    fn an_extension_that_is_there_twice_is_refused() {
        let key_usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 1, 6]);
        assert_eq!(verdict(|params| params.custom_extensions.push(key_usage)), Err(Flaw::Malformed(FIRST)));
        let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        let twice = verdict(|params| params.custom_extensions = vec![unknown.clone(), unknown]);
        assert_eq!(twice, Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn an_extension_that_cannot_be_read_is_refused() {
        for id in [15, 17, 35, 37] {
            let verdict = verdict(|params| {
                params.key_usages.clear();
                params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, id], vec![4, 1, 0]));
            });
            assert_eq!(verdict, Err(Flaw::Malformed(FIRST)), "2.5.29.{id}");
        }
    }

    #[test]
    fn bytes_after_the_certificate_in_its_block_are_refused() {
        assert_eq!(verdict_on_changed(|der| der.push(0)), Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn a_cut_certificate_is_refused() {
        let cut = |der: &mut Vec<u8>| der.truncate(der.len() - 1);
        assert_eq!(verdict_on_changed(cut), Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn two_different_signature_algorithms_in_one_certificate_are_refused() {
        // ecdsa-with-SHA256, of which the second one is outside of what is signed.
        let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let verdict = verdict_on_changed(|der| {
            let first = find(der, &oid) + oid.len();
            let second = first + find(&der[first..], &oid) + oid.len() - 1;
            der[second] = 0x03;
        });
        assert_eq!(verdict, Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn a_signature_that_does_not_end_with_a_byte_is_refused() {
        let verdict = verdict_on_changed(|der| {
            let (_, x509) = X509Certificate::from_der(der).unwrap();
            let unused_bits = der.len() - x509.signature_value.data.len() - 1;
            der[unused_bits] = 1;
        });
        assert_eq!(verdict, Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn a_negative_serial_is_refused() {
        let root = Ca::root_but("Root", |params| params.serial_number = Some(SerialNumber::from_slice(&[0x55; 9])));
        let mut der = root.certificate.der().to_vec();
        let start = find(&der, &[0x55; 9]);
        der[start] = 0x85;
        let parsed = Certificate::parse(FIRST, &der).map(|_| ());
        assert_eq!(parsed, Err(Flaw::Malformed(FIRST)));
    }

    #[test]
    fn a_root_that_was_tampered_with_is_not_self_signed() {
        let verdict = verdict_on_changed(|der| {
            let start = find(der, b"Root");
            let last = start + der[start + 4..].windows(4).position(|window| window == b"Root").unwrap() + 4;
            der[start..start + 4].copy_from_slice(b"Toor");
            der[last..last + 4].copy_from_slice(b"Toor");
        });
        assert_eq!(verdict, Err(Flaw::NotSelfSigned(FIRST)));
    }

    /// The verdict at a second, on a root that is valid from `NOW - HOUR` to `NOW + HOUR`.
    fn verdict_at(second: i64) -> Result<(), Flaw> {
        let root = Ca::root_but("Root", |params| set_validity(params, NOW - HOUR, NOW + HOUR));
        check(root.bundle(), at(second)).map(|_| ())
    }

    #[test]
    fn an_expired_certificate_is_refused_once_the_skew_is_over() {
        assert_eq!(verdict_at(NOW + HOUR), Ok(()));
        assert_eq!(verdict_at(NOW + HOUR + SKEW), Ok(()));
        let flaw = Flaw::Expired(FIRST, at(NOW + HOUR));
        assert_eq!(verdict_at(NOW + HOUR + SKEW + 1), Err(flaw.clone()));
        assert_eq!(verdict_at(NOW + YEARS), Err(flaw.clone()));
        assert!(flaw.is_expired());
        assert_eq!(flaw.to_string(), "certificate 1 of root-cert.pem expired at 2027-01-01T01:00:00Z");
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_refused_before_the_skew() {
        assert_eq!(verdict_at(NOW - HOUR), Ok(()));
        assert_eq!(verdict_at(NOW - HOUR - SKEW), Ok(()));
        let flaw = Flaw::NotYetValid(FIRST, at(NOW - HOUR));
        assert_eq!(verdict_at(NOW - HOUR - SKEW - 1), Err(flaw.clone()));
        assert!(!flaw.is_expired());
        assert_eq!(flaw.to_string(), "certificate 1 of root-cert.pem is not valid before 2026-12-31T23:00:00Z");
    }

    #[test]
    fn an_end_that_means_never_is_the_last_time_that_can_be_told() {
        let never = 253_402_300_799;
        let root = Ca::root_but("Root", |params| set_validity(params, NOW - HOUR, never));
        let sound = check(root.bundle(), now()).unwrap();
        assert_eq!((sound.usable_until.at, sound.glance.not_after), (Timestamp::MAX, Timestamp::MAX));
    }

    #[test]
    fn path_length_is_read() {
        let length = |is_ca| {
            let root = Ca::root_but("Root", |params| params.is_ca = is_ca);
            Certificate::parse(FIRST, root.certificate.der()).unwrap().path_length
        };
        assert_eq!(length(IsCa::Ca(BasicConstraints::Unconstrained)), None);
        assert_eq!(length(IsCa::Ca(BasicConstraints::Constrained(3))), Some(3));
    }
}
