//! `istio-ca-gate verify`.

use clap::Args;

use crate::run::Failure;

/// `istio-ca-gate verify`.
#[derive(Debug, Args)]
pub struct Verify {}

/// Runs it.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Verify) -> Result<std::process::ExitCode, Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}
