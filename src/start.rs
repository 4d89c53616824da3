//! The program from its command line to its exit code.

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, one_line};
use crate::run::Failure;
use crate::{cli, hygiene, telemetry};

/// What a file of the program is called.
pub const NAME: &str = "istio-ca-gate";

/// What it is called where kubectl finds it as a plugin: a dash would be a word of its own.
pub const PLUGIN: &str = "kubectl-istio_ca_gate";

/// Runs it.
pub fn start() -> ExitCode {
    hygiene::keep_memory_private();
    hygiene::keep_panics_short();
    let command = Cli::command().bin_name(typed(called().as_deref()));
    let parsed = command.try_get_matches().and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let Some(line) = one_line(&error) else { error.exit() };
            eprintln!("istio-ca-gate: {line}");
            return ExitCode::from(2);
        }
    };
    // Only fails if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("istio-ca-gate: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli::run(args.command));
    // The making of a key cannot be stopped, and need not be waited for.
    runtime.shutdown_background();
    let failure = match ended {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    telemetry::last_words(format!("istio-ca-gate: {failure}"));
    match failure {
        Failure::Usage(_) => ExitCode::from(2),
        Failure::Broken(_) | Failure::Held(_) => ExitCode::FAILURE,
    }
}

/// The name of the file that was called, without its folder.
pub fn called() -> Option<String> {
    let path = std::env::args_os().next()?;
    Path::new(&path).file_name()?.to_str().map(str::to_owned)
}

/// What its user typed.
fn typed(called: Option<&str>) -> &'static str {
    if called == Some(PLUGIN) { "kubectl istio-ca-gate" } else { NAME }
}
