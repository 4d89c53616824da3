//! Makes a root CA.

use std::time::Duration;

use aws_lc_rs::rand;
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use super::bundle::{Bundle, KeyPem};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// A root that starts this much before its making: a clock that is behind stops istiod.
const BACK_DATED: i64 = HOUR;
/// A root ends this much after its making.
const LIFETIME: i64 = 3650 * DAY;
/// The last second of the year 9999, which is the last that a certificate can name.
const LAST_SECOND: i64 = 253_402_300_799;

/// A self-signed root that signs directly: RSA 4096, SHA-256, ten years from now. Takes 0.5 to 10
/// seconds of CPU: call it where blocking is fine.
pub fn root(common_name: &str, now: Timestamp) -> Result<Bundle, Error> {
    root_with(
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?,
        common_name,
        now,
    )
}

/// The same with a given key, so that tests need not wait for RSA.
pub(crate) fn root_with(key: KeyPair, common_name: &str, now: Timestamp) -> Result<Bundle, Error> {
    // rcgen's own copies are wiped only if asked to.
    let key = Zeroizing::new(key);
    let certificate = profile(common_name, now)?
        .self_signed(&*key)?
        .pem()
        .into_bytes();
    Ok(Bundle {
        root_cert: certificate.clone(),
        cert_chain: certificate.clone(),
        ca_cert: certificate,
        ca_key: KeyPem::new(key.serialize_pem().into_bytes()),
    })
}

fn profile(common_name: &str, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    set_validity(
        &mut params,
        now.as_second() - BACK_DATED,
        now.as_second() + LIFETIME,
    );
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Istio");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

/// From and until, in Unix seconds.
pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let after = |seconds: i64| Duration::from_secs(seconds.clamp(0, LAST_SECOND).unsigned_abs());
    params.not_before = epoch + after(from);
    params.not_after = epoch + after(until);
}

/// Random and positive, and of 20 octets always.
fn serial() -> Result<SerialNumber, Error> {
    let mut octets = [0; 20];
    rand::fill(&mut octets).map_err(|_| Error::RingUnspecified)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}
