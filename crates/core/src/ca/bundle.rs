//! The four files that istiod reads, in Vault's shape and in the Secret's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::certificate::timestamp;
use super::flaw::Flaw;
use super::{Sha1, Sha256, file};

// cert-manager's caps on PEM, which keep a parser from being fed at length (CVE-2024-12401).
/// The most bytes that a certificate's PEM block may have.
pub const MAX_CERTIFICATE: usize = 6_500;
/// The most bytes that the key's file may have.
pub const MAX_KEY: usize = 13_000;
/// The most bytes that the four files may have together.
pub const MAX_BUNDLE: usize = 330_000;
/// The most certificates that a file may have that is sent in each handshake. `root-cert.pem` has no other bound than
/// the sizes.
pub const MAX_CERTIFICATES: usize = 10;

/// The most characters of a subject that are shown.
const MAX_SUBJECT: usize = 200;

/// `root-cert.pem`: the trust bundle.
pub const ROOT_CERT: &str = "root-cert.pem";
/// `cert-chain.pem`: what istiod appends to each certificate that it issues.
pub const CERT_CHAIN: &str = "cert-chain.pem";
/// `ca-cert.pem`: the signing CA.
pub const CA_CERT: &str = "ca-cert.pem";
/// `ca-key.pem`: the signing CA's key.
pub const CA_KEY: &str = "ca-key.pem";
/// `key.pem`: the key in Vault's record, where the root signs directly.
pub const KEY: &str = "key.pem";

/// `ca-crl.pem`: revocation lists, which istiod reads beside the four files.
pub const CRL: &str = "ca-crl.pem";
/// `tls.crt`: the signing CA and its chain, as cert-manager writes them. istiod prefers it to the four files.
pub const TLS_CRT: &str = "tls.crt";
/// `tls.key`: its key.
pub const TLS_KEY: &str = "tls.key";
/// `ca.crt`: its root, which istiod puts behind `tls.crt`, too, to have a chain.
pub const CA_CRT: &str = "ca.crt";
/// Marks a Secret of istiod's own making, which it may write over.
pub const GENERATED: &str = "istio-generated";

/// The four files that istiod reads, byte for byte: a running istiod refuses a root in other bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// `root-cert.pem`.
    pub root_cert: Vec<u8>,
    /// `cert-chain.pem`.
    pub cert_chain: Vec<u8>,
    /// `ca-cert.pem`.
    pub ca_cert: Vec<u8>,
    /// `ca-key.pem`.
    pub ca_key: KeyPem,
    /// What else istiod reads of the Secret.
    pub beside: Beside,
}

/// What istiod reads of a Secret beside the four files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// `ca-crl.pem`, if it is there.
    pub crl: Option<Vec<u8>>,
    /// `tls.crt` is there: istiod looks at no other file than that, `tls.key` and `ca.crt`.
    pub tls: bool,
}

impl Beside {
    /// Of a Secret's data.
    pub fn of<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut beside = Self::default();
        for (name, bytes) in data {
            match name {
                TLS_CRT => beside.tls = true,
                CRL => beside.crl = Some(bytes.to_vec()),
                _ => {}
            }
        }
        beside
    }

    /// The name of the trust bundle that istiod reads.
    pub fn root_cert(&self) -> &'static str {
        if self.tls { CA_CRT } else { ROOT_CERT }
    }
}

/// A private key in PEM: cannot be printed, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(Zeroizing<Vec<u8>>);

/// What people see of a bundle: the first certificate of `root-cert.pem`, as openssl does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// SHA-256 of the first certificate.
    pub sha256: Sha256,
    /// SHA-1 of the first certificate.
    pub sha1: Sha1,
    /// All certificates of the file.
    pub roots: BTreeSet<Sha256>,
    /// The end of the first certificate.
    pub not_after: Timestamp,
    /// The subject of the first certificate, without control characters.
    pub subject: String,
}

impl KeyPem {
    /// Takes the bytes over, and wipes them in the end.
    pub fn new(pem: Vec<u8>) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The key itself. For writing it to a store or checking it, and nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(…)")
    }
}

impl fmt::Debug for Bundle {
    // Sizes only: a key may have been put into a file of certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("root_cert", &format_args!("{} B", self.root_cert.len()))
            .field("cert_chain", &format_args!("{} B", self.cert_chain.len()))
            .field("ca_cert", &format_args!("{} B", self.ca_cert.len()))
            .field("ca_key", &self.ca_key)
            .finish()
    }
}

