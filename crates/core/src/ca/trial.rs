//! The trial: a workload's certificate and istiod's own are signed in memory, as istiod signs them, and verified by
//! rustls' webpki, which is ztunnel's verifier: what the rules here do not know of is found by doing it.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SigningKey;
use rustls::{CertificateError, Error, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::der::{self, BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, UTC_TIME};
use super::flaw::Flaw;
use super::names::ISTIOD;
use super::shape::id;

/// The point that generates P-256: a public key that is on the curve, whose private key everybody knows. The
/// certificates that have it are dropped where they were made.
const POINT: [u8; 65] = *b"\x04\
    \x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96\
    \x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5";

const EC_PUBLIC_KEY: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// How to sign, by what the key can, with the algorithm's identifier.
const SCHEMES: [(SignatureScheme, &[u8], bool); 3] = [
    (SignatureScheme::RSA_PKCS1_SHA256, b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", true),
    (SignatureScheme::ECDSA_NISTP256_SHA256, b"\x2a\x86\x48\xce\x3d\x04\x03\x02", false),
    (SignatureScheme::ECDSA_NISTP384_SHA384, b"\x2a\x86\x48\xce\x3d\x04\x03\x03", false),
];

/// Signs with the CA's key, and has it verified as a server's and as a client's.
pub(super) fn run(
    key: &dyn SigningKey,
    ca: &Certificate<'_>,
    chain: &[Certificate<'_>],
    roots: &[Certificate<'_>],
    now: Timestamp,
) -> Result<(), Flaw> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let owned = |one: &Certificate<'_>| CertificateDer::from(one.x509.as_raw().to_vec());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(owned(root)).map_err(|_| Flaw::Unreadable(root.at, "a form"))?;
    }
    let chain: Vec<_> = chain.iter().map(owned).collect();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().max(0).unsigned_abs()));
    let verifier = Verifier { provider, store: Arc::new(store), chain, now };

    let uri = der::element(0x86, &[b"spiffe://cluster.local/ns/x/sa/y"]);
    let names: Vec<Vec<u8>> = ISTIOD.iter().map(|name| der::element(0x82, &[name.as_bytes()])).collect();
    for (names, host) in [(uri, None), (names.concat(), Some(ISTIOD[0]))] {
        let leaf = sign(key, ca, &names).ok_or(Flaw::Trial("the key does not sign"))?;
        verifier.verify(&CertificateDer::from(leaf), host).map_err(|error| Flaw::Trial(cause(&error)))?;
    }
    Ok(())
}

struct Verifier {
    provider: Arc<CryptoProvider>,
    store: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    now: UnixTime,
}

impl Verifier {
    fn verify(&self, leaf: &CertificateDer<'_>, host: Option<&'static str>) -> Result<(), Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.store,
            &self.chain,
            self.now,
            algorithms,
        )?;
        if let Some(host) = host.and_then(|host| ServerName::try_from(host).ok()) {
            rustls::client::verify_server_name(&parsed, &host)?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.store), Arc::clone(&self.provider))
            .build()
            .map_err(|_| Error::General(String::new()))?
            .verify_client_cert(leaf, &self.chain, self.now)
            .map(|_| ())
    }
}

/// Constant for a cause.
fn cause(error: &Error) -> &'static str {
    use CertificateError as E;
    match error {
        Error::InvalidCertificate(E::UnknownIssuer) => "UnknownIssuer",
        Error::InvalidCertificate(E::BadSignature) => "BadSignature",
        Error::InvalidCertificate(E::BadEncoding) => "BadEncoding",
        Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => "Expired",
        Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. }) => "NotValidYet",
        Error::InvalidCertificate(E::InvalidPurpose | E::InvalidPurposeContext { .. }) => "InvalidPurpose",
        Error::InvalidCertificate(E::UnhandledCriticalExtension) => "UnhandledCriticalExtension",
        // Too many intermediates, name constraints, path lengths.
        Error::InvalidCertificate(_) => "webpki does not take the path to the root (too long, or constrained)",
        _ => "webpki cannot read it",
    }
}

/// A certificate for these names, as istiod makes them: an empty subject, and so a critical alternative name.
fn sign(key: &dyn SigningKey, ca: &Certificate<'_>, names: &[u8]) -> Option<Vec<u8>> {
    let signer = key.choose_scheme(&SCHEMES.map(|(scheme, ..)| scheme))?;
    let (_, oid, has_null) = SCHEMES.into_iter().find(|(scheme, ..)| *scheme == signer.scheme())?;
    let null = if has_null { der::element(NULL, &[]) } else { Vec::new() };
    let algorithm = der::element(SEQUENCE, &[&der::element(OID, &[oid]), &null]);
    let signed = to_be_signed(ca, &algorithm, names);
    let signature = signer.sign(&signed).ok()?;
    Some(der::element(SEQUENCE, &[&signed, &algorithm, &der::element(BIT_STRING, &[&[0], &signature])]))
}

fn to_be_signed(ca: &Certificate<'_>, algorithm: &[u8], names: &[u8]) -> Vec<u8> {
    let sequence = |parts: &[&[u8]]| der::element(SEQUENCE, parts);
    // Only the CA's own validity is on trial.
    let from = der::element(UTC_TIME, &[b"700101000000Z"]);
    let until = der::element(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let curve = sequence(&[&der::element(OID, &[EC_PUBLIC_KEY]), &der::element(OID, &[P256])]);
    let public = sequence(&[&curve, &der::element(BIT_STRING, &[&[0], &POINT])]);
    let extension = |id: u8, critical: bool, value: &[u8]| {
        let critical = if critical { der::element(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
        sequence(&[&der::element(OID, &[&[0x55, 0x1d, id]]), &critical, &der::element(OCTET_STRING, &[value])])
    };
    let usage = |last: u8| der::element(OID, &[&[0x2b, 6, 1, 5, 5, 7, 3, last]]);
    let authority = ca
        .extension(id::SUBJECT_KEY)
        .and_then(|one| der::only(one.value, OCTET_STRING))
        .map_or_else(Vec::new, |key| extension(id::AUTHORITY_KEY, false, &sequence(&[&der::element(0x80, &[key])])));
    let extensions = sequence(&[
        // digitalSignature and keyEncipherment.
        &extension(id::KEY_USAGE, true, &der::element(BIT_STRING, &[&[5, 0xa0]])),
        &extension(id::EXTENDED_KEY_USAGE, false, &sequence(&[&usage(1), &usage(2)])),
        &extension(id::BASIC_CONSTRAINTS, true, &sequence(&[])),
        &authority,
        &extension(id::ALTERNATIVE_NAME, true, &sequence(&[names])),
    ]);
    sequence(&[
        &der::element(0xa0, &[&der::element(INTEGER, &[&[2]])]),
        &der::element(INTEGER, &[&[1]]),
        algorithm,
        ca.x509.subject().as_raw(),
        &sequence(&[&from, &until]),
        &sequence(&[]),
        &public,
        &der::element(0xa3, &[&extensions]),
    ])
}
