//! The strict check: whether istiod and every peer of its workloads can use a bundle, by itself and in what istiod signs
//! with it. Refused is what one of them refuses: istiod's own start (Go), Envoy (BoringSSL, with partial chains), ztunnel
//! (webpki), peers in Go. Accepted is what all of them accept, with a note where it is unusual.
//!
//! - Each certificate of the files has to be one that all of them can read (`shape`).
//! - Each way that a peer may take from a workload to a root has to hold (`path`), names included
//!   (`names`). What no way needs may be of no use: a note.
//! - Two certificates are signed on trial, and verified (`trial`).
//! - What istiod reads beside the four files has to fit (`crl`).

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::bundle::{Bundle, CA_CERT, CA_CRT, CERT_CHAIN, Glance, KeyPem, MAX_CERTIFICATES, ROOT_CERT, TLS_CRT};
use super::certificate::Certificate;
pub use super::flaw::{At, Flaw, Garble, Note, Until};
use super::path::{self, Files, Path};
use super::pem::{Block, Certificates, Der, Piece, Pieces, certificates, garble};
use super::signer::SigningCa;
use super::{Sha256, crl, der, trial};

/// A bundle that passed the strict check.
#[derive(Clone, Debug)]
pub struct Sound {
    /// The files, with the key.
    pub bundle: Arc<Bundle>,
    facts: Arc<Facts>,
}

/// What is known of a sound bundle. It has none of its files, so it may be kept: the key stays in memory no longer than
/// it is at work.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The trusted certificate that `ca-cert.pem` chains to.
    pub root: Sha256,
    /// What signs: the first certificate of `ca-cert.pem`.
    pub signing_ca: SigningCa,
    /// For people; its roots are those of `root-cert.pem`.
    pub glance: Glance,
    /// Before this, a certificate that matters is not valid yet.
    pub valid_from: Timestamp,
    /// After this, the check refuses.
    pub usable_until: Until,
    /// What is unusual about it, and does no harm.
    pub notes: Vec<Note>,
    /// The certificates of `root-cert.pem`, `cert-chain.pem` and `ca-cert.pem`, in their order.
    certificates: [Vec<Sha256>; 3],
}

impl Deref for Sound {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl Sound {
    /// What may be kept of it.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Whether they are the same bytes, file by file.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.bundle.same_files(&other.bundle)
    }

    /// Whether istiod could use it in a Secret that has these revocation lists.
    ///
    /// # Errors
    /// Why not.
    pub fn check_beside(&self, crl: &[u8]) -> Result<(), Flaw> {
        let mut with = Bundle::clone(&self.bundle);
        with.beside.crl = Some(crl.to_vec());
        // A moment at which it is valid: whether it is so now is not asked here.
        check(with, self.valid_from).map(|_| ())
    }
}

impl Facts {
    /// All of `root-cert.pem`.
    pub fn roots(&self) -> &BTreeSet<Sha256> {
        &self.glance.roots
    }

    /// The notes in words, to be put behind others.
    pub fn remarks(&self) -> String {
        self.notes.iter().map(|note| format!("; note: {note}")).collect()
    }

    /// Whether the signing CA is the root itself, and not one beneath it.
    pub fn signs_with_the_root(&self) -> bool {
        self.certificates[2].first() == Some(&self.root)
    }

    /// Whether workloads under the two trust each other.
    pub fn same_roots(&self, other: &Self) -> bool {
        self.roots() == other.roots()
    }

