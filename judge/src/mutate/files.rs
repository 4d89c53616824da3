//! The files: how certificates and keys are written down, revocation lists, and other keys of the Secret.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;

use crate::boring::Key;
use crate::der::{oid, seq, tlv};
use crate::make::{Crl, Digest, Extension, Keys, pem};
use crate::shapes::{DAY, Spec, pick};

/// The files of Secret `cacerts`, by their names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(super) const FILES: [&str; 3] = ["root-cert.pem", "cert-chain.pem", "ca-cert.pem"];

/// One oddity. What it is.
pub(crate) fn mutate(rng: &mut Rng, keys: &Keys, spec: &Spec, files: &mut Files) -> String {
    match rng.u8(0..10) {
        0..5 => {
            let file = *pick(rng, &FILES);
            let Some(pem) = files.get_mut(file) else { return String::new() };
            let what = text(rng, pem);
            format!("{file} {what}")
        }
        5 | 6 => key(rng, keys, spec, files),
        7 => secret(rng, spec, files),
        _ => revocation_lists(rng, keys, spec, files),
    }
}

fn text(rng: &mut Rng, file: &mut Vec<u8>) -> &'static str {
    let old = String::from_utf8_lossy(file).into_owned();
    let (what, new): (&str, Vec<u8>) = match rng.u8(0..36) {
        0 => ("CRLF", old.replace('\n', "\r\n").into()),
        1 => ("CR", old.replace('\n', "\r").into()),
        2 => ("no newline at the end", old.trim_end().into()),
        3 => ("text in front", format!("Certificate:\n    Data:\n        Version: 3 (0x2)\n{old}").into()),
        4 => ("text behind", format!("{old}the end\n").into()),
        5 => ("bag attributes", format!("Bag Attributes\n    localKeyID: 01\nsubject=CN = x\n\n{old}").into()),
        6 => ("text with a colon", format!("Issuer: x\n{old}").into()),
        7 => ("blank lines", old.replace("-----BEGIN", "\n\n-----BEGIN").into()),
        8 => ("a blank line within", old.replacen("CERTIFICATE-----\n", "CERTIFICATE-----\n\n", 1).into()),
        9 => ("indented", old.replace('\n', "\n  ").into()),
        10 => ("indented from the first line", format!("  {}", old.replace('\n', "\n  ")).into()),
        11 => ("trailing spaces", old.replace('\n', " \n").into()),
        12 => ("one line", old.replace('\n', "").into()),
        13 => ("spaces for newlines", old.replace('\n', " ").into()),
        14 => ("END and BEGIN on one line", old.replace("-----\n-----BEGIN", "----------BEGIN").into()),
        15 => ("literal newlines", old.replace('\n', "\\n").into()),
        16 => ("base64 twice", STANDARD.encode(&old).into()),
        17 => ("BOM", format!("\u{feff}{old}").into()),
        18 => ("UTF-16", old.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        19 => ("a NUL at the end", format!("{old}\0").into()),
        20 => ("a byte of Latin-1", [b"R\xf6t\n", old.as_bytes()].concat()),
        21 => ("TRUSTED CERTIFICATE", old.replace("CERTIFICATE", "TRUSTED CERTIFICATE").into()),
        22 => ("X509 CERTIFICATE", old.replace("CERTIFICATE", "X509 CERTIFICATE").into()),
        23 => ("small letters", old.replace("BEGIN", "begin").into()),
        24 => ("four dashes", old.replacen("-----BEGIN", "----BEGIN", 1).into()),
        25 => ("no END", old.replacen("-----END CERTIFICATE-----\n", "", 1).into()),
        26 => ("two BEGIN", format!("-----BEGIN CERTIFICATE-----\n{old}").into()),
        27 => ("a header", old.replacen("CERTIFICATE-----\n", "CERTIFICATE-----\nComment: x\n\n", 1).into()),
        28 => ("no padding", old.replace('=', "").into()),
        29 => ("long lines", widen(&old)),
        30 => ("empty", Vec::new()),
        31 => ("blank", b"\n".to_vec()),
        32 => ("a JSON list", format!("[{old:?}]").into()),
        33 => (
            "DER",
            STANDARD.decode(old.lines().filter(|line| !line.contains('-')).collect::<String>()).unwrap_or_default(),
        ),
        34 => ("twice", old.repeat(2).into()),
        _ => {
            let other =
                pick(rng, &["EC PARAMETERS", "PRIVATE KEY", "X509 CRL", "CERTIFICATE REQUEST", "PKCS7", "NOTE"]);
            (other, format!("{}{old}", pem(other, &seq(&[oid("1.2.840.10045.3.1.7")]), 64, "\n")).into())
        }
    };
    *file = new;
    what
}

