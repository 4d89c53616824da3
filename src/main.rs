//! The binary: see the library.

use std::process::ExitCode;

use clap::Parser;
use istio_ca_gate::args::{Cli, one_line};
use istio_ca_gate::cli;
use istio_ca_gate::hygiene;
use istio_ca_gate::run::Failure;
use istio_ca_gate::telemetry;

/// Wipes what is freed: hyper, reqwest, serde and kube leave plain copies of keys behind.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    hygiene::keep_memory_private();
    hygiene::keep_panics_short();
    let args = match Cli::try_parse() {
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
