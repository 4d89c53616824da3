//! `istio-ca-gate rotate`: the root is replaced over all clusters, one write at a time, by whoever runs it.
//!
//! Nothing is kept here: what is done is in Vault's record, and what comes next is said by [`crate::life::rule`].

mod conduct;
mod import;
mod rescue;
mod show;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::adopt::{agreed, say};
use super::paint;
use crate::args::{VaultArgs, cluster_name};
use crate::ca::record::{IssuerName, Rotation};
use crate::durations;
use crate::life::{change, start};
use crate::reason::{Held, foreign_text};
use crate::run::Failure;
use crate::run::parts;
use crate::signer::{Signer, root_common_name};
use conduct::{Conductor, Outcome, refused};

/// Whoever changes the root logs in as this, unless told otherwise: no gate may.
const ROLE: &str = "istio-ca-rotate";

/// How often `status --watch` looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// `istio-ca-gate rotate`.
///
/// Replaces the root over all clusters, one write to Vault's record at a time, each only when every cluster is seen to work
/// with the one before: docs/rotate.md.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Rotate {
    /// What to do about the root.
    #[command(subcommand)]
    command: RotateCommand,
}

/// What can be done about the root.
#[derive(Debug, Subcommand)]
enum RotateCommand {
    /// Make a new root in Vault, and set out to replace the present one by it. Shows the plan first
    Start(Box<Start>),
    /// Show how far it is, what is waited for, and until when
    Status(Box<Status>),
    /// Take the one step that is due, if there is one
    Step(Box<StepArgs>),
    /// Have no step taken until it is resumed
    Pause(Box<Change>),
    /// Have steps taken again
    Resume(Box<Change>),
    /// Go back to the root that there was; done twice, it goes on
    Abort(Box<Change>),
    /// No longer wait for a cluster that is gone for good
    Forget(Box<Forget>),
    /// Bring the root that all clusters have the key of into Vault's PKI engine, and take the key away from them
    Import(Box<import::Import>),
    /// Bring clusters whose istiods made roots of their own under one. Shows the plan first
    Rescue(Box<rescue::RescueArgs>),
}

#[derive(Debug, Args)]
struct Start {
    /// Longest life of a workload's certificate in any cluster
    #[arg(long, env = "GATE_ROTATE_TTL", default_value = "24h", value_parser = durations::life)]
    ttl: Duration,
    /// Name of the new root among Vault's issuers [default: root- and the next number]
    #[arg(long, env = "GATE_ROTATE_GOAL")]
    goal: Option<IssuerName>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Status {
    /// Show it again and again
    #[arg(long, short, env = "GATE_WATCH", value_parser = BoolishValueParser::new())]
    watch: bool,
    /// text for people, or json
    #[arg(long, short, env = "GATE_OUTPUT", value_enum, default_value = "text")]
    output: RotateOutput,
    /// How to reach Vault
    #[command(flatten)]
    vault: VaultArgs,
}

#[derive(Debug, Args)]
struct StepArgs {
    /// How to reach Vault
    #[command(flatten)]
    vault: VaultArgs,
}

#[derive(Debug, Args)]
struct Change {
    /// Do not ask
    #[arg(long, env = "GATE_YES", value_parser = BoolishValueParser::new())]
    yes: bool,
    /// How to reach Vault
    #[command(flatten)]
    vault: VaultArgs,
}

#[derive(Debug, Args)]
struct Forget {
    /// The cluster
    #[arg(value_name = "CLUSTER", value_parser = cluster_name)]
    cluster: String,
    #[command(flatten)]
    change: Change,
}

/// Shapes of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RotateOutput {
    /// A table.
    Text,
    /// An object.
    Json,
}

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub async fn run(args: Rotate) -> Result<ExitCode, Failure> {
    match args.command {
        RotateCommand::Start(args) => begin(*args).await,
        RotateCommand::Status(args) => status(*args).await,
        RotateCommand::Step(args) => step(&args.vault).await,
        RotateCommand::Pause(args) => {
            changed(&args, "Pause the rotation?", "paused: no step is taken until it is resumed", |data| {
                change::paused(data, true)
            })
            .await
        }
        RotateCommand::Resume(args) => {
            let done = "resumed: what is due is taken by `istio-ca-gate rotate step`";
            changed(&args, "Resume the rotation?", done, |data| change::paused(data, false)).await
        }
        RotateCommand::Abort(args) => {
            let done = "turned round: `istio-ca-gate rotate step` leads back from here";
            changed(&args, "Go back to the root that there was?", done, change::aborted).await
        }
        RotateCommand::Forget(args) => forget(*args).await,
        RotateCommand::Import(args) => import::run(*args).await,
        RotateCommand::Rescue(args) => Box::pin(rescue::run(*args)).await,
    }
}

fn conductor(vault: &VaultArgs) -> Result<Conductor, Failure> {
    let settings = vault.settings_as(ROLE).map_err(Failure::Usage)?;
    if settings.pki_mount.is_none() {
        let missing = "--vault-pki-mount (variable GATE_VAULT_PKI_MOUNT): the PKI engine that has the roots";
        return Err(Failure::Usage(missing.to_owned()));
    }
    Ok(Conductor::new(parts::vault_of(settings)?))
}

fn held(held: &Held) -> Failure {
    Failure::Held(format!("{}: {}", held.reason, held.without_promise().sentence()))
}