/// Each block on one line of base64.
fn widen(old: &str) -> Vec<u8> {
    let mut text = String::new();
    for line in old.lines() {
        text.push_str(line);
        if line.contains('-') || line.len() < 64 {
            text.push('\n');
        }
    }
    text.replace("-----BEGIN CERTIFICATE-----\n", "\n-----BEGIN CERTIFICATE-----\n").into()
}

fn key(rng: &mut Rng, keys: &Keys, spec: &Spec, files: &mut Files) -> String {
    let key = keys.get(spec.key);
    let pkcs8 = pem("PRIVATE KEY", &key.pkcs8(), 64, "\n");
    let label = if key.is_rsa() { "RSA PRIVATE KEY" } else { "EC PRIVATE KEY" };
    let traditional = pem(label, &key.traditional(), 64, "\n");
    let parameters = pem("EC PARAMETERS", &oid("1.2.840.10045.3.1.7"), 64, "\n");
    let certificate = String::from_utf8_lossy(&files[FILES[2]]).into_owned();
    let (what, new) = match rng.u8(0..18) {
        0 => ("PKCS#1 or SEC1", traditional),
        1 => ("with EC PARAMETERS", parameters + &traditional),
        2 => ("after text", format!("Key Attributes: <No Attributes>\n{pkcs8}")),
        3 => ("before a certificate", pkcs8 + &certificate),
        4 => ("after a certificate", certificate + &pkcs8),
        5 => ("of another", pem("PRIVATE KEY", &keys.get((spec.key + 1) % 5).pkcs8(), 64, "\n")),
        6 => ("encrypted", pem("ENCRYPTED PRIVATE KEY", &key.pkcs8(), 64, "\n")),
        7 => (
            "encrypted of old",
            traditional.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1),
        ),
        8 => ("wrong label", pem(label, &key.pkcs8(), 64, "\n")),
        9 => ("other wrong label", pem("PRIVATE KEY", &key.traditional(), 64, "\n")),
        10 => ("CRLF", pkcs8.replace('\n', "\r\n")),
        11 => ("one line", pkcs8.replace('\n', "")),
        12 => ("no newline at the end", pkcs8.trim_end().to_owned()),
        13 => ("long lines", pem("PRIVATE KEY", &key.pkcs8(), 10_000, "\n")),
        14 => ("trailing bytes", pem("PRIVATE KEY", &[key.pkcs8(), vec![0]].concat(), 64, "\n")),
        15 => ("empty", String::new()),
        16 => ("twice", pkcs8.repeat(2)),
        _ => ("indented", pkcs8.replace('\n', "\n ")),
    };
    files.insert("ca-key.pem".to_owned(), new.into());
    format!("key {what}")
}

