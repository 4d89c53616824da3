//! The strict check: whether istiod and every peer of its workloads can use a bundle. istiod itself
//! accepts more, and its peers then fail.
//!
//! - Every certificate of the three files has to be good, whether or not the chain needs it: an
//!   expired extra root is a flaw too, which names it.
//! - Every certificate of `root-cert.pem` is self-signed: Envoy trusts no other.
//! - `cert-chain.pem` has all of the path but the root, in any order: workloads present it after
//!   their own certificate. So it has `ca-cert.pem`'s certificate, unless that is a root; the root
//!   may be there too, as Istio's own Makefile does it.
//! - Path lengths count every CA beneath, also self-issued ones, as Go does (RFC 5280 would not).
//! - Signatures are RSA PKCS#1 or ECDSA with SHA-256, SHA-384 or SHA-512. A self-signed root may
//!   have RSA with SHA-1: nobody relies on that signature.
//! - Nothing here depends on anything but the bytes and `now`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::Sha256;
use super::bundle::{
    Block, Bundle, CA_CERT, CERT_CHAIN, Der, Glance, KeyPem, MAX_BUNDLE, MAX_CERTIFICATE,
    MAX_CERTIFICATES, MAX_KEY, Piece, Pieces, ROOT_CERT, certificates, timestamp,
};

/// How far, in seconds, the clocks of those who made the certificates may be from ours.
const SKEW: i64 = 5 * 60;

/// What aws-lc and Go's TLS verify with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Critical extensions that every peer understands: any other makes ztunnel, Go or Envoy refuse.
const UNDERSTOOD: [Oid<'static>; 5] = [
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_NAME_CONSTRAINTS,
];

/// A bundle that passed the strict check.
#[derive(Clone, Debug)]
pub struct Sound {
    /// The files.
    pub bundle: Arc<Bundle>,
    /// The self-signed root that `ca-cert.pem` chains to.
    pub root: Sha256,
    /// For people; its roots are those of `root-cert.pem`.
    pub glance: Glance,
    /// Before this, a certificate is not valid yet. Has the skew in it.
    pub valid_from: Timestamp,
    /// After this, a certificate has expired. Has the skew in it.
    pub valid_until: Timestamp,
    /// The certificates of `root-cert.pem`, `cert-chain.pem` and `ca-cert.pem`, in their order.
    certificates: [Vec<Sha256>; 3],
}

