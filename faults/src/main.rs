//! Runs what proves the rows of the table, has the observer judge what real servers recorded meanwhile, and writes
//! `docs/reliability.md`.
//!
//! ```text
//! cargo run -p faults                     all of it
//! cargo run -p faults -- E D1 it:         these parts, rows or layers
//! cargo run -p faults -- report           writes the page from what is known
//! ```

#![allow(clippy::print_stdout, reason = "it tells how far it is")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use faults::evidence;
use faults::history::{Line, Promises, Said};
use faults::judge::{Verdict, judge_evidence};
use faults::report::{self, Outcome, Outcomes};
use faults::rows::{Row, all, layer};

/// What is promised of a run that others make.
const PROMISES: Promises =
    Promises { unseen: 100_000, heals: 0, resident: u64::MAX, descriptors: u64::MAX, each_hits: false };

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(fell) if fell.is_empty() => ExitCode::SUCCESS,
        Ok(fell) => {
            println!("faults: fell: {}", fell.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<Vec<String>> {
    let mut outcomes = report::read()?;
    let known: BTreeSet<_> = all().flat_map(|row| row.proofs).map(ToString::to_string).collect();
    outcomes.retain(|proof, _| known.contains(proof));
    if args == ["report"] {
        report::write(&outcomes)?;
        return Ok(Vec::new());
    }
    let proofs: BTreeSet<&str> = all().flat_map(|row| wanted(row, args)).collect();
    ensure!(!proofs.is_empty(), "no row, part or layer is called {}", args.join(", "));
    let mut fell = Vec::new();
    for (proof, outcome) in together(&proofs)? {
        keep(&mut outcomes, &mut fell, proof, outcome)?;
    }
    for proof in proofs.iter().filter(|proof| is_alone(proof)) {
        keep(&mut outcomes, &mut fell, (*proof).to_owned(), alone(proof)?)?;
    }
    Ok(fell)
}

/// Which of a row's proofs are asked for: all, by its id or part, or those of a layer.
fn wanted<'a>(row: &'a Row, args: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    let is_part = |arg: &&String| row.id == **arg || row.id.trim_end_matches(char::is_numeric) == **arg;
    let whole = args.is_empty() || args.iter().any(|arg| is_part(&arg));
    row.proofs.iter().copied().filter(move |proof| whole || args.iter().any(|arg| proof.starts_with(arg.as_str())))
}

/// Kept at once: what has run is known also if the rest is broken off.
fn keep(outcomes: &mut Outcomes, fell: &mut Vec<String>, proof: String, outcome: Outcome) -> Result<()> {
    println!("faults: {proof}: {}: {}", if outcome.held { "held" } else { "FELL" }, outcome.figures);
    if !outcome.held {
        fell.push(proof.clone());
    }
    outcomes.insert(proof, outcome);
    report::write(outcomes)
}

/// What takes a process of its own: real components, whose evidence is judged, and the runs of `tests/faults`.
fn is_alone(proof: &str) -> bool {
    proof.starts_with("real:") || !proof.contains(':')
}

fn today() -> String {
    jiff::Timestamp::now().to_string().split('T').next().unwrap_or_default().to_owned()
}

fn outcome(held: bool, figures: String) -> Outcome {
    Outcome { held, figures, on: today() }
}

/// All others, a run for each layer and each module.
fn together(proofs: &BTreeSet<&str>) -> Result<Vec<(String, Outcome)>> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for proof in proofs.iter().filter(|proof| !is_alone(proof)) {
        let (name, test) = proof.split_once(':').context("no layer")?;
        names.entry(name).or_default().push(test);
    }
    let mut done = Vec::new();
    for (name, tests) in names {
        let ran = cargo_test(name, &tests, None)?;
        for test in tests {
            let of = ran.iter().filter(|(ran, _)| ran == test || (is_module(test) && ran.starts_with(test)));
            let (held, fell): (Vec<_>, Vec<_>) = of.partition(|(_, held)| *held);
            let is_held = fell.is_empty() && !held.is_empty();
            let figures =
                if is_held { tests_told(held.len()) } else { format!("{} fell, {} held", fell.len(), held.len()) };
            done.push((format!("{name}:{test}"), outcome(is_held, figures)));
        }
    }
    Ok(done)
}

