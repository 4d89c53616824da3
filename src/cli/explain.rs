//! `istio-ca-gate explain`: what a code means and what to do, without leaving the terminal.

use std::io::{self, Write};

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::paint::{self, Tone, paint};
use crate::explain::{Explanation, Topic, entries, entry, text};
use crate::run::Failure;

/// Longer lines are hard to read.
const WIDEST: usize = 100;

/// `istio-ca-gate explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  istio-ca-gate explain RootMissing\n  istio-ca-gate explain vault-login")]
pub struct Explain {
    /// A reason code, an alert, or the id of a line of doctor [default: list them all]
    #[arg(value_name = "CODE", value_parser = codes(), ignore_case = true, hide_possible_values = true)]
    pub code: Option<String>,
}

fn codes() -> PossibleValuesParser {
    PossibleValuesParser::new(entries().into_iter().map(|entry| entry.code))
}

/// Tells it, or lists all that can be told.
///
/// # Errors
/// Why it could not be written.
pub fn run(args: &Explain) -> Result<(), Failure> {
    let told = match args.code.as_deref().and_then(entry) {
        Some(entry) => one(&entry, paint::columns().unwrap_or(WIDEST).min(WIDEST)),
        None => list(),
    };
    match writeln!(paint::stdout(), "{told}") {
        // Whoever closed it does not want to know.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn one(entry: &Explanation, columns: usize) -> String {
    let Explanation { code, kind, .. } = entry;
    format!("{} ({})\n\n{}", paint(Tone::Doubtful, code), kind.as_str(), text(entry, columns))
}

fn list() -> String {
    let all = entries();
    let of = |kind: Topic, heading: &str| {
        let codes: Vec<_> = all.iter().filter(|entry| entry.kind == kind).map(|entry| entry.code).collect();
        format!("{}\n  {}", paint(Tone::Doubtful, heading), codes.join("\n  "))
    };
    [
        of(Topic::Reason, "Reason codes, of denials and of what is held"),
        of(Topic::Doctor, "Lines of doctor"),
        of(Topic::Alert, "Alerts"),
    ]
    .join("\n\n")
}
