//! The commands for people: each asks, prints, and ends with an exit code.

pub mod adopt;
pub mod check;
pub mod doctor;
pub mod explain;
pub mod fingerprint;
pub(crate) mod paint;
pub mod rotate;
pub mod shell;
mod source;
pub(crate) mod table;
pub mod verify;

use std::process::ExitCode;

use crate::args::Command;
use crate::run::{self, Failure};

/// Runs a command to its end.
///
/// # Errors
/// Why it could not be done.
pub async fn run(command: Command) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Serve(args) => run::serve(*args, crate::VERSION).await.map(done),
        Command::Bootstrap(args) => run::bootstrap(*args, crate::VERSION).await.map(done),
        Command::Sync(args) => run::sync(*args, crate::VERSION).await.map(done),
        Command::Verify(args) => verify::run(*args).await,
        Command::Fingerprint(args) => fingerprint::run(*args).await.map(done),
        Command::Check(args) => check::run(args).await,
        Command::Doctor(args) => doctor::run(*args).await,
        Command::Explain(args) => explain::run(&args).map(done),
        Command::Adopt(args) => adopt::run(*args).await,
        Command::Rotate(args) => rotate::run(args).await,
        Command::Completions(args) => shell::completions(&args).map(done),
        Command::Man(args) => shell::man(&args).map(done),
    }
}
