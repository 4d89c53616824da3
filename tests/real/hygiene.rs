//! The key of a root that the gate has made, searched for in the gate's own memory.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use testbed::eventually;

use crate::gate::{Gate, Options};
use crate::world::{NAMESPACE, SOON, SmallWorld};

/// Long enough not to be there by chance, short enough that a copy that is overwritten in part still has one.
const WINDOW: usize = 32;

/// Read at a time.
const CHUNK: usize = 1 << 20;

/// The public exponent, as DER spells it, which stands between what everybody knows and what nobody must.
const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// A secret in every spelling in which a library keeps or sends it, by windows.
struct Needles {
    searcher: AhoCorasick,
    spelling: Vec<&'static str>,
}

impl Needles {
    fn new(spellings: &[(&'static str, Vec<u8>)]) -> Result<Self> {
        let windows = spellings.iter().flat_map(|(name, bytes)| {
            bytes.chunks_exact(WINDOW).filter(|window| window.iter().any(|byte| *byte != window[0])).map(|w| (*name, w))
        });
        let (spelling, windows): (Vec<_>, Vec<_>) = windows.unzip();
        Ok(Self { searcher: AhoCorasick::new(windows)?, spelling })
    }

    /// How many windows of each spelling are in the writable memory of a process.
    fn found_in(&self, pid: u32) -> Result<BTreeMap<String, usize>> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory =
            std::fs::File::open(format!("/proc/{pid}/mem")).context("the tests may not read it: run them as root")?;
        let (mut found, mut searched) = (BTreeMap::new(), 0_usize);
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, rest) = line.split_once(' ').context("a line of maps")?;
            let (from, to) = range.split_once('-').context("a range")?;
            let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
            let region = rest.split_whitespace().nth(4).unwrap_or("anonymous");
            let mut buffer = vec![0; CHUNK + WINDOW];
            for at in (from..to).step_by(CHUNK) {
                let wanted = buffer.len().min(usize::try_from(to - at)?);
                // A page that was never touched, or is gone by now, has nothing.
                let Ok(read) = memory.read_at(&mut buffer[..wanted], at) else { continue };
                searched += read;
                for hit in self.searcher.find_iter(&buffer[..read]) {
                    let spelling = self.spelling[hit.pattern().as_usize()];
                    *found.entry(format!("{spelling} in {region}")).or_default() += 1;
                }
            }
        }
        ensure!(searched > 4 << 20, "only {searched} bytes of memory could be read");
        Ok(found)
    }
}

fn file(secret: &Value, name: &str) -> Result<Vec<u8>> {
    Ok(serde_json::from_value::<ByteString>(secret["data"][name].clone())?.0)
}

fn base64(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(serde_json::to_value(ByteString(bytes.to_vec()))?.as_str().context("no text")?.as_bytes().to_vec())
}

/// The integers that follow in DER.
fn integers(mut der: &[u8]) -> Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    while let [0x02, length, rest @ ..] = der {
        let (length, rest) = match length {
            0x82 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            0x81 => (usize::from(rest[0]), &rest[1..]),
            short => (usize::from(*short), rest),
        };
        let (integer, after) = rest.split_at(length);
        found.push(integer.strip_prefix(&[0]).unwrap_or(integer));
        der = after;
    }
    Ok(found)
}

/// What of an RSA key is secret: in PEM, in base64 of that, and number by number.
fn spellings(pem: &[u8]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let key = PrivateKeyDer::from_pem_slice(pem)?;
    let der = key.secret_der();
    let public = der.windows(EXPONENT.len()).position(|window| window == EXPONENT).context("not an RSA key")?;
    let secret = &der[public + EXPONENT.len()..];
    let numbers = integers(secret)?;
    ensure!(numbers.len() == 6, "{} numbers: d, p, q and three more", numbers.len());

    let text = std::str::from_utf8(pem)?;
    // Each line of PEM is 48 bytes of DER; those that begin with the secret part, whole.
    let lines: Vec<_> = text.lines().skip(1).filter(|line| !line.starts_with('-')).collect();
    let lines = &lines[(public + EXPONENT.len()).div_ceil(48)..];
    let tail = text.find(lines[0]).context("the line is of the text")? / 3 * 3;
    let hex =
        |upper: bool| secret.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect();
    let decimal: Vec<_> = secret.iter().map(u8::to_string).collect();
    let mut all = vec![
        ("PEM", lines.concat().into_bytes()),
        ("base64 of PEM", base64(&pem[tail..])?),
        ("DER", secret.to_vec()),
        ("hex", String::into_bytes(hex(false))),
        ("HEX", String::into_bytes(hex(true))),
        ("a list", decimal.join(", ").into_bytes()),
    ];
    for number in numbers {
        // As a big number's words lie in memory.
        all.push(("a number's words", number.iter().rev().copied().collect()));
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_new_root_is_nowhere_in_the_memory_of_the_gate_that_made_it() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let flags = ["--refresh", "1s"];
    let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let cacerts = side.cacerts().await?.context("no cacerts")?;
    let needles = Needles::new(&spellings(&file(&cacerts, "ca-key.pem")?)?)?;
    let pid = gate.process.pid();

    // The search finds what is there: the key of the serving CA, which the gate signs its certificates with.
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istio-ca-gate-tls");
    let serving = side.object(&path).await?.context("no serving CA")?;
    let key = PrivateKeyDer::from_pem_slice(&file(&serving, "ca.key")?)?;
    let control = Needles::new(&[("DER", key.secret_der().to_vec())])?.found_in(pid)?;
    ensure!(!control.is_empty(), "a key that is in use is not found: the search is blind");

    // While both are compared, once a second, it is there; in between it is not.
    eventually("the key to be gone", SOON, || async {
        let found = needles.found_in(pid)?;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
    .await
}
