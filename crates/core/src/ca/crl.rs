//! `ca-crl.pem`: the revocation lists that istiod reads beside the four files, and gives to all proxies. istiod exits
//! where a certificate of `cert-chain.pem` has no list that it signed; Envoy, once it has lists, wants one of every CA
//! on the way to the root, and the root's own.

use jiff::Timestamp;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::bundle::MAX_BUNDLE;
use super::certificate::{Certificate, timestamp};
use super::der;
use super::flaw::{Flaw, Note};
use super::pem::{Der, Piece, Pieces};

const LABEL: &str = "X509 CRL";

/// Checks that the lists fit these CAs, each of which needs one.
///
/// # Errors
/// Why istiod would exit, or proxies refuse everybody.
pub(super) fn check(pem: &[u8], cas: &[&Certificate<'_>], now: Timestamp) -> Result<Vec<Note>, Flaw> {
    if pem.is_empty() {
        return Ok(vec![Note::CrlEmpty]);
    }
    let ders = read(pem)?;
    let lists = ders.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    for ca in cas {
        let of_ca: Vec<_> = lists.iter().filter(|list| is_by(list, ca)).collect();
        if of_ca.is_empty() {
            return Err(Flaw::CrlMissing(ca.at));
        }
        let revoked = cas.iter().find(|one| {
            ca.signed(one)
                && of_ca.iter().any(|list| {
                    list.iter_revoked_certificates().any(|entry| entry.raw_serial() == one.x509.raw_serial())
                })
        });
        if let Some(revoked) = revoked {
            return Err(Flaw::CrlRevokes(revoked.at));
        }
    }
    let begins = lists.iter().map(|list| timestamp(list.last_update()));
    if let Some(begin) = begins.max().filter(|begin| now < *begin) {
        return Err(Flaw::CrlNotYetValid(begin));
    }
    let ends = lists.iter().filter_map(CertificateRevocationList::next_update).map(timestamp);
    let ended = ends.min().filter(|end| now > *end);
    Ok(ended.map(Note::CrlOutdated).into_iter().collect())
}

fn read(pem: &[u8]) -> Result<Vec<Der>, Flaw> {
    let text = std::str::from_utf8(pem).ok().filter(|text| text.len() <= MAX_BUNDLE).ok_or(Flaw::CrlMalformed)?;
    let mut ders = Vec::new();
    for piece in Pieces::of(text) {
        match piece {
            Piece::Block(block) if block.label == LABEL => ders.push(block.decode().ok_or(Flaw::CrlMalformed)?),
            Piece::Text => {}
            Piece::Block(_) | Piece::Broken => return Err(Flaw::CrlMalformed),
        }
    }
    if ders.is_empty() { Err(Flaw::CrlMalformed) } else { Ok(ders) }
}

fn parse(der: &[u8]) -> Result<CertificateRevocationList<'_>, Flaw> {
    match CertificateRevocationList::from_der(der) {
        // Critical extensions say that a list is not of all of its issuer's certificates.
        Ok(([], list))
            if der::is_strict(der)
                && list.version() == Some(X509Version::V2)
                && list.signature_algorithm == list.tbs_cert_list.signature
                && list.extensions().iter().all(|extension| !extension.critical) =>
        {
            Ok(list)
        }
        _ => Err(Flaw::CrlMalformed),
    }
}

fn is_by(list: &CertificateRevocationList<'_>, ca: &Certificate<'_>) -> bool {
    let may_sign = ca.x509.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()));
    let algorithm = &list.signature_algorithm.algorithm;
    list.issuer().as_raw() == ca.x509.subject().as_raw()
        && may_sign
        && ca.verifies_bytes(algorithm, list.tbs_cert_list.as_ref(), &list.signature_value.data)
}