fn is_module(test: &str) -> bool {
    test.is_empty() || test.ends_with("::")
}

fn tests_told(count: usize) -> String {
    if count == 1 { "1 test".to_owned() } else { format!("{count} tests") }
}

fn alone(proof: &str) -> Result<Outcome> {
    let Some((name, test)) = proof.split_once(':') else { return run_of_faults(proof) };
    let folder = tempfile::tempdir()?;
    let ran = cargo_test(name, &[test], Some(folder.path()))?;
    let ran: Vec<_> = ran.iter().filter(|(ran, _)| ran == test || (is_module(test) && ran.starts_with(test))).collect();
    if ran.is_empty() || ran.iter().any(|(_, held)| !held) {
        return Ok(outcome(false, format!("{} tests, not all held", ran.len())));
    }
    let promises = Line { at: 0, said: Said::Run { seed: None, promises: PROMISES } };
    let history = evidence::history(folder.path(), vec![promises])?;
    let (writes, pods) =
        (history.0.iter().filter(|line| is_write(line)).count(), history.0.iter().filter(|line| is_pod(line)).count());
    let bytes: u64 = history.0.iter().map(scanned).sum();
    let seen = format!("{writes} writes of record and `cacerts`, {pods} gated pods, {} KiB of logs", bytes >> 10);
    Ok(match judge_evidence(&history, &PROMISES) {
        Verdict::Kept => outcome(true, format!("{}, observed: {seen}", tests_told(ran.len()))),
        Verdict::Invalid(why) => outcome(true, format!("{}; {why}", tests_told(ran.len()))),
        Verdict::Broken(breaches) => {
            let kept = folder.keep();
            println!("faults: {proof}: what the servers recorded is in {}", kept.display());
            breaches.iter().for_each(|breach| println!("faults: {proof}: {breach}"));
            outcome(false, breaches.first().map(ToString::to_string).unwrap_or_default())
        }
    })
}

fn is_write(line: &Line) -> bool {
    matches!(line.said, Said::Record { .. } | Said::Cacerts { .. })
}

fn is_pod(line: &Line) -> bool {
    matches!(line.said, Said::Pod { gated: true, .. })
}

fn scanned(line: &Line) -> u64 {
    if let Said::Scanned { bytes, .. } = line.said { bytes } else { 0 }
}

/// A run of `tests/faults`: its last line of figures is what it came to.
fn run_of_faults(proof: &str) -> Result<Outcome> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--test", "faults", "--"]).args(proof.split(' '));
    let (held, text) = told(cargo)?;
    let name = proof.split(' ').next().unwrap_or_default();
    let figures = text.lines().rfind(|line| line.starts_with(&format!("{name}: ")));
    Ok(outcome(held, figures.unwrap_or("it said nothing").trim_start_matches(&format!("{name}: ")).to_owned()))
}

/// Each test that ran, and whether it held.
fn cargo_test(name: &str, tests: &[&str], evidence: Option<&Path>) -> Result<Vec<(String, bool)>> {
    let (_, args) = layer(name).with_context(|| format!("no layer {name}"))?;
    let (modules, exact): (Vec<&str>, Vec<&str>) = tests.iter().copied().partition(|test| is_module(test));
    let mut ran = Vec::new();
    for (tests, flags) in [(exact, &["--exact"][..]), (modules, &[])] {
        if tests.is_empty() {
            continue;
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--locked", "--no-fail-fast"]).args(args).arg("--").args(flags).args(tests);
        cargo.envs(evidence.map(|folder| ("TESTBED_EVIDENCE", folder)));
        let (_, text) = told(cargo)?;
        ran.extend(text.lines().filter_map(|line| {
            let (test, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
            Some((test.to_owned(), result.starts_with("ok")))
        }));
    }
    Ok(ran)
}

fn told(mut command: Command) -> Result<(bool, String)> {
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}
