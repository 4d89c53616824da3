//! One certificate: what it has to be by itself, and whether it issued another.

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{self, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm};
use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Sha256;
use super::der::{self, OCTET_STRING, Reader, SEQUENCE};
use super::flaw::{At, Flaw};
use super::shape::{self, Extension, id};

/// What aws-lc and Go's TLS verify with.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// The extensions that may be critical: ztunnel refuses any other, and Go and Envoy most.
const UNDERSTOOD: [u8; 5] =
    [id::BASIC_CONSTRAINTS, id::KEY_USAGE, id::EXTENDED_KEY_USAGE, id::ALTERNATIVE_NAME, id::NAME_CONSTRAINTS];

/// Those that may be so on a trust anchor, too, of which ztunnel looks at none.
const POLICIES: [u8; 4] = [id::POLICIES, id::POLICY_MAPPINGS, id::POLICY_CONSTRAINTS, id::INHIBIT_ANY_POLICY];

/// A certificate that everybody can read.
pub(super) struct Certificate<'a> {
    pub(super) at: At,
    pub(super) sha256: Sha256,
    pub(super) x509: X509Certificate<'a>,
    extensions: Vec<Extension<'a>>,
    /// As OpenSSL compares names.
    subject: Vec<u8>,
    key: KeyKind,
}

/// The keys that every peer verifies with.
#[derive(Clone, Copy)]
enum KeyKind {
    Rsa,
    P256,
    P384,
}

