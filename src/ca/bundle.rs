//! The four files that istiod reads, in Vault's shape and in the Secret's, and the PEM in them.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::check::{At, Flaw};
use super::{Sha1, Sha256};

// cert-manager's caps on PEM, which keep a parser from being fed at length (CVE-2024-12401).
/// The most bytes that a certificate's PEM block may have.
pub const MAX_CERTIFICATE: usize = 6_500;
/// The most bytes that the key's file may have.
pub const MAX_KEY: usize = 13_000;
/// The most bytes that the four files may have together.
pub const MAX_BUNDLE: usize = 330_000;
/// The most certificates that a file may have.
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

/// Keys of `cacerts` that change what istiod reads: it prefers `tls.crt` to our files, and takes a
/// Secret marked `istio-generated` for one of its own making.
const FOREIGN: [&str; 2] = ["tls.crt", "istio-generated"];

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
            None => Err(Flaw::Missing { key }),
            Some(Value::String(text)) if text.is_empty() => Err(Flaw::Empty { key }),
            Some(Value::String(text)) => Ok(text.as_bytes()),
            Some(_) => Err(Flaw::NotText { key }),
        };
        let (ca_cert, ca_key) = match (data.contains_key(CA_CERT), data.contains_key(CA_KEY)) {
            (false, false) => (CERT_CHAIN, KEY),
            (true, true) => (CA_CERT, CA_KEY),
            (true, false) => {
                return Err(Flaw::Unpaired {
                    present: CA_CERT,
                    absent: CA_KEY,
                });
            }
            (false, true) => {
                return Err(Flaw::Unpaired {
                    present: CA_KEY,
                    absent: CA_CERT,
                });
            }
        };
        Self::from_files(
            text(ROOT_CERT)?,
            text(CERT_CHAIN)?,
            text(ca_cert)?,
            text(ca_key)?,
        )
    }

    /// From the data of Secret `cacerts`.
    pub fn from_secret<'a>(
        data: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, Flaw> {
        let (mut root_cert, mut cert_chain, mut ca_cert, mut ca_key) = (None, None, None, None);
        let mut foreign = None;
        for (name, bytes) in data {
            match name {
                ROOT_CERT => root_cert = Some(bytes),
                CERT_CHAIN => cert_chain = Some(bytes),
                CA_CERT => ca_cert = Some(bytes),
                CA_KEY => ca_key = Some(bytes),
                _ => foreign = FOREIGN.into_iter().find(|key| *key == name).or(foreign),
            }
        }
        if let Some(key) = foreign {
            return Err(Flaw::Foreign { key });
        }
        let there = |file: Option<&'a [u8]>, key| match file {
            None => Err(Flaw::Missing { key }),
            Some([]) => Err(Flaw::Empty { key }),
            Some(bytes) => Ok(bytes),
        };
        Self::from_files(
            there(root_cert, ROOT_CERT)?,
            there(cert_chain, CERT_CHAIN)?,
            there(ca_cert, CA_CERT)?,
            there(ca_key, CA_KEY)?,
        )
    }

    fn from_files(
        root_cert: &[u8],
        cert_chain: &[u8],
        ca_cert: &[u8],
        ca_key: &[u8],
    ) -> Result<Self, Flaw> {
        let bundle = Self {
            root_cert: root_cert.to_vec(),
            cert_chain: cert_chain.to_vec(),
            ca_cert: ca_cert.to_vec(),
            ca_key: KeyPem::new(ca_key.to_vec()),
        };
        bundle.check_size()?;
        Ok(bundle)
    }

    /// Vault's record of this CA: the short form, where `ca-cert.pem` is `cert-chain.pem`. Files
    /// that are not UTF-8, which a sound bundle's are, would not survive this.
    pub fn to_record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        let mut put = |key: &str, file: &[u8]| {
            record.insert(
                key.to_owned(),
                Value::String(String::from_utf8_lossy(file).into_owned()),
            );
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

/// What can be shown of a `root-cert.pem` whose bundle is not sound: text around blocks is skipped,
/// and reading ends at the first broken block. `None` if its first certificate cannot be read.
pub fn glance(root_cert_pem: &[u8]) -> Option<Glance> {
    let text = std::str::from_utf8(root_cert_pem)
        .ok()
        .filter(|text| text.len() <= MAX_BUNDLE)?;
    let ders: Vec<Der> = Pieces::of(text)
        .filter(|piece| *piece != Piece::Text)
        .take(MAX_CERTIFICATES)
        .map_while(|piece| match piece {
            Piece::Block(block)
                if block.label == "CERTIFICATE" && block.text.len() <= MAX_CERTIFICATE =>
            {
                block.decode()
            }
            _ => None,
        })
        .collect();
    let (_, first) = X509Certificate::from_der(ders.first()?).ok()?;
    Some(Glance::of(
        &first,
        ders.iter().map(|der| Sha256::of(der)).collect(),
    ))
}

impl Glance {
    pub(super) fn of(first: &X509Certificate<'_>, roots: BTreeSet<Sha256>) -> Self {
        let subject = first.subject().to_string();
        let printable = |char: char| {
            if char.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                char
            }
        };
        Self {
            sha256: Sha256::of(first.as_raw()),
            sha1: Sha1::of(first.as_raw()),
            roots,
            not_after: timestamp(first.validity().not_after, 0),
            subject: subject.chars().take(MAX_SUBJECT).map(printable).collect(),
        }
    }
}

