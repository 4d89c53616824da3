//! Faults by chance, on two embedded clusters and their Vault, and ends of the process at every call and faults of a cluster, on real ones. An
//! observer judges what the servers recorded.
//!
//! ```text
//! cargo test --test faults -- random [--for 75s] [--runs N] [--seed N]
//! cargo test --test faults -- judge FILE…
//! cargo test --test faults -- crash [homelab|nas]
//! cargo test --test faults -- scenes
//! ```

#![allow(unreachable_pub, clippy::print_stdout, reason = "a test binary has no API, and prints what it found")]

mod arena;
mod balancer;
mod bridge;
mod crash;
#[path = "../real/gate.rs"]
#[allow(dead_code, reason = "shared with the tests on real components")]
mod gate;
mod journal;
mod lines;
mod random;
mod scenes;
mod schedule;
#[path = "../real/world.rs"]
#[allow(dead_code, reason = "shared with the tests on real components")]
mod world;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use faults::history::History;
use faults::judge::{Verdict, judge};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--nocapture").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Only fails if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match start(&args) {
        Ok(passed) => {
            println!("test result: ok. {passed} passed; 0 failed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("test result: FAILED. {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[&str]) -> Result<usize> {
    let runtime = tokio::runtime::Runtime::new()?;
    match args {
        ["judge", files @ ..] if !files.is_empty() => judged(files),
        ["crash", side] if testbed::evidence::folder().is_some() => runtime.block_on(crash::all(side)),
        ["scenes"] if testbed::evidence::folder().is_some() => runtime.block_on(Box::pin(scenes::all())),
        ["crash"] => observed(&["crash", "homelab"]).and_then(|first| Ok(first + observed(&["crash", "nas"])?)),
        ["crash", _] | ["scenes"] => observed(args),
        ["random", flags @ ..] => runtime.block_on(random::all(&random::Settings::of(flags)?)),
        _ => bail!("what is to be done? See the head of tests/faults/main.rs"),
    }
}

/// Does it in a process of its own, with a folder for what an observer needs.
fn observed(args: &[&str]) -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let mut again = std::process::Command::new(std::env::current_exe()?);
    let status = again.args(args).env("TESTBED_EVIDENCE", folder.path()).status()?;
    if !status.success() {
        let kept = folder.keep();
        bail!("{}: {status}; what the servers recorded is in {}", args.join(" "), kept.display());
    }
    Ok(1)
}

/// Judges histories that were kept.
fn judged(files: &[&str]) -> Result<usize> {
    for file in files {
        let history = History::read(Path::new(file))?;
        kept(&judge(&history)).with_context(|| (*file).to_owned())?;
        println!("{file}: {} lines, every promise was kept", history.0.len());
    }
    Ok(files.len())
}

/// An error unless every promise was kept.
pub fn kept(verdict: &Verdict) -> Result<()> {
    match verdict {
        Verdict::Kept => Ok(()),
        Verdict::Invalid(why) => bail!("it shows nothing: {why}"),
        Verdict::Broken(breaches) => {
            bail!("{}", breaches.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}
