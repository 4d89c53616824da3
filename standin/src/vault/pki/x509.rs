//! Certificates: made by rcgen, read by x509-parser.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName, DnType,
    DnValue, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
    date_time_ymd,
};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::moment::Moment;
use super::request::{SignerRequest, Subject, Wanted};

/// What is told of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// In Unix seconds.
    from: i64,
    pub(super) until: i64,
    /// As Vault writes it.
    pub(super) serial: String,
    pub(super) is_self_issued: bool,
    /// Its key usage has cRLSign.
    pub(super) may_sign_lists: bool,
    /// What it would sign with.
    pub(super) algorithm: &'static str,
    pub(super) public_key: Vec<u8>,
}

impl Facts {
    pub(super) fn from(&self) -> Timestamp {
        Timestamp::from_second(self.from).unwrap_or_default()
    }

    pub(super) fn until(&self) -> Timestamp {
        Timestamp::from_second(self.until).unwrap_or_default()
    }
}

/// A block of PEM.
pub(super) fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The DER of the certificates of a PEM file.
pub(super) fn all(pem: &str) -> Vec<Vec<u8>> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    blocks.filter(|block| block.label == "CERTIFICATE").map(|block| block.contents).collect()
}

/// That of its first.
pub(super) fn only(pem: &str) -> Option<Vec<u8>> {
    all(pem).into_iter().next()
}

pub(super) fn facts(pem: &str) -> Result<Facts, String> {
    facts_of(&only(pem).ok_or("invalid PEM")?)
}

pub(super) fn facts_of(der: &[u8]) -> Result<Facts, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let is_rsa = certificate.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
    let may_sign_lists = certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.crl_sign());
    let octets: Vec<_> = certificate.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect();
    Ok(Facts {
        from: certificate.validity().not_before.timestamp(),
        until: certificate.validity().not_after.timestamp(),
        serial: octets.join(":"),
        is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
        may_sign_lists,
        algorithm: if is_rsa { "SHA256WithRSA" } else { "ECDSAWithSHA256" },
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
    })
}

fn params(subject: &Subject, serial: &[u8], from: Timestamp, until: Timestamp) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for organization in &subject.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    if let Some(host) = subject.host() {
        let host = host.try_into().map_err(|error: rcgen::Error| error.to_string())?;
        params.subject_alt_names = vec![SanType::DnsName(host)];
    }
    set_validity(&mut params, from.as_second(), until.as_second());
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.unsigned_abs());
    params.not_after = epoch + Duration::from_secs(until.unsigned_abs());
}

/// A root that signs itself.
pub(super) fn root(moment: &Moment, wanted: &Wanted, key: &KeyPair) -> Result<String, String> {
    let params = params(&wanted.subject, &moment.serial(), wanted.from, wanted.until)?;
    params.self_signed(key).map(|made| made.pem()).map_err(|error| error.to_string())
}

/// A signer under an issuer.
pub(super) fn signer(
    moment: &Moment,
    request: &SignerRequest,
    csr: &CertificateSigningRequestParams,
    (from, until): (Timestamp, Timestamp),
    issuer: &[u8],
    key: &KeyPair,
) -> Result<String, String> {
    let mut params = params(&request.subject(csr), &moment.serial(), from, until)?;
    if let Ok(length) = u8::try_from(request.path_length) {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
    }
    let made = params.signed_by(&csr.public_key, &as_issuer(issuer, key)?);
    made.map(|made| made.pem()).map_err(|error| error.to_string())
}

/// The key and the name of another root under an issuer: its serial number, its ends and its extensions stay.
pub(super) fn cross(root: &[u8], issuer: &[u8], key: &KeyPair) -> Result<String, String> {
    let (_, root) = X509Certificate::from_der(root).map_err(|error| error.to_string())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&root)?;
    set_validity(&mut params, root.validity().not_before.timestamp(), root.validity().not_after.timestamp());
    params.serial_number = Some(SerialNumber::from_slice(root.raw_serial()));
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    for extension in root.extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id.0.to_vec());
        }
        if let ParsedExtension::SubjectAlternativeName(_) = extension.parsed_extension() {
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], extension.value.to_vec()));
        }
    }
    let public_key = SubjectPublicKeyInfo::from_der(root.public_key().raw).map_err(|error| error.to_string())?;
    let made = params.signed_by(&public_key, &as_issuer(issuer, key)?);
    made.map(|made| made.pem()).map_err(|error| error.to_string())
}

/// What is signed names the issuer's own key identifier, however that was made.
fn as_issuer<'a>(certificate: &[u8], key: &'a KeyPair) -> Result<Issuer<'static, &'a KeyPair>, String> {
    Issuer::from_ca_cert_der(&certificate.to_vec().into(), key).map_err(|error| error.to_string())
}

/// A subject in the very same strings: a chain is compared by their bytes.
fn name(certificate: &X509Certificate<'_>) -> Result<DistinguishedName, String> {
    let mut name = DistinguishedName::new();
    for attribute in certificate.subject().iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or("an odd subject")?.collect();
        let text = attribute.as_str().map_err(|error| error.to_string())?;
        let is_printable = attribute.attr_value().tag() == x509_parser::der_parser::asn1_rs::Tag::PrintableString;
        let value = match PrintableString::try_from(text) {
            Ok(printable) if is_printable => DnValue::PrintableString(printable),
            _ => DnValue::Utf8String(text.to_owned()),
        };
        name.push(DnType::from_oid(&oid), value);
    }
    Ok(name)
}
