//! `istio-ca-gate rotate rescue`: clusters whose istiods have made roots of their own are brought under one.
//!
//! Each run does what is still to be done. Nothing that a mesh trusts is taken away here: that is the last step of the
//! rotation that the record begins with, by [`crate::life::rule`].

mod sides;
mod tell;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::conduct::{Conductor, refused};
use super::{Change, RotateOutput, all_held, conductor, confirmed, held, whoever};
use crate::args::dns_label;
use crate::ca::record::{Rotation, SigningRecord};
use crate::cli::adopt::say;
use crate::durations;
use crate::life::change::rescuing;
use crate::life::rescue::{Rescue, SplitCluster, Unrescuable, rescue};
use crate::plan::Stored;
use crate::reason::{ByItself, Held, Reason};
use crate::run::Failure;
use crate::signer::{FIRST_ROOT, Signer, root_common_name};
use crate::store::Created;
use crate::vault::Found;
use sides::{Side, Split};

/// `istio-ca-gate rotate rescue`.
#[derive(Debug, Args)]
pub(super) struct RescueArgs {
    /// Each cluster, by its context in the kubeconfig: NAME, or CLUSTER=NAME where its gate has another --cluster; repeated
    #[arg(
        long = "context",
        env = "GATE_RESCUE_CONTEXTS",
        value_name = "[CLUSTER=]CONTEXT",
        value_delimiter = ',',
        required = true
    )]
    contexts: Vec<Split>,
    /// Namespace of istiod and cacerts
    #[arg(long, short, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    namespace: String,
    /// Longest life of a workload's certificate in any cluster
    #[arg(long, env = "GATE_ROTATE_TTL", default_value = "24h", value_parser = durations::life)]
    ttl: Duration,
    /// Life of the signer that each cluster has under its own root until they are brought together
    #[arg(long, env = "GATE_SIGNER_LIFE", default_value = "2160h", value_parser = durations::life)]
    signer_life: Duration,
    /// text for people, or json
    #[arg(long, short, env = "GATE_OUTPUT", value_enum, default_value = "text")]
    output: RotateOutput,
    #[command(flatten)]
    change: Change,
}

/// Both sides at one moment.
struct Looked {
    found: Found,
    sides: Vec<Side>,
    todo: BTreeMap<String, Rescue>,
}

