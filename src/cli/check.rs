//! `istio-ca-gate check`: the strict check on files, without a cluster or a Vault.

mod read;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::paint::{self, Tone, paint};
use crate::ca::check::{Flaw, Note, Sound, check};
use crate::ca::record::{IssuerName, SigningRecord};
use crate::report::stamp;
use crate::run::Failure;
use read::{Given, Unreadable};

const AFTER_HELP: &str = "\
Examples:
  istio-ca-gate check certs/
  kubectl -n istio-system get secret cacerts -o yaml | istio-ca-gate check -
  vault kv get -format=json secret/istio/ca | istio-ca-gate check -
Exit codes: 0 all are sound, 1 one is refused, 2 one could not be read.
Nothing of a key is printed.";

/// `istio-ca-gate check`.
///
/// Judges a CA offline by the very check that the gate opens by: a line for each finding, with its cause and what to do.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// Folder of the four files, JSON or YAML of a Secret, or JSON of Vault's record; - is standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// text for people, or json: a list of {place, verdict, findings, rootSha256, roots, usableUntil, usableUntilSetBy}
    #[arg(long, short, env = "GATE_OUTPUT", value_enum, default_value = "text")]
    output: Output,
}

/// Shapes of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each finding.
    Text,
    /// A list of objects.
    Json,
}

/// What is told of one place.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Judgement {
    place: String,
    verdict: Verdict,
    findings: Vec<Finding>,
    root_sha256: Option<String>,
    roots: Vec<String>,
    usable_until: Option<String>,
    usable_until_set_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Sound,
    Refused,
    Unread,
}

/// A cause, and what to do about it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    kind: &'static str,
    cause: String,
    remedy: Option<String>,
}

/// Runs it. The exit code tells the worst of all places.
///
/// # Errors
/// None: what cannot be read is told with the rest.
pub async fn run(args: Check) -> Result<ExitCode, Failure> {
    let now = Timestamp::now();
    let mut reports = Vec::new();
    for path in &args.paths {
        let (place, read) = read::read(path).await;
        reports.push(report(place, judge(read, now)));
    }
    let text = match args.output {
        Output::Text => reports.iter().map(lines).collect(),
        // Strings and lists always can be written.
        Output::Json => serde_json::to_string_pretty(&reports).unwrap_or_default() + "\n",
    };
    // Whoever closed standard output does not want to know.
    let _ = paint::stdout().write_all(text.as_bytes());
    Ok(ExitCode::from(code(&reports)))
}

fn code(reports: &[Judgement]) -> u8 {
    let has = |verdict| reports.iter().any(|report| report.verdict == verdict);
    match () {
        () if has(Verdict::Unread) => 2,
        () if has(Verdict::Refused) => 1,
        () => 0,
    }
}

/// What passed.
enum Passed {
    Ca(Sound),
    Record(Box<SigningRecord>),
}

fn judge(read: Result<Result<Given, Flaw>, Unreadable>, now: Timestamp) -> Result<Result<Passed, Flaw>, Unreadable> {
    read.map(|given| match given? {
        Given::Files(bundle) => check(bundle, now).map(Passed::Ca),
        Given::Signing(data) => SigningRecord::parse(&data, now).map(|record| Passed::Record(Box::new(record))),
    })
}

fn report(place: String, judged: Result<Result<Passed, Flaw>, Unreadable>) -> Judgement {
    let empty = |verdict, finding| Judgement {
        place: place.clone(),
        verdict,
        findings: vec![finding],
        root_sha256: None,
        roots: Vec::new(),
        usable_until: None,
        usable_until_set_by: None,
    };
    match judged {
        Err(Unreadable { cause, remedy }) => {
            empty(Verdict::Unread, Finding { kind: "unread", cause, remedy: Some(remedy) })
        }
        Ok(Err(flaw)) => {
            let remedy = Some(flaw.remedy()).filter(|remedy| !remedy.is_empty());
            empty(Verdict::Refused, Finding { kind: "refusal", cause: flaw.to_string(), remedy })
        }
        Ok(Ok(Passed::Record(record))) => {
            let issuer = record.issuer.as_ref().map_or("nobody yet", IssuerName::as_str);
            let cause = format!("a record of the signing kind, by which signers are certified by {issuer}");
            Judgement {
                root_sha256: Some(record.glance().sha256.openssl()),
                roots: record.roots().iter().map(|root| root.openssl()).collect(),
                usable_until: Some(stamp(record.usable_until().at)),
                usable_until_set_by: Some(record.usable_until().by.to_string()),
                ..empty(Verdict::Sound, Finding { kind: "note", cause, remedy: None })
            }
        }
        Ok(Ok(Passed::Ca(sound))) => Judgement {
            place,
            verdict: Verdict::Sound,
            findings: sound.notes.iter().map(noted).collect(),
            root_sha256: Some(sound.root.openssl()),
            roots: sound.roots().iter().map(|root| root.openssl()).collect(),
            usable_until: Some(stamp(sound.usable_until.at)),
            usable_until_set_by: Some(sound.usable_until.by.to_string()),
        },
    }
}

fn noted(note: &Note) -> Finding {
    let kind = if note.is_warning() { "warning" } else { "note" };
    Finding { kind, cause: note.to_string(), remedy: None }
}

/// A line for the verdict on what is sound, and one for each finding.
fn lines(report: &Judgement) -> String {
    let Judgement { place, findings, .. } = report;
    let mut lines = Vec::new();
    if let (Some(root), Some(until), Some(by)) =
        (&report.root_sha256, &report.usable_until, &report.usable_until_set_by)
    {
        let sound = paint(Tone::Good, "sound");
        lines.push(format!("{place}: {sound}, root sha256 {root}, usable until {until} by {by}\n"));
    }
    for Finding { kind, cause, remedy } in findings {
        let tone = match *kind {
            "refusal" => Tone::Bad,
            "note" => Tone::Faint,
            _ => Tone::Doubtful,
        };
        let remedy = remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default();
        let kind = paint(tone, if *kind == "refusal" { "refused" } else { kind });
        lines.push(format!("{place}: {kind}: {cause}{remedy}\n"));
    }
    lines.concat()
}

#[cfg(test)]
mod tests;
