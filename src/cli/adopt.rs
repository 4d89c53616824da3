//! `istio-ca-gate adopt`.

use clap::Args;

use crate::run::Failure;

/// `istio-ca-gate adopt`.
#[derive(Debug, Args)]
pub struct Adopt {}

/// Runs it.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Adopt) -> Result<(), Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}