impl Bundle {
    /// From the `data` of Vault's record. Where the root signs directly, `ca-cert.pem` and
    /// `ca-key.pem` are left out; where they are there, `key.pem` is not needed, so that a root's
    /// key can stay offline.
    pub fn from_record(data: &Map<String, Value>) -> Result<Self, Flaw> {
        let text = |key: &'static str| match data.get(key) {
            None => Err(Flaw::Missing(key)),
            // Empty where the signing CA, which is another file then, is the root itself.
            Some(Value::String(text)) if text.is_empty() && !(key == CERT_CHAIN && data.contains_key(CA_CERT)) => {
                Err(Flaw::Empty(key))
            }
            Some(Value::String(text)) => Ok(text.as_bytes()),
            Some(_) => Err(Flaw::NotText(key)),
        };
        let (ca_cert, ca_key) = match (data.contains_key(CA_CERT), data.contains_key(CA_KEY)) {
            (false, false) => (CERT_CHAIN, KEY),
            (true, true) => (CA_CERT, CA_KEY),
            (true, false) => {
                return Err(Flaw::Unpaired(CA_CERT, CA_KEY));
            }
            (false, true) => {
                return Err(Flaw::Unpaired(CA_KEY, CA_CERT));
            }
        };
        Self::from_files(text(ROOT_CERT)?, text(CERT_CHAIN)?, text(ca_cert)?, text(ca_key)?, Beside::default())
    }

    /// From the data of Secret `cacerts`: the files that istiod would use.
    pub fn from_secret<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Flaw> {
        let data: BTreeMap<&str, &[u8]> = data.into_iter().collect();
        let beside = Beside::of(data.iter().map(|(name, bytes)| (*name, *bytes)));
        if data.contains_key(GENERATED) {
            return Err(Flaw::Foreign(GENERATED));
        }
        let there = |key: &'static str| data.get(key).copied().ok_or(Flaw::Missing(key));
        let some = |key| there(key).and_then(|file| if file.is_empty() { Err(Flaw::Empty(key)) } else { Ok(file) });
        if beside.tls {
            let (root, ca) = (some(CA_CRT)?, some(TLS_CRT)?);
            return Self::from_files(root, &[ca, root].concat(), ca, some(TLS_KEY)?, beside);
        }
        Self::from_files(some(ROOT_CERT)?, there(CERT_CHAIN)?, some(CA_CERT)?, some(CA_KEY)?, beside)
    }

    fn from_files(
        root_cert: &[u8],
        cert_chain: &[u8],
        ca_cert: &[u8],
        ca_key: &[u8],
        beside: Beside,
    ) -> Result<Self, Flaw> {
        let bundle = Self {
            root_cert: root_cert.to_vec(),
            cert_chain: cert_chain.to_vec(),
            ca_cert: ca_cert.to_vec(),
            ca_key: KeyPem::new(ca_key.to_vec()),
            beside,
        };
        bundle.check_size()?;
        Ok(bundle)
    }

    /// Whether the four files are the same, byte for byte.
    pub fn same_files(&self, other: &Self) -> bool {
        (&self.root_cert, &self.cert_chain, &self.ca_cert, &self.ca_key)
            == (&other.root_cert, &other.cert_chain, &other.ca_cert, &other.ca_key)
    }

    /// Vault's record of this CA: the short form, where `ca-cert.pem` is `cert-chain.pem`. Files
    /// that are not UTF-8, which a sound bundle's are, would not survive this.
    pub fn to_record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        let mut put = |key: &str, file: &[u8]| {
            record.insert(key.to_owned(), Value::String(String::from_utf8_lossy(file).into_owned()));
        };
        put(ROOT_CERT, &self.root_cert);
        put(CERT_CHAIN, &self.cert_chain);
        put(KEY, self.ca_key.expose());
        if self.ca_cert != self.cert_chain {
            put(CA_CERT, &self.ca_cert);
            put(CA_KEY, self.ca_key.expose());
        }
        record
    }

    /// The caps that hold before anything is parsed.
    pub(super) fn check_size(&self) -> Result<(), Flaw> {
        let key = self.ca_key.expose().len();
        if key > MAX_KEY {
            return Err(Flaw::KeyTooLarge);
        }
        if self.root_cert.len() + self.cert_chain.len() + self.ca_cert.len() + key > MAX_BUNDLE {
            return Err(Flaw::TooLarge);
        }
        Ok(())
    }
}

