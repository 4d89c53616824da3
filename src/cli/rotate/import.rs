//! `istio-ca-gate rotate import`: the root of a running mesh stays what it is, and its key leaves the clusters.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::conduct::refused;
use super::{Change, all_held, conductor, confirmed, held};
use crate::args::signing_cluster_name;
use crate::ca::check::Sound;
use crate::ca::record::SigningRecord;
use crate::cli::adopt::say;
use crate::life::start;
use crate::plan::Stored;
use crate::reason::{ByItself, Held, Reason};
use crate::run::Failure;
use crate::signer::FIRST_ROOT;
use crate::vault::{Found, Vault, Written};

/// `istio-ca-gate rotate import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// Cluster that shares the key, repeated: all of them. Each has to work with a signer of its own before the versions of
    /// the record that have the key are destroyed
    #[arg(
        long = "of",
        env = "GATE_IMPORT_OF",
        value_name = "CLUSTER",
        value_delimiter = ',',
        required = true,
        value_parser = signing_cluster_name
    )]
    of: Vec<String>,
    #[command(flatten)]
    change: Change,
}

/// Does what is still to be done: run it again until it says that all is.
pub(super) async fn run(args: Import) -> Result<ExitCode, Failure> {
    let clusters: BTreeSet<String> = args.of.into_iter().collect();
    let mut conductor = conductor(&args.change.vault)?;
    let found = conductor.vault().read(Timestamp::now()).await.map_err(|error| held(&refused(error)))?;
    if let Stored::Sound { version, sound } = &found.stored {
        let heard = conductor.vault().heard(&found).await.map_err(|error| held(&refused(error)))?;
        let unready = start::unready(&clusters, &heard, found.by_its_clock(Timestamp::now()));
        let all: BTreeSet<String> = clusters.iter().chain(heard.keys()).cloned().collect();
        say(&plan(sound, &all, &unready));
        if !unready.is_empty() {
            return Err(all_held(unready.iter().map(start::Obstacle::held)));
        }
        if !confirmed(&args.change, "Go on?").await? {
            return Ok(ExitCode::FAILURE);
        }
        let name = bring(conductor.vault(), &found, *version, sound).await.map_err(|error| held(&error))?;
        say(&format!(
            "The record names issuer {name}, and has no key any more. Each gate has a signer certified for its cluster, which \
             istiod takes without a restart. Run this again in a few minutes: it destroys the old versions then."
        ));
    }
    // What is neither of the two kinds is refused here.
    let life = conductor.read().await.map_err(|error| held(&error))?;
    let waits = start::obstacles(&life.record, "", &clusters, Duration::MAX, &life.heard, life.now);
    if !waits.is_empty() {
        return Err(all_held(waits.iter().map(start::Obstacle::held)));
    }
    let destroyed = conductor.vault().destroy_before(life.version).await.map_err(|error| held(&refused(error)))?;
    say(&format!(
        "All clusters work with a signer of their own, and {} with the shared key {} destroyed in Vault. Whoever has copied that \
         key can still be the mesh: `istio-ca-gate rotate start` replaces the root, and makes it worthless.",
        if destroyed.is_empty() { "all versions".to_owned() } else { format!("versions {destroyed:?}") },
        if destroyed.is_empty() { "were" } else { "are" },
    ));
    Ok(ExitCode::SUCCESS)
}

fn plan(sound: &Sound, clusters: &BTreeSet<String>, unready: &[start::Obstacle]) -> String {
    let names: Vec<_> = clusters.iter().map(String::as_str).collect();
    format!(
        "Root {} stays as it is, to the last byte, and no workload and no istiod is restarted.\n\
         1. It is brought into Vault's PKI engine, with its key.\n\
         2. The record is written without the key, and names the root as issuer.\n\
         3. The gates of {} have a signer certified each, and publish it: they need --vault-pki-mount and their policy.\n\
         4. Once all work with theirs, the versions of the record that have the key are destroyed.\n\n{}",
        sound.root.openssl(),
        names.join(", "),
        readiness(clusters, unready)
    )
}

/// A line for each cluster: whether it could go by a record of the signing kind.
pub(super) fn readiness(clusters: &BTreeSet<String>, unready: &[start::Obstacle]) -> String {
    let line = |name: &String| {
        let is_ready = !unready.iter().any(|obstacle| obstacle.cluster() == Some(name));
        format!("{name}: {}\n", if is_ready { "ready" } else { "not ready" })
    };
    clusters.iter().map(line).collect()
}

/// Steps 1 and 2. What an earlier run has done is found.
async fn bring(vault: &mut Vault, found: &Found, version: u64, sound: &Sound) -> Result<String, Held> {
    let name = vault.import_root(FIRST_ROOT, sound).await.map_err(refused)?;
    let issuer =
        name.parse().map_err(|_| unfit(&format!("its issuer's name {name} is none that a record can have")))?;
    let root_cert = std::str::from_utf8(&sound.bundle.root_cert).map_err(|_| unfit("root-cert.pem is no text"))?;
    let data = SigningRecord::first(root_cert, &issuer);
    // What every gate will read has to pass what every gate checks.
    SigningRecord::parse(&data, Timestamp::now()).map_err(|flaw| unfit(&flaw.to_string()))?;
    match vault.write_over_shared(found, version, data).await.map_err(refused)? {
        Written::Applied(_) => Ok(name),
        Written::Lost => Err(unfit("it changed meanwhile")),
    }
}

fn unfit(why: &str) -> Held {
    let what = format!("Vault's record cannot be written without its key ({why})");
    Held::new(Reason::RotationHeld, what, "look at it, and run this again", ByItself::Unsaid)
}