/// All that is in the way, each with its reason code.
fn all_held(causes: impl IntoIterator<Item = Held>) -> Failure {
    let lines: Vec<_> = causes.into_iter().map(|cause| format!("{}: {}", cause.reason, cause.sentence())).collect();
    Failure::Held(lines.join("\n"))
}

async fn confirmed(args: &Change, question: &str) -> Result<bool, Failure> {
    if args.yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        let nobody = "standard input is not a terminal, so nobody can be asked: pass --yes (variable GATE_YES)";
        return Err(Failure::Usage(nobody.to_owned()));
    }
    let agreed = agreed(&format!("{question} [y/N] ")).await;
    if !agreed {
        eprintln!("istio-ca-gate: nothing was written");
    }
    Ok(agreed)
}

async fn begin(args: Start) -> Result<ExitCode, Failure> {
    let mut conductor = conductor(&args.change.vault)?;
    let life = conductor.read().await.map_err(|refused| held(&refused))?;
    let goal = match args.goal {
        Some(goal) => goal,
        None => show::next_name(life.record.issuer.as_ref()),
    };
    let clusters = life.heard.keys().cloned().collect::<BTreeSet<_>>();
    let obstacles = start::obstacles(&life.record, goal.as_str(), &clusters, args.ttl, &life.heard, life.now);
    if !obstacles.is_empty() {
        return Err(all_held(obstacles.iter().map(start::Obstacle::held)));
    }
    let rotation = Rotation {
        goal,
        from: life.record.issuer.iter().cloned().collect(),
        clusters,
        ttl: args.ttl,
        paused: false,
        started: life.now,
        by: whoever(),
        seen: Default::default(),
    };
    say(&show::plan(&rotation));
    if !confirmed(&args.change, "Start?").await? {
        return Ok(ExitCode::FAILURE);
    }
    let (goal, data) = (rotation.goal.clone(), change::started(&life.data, &rotation));
    let made = conductor.vault().make_root(goal.as_str(), &root_common_name(goal.as_str())).await;
    made.map_err(|error| held(&refused(error)))?;
    conductor.write(&life, data).await.map_err(|refused| held(&refused))?;
    say(&format!("Started: {goal} is the goal. `istio-ca-gate rotate step` takes each step when it is due."));
    Ok(ExitCode::SUCCESS)
}

/// For others, who meet a rotation that they did not begin.
fn whoever() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    foreign_text(&format!("{user}@{}", parts::instance()))
}

async fn status(args: Status) -> Result<ExitCode, Failure> {
    let mut conductor = conductor(&args.vault)?;
    let is_live = args.watch && args.output == RotateOutput::Text && io::stdout().is_terminal();
    loop {
        let looked = conductor.look().await;
        if is_live {
            // The screen, and the place to begin at.
            let _ = write!(paint::stdout(), "\x1b[2J\x1b[H");
        }
        match (looked, args.output) {
            (Ok(seen), RotateOutput::Text) => say(&show::status(&seen)),
            (Ok(seen), RotateOutput::Json) if args.watch => say(&show::json(&seen).to_string()),
            (Ok(seen), RotateOutput::Json) => say(&format!("{:#}", show::json(&seen))),
            // Who watches wants to see the end of it.
            (Err(refused), _) if args.watch => eprintln!("istio-ca-gate: {}", held(&refused)),
            (Err(refused), _) => return Err(held(&refused)),
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn step(vault: &VaultArgs) -> Result<ExitCode, Failure> {
    let mut conductor = conductor(vault)?;
    match conductor.step().await.map_err(|refused| held(&refused))? {
        Outcome::Took(step) => say(&format!("{}: {}", step.as_str(), step.does())),
        Outcome::Rest => say("Nothing to do: no root is being replaced."),
        Outcome::Paused => say("Nothing to do: the rotation is paused."),
        Outcome::Waits { until, then } => {
            say(&format!("Nothing to do before {until}: then comes {}, which {}.", then.as_str(), then.does()));
        }
        Outcome::Held(causes) => return Err(all_held(causes.iter().map(crate::life::rule::Cause::held))),
    }
    Ok(ExitCode::SUCCESS)
}

async fn changed(
    args: &Change,
    question: &str,
    done: &str,
    change: impl Fn(&change::Data) -> Result<change::Data, change::Unchangeable>,
) -> Result<ExitCode, Failure> {
    let mut conductor = conductor(&args.vault)?;
    // What can only be refused is not asked about.
    let life = conductor.read().await.map_err(|refused| held(&refused))?;
    change(&life.data).map_err(|error| held(&conduct::unchangeable(error)))?;
    if !confirmed(args, question).await? {
        return Ok(ExitCode::FAILURE);
    }
    conductor.change(change).await.map_err(|refused| held(&refused))?;
    say(&format!("The rotation is {done}."));
    Ok(ExitCode::SUCCESS)
}

async fn forget(args: Forget) -> Result<ExitCode, Failure> {
    let Forget { cluster, change } = args;
    let mut conductor = conductor(&change.vault)?;
    conductor.may_forget(&cluster).await.map_err(|refused| held(&refused))?;
    say(&format!(
        "If {cluster} ever comes back, it does not trust the new root, and nobody trusts what it has: it has to be joined anew."
    ));
    if !confirmed(&change, &format!("Forget cluster {cluster}?")).await? {
        return Ok(ExitCode::FAILURE);
    }
    conductor.forget(&cluster).await.map_err(|refused| held(&refused))?;
    say(&format!("Nobody waits for {cluster} any more."));
    Ok(ExitCode::SUCCESS)
}
