//! Makes a root CA.

use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use super::bundle::{Beside, Bundle, KeyPem};

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
    root_with(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?, common_name, now)
}

/// The same with a given key, so that tests need not wait for RSA.
pub(crate) fn root_with(key: KeyPair, common_name: &str, now: Timestamp) -> Result<Bundle, Error> {
    // rcgen's own copies are wiped only if asked to.
    let key = Zeroizing::new(key);
    let certificate = profile(common_name, now)?.self_signed(&*key)?.pem().into_bytes();
    Ok(Bundle {
        root_cert: certificate.clone(),
        cert_chain: certificate.clone(),
        ca_cert: certificate,
        ca_key: KeyPem::new(key.serialize_pem().into_bytes()),
        beside: Beside::default(),
    })
}

fn profile(common_name: &str, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, now.as_second() - BACK_DATED, now.as_second() + LIFETIME);
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Istio");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// From and until, in Unix seconds.
/// Seconds since 1970, which certificates can name for any moment that is asked for.
pub fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let after = |seconds: i64| Duration::from_secs(seconds.clamp(0, LAST_SECOND).unsigned_abs());
    params.not_before = epoch + after(from);
    params.not_after = epoch + after(until);
}

/// Random and positive, and of 20 octets always.
pub(super) fn serial() -> Result<SerialNumber, Error> {
    let mut octets = [0; 20];
    rand::fill(&mut octets).map_err(|_| Error::RingUnspecified)?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::super::check::check;
    use super::super::fixtures::{self, at, now};
    use super::*;

    fn quick() -> Bundle {
        root_with(KeyPair::generate().unwrap(), "Mesh root", now()).unwrap()
    }

    /// What openssl says, an independent reader of what is made here.
    fn openssl(arguments: &[&str], input: &[u8]) -> String {
        let mut openssl = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(input).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file that is gone with its owner.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("istio-ca-gate-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap();
        }
    }

    #[test]
    fn openssl_reads_the_profile_that_was_meant() {
        let bundle = root("Mesh root", now()).unwrap();
        let text = openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253"], &bundle.root_cert);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let expected = [
            "Version: 3 (0x2)",
            "Signature Algorithm: sha256WithRSAEncryption",
            "Issuer: CN=Mesh root,O=Istio",
            "Not Before: Dec 31 23:00:00 2026 GMT",
            "Not After : Dec 29 00:00:00 2036 GMT",
            "Subject: CN=Mesh root,O=Istio",
            "Public-Key: (4096 bit)",
        ];
        for line in expected {
            assert!(lines.contains(&line), "{line} is not in {text}");
        }
        let extensions: Vec<&str> = lines.iter().skip_while(|line| **line != "X509v3 extensions:").copied().collect();
        assert_eq!(extensions[1..3], ["X509v3 Key Usage: critical", "Digital Signature, Certificate Sign, CRL Sign"]);
        assert_eq!(extensions[3], "X509v3 Subject Key Identifier:");
        assert_eq!(extensions[5..7], ["X509v3 Basic Constraints: critical", "CA:TRUE"]);
        assert!(extensions[7].starts_with("Signature Algorithm"), "{text}");
        openssl_verifies(&bundle);
        assert!(check(bundle, now()).is_ok());
    }

    fn openssl_verifies(bundle: &Bundle) {
        let root = Scratch::new("root-cert.pem", &bundle.root_cert);
        let time = fixtures::NOW.to_string();
        let verify = ["verify", "-x509_strict", "-check_ss_sig", "-attime", &time, "-CAfile", root.path(), root.path()];
        assert!(openssl(&verify, b"").ends_with(": OK\n"));
        let public = openssl(&["x509", "-noout", "-pubkey"], &bundle.ca_cert);
        assert_eq!(openssl(&["pkey", "-pubout"], bundle.ca_key.expose()), public);
        openssl(&["pkey", "-noout", "-check"], bundle.ca_key.expose());
    }

    #[test]
    fn a_new_root_signs_directly_and_is_sound() {
        let bundle = quick();
        assert_eq!(bundle.root_cert, bundle.cert_chain);
        assert_eq!(bundle.root_cert, bundle.ca_cert);
        let sound = check(bundle, now()).unwrap();
        assert_eq!(sound.roots().len(), 1);
        assert_eq!(sound.glance.subject, "O=Istio, CN=Mesh root");
    }

    #[test]
    fn a_new_root_is_valid_from_an_hour_ago_for_ten_years() {
        let now = fixtures::NOW;
        let sound = check(quick(), at(now)).unwrap();
        assert_eq!(sound.valid_from, at(now - HOUR));
        assert_eq!(sound.usable_until.at, at(now + LIFETIME));
        assert_eq!(sound.notes, []);
        assert_eq!(sound.glance.not_after, at(now + LIFETIME));
    }

    #[test]
    fn a_clock_at_the_end_of_time_makes_no_panic() {
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert!(root_with(KeyPair::generate().unwrap(), "Mesh root", now).is_ok(), "{now}");
        }
    }

    #[test]
    fn serials_are_positive_random_and_of_20_octets() {
        let [first, second] = [serial().unwrap(), serial().unwrap()];
        assert_ne!(first, second);
        for serial in [first, second] {
            assert_eq!(serial.len(), 20);
            assert_eq!(serial.as_ref()[0] & 0xc0, 0x40);
        }
    }

    #[test]
    fn the_key_is_pkcs8_in_pem() {
        let key = quick().ca_key;
        let text = std::str::from_utf8(key.expose()).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(text.ends_with("\n-----END PRIVATE KEY-----\n"));
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
