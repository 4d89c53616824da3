//! Whether a certificate is one that istiod, Envoy, ztunnel and Go's peers all can read. Their parsers are of different
//! rigour in different places: what is let pass here is what the strictest of them lets pass.

use super::der::{self, BIT_STRING, BOOLEAN, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET};
use super::flaw::{At, Flaw};

/// Of what is read here, by their last arc beneath 2.5.29.
pub(super) mod id {
    pub(in crate::ca) const SUBJECT_KEY: u8 = 14;
    pub(in crate::ca) const KEY_USAGE: u8 = 15;
    pub(in crate::ca) const ALTERNATIVE_NAME: u8 = 17;
    pub(in crate::ca) const BASIC_CONSTRAINTS: u8 = 19;
    pub(in crate::ca) const NAME_CONSTRAINTS: u8 = 30;
    pub(in crate::ca) const CRL_POINTS: u8 = 31;
    pub(in crate::ca) const POLICIES: u8 = 32;
    pub(in crate::ca) const POLICY_MAPPINGS: u8 = 33;
    pub(in crate::ca) const AUTHORITY_KEY: u8 = 35;
    pub(in crate::ca) const POLICY_CONSTRAINTS: u8 = 36;
    pub(in crate::ca) const EXTENDED_KEY_USAGE: u8 = 37;
    pub(in crate::ca) const INHIBIT_ANY_POLICY: u8 = 54;
}

const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const PROXY_INFORMATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 14];
const NETSCAPE_TYPE: &[u8] = &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 1, 1];
const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0];

/// An extension, read.
pub(super) struct Extension<'a> {
    pub(super) oid: &'a [u8],
    pub(super) critical: bool,
    pub(super) value: &'a [u8],
}

impl Extension<'_> {
    /// The last arc of one beneath 2.5.29.
    pub(super) fn id(&self) -> Option<u8> {
        match self.oid {
            [0x55, 0x1d, id] => Some(*id),
            _ => None,
        }
    }
}

/// Checks a certificate's shape.
///
/// # Errors
/// What one consumer or the other cannot read.
pub(super) fn check<'a>(at: At, der: &'a [u8]) -> Result<Vec<Extension<'a>>, Flaw> {
    let malformed = Flaw::Malformed(at);
    // What is no certificate at all, in whatever encoding, is told from one that is not strict.
    if !matches!(x509_parser::parse_x509_certificate(der), Ok(([], _))) {
        return Err(malformed);
    }
    if !der::is_strict(der) {
        return Err(Flaw::NotDer(at));
    }
    let mut whole = der::only(der, SEQUENCE).map(Reader::new).ok_or(malformed.clone())?;
    let mut signed = whole.inside(SEQUENCE).ok_or(malformed.clone())?;
    check_version(at, &mut signed)?;
    let serial = signed.take(INTEGER).ok_or(malformed.clone())?;
    if serial[0] & 0x80 != 0 {
        return Err(Flaw::NegativeSerial(at));
    }
    let algorithm = signed.take(SEQUENCE).ok_or(malformed.clone())?;
    let issuer = signed.take(SEQUENCE).ok_or(malformed.clone())?;
    let validity = signed.take(SEQUENCE);
    let subject = signed.take(SEQUENCE).ok_or(malformed.clone())?;
    let key = signed.take(SEQUENCE);
    let has_validity = validity.is_some_and(|validity| Reader::new(validity).any().is_some());
    if !is_signed_by(algorithm, &mut whole) || !is_key(key) || !has_validity {
        return Err(malformed);
    }
    if !is_name(issuer) || !is_name(subject) {
        return Err(Flaw::Unreadable(at, "a string in its issuer or subject"));
    }
    if matches!(signed.peek(), Some(0x81 | 0x82)) {
        return Err(Flaw::Unreadable(at, "a unique identifier of its issuer or subject"));
    }
    let extensions = extensions(&mut signed).ok_or(Flaw::Unreadable(at, "a list of extensions"))?;
    if !signed.is_empty() {
        return Err(Flaw::Malformed(at));
    }
    match extensions.iter().find_map(fault) {
        Some(what) => Err(Flaw::Unreadable(at, what)),
        None => Ok(extensions),
    }
}