    /// Whether they are the same certificates, file by file and in order, and the same key, whatever
    /// the bytes. In a sound bundle the key is that of `ca-cert.pem`, so it need not be looked at.
    pub fn same_ca(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// The strict check. Pure but for the randomness of an ECDSA signature, of which nothing is seen. Its cost is bounded by
/// the sizes: each certificate is read once, each root's own signature is verified once, and two are signed.
pub fn check(bundle: Bundle, now: Timestamp) -> Result<Sound, Flaw> {
    bundle.check_size()?;
    let mut notes = Vec::new();
    let read = Read::of(&bundle, &mut notes)?;
    let facts = facts(&bundle, &parse(&read.roots)?, &parse(&read.chain)?, &parse(&read.ca)?, notes, now)?;
    Ok(Sound { bundle: Arc::new(bundle), facts: Arc::new(facts) })
}

fn facts(
    bundle: &Bundle,
    roots: &[Certificate<'_>],
    chain: &[Certificate<'_>],
    ca: &[Certificate<'_>],
    mut notes: Vec<Note>,
    now: Timestamp,
) -> Result<Facts, Flaw> {
    let (Some(first_root), Some(signing)) = (roots.first(), ca.first()) else {
        return Err(Flaw::NoPath);
    };
    if let Some(damaged) = roots.iter().find(|root| root.is_damaged()) {
        return Err(Flaw::Damaged(damaged.at));
    }
    let paths = Files { roots, chain, ca: signing }.paths()?;
    let needed = needed(&paths, signing);
    needed.iter().try_for_each(|one| one.check_time(now))?;
    let key = signing_key(&bundle.ca_key)?;
    if key.public_key().is_none_or(|public| public.as_ref() != signing.x509.public_key().raw) {
        return Err(Flaw::KeyMismatch);
    }
    trial::run(&*key, signing, chain, roots, now)?;
    if let Some(lists) = bundle.beside.crl.as_ref().filter(|_| !bundle.beside.tls) {
        notes.extend(check_lists(lists, roots, chain, &needed, now)?);
    }
    notes.extend(remarks(roots, chain, &needed, now));
    let prints = |file: &[Certificate<'_>]| file.iter().map(|one| one.sha256).collect();
    let ends = needed.iter().map(|one| Until { at: one.valid_until(), by: one.at });
    Ok(Facts {
        root: paths.first().and_then(|path| path::end(path)).map_or(signing.sha256, |end| end.sha256),
        signing_ca: SigningCa::of(signing),
        glance: Glance::of(&first_root.x509, roots.iter().map(|root| root.sha256).collect()),
        valid_from: needed.iter().map(|one| one.valid_from()).max().unwrap_or(Timestamp::MAX),
        usable_until: ends.min_by_key(|until| until.at).unwrap_or(Until { at: Timestamp::MIN, by: signing.at }),
        notes,
        certificates: [prints(roots), prints(chain), prints(ca)],
    })
}

/// The revocation lists beside the four files.
fn check_lists(
    lists: &[u8],
    roots: &[Certificate<'_>],
    chain: &[Certificate<'_>],
    needed: &[&Certificate<'_>],
    now: Timestamp,
) -> Result<Vec<Note>, Flaw> {
    // OpenSSL stops at the first that is trusted.
    let part = roots.iter().find(|root| !root.is_self_issued() && needed.iter().any(|one| one.sha256 == root.sha256));
    if let Some(part) = part.filter(|_| !lists.is_empty()) {
        return Err(Flaw::CrlOfPart(part.at));
    }
    let cas: Vec<_> = needed.iter().copied().chain(chain).collect();
    crl::check(lists, &cas, now)
}

/// The files' blocks, each with its place.
struct Read {
    roots: Vec<(At, Der)>,
    chain: Vec<(At, Der)>,
    ca: Vec<(At, Der)>,
}

impl Read {
    fn of(bundle: &Bundle, notes: &mut Vec<Note>) -> Result<Self, Flaw> {
        let mut read = |file, pem: &[u8], most| {
            let Certificates { ders, has_text } = certificates(file, pem, most)?;
            notes.extend(has_text.then_some(Note::Text(file)));
            let places = (1..).map(move |position| At { file, position });
            Ok(places.zip(ders).collect::<Vec<_>>())
        };
        if bundle.beside.tls {
            let (roots, ca) =
                (read(CA_CRT, &bundle.root_cert, usize::MAX)?, read(TLS_CRT, &bundle.ca_cert, MAX_CERTIFICATES)?);
            if !bundle.ca_cert.ends_with(b"\n") {
                return Err(Flaw::Garbled(TLS_CRT, Garble::NoLastLine));
            }
            notes.push(Note::Tls);
            return Ok(Self { chain: ca.iter().chain(&roots).cloned().collect(), roots, ca });
        }
        // In this order: where Vault's record has no ca-cert.pem, its cert-chain.pem is named.
        let roots = read(ROOT_CERT, &bundle.root_cert, usize::MAX)?;
        let has_chain = !bundle.cert_chain.is_empty();
        let chain = if has_chain { read(CERT_CHAIN, &bundle.cert_chain, MAX_CERTIFICATES)? } else { Vec::new() };
        let ca = read(CA_CERT, &bundle.ca_cert, MAX_CERTIFICATES)?;
        notes.extend((!has_chain).then_some(Note::NoChain));
        Ok(Self { roots, chain, ca })
    }
}

fn parse(ders: &[(At, Der)]) -> Result<Vec<Certificate<'_>>, Flaw> {
    ders.iter().map(|(at, der)| Certificate::parse(*at, der)).collect()
}

/// All that somebody needs, each once. Only the end of one of these closes the gate.
fn needed<'a>(paths: &[Path<'a>], signing: &'a Certificate<'a>) -> Vec<&'a Certificate<'a>> {
    let mut needed: Vec<&Certificate<'_>> = Vec::new();
    for one in paths.iter().flatten().copied().chain([signing]) {
        if !needed.iter().any(|other| other.sha256 == one.sha256) {
            needed.push(one);
        }
    }
    needed
}

/// What people are told of certificates that are fine, or that nothing needs.
fn remarks(
    roots: &[Certificate<'_>],
    chain: &[Certificate<'_>],
    needed: &[&Certificate<'_>],
    now: Timestamp,
) -> Vec<Note> {
    let mut notes = Vec::new();
    notes.extend((roots.len() > MAX_CERTIFICATES).then_some(Note::ManyRoots(roots.len())));
    notes.extend(roots.iter().filter(|root| !root.is_self_issued()).map(|root| Note::NotSelfSigned(root.at)));
    notes.extend(needed.iter().filter(|one| one.has_critical_policies()).map(|one| Note::Policies(one.at)));
    let is_in = |file: &[&Certificate<'_>], one: &Certificate<'_>| file.iter().any(|other| other.sha256 == one.sha256);
    let mut told = needed.to_vec();
    for (one, is_root) in roots.iter().map(|one| (one, true)).chain(chain.iter().map(|one| (one, false))) {
        if is_in(&told, one) {
            continue;
        }
        told.push(one);
        match one.check_time(now).and_then(|()| one.check_ca(is_root)) {
            Err(Flaw::Expired(at, end)) => notes.push(Note::Expired(at, end)),
            Err(Flaw::NotYetValid(at, from)) => notes.push(Note::NotYetValid(at, from)),
            Err(flaw) => notes.push(Note::Unusable(one.at, Box::new(flaw))),
            Ok(()) => {}
        }
    }
    notes
}

/// The key of the first PEM block of a key's file, which is what istiod reads of it: text before it and anything behind
/// it do not count. aws-lc wipes it when it is dropped.
fn signing_key(key: &KeyPem) -> Result<Arc<dyn SigningKey>, Flaw> {
    let malformed = || garble(key.expose()).map_or(Flaw::KeyMalformed, |how| Flaw::Garbled("the private key", how));
    let text = std::str::from_utf8(key.expose()).map_err(|_| malformed())?;
    let Some(Piece::Block(block)) = Pieces::of(text).find(|piece| *piece != Piece::Text) else {
        return Err(malformed());
    };
    if is_encrypted(&block) {
        return Err(Flaw::KeyEncrypted);
    }
    let der = block.decode().ok_or(Flaw::KeyMalformed)?;
    if !is_as_labelled(block.label, &der) {
        return Err(Flaw::KeyMalformed);
    }
    let key = match block.label {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.as_slice().into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.as_slice().into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.as_slice().into()),
        _ => return Err(Flaw::KeyMalformed),
    };
    any_supported_type(&key).map_err(|_| Flaw::KeyMalformed)
}

/// Go goes by the label, where others look at what is there.
fn is_as_labelled(label: &str, der: &[u8]) -> bool {
    let second = match label {
        "EC PRIVATE KEY" => der::OCTET_STRING,
        "RSA PRIVATE KEY" => der::INTEGER,
        _ => der::SEQUENCE,
    };
    let mut reader = der::Reader::new(der::Reader::new(der).take(der::SEQUENCE).unwrap_or_default());
    reader.take(der::INTEGER).is_some() && reader.peek() == Some(second)
}

fn is_encrypted(block: &Block<'_>) -> bool {
    block.label == "ENCRYPTED PRIVATE KEY" || block.body.lines().any(|line| line.starts_with("Proc-Type:"))
}

#[cfg(test)]
mod tests;
