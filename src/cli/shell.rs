//! Completions and man pages.

use clap::Args;

use crate::run::Failure;

/// `istio-ca-gate completions`.
#[derive(Debug, Args)]
pub struct Completions {}

/// `istio-ca-gate man`.
#[derive(Debug, Args)]
pub struct Man {}

/// Prints completions for a shell.
///
/// # Errors
/// Why it could not be done.
pub fn completions(args: &Completions) -> Result<(), Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}

/// Writes the man pages.
///
/// # Errors
/// Why it could not be done.
pub fn man(args: &Man) -> Result<(), Failure> {
    Err(Failure::Broken(format!("{args:?}")))
}