/// Does what is still to be done: run it again until it says that all is.
pub(super) async fn run(args: RescueArgs) -> Result<ExitCode, Failure> {
    let mut conductor = conductor(&args.change.vault)?;
    let looked = look(&args, &mut conductor).await?;
    let is_text = args.output == RotateOutput::Text;
    if is_text {
        say(&tell::plan(&looked, args.ttl));
    }
    if looked.todo.values().any(|todo| *todo != Rescue::Done) {
        if !confirmed(&args.change, "Go on?").await? {
            return Ok(ExitCode::FAILURE);
        }
        let record = match &looked.found.stored {
            Stored::Signing { version, record } => (*version, SigningRecord::clone(record)),
            _ => begin(&args, &mut conductor, &looked).await.map_err(|error| held(&error))?,
        };
        bring(&args, looked.sides, &looked.todo, &record).await?;
        say(&if is_text { tell::done() } else { tell::json(&record.1, &looked.todo) });
    } else {
        let Stored::Signing { record, .. } = &looked.found.stored else { return Ok(ExitCode::SUCCESS) };
        say(&if is_text { tell::nothing() } else { tell::json(record, &looked.todo) });
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads both sides, and finds what is to be done, or says all that stands in the way.
async fn look(args: &RescueArgs, conductor: &mut Conductor) -> Result<Looked, Failure> {
    let vault = conductor.vault();
    let found = vault.read(Timestamp::now()).await.map_err(|error| held(&refused(error)))?;
    let heard = vault.heard(&found).await.map_err(|error| held(&refused(error)))?;
    let record = begun(&found.stored).map_err(|error| held(&error))?;
    let asked = args.contexts.iter().map(|split| Side::look(split, args));
    let (mut sides, mut failed) = (Vec::new(), Vec::new());
    for side in futures::future::join_all(asked).await {
        match side? {
            Ok(side) => sides.push(side),
            Err(held) => failed.push(held),
        }
    }
    if !failed.is_empty() {
        return Err(all_held(failed));
    }
    let clusters: Vec<_> = sides
        .iter()
        .map(|side| SplitCluster {
            name: &side.name,
            own: side.own.as_ref().map(|own| own.sha256),
            mesh: &side.mesh,
            cacerts: &side.cacerts,
        })
        .collect();
    let todo = rescue(record, &clusters, &heard, found.by_its_clock(Timestamp::now()));
    let todo = todo.map_err(|obstacles| all_held(obstacles.iter().map(Unrescuable::held)))?;
    let todo = todo.into_iter().map(|(name, todo)| (name.to_owned(), todo)).collect();
    Ok(Looked { found, sides, todo })
}

/// The record of a rescue that was begun, if there is one.
fn begun(stored: &Stored) -> Result<Option<&SigningRecord>, Held> {
    let (what, next) = match stored {
        Stored::Absent => return Ok(None),
        Stored::Signing { record, .. } if record.under_way().is_some_and(|rotation| rotation.from.is_empty()) => {
            return Ok(Some(record));
        }
        Stored::Deleted { .. } => ("Vault's record is deleted", "bring it back with `vault kv undelete`"),
        Stored::Unsound { .. } => ("Vault's record does not pass the check", "see `istio-ca-gate doctor`"),
        Stored::Signing { .. } | Stored::Sound { .. } => (
            "Vault has a root already, and a rescue begins where there is none",
            "see \"A cluster that comes late\" in docs/rotate.md",
        ),
    };
    Err(Held::new(Reason::RotationHeld, what, next, ByItself::Unsaid))
}

/// The one write that begins it: nothing has changed in any cluster by then.
async fn begin(args: &RescueArgs, conductor: &mut Conductor, looked: &Looked) -> Result<(u64, SigningRecord), Held> {
    let vault = conductor.vault();
    vault.is_one(&looked.found).await.map_err(refused)?;
    let goal = vault.make_root(FIRST_ROOT, &root_common_name(FIRST_ROOT)).await.map_err(refused)?;
    let rotation = Rotation {
        goal: FIRST_ROOT.parse().map_err(|_| unwritten("its issuer's name cannot be used"))?,
        from: Vec::new(),
        clusters: looked.sides.iter().map(|side| side.name.clone()).collect(),
        ttl: args.ttl,
        paused: false,
        started: looked.found.by_its_clock(Timestamp::now()),
        by: whoever(),
        seen: BTreeMap::new(),
    };
    let own = looked.sides.iter().filter_map(|side| side.own.as_ref().map(|own| own.pem.as_str()));
    let data = rescuing(own, &rotation, &goal);
    // What every gate will read has to pass what every gate checks.
    let record = SigningRecord::parse(&data, Timestamp::now()).map_err(|flaw| unwritten(&flaw.to_string()))?;
    match vault.create(&looked.found, data).await {
        Created::Applied => Ok((1, record)),
        Created::Lost => Err(unwritten("somebody else has written one meanwhile")),
        Created::Forbidden(held) => Err(held),
        Created::Unclear(error) => Err(refused(error).noting("run this again: it goes on with what is there")),
    }
}

fn unwritten(why: &str) -> Held {
    let what = format!("the record of the rescue is not written ({why})");
    Held::new(Reason::RotationHeld, what, "run this again", ByItself::Unsaid)
}

/// What is to be done in the clusters. One that fails keeps no other from it.
async fn bring(
    args: &RescueArgs,
    sides: Vec<Side>,
    todo: &BTreeMap<String, Rescue>,
    record: &(u64, SigningRecord),
) -> Result<(), Failure> {
    let is_text = args.output == RotateOutput::Text;
    let mut failed = Vec::new();
    for side in sides {
        match side.bring(todo[&side.name], args.signer_life, record).await {
            Ok(said) if is_text => said.iter().for_each(|line| say(line)),
            Ok(_) => {}
            Err(held) => failed.push(held),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(all_held(failed)) }
}
