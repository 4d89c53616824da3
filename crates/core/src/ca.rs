//! The CA: its four files, the strict check that they pass before istiod may read them, and the
//! making of a root. Pure: no async, no I/O, no clock.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

pub mod bundle;
mod certificate;
pub mod check;
mod crl;
mod der;
pub mod file;
#[cfg(any(test, feature = "samples"))]
#[allow(clippy::unwrap_used, dead_code, missing_docs)]
pub mod fixtures;
mod flaw;
pub mod issue;
mod names;
mod path;
mod pem;
pub mod record;
mod shape;
pub mod signer;
mod trial;

pub use bundle::Glance;

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// SHA-1 of a certificate's DER, for people who compare with a plain `openssl x509 -fingerprint`.
/// Nothing is decided by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha1(pub [u8; 20]);

/// The end of a certificate, whatever it is for. `None`: it cannot be read.
pub fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    Some(certificate::timestamp(x509.validity().not_after))
}

/// Not a SHA-256 in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 fingerprint has 64 hexadecimal digits")]
pub struct InvalidSha256;

impl Sha256 {
    /// The fingerprint of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }

    /// As openssl prints it: `AB:CD:…`.
    pub fn openssl(&self) -> String {
        colons(&self.0)
    }

    /// In lower case and without colons, as annotations and the pin have it.
    pub fn hex(&self) -> String {
        format!("{self:?}")
    }
}

/// For what is kept and not read by people: a sentence says it as openssl prints it.
impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl Sha1 {
    /// The fingerprint of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref());
        Self(bytes)
    }

    /// As openssl prints it: `12:34:…`.
    pub fn openssl(&self) -> String {
        colons(&self.0)
    }
}

impl FromStr for Sha256 {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, InvalidSha256> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidSha256);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(InvalidSha256);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Sha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    // FIPS 180-2, appendix B.1, and FIPS 180-1, appendix A: of "abc".
    const SHA256_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const SHA1_ABC: &str = "a9993e364706816aba3e25717850c26c9cd0d89d";

    #[test]
    fn sha256_is_kept_in_lower_case_hex() {
        let abc = Sha256::of(b"abc");
        assert_eq!((abc.to_string(), abc.hex()), (SHA256_ABC.to_owned(), SHA256_ABC.to_owned()));
        assert_eq!(abc.openssl().replace(':', "").to_lowercase(), SHA256_ABC);
    }

    #[test]
    fn sha1_is_kept_in_lower_case_hex() {
        assert_eq!(format!("{:?}", Sha1::of(b"abc")), SHA1_ABC);
    }

    #[test]
    fn both_print_as_openssl_does() {
        let sha256 = Sha256::of(b"abc").openssl();
        assert!(sha256.starts_with("BA:78:16:BF:"), "{sha256}");
        assert_eq!(sha256.len(), 32 * 3 - 1);
        let sha1 = Sha1::of(b"abc").openssl();
        assert!(sha1.starts_with("A9:99:3E:36:"), "{sha1}");
        assert_eq!(sha1.len(), 20 * 3 - 1);
    }

    #[test]
    fn sha256_is_read_from_hex_of_either_case() {
        assert_eq!(SHA256_ABC.parse(), Ok(Sha256::of(b"abc")));
        assert_eq!(SHA256_ABC.to_uppercase().parse(), Ok(Sha256::of(b"abc")));
    }

    #[test]
    fn anything_but_64_hex_digits_is_no_sha256() {
        let spaced = format!(" {}", &SHA256_ABC[1..]);
        let signed = format!("+{}", &SHA256_ABC[1..]);
        let wide = "é".repeat(32);
        for text in ["", &SHA256_ABC[1..], &format!("{SHA256_ABC}0"), &spaced, &signed, &wide] {
            assert_eq!(text.parse::<Sha256>(), Err(InvalidSha256), "{text:?}");
        }
    }
}
