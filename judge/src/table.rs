//! Where the product and the consumers disagree.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::Result;
use istio_ca_gate::ca::check::{Flaw, Note};
use k8s_openapi::jiff::Timestamp;

use crate::cases::Case;
use crate::consumers::{self, Go};

/// In the order of [`Verdicts::consumers`].
pub const CONSUMERS: [&str; 5] = ["istiod", "Go", "webpki", "Envoy", "openssl"];

/// What each said of a case; `None`: it takes it.
#[derive(Debug)]
pub struct Verdicts {
    /// The product.
    pub product: Result<Vec<Note>, Flaw>,
    /// The consumers. Where istiod does not start, nobody else is asked.
    pub consumers: [Option<String>; 5],
}

impl Verdicts {
    /// Asks them all.
    pub fn of(case: &Case, go: &mut Go, folder: &Path) -> Result<Self> {
        let now = Timestamp::now();
        let product = consumers::product(&case.files, now);
        let istiod = go.ask(&case.files)?;
        let signed = Timestamp::now();
        if !istiod.refusal.is_empty() {
            return Ok(Self { product, consumers: [Some(istiod.refusal), None, None, None, None] });
        }
        // Beside tls.crt istiod reads no list; proxies do, wherever it is.
        let crl = case.files.get("ca-crl.pem").map(Vec::as_slice);
        let peer = Some(istiod.peer.clone()).filter(|peer| !peer.is_empty());
        let ztunnel = consumers::line(consumers::ztunnel(&istiod, signed));
        let envoy = consumers::line(consumers::envoy(&istiod, crl));
        let refused = peer.is_some() || ztunnel.is_some() || envoy.is_some();
        // Starting it costs the most, and where it cannot matter any more it is spared.
        let openssl =
            if product.is_err() && refused { None } else { consumers::line(consumers::openssl(&istiod, crl, folder)) };
        Ok(Self { product, consumers: [None, peer, ztunnel, envoy, openssl] })
    }

    /// Whether the product takes what a consumer refuses.
    pub fn is_wrong_allow(&self) -> bool {
        self.product.is_ok() && self.consumers.iter().any(Option::is_some)
    }

    /// Whether it does so on purpose: docs/design.md has the same two.
    pub fn is_on_purpose(&self) -> bool {
        let Ok(notes) = &self.product else { return false };
        let refusals = |consumers: &[Option<String>]| -> Vec<String> { consumers.iter().flatten().cloned().collect() };
        let says = |all: Vec<String>, what: &str| !all.is_empty() && all.iter().all(|said| said.contains(what));
        let [others @ .., openssl] = &self.consumers;
        let outdated = notes.iter().any(|note| matches!(note, Note::CrlOutdated(_)))
            && says(refusals(&self.consumers), "CRL has expired");
        let unnamed = refusals(others).is_empty() && says(refusals(std::slice::from_ref(openssl)), "self-signed");
        outdated || unnamed
    }

    /// Whether the product refuses what all take.
    pub fn is_departure(&self) -> bool {
        self.product.is_err() && self.consumers.iter().all(Option::is_none)
    }
}

/// The rows, each with how many cases are alike and the first of them.
#[derive(Default)]
pub struct Table {
    cases: usize,
    taken: usize,
    wrong: BTreeMap<String, (usize, u64)>,
    on_purpose: BTreeMap<String, (usize, u64)>,
    departures: BTreeMap<String, (usize, u64)>,
}

impl Table {
    /// Adds a case. Keeps its files in a folder of `kept` where they are worth looking at.
    pub fn add(&mut self, case: &Case, verdicts: &Verdicts, kept: &Path) -> Result<()> {
        self.cases += 1;
        self.taken += usize::from(verdicts.product.is_ok());
        let changes = case.changes.join(" + ");
        let (rows, row) = if verdicts.is_wrong_allow() {
            let rows = if verdicts.is_on_purpose() { &mut self.on_purpose } else { &mut self.wrong };
            (rows, format!("{changes}: {}", verdicts.refusals()))
        } else {
            let Some(flaw) = verdicts.product.as_ref().err().filter(|_| verdicts.is_departure()) else { return Ok(()) };
            (&mut self.departures, format!("{}: {changes}", kind(flaw)))
        };
        let seen = rows.entry(row).or_insert((0, case.number));
        seen.0 += 1;
        if seen.0 == 1 {
            keep(case, verdicts, &kept.join(case.number.to_string()))?;
        }
        Ok(())
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.taken += other.taken;
        for (mine, theirs) in [
            (&mut self.wrong, other.wrong),
            (&mut self.on_purpose, other.on_purpose),
            (&mut self.departures, other.departures),
        ] {
            for (row, (count, number)) in theirs {
                mine.entry(row).or_insert((0, number)).0 += count;
            }
        }
    }

    /// How many cases were judged, and how many of those the product took.
    pub fn counts(&self) -> (usize, usize) {
        (self.cases, self.taken)
    }

    /// Cases in which the product takes what a consumer refuses, and not on purpose.
    pub fn wrong_allows(&self) -> usize {
        self.wrong.values().map(|(count, _)| count).sum()
    }

    /// The kinds of flaws for which the product refuses what all take, with how many cases each.
    pub fn departures(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        for (row, (count, _)) in &self.departures {
            *kinds.entry(row.split(':').next().unwrap_or_default()).or_default() += count;
        }
        kinds
    }
}

impl Verdicts {
    fn refusals(&self) -> String {
        let said = CONSUMERS.iter().zip(&self.consumers);
        let refusals = said.filter_map(|(name, said)| said.as_ref().map(|said| format!("{name}: {said:.90}")));
        refusals.collect::<Vec<_>>().join("; ")
    }
}

/// The variant of a flaw.
pub fn kind(flaw: &Flaw) -> String {
    format!("{flaw:?}").chars().take_while(|char| char.is_alphanumeric()).collect()
}

fn keep(case: &Case, verdicts: &Verdicts, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in &case.files {
        fs::write(folder.join(name), bytes)?;
    }
    let mut told = format!("{}\n{}\nproduct: {:?}\n", case.shape, case.changes.join("\n"), verdicts.product);
    for (name, said) in CONSUMERS.iter().zip(&verdicts.consumers) {
        writeln!(told, "{name}: {}", said.as_deref().unwrap_or("takes it, or was not asked"))?;
    }
    fs::write(folder.join("verdicts.txt"), told)?;
    Ok(())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases, {} taken by the product", self.cases, self.taken)?;
        for (title, rows) in [
            ("The product takes what a consumer refuses", &self.wrong),
            ("On purpose", &self.on_purpose),
            ("The product refuses what all take", &self.departures),
        ] {
            writeln!(f, "\n{title}: {} cases", rows.values().map(|(count, _)| count).sum::<usize>())?;
            for (row, (count, number)) in rows {
                writeln!(f, "{count:5}  case {number:<6} {row}")?;
            }
        }
        Ok(())
    }
}
