//! The program: see the library.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use istio_ca_gate::shutdown::Signals;
use istio_ca_gate::start;
use sandbox::istiods::Istiods;
use sandbox::stay;
use sandbox::tell::Teller;
use sandbox::tour::{self, Standing};
use sandbox::world::Trouble;

/// Shows istio-ca-gate at work: two clusters and a Vault in this process, on loopback only
#[derive(Debug, Parser)]
#[command(version, name = "sandbox")]
struct Args {
    /// End after the tour: exit code 0 if all went as told, 1 if not
    #[arg(long)]
    once: bool,
    /// Run the tour on real Kubernetes control planes and a real Vault (found, or built with Go)
    #[arg(long)]
    real: bool,
    /// Switch a fault on before the tour, as vault=sealed or nas=slow=200ms, repeated; the tour may not go as told
    #[arg(long, value_name = "SERVER=FAULT", conflicts_with = "real")]
    fault: Vec<Trouble>,
}

/// As a shell reports a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // What the tour prints to try calls it by the program's own name.
    if start::called().is_some_and(|name| [start::NAME, start::PLUGIN].contains(&name.as_str())) {
        return start::start();
    }
    let args = Args::parse();
    if let Err(error) = leave_environment() {
        eprintln!("sandbox: {error:#}");
        return ExitCode::FAILURE;
    }
    // Only fails if there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sandbox: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(&args));
    // A line of standard input may still be waited for.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The gates read the same variables as ever: a user's own Vault must not be meant by them.
fn leave_environment() -> Result<()> {
    let ours = |name: &str| name.starts_with("GATE_") || name.starts_with("VAULT_") || name == "RUST_LOG";
    let names: Vec<_> =
        std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(ours)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    for name in &names {
        again.env_remove(name);
    }
    // Returns only if it cannot.
    Err(again.exec()).context("cannot start anew without the variables GATE_*, VAULT_* and RUST_LOG")
}

async fn run(args: &Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let folder = tempfile::Builder::new().prefix("istio-ca-gate-sandbox-").tempdir()?;
    let teller = Teller::default();
    let (standing, _istiods) = tokio::select! {
        toured = Box::pin(toured(args, &teller, folder.path())) => match toured {
            Ok(toured) => toured,
            Err(error) => {
                // What the gates said is wanted now.
                let kept = folder.keep();
                return Err(error.context(format!("the gates' logs are in {}", kept.display())));
            }
        },
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    if !args.once {
        tokio::select! {
            stayed = stay::open(&teller, &standing, folder.path()) => stayed?,
            () = signals.next() => {}
        }
    }
    let Standing { homelab, nas, world } = standing;
    tokio::try_join!(homelab.stop(), nas.stop())?;
    drop(world);
    Ok(ExitCode::SUCCESS)
}

async fn toured(args: &Args, teller: &Teller, folder: &Path) -> Result<(Standing, Istiods)> {
    let standing = tour::start(teller, args.real, folder).await?;
    args.fault.iter().for_each(|trouble| standing.world.inject(*trouble));
    tour::go(teller, standing, folder).await
}
