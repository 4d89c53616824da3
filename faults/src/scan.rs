//! A search of outputs for keys and tokens, in every spelling that a library might give them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::files::blocks;

/// Enough of a secret to be worth finding, and too much to be there by chance.
const PIECE: usize = 24;

/// Searched for at most. Of more, as of the keys of a hundred roots, every how-manieth is: a key that is seen shows hundreds.
const PIECES_MAX: usize = 30_000;

/// Read at a time.
const CHUNK: usize = 1 << 20;

/// What no output may have, whosever key it is.
const KEY: &str = "PRIVATE KEY-----";

/// A secret, and what to call it.
#[derive(Clone, Debug)]
pub struct Secret {
    name: String,
    texts: Vec<Vec<u8>>,
}

impl Secret {
    /// A token, or any other text.
    pub fn text(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), texts: vec![text.as_bytes().to_vec()] }
    }

    /// A private key in PEM: as it is, and as what it stands for.
    pub fn key(name: &str, pem: &str) -> Self {
        let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
        let ders = labels.iter().flat_map(|label| blocks(pem, label));
        // The lines between its marks: these are everybody's.
        let body: Vec<_> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Self { name: name.to_owned(), texts: std::iter::once(body.join("\n").into_bytes()).chain(ders).collect() }
    }
}

/// All ways in which bytes may be written.
fn spellings(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let list = |separator: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        ("decimal", list(", ")),
        ("decimal", list(",")),
        ("decimal", list(" ")),
        ("HEX", hex.to_uppercase()),
        ("hex", hex),
    ];
    if let Ok(text) = std::str::from_utf8(bytes) {
        all.push(("text", text.to_owned()));
    }
    // Where it does not begin at a third byte, base64 reads differently.
    for shift in 0..3.min(bytes.len()) {
        all.push(("base64", STANDARD_NO_PAD.encode(&bytes[shift..])));
        all.push(("base64", URL_SAFE_NO_PAD.encode(&bytes[shift..])));
    }
    all
}

/// Searches for secrets, once made.
#[derive(Debug)]
pub struct Scanner {
    searcher: AhoCorasick,
    names: Vec<String>,
}

impl Scanner {
    /// For these secrets. A certificate has the public half of a key in it: what is public is not searched for.
    pub fn new(secrets: &[Secret], public: &[String]) -> Result<Self> {
        let mut pieces: BTreeMap<String, String> = BTreeMap::new();
        for secret in secrets {
            for (spelling, text) in secret.texts.iter().flat_map(|text| spellings(text)) {
                for piece in text.lines().flat_map(|line| line.as_bytes().chunks_exact(PIECE)) {
                    let piece = String::from_utf8_lossy(piece).into_owned();
                    if is_telling(&piece) {
                        pieces.entry(piece).or_insert_with(|| format!("{} in {spelling}", secret.name));
                    }
                }
            }
        }
        let stride = pieces.len().div_ceil(PIECES_MAX).max(1);
        let mut pieces: Vec<_> = pieces.into_iter().step_by(stride).collect();
        let known = AhoCorasick::new(pieces.iter().map(|(piece, _)| piece))?;
        let mut is_public = BTreeSet::new();
        for pem in public.iter().collect::<BTreeSet<_>>() {
            let texts = std::iter::once(pem.as_bytes().to_vec()).chain(blocks(pem, "CERTIFICATE"));
            for (_, text) in texts.flat_map(|bytes| spellings(&bytes)) {
                is_public.extend(known.find_overlapping_iter(&text).map(|hit| hit.pattern().as_usize()));
            }
        }
        let mut number = 0..;
        pieces.retain(|_| number.next().is_some_and(|number| !is_public.contains(&number)));
        pieces.push((KEY.to_owned(), "some private key in PEM".to_owned()));
        let (pieces, names): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
        Ok(Self { searcher: AhoCorasick::new(pieces)?, names })
    }

