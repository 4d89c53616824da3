//! PEM, read so that there is one reading of it: Go skips what it cannot read, where OpenSSL and
//! BoringSSL stop or differ.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use super::bundle::{CA_CRT, CERT_CHAIN, MAX_CERTIFICATE, TLS_CRT};
use super::der::{self, SEQUENCE};
use super::flaw::{At, Flaw, Garble};

/// Envoy reads the chain by lines of 254 bytes; the trust bundle in another way.
const MAX_LINE: usize = 250;

/// The certificates of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificates {
    pub(super) ders: Vec<Der>,
    /// There is text around them, which everybody skips.
    pub(super) has_text: bool,
}

/// The certificates of a file. One reading for all: Go skips blocks that it cannot read, where other peers stop, so that
/// any block that is not a certificate's is refused.
pub(super) fn certificates(file: &'static str, pem: &[u8], most: usize) -> Result<Certificates, Flaw> {
    read(file, pem, most).map_err(|flaw| match flaw {
        Flaw::NotOnlyCertificates(_) | Flaw::NoCertificate(_) => {
            garble(pem).map_or(flaw, |how| Flaw::Garbled(file, how))
        }
        _ => flaw,
    })
}

fn read(file: &'static str, pem: &[u8], most: usize) -> Result<Certificates, Flaw> {
    let text = std::str::from_utf8(pem).map_err(|_| Flaw::NotOnlyCertificates(file))?;
    let mut read = Certificates { ders: Vec::new(), has_text: false };
    for piece in Pieces::of(text) {
        let at = At { file, position: read.ders.len() + 1 };
        match piece {
            Piece::Block(block) if block.label == "CERTIFICATE" => {
                if read.ders.len() == most {
                    return Err(Flaw::TooManyCertificates(file));
                }
                if block.text.len() > MAX_CERTIFICATE {
                    return Err(Flaw::CertificateTooLarge(at));
                }
                let is_chain = [CERT_CHAIN, TLS_CRT, CA_CRT].contains(&file);
                if is_chain && block.body.lines().any(|line| end_trimmed(line).len() > MAX_LINE) {
                    return Err(Flaw::Garbled(file, Garble::LongLines));
                }
                read.ders.push(block.decode().ok_or(Flaw::Malformed(at))?);
            }
            Piece::Text => read.has_text = true,
            Piece::Block(_) | Piece::Broken => return Err(Flaw::NotOnlyCertificates(file)),
        }
    }
    if read.ders.is_empty() { Err(Flaw::NoCertificate(file)) } else { Ok(read) }
}

/// How a file that has no block to be read came to be so, as far as that can be told.
pub(super) fn garble(pem: &[u8]) -> Option<Garble> {
    match pem {
        [0xef, 0xbb, 0xbf, ..] => return Some(Garble::ByteOrderMark),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, b'-', ..] | [b'-', 0, ..] => return Some(Garble::Utf16),
        _ if der::only(pem, SEQUENCE).is_some() => return Some(Garble::Der),
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(pem) else { return Some(Garble::NotUtf8) };
    let is_marked = |line: &str| line.contains("-----BEGIN ") || line.contains("-----END ");
    let mut marked = text.lines().filter(|line| is_marked(line)).peekable();
    if marked.peek().is_none() {
        return no_block(text);
    }
    if text.trim_start().starts_with('[') {
        return Some(Garble::JsonList);
    }
    marked.find_map(|line| {
        if line.contains("-----\\n") || line.contains("\\n-----") {
            Some(Garble::LiteralNewlines)
        } else if line.contains("----------BEGIN ") {
            Some(Garble::Joined)
        } else if line.contains("-----BEGIN ") && line.contains("-----END ") {
            Some(Garble::OneLine)
        } else {
            line.starts_with([' ', '\t']).then_some(Garble::Indented)
        }
    })
}

fn no_block(text: &str) -> Option<Garble> {
    let packed: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    if packed.is_empty() {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(packed.as_bytes()).map(Zeroizing::new);
    let is_pem = decoded.is_ok_and(|bytes| bytes.windows(11).any(|window| window == b"-----BEGIN "));
    Some(if is_pem { Garble::Base64 } else { Garble::Text })
}

/// What a PEM block holds: perhaps a key, whatever its label says.
pub(super) type Der = Zeroizing<Vec<u8>>;

/// A part of a PEM file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Block(Block<'a>),
    /// A line outside of blocks that is not blank. Decoders skip it.
    Text,
    /// What may have been meant as a block. Decoders differ on what follows: nothing is read of it.
    Broken,
}

/// From a BEGIN line to its END line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    /// The lines between.
    pub(super) body: &'a str,
    /// All lines.
    pub(super) text: &'a str,
}

