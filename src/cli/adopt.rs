//! `istio-ca-gate adopt`: a cluster's own CA becomes the root of all, where Vault has never had one.
//!
//! Written is once, with `cas=0`, what was read and shown; whatever becomes of the write, Vault is read again and
//! believed. Nothing is ever written over, and nothing in Kubernetes but with `--own`, which writes there alone.

mod decide;
mod own;
mod tell;

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use k8s_openapi::jiff::Timestamp;

use super::paint;
use crate::args::{KubernetesArgs, VaultArgs, cluster_name, dns_label};
use crate::ca::check::Sound;
use crate::k8s::access::Access;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::mesh;
use crate::k8s::pin::{self, Pins};
use crate::plan::{Names, Pin, Published, Role, Stored};
use crate::reason::{Held, Reason, foreign_text};
use crate::run::Failure;
use crate::run::parts;
use crate::store::Created;
use crate::vault::{Found, Vault};
use decide::Step;
use tell::Proposal;

/// A standby node shows a write within this: replication takes milliseconds.
const READS_BACK: usize = 10;
const READ_BACK_PAUSE: Duration = Duration::from_millis(500);

/// Where there is neither a terminal nor `--yes`.
const NOBODY_TO_ASK: &str = "standard input is not a terminal, so nobody can be asked: pass --yes (variable GATE_YES) to adopt, or --dry-run (variable GATE_DRY_RUN) to only see what would be done";

/// `istio-ca-gate adopt`.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Do not ask
    #[arg(long, env = "GATE_YES", value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Show what would be done, and stop
    #[arg(long, env = "GATE_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Hand a cacerts that was this gate's back to it, as after a restore from a backup: the same bytes, nothing in Vault
    #[arg(long, env = "GATE_OWN", value_parser = BoolishValueParser::new())]
    pub own: bool,
    /// The cluster's name in messages [default: the kubeconfig's context]
    #[arg(long, env = "GATE_CLUSTER", value_parser = cluster_name)]
    pub cluster: Option<String>,
    /// Namespace of the Secret
    #[arg(long, short, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    pub namespace: String,
    /// Name of the Secret that istiod reads its CA from
    #[arg(long, env = "GATE_SECRET", default_value = "cacerts", value_parser = dns_label)]
    pub secret: String,
    /// How to reach Vault
    #[command(flatten)]
    pub vault: VaultArgs,
    /// How to reach Kubernetes
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// Runs it.
///
/// # Errors
/// Why the CA was not adopted.
pub async fn run(args: Adopt) -> Result<ExitCode, Failure> {
    let asks = !args.yes && !args.dry_run;
    if asks && !io::stdin().is_terminal() {
        return Err(Failure::Usage(NOBODY_TO_ASK.to_owned()));
    }
    if args.own {
        return own::run(&args, asks).await;
    }
    let mut adoption = Adoption::prepare(&args).await?;
    let cluster = adoption.cluster.clone();
    let held = |held: Held| Failure::Held(held.without_promise().message(&cluster));

    let seen = adoption.look().await.map_err(held)?;
    if let Step::Nothing { version } = seen.step {
        say(&tell::nothing(&adoption.names, &seen.found.address, version, &seen.sound));
        return Ok(ExitCode::SUCCESS);
    }
    say(&adoption.proposal(&seen).text(Timestamp::now()));
    if args.dry_run {
        say("Dry run: nothing was written.");
        return Ok(ExitCode::SUCCESS);
    }
    if asks && !agreed("Adopt? [y/N] ").await {
        eprintln!("istio-ca-gate: not adopted: nothing was written");
        return Ok(ExitCode::FAILURE);
    }
    say(&adoption.adopt(&seen).await.map_err(held)?);
    Ok(ExitCode::SUCCESS)
}

/// Whoever closed standard output does not want to know.
pub(super) fn say(text: &str) {
    let _ = writeln!(paint::stdout(), "{text}");
}

/// Asks a person. The question stays visible where standard output goes elsewhere.
pub(super) async fn agreed(question: &str) -> bool {
    let _ = write!(io::stderr(), "{question}");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    answer.await.is_ok_and(|line| line.is_ok_and(|line| decide::is_yes(&line)))
}

/// One cluster's CA on its way into one Vault.
struct Adoption {
    /// What the cluster is called.
    cluster: String,
    /// The address of its API server.
    server: String,
    names: Names,
    cacerts: Cacerts,
    pins: Pins,
    vault: Vault,
}

