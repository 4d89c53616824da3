//! PEM files that nobody has checked, read for the fingerprints in them: what is compared is read
//! whole or not at all, since two files that are equal up to a broken block may differ behind it.

use std::collections::BTreeSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Sha256;
use super::bundle::{Glance, MAX_BUNDLE, MAX_CERTIFICATE};
use super::pem::{Block, Der, Piece, Pieces};

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Larger than any trust bundle.
    TooLarge,
    /// No block of a certificate in it.
    NoCertificate,
    /// Something other than certificates in it: a key, perhaps.
    NotOnlyCertificates,
    /// The block at this position, counted from one, is not a certificate's.
    Malformed(usize),
}

impl Unreadable {
    /// In words, with the name of the file.
    pub fn of(self, file: &str) -> String {
        match self {
            Self::TooLarge => format!("{file} is larger than {MAX_BUNDLE} bytes"),
            Self::NoCertificate => format!("no CERTIFICATE block in {file}"),
            Self::NotOnlyCertificates => format!("PEM blocks other than certificates in {file}"),
            Self::Malformed(position) => format!("block {position} of {file} is not a certificate that can be read"),
        }
    }
}

/// All certificates of a file. Text around the blocks is skipped, and nothing else.
///
/// # Errors
/// Why not all of it can be read.
pub fn roots(pem: &[u8]) -> Result<Glance, Unreadable> {
    let mut ders = Vec::new();
    for (index, piece) in blocks(pem)?.enumerate() {
        let position = index + 1;
        match piece {
            Piece::Block(block) if block.label == "CERTIFICATE" => ders.push(der(&block, position)?),
            Piece::Block(_) => return Err(Unreadable::NotOnlyCertificates),
            Piece::Broken | Piece::Text => return Err(Unreadable::Malformed(position)),
        }
    }
    let mut first = None;
    for (index, der) in ders.iter().enumerate() {
        let certificate = x509(der, index + 1)?;
        first.get_or_insert(certificate);
    }
    let first = first.ok_or(Unreadable::NoCertificate)?;
    Ok(Glance::of(&first, ders.iter().map(|der| Sha256::of(der)).collect()))
}

/// The first certificate of a file, as openssl takes it: keys and text before it are skipped.
///
/// # Errors
/// Why there is none.
pub fn first(pem: &[u8]) -> Result<Glance, Unreadable> {
    for (index, piece) in blocks(pem)?.enumerate() {
        match piece {
            Piece::Block(block) if block.label == "CERTIFICATE" => {
                let der = der(&block, index + 1)?;
                return Ok(Glance::of(&x509(&der, index + 1)?, BTreeSet::from([Sha256::of(&der)])));
            }
            Piece::Block(_) | Piece::Text => {}
            Piece::Broken => return Err(Unreadable::Malformed(index + 1)),
        }
    }
    Err(Unreadable::NoCertificate)
}

/// The block of this certificate, as it stands in a file that can be read.
pub fn block_of(pem: &[u8], sha256: Sha256) -> Option<&str> {
    blocks(pem).ok()?.find_map(|piece| match piece {
        Piece::Block(block) => block.decode().filter(|der| Sha256::of(der) == sha256).map(|_| block.text),
        Piece::Broken | Piece::Text => None,
    })
}

fn blocks(pem: &[u8]) -> Result<impl Iterator<Item = Piece<'_>>, Unreadable> {
    if pem.len() > MAX_BUNDLE {
        return Err(Unreadable::TooLarge);
    }
    // What is not text is not PEM, but perhaps DER.
    let text = std::str::from_utf8(pem).map_err(|_| Unreadable::NoCertificate)?;
    Ok(Pieces::of(text).filter(|piece| *piece != Piece::Text))
}

fn der(block: &Block<'_>, position: usize) -> Result<Der, Unreadable> {
    let sized = block.text.len() <= MAX_CERTIFICATE;
    sized.then(|| block.decode()).flatten().ok_or(Unreadable::Malformed(position))
}