impl Sound {
    /// All of `root-cert.pem`.
    pub fn roots(&self) -> &BTreeSet<Sha256> {
        &self.glance.roots
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

    /// Whether they are the same bytes, file by file.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.bundle == other.bundle
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

/// Why a bundle is not sound. Its text is constant for a cause, and has nothing of a key in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A file is not there.
    #[error("{key} is missing")]
    Missing {
        /** Its name. */
        key: &'static str,
    },
    /// A file has no bytes.
    #[error("{key} is empty")]
    Empty {
        /** Its name. */
        key: &'static str,
    },
    /// A value of Vault's record is not a JSON string.
    #[error("{key} is not a string")]
    NotText {
        /** Its name. */
        key: &'static str,
    },
    /// Vault's record has one half of the signing CA.
    #[error("{present} is there, but not {absent}: both or neither")]
    Unpaired {
        /** Half. */
        present: &'static str,
        /** Other half. */
        absent: &'static str,
    },
    /// Something that istiod would prefer to the four files, or take for its own.
    #[error("{key} is there, which makes istiod ignore the plugged-in CA")]
    Foreign {
        /** Its name. */
        key: &'static str,
    },
    /// The four files are too large.
    #[error("the four files together have more than {MAX_BUNDLE} bytes")]
    TooLarge,
    /// The key's file is too large.
    #[error("the private key has more than {MAX_KEY} bytes")]
    KeyTooLarge,
    /// A certificate's PEM block is too large.
    #[error("{at} has more than {MAX_CERTIFICATE} bytes")]
    CertificateTooLarge {
        /** Where. */
        at: At,
    },
    /// A file has no certificate.
    #[error("{file} has no certificate")]
    NoCertificate {
        /** Its name. */
        file: &'static str,
    },
    /// A file has too many certificates.
    #[error("{file} has more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates {
        /** Its name. */
        file: &'static str,
    },
    /// A file has text, other blocks or half a block in it.
    #[error("{file} has something in it that is not a CERTIFICATE block")]
    NotOnlyCertificates {
        /** Its name. */
        file: &'static str,
    },
    /// Not base64, not DER, or not X.509 version 3 as RFC 5280 has it.
    #[error("{at} is malformed")]
    Malformed {
        /** Where. */
        at: At,
    },
    /// Past its end.
    #[error("{at} expired at {not_after}")]
    Expired {
        /** Where. */
        at: At,
        /** Its end. */
        not_after: Timestamp,
    },
    /// Before its beginning.
    #[error("{at} is not valid before {not_before}")]
    NotYetValid {
        /** Where. */
        at: At,
        /** Its beginning. */
        not_before: Timestamp,
    },
    /// Without basicConstraints CA:TRUE.
    #[error("{at} is not a CA certificate (CA:TRUE)")]
    NotCa {
        /** Where. */
        at: At,
    },
    /// With a keyUsage that lacks keyCertSign.
    #[error("{at} has a key usage without keyCertSign")]
    NoKeyCertSign {
        /** Where. */
        at: At,
    },
    /// With an extended key usage for one side of mutual TLS only, or for none.
    #[error("{at} has an extended key usage without both serverAuth and clientAuth")]
    ExtendedKeyUsage {
        /** Where. */
        at: At,
    },
    /// With a critical extension that peers do not know.
    #[error("{at} has the critical extension {oid}, which not every peer understands")]
    CriticalExtension {
        /** Where. */
        at: At,
        /** The extension. */
        oid: String,
    },
    /// With a key that is weak or that peers do not support.
    #[error("the key of {at} is not RSA of 2048 to 8192 bits, P-256 or P-384")]
    UnsupportedKey {
        /** Where. */
        at: At,
    },
    /// Signed in a way that is weak or that peers do not support.
    #[error("the signature of {at} is not RSA (PKCS#1) or ECDSA with SHA-256, SHA-384 or SHA-512")]
    UnsupportedSignature {
        /** Where. */
        at: At,
    },
    /// In `root-cert.pem`, but not a root.
    #[error("{at} is not self-signed")]
    NotSelfSigned {
        /** Where. */
        at: At,
    },
    /// Workloads would not present their signing CA.
    #[error("cert-chain.pem lacks the certificate of ca-cert.pem")]
    ChainLacksCa,
    /// The only way to a root has more CAs than one of them allows.
    #[error("the path length of {at} does not allow the CA certificates beneath it")]
    PathLength {
        /** Where. */
        at: At,
    },
    /// No way from the signing CA to a root.
    #[error("ca-cert.pem does not chain through cert-chain.pem to a root of root-cert.pem")]
    NoPath,
    /// The key's first PEM block is encrypted.
    #[error("the private key is encrypted")]
    KeyEncrypted,
    /// The key's first PEM block is not a key that can be read.
    #[error(
        "the private key's file does not begin with a PEM block of PKCS#8, PKCS#1 or SEC1 that can be read"
    )]
    KeyMalformed,
    /// Another certificate's key.
    #[error("the private key is not that of ca-cert.pem")]
    KeyMismatch,
}

impl Flaw {
    /// Whether time alone made it so.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }

    /// Whether writing the four files would not mend it.
    pub fn is_foreign_key(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }
}

/// The strict check. Its cost is bounded by the caps: at most 31 certificates are parsed, and
/// signatures verified 10 times for the roots and 10 × 20 times for the path.
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
    all().try_for_each(Certificate::check)?;
    all().try_for_each(|certificate| certificate.check_time(now))?;
    if let Some(root) = roots.iter().find(|root| !root.issued(root)) {
        return Err(Flaw::NotSelfSigned { at: root.at });
    }
    let (Some(first_root), Some(signing)) = (roots.first(), ca.first()) else {
        return Err(Flaw::NoPath);
    };
    let root = find_root(signing, &chain, &roots)?;
    if public_key(&bundle.ca_key)? != signing.x509.public_key().raw {
        return Err(Flaw::KeyMismatch);
    }

    let prints =
        |file: &[Certificate<'_>]| file.iter().map(|certificate| certificate.sha256).collect();
    Ok(Sound {
        root,
        glance: Glance::of(
            &first_root.x509,
            roots.iter().map(|root| root.sha256).collect(),
        ),
        valid_from: all()
            .map(Certificate::valid_from)
            .max()
            .unwrap_or(Timestamp::MAX),
        valid_until: all()
            .map(Certificate::valid_until)
            .min()
            .unwrap_or(Timestamp::MIN),
        certificates: [prints(&roots), prints(&chain), prints(&ca)],
        bundle: Arc::new(bundle),
    })
}