    /// What is in this text, in a few words each.
    pub fn text(&self, text: impl AsRef<[u8]>) -> BTreeSet<String> {
        let hits = self.searcher.find_overlapping_iter(text.as_ref());
        hits.map(|hit| self.names[hit.pattern().as_usize()].clone()).collect()
    }

    /// The same of a file, and how long that is.
    pub fn file(&self, path: &Path) -> Result<(u64, BTreeSet<String>)> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let (mut found, mut bytes, mut window) = (BTreeSet::new(), 0, Vec::new());
        loop {
            // A piece may lie across two chunks.
            let keep = window.len().min(PIECE);
            window.drain(..window.len() - keep);
            let read = (&mut file).take(CHUNK as u64).read_to_end(&mut window)?;
            bytes += read as u64;
            found.append(&mut self.text(&window));
            if read == 0 {
                return Ok((bytes, found));
            }
        }
    }
}

/// Whether it is not made of a few characters alone, as padding and zeros are.
fn is_telling(piece: &str) -> bool {
    piece.chars().filter(|c| c.is_alphanumeric()).collect::<BTreeSet<_>>().len() >= 6
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn random(from: u8) -> Vec<u8> {
        (0..120_u8).map(|n| n.wrapping_mul(73).wrapping_add(from)).collect()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn each_spelling_of_a_key_is_found() -> Result<()> {
        let der = random(5);
        let key = pem("PRIVATE KEY", &der);
        let scanner = Scanner::new(&[Secret::key("k", &key)], &[])?;
        let debug = format!("{der:?}");
        let body = key.lines().nth(1).unwrap_or_default().to_owned();
        let escaped = key.replace('\n', "\\n");
        for (said, of) in [
            (&debug, "decimal"),
            (&body, "text"),
            (&escaped, "text"),
            (&STANDARD.encode(&key), "base64"),
            (&STANDARD.encode(["x", &key].concat()), "base64"),
            (&URL_SAFE_NO_PAD.encode(&der), "base64"),
            (&der.iter().map(|byte| format!("{byte:02x}")).collect(), "hex"),
            (&der.iter().map(|byte| format!("{byte:02X}")).collect(), "HEX"),
        ] {
            let found = scanner.text(format!("x {said} y"));
            assert!(found.iter().any(|name| *name == format!("k in {of}")), "{of}: {found:?}");
        }
        assert!(scanner.text(pem("RSA PRIVATE KEY", b"another")).contains("some private key in PEM"));
        assert!(scanner.text("nothing of it").is_empty());
        Ok(())
    }

    #[test]
    fn what_a_certificate_says_of_a_key_is_not_secret() -> Result<()> {
        let (public, secret) = (random(7), random(211));
        let certificate = pem("CERTIFICATE", &[&[1, 2, 3], public.as_slice()].concat());
        let key = pem("PRIVATE KEY", &[[0; 5].as_slice(), &public, &secret].concat());
        let scanner = Scanner::new(&[Secret::key("k", &key)], std::slice::from_ref(&certificate))?;
        assert!(scanner.text(&certificate).is_empty());
        assert!(!scanner.text(STANDARD.encode(&secret)).is_empty());
        Ok(())
    }

    #[test]
    fn a_token_is_found_across_the_chunks_of_a_file() -> Result<()> {
        let token = "hvs.CAESIJ1qkzYw8n3mP0tVbL5xQe2RfA7uGh9dS4";
        let scanner = Scanner::new(&[Secret::text("token", token)], &[])?;
        let path = std::env::temp_dir().join(format!("scan-{}", std::process::id()));
        for at in [0, CHUNK - PIECE / 2, CHUNK, 3 * CHUNK - 1] {
            let mut text = ".".repeat(at);
            text.push_str(token);
            text.push_str(&"-".repeat(100));
            std::fs::write(&path, &text)?;
            let (bytes, found) = scanner.file(&path)?;
            assert_eq!((bytes as usize, found.len()), (text.len(), 1), "{at}: {found:?}");
        }
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
