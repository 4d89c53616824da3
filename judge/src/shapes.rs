//! Sound CAs of the shapes that meshes have.

use fastrand::Rng;

use crate::der::{TRUE, bit_string, seq, tlv};
use crate::make::{Cert, Digest, Extension, Keys, Kind, name};

pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";
pub(crate) const SUBJECT_KEY_ID: &str = "2.5.29.14";
pub(crate) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
pub(crate) const DAY: i64 = 86_400;

/// What `keyCertSign`, `cRLSign` and `digitalSignature` are as a BIT STRING.
const CA_USAGES: [u8; 4] = [0x03, 0x02, 0x01, 0x86];

/// A case before anything is made of it.
#[derive(Clone)]
pub(crate) struct Spec {
    /// An issuer stands before what it issues.
    pub(crate) certs: Vec<Cert>,
    pub(crate) roots: Vec<usize>,
    pub(crate) chain: Vec<usize>,
    /// `ca-cert.pem`; its first one signs.
    pub(crate) ca: Vec<usize>,
    pub(crate) key: usize,
    pub(crate) now: i64,
}

impl Spec {
    /// The certificates on the way from the signing CA to its root.
    pub(crate) fn path(&self) -> Vec<usize> {
        let mut path = vec![self.ca[0]];
        while let Some(issuer) = path.last().and_then(|last| self.certs[*last].issuer) {
            path.push(issuer);
        }
        path
    }
}

/// One of the shapes, with its name.
pub(crate) fn any(rng: &mut Rng, keys: &Keys, now: i64) -> (String, Spec) {
    let mut make = Maker { rng, keys, now, certs: Vec::new(), names: 0 };
    let shape: (&str, fn(&mut Maker<'_>) -> Spec) = match make.rng.u8(0..10) {
        0 | 1 => ("root signs", root_signs),
        2..=4 => ("one intermediate", one_intermediate),
        5 => ("two intermediates", two_intermediates),
        6 => ("two roots", two_roots),
        7 => ("cross-signed", cross_signed),
        8 => ("anchor is an intermediate", anchor_is_an_intermediate),
        _ => ("many roots", many_roots),
    };
    (shape.0.to_owned(), shape.1(&mut make))
}

struct Maker<'a> {
    rng: &'a mut Rng,
    keys: &'a Keys,
    now: i64,
    certs: Vec<Cert>,
    names: u32,
}

impl Maker<'_> {
    fn key(&mut self) -> usize {
        let good = self.keys.of(|kind| !matches!(kind, Kind::Odd(_)));
        let used: Vec<usize> = self.certs.iter().map(|cert| cert.key).collect();
        let free: Vec<usize> = good.into_iter().filter(|key| !used.contains(key)).collect();
        free[self.rng.usize(0..free.len())]
    }

    fn ca(&mut self, issuer: Option<usize>) -> usize {
        let key = self.key();
        self.names += 1;
        let common = format!("{} CA {}", if issuer.is_none() { "Root" } else { "Intermediate" }, self.names);
        let subject = name(&[("2.5.4.10", 0x0c, b"Istio"), ("2.5.4.3", 0x0c, common.as_bytes())]);
        self.with(issuer, key, subject)
    }

    fn with(&mut self, issuer: Option<usize>, key: usize, subject: Vec<u8>) -> usize {
        let mut serial: Vec<u8> = (0..16).map(|_| self.rng.u8(..)).collect();
        serial[0] = serial[0] & 0x7f | 0x40;
        let digest = *pick(self.rng, &[Digest::Sha256, Digest::Sha256, Digest::Sha384, Digest::Sha512]);
        let issuing = issuer.map_or(key, |issuer| self.certs[issuer].key);
        self.certs.push(Cert {
            version: tlv(0xa0, &tlv(0x02, &[2])),
            serial,
            digest,
            algorithms: [None, None],
            issuer,
            issuer_name: None,
            subject,
            validity: [self.now - 400 * DAY, self.now + 3650 * DAY].map(crate::make::time),
            key,
            spki: None,
            unique_ids: Vec::new(),
            extensions: vec![
                Extension::new(BASIC_CONSTRAINTS, true, seq(&[TRUE.to_vec()])),
                Extension::new(KEY_USAGE, true, CA_USAGES.to_vec()),
                Extension::new(SUBJECT_KEY_ID, false, tlv(0x04, &key_id(self.keys, key))),
                Extension::new(AUTHORITY_KEY_ID, false, seq(&[tlv(0x80, &key_id(self.keys, issuing))])),
            ],
            edits: Vec::new(),
            trailing: Vec::new(),
            broken_signature: false,
        });
        self.certs.len() - 1
    }

    fn spec(&mut self, roots: &[usize], chain: &[usize], ca: usize) -> Spec {
        Spec {
            roots: roots.to_vec(),
            chain: chain.to_vec(),
            ca: vec![ca],
            key: self.certs[ca].key,
            certs: std::mem::take(&mut self.certs),
            now: self.now,
        }
    }
}

pub(crate) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}

/// Any identifier will do, as long as it is the key's.
pub(crate) fn key_id(keys: &Keys, key: usize) -> Vec<u8> {
    bit_string(&keys.get(key).public()).into_iter().rev().take(20).collect()
}

fn root_signs(make: &mut Maker<'_>) -> Spec {
    let root = make.ca(None);
    make.spec(&[root], &[root], root)
}

fn one_intermediate(make: &mut Maker<'_>) -> Spec {
    let root = make.ca(None);
    let ca = make.ca(Some(root));
    let with_root: &[usize] = if make.rng.bool() { &[ca, root] } else { &[ca] };
    make.spec(&[root], with_root, ca)
}

fn two_intermediates(make: &mut Maker<'_>) -> Spec {
    let root = make.ca(None);
    let middle = make.ca(Some(root));
    let ca = make.ca(Some(middle));
    let chain = if make.rng.u8(0..4) == 0 { [middle, ca] } else { [ca, middle] };
    make.spec(&[root], &chain, ca)
}

fn two_roots(make: &mut Maker<'_>) -> Spec {
    let (first, second) = (make.ca(None), make.ca(None));
    let ca = make.ca(Some(second));
    let roots = if make.rng.bool() { [first, second] } else { [second, first] };
    make.spec(&roots, &[ca], ca)
}

/// The new root's key, certified by the old root, in the chain.
fn cross_signed(make: &mut Maker<'_>) -> Spec {
    let (old, new) = (make.ca(None), make.ca(None));
    let (key, subject) = (make.certs[new].key, make.certs[new].subject.clone());
    let cross = make.with(Some(old), key, subject);
    let ca = make.ca(Some(new));
    let roots: &[usize] = match make.rng.u8(0..3) {
        0 => &[old],
        1 => &[new, old],
        _ => &[old, new],
    };
    make.spec(roots, &[ca, cross], ca)
}

fn anchor_is_an_intermediate(make: &mut Maker<'_>) -> Spec {
    let root = make.ca(None);
    let middle = make.ca(Some(root));
    let ca = make.ca(Some(middle));
    match make.rng.u8(0..3) {
        0 => make.spec(&[middle], &[ca], ca),
        1 => make.spec(&[middle, root], &[ca, middle], ca),
        _ => make.spec(&[middle], &[middle], middle),
    }
}

fn many_roots(make: &mut Maker<'_>) -> Spec {
    let count = make.rng.usize(3..6);
    let roots: Vec<usize> = (0..count).map(|_| make.ca(None)).collect();
    let signer = roots[make.rng.usize(0..count)];
    let ca = make.ca(Some(signer));
    make.spec(&roots, &[ca], ca)
}