impl Block<'_> {
    /// The body's bytes, if it is nothing but lines of padded base64: no headers, no blank lines.
    pub(super) fn decode(&self) -> Option<Der> {
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let lines = || self.body.lines().map(end_trimmed);
        let plain = lines().all(|line| !line.is_empty() && line.bytes().all(base64));
        // The decoder below does not ask for the padding, but Go's does.
        if !plain || !lines().map(str::len).sum::<usize>().is_multiple_of(4) {
            return None;
        }
        let (_, bytes) = <(SectionKind, Vec<u8>)>::from_pem_slice(self.text.as_bytes()).ok()?;
        Some(Zeroizing::new(bytes)).filter(|bytes| !bytes.is_empty())
    }
}

/// The pieces of a PEM file, in order. BEGIN and END count at the start of a line only, and a line
/// may end in blanks: the common ground of Go, OpenSSL and BoringSSL.
pub(super) struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn line(&mut self) -> Option<&'a str> {
        let line = self.rest.split_inclusive('\n').next()?;
        self.rest = &self.rest[line.len()..];
        Some(end_trimmed(line))
    }

    /// The rest of a block whose BEGIN line was just read from `from`.
    fn block(&mut self, from: &'a str, label: &'a str) -> Option<Block<'a>> {
        let body = self.rest;
        loop {
            let before = self.rest.len();
            let line = self.line()?;
            if line.contains("-----") {
                let end = line.strip_prefix("-----END ")?.strip_suffix("-----")?;
                return (end == label).then_some(Block {
                    label,
                    body: &body[..body.len() - before],
                    text: &from[..from.len() - self.rest.len()],
                });
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (mut from, mut line) = (self.rest, self.line()?);
        while line.is_empty() {
            (from, line) = (self.rest, self.line()?);
        }
        if !line.contains("-----") {
            return Some(Piece::Text);
        }
        let label = line.strip_prefix("-----BEGIN ").and_then(|line| line.strip_suffix("-----"));
        match label.and_then(|label| self.block(from, label)) {
            Some(block) => Some(Piece::Block(block)),
            None => {
                self.rest = "";
                Some(Piece::Broken)
            }
        }
    }
}

