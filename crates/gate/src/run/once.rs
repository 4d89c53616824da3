//! One convergence, and out: the Job of old, without a webhook.

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

use super::parts::{self, Made};
use super::{Failure, PIN_AGE_MAX};
use crate::args::Once;
use crate::clock::Clocks;
use crate::converge::{Converger, Schedule};
use crate::metrics::{Labels, Metrics};
use crate::plan::Role;
use crate::shutdown::Signals;
use crate::telemetry;

/// Longest wait for the Events of what was done: nobody depends on them.
const EVENTS_WAIT: Duration = Duration::from_secs(2);

/// Makes the root where Vault has never had one, and publishes it.
///
/// # Errors
/// The reason, if it is held back for longer than `--wait`; or a wrong configuration.
pub async fn bootstrap(args: Once, version: &'static str) -> Result<(), Failure> {
    once(args, Role::Bootstrap, version).await
}

/// Publishes Vault's root.
///
/// # Errors
/// The reason, if it is held back for longer than `--wait`; or a wrong configuration.
pub async fn sync(args: Once, version: &'static str) -> Result<(), Failure> {
    once(args, Role::Sync, version).await
}

async fn once(args: Once, role: Role, version: &'static str) -> Result<(), Failure> {
    let _logging = telemetry::init(&args.log).map_err(Failure::Usage)?;
    // The first process of a container is not ended by a signal that it does not listen to.
    let mut signals = Signals::listen().map_err(|error| Failure::Broken(error.to_string()))?;
    let vault = parts::vault(&args.vault, role)?;
    let record = vault.settings().record();
    let client = parts::client(&args.kubernetes).await?;
    // Nobody scrapes a process that ends.
    let labels = Labels { cluster: args.cluster.name_in(role), role, version };
    let metrics = Metrics::new(labels).map_err(Failure::Broken)?;
    let Made { clients, attempts, writer, .. } =
        parts::assemble(role, &args.cluster, &args.converge, &client, vault, PIN_AGE_MAX, &metrics)?;
    let converger = Converger::new(clients.cacerts.watched(), Clocks::now);
    // The attempts alone tell Events from here on.
    drop(clients);
    let events_written = tokio::spawn(writer.run());
    // Once it is open, it ends: nothing is refreshed.
    let schedule = Schedule { retry_max: args.converge.retry_max, refresh: Duration::ZERO };
    let opened = tokio::select! {
        opened = converger.until_open(attempts, schedule, Instant::now() + args.wait) => opened,
        () = signals.next() => {
            return Err(Failure::Broken("ended by a signal before it was done: run it again, it goes on from there".to_owned()));
        }
    };
    // The attempts, which tell them, are gone. What fails is logged.
    let _ = tokio::time::timeout(EVENTS_WAIT, events_written).await;
    let verified = opened.map_err(|held| Failure::Held(held.without_promise().message(&args.cluster.name_in(role))))?;
    let line = format!(
        "Secret {}/{} holds the root of {record} in Vault: version {}, sha256 {}",
        args.cluster.namespace, args.cluster.secret, verified.version, verified.stored.root
    );
    // Whoever closed standard output does not want to know.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}