/// Breadth first from the signing CA, so that each certificate is met with the fewest beneath it,
/// which is when its path length is easiest to keep. Each is visited once.
fn find_root(
    ca: &Certificate<'_>,
    chain: &[Certificate<'_>],
    roots: &[Certificate<'_>],
) -> Result<Sha256, Flaw> {
    let is_in = |file: &[Certificate<'_>], one: &Certificate<'_>| {
        file.iter().any(|other| other.sha256 == one.sha256)
    };
    if !is_in(roots, ca) && !is_in(chain, ca) {
        return Err(Flaw::ChainLacksCa);
    }
    let mut seen = BTreeSet::from([ca.sha256]);
    let mut level = vec![ca];
    let mut too_long = None;
    let mut beneath = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for subject in level {
            if subject.path_length().is_some_and(|most| beneath > most) {
                too_long.get_or_insert(Flaw::PathLength { at: subject.at });
                continue;
            }
            if is_in(roots, subject) {
                return Ok(subject.sha256);
            }
            for issuer in roots.iter().chain(chain) {
                if !seen.contains(&issuer.sha256) && issuer.issued(subject) {
                    seen.insert(issuer.sha256);
                    next.push(issuer);
                }
            }
        }
        level = next;
        beneath += 1;
    }
    Err(too_long.unwrap_or(Flaw::NoPath))
}

/// A parsed certificate, and where it stands.
struct Certificate<'a> {
    at: At,
    sha256: Sha256,
    x509: X509Certificate<'a>,
}

fn parse<'a>(file: &'static str, ders: &'a [Der]) -> Result<Vec<Certificate<'a>>, Flaw> {
    let one = |(index, der): (usize, &'a Der)| {
        let at = At {
            file,
            position: index + 1,
        };
        match X509Certificate::from_der(der) {
            Ok(([], x509)) => Ok(Certificate {
                at,
                sha256: Sha256::of(der),
                x509,
            }),
            _ => Err(Flaw::Malformed { at }),
        }
    };
    ders.iter().enumerate().map(one).collect()
}

impl Certificate<'_> {
    /// Everything about one certificate but the time.
    fn check(&self) -> Result<(), Flaw> {
        let (at, x509) = (self.at, &self.x509);
        let malformed = |_| Flaw::Malformed { at };
        if x509.version() != X509Version::V3
            || x509.signature != x509.signature_algorithm
            || x509.signature_value.unused_bits != 0
            || x509
                .raw_serial()
                .first()
                .is_none_or(|first| first & 0x80 != 0)
            || x509.extensions_map().is_err()
        {
            return Err(Flaw::Malformed { at });
        }
        let unknown = |critical: &&Oid<'_>| !UNDERSTOOD.contains(critical);
        let mut critical = x509
            .extensions()
            .iter()
            .filter(|extension| extension.critical)
            .map(|extension| &extension.oid);
        if let Some(oid) = critical.find(unknown) {
            return Err(Flaw::CriticalExtension {
                at,
                oid: oid.to_id_string(),
            });
        }
        if !x509
            .basic_constraints()
            .map_err(malformed)?
            .is_some_and(|constraints| constraints.value.ca)
        {
            return Err(Flaw::NotCa { at });
        }
        if x509
            .key_usage()
            .map_err(malformed)?
            .is_some_and(|usage| !usage.value.key_cert_sign())
        {
            return Err(Flaw::NoKeyCertSign { at });
        }
        let one_sided =
            |usage: &ExtendedKeyUsage<'_>| !(usage.any || usage.server_auth && usage.client_auth);
        if x509
            .extended_key_usage()
            .map_err(malformed)?
            .is_some_and(|usage| one_sided(usage.value))
        {
            return Err(Flaw::ExtendedKeyUsage { at });
        }
        if KeyKind::of(x509.public_key()).is_none() {
            return Err(Flaw::UnsupportedKey { at });
        }
        let signature = &x509.signature_algorithm.algorithm;
        let legacy_root = *signature == OID_PKCS1_SHA1WITHRSA && self.is_self_issued();
        if !(SHA2.contains(signature) || legacy_root) {
            return Err(Flaw::UnsupportedSignature { at });
        }
        Ok(())
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Flaw> {
        let (at, validity) = (self.at, self.x509.validity());
        if now > self.valid_until() {
            return Err(Flaw::Expired {
                at,
                not_after: timestamp(validity.not_after, 0),
            });
        }
        if now < self.valid_from() {
            return Err(Flaw::NotYetValid {
                at,
                not_before: timestamp(validity.not_before, 0),
            });
        }
        Ok(())
    }

    fn is_self_issued(&self) -> bool {
        self.x509.subject().as_raw() == self.x509.issuer().as_raw()
    }

    fn valid_from(&self) -> Timestamp {
        timestamp(self.x509.validity().not_before, -SKEW)
    }

    fn valid_until(&self) -> Timestamp {
        timestamp(self.x509.validity().not_after, SKEW)
    }

    fn path_length(&self) -> Option<u32> {
        self.x509
            .basic_constraints()
            .ok()??
            .value
            .path_len_constraint
    }

    /// Whether this one issued `subject`: by name, by key identifiers where both have them (as
    /// Envoy's verifier does it), and by the signature.
    fn issued(&self, subject: &Certificate<'_>) -> bool {
        let (issuer, subject, same) = (&self.x509, &subject.x509, self.sha256 == subject.sha256);
        issuer.subject().as_raw() == subject.issuer().as_raw()
            && key_identifiers_agree(issuer, subject)
            && algorithm(
                &subject.signature_algorithm.algorithm,
                KeyKind::of(issuer.public_key()),
                same,
            )
            .is_some_and(|algorithm| {
                UnparsedPublicKey::new(algorithm, &issuer.public_key().subject_public_key.data)
                    .verify(
                        subject.tbs_certificate.as_ref(),
                        &subject.signature_value.data,
                    )
                    .is_ok()
            })
    }
}

fn key_identifiers_agree(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    let named = issuer
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
            _ => None,
        });
    let wanted =
        subject
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => Some(id),
                _ => None,
            });
    let Some(wanted) = wanted else { return true };
    let id = wanted
        .key_identifier
        .as_ref()
        .zip(named)
        .is_none_or(|(wanted, named)| wanted == named);
    let serial = wanted
        .authority_cert_serial
        .is_none_or(|wanted| wanted == issuer.raw_serial());
    id && serial
}

