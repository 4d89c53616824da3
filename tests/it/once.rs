//! `bootstrap` and `sync` as processes, between a stand-in for Vault and one for the API server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testbed::eventually;
use tokio::process::{Child, Command};

use crate::certificates::Authority;
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS, status};
use crate::product::{SOON, binary, kubeconfig};
use crate::vault::{self, JWT, LOGIN, READ, WRITE, errors, never_written, version};
use standin::scripted::StandIn;

/// One convergence between an empty Vault and an empty cluster.
pub struct World {
    pub kubernetes: Kubernetes,
    pub vault: StandIn,
    folder: tempfile::TempDir,
}

/// How a run ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The line with which it ended.
    pub fn last(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

impl World {
    pub async fn start() -> Result<Self> {
        let (kubernetes, vault) = (Kubernetes::start().await?, vault::start().await?);
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig(&kubernetes.server.url()))?;
        std::fs::write(folder.path().join("jwt"), JWT)?;
        Ok(Self { kubernetes, vault, folder })
    }

    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut command = Command::new(binary());
        command.args(args).env_clear();
        command.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        command.env("VAULT_ADDR", self.vault.url()).env("GATE_VAULT_JWT_FILE", self.folder.path().join("jwt"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command.spawn()?)
    }

    pub async fn run(&self, args: &[&str]) -> Result<Ended> {
        ended(self.spawn(args)?).await
    }

    /// Waits until Vault was read so often.
    pub async fn reads(&self, count: usize) -> Result<()> {
        eventually("the next read of Vault", SOON, || async {
            let reads = self.vault.count(READ);
            ensure!(reads >= count, "{reads} reads");
            Ok(())
        })
        .await
    }

    pub fn has_nothing(&self) -> Result<()> {
        ensure!(self.kubernetes.get(SECRETS, "cacerts").is_none(), "cacerts was written");
        ensure!(self.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").is_none(), "a pin was written");
        ensure!(self.vault.count(WRITE) == 0, "Vault was written to");
        Ok(())
    }
}

pub async fn ended(child: Child) -> Result<Ended> {
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.context("it does not end")??;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(Ended { code: output.status.code(), stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_makes_the_root_once_and_is_idempotent() -> Result<()> {
    let world = World::start().await?;
    let first = world.run(&["bootstrap", "--cluster", "homelab"]).await?;
    ensure!(first.code == Some(0), "{}", first.stderr);
    let line = "Secret istio-system/cacerts holds the root of secret/istio/ca in Vault: version 1, sha256 ";
    ensure!(first.stdout.lines().count() == 1 && first.stdout.starts_with(line), "{}", first.stdout);
    let [write] = &world.vault.of(WRITE)[..] else { anyhow::bail!("{:?}", world.vault.lines()) };
    ensure!(write.json()["options"] == json!({ "cas": 0 }));
    let cacerts = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    let pin = world.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?;
    let root = pin["data"]["root-sha256"].as_str().context("no root")?;
    ensure!(first.stdout.trim_end().ends_with(root), "{}", first.stdout);

    for command in ["bootstrap", "sync"] {
        let again = world.run(&[command]).await?;
        ensure!(again.code == Some(0) && again.stdout == first.stdout, "{command}: {} {}", again.stdout, again.stderr);
    }
    ensure!(world.vault.count(WRITE) == 1);
    ensure!(world.kubernetes.get(SECRETS, "cacerts") == Some(cacerts), "cacerts was written again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_wait_a_held_convergence_is_one_attempt_and_ends_with_its_code() -> Result<()> {
    let world = World::start().await?;
    let held = world.run(&["sync", "--cluster", "nas"]).await?;
    ensure!(held.code == Some(1) && held.stdout.is_empty(), "{:?} {}", held.code, held.stdout);
    let line = held.last();
    ensure!(
        line.starts_with("istio-ca-gate: RootMissing: cluster nas: Vault has no root at secret/istio/ca"),
        "{line}"
    );
    ensure!(line.ends_with("start istiod in the bootstrap cluster"), "{line}");
    ensure!(world.vault.count(READ) == 1, "{:?}", world.vault.lines());
    world.has_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_wait_it_goes_on_until_the_root_is_there() -> Result<()> {
    let (world, authority) = (World::start().await?, Authority::new("Istio Root CA")?);
    let waiting = world.spawn(&["sync", "--wait", "60s"])?;
    world.reads(3).await?;
    world.has_nothing()?;
    world.vault.always(READ, version(4, &authority.record()));
    let done = ended(waiting).await?;
    ensure!(done.code == Some(0) && done.stdout.contains("version 4"), "{:?} {}", done.code, done.stderr);
    let cacerts = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    ensure!(cacerts["data"] == authority.secret_data() && world.vault.count(WRITE) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_wait_is_over_it_ends_with_the_last_reason() -> Result<()> {
    let world = World::start().await?;
    world.vault.once(READ, errors(503, &["Vault is sealed"]));
    let began = Instant::now();
    let held = world.run(&["sync", "--wait", "2s", "--retry-max", "200ms"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("RootMissing: cluster sync: "), "{}", held.stderr);
    ensure!(held.stderr.contains("VaultSealed"), "{}", held.stderr);
    // It used its time: no pause is longer than --retry-max.
    ensure!(world.vault.waiting() == 0 && world.vault.count(READ) > 2 && began.elapsed() > Duration::from_millis(1800));
    world.has_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_wish_to_be_left_alone_is_kept_even_if_that_ends_it() -> Result<()> {
    let world = World::start().await?;
    world.vault.always(
        READ,
        errors(429, &["request path \"secret\": rate limit quota exceeded"]).header("retry-after", "3600"),
    );
    let held = world.run(&["sync", "--wait", "50s"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("VaultRateLimited: cluster sync: "), "{}", held.stderr);
    ensure!(held.last().ends_with("raise its rate limit quota") && world.vault.count(READ) == 1, "{}", held.last());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_its_waiting() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::start().await?;
        let waiting = world.spawn(&["sync", "--wait", "24h"])?;
        world.reads(1).await?;
        let pid = waiting.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it has ended")?;
        kill_process(pid, signal)?;
        let done = ended(waiting).await?;
        // By itself, as a container's first process has to.
        ensure!(done.code == Some(1) && done.last().contains("ended by a signal"), "{:?} {}", done.code, done.stderr);
        world.has_nothing()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_may_not_write_it_leaves_alone() -> Result<()> {
    let (world, other) = (World::start().await?, Authority::new("Another Root CA")?);
    world.kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": other.secret_data() }))?;
    let held = world.run(&["bootstrap"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("CacertsUnknown: cluster bootstrap: "), "{}", held.stderr);
    ensure!(held.last().contains("`istio-ca-gate adopt`"), "{}", held.last());
    world.vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    let held = world.run(&["sync"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("RootChanged: cluster sync: "), "{}", held.stderr);
    let cacerts = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    ensure!(cacerts["data"] == other.secret_data() && world.vault.count(WRITE) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_either_side_has_its_code() -> Result<()> {
    let world = World::start().await?;
    world.vault.always(LOGIN, errors(403, &["permission denied"]));
    let held = world.run(&["bootstrap"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("VaultLoginDenied: "), "{}", held.stderr);

    let world = World::start().await?;
    world.kubernetes.server.always(&format!("POST {SECRETS}"), status(403, "Forbidden"));
    let authority = Authority::new("Istio Root CA")?;
    world.vault.always(READ, version(1, &authority.record()));
    let held = world.run(&["sync"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("KubernetesForbidden: "), "{}", held.stderr);
    ensure!(world.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").is_none(), "a pin of what was not published");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_vault_has_lost_is_not_made_again() -> Result<()> {
    let world = World::start().await?;
    ensure!(world.run(&["bootstrap"]).await?.code == Some(0));
    world.vault.always(READ, never_written());
    let held = world.run(&["bootstrap", "--wait", "1s", "--retry-max", "100ms"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("RootDeleted: cluster bootstrap: "), "{}", held.stderr);
    ensure!(held.last().contains("`istio-ca-gate adopt`") && world.vault.count(WRITE) == 1, "{}", held.last());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_wait_names_flag_and_variable() -> Result<()> {
    let world = World::start().await?;
    for args in [["bootstrap", "--wait=soon"], ["sync", "--wait=-1s"]] {
        let wrong = world.run(&args).await?;
        ensure!(wrong.code == Some(2) && wrong.stderr.lines().count() == 1, "{}", wrong.stderr);
        ensure!(wrong.stderr.contains("--wait") && wrong.stderr.contains("(variable GATE_WAIT)"), "{}", wrong.stderr);
    }
    ensure!(world.vault.seen().is_empty() && world.kubernetes.server.seen().is_empty());
    Ok(())
}