/// Other keys of the Secret, and missing ones.
fn secret(rng: &mut Rng, spec: &Spec, files: &mut Files) -> String {
    let copy = |files: &Files, from: &str| files[from].clone();
    match rng.u8(0..7) {
        0 => {
            let file = *pick(rng, &["root-cert.pem", "cert-chain.pem", "ca-cert.pem", "ca-key.pem"]);
            files.remove(file);
            format!("{file} missing")
        }
        1 | 2 => {
            // As cert-manager makes a Secret of type kubernetes.io/tls: the chain up to the root, which ca.crt has.
            let chain = if spec.chain.is_empty() { copy(files, "ca-cert.pem") } else { copy(files, "cert-chain.pem") };
            let tls =
                [("tls.crt", chain), ("tls.key", copy(files, "ca-key.pem")), ("ca.crt", copy(files, "root-cert.pem"))];
            files.clear();
            files.extend(tls.map(|(name, file)| (name.to_owned(), file)));
            if rng.u8(0..4) == 0 {
                files.remove("ca.crt");
                return "tls.crt and tls.key alone".to_owned();
            }
            "tls.crt, tls.key, ca.crt".to_owned()
        }
        3 => {
            files.insert("tls.crt".to_owned(), copy(files, "ca-cert.pem"));
            "tls.crt beside the four".to_owned()
        }
        4 => {
            let tls = [
                ("tls.crt", copy(files, "cert-chain.pem")),
                ("tls.key", copy(files, "ca-key.pem")),
                ("ca.crt", copy(files, "root-cert.pem")),
            ];
            files.extend(tls.map(|(name, file)| (name.to_owned(), file)));
            "both forms".to_owned()
        }
        5 => {
            files.insert("istio-generated".to_owned(), Vec::new());
            "istio-generated".to_owned()
        }
        _ => {
            files.insert("note".to_owned(), b"by us".to_vec());
            "another key".to_owned()
        }
    }
}

fn revocation_lists(rng: &mut Rng, keys: &Keys, spec: &Spec, files: &mut Files) -> String {
    let usual = [spec.now - DAY, spec.now + 30 * DAY];
    let list = |of: usize, updates: [i64; 2], revoked: &[Vec<u8>], extensions: Vec<Extension>| {
        let cert = &spec.certs[of];
        let key: &Key = keys.get(cert.key);
        let digest = if key.is_ed25519() { Digest::None } else { Digest::Sha256 };
        let crl = Crl { issuer: &cert.subject, updates, revoked: revoked.to_vec(), extensions };
        pem("X509 CRL", &crl.sign(key, digest), 64, "\n")
    };
    let mut all: Vec<usize> = spec.path();
    all.extend(spec.chain.iter().chain(&spec.roots));
    all.sort_unstable();
    all.dedup();
    let fit = |updates: [i64; 2]| all.iter().map(|of| list(*of, updates, &[], Vec::new())).collect::<String>();
    let signing = spec.ca[0];
    let issuer = spec.certs[signing].issuer.unwrap_or(signing);
    let (what, text) = match rng.u8(0..12) {
        0 | 1 => ("that fit", fit(usual)),
        2 => ("of the signing CA alone", list(signing, usual, &[], Vec::new())),
        3 => ("of the root alone", list(issuer, usual, &[], Vec::new())),
        4 => ("garbage", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned()),
        5 => ("text", "no list".to_owned()),
        6 => ("empty", String::new()),
        7 => ("outdated", fit([spec.now - 60 * DAY, spec.now - 30 * DAY])),
        8 => ("from the future", fit([spec.now + DAY, spec.now + 30 * DAY])),
        9 => {
            let serial = spec.certs[signing].serial.clone();
            ("that revoke the signing CA", list(issuer, usual, &[serial], Vec::new()) + &fit(usual))
        }
        10 => {
            let point = Extension::new("2.5.29.28", true, seq(&[tlv(0x81, &[0xff])]));
            let lists: String = all.iter().map(|of| list(*of, usual, &[], vec![point.clone()])).collect();
            ("with a critical extension", lists)
        }
        _ => (
            "with a certificate",
            fit(usual) + &String::from_utf8_lossy(files.get(FILES[0]).map_or(&[], Vec::as_slice)),
        ),
    };
    files.insert("ca-crl.pem".to_owned(), text.into());
    format!("revocation lists {what}")
}
