//! `istio-ca-gate fingerprint`.

use clap::Args;

use crate::run::Failure;

/// `istio-ca-gate fingerprint`.
#[derive(Debug, Args)]
pub struct Fingerprint {}

/// Runs it.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Fingerprint) -> Result<(), Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}
