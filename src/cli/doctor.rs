//! `istio-ca-gate doctor`.

use clap::Args;

use crate::run::Failure;

/// `istio-ca-gate doctor`.
#[derive(Debug, Args)]
pub struct Doctor {}

/// Runs it.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Doctor) -> Result<std::process::ExitCode, Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}