fn x509(der: &Der, position: usize) -> Result<X509Certificate<'_>, Unreadable> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unreadable::Malformed(position)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::fixtures::{Ca, pem};
    use super::*;

    fn ca(name: &str) -> String {
        Ca::root(name).certificate.pem()
    }

    fn key() -> String {
        Ca::root("other").key.serialize_pem()
    }

    #[test]
    fn all_certificates_of_a_file_are_taken_and_the_first_is_shown() {
        let (one, two) = (ca("one"), ca("two"));
        let both = roots(format!("{one}{two}").as_bytes()).unwrap();
        assert_eq!(both.sha256, roots(one.as_bytes()).unwrap().sha256);
        assert_eq!((both.roots.len(), both.subject.as_str()), (2, "CN=one"));
        assert_eq!(both.roots, roots(format!("{two}{one}").as_bytes()).unwrap().roots);
    }

    #[test]
    fn text_around_certificates_is_skipped() {
        let one = ca("one");
        let told = format!("subject=CN = one\n{one}\nthe end\n");
        assert_eq!(roots(told.as_bytes()), roots(one.as_bytes()));
        assert_eq!(first(told.as_bytes()), first(one.as_bytes()));
        assert_eq!(roots(one.replace('\n', "\r\n").as_bytes()), roots(one.as_bytes()));
    }

    #[test]
    fn what_is_behind_a_broken_block_is_not_left_out_of_a_comparison() {
        let (one, two) = (ca("one"), ca("two"));
        let broken = format!("{one}{}{two}", two.replace("-----END", "----END"));
        assert_eq!(roots(broken.as_bytes()), Err(Unreadable::Malformed(2)));
        let garbage = format!("{one}{}{two}", pem("CERTIFICATE", b"4711", 64, "\n"));
        assert_eq!(roots(garbage.as_bytes()), Err(Unreadable::Malformed(2)));
        let trailing = [Ca::root("one").certificate.der().as_ref(), &[0]].concat();
        assert_eq!(roots(pem("CERTIFICATE", &trailing, 64, "\n").as_bytes()), Err(Unreadable::Malformed(1)));
    }

    #[test]
    fn a_file_with_a_key_in_it_is_no_trust_bundle_but_has_a_first_certificate() {
        let one = ca("one");
        let pair = format!("{}{one}", key());
        assert_eq!(roots(pair.as_bytes()), Err(Unreadable::NotOnlyCertificates));
        assert_eq!(first(pair.as_bytes()), first(one.as_bytes()));
    }

    #[test]
    fn the_first_certificate_is_the_only_one_that_counts() {
        let (one, two) = (ca("one"), ca("two"));
        assert_eq!(first(format!("{one}{two}garbage").as_bytes()), first(one.as_bytes()));
        let malformed = format!("{}{one}", pem("CERTIFICATE", b"4711", 64, "\n"));
        assert_eq!(first(malformed.as_bytes()), Err(Unreadable::Malformed(1)));
    }

    #[test]
    fn a_file_without_a_certificate_says_so() {
        for none in [b"".as_slice(), b"4711", key().as_bytes(), Ca::root("one").certificate.der()] {
            assert_eq!(first(none), Err(Unreadable::NoCertificate));
        }
        assert_eq!(roots(b"4711"), Err(Unreadable::NoCertificate));
        assert_eq!(Unreadable::NoCertificate.of("a.pem"), "no CERTIFICATE block in a.pem");
    }

    #[test]
    fn sizes_are_capped() {
        assert!(roots(ca("one").repeat(100).as_bytes()).is_ok());
        assert_eq!(roots(&vec![b' '; MAX_BUNDLE + 1]), Err(Unreadable::TooLarge));
        assert_eq!(first(&vec![b' '; MAX_BUNDLE + 1]), Err(Unreadable::TooLarge));
        let large = pem("CERTIFICATE", &[7; MAX_CERTIFICATE], 64, "\n");
        assert_eq!(first(large.as_bytes()), Err(Unreadable::Malformed(1)));
    }
}
