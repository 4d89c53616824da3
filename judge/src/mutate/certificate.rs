//! Fields and extensions that are other than they should be, each well encoded unless it says so.

use fastrand::Rng;

use crate::der::{TRUE, oid, seq, tlv};
use crate::make::{Digest, Extension, Keys, Kind, name, time};
use crate::shapes::{AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, DAY, KEY_USAGE, SUBJECT_KEY_ID, Spec, key_id, pick};

const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";

pub(super) fn field(rng: &mut Rng, keys: &Keys, spec: &mut Spec, target: usize) -> String {
    match rng.u8(0..7) {
        0 => serial(rng, spec, target),
        1 | 2 => validity(rng, spec, target),
        3 => subject(rng, spec, target),
        4 => key(rng, keys, spec, target),
        5 => algorithm(rng, spec, target),
        _ => rest(rng, spec, target),
    }
}

fn serial(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let (what, serial): (&str, Vec<u8>) = match rng.u8(0..6) {
        0 => ("zero", vec![0]),
        1 => ("negative", vec![0x80, 1]),
        2 => ("of 20 octets", vec![0x7f; 20]),
        3 => ("of 21 octets", [&[0], &[0xff; 20][..]].concat()),
        4 => ("of 40 octets", vec![0x11; 40]),
        _ => ("one", vec![1]),
    };
    spec.certs[target].serial = serial;
    format!("serial {what}")
}

fn validity(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let now = spec.now;
    let utc = |text: &str| tlv(0x17, text.as_bytes());
    let general = |text: &str| tlv(0x18, text.as_bytes());
    let (what, from, until) = match rng.u8(0..14) {
        0 => ("expired", time(now - 400 * DAY), time(now - DAY)),
        1 => ("not yet", time(now + DAY), time(now + 400 * DAY)),
        2 => ("ends within an hour", time(now - DAY), time(now + 3600)),
        3 => ("ends within the skew", time(now - DAY), time(now - 60)),
        4 => ("begins within the skew", time(now + 120), time(now + DAY)),
        5 => ("ends after 9999", time(now - DAY), general("99991231235959Z")),
        6 => ("of year 2049", time(now - DAY), utc("491231235959Z")),
        7 => ("generalized before 2050", time(now - DAY), general("20450101000000Z")),
        8 => ("with an offset", time(now - DAY), utc("450101000000+0000")),
        9 => ("without seconds", time(now - DAY), utc("4501010000Z")),
        10 => ("with a fraction", time(now - DAY), general("20600101000000.5Z")),
        11 => ("of a day that is none", time(now - DAY), utc("450230000000Z")),
        12 => ("of 1951", utc("510101000000Z"), time(now + DAY)),
        _ => ("turned round", time(now + 400 * DAY), time(now - 400 * DAY)),
    };
    spec.certs[target].validity = [from, until];
    format!("validity {what}")
}

fn subject(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let common = |tag: u8, value: &[u8]| name(&[("2.5.4.3", tag, value)]);
    let (what, subject) = match rng.u8(0..14) {
        0 => ("empty", name(&[])),
        1 => ("Printable", common(0x13, b"Root CA")),
        2 => ("Printable with _", common(0x13, b"root_ca")),
        3 => ("Printable with @", common(0x13, b"root@ca")),
        4 => ("Printable with *", common(0x13, b"*.root")),
        5 => ("Teletex", common(0x14, b"R\xf6\xf6t")),
        6 => ("BMP", common(0x1e, &[0, b'R', 0, b'o'])),
        7 => ("BMP of odd length", common(0x1e, &[0, b'R', 0])),
        8 => ("Universal", common(0x1c, &[0, 0, 0, b'R'])),
        9 => ("Numeric", common(0x12, b"12 34")),
        10 => ("IA5 beyond ASCII", common(0x16, b"R\xf6t")),
        11 => ("UTF-8 that is none", common(0x0c, b"R\xf6t")),
        12 => ("with a long value", common(0x0c, &[b'x'; 700])),
        _ => {
            // Two CAs of one name.
            let other = rng.usize(0..spec.certs.len());
            ("that of another", spec.certs[other].subject.clone())
        }
    };
    spec.certs[target].subject = subject;
    format!("subject {what}")
}