/// The keys that peers verify with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            return match curve {
                curve if curve == OID_EC_P256 => Some(Self::P256),
                curve if curve == OID_NIST_EC_P384 => Some(Self::P384),
                _ => None,
            };
        }
        // Not RSASSA-PSS keys: rsaEncryption alone is understood everywhere.
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return None;
        }
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return None;
        };
        let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
        let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
        RSA_BITS.contains(&bits).then_some(Self::Rsa)
    }
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

/// How to verify a signature made with that key; SHA-1 on a certificate by itself only.
fn algorithm(
    signature: &Oid<'_>,
    key: Option<KeyKind>,
    by_itself: bool,
) -> Option<&'static dyn VerificationAlgorithm> {
    let is = |oid: Oid<'static>| *signature == oid;
    Some(match key? {
        KeyKind::Rsa if is(OID_PKCS1_SHA256WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Rsa if is(OID_PKCS1_SHA384WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA384,
        KeyKind::Rsa if is(OID_PKCS1_SHA512WITHRSA) => &signature::RSA_PKCS1_2048_8192_SHA512,
        KeyKind::Rsa if is(OID_PKCS1_SHA1WITHRSA) && by_itself => {
            &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY
        }
        KeyKind::P256 if is(OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::P256 if is(OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
        KeyKind::P256 if is(OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
        KeyKind::P384 if is(OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
        KeyKind::P384 if is(OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
        KeyKind::P384 if is(OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
        _ => return None,
    })
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
    block.label == "ENCRYPTED PRIVATE KEY"
        || block
            .body
            .lines()
            .any(|line| line.starts_with("Proc-Type:"))
}