/// What follows the signed part: the algorithm again, and the signature.
fn is_signed_by(algorithm: &[u8], whole: &mut Reader<'_>) -> bool {
    let is_repeated = whole.take(SEQUENCE) == Some(algorithm);
    let signature = whole.take(BIT_STRING);
    is_repeated && is_algorithm(algorithm) && signature.is_some_and(|bits| bits[0] == 0) && whole.is_empty()
}

fn check_version(at: At, signed: &mut Reader<'_>) -> Result<(), Flaw> {
    let version = signed.optional(0xa0).ok_or(Flaw::Malformed(at))?;
    match version.map(|version| der::only(version, INTEGER)) {
        Some(Some([2])) => Ok(()),
        None => Err(Flaw::Version(at, 1)),
        Some(Some([1])) => Err(Flaw::Version(at, 2)),
        Some(_) => Err(Flaw::Malformed(at)),
    }
}

/// An OID, and perhaps one parameter.
fn is_algorithm(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    reader.take(OID).is_some() && (reader.is_empty() || reader.any().is_some() && reader.is_empty())
}

fn is_key(value: Option<&[u8]>) -> bool {
    let read = |value| {
        let mut reader = Reader::new(value);
        let algorithm = reader.take(SEQUENCE)?;
        let bits = reader.take(BIT_STRING)?;
        Some(is_algorithm(algorithm) && bits[0] == 0 && reader.is_empty())
    };
    value.and_then(read).unwrap_or(false)
}

/// A distinguished name of strings that Go reads.
pub(super) fn is_name(value: &[u8]) -> bool {
    every(value, |set| set.tag == SET && every_some(set.value, |pair| pair.tag == SEQUENCE && is_attribute(pair.value)))
}

fn is_attribute(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    let oid = reader.take(OID);
    let text = reader.any().and_then(|text| der::text(text.tag, text.value));
    oid.is_some() && text.is_some() && reader.is_empty()
}

fn every(value: &[u8], mut is_fine: impl FnMut(der::Element<'_>) -> bool) -> bool {
    let mut reader = Reader::new(value);
    while !reader.is_empty() {
        if !reader.any().is_some_and(&mut is_fine) {
            return false;
        }
    }
    true
}

fn every_some(value: &[u8], is_fine: impl FnMut(der::Element<'_>) -> bool) -> bool {
    !value.is_empty() && every(value, is_fine)
}

/// `None`: not a list of them, or one is there twice.
fn extensions<'a>(signed: &mut Reader<'a>) -> Option<Vec<Extension<'a>>> {
    let mut read: Vec<Extension<'a>> = Vec::new();
    let Some(list) = signed.optional(0xa3)? else { return Some(read) };
    let mut list = Reader::new(der::only(list, SEQUENCE)?);
    while !list.is_empty() {
        let mut extension = list.inside(SEQUENCE)?;
        let oid = extension.take(OID)?;
        let critical = extension.optional(BOOLEAN)?;
        let value = extension.take(OCTET_STRING)?;
        // DER leaves a default out: FALSE is never spelled.
        let is_fine = extension.is_empty() && critical != Some(&[0]) && read.iter().all(|other| other.oid != oid);
        is_fine.then(|| read.push(Extension { oid, critical: critical.is_some(), value }))?;
    }
    (!read.is_empty()).then_some(read)
}