/// A certificate's time, moved by some seconds. Years up to 9999 can be written, and "never" often
/// is the last second of them: such a time is taken for the last that can be told.
pub(super) fn timestamp(time: ASN1Time, moved_by: i64) -> Timestamp {
    let seconds = time.timestamp().saturating_add(moved_by);
    let limit = if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_second(seconds).unwrap_or(limit)
}

/// The certificates of a file, as DER. One reading for all: Go skips what it cannot read, where
/// other peers stop, so that anything but whitespace between the blocks is refused.
pub(super) fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<Der>, Flaw> {
    let text = std::str::from_utf8(pem).map_err(|_| Flaw::NotOnlyCertificates { file })?;
    let mut ders = Vec::new();
    for piece in Pieces::of(text) {
        let at = At {
            file,
            position: ders.len() + 1,
        };
        match piece {
            Piece::Block(block) if block.label == "CERTIFICATE" => {
                if ders.len() == MAX_CERTIFICATES {
                    return Err(Flaw::TooManyCertificates { file });
                }
                if block.text.len() > MAX_CERTIFICATE {
                    return Err(Flaw::CertificateTooLarge { at });
                }
                ders.push(block.decode().ok_or(Flaw::Malformed { at })?);
            }
            Piece::Block(_) | Piece::Text | Piece::Broken => {
                return Err(Flaw::NotOnlyCertificates { file });
            }
        }
    }
    if ders.is_empty() {
        Err(Flaw::NoCertificate { file })
    } else {
        Ok(ders)
    }
}

/// What a PEM block holds: perhaps a key, whatever its label says.
pub(super) type Der = Zeroizing<Vec<u8>>;

/// A part of a PEM file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Block(Block<'a>),
    /// A line outside of blocks that is not blank. Decoders skip it.
    Text,
    /// What may have been meant as a block. Decoders differ on what follows: nothing is read of it.
    Broken,
}

/// From a BEGIN line to its END line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    /// The lines between.
    pub(super) body: &'a str,
    /// All lines.
    pub(super) text: &'a str,
}

impl Block<'_> {
    /// The body's bytes, if it is nothing but lines of base64: no headers, no blank lines.
    pub(super) fn decode(&self) -> Option<Der> {
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let plain = |line: &str| !line.is_empty() && line.bytes().all(base64);
        if !self.body.lines().map(end_trimmed).all(plain) {
            return None;
        }
        let (_, bytes) = <(SectionKind, Vec<u8>)>::from_pem_slice(self.text.as_bytes()).ok()?;
        Some(Zeroizing::new(bytes)).filter(|bytes| !bytes.is_empty())
    }
}

/// The pieces of a PEM file, in order. BEGIN and END count at the start of a line only, and a line
/// may end in blanks: the common ground of Go, OpenSSL and BoringSSL.
pub(super) struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn line(&mut self) -> Option<&'a str> {
        let line = self.rest.split_inclusive('\n').next()?;
        self.rest = &self.rest[line.len()..];
        Some(end_trimmed(line))
    }

    /// The rest of a block whose BEGIN line was just read from `from`.
    fn block(&mut self, from: &'a str, label: &'a str) -> Option<Block<'a>> {
        let body = self.rest;
        loop {
            let before = self.rest.len();
            let line = self.line()?;
            if line.contains("-----") {
                let end = line.strip_prefix("-----END ")?.strip_suffix("-----")?;
                return (end == label).then_some(Block {
                    label,
                    body: &body[..body.len() - before],
                    text: &from[..from.len() - self.rest.len()],
                });
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (mut from, mut line) = (self.rest, self.line()?);
        while line.is_empty() {
            (from, line) = (self.rest, self.line()?);
        }
        if !line.contains("-----") {
            return Some(Piece::Text);
        }
        let label = line
            .strip_prefix("-----BEGIN ")
            .and_then(|line| line.strip_suffix("-----"));
        match label.and_then(|label| self.block(from, label)) {
            Some(block) => Some(Piece::Block(block)),
            None => {
                self.rest = "";
                Some(Piece::Broken)
            }
        }
    }
}

fn end_trimmed(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r', '\n'])
}
