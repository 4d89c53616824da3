//! The binary: see the library.

use std::process::ExitCode;

use clap::Parser;
use istio_ca_gate::args::{Cli, Command, one_line};
use istio_ca_gate::run::{self, Failure};

/// Wipes what is freed: hyper, reqwest, serde and kube leave plain copies of keys behind.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    istio_ca_gate::hygiene::keep_memory_private();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
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
    let ended = match cli.command {
        Command::Serve(args) => runtime.block_on(run::serve(*args)),
        Command::Bootstrap(args) => runtime.block_on(run::bootstrap(*args)),
        Command::Sync(args) => runtime.block_on(run::sync(*args)),
    };
    // The making of a key cannot be stopped, and need not be waited for.
    runtime.shutdown_background();
    let Err(failure) = ended else { return ExitCode::SUCCESS };
    eprintln!("istio-ca-gate: {failure}");
    match failure {
        Failure::Usage(_) => ExitCode::from(2),
        Failure::Broken(_) | Failure::Held(_) => ExitCode::FAILURE,
    }
}