/// What cannot be read of an extension, in words.
fn fault(extension: &Extension<'_>) -> Option<&'static str> {
    let Extension { oid, critical, value } = extension;
    let sequence = || der::only(value, SEQUENCE).filter(|_| der::is_strict(value));
    let list = |is_fine: fn(der::Element<'_>) -> bool| sequence().is_some_and(|value| every_some(value, is_fine));
    let (is_fine, what) = match extension.id() {
        Some(id::SUBJECT_KEY) => (!critical && der::only(value, OCTET_STRING).is_some(), "a subject key identifier"),
        Some(id::KEY_USAGE) => (is_key_usage(value), "a key usage"),
        Some(id::ALTERNATIVE_NAME) => (list(is_alternative_name), "an alternative name"),
        Some(id::BASIC_CONSTRAINTS) => (sequence().is_some_and(is_basic_constraints), "basic constraints"),
        Some(id::NAME_CONSTRAINTS) => (super::names::is_readable(value), "name constraints"),
        Some(id::CRL_POINTS) => (list(is_crl_point), "a place of revocation lists (CRL distribution point)"),
        Some(id::POLICIES) => (sequence().is_some_and(are_policies), "certificate policies"),
        Some(id::POLICY_MAPPINGS) => (list(is_mapping), "policy mappings"),
        Some(id::AUTHORITY_KEY) => (!critical && sequence().is_some_and(is_authority), "an authority key identifier"),
        Some(id::POLICY_CONSTRAINTS) => (sequence().is_some_and(are_policy_constraints), "policy constraints"),
        Some(id::EXTENDED_KEY_USAGE) => (list(|usage| usage.tag == OID), "an extended key usage"),
        Some(id::INHIBIT_ANY_POLICY) => (der::only(value, INTEGER).is_some_and(is_count), "a bound on policies"),
        _ if *oid == AUTHORITY_INFORMATION => (!critical && list(is_access), "information about its issuer"),
        _ if *oid == NETSCAPE_TYPE => {
            (der::only(value, BIT_STRING).is_some() && der::is_strict(value), "a Netscape type")
        }
        _ => (*oid != PROXY_INFORMATION, "the mark of a proxy certificate"),
    };
    (!is_fine).then_some(what)
}

fn is_key_usage(value: &[u8]) -> bool {
    let bits = der::only(value, BIT_STRING).filter(|_| der::is_strict(value));
    bits.is_some_and(|bits| (2..=3).contains(&bits.len()) && bits[1..].iter().any(|byte| *byte != 0))
}

/// Non-negative, and small enough for everybody.
fn is_count(value: &[u8]) -> bool {
    der::is_integer(value) && matches!(value, [0..=0x7f] | [0, 0x80..=0xff])
}

fn is_basic_constraints(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    let (Some(ca), Some(length)) = (reader.optional(BOOLEAN), reader.optional(INTEGER)) else { return false };
    ca != Some(&[0]) && length.is_none_or(is_count) && reader.is_empty() && (length.is_none() || ca.is_some())
}

fn is_crl_point(point: der::Element<'_>) -> bool {
    let mut reader = Reader::new(point.value);
    let read = |name: &[u8]| der::only(name, 0xa0).is_some_and(|names| every_some(names, is_general_name));
    let (Some(name), Some(reasons), Some(issuer)) =
        (reader.optional(0xa0), reader.optional(0x81), reader.optional(0xa2))
    else {
        return false;
    };
    let is_known = name.is_none_or(read) && issuer.is_none_or(|names| every_some(names, is_general_name));
    point.tag == SEQUENCE && is_known && reasons.is_none_or(|bits| !bits.is_empty()) && reader.is_empty()
}

fn are_policies(value: &[u8]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    every_some(value, |policy| {
        let mut reader = Reader::new(policy.value);
        let is_new = reader.take(OID).is_some_and(|oid| policy.tag == SEQUENCE && seen.insert(oid.to_vec()));
        if !is_new {
            return false;
        }
        let qualifiers = reader.optional(SEQUENCE);
        let is_qualifier = |qualifier: der::Element<'_>| {
            let mut reader = Reader::new(qualifier.value);
            qualifier.tag == SEQUENCE && reader.take(OID).is_some() && reader.any().is_some() && reader.is_empty()
        };
        qualifiers.is_some_and(|list| list.is_none_or(|list| every_some(list, is_qualifier))) && reader.is_empty()
    })
}

fn is_mapping(mapping: der::Element<'_>) -> bool {
    let mut reader = Reader::new(mapping.value);
    let mut policy = || reader.take(OID).is_some_and(|oid| oid != ANY_POLICY);
    mapping.tag == SEQUENCE && policy() && policy() && reader.is_empty()
}

fn are_policy_constraints(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    let (Some(explicit), Some(mapping)) = (reader.optional(0x80), reader.optional(0x81)) else { return false };
    let both = [explicit, mapping];
    both.iter().any(Option::is_some) && both.iter().flatten().all(|count| is_count(count)) && reader.is_empty()
}

fn is_authority(value: &[u8]) -> bool {
    let mut reader = Reader::new(value);
    let (Some(_), Some(issuer), Some(serial)) = (reader.optional(0x80), reader.optional(0xa1), reader.optional(0x82))
    else {
        return false;
    };
    issuer.is_none_or(|names| every_some(names, is_general_name))
        && serial.is_none_or(der::is_integer)
        && reader.is_empty()
}

fn is_access(access: der::Element<'_>) -> bool {
    let mut reader = Reader::new(access.value);
    let method = reader.take(OID);
    let place = reader.any().is_some_and(is_general_name);
    access.tag == SEQUENCE && method.is_some() && place && reader.is_empty()
}

/// A name of the certificate itself, which Go reads to the end.
fn is_alternative_name(name: der::Element<'_>) -> bool {
    is_general_name(name) && (name.tag != 0x86 || std::str::from_utf8(name.value).is_ok_and(is_plain_uri))
}

/// One of the kinds of name.
pub(super) fn is_general_name(name: der::Element<'_>) -> bool {
    match name.tag {
        // otherName: an OID, and anything, tagged.
        0xa0 => {
            let mut reader = Reader::new(name.value);
            reader.take(OID).is_some() && reader.take(0xa0).is_some() && reader.is_empty()
        }
        0x81 | 0x82 | 0x86 => name.value.is_ascii(),
        0x87 => matches!(name.value.len(), 4 | 16),
        0x88 => der::is_oid(name.value),
        0xa4 => der::only(name.value, SEQUENCE).is_some_and(is_name),
        _ => false,
    }
}

/// A URI that every parser reads alike: a scheme, perhaps a host with a port, and no character that needs thought.
fn is_plain_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._~:/?#=&+,;!$'()*@".contains(char);
    if !scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        || !scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
        || !rest.chars().all(is_plain)
    {
        return false;
    }
    let Some(rest) = rest.strip_prefix("//") else { return true };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "0"));
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char))
    };
    (host.is_empty() || host.split('.').all(is_label)) && port.chars().all(|char| char.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::bundle::{Bundle, ROOT_CERT};
    use super::super::check::check as strict_check;
    use super::super::fixtures::{self, Ca, now};
    use super::der::{
        BMP_STRING, GENERALIZED_TIME, IA5_STRING, NULL, NUMERIC_STRING, PRINTABLE_STRING, UTC_TIME, UTF8_STRING,
    };
    use super::*;

    const AT: At = At { file: ROOT_CERT, position: 1 };
    const ISSUER: usize = 3;
    const VALIDITY: usize = 4;
    const SUBJECT: usize = 5;
    const KEY: usize = 6;
    const EXTENSIONS: usize = 7;

    /// The verdict on a root whose parts were changed before it signed itself.
    fn verdict(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Result<(), Flaw> {
        let root = Ca::root("Root");
        let pem = fixtures::pem("CERTIFICATE", &fixtures::signed_anew(&root, change), 64, "\n").into_bytes();
        let bundle = Bundle { root_cert: pem.clone(), cert_chain: pem.clone(), ca_cert: pem, ..root.bundle() };
        strict_check(bundle, now()).map(|_| ())
    }

    fn patched(parts: &mut [Vec<u8>], part: usize, from: &[u8], to: &[u8]) {
        let at = parts[part].windows(from.len()).position(|window| window == from).unwrap();
        parts[part][at..at + from.len()].copy_from_slice(to);
    }

    #[test]
    fn a_root_that_is_signed_anew_is_sound() {
        assert_eq!(verdict(|_| ()), Ok(()));
    }

    #[test]
    fn ber_where_der_is_due_is_refused() {
        let is_lax = |verdict| matches!(verdict, Err(Flaw::NotDer(AT) | Flaw::Malformed(AT)));
        assert!(is_lax(verdict(|parts| patched(parts, EXTENSIONS, &[1, 1, 0xff], &[1, 1, 1]))));
        assert!(is_lax(verdict(|parts| parts[1] = vec![INTEGER, 2, 0, 1])));
        assert!(is_lax(verdict(|parts| {
            let length = parts[VALIDITY][1];
            parts[VALIDITY].splice(1..2, [0x81, length]);
        })));
        let until = der::element(GENERALIZED_TIME, &[b"20360101000000Z"]);
        for (tag, time) in [
            (GENERALIZED_TIME, b"20260101000000.5Z".as_slice()),
            (GENERALIZED_TIME, b"20260101000000+0000"),
            (UTC_TIME, b"2601010000Z"),
            (UTC_TIME, b"260101000000+0000"),
        ] {
            let from = der::element(tag, &[time]);
            assert!(is_lax(verdict(|parts| parts[VALIDITY] = der::element(SEQUENCE, &[&from, &until]))), "{time:?}");
        }
        // Signed by the key, and yet another kind of serial.
        assert_eq!(verdict(|parts| parts[1] = vec![INTEGER, 1, 0x80]), Err(Flaw::NegativeSerial(AT)));
        assert_eq!(verdict(|parts| parts[1] = vec![INTEGER, 1, 0]), Ok(()));
    }

    #[test]
    fn strings_that_go_cannot_read_are_refused() {
        let with = |tag, value: &[u8]| {
            let name = der::element(SEQUENCE, &[&der::element(OID, &[&[0x55, 4, 3]]), &der::element(tag, &[value])]);
            let name = der::element(SEQUENCE, &[&der::element(SET, &[&name])]);
            verdict(|parts| {
                parts[ISSUER].clone_from(&name);
                parts[SUBJECT] = name;
            })
        };
        for (tag, value) in [
            (PRINTABLE_STRING, b"a*b".as_slice()),
            (BMP_STRING, b"\0a"),
            (NUMERIC_STRING, b"1 2"),
            (IA5_STRING, b"a_b@c"),
        ] {
            assert_eq!(with(tag, value), Ok(()), "{tag:x}");
        }
        for (tag, value) in [
            (PRINTABLE_STRING, b"a_b".as_slice()),
            (PRINTABLE_STRING, b"a@b"),
            (IA5_STRING, b"\xe4"),
            (NUMERIC_STRING, b"a"),
            (BMP_STRING, b"a"),
            (BMP_STRING, b"\xd8\0"),
            (UTF8_STRING, b"\xff"),
            (0x1c, b"\0\0\0a"),
        ] {
            let flaw = with(tag, value).unwrap_err();
            assert!(
                matches!(flaw, Flaw::NotDer(AT) | Flaw::Malformed(AT) | Flaw::Unreadable(AT, _)),
                "{tag:x}: {flaw}"
            );
        }
        // Visible strings are fine elsewhere.
        assert_eq!(with(0x1a, b"a"), Err(Flaw::Unreadable(AT, "a string in its issuer or subject")));
    }

    #[test]
    fn parts_that_webpki_or_go_cannot_take_are_refused() {
        let identifier = verdict(|parts| parts.insert(EXTENSIONS, vec![0x81, 2, 0, 1]));
        assert_eq!(identifier, Err(Flaw::Unreadable(AT, "a unique identifier of its issuer or subject")));
        let version = verdict(|parts| drop(parts.remove(0)));
        assert_eq!(version, Err(Flaw::Version(AT, 1)));
        let compressed = verdict(|parts| {
            let at = parts[KEY].len() - 65;
            let point = parts[KEY].split_off(at);
            let mut short = vec![2 + (point[64] & 1)];
            short.extend_from_slice(&point[1..33]);
            let algorithm = parts[KEY][2..parts[KEY].len() - 3].to_vec();
            parts[KEY] = der::element(SEQUENCE, &[&algorithm, &der::element(BIT_STRING, &[&[0], &short])]);
        });
        assert_eq!(compressed, Err(Flaw::UnsupportedKey(AT)));
        let off_the_curve = verdict(|parts| *parts[KEY].last_mut().unwrap() ^= 1);
        assert_eq!(off_the_curve, Err(Flaw::UnsupportedKey(AT)));
    }

    #[test]
    fn a_null_behind_ecdsa_is_refused_where_somebody_verifies_it() {
        let root = Ca::root("Root");
        let ca = root.issue("CA");
        let der = fixtures::signed_anew_by(&root, &ca, |parts| {
            let oid = der::only(&parts[2], SEQUENCE).unwrap().to_vec();
            parts[2] = der::element(SEQUENCE, &[&oid, &der::element(NULL, &[])]);
        });
        let pem = fixtures::pem("CERTIFICATE", &der, 64, "\n").into_bytes();
        let bundle = Bundle { cert_chain: pem.clone(), ca_cert: pem, ..ca.bundle_under(&root) };
        let flaw = strict_check(bundle, now()).unwrap_err();
        assert_eq!(flaw, Flaw::UnsupportedSignature(At { file: "cert-chain.pem", position: 1 }));
    }

    #[test]
    fn a_critical_alternative_name_that_go_does_not_know_is_refused() {
        let directory = der::element(SEQUENCE, &[&der::element(0xa4, &[&der::element(SEQUENCE, &[])])]);
        for critical in [false, true] {
            let root = Ca::root_but("Root", |params| {
                let mut names = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], directory.clone());
                names.set_criticality(critical);
                params.custom_extensions.push(names);
            });
            let told = strict_check(root.bundle(), now()).map(|_| ());
            assert_eq!(told, if critical { Err(Flaw::CriticalExtension(AT, "2.5.29.17".to_owned())) } else { Ok(()) });
        }
    }

    #[test]
    fn extensions_that_go_cannot_read_are_refused() {
        let with = |id: u8, value: &[u8]| {
            let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, id.into()], value.to_vec());
            let root = Ca::root_but("Root", |params| {
                if id == id::BASIC_CONSTRAINTS {
                    params.is_ca = rcgen::IsCa::NoCa;
                }
                params.custom_extensions.push(extension);
            });
            strict_check(root.bundle(), now()).map(|_| ())
        };
        let name = |tag, value: &[u8]| der::element(SEQUENCE, &[&der::element(tag, &[value])]);
        let policy = der::element(SEQUENCE, &[&der::element(OID, &[&[42, 3]])]);
        for (id, value) in [
            (id::BASIC_CONSTRAINTS, vec![0x30, 3, 1, 1, 0xff]),
            (id::ALTERNATIVE_NAME, name(0x86, b"spiffe://cluster.local/ns/a")),
            (id::POLICIES, der::element(SEQUENCE, &[&policy])),
        ] {
            assert_eq!(with(id, &value), Ok(()), "{id}");
        }
        for (id, value, what) in [
            (id::BASIC_CONSTRAINTS, vec![0x30, 3, 1, 1, 1], "basic constraints"),
            (id::BASIC_CONSTRAINTS, vec![0x30, 5, 1, 1, 0xff, 5, 0], "basic constraints"),
            (id::BASIC_CONSTRAINTS, vec![0x30, 3, 1, 1, 0xff, 0], "basic constraints"),
            (id::ALTERNATIVE_NAME, name(0x86, b"http://[::1"), "an alternative name"),
            (id::ALTERNATIVE_NAME, name(0x87, &[1, 2, 3, 4, 5]), "an alternative name"),
            (id::ALTERNATIVE_NAME, name(0x82, b"\xe4"), "an alternative name"),
            (id::POLICIES, der::element(SEQUENCE, &[&policy, &policy]), "certificate policies"),
        ] {
            let flaw = with(id, &value).unwrap_err();
            assert!(flaw == Flaw::Unreadable(AT, what) || flaw == Flaw::Malformed(AT), "{id}: {flaw}");
        }
    }

    #[test]
    fn plain_uris_are_read_and_others_are_not() {
        for plain in ["spiffe://cluster.local/ns/a/sa/b", "urn:uuid:1-2", "ldap:///CN=a,DC=b?c", "http://a.b:80/x?y=z"]
        {
            assert!(is_plain_uri(plain), "{plain}");
        }
        for odd in [
            "",
            "a",
            ":",
            "http://a b",
            "http://[::1]/",
            "http://u@h/",
            "http://h./",
            "http://a..b",
            "h://a:b",
            "a:%zz",
            "1:a",
        ] {
            assert!(!is_plain_uri(odd), "{odd}");
        }
    }

    #[test]
    fn counts_are_of_one_octet() {
        for count in [[0].as_slice(), &[0x7f], &[0, 0xff]] {
            assert!(is_count(count), "{count:?}");
        }
        for other in [[].as_slice(), &[0x80], &[0, 1], &[1, 0], &[0, 0x80, 0]] {
            assert!(!is_count(other), "{other:?}");
        }
    }
}
