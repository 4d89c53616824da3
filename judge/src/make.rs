//! Certificates and revocation lists by their parts, any of which may be wrong.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;

use crate::boring::Key;
use crate::der::{bit_string, oid, seq, tlv};

/// Keys are dear: all cases share these.
pub struct Keys(Vec<(Kind, Key)>);

/// What a key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    P256,
    P384,
    Rsa,
    /// One that some consumer does not take.
    Odd(&'static str),
}

/// A digest to sign with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Digest {
    /// Ed25519 has its own.
    None,
    /// Not for new signatures.
    Md5,
    /// Not for new signatures.
    Sha1,
    /// The usual one.
    Sha256,
    /// Longer.
    Sha384,
    /// Longest.
    Sha512,
}

impl Keys {
    /// Made anew by openssl.
    pub fn new() -> Result<Self> {
        let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let p384 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
        let mut wanted: Vec<(Kind, Vec<&str>)> = Vec::new();
        wanted.extend((0..5).map(|_| (Kind::P256, p256.to_vec())));
        wanted.extend((0..3).map(|_| (Kind::P384, p384.to_vec())));
        wanted.extend((0..3).map(|_| (Kind::Rsa, rsa.to_vec())));
        wanted.push((Kind::Rsa, vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]));
        for (name, arguments) in [
            ("rsa-1024", vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]),
            ("rsa-2047", vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2047"]),
            (
                "rsa-e3",
                vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
            ),
            ("rsa-pss", vec!["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]),
            ("p224", vec!["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"]),
            ("p521", vec!["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
            ("secp256k1", vec!["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
            ("ed25519", vec!["-algorithm", "ED25519"]),
        ] {
            wanted.push((Kind::Odd(name), arguments));
        }
        let make = |(kind, arguments): (Kind, Vec<&str>)| {
            let key = openssl_key(&arguments).and_then(|der| Key::parse(&der));
            Ok((kind, key.with_context(|| format!("{arguments:?}"))?))
        };
        Ok(Self(wanted.into_iter().map(make).collect::<Result<_>>()?))
    }

    pub(crate) fn get(&self, index: usize) -> &Key {
        &self.0[index].1
    }

    pub(crate) fn kind(&self, index: usize) -> Kind {
        self.0[index].0
    }

    /// The indexes of those of this kind.
    pub(crate) fn of(&self, wanted: impl Fn(Kind) -> bool) -> Vec<usize> {
        (0..self.0.len()).filter(|index| wanted(self.0[*index].0)).collect()
    }
}

fn openssl_key(arguments: &[&str]) -> Result<Vec<u8>> {
    let made = Command::new("openssl")
        .arg("genpkey")
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .context("the tests need openssl 3")?;
    ensure!(made.status.success(), "openssl genpkey {arguments:?}: {}", made.status);
    // Not -outform DER: that is not PKCS#8.
    let pem = String::from_utf8(made.stdout)?;
    Ok(STANDARD.decode(pem.lines().filter(|line| !line.contains('-')).collect::<String>())?)
}

/// A certificate to be made. What is a whole value of DER is given with its tag.
#[derive(Clone)]
pub(crate) struct Cert {
    /// With its tag [0]; empty: version 1.
    pub(crate) version: Vec<u8>,
    /// Without its tag.
    pub(crate) serial: Vec<u8>,
    pub(crate) digest: Digest,
    /// In place of the right one, inside and outside.
    pub(crate) algorithms: [Option<Vec<u8>>; 2],
    /// Where in the case its issuer is; `None`: it is self-signed.
    pub(crate) issuer: Option<usize>,
    pub(crate) issuer_name: Option<Vec<u8>>,
    pub(crate) subject: Vec<u8>,
    pub(crate) validity: [Vec<u8>; 2],
    pub(crate) key: usize,
    pub(crate) spki: Option<Vec<u8>>,
    /// Between the key and the extensions.
    pub(crate) unique_ids: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
    /// Changes of what is signed, by seeds.
    pub(crate) edits: Vec<u64>,
    /// Added to the end, or a bit of the signature changed.
    pub(crate) trailing: Vec<u8>,
    pub(crate) broken_signature: bool,
}

#[derive(Clone)]
pub(crate) struct Extension {
    pub(crate) oid: Vec<u8>,
    /// With its tag, or nothing.
    pub(crate) critical: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Extension {
    pub(crate) fn new(dotted: &str, is_critical: bool, value: Vec<u8>) -> Self {
        let critical = if is_critical { crate::der::TRUE.to_vec() } else { Vec::new() };
        Self { oid: oid(dotted), critical, value }
    }

    fn encode(&self) -> Vec<u8> {
        seq(&[self.oid.clone(), self.critical.clone(), tlv(0x04, &self.value)])
    }
}

impl Cert {
    /// What is signed.
    pub(crate) fn to_be_signed(&self, issuer_name: &[u8], issuer: &Key, keys: &Keys) -> Vec<u8> {
        let extensions: Vec<Vec<u8>> = self.extensions.iter().map(Extension::encode).collect();
        let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0xa3, &seq(&extensions)) };
        seq(&[
            self.version.clone(),
            tlv(0x02, &self.serial),
            self.algorithms[0].clone().unwrap_or_else(|| algorithm(issuer, self.digest)),
            self.issuer_name.clone().unwrap_or_else(|| issuer_name.to_vec()),
            seq(&self.validity),
            self.subject.clone(),
            self.spki.clone().unwrap_or_else(|| keys.get(self.key).public()),
            self.unique_ids.clone(),
            extensions,
        ])
    }

    /// Signs it.
    pub(crate) fn sign(&self, to_be_signed: &[u8], issuer: &Key) -> Vec<u8> {
        let mut signature = issuer.sign(self.digest, to_be_signed);
        if let Some(last) = signature.last_mut().filter(|_| self.broken_signature) {
            *last ^= 1;
        }
        let algorithm = self.algorithms[1].clone().unwrap_or_else(|| algorithm(issuer, self.digest));
        let mut der = seq(&[to_be_signed.to_vec(), algorithm, bit_string(&signature)]);
        der.extend_from_slice(&self.trailing);
        der
    }
}

/// AlgorithmIdentifier of a signature by such a key.
pub(crate) fn algorithm(key: &Key, digest: Digest) -> Vec<u8> {
    let null = vec![0x05, 0x00];
    match (key.is_rsa(), digest) {
        (_, Digest::None) => seq(&[oid("1.3.101.112")]),
        (true, Digest::Md5) => seq(&[oid("1.2.840.113549.1.1.4"), null]),
        (true, Digest::Sha1) => seq(&[oid("1.2.840.113549.1.1.5"), null]),
        (true, Digest::Sha256) => seq(&[oid("1.2.840.113549.1.1.11"), null]),
        (true, Digest::Sha384) => seq(&[oid("1.2.840.113549.1.1.12"), null]),
        (true, Digest::Sha512) => seq(&[oid("1.2.840.113549.1.1.13"), null]),
        (false, Digest::Md5 | Digest::Sha1) => seq(&[oid("1.2.840.10045.4.1")]),
        (false, Digest::Sha256) => seq(&[oid("1.2.840.10045.4.3.2")]),
        (false, Digest::Sha384) => seq(&[oid("1.2.840.10045.4.3.3")]),
        (false, Digest::Sha512) => seq(&[oid("1.2.840.10045.4.3.4")]),
    }
}

/// A revocation list to be made.
pub(crate) struct Crl<'a> {
    pub(crate) issuer: &'a [u8],
    /// From and until.
    pub(crate) updates: [i64; 2],
    pub(crate) revoked: Vec<Vec<u8>>,
    pub(crate) extensions: Vec<Extension>,
}

impl Crl<'_> {
    pub(crate) fn sign(&self, key: &Key, digest: Digest) -> Vec<u8> {
        let revoked: Vec<Vec<u8>> =
            self.revoked.iter().map(|serial| seq(&[tlv(0x02, serial), time(self.updates[0])])).collect();
        let extensions: Vec<Vec<u8>> = self.extensions.iter().map(Extension::encode).collect();
        let list = seq(&[
            tlv(0x02, &[1]),
            algorithm(key, digest),
            self.issuer.to_vec(),
            time(self.updates[0]),
            time(self.updates[1]),
            if revoked.is_empty() { Vec::new() } else { seq(&revoked) },
            if extensions.is_empty() { Vec::new() } else { tlv(0xa0, &seq(&extensions)) },
        ]);
        seq(&[list.clone(), algorithm(key, digest), bit_string(&key.sign(digest, &list))])
    }
}

/// As RFC 5280 wants it: with two digits for the year up to 2049.
pub(crate) fn time(second: i64) -> Vec<u8> {
    let at = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    let (tag, format) = if second < 2_524_608_000 { (0x17, "%y%m%d%H%M%SZ") } else { (0x18, "%Y%m%d%H%M%SZ") };
    tlv(tag, at.strftime(format).to_string().as_bytes())
}

/// A name of its attributes: type, tag and bytes of the value.
pub(crate) fn name(attributes: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let set = |(kind, tag, value): &(&str, u8, &[u8])| tlv(0x31, &seq(&[oid(kind), tlv(*tag, value)]));
    seq(&attributes.iter().map(set).collect::<Vec<_>>())
}

pub(crate) fn pem(label: &str, der: &[u8], width: usize, end: &str) -> String {
    let text = STANDARD.encode(der);
    let mut lines: Vec<&str> = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(width));
        lines.push(line);
        rest = after;
    }
    format!("-----BEGIN {label}-----{end}{}{end}-----END {label}-----{end}", lines.join(end))
}
