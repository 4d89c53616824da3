//! What is asked for: a root, or a certificate for a signer's key.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateSigningRequestParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    RsaKeySize,
};

use super::super::asked::Asked;
use super::super::fields;
use super::super::reply::Refusal;
use super::super::tokens::TTL_MAX;
use super::NO_AIA;
use super::issuer::Issuer;

/// A certificate begins so much before its making unless it is said otherwise, in seconds.
const BACK_DATED: i64 = 30;

/// A key, or why there is none.
pub(in super::super) type Made = Result<KeyPair, String>;

/// What is not foreseen.
pub(super) fn unfit(error: impl std::fmt::Display) -> Refusal {
    Refusal::listed(500, &[&error.to_string()])
}

/// Who a certificate is for.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organization: Vec<String>,
    /// The name is not one of a host, too.
    pub(super) without_san: bool,
}

impl Subject {
    fn of(asked: &Asked) -> Result<Self, Refusal> {
        Ok(Self {
            common_name: asked.text("common_name").to_owned(),
            organization: asked.strings("organization")?.unwrap_or_default(),
            without_san: asked.flag("exclude_cn_from_sans")?.unwrap_or_default(),
        })
    }

    /// The name of a host that goes into the certificate beside the subject.
    pub(super) fn host(&self) -> Option<&str> {
        let is_host =
            |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        Some(self.common_name.as_str()).filter(is_host).filter(|_| !self.without_san)
    }
}

/// A root that is to be made.
#[derive(Clone, Debug)]
pub(in super::super) struct Wanted {
    pub(super) name: String,
    pub(super) subject: Subject,
    kind: String,
    bits: i64,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Wanted {
    pub(super) fn of(now: Timestamp, max_ttl: i64, asked: &Asked) -> Result<Self, Refusal> {
        let seconds = |field| asked.seconds(field).map_err(Refusal::in_validation);
        let ttl = seconds("ttl")?.filter(|ttl| *ttl > 0).unwrap_or(TTL_MAX);
        let back = seconds("not_before_duration")?.unwrap_or(BACK_DATED);
        let kind = asked.get("key_type").and_then(|kind| kind.as_str()).unwrap_or("rsa");
        let bits = asked.int("key_bits").map_err(Refusal::in_validation)?.unwrap_or_default();
        let bits = match (kind, bits) {
            ("rsa", 0) => 2048,
            ("rsa", bits) if bits < 2048 => {
                return Err(Refusal::bad(format!("RSA keys < 2048 bits are unsafe and not supported: got {bits}")));
            }
            ("ec", 0) => 256,
            ("rsa" | "ec", bits) => bits,
            _ => return Err(Refusal::bad(format!("unknown key type {kind}"))),
        };
        if asked.get("issuer_name").is_some_and(|name| name == "") {
            return Err(Refusal::bad("expected non-empty issuer name"));
        }
        Ok(Self {
            name: asked.text("issuer_name").to_owned(),
            subject: Subject::of(asked)?,
            kind: kind.to_owned(),
            bits,
            from: now - SignedDuration::from_secs(back),
            // Without a word where that is less than was asked for.
            until: now + SignedDuration::from_secs(ttl.min(max_ttl)),
        })
    }

    /// Makes its key, which may take seconds.
    pub(in super::super) fn key(&self) -> Made {
        let made = match (self.kind.as_str(), self.bits) {
            ("rsa", 2048) => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            ("rsa", 3072) => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            ("rsa", 4096) => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
            ("ec", 256) => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            ("ec", 384) => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            (kind, bits) => return Err(format!("no {kind} keys of {bits} bits here")),
        };
        made.map_err(|error| error.to_string())
    }
}

/// A wish for a signer's certificate.
#[derive(Clone, Debug)]
pub(super) struct SignerRequest {
    csr: String,
    subject: Subject,
    ttl: i64,
    back: i64,
    /// Negative: no limit.
    pub(super) path_length: i64,
}

impl SignerRequest {
    pub(super) fn of(asked: &Asked) -> Result<Self, Refusal> {
        let seconds = |field| asked.seconds(field).map_err(Refusal::in_validation);
        let path_length = match asked.get("max_path_length").and_then(|value| value.as_str()) {
            Some("") => Some(0),
            _ => asked.int("max_path_length").map_err(Refusal::in_validation)?,
        };
        let request = Self {
            csr: asked.text("csr").to_owned(),
            subject: Subject::of(asked)?,
            ttl: seconds("ttl")?.filter(|ttl| *ttl > 0).unwrap_or(TTL_MAX),
            back: seconds("not_before_duration")?.unwrap_or(BACK_DATED),
            path_length: path_length.unwrap_or(-1),
        };
        if !["", "pem"].contains(&asked.text("format")) {
            return Err(Refusal::bad("The \"format\" path parameter must be \"pem\", \"der\" or \"pem_bundle\""));
        }
        Ok(request)
    }

    pub(super) fn csr(&self) -> Result<CertificateSigningRequestParams, Refusal> {
        if self.csr.is_empty() {
            return Err(Refusal::bad("\"csr\" is empty"));
        }
        let parsed = CertificateSigningRequestParams::from_pem(&self.csr);
        parsed.map_err(|_| Refusal::bad("csr contains no data"))
    }

    /// The name that is asked for, or else that of the request itself, whatever it is.
    pub(super) fn subject(&self, csr: &CertificateSigningRequestParams) -> Subject {
        let of_csr = || csr.params.distinguished_name.get(&DnType::CommonName).map(x509_text).unwrap_or_default();
        let mut subject = self.subject.clone();
        if subject.common_name.is_empty() {
            subject.common_name = of_csr();
        }
        subject
    }

    /// When it ends, and what is said about that.
    pub(super) fn until(
        &self,
        now: Timestamp,
        max_ttl: i64,
        issuer: &Issuer,
    ) -> Result<(Timestamp, Vec<String>), Refusal> {
        let mut warnings = vec![NO_AIA.to_owned()];
        if self.path_length == 0 {
            let zero = "Max path length of the signed certificate is zero. This certificate cannot be used to issue \
                intermediate CA certificates.";
            warnings.push(zero.to_owned());
        }
        if self.ttl > max_ttl {
            let [ttl, max] = [self.ttl, max_ttl].map(fields::go_duration);
            warnings.push(format!("TTL {ttl:?} is longer than permitted maxTTL {max:?}, so maxTTL is being used"));
        }
        let until = now + SignedDuration::from_secs(self.ttl.min(max_ttl));
        let last = issuer.facts.until();
        if until <= last {
            return Ok((until, warnings));
        }
        if issuer.is_strict() {
            return Err(Refusal::bad(format!(
                "cannot satisfy request, as TTL would result in notAfter of {until} that is beyond the expiration of \
                 the CA certificate at {last}"
            )));
        }
        warnings.push(
            "the signed intermediary CA certificate's notAfter was truncated to the issuer's notAfter".to_owned(),
        );
        Ok((last, warnings))
    }

    /// When it begins.
    pub(super) fn from(&self, now: Timestamp, issuer: &Issuer) -> Result<Timestamp, Refusal> {
        let from = now - SignedDuration::from_secs(self.back);
        if from < issuer.facts.from() {
            return Err(Refusal::bad("notBefore before signer's notBefore"));
        }
        Ok(from)
    }
}

fn x509_text(value: &rcgen::DnValue) -> String {
    match value {
        rcgen::DnValue::Utf8String(text) => text.clone(),
        rcgen::DnValue::PrintableString(text) => text.as_str().to_owned(),
        _ => String::new(),
    }
}
