//! A case: the files of a Secret, and what was done to make them so.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::make::{Keys, pem};
use crate::mutate;
use crate::shapes::{self, Spec};

/// Files by their names, as they are in Secret `cacerts`.
pub struct Case {
    /// The number of it, and with the seed all that it depends on, but for keys and signatures.
    pub number: u64,
    /// Its shape.
    pub shape: String,
    /// What was done to it, one thing each.
    pub changes: Vec<String>,
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Makes the case of this number.
pub fn case(keys: &Keys, seed: u64, number: u64, now: i64) -> Case {
    let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (shape, mut spec) = shapes::any(&mut rng, keys, now);
    let mut changes = Vec::new();
    let (inside, outside) =
        *shapes::pick(&mut rng, &[(0, 0), (1, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1), (2, 0), (1, 1)]);
    for _ in 0..inside {
        changes.push(mutate::certificates(&mut rng, keys, &mut spec));
    }
    let mut files = files(keys, &mut spec, &mut changes);
    for _ in 0..outside {
        if files.len() >= 4 {
            changes.push(mutate::files(&mut rng, keys, &spec, &mut files));
        }
    }
    Case { number, shape, changes, files }
}

fn files(keys: &Keys, spec: &mut Spec, changes: &mut Vec<String>) -> mutate::Files {
    let mut made: Vec<Vec<u8>> = Vec::new();
    for index in 0..spec.certs.len() {
        let cert = &spec.certs[index];
        let issuer = cert.issuer.unwrap_or(index);
        let issuing = keys.get(spec.certs[issuer].key);
        let mut signed = cert.to_be_signed(&spec.certs[issuer].subject, issuing, keys);
        for seed in &cert.edits {
            if let Some((what, edited)) = mutate::edit(&signed, *seed) {
                changes.push(what);
                signed = edited;
            }
        }
        let mut cert = cert.clone();
        // An Ed25519 key has no choice.
        if issuing.is_ed25519() {
            cert.digest = crate::make::Digest::None;
        }
        made.push(cert.sign(&signed, issuing));
    }
    let file = |of: &[usize]| -> Vec<u8> {
        of.iter().flat_map(|index| pem("CERTIFICATE", &made[*index], 64, "\n").into_bytes()).collect()
    };
    let key = pem("PRIVATE KEY", &keys.get(spec.key).pkcs8(), 64, "\n").into_bytes();
    [
        ("root-cert.pem", file(&spec.roots)),
        ("cert-chain.pem", file(&spec.chain)),
        ("ca-cert.pem", file(&spec.ca)),
        ("ca-key.pem", key),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}