/// What a certificate says of its issuer.
pub(super) struct Wanted<'a> {
    /// As OpenSSL compares names.
    name: Vec<u8>,
    key: Option<&'a [u8]>,
    /// The name of the issuer's issuer.
    issuer: Option<Vec<u8>>,
    serial: Option<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(certificate: &Certificate<'a>) -> Self {
        let value = certificate.extension(id::AUTHORITY_KEY).and_then(|one| der::only(one.value, SEQUENCE));
        let mut reader = Reader::new(value.unwrap_or_default());
        let mut next = |tag| reader.optional(tag).flatten();
        let (key, issuer, serial) = (next(0x80), next(0xa1), next(0x82));
        let directory_name = issuer.and_then(|names| {
            let mut names = Reader::new(names);
            std::iter::from_fn(move || names.any()).find(|name| name.tag == 0xa4)
        });
        let issuer = directory_name.map(|name| canonical(name.value));
        Self { name: canonical(certificate.x509.issuer().as_raw()), key, issuer, serial }
    }

    /// What a certificate says that `ca` signs, as Go has it: the key's identifier if there is one, and no more.
    pub(super) fn by(ca: &Certificate<'a>) -> Self {
        Self { name: ca.subject.clone(), key: ca.key_identifier(), issuer: None, serial: None }
    }
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(at: At, der: &'a [u8]) -> Result<Self, Flaw> {
        let extensions = shape::check(at, der)?;
        let Ok(([], x509)) = X509Certificate::from_der(der) else {
            return Err(Flaw::Malformed(at));
        };
        let Some(key) = KeyKind::of(x509.public_key()) else {
            return Err(Flaw::UnsupportedKey(at));
        };
        let subject = canonical(x509.subject().as_raw());
        Ok(Self { at, sha256: Sha256::of(der), x509, extensions, subject, key })
    }

    /// Whether it can be a CA's on the way to a root, or such a root's: to everybody, but for the time.
    pub(super) fn check_ca(&self, is_trusted: bool) -> Result<(), Flaw> {
        let at = self.at;
        let is_understood = |one: &&Extension<'_>| {
            let may = |list: &[u8]| one.id().is_some_and(|id| list.contains(&id));
            !one.critical || may(&UNDERSTOOD) || is_trusted && may(&POLICIES)
        };
        if let Some(unknown) = self.extensions.iter().find(|one| !is_understood(one)) {
            return Err(Flaw::CriticalExtension(at, Oid::new(unknown.oid.into()).to_id_string()));
        }
        if self.extension(id::ALTERNATIVE_NAME).is_some_and(|one| one.critical && !has_name_for_go(one.value)) {
            return Err(Flaw::CriticalExtension(at, "2.5.29.17".to_owned()));
        }
        // Found by now: the shape was looked at.
        if !self.x509.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) {
            return Err(Flaw::NotCa(at));
        }
        // May be absent, as openssl's default roots have it.
        let usage = self.x509.key_usage().map_err(|_| Flaw::Malformed(at))?;
        if !usage.is_none_or(|usage| usage.value.key_cert_sign()) {
            return Err(Flaw::NoKeyCertSign(at));
        }
        // Workloads are both clients and servers. `anyExtendedKeyUsage` alone does not do: Go would take it, but
        // webpki (ztunnel) and OpenSSL want a CA's usages by name.
        let usage = self.x509.extended_key_usage().map_err(|_| Flaw::Malformed(at))?;
        if !usage.is_none_or(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err(Flaw::ExtendedKeyUsage(at));
        }
        let policy = self.extension(id::POLICY_CONSTRAINTS).and_then(|one| der::only(one.value, SEQUENCE));
        if policy.is_some_and(|policy| policy.first() == Some(&0x80)) {
            return Err(Flaw::ExplicitPolicy(at));
        }
        // Nobody relies on a root's own signature, so that old roots may keep theirs, whatever it is.
        let is_relied_on = !(is_trusted && self.is_self_issued());
        self.weak_signature().filter(|_| is_relied_on).map_or(Ok(()), Err)
    }

    pub(super) fn weak_signature(&self) -> Option<Flaw> {
        let identifier = &self.x509.signature_algorithm;
        // ECDSA has no parameters: webpki and BoringSSL refuse a NULL.
        let is_bare = SHA2[..3].contains(&identifier.algorithm) || identifier.parameters.is_none();
        let is_fine = SHA2.contains(&identifier.algorithm) && is_bare;
        (!is_fine).then_some(Flaw::UnsupportedSignature(self.at))
    }

    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Flaw> {
        if now > self.valid_until() {
            return Err(Flaw::Expired(self.at, self.valid_until()));
        }
        if now < self.valid_from() {
            return Err(Flaw::NotYetValid(self.at, self.valid_from()));
        }
        Ok(())
    }

    /// The first moment at which it is valid.
    pub(super) fn valid_from(&self) -> Timestamp {
        timestamp(self.x509.validity().not_before)
    }

    /// The last moment at which it is valid.
    pub(super) fn valid_until(&self) -> Timestamp {
        timestamp(self.x509.validity().not_after)
    }

    /// How many CA certificates may be beneath it.
    pub(super) fn path_length(&self) -> Option<u32> {
        self.x509.basic_constraints().ok()??.value.path_len_constraint
    }

    /// By the last arc beneath 2.5.29.
    pub(super) fn extension(&self, id: u8) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|one| one.id() == Some(id))
    }

    pub(super) fn has_critical_policies(&self) -> bool {
        self.extensions.iter().any(|one| one.critical && one.id().is_some_and(|id| POLICIES.contains(&id)))
    }

    /// Whether its subject has an attribute of this kind.
    pub(super) fn subject_has(&self, oid: &[u8]) -> bool {
        self.x509.subject().iter_attributes().any(|attribute| attribute.attr_type().as_bytes() == oid)
    }

    /// Whether this one issued `subject`: by name, by key identifiers where both have them (as
    /// Envoy's verifier wants it), and by signature.
    pub(super) fn issued(&self, subject: &Certificate<'_>) -> bool {
        self.signed(subject) && self.fits(&Wanted::of(subject))
    }

    /// The same by name and signature alone, as Go has it.
    pub(super) fn signed(&self, subject: &Certificate<'_>) -> bool {
        self.x509.subject().as_raw() == subject.x509.issuer().as_raw() && self.verifies(subject)
    }

    /// Whether OpenSSL takes it for the issuer that is wanted, before it looks at a signature.
    pub(super) fn fits(&self, wanted: &Wanted<'_>) -> bool {
        let differ =
            |wanted: Option<&[u8]>, own: Option<&[u8]>| wanted.zip(own).is_some_and(|(one, other)| one != other);
        self.subject == wanted.name
            && !differ(wanted.key, self.key_identifier())
            && !differ(wanted.serial, Some(self.x509.raw_serial()))
            && wanted.issuer.as_ref().is_none_or(|issuer| *issuer == canonical(self.x509.issuer().as_raw()))
    }

    /// Whether OpenSSL takes it for its own issuer.
    pub(super) fn is_self_issued(&self) -> bool {
        self.fits(&Wanted::of(self))
    }

    /// Whether it names itself as its issuer, and did not sign what it is now. Nobody looks, but somebody changed it.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_self_issued()
            && self.x509.subject().as_raw() == self.x509.issuer().as_raw()
            && self.key.verifier(&self.x509.signature_algorithm.algorithm).is_some()
            && !self.verifies(self)
    }

    /// Whether the two stand for the same CA, which a path may not pass twice (RFC 4158, 5.2).
    pub(super) fn is_same_ca(&self, other: &Certificate<'_>) -> bool {
        self.x509.subject().as_raw() == other.x509.subject().as_raw() && self.has_key_of(other)
    }

    /// Whether the two have one public key.
    pub(super) fn has_key_of(&self, other: &Certificate<'_>) -> bool {
        self.x509.public_key().raw == other.x509.public_key().raw
    }

    /// Whether OpenSSL takes the two subjects for one.
    pub(super) fn has_name_of(&self, other: &Certificate<'_>) -> bool {
        self.subject == other.subject
    }

    /// Whether both say which key they have, and say the same. `None`: one of them does not say it.
    pub(super) fn same_identifier(&self, other: &Certificate<'_>) -> Option<bool> {
        Some(self.key_identifier()? == other.key_identifier()?)
    }

    /// Whether its key made this signature.
    pub(super) fn verifies_bytes(&self, algorithm: &Oid<'_>, signed: &[u8], signature: &[u8]) -> bool {
        let key = &self.x509.public_key().subject_public_key.data;
        let algorithm = self.key.verifier(algorithm);
        algorithm.is_some_and(|algorithm| UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok())
    }

    fn verifies(&self, subject: &Certificate<'_>) -> bool {
        let x509 = &subject.x509;
        self.verifies_bytes(
            &x509.signature_algorithm.algorithm,
            x509.tbs_certificate.as_ref(),
            &x509.signature_value.data,
        )
    }

    pub(super) fn key_identifier(&self) -> Option<&'a [u8]> {
        der::only(self.extension(id::SUBJECT_KEY)?.value, OCTET_STRING)
    }
}

