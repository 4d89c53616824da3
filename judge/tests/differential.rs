//! Thousands of CAs, sound and odd, before the product and before all who have to live with its verdict.
//!
//! `JUDGE_CASES` (3000), `JUDGE_SEED` (1) and `JUDGE_FIRST` (0) choose the cases; `JUDGE_OUT` (a folder in target/) has
//! the files of those in which they disagree, afterwards.
#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::env;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use judge::cases::case;
use judge::consumers::Go;
use judge::make::Keys;
use judge::table::{Table, Verdicts};
use k8s_openapi::jiff::Timestamp;

/// What the product refuses though all take it: the kind of flaw, and the words of docs/design.md that say why.
const DEPARTURES: [(&str, &str); 17] = [
    ("ConstraintKind", "names of a CA other than DNS names under name constraints"),
    ("CriticalExtension", "critical cRLDistributionPoints"),
    ("CrlOfPart", "revocation lists that are not by every CA of the path"),
    ("Damaged", "a root whose own signature is wrong"),
    ("ExplicitPolicy", "requireExplicitPolicy with any count"),
    ("ExtendedKeyUsage", "anyExtendedKeyUsage alone in a root above a trusted intermediate"),
    ("Foreign", "a Secret with `istio-generated`"),
    ("Garbled", "files that are not UTF-8"),
    ("KeyEncrypted", "a key that says it is encrypted"),
    ("Malformed", "a broken one (with headers, blank lines, another label)"),
    ("NotDer", "a DEFAULT that is spelled out"),
    ("NotOnlyCertificates", "a PEM block other than CERTIFICATE"),
    ("NotPermitted", "names of a CA other than DNS names under name constraints"),
    ("Unreadable", "an extension that is empty or says what it must not"),
    ("UnsupportedKey", "a weak or rare key"),
    ("UnsupportedSignature", "a root whose own signature is wrong"),
    ("Version", "X.509 version 1"),
];

/// Each has a judge in Go of its own.
const WORKERS: u64 = 2;

fn setting(name: &str, default: u64) -> Result<u64> {
    env::var(name).map_or(Ok(default), |value| value.parse().with_context(|| format!("{name}={value}")))
}

#[test]
fn whatever_the_product_takes_no_consumer_refuses_and_what_it_refuses_beyond_them_is_named() -> Result<()> {
    let (cases, seed, first) = (setting("JUDGE_CASES", 3000)?, setting("JUDGE_SEED", 1)?, setting("JUDGE_FIRST", 0)?);
    let kept =
        env::var_os("JUDGE_OUT").map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("judge"), PathBuf::from);
    println!("JUDGE_SEED={seed} JUDGE_FIRST={first} JUDGE_CASES={cases}, disagreements in {}", kept.display());
    let mut table = Table::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let numbers = (first..first + cases).filter(move |number| number % WORKERS == worker);
                let kept = &kept;
                scope.spawn(move || judge_all(numbers, seed, kept))
            })
            .collect();
        for worker in workers {
            table.merge(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        anyhow::Ok(())
    })?;
    println!("{table}");

    let (judged, taken) = table.counts();
    ensure!(
        judged as u64 == cases && (taken > judged / 20 || judged < 100),
        "too few cases are taken to prove anything"
    );
    ensure!(table.wrong_allows() == 0, "the product takes what a consumer refuses");
    let unnamed: Vec<_> = table
        .departures()
        .into_keys()
        .filter(|kind| DEPARTURES.iter().all(|(named, _)| named != kind))
        .map(ToOwned::to_owned)
        .collect();
    ensure!(unnamed.is_empty(), "refused without need and without a name: {unnamed:?}");
    Ok(())
}

#[test]
fn each_departure_has_its_words_in_the_documents() -> Result<()> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/design.md"))?;
    for (kind, words) in DEPARTURES {
        ensure!(document.contains(words), "{kind}: {words}");
    }
    for words in ["a revocation list past its end", "a CA with an empty subject"] {
        ensure!(document.contains(words), "{words}");
    }
    Ok(())
}

fn judge_all(numbers: impl Iterator<Item = u64>, seed: u64, kept: &Path) -> Result<Table> {
    let began = Timestamp::now();
    let keys = Keys::new()?;
    let mut go = Go::start()?;
    let folder = tempfile::tempdir()?;
    let mut table = Table::default();
    for number in numbers {
        let case = case(&keys, seed, number, began.as_second());
        let verdicts =
            Verdicts::of(&case, &mut go, folder.path()).with_context(|| format!("case {number} of seed {seed}"))?;
        table.add(&case, &verdicts, kept)?;
    }
    Ok(table)
}