fn end_trimmed(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r', '\n'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::bundle::ROOT_CERT;
    use super::super::fixtures::{Ca, pem};
    use super::*;

    const DER: &[u8] = &[7; 100];

    fn block() -> String {
        pem("CERTIFICATE", DER, 64, "\n")
    }

    fn read(text: impl AsRef<[u8]>) -> Result<usize, Flaw> {
        let read = certificates(ROOT_CERT, text.as_ref(), 10)?;
        assert!(read.ders.iter().all(|der| der.as_slice() == DER));
        Ok(read.ders.len())
    }

    const FOREIGN: Result<usize, Flaw> = Err(Flaw::NotOnlyCertificates(ROOT_CERT));
    const MALFORMED: Result<usize, Flaw> = Err(Flaw::Malformed(At { file: ROOT_CERT, position: 1 }));

    #[test]
    fn one_to_ten_certificates_are_accepted() {
        assert_eq!(read(block()), Ok(1));
        assert_eq!(read(block().repeat(10)), Ok(10));
    }

    #[test]
    fn eleven_certificates_and_ten_thousand_are_refused() {
        assert_eq!(read(block().repeat(11)), Err(Flaw::TooManyCertificates(ROOT_CERT)));
        assert_eq!(read(block().repeat(10_000)), Err(Flaw::TooManyCertificates(ROOT_CERT)));
    }

    #[test]
    fn no_certificate_is_refused() {
        assert_eq!(read(""), Err(Flaw::NoCertificate(ROOT_CERT)));
        assert_eq!(read(" \r\n\n\t\n"), Err(Flaw::NoCertificate(ROOT_CERT)));
    }

    #[test]
    fn crlf_and_a_last_line_without_its_end_are_accepted() {
        assert_eq!(read(pem("CERTIFICATE", DER, 64, "\r\n")), Ok(1));
        assert_eq!(read(block().trim_end()), Ok(1));
        assert_eq!(read(pem("CERTIFICATE", DER, 64, "\r\n").trim_end()), Ok(1));
    }

    #[test]
    fn blanks_at_the_ends_of_lines_and_blank_lines_between_blocks_are_accepted() {
        assert_eq!(read(block().replace('\n', " \n")), Ok(1));
        assert_eq!(read(format!("\n{}\r\n \n{}\n\n", block(), block())), Ok(2));
    }

    #[test]
    fn lines_of_any_width_are_accepted() {
        for width in [1, 4, 63, 76, 136] {
            assert_eq!(read(pem("CERTIFICATE", DER, width, "\n")), Ok(1), "{width}");
        }
    }

    #[test]
    fn lines_that_boringssl_cuts_are_refused() {
        let text = |width| pem("CERTIFICATE", &[7; 300], width, "\n");
        assert!(certificates(CERT_CHAIN, text(250).as_bytes(), 1).is_ok());
        let flaw = Flaw::Garbled(CERT_CHAIN, Garble::LongLines);
        assert_eq!(certificates(CERT_CHAIN, text(252).as_bytes(), 1), Err(flaw));
        assert!(certificates(ROOT_CERT, text(252).as_bytes(), 1).is_ok());
    }

    #[test]
    fn text_around_blocks_is_skipped_and_told() {
        for text in [
            format!("subject=CN=Root\n{}", block()),
            format!("{}# the old one\n{}", block(), block()),
            format!("{}\0", block()),
        ] {
            assert!(certificates(ROOT_CERT, text.as_bytes(), 10).unwrap().has_text, "{text}");
        }
        assert!(!certificates(ROOT_CERT, block().as_bytes(), 10).unwrap().has_text);
    }

    #[test]
    fn other_blocks_are_refused() {
        let key = Ca::root("Root").key.serialize_pem();
        assert_eq!(read(format!("{}{key}", block())), FOREIGN);
        assert_eq!(read(format!("{key}{}", block())), FOREIGN);
        for label in ["TRUSTED CERTIFICATE", "X509 CERTIFICATE", "X509 CRL", "certificate", ""] {
            assert_eq!(read(pem(label, DER, 64, "\n")), FOREIGN, "{label}");
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        let block = block();
        let broken = [
            // Half a block before a whole one, which Go would skip.
            format!("{begin}\nBwcH\n{block}"),
            format!("{begin}\n{block}"),
            format!("{block}{begin}\n"),
            format!("{block}{end}\n"),
            block.replace(end, "-----END CERTIFICATE----"),
            block.replace(end, "-----END PRIVATE KEY-----"),
            block.replace(end, &format!("{end} more")),
            block.replace(&format!("\n{end}"), end),
            block.replace(begin, "-----BEGIN CERTIFICATE----"),
            block.replace(begin, &format!(" {begin}")),
            block.replace(begin, "----BEGIN CERTIFICATE-----"),
            block.replace(begin, "-----BEGIN"),
            block.trim_end().trim_end_matches('-').to_owned(),
            block.replace('\n', "\r"),
            block.replace('\n', ""),
        ];
        for text in broken {
            let flaw = read(&text).unwrap_err();
            assert!(matches!(flaw, Flaw::NotOnlyCertificates(_) | Flaw::Garbled(..)), "{flaw}: {text}");
        }
    }

    #[test]
    fn nothing_is_read_after_a_broken_block() {
        let text = format!("-----BEGIN CERTIFICATE-----\n{}{}", block(), block());
        let pieces: Vec<Piece<'_>> = Pieces::of(&text).collect();
        assert!(pieces == [Piece::Broken]);
    }

    #[test]
    fn bodies_that_are_not_plain_base64_are_refused() {
        let block = block();
        let bodies = [
            // Go reads headers, and skips certificates that have some.
            block.replace("CATE-----\nB", "CATE-----\nComment: mine\n\nB"),
            block.replace("CATE-----\nB", "CATE-----\n\nB"),
            block.replace("CATE-----\nB", "CATE-----\n B"),
            block.replace("BwcH", "Bw-H"),
            block.replacen("BwcH", "Bwc=", 1),
            block.replacen("BwcH", "BwcHB", 1),
            block.replace("==", "="),
            block.replace("==", ""),
            block.replace("==", "==="),
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
        ];
        for text in bodies {
            assert_eq!(read(&text), MALFORMED, "{text}");
        }
    }

    #[test]
    fn a_block_over_the_cap_is_refused() {
        let lines = |bytes: usize| pem("CERTIFICATE", &vec![7; bytes], 64, "\n");
        let largest = (1..).map(lines).take_while(|text| text.len() <= MAX_CERTIFICATE).last().unwrap();
        assert!(certificates(ROOT_CERT, largest.as_bytes(), 1).is_ok());
        let padded = largest.replacen('\n', &format!("{}\n", " ".repeat(MAX_CERTIFICATE + 1 - largest.len())), 1);
        assert_eq!(padded.len(), MAX_CERTIFICATE + 1);
        let flaw = Flaw::CertificateTooLarge(At { file: ROOT_CERT, position: 1 });
        assert_eq!(certificates(ROOT_CERT, padded.as_bytes(), 1), Err(flaw));
    }
}