fn key(rng: &mut Rng, keys: &Keys, spec: &mut Spec, target: usize) -> String {
    if rng.u8(0..4) == 0 {
        return public_key(rng, keys, spec, target);
    }
    let odd = keys.of(|kind| matches!(kind, Kind::Odd(_)));
    let key = *pick(rng, &odd);
    let Kind::Odd(name) = keys.kind(key) else { return "key".to_owned() };
    spec.certs[target].key = key;
    if spec.ca[0] == target {
        spec.key = key;
    }
    set(spec, target, SUBJECT_KEY_ID, Some(tlv(0x04, &key_id(keys, key))));
    for one in 0..spec.certs.len() {
        let issuing = spec.certs[one].issuer.map_or(spec.certs[one].key, |issuer| spec.certs[issuer].key);
        if issuing == key {
            set(spec, one, AUTHORITY_KEY_ID, Some(seq(&[tlv(0x80, &key_id(keys, key))])));
            if name == "ed25519" {
                spec.certs[one].digest = Digest::None;
            }
        }
    }
    format!("key {name}")
}

/// The key itself is right, its description is not.
fn public_key(rng: &mut Rng, keys: &Keys, spec: &mut Spec, target: usize) -> String {
    let good = keys.get(spec.certs[target].key).public();
    let is_rsa = keys.get(spec.certs[target].key).is_rsa();
    let bits = good.len();
    let (what, spki) = match rng.u8(0..3) {
        0 if is_rsa => {
            // Without the NULL: rsaEncryption wants one.
            let null = [0x05, 0x00];
            let at = good.windows(2).position(|two| two == null).unwrap_or(0);
            let key = tlv(0x03, good[at + 2..].split_at(4).1);
            ("without parameters", seq(&[seq(&[oid("1.2.840.113549.1.1.1")]), key]))
        }
        1 if !is_rsa => {
            let point = &good[bits - 64..];
            let compressed = [&[0, 2 + (point[63] & 1)], &point[..32]].concat();
            let algorithm = seq(&[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")]);
            ("compressed", seq(&[algorithm, tlv(0x03, &compressed)]))
        }
        _ => ("cut", good[..bits - 3].to_vec()),
    };
    spec.certs[target].spki = Some(spki);
    format!("public key {what}")
}

fn algorithm(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let cert = &mut spec.certs[target];
    let ecdsa = "1.2.840.10045.4.3.2";
    match rng.u8(0..5) {
        0 => {
            cert.digest = Digest::Sha1;
            "signed with SHA-1".to_owned()
        }
        1 => {
            cert.digest = Digest::Md5;
            "signed with MD5".to_owned()
        }
        2 => {
            let null = seq(&[oid(ecdsa), vec![5, 0]]);
            cert.algorithms = [Some(null.clone()), Some(null)];
            "ECDSA with NULL parameters".to_owned()
        }
        3 => {
            cert.algorithms[rng.usize(0..2)] = Some(seq(&[oid("1.2.840.113549.1.1.12"), vec![5, 0]]));
            "two algorithms".to_owned()
        }
        _ => {
            cert.broken_signature = true;
            "a broken signature".to_owned()
        }
    }
}

fn rest(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let cert = &mut spec.certs[target];
    match rng.u8(0..7) {
        0 => {
            cert.version = Vec::new();
            cert.extensions.clear();
            "X.509 v1".to_owned()
        }
        1 => {
            cert.version = Vec::new();
            "X.509 v1 with extensions".to_owned()
        }
        2 => {
            cert.version = tlv(0xa0, &tlv(0x02, &[1]));
            "X.509 v2".to_owned()
        }
        3 => {
            cert.unique_ids = tlv(0x81, &[0, 1, 2]);
            "issuerUniqueID".to_owned()
        }
        4 => {
            cert.unique_ids = tlv(0x82, &[0, 1, 2]);
            "subjectUniqueID".to_owned()
        }
        5 => {
            cert.trailing = vec![0; rng.usize(1..4)];
            "trailing bytes".to_owned()
        }
        _ => {
            cert.issuer_name = Some(name(&[("2.5.4.3", 0x0c, b"Somebody else")]));
            "another issuer's name".to_owned()
        }
    }
}

pub(super) fn extension(rng: &mut Rng, keys: &Keys, spec: &mut Spec, target: usize) -> String {
    match rng.u8(0..12) {
        0 | 1 => basic_constraints(rng, spec, target),
        2 => key_usage(rng, spec, target),
        3 => extended_key_usage(rng, spec, target),
        4..7 => name_constraints(rng, spec, target),
        7 => alternative_names(rng, spec, target),
        8 => key_ids(rng, keys, spec, target),
        9 => policies(rng, spec, target),
        _ => other(rng, spec, target),
    }
}

/// Sets an extension's value, or takes the extension away.
fn set(spec: &mut Spec, target: usize, dotted: &str, value: Option<Vec<u8>>) {
    let id = oid(dotted);
    let extensions = &mut spec.certs[target].extensions;
    match (value, extensions.iter_mut().find(|extension| extension.oid == id)) {
        (Some(value), Some(there)) => there.value = value,
        (Some(value), None) => extensions.push(Extension::new(dotted, false, value)),
        (None, _) => extensions.retain(|extension| extension.oid != id),
    }
}

fn add(rng: &mut Rng, spec: &mut Spec, target: usize, dotted: &str, value: Vec<u8>, may_be_critical: bool) -> String {
    let critical = may_be_critical && rng.bool();
    spec.certs[target].extensions.push(Extension::new(dotted, critical, value));
    if critical { "critical " } else { "" }.to_owned()
}

fn basic_constraints(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let ca = |rest: Vec<u8>| Some(seq(&[TRUE.to_vec(), rest]));
    let (what, value) = match rng.u8(0..11) {
        0 => ("absent", None),
        1 => ("CA:FALSE by absence", Some(seq(&[]))),
        2 => ("CA:FALSE by value", Some(seq(&[vec![1, 1, 0]]))),
        3 => ("CA:TRUE as 01", Some(seq(&[vec![1, 1, 1]]))),
        4 => ("path length 0", ca(tlv(2, &[0]))),
        5 => ("path length 1", ca(tlv(2, &[1]))),
        6 => ("path length 2", ca(tlv(2, &[2]))),
        7 => ("path length negative", ca(tlv(2, &[0xff]))),
        8 => ("path length huge", ca(tlv(2, &[0x7f; 9]))),
        9 => ("trailing bytes", Some([seq(&[TRUE.to_vec()]), vec![0]].concat())),
        _ => ("path length without CA", Some(seq(&[tlv(2, &[0])]))),
    };
    set(spec, target, BASIC_CONSTRAINTS, value);
    format!("basicConstraints {what}")
}

fn key_usage(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let (what, value) = match rng.u8(0..6) {
        0 => ("absent", None),
        1 => ("without keyCertSign", Some(vec![3, 2, 1, 0x82])),
        2 => ("keyCertSign alone", Some(vec![3, 2, 2, 0x04])),
        3 => ("empty", Some(vec![3, 1, 0])),
        4 => ("with unused bits set", Some(vec![3, 2, 1, 0x87])),
        _ => ("not minimal", Some(vec![3, 3, 0, 0x86, 0])),
    };
    set(spec, target, KEY_USAGE, value);
    format!("keyUsage {what}")
}

fn extended_key_usage(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let any = "2.5.29.37.0";
    let (what, usages): (&str, &[&str]) = match rng.u8(0..7) {
        0 => ("both", &[SERVER_AUTH, CLIENT_AUTH]),
        1 => ("server", &[SERVER_AUTH]),
        2 => ("client", &[CLIENT_AUTH]),
        3 => ("any", &[any]),
        4 => ("any and both", &[any, SERVER_AUTH, CLIENT_AUTH]),
        5 => ("another", &["1.3.6.1.5.5.7.3.3"]),
        _ => ("none", &[]),
    };
    let value = seq(&usages.iter().map(|usage| oid(usage)).collect::<Vec<_>>());
    format!("{}extendedKeyUsage {what}", add(rng, spec, target, "2.5.29.37", value, true))
}

fn name_constraints(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let (kind, base) = match rng.u8(0..16) {
        0 => ("dns svc", tlv(0x82, b"svc")),
        1 => ("dns istio-system.svc", tlv(0x82, b"istio-system.svc")),
        2 => ("dns example.com", tlv(0x82, b"example.com")),
        3 => ("dns .svc", tlv(0x82, b".svc")),
        4 => ("dns empty", tlv(0x82, b"")),
        5 => ("dns *.svc", tlv(0x82, b"*.svc")),
        6 => ("uri cluster.local", tlv(0x86, b"cluster.local")),
        7 => ("uri example.com", tlv(0x86, b"example.com")),
        8 => ("uri whole", tlv(0x86, b"spiffe://cluster.local")),
        9 => ("email", tlv(0x81, b"example.com")),
        10 => ("ip", tlv(0x87, &[10, 0, 0, 0, 255, 0, 0, 0])),
        11 => ("ip of bad length", tlv(0x87, &[10, 0, 0, 0, 255])),
        12 => ("directory", tlv(0xa4, &name(&[("2.5.4.10", 0x0c, b"Istio")]))),
        13 => ("directory of another", tlv(0xa4, &name(&[("2.5.4.10", 0x0c, b"Else")]))),
        14 => ("other name", tlv(0xa0, &[oid("1.2.3.4"), tlv(0xa0, &tlv(0x0c, b"x"))].concat())),
        _ => ("registered id", tlv(0x88, &oid("1.2.3.4")[2..])),
    };
    let subtree = match rng.u8(0..8) {
        0 => seq(&[base, tlv(0x80, &[0]), tlv(0x81, &[1])]),
        _ => seq(&[base]),
    };
    let permitted = rng.bool();
    let value = seq(&[tlv(if permitted { 0xa0 } else { 0xa1 }, &subtree)]);
    let critical = add(rng, spec, target, "2.5.29.30", value, true);
    format!("{critical}name constraint {} {kind}", if permitted { "permits" } else { "excludes" })
}

fn alternative_names(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let (what, names) = match rng.u8(0..14) {
        0 => ("dns", tlv(0x82, b"ca.example.com")),
        1 => ("dns with _", tlv(0x82, b"a_b.example.com")),
        2 => ("dns beyond ASCII", tlv(0x82, b"c\xf6.example.com")),
        3 => ("dns empty", tlv(0x82, b"")),
        4 => ("dns with a space", tlv(0x82, b"a b")),
        5 => ("uri", tlv(0x86, b"spiffe://cluster.local")),
        6 => ("uri without host", tlv(0x86, b"spiffe:///x")),
        7 => ("uri that is none", tlv(0x86, b"http://[::1")),
        8 => ("email", tlv(0x81, b"ca@example.com")),
        9 => ("email that is none", tlv(0x81, b"nobody")),
        10 => ("ip of bad length", tlv(0x87, &[10, 0, 0])),
        11 => ("directory", tlv(0xa4, &name(&[("2.5.4.3", 0x0c, b"x")]))),
        12 => ("none", Vec::new()),
        _ => ("a kind that is none", tlv(0x8f, b"x")),
    };
    format!("{}subjectAltName {what}", add(rng, spec, target, "2.5.29.17", seq(&[names]), true))
}

fn key_ids(rng: &mut Rng, keys: &Keys, spec: &mut Spec, target: usize) -> String {
    let own = key_id(keys, spec.certs[target].key);
    let (what, id, value) = match rng.u8(0..9) {
        0 => ("absent", SUBJECT_KEY_ID, None),
        1 => ("of another", SUBJECT_KEY_ID, Some(tlv(0x04, &[7; 20]))),
        2 => ("empty", SUBJECT_KEY_ID, Some(tlv(0x04, &[]))),
        3 => ("with trailing bytes", SUBJECT_KEY_ID, Some([tlv(0x04, &own), vec![0]].concat())),
        4 => ("absent", AUTHORITY_KEY_ID, None),
        5 => ("of another", AUTHORITY_KEY_ID, Some(seq(&[tlv(0x80, &[7; 20])]))),
        6 => ("empty", AUTHORITY_KEY_ID, Some(seq(&[]))),
        7 => {
            let general = tlv(0xa1, &tlv(0xa4, &spec.certs[target].subject));
            ("by name and serial", AUTHORITY_KEY_ID, Some(seq(&[general, tlv(0x82, &[9, 9])])))
        }
        _ => ("of the wrong type", AUTHORITY_KEY_ID, Some(tlv(0x04, &own))),
    };
    set(spec, target, id, value);
    if rng.u8(0..4) == 0 {
        for extension in &mut spec.certs[target].extensions {
            if extension.oid == oid(id) {
                extension.critical = TRUE.to_vec();
            }
        }
    }
    format!("{} {what}", if id == SUBJECT_KEY_ID { "subjectKeyIdentifier" } else { "authorityKeyIdentifier" })
}

fn policies(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let one = |dotted: &str| seq(&[oid(dotted)]);
    let (what, dotted, value) = match rng.u8(0..9) {
        0 => ("certificatePolicies", "2.5.29.32", seq(&[one("1.2.3.4")])),
        1 => ("certificatePolicies any", "2.5.29.32", seq(&[one("2.5.29.32.0")])),
        2 => ("certificatePolicies twice", "2.5.29.32", seq(&[one("1.2.3.4"), one("1.2.3.4")])),
        3 => ("certificatePolicies empty", "2.5.29.32", seq(&[])),
        4 => ("policyConstraints explicit 0", "2.5.29.36", seq(&[tlv(0x80, &[0])])),
        5 => ("policyConstraints explicit 5", "2.5.29.36", seq(&[tlv(0x80, &[5])])),
        6 => ("policyConstraints no mapping", "2.5.29.36", seq(&[tlv(0x81, &[0])])),
        7 => ("inhibitAnyPolicy", "2.5.29.54", tlv(2, &[0])),
        _ => ("policyMappings", "2.5.29.33", seq(&[seq(&[oid("1.2.3.4"), oid("1.2.3.5")])])),
    };
    format!("{}{what}", add(rng, spec, target, dotted, value, true))
}

fn other(rng: &mut Rng, spec: &mut Spec, target: usize) -> String {
    let url = |tag: u8| seq(&[tlv(0xa0, &tlv(0xa0, &tlv(tag, b"http://crl.example.com/")))]);
    match rng.u8(0..10) {
        0 => format!("{}unknown extension", add(rng, spec, target, "1.2.3.4.5", b"x".to_vec(), true)),
        1 => format!("{}nsCertType", add(rng, spec, target, "2.16.840.1.113730.1.1", vec![3, 2, 0, 7], true)),
        2 => format!("{}nsComment", add(rng, spec, target, "2.16.840.1.113730.1.13", tlv(0x16, b"x"), true)),
        3 => format!("{}cRLDistributionPoints", add(rng, spec, target, "2.5.29.31", seq(&[url(0x86)]), true)),
        4 => format!("{}cRLDistributionPoints broken", add(rng, spec, target, "2.5.29.31", seq(&[tlv(4, b"x")]), true)),
        5 => {
            let access = seq(&[seq(&[oid("1.3.6.1.5.5.7.48.1"), tlv(0x86, b"http://ocsp.example.com/")])]);
            format!("{}authorityInfoAccess", add(rng, spec, target, "1.3.6.1.5.5.7.1.1", access, true))
        }
        6 => format!("{}issuerAltName", add(rng, spec, target, "2.5.29.18", seq(&[tlv(0x82, b"x")]), true)),
        7 => format!("{}subjectInfoAccess broken", add(rng, spec, target, "1.3.6.1.5.5.7.1.11", vec![5, 0], true)),
        8 => {
            let extensions = &mut spec.certs[target].extensions;
            let twice = pick(rng, extensions).clone();
            extensions.push(twice);
            "an extension twice".to_owned()
        }
        _ => {
            let extensions = &mut spec.certs[target].extensions;
            let index = rng.usize(0..extensions.len().max(1));
            if let Some(extension) = extensions.get_mut(index) {
                extension.critical = pick(rng, &[vec![], TRUE.to_vec(), vec![1, 1, 0], vec![1, 1, 1]]).clone();
            }
            "another criticality".to_owned()
        }
    }
}
