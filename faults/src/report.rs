//! What `docs/reliability.md` says of the table: written by the run, and never by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::rows::{PARTS, Row, all};

/// The marks around the part of the page that is written here.
const MARKS: (&str, &str) = ("<!-- faults -->\n", "<!-- end of faults -->\n");

/// What came of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it held.
    pub held: bool,
    /// What it went through.
    pub figures: String,
    /// The day of the run.
    pub on: String,
}

/// By the names of proofs.
pub type Outcomes = BTreeMap<String, Outcome>;

/// Where outcomes are kept.
pub fn outcomes_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("outcomes.json")
}

/// The page.
pub fn page_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reliability.md")
}

/// Those of all runs so far, the last one of each proof.
pub fn read() -> Result<Outcomes> {
    let path = outcomes_file();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// Keeps them, and writes the page anew.
pub fn write(outcomes: &Outcomes) -> Result<()> {
    std::fs::write(outcomes_file(), serde_json::to_string_pretty(outcomes)? + "\n")?;
    let page = std::fs::read_to_string(page_file())?;
    std::fs::write(page_file(), replaced(&page, outcomes)?)?;
    Ok(())
}

/// The page with the part that is written here as it has to be.
pub fn replaced(page: &str, outcomes: &Outcomes) -> Result<String> {
    let (head, rest) = page.split_once(MARKS.0).context("the page has no mark")?;
    let (_, tail) = rest.split_once(MARKS.1).context("the page has no second mark")?;
    Ok([head, MARKS.0, &section(outcomes), MARKS.1, tail].concat())
}

fn section(outcomes: &Outcomes) -> String {
    let (mut text, mut counts) = (String::new(), BTreeMap::new());
    for (part, title) in PARTS {
        // A String takes all that is written.
        let _ = write!(
            text,
            "\n### {part}. {title}\n\n| | fault | may break | tried by | result |\n| --- | --- | --- | --- | --- |\n"
        );
        for row in all().filter(|row| row.id.starts_with(part)) {
            let (word, result) = result(row, outcomes);
            *counts.entry(word).or_insert(0) += 1;
            let promises: Vec<_> = row.promises.iter().map(|promise| format!("{promise:?}")).collect();
            let proofs: Vec<_> = row.proofs.iter().map(|proof| named(proof)).collect();
            let cells = [row.id, row.fault, &promises.join(", "), &proofs.join("<br>"), &result];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    format!("{} faults: {}.\n{text}", all().count(), counts.join(", "))
}

/// Where it is tried, and by what.
fn named(proof: &str) -> String {
    match proof.split_once(':') {
        Some((layer, test)) => format!("{layer} `{}`", test.trim_end_matches("::")),
        None => format!("`./test {}`", proof.replace("crash", "faults crash").replace("scenes", "faults scenes")),
    }
}

fn result(row: &Row, outcomes: &Outcomes) -> (&'static str, String) {
    if row.proofs.is_empty() {
        return ("not run", format!("not run: {}", row.not_run));
    }
    let of = |proof: &&str| outcomes.get(*proof);
    let known: Vec<_> = row.proofs.iter().filter_map(of).collect();
    if known.iter().any(|outcome| !outcome.held) {
        let fell = known.iter().filter(|outcome| !outcome.held).map(|outcome| outcome.figures.as_str());
        return ("fell", format!("**fell**: {}", fell.collect::<Vec<_>>().join("; ")));
    }
    let last = known.iter().map(|outcome| outcome.on.as_str()).max().unwrap_or_default();
    let figures: Vec<_> = known.iter().map(|outcome| outcome.figures.as_str()).collect();
    match known.len() {
        0 => ("not run", "not run: nobody has had it run since it was added".to_owned()),
        some if some < row.proofs.len() => ("held in part", format!("held in part, {last}: {}", figures.join("; "))),
        _ => ("held", format!("held, {last}: {}", figures.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_last_runs_came_to_and_has_every_row() -> Result<()> {
        let page = std::fs::read_to_string(page_file())?;
        assert!(replaced(&page, &read()?)? == page, "docs/reliability.md is stale: `./test faults report` writes it");
        for row in all() {
            assert!(page.contains(&format!("\n| {} | {} |", row.id, row.fault)), "{}", row.id);
        }
        Ok(())
    }

    #[test]
    fn no_outcome_is_of_a_proof_that_is_gone() -> Result<()> {
        let proofs: Vec<_> = all().flat_map(|row| row.proofs).collect();
        let gone: Vec<_> = read()?.into_keys().filter(|proof| !proofs.contains(&&proof.as_str())).collect();
        assert!(gone.is_empty(), "{gone:?}");
        Ok(())
    }

    #[test]
    fn a_row_tells_whether_all_some_or_none_of_its_proofs_held() {
        let row = |proofs| Row { id: "A1", fault: "f", promises: &[], proofs, not_run: "because" };
        let outcome = |held| Outcome { held, figures: "1 test".to_owned(), on: "2026-11-28".to_owned() };
        let outcomes = Outcomes::from([("a".to_owned(), outcome(true)), ("b".to_owned(), outcome(false))]);
        let told = |proofs| result(&row(proofs), &outcomes);
        assert_eq!(told(&["a"]), ("held", "held, 2026-11-28: 1 test".to_owned()));
        assert_eq!(told(&["a", "c"]).0, "held in part");
        assert_eq!(told(&["a", "b"]), ("fell", "**fell**: 1 test".to_owned()));
        assert_eq!(told(&["c"]).0, "not run");
        assert_eq!(told(&[]), ("not run", "not run: because".to_owned()));
    }
}