/// Whether there is an alternative name of a kind that Go knows: else it takes the whole extension for unknown.
fn has_name_for_go(value: &[u8]) -> bool {
    let mut names = Reader::new(der::only(value, SEQUENCE).unwrap_or_default());
    std::iter::from_fn(|| names.any()).any(|name| matches!(name.tag, 0x81 | 0x82 | 0x86 | 0x87))
}

/// A name as OpenSSL compares it: whatever the kind of its strings, without regard to case and to blanks around words.
fn canonical(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut names = Reader::new(der::only(name, SEQUENCE).unwrap_or(name));
    while let Some(set) = names.any() {
        text.push(b'/');
        let mut pairs = Reader::new(set.value);
        while let Some(pair) = pairs.any() {
            let mut pair = Reader::new(pair.value);
            text.extend_from_slice(pair.take(der::OID).unwrap_or_default());
            let value = pair.any().and_then(|value| der::text(value.tag, value.value)).unwrap_or_default();
            let words: Vec<String> = value.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
            text.extend_from_slice(format!("={};", words.join(" ")).as_bytes());
        }
    }
    text
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
            let (kind, verifier): (_, &'static dyn VerificationAlgorithm) = match parameters.as_oid().ok()? {
                curve if curve == OID_EC_P256 => (Self::P256, &signature::ECDSA_P256_SHA256_ASN1),
                curve if curve == OID_NIST_EC_P384 => (Self::P384, &signature::ECDSA_P384_SHA384_ASN1),
                _ => return None,
            };
            // Go and ztunnel read points that are not compressed, and on the curve.
            let point = &key.subject_public_key.data;
            let is_point = point.first() == Some(&4) && ParsedPublicKey::new(verifier, point).is_ok();
            return is_point.then_some(kind);
        }
        // Keys for RSASSA-PSS alone have another algorithm, which few understand.
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return None;
        }
        if parameters.tag() != x509_parser::asn1_rs::Tag::Null || !der::is_strict(&key.subject_public_key.data) {
            return None;
        }
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return None;
        };
        let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        // Go wants an exponent of 31 bits, and everybody an odd one.
        let exponent = rsa.try_exponent().ok().filter(|exponent| (3..1 << 31).contains(exponent))?;
        let is_odd = exponent % 2 == 1 && modulus.last()? % 2 == 1 && rsa.modulus.first()? & 0x80 == 0;
        (RSA_BITS.contains(&bits) && is_odd).then_some(Self::Rsa)
    }

    /// How to verify a signature made with such a key.
    fn verifier(self, signature: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
        let is = |oid: Oid<'static>| *signature == oid;
        Some(match self {
            Self::Rsa if is(OID_PKCS1_SHA256WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rsa if is(OID_PKCS1_SHA384WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rsa if is(OID_PKCS1_SHA512WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA512,
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

/// A certificate's time. Its years go up to 9999, whose last second often means "never": what cannot be told is taken
/// for the last that can.
pub(super) fn timestamp(time: ASN1Time) -> Timestamp {
    let seconds = time.timestamp();
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
    use super::super::check::{Note, check};
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
        let mut der = certificates(ROOT_CERT, fixtures::SHA1.as_bytes(), 1).unwrap().ders.remove(0);
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
        // Nothing needs it.
        let notes = check(bundle, now()).unwrap().notes.clone();
        assert_eq!(notes, [Note::Unusable(second, Box::new(Flaw::UnsupportedSignature(second)))]);
        let bundle = Bundle {
            root_cert: fixtures::SHA1.into(),
            cert_chain: fixtures::UNDER_SHA1.into(),
            ca_cert: fixtures::UNDER_SHA1.into(),
            ..Ca::root("Root").bundle()
        };
        let first = At { file: "cert-chain.pem", position: 1 };
        assert_eq!(check(bundle, now()).err(), Some(Flaw::UnsupportedSignature(first)));
    }

    #[test]
    fn nor_may_one_with_the_roots_own_name() {
        let bundle = Bundle {
            root_cert: fixtures::SHA1.into(),
            cert_chain: fixtures::SELF_ISSUED_SHA1.into(),
            ca_cert: fixtures::SELF_ISSUED_SHA1.into(),
            ..Ca::root("Root").bundle()
        };
        let first = At { file: "cert-chain.pem", position: 1 };
        assert_eq!(check(bundle, now()).err(), Some(Flaw::UnsupportedSignature(first)));
    }

    #[test]
    fn nobody_looks_at_a_roots_own_signature() {
        assert_eq!(verdict_on_second(fixtures::MD5), Ok(()));
        assert_eq!(verdict_on_second(fixtures::PSS), Ok(()));
    }

    #[test]
    fn version_1_is_refused() {
        assert_eq!(verdict_on_second(fixtures::VERSION_1), Err(Flaw::Version(SECOND, 1)));
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
    fn name_constraints_that_hold_istiods_names_are_accepted() {
        let verdict = verdict(|params| {
            let permitted_subtrees = vec![GeneralSubtree::DnsName("istio-system.svc".to_owned())];
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
        });
        assert_eq!(verdict, Ok(()));
    }

    #[test]
    fn an_extension_that_is_there_twice_is_refused() {
        let key_usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 1, 6]);
        let flaw = Flaw::Unreadable(FIRST, "a list of extensions");
        assert_eq!(verdict(|params| params.custom_extensions.push(key_usage)), Err(flaw.clone()));
        let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        let twice = verdict(|params| params.custom_extensions = vec![unknown.clone(), unknown]);
        assert_eq!(twice, Err(flaw));
    }

    #[test]
    fn an_extension_that_cannot_be_read_is_refused() {
        for (id, what) in [
            (14, "a subject key identifier"),
            (15, "a key usage"),
            (17, "an alternative name"),
            (30, "name constraints"),
            (31, "a place of revocation lists (CRL distribution point)"),
            (32, "certificate policies"),
            (33, "policy mappings"),
            (35, "an authority key identifier"),
            (36, "policy constraints"),
            (37, "an extended key usage"),
            (54, "a bound on policies"),
        ] {
            let verdict = verdict(|params| {
                params.key_usages.clear();
                params.use_authority_key_identifier_extension = false;
                // rcgen writes one of its own for a CA.
                params.is_ca = if id == 14 { IsCa::NoCa } else { IsCa::Ca(BasicConstraints::Unconstrained) };
                params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, id], vec![4, 2, 0, 0, 0]));
            });
            assert_eq!(verdict, Err(Flaw::Unreadable(FIRST, what)), "2.5.29.{id}");
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
            *der.last_mut().unwrap() &= 0xfe;
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
        assert_eq!(parsed, Err(Flaw::NegativeSerial(FIRST)));
    }

    #[test]
    fn a_root_that_was_tampered_with_is_damaged() {
        let verdict = verdict_on_changed(|der| {
            let start = find(der, b"Root");
            let last = start + der[start + 4..].windows(4).position(|window| window == b"Root").unwrap() + 4;
            der[start..start + 4].copy_from_slice(b"Toor");
            der[last..last + 4].copy_from_slice(b"Toor");
        });
        assert_eq!(verdict, Err(Flaw::Damaged(FIRST)));
    }

    /// The verdict at a second, on a root that is valid from `NOW - HOUR` to `NOW + HOUR`.
    fn verdict_at(second: i64) -> Result<(), Flaw> {
        let root = Ca::root_but("Root", |params| set_validity(params, NOW - HOUR, NOW + HOUR));
        check(root.bundle(), at(second)).map(|_| ())
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        assert_eq!(verdict_at(NOW + HOUR), Ok(()));
        let flaw = Flaw::Expired(FIRST, at(NOW + HOUR));
        assert_eq!(verdict_at(NOW + HOUR + 1), Err(flaw.clone()));
        assert_eq!(verdict_at(NOW + YEARS), Err(flaw.clone()));
        assert!(flaw.is_expired());
        assert_eq!(flaw.to_string(), "certificate 1 of root-cert.pem expired at 2027-01-01T01:00:00Z");
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_refused() {
        assert_eq!(verdict_at(NOW - HOUR), Ok(()));
        let flaw = Flaw::NotYetValid(FIRST, at(NOW - HOUR));
        assert_eq!(verdict_at(NOW - HOUR - 1), Err(flaw.clone()));
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
            Certificate::parse(FIRST, root.certificate.der()).unwrap().path_length()
        };
        assert_eq!(length(IsCa::Ca(BasicConstraints::Unconstrained)), None);
        assert_eq!(length(IsCa::Ca(BasicConstraints::Constrained(3))), Some(3));
    }
}