/// Both sides at one moment, and what that means.
struct Seen {
    published: Published,
    pin: Option<Pin>,
    /// The cluster's CA.
    sound: Arc<Sound>,
    found: Found,
    step: Step,
}

impl Adoption {
    /// Speaks to nobody yet.
    async fn prepare(args: &Adopt) -> Result<Self, Failure> {
        let vault = parts::vault(&args.vault, Role::Bootstrap)?;
        let Access { client, server, context } = parts::access(&args.kubernetes).await?;
        let server = server.trim_end_matches('/').to_owned();
        let name = args.cluster.clone().or(context).unwrap_or_else(|| server.clone());
        Ok(Self {
            cluster: foreign_text(&name),
            server,
            names: Names {
                cacerts: format!("{}/{}", args.namespace, args.secret),
                pin: format!("{}/{}", args.namespace, pin::NAME),
                mesh: format!("{}/{}", args.namespace, mesh::NAME),
                record: vault.settings().record(),
            },
            cacerts: Cacerts::new(client.clone(), &args.namespace, &args.secret),
            pins: Pins::new(client, &args.namespace),
            vault,
        })
    }

    fn proposal<'a>(&'a self, seen: &'a Seen) -> Proposal<'a> {
        Proposal {
            cluster: &self.cluster,
            server: &self.server,
            names: &self.names,
            published: &seen.published,
            pin: seen.pin.as_ref(),
            sound: &seen.sound,
            address: &seen.found.address,
        }
    }

    /// Reads both sides. Writes nothing.
    async fn look(&mut self) -> Result<Seen, Held> {
        let (published, pins) = tokio::try_join!(self.cacerts.read(), self.pins.read())?;
        let pin = pins.in_force(&published)?;
        let sound = decide::candidate(&published, pin.as_ref(), &self.names)?;
        let found = self.vault.read(Timestamp::now()).await.map_err(|refused| refused.held)?;
        let step = decide::step(&found.stored, &sound, &self.names)?;
        if matches!(step, Step::Adopt) {
            self.vault.is_one(&found).await.map_err(|refused| refused.held)?;
        }
        Ok(Seen { published, pin, sound, found, step })
    }

    /// Looks again, since a person has been asked meanwhile, and writes what was shown, if it still is what is there.
    async fn adopt(&mut self, shown: &Seen) -> Result<String, Held> {
        let now = self.look().await?;
        if now.published.resource_version() != shown.published.resource_version() {
            return Err(decide::changed(&self.names));
        }
        if let Step::Nothing { version } = now.step {
            return Ok(tell::nothing(&self.names, &now.found.address, version, &now.sound));
        }
        let write = self.vault.create(&now.found, now.sound.bundle.to_record()).await;
        let ours = matches!(write, Created::Applied | Created::Unclear(_));
        let (found, version) = self.read_back(&now.sound, write).await?;
        let is_what_was_written = matches!(&found.stored, Stored::Sound { sound, .. } if sound.same_bytes(&now.sound));
        Ok(if ours && is_what_was_written {
            tell::adopted(&self.names, &found.address, version, &now.sound)
        } else {
            tell::nothing(&self.names, &found.address, version, &now.sound)
        })
    }

    /// What Vault holds after a write, however that ended: the record, and its version.
    async fn read_back(&mut self, sound: &Sound, write: Created) -> Result<(Found, u64), Held> {
        let (mut last, reads) = match write {
            Created::Applied | Created::Lost => (decide::behind(&self.names), READS_BACK),
            Created::Unclear(refused) => (decide::unclear(&refused.held), READS_BACK),
            // It says that there is no right to write, or that there is a record: the next read tells.
            Created::Forbidden(held) => (held, 1),
        };
        for left in (0..reads).rev() {
            match self.vault.read(Timestamp::now()).await {
                Ok(found) => match decide::step(&found.stored, sound, &self.names)? {
                    Step::Nothing { version } => return Ok((found, version)),
                    Step::Adopt => {}
                },
                Err(refused) if is_passing(refused.held.reason) => last = decide::unclear(&refused.held),
                Err(refused) => return Err(decide::unclear(&refused.held)),
            }
            if left > 0 {
                tokio::time::sleep(READ_BACK_PAUSE).await;
            }
        }
        Err(last)
    }
}

/// Whether the next read may be answered.
fn is_passing(reason: Reason) -> bool {
    matches!(reason, Reason::VaultUnreachable | Reason::VaultRateLimited | Reason::VaultSealed)
}