/// What can be shown of a `root-cert.pem` whose bundle is not sound: all of it or nothing, since it is compared, too.
pub fn glance(root_cert_pem: &[u8]) -> Option<Glance> {
    file::roots(root_cert_pem).ok()
}

impl Glance {
    pub(super) fn of(first: &X509Certificate<'_>, roots: BTreeSet<Sha256>) -> Self {
        let subject = first.subject().to_string();
        let printable = |char: char| {
            if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }
        };
        Self {
            sha256: Sha256::of(first.as_raw()),
            sha1: Sha1::of(first.as_raw()),
            roots,
            not_after: timestamp(first.validity().not_after),
            subject: subject.chars().take(MAX_SUBJECT).map(printable).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::super::check::check;
    use super::super::fixtures::{self, Ca, now};
    use super::*;

    fn record(value: Value) -> Result<Bundle, Flaw> {
        Bundle::from_record(value.as_object().unwrap())
    }

    fn short_record() -> Value {
        json!({ROOT_CERT: "root\r\n", CERT_CHAIN: "chain", KEY: "key\n"})
    }

    fn long_record() -> Value {
        json!({ROOT_CERT: "root", CERT_CHAIN: "chain", CA_CERT: "ca", CA_KEY: "ca's", KEY: "root's"})
    }

    fn with(mut record: Value, key: &str, value: Value) -> Value {
        record[key] = value;
        record
    }

    fn without(mut record: Value, key: &str) -> Value {
        record.as_object_mut().unwrap().remove(key);
        record
    }

    fn files(root_cert: &str, cert_chain: &str, ca_cert: &str, ca_key: &str) -> Bundle {
        let file = |text: &str| text.as_bytes().to_vec();
        Bundle {
            root_cert: file(root_cert),
            cert_chain: file(cert_chain),
            ca_cert: file(ca_cert),
            ca_key: KeyPem::new(file(ca_key)),
            beside: Beside::default(),
        }
    }

    #[test]
    fn a_short_record_is_taken_verbatim() {
        assert_eq!(record(short_record()), Ok(files("root\r\n", "chain", "chain", "key\n")));
    }

    #[test]
    fn a_record_with_another_signing_ca_takes_that_ones_key() {
        assert_eq!(record(long_record()), Ok(files("root", "chain", "ca", "ca's")));
    }

    #[test]
    fn the_roots_key_may_stay_offline() {
        assert_eq!(record(without(long_record(), KEY)), Ok(files("root", "chain", "ca", "ca's")));
    }

    #[test]
    fn extra_keys_of_a_record_are_ignored() {
        let extra = with(with(short_record(), "tls.crt", json!("x")), "note", json!({"by": 1}));
        assert_eq!(record(extra), record(short_record()));
    }

    #[test]
    fn missing_keys_of_a_record_are_named() {
        for key in [ROOT_CERT, CERT_CHAIN, KEY] {
            assert_eq!(record(without(short_record(), key)), Err(Flaw::Missing(key)));
        }
        assert_eq!(record(json!({})), Err(Flaw::Missing(ROOT_CERT)));
    }

    #[test]
    fn empty_values_of_a_record_are_named() {
        for key in [ROOT_CERT, CA_CERT, CA_KEY] {
            assert_eq!(record(with(long_record(), key, json!(""))), Err(Flaw::Empty(key)));
        }
        // The root may sign by itself.
        assert_eq!(record(with(long_record(), CERT_CHAIN, json!(""))), Ok(files("root", "", "ca", "ca's")));
        assert_eq!(record(with(short_record(), CERT_CHAIN, json!(""))), Err(Flaw::Empty(CERT_CHAIN)));
        assert_eq!(record(with(short_record(), KEY, json!(""))), Err(Flaw::Empty(KEY)));
    }

    #[test]
    fn values_of_a_record_that_are_no_strings_are_named_and_not_shown() {
        for value in [json!(null), json!(4711), json!(["4711"]), json!({"4711": true})] {
            let flaw = record(with(short_record(), KEY, value)).unwrap_err();
            assert_eq!(flaw, Flaw::NotText(KEY));
            assert_eq!(flaw.to_string(), "key.pem is not a string");
        }
    }

    #[test]
    fn half_a_signing_ca_is_refused() {
        assert_eq!(record(without(long_record(), CA_KEY)), Err(Flaw::Unpaired(CA_CERT, CA_KEY)));
        assert_eq!(record(without(long_record(), CA_CERT)), Err(Flaw::Unpaired(CA_KEY, CA_CERT)));
    }

    #[test]
    fn sizes_are_capped_before_anything_is_read() {
        let key = |bytes| with(short_record(), KEY, json!("k".repeat(bytes)));
        assert!(record(key(MAX_KEY)).is_ok());
        assert_eq!(record(key(MAX_KEY + 1)), Err(Flaw::KeyTooLarge));
        let others = "root\r\n".len() + 2 * "chain".len();
        let root = |bytes| with(with(short_record(), KEY, json!("k")), ROOT_CERT, json!("r".repeat(bytes)));
        let room = MAX_BUNDLE - others + "root\r\n".len() - 1;
        assert!(record(root(room)).is_ok());
        assert_eq!(record(root(room + 1)), Err(Flaw::TooLarge));
        assert_eq!(record(root(1 << 20)), Err(Flaw::TooLarge));
        let oversized = files(&"r".repeat(1 << 20), "chain", "ca", "key");
        assert_eq!(check(oversized, now()).err(), Some(Flaw::TooLarge));
    }

    #[test]
    fn a_self_signing_bundle_makes_a_short_record() {
        let bundle = files("root", "chain", "chain", "key");
        let expected = json!({ROOT_CERT: "root", CERT_CHAIN: "chain", KEY: "key"});
        assert_eq!(Value::Object(bundle.to_record()), expected);
        assert_eq!(Bundle::from_record(&bundle.to_record()), Ok(bundle));
    }

    #[test]
    fn a_bundle_with_another_signing_ca_makes_a_long_record() {
        let bundle = files("root", "chain", "ca", "key");
        let expected = json!({ROOT_CERT: "root", CERT_CHAIN: "chain", CA_CERT: "ca", CA_KEY: "key", KEY: "key"});
        assert_eq!(Value::Object(bundle.to_record()), expected);
        assert_eq!(Bundle::from_record(&bundle.to_record()), Ok(bundle));
    }

    const SECRET: [(&str, &[u8]); 4] =
        [(CA_KEY, b"key"), (ROOT_CERT, b"root"), (CERT_CHAIN, b"chain"), (CA_CERT, b"ca")];

    #[test]
    fn a_secret_is_taken_verbatim() {
        assert_eq!(Bundle::from_secret(SECRET), Ok(files("root", "chain", "ca", "key")));
        let extra = SECRET.into_iter().chain([("note.txt", b"x".as_slice())]);
        assert_eq!(Bundle::from_secret(extra), Bundle::from_secret(SECRET));
        let listed = Bundle::from_secret(SECRET.into_iter().chain([(CRL, b"list".as_slice())])).unwrap();
        assert_eq!(listed.beside.crl.as_deref(), Some(b"list".as_slice()));
        assert!(listed.same_files(&files("root", "chain", "ca", "key")));
    }

    #[test]
    fn missing_keys_of_a_secret_are_named() {
        for missing in [ROOT_CERT, CERT_CHAIN, CA_CERT, CA_KEY] {
            let secret = SECRET.into_iter().filter(|(key, _)| *key != missing);
            assert_eq!(Bundle::from_secret(secret), Err(Flaw::Missing(missing)));
        }
        assert_eq!(Bundle::from_secret([]), Err(Flaw::Missing(ROOT_CERT)));
    }

    #[test]
    fn empty_files_of_a_secret_are_named() {
        let without =
            |empty| Bundle::from_secret(SECRET.map(|(key, bytes)| (key, if key == empty { b"" } else { bytes })));
        for empty in [ROOT_CERT, CA_CERT, CA_KEY] {
            assert_eq!(without(empty), Err(Flaw::Empty(empty)));
        }
        assert_eq!(without(CERT_CHAIN), Ok(files("root", "", "ca", "key")));
    }

    #[test]
    fn what_istiod_would_prefer_is_refused_before_all_else() {
        let with = |key| Bundle::from_secret(SECRET.into_iter().chain([(key, b"".as_slice())])).unwrap_err();
        assert_eq!(with(GENERATED), Flaw::Foreign(GENERATED));
        assert_eq!(Bundle::from_secret([(GENERATED, b"x".as_slice())]), Err(Flaw::Foreign(GENERATED)));
        // It prefers these three to the four, complete or not.
        assert_eq!(with(TLS_CRT), Flaw::Missing(CA_CRT));
        let three = [(TLS_CRT, b"ca\n".as_slice()), (CA_CRT, b"root\n"), (TLS_KEY, b"key")];
        let bundle = Bundle::from_secret(SECRET.into_iter().chain(three)).unwrap();
        let beside = Beside { crl: None, tls: true };
        assert_eq!(bundle, Bundle { beside, ..files("root\n", "ca\nroot\n", "ca\n", "key") });
    }

    #[test]
    fn a_glance_is_of_the_first_certificate() {
        let (first, second) = (Ca::root("First"), Ca::root("Second"));
        let glance = glance(&fixtures::bundle(&[&first, &second], &[], &first).root_cert).unwrap();
        let (first, second) = (first.certificate.der(), second.certificate.der());
        let expected = Glance {
            sha256: Sha256::of(first),
            sha1: Sha1::of(first),
            roots: BTreeSet::from([Sha256::of(first), Sha256::of(second)]),
            not_after: fixtures::at(fixtures::NOW + fixtures::YEARS),
            subject: "CN=First".to_owned(),
        };
        assert_eq!(glance, expected);
    }

    #[test]
    fn a_glance_is_what_the_check_gives() {
        let root = Ca::root("Root");
        let sound = check(root.bundle(), now()).unwrap();
        assert_eq!(glance(&root.bundle().root_cert), Some(sound.glance.clone()));
    }

    #[test]
    fn a_glance_skips_text_and_is_of_the_whole_file_or_of_nothing() {
        let root = Ca::root("Root").certificate.pem();
        let plain = glance(root.as_bytes()).unwrap();
        assert_eq!(glance(format!("Root:\n{root}and more\n").as_bytes()), Some(plain.clone()));
        assert_eq!(glance(root.repeat(10).as_bytes()), Some(plain));
        assert_eq!(glance(format!("{root}-----BEGIN\n{root}").as_bytes()), None);
    }

    #[test]
    fn there_is_no_glance_of_what_cannot_be_read() {
        let root = Ca::root("Root");
        let pem = root.certificate.pem();
        let huge = format!("{pem}{}", "\n".repeat(MAX_BUNDLE));
        let long = pem.replacen('\n', &format!("{}\n", " ".repeat(MAX_CERTIFICATE)), 1);
        let key = root.key.serialize_pem();
        for text in ["", "no PEM", &key, &pem[..100], &fixtures::pem("CERTIFICATE", &[0; 9], 64, "\n"), &huge, &long] {
            assert_eq!(glance(text.as_bytes()), None, "{text:.80}");
        }
        assert_eq!(glance(&[0xff; 100]), None);
    }

    #[test]
    fn a_shown_subject_is_short_and_has_no_control_characters() {
        let root = Ca::root(&format!("a\nb\u{1b}[31m{}", "x".repeat(1000)));
        let subject = glance(root.certificate.pem().as_bytes()).unwrap().subject;
        assert!(subject.starts_with("CN=a\u{fffd}b\u{fffd}[31mxxx"), "{subject}");
        assert_eq!(subject.chars().count(), MAX_SUBJECT);
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let root = Ca::root("Root");
        let pem = root.key.serialize_pem();
        let mut mixed_up = root.bundle();
        mixed_up.root_cert = pem.clone().into_bytes();
        let flaw = check(mixed_up.clone(), now()).unwrap_err();
        let mut encrypted = root.bundle();
        encrypted.ca_key = KeyPem::new(pem.replace("PRIVATE", "ENCRYPTED PRIVATE").into_bytes());
        let sound = check(root.bundle(), now()).unwrap();
        let shown = [
            format!("{:?} {:#?}", root.bundle(), root.bundle().ca_key),
            format!("{mixed_up:?} {flaw:?} {flaw}"),
            format!("{:?}", check(encrypted, now())),
            format!("{sound:?} {sound:#?}"),
        ]
        .concat();
        for trace in fixtures::traces(&root.key) {
            assert!(!shown.to_lowercase().contains(&trace.to_lowercase()), "{trace} is in {shown}");
        }
        assert!(shown.contains("KeyPem(…)"));
        assert_eq!(flaw, Flaw::NotOnlyCertificates(ROOT_CERT));
    }
}
