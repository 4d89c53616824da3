//! `adopt` as a process, between a stand-in for Vault and one for the API server.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::certificates::Authority;
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS, status};
use crate::product::{binary, kubeconfig};
use crate::vault::{self, HEALTH, LOGIN, PREFLIGHT, READ, WRITE, errors, health, mount, never_written, version};
use standin::scripted::{Answer, StandIn};

/// How a run ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A cluster with a CA of its own, and an empty Vault.
struct World {
    kubernetes: Kubernetes,
    vault: StandIn,
    /// Of an administrator of Vault.
    token: String,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Result<Self> {
        let kubernetes = Kubernetes::start().await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig(&kubernetes.server.url()))?;
        let known = vault::known().await?;
        let (vault, token) = (StandIn::before(known.embedded()).await?, known.root_token().to_owned());
        let world = Self { vault, token, authority: Authority::new("Own Root CA")?, kubernetes, folder };
        world.publish(&world.authority)?;
        Ok(world)
    }

    fn publish(&self, authority: &Authority) -> Result<()> {
        self.put_cacerts(authority.secret_data())
    }

    fn put_cacerts(&self, data: Value) -> Result<()> {
        self.kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": data })).map(drop)
    }

    fn put_pin(&self, root: &str) -> Result<()> {
        let metadata =
            json!({ "name": "istio-ca-gate", "labels": { "app.kubernetes.io/managed-by": "istio-ca-gate" } });
        self.kubernetes.put(CONFIG_MAPS, json!({ "metadata": metadata, "data": { "root-sha256": root } })).map(drop)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("adopt").args(args).env_clear();
        command.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        command.env("VAULT_ADDR", self.vault.url()).env("VAULT_TOKEN", &self.token);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it without a terminal.
    async fn run(&self, args: &[&str]) -> Result<Ended> {
        self.ended(self.command(args)).await
    }

    async fn ended(&self, mut command: Command) -> Result<Ended> {
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
        self.checked(Ended { code: output.status.code(), stdout: text(output.stdout)?, stderr: text(output.stderr)? })
    }

    /// Runs it on a terminal, does something while it waits for the answer, and gives the answer.
    async fn asked(&self, while_it_waits: impl FnOnce() -> Result<()>, answer: &'static [u8]) -> Result<Ended> {
        self.asked_by(self.command(&[]), async || while_it_waits(), answer).await
    }

    async fn asked_by(
        &self,
        mut command: Command,
        while_it_waits: impl AsyncFnOnce() -> Result<()>,
        answer: &'static [u8],
    ) -> Result<Ended> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let terminal = ptsname(&keyboard, Vec::new())?.into_string()?;
        let terminal = File::options().read(true).write(true).open(terminal)?;
        let mut child = command.stdin(terminal).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("no standard error")?);
        let (mut stderr, asked) = tokio::task::spawn_blocking(move || {
            let mut asked = Vec::new();
            while !asked.ends_with(b"[y/N] ") {
                let mut byte = [0];
                stderr.read_exact(&mut byte).with_context(|| String::from_utf8_lossy(&asked).into_owned())?;
                asked.extend(byte);
            }
            anyhow::Ok((stderr, asked))
        })
        .await?
        .context("nobody was asked")?;
        while_it_waits().await?;
        File::from(keyboard.try_clone()?).write_all(answer)?;
        let output = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            stderr.read_to_string(&mut rest)?;
            anyhow::Ok((child.wait_with_output()?, rest))
        });
        let (output, rest) = output.await??;
        let stderr = String::from_utf8(asked)? + "\n" + &rest;
        self.checked(Ended { code: output.status.code(), stdout: String::from_utf8(output.stdout)?, stderr })
    }

    /// Whatever it says, it says nothing of a key or token.
    fn checked(&self, ended: Ended) -> Result<Ended> {
        let said = [ended.stdout.as_str(), &ended.stderr].concat();
        let key = self.authority.key_pem();
        let mut secrets = key.lines().filter(|line| !line.starts_with("-----")).chain([&*self.token]);
        ensure!(secrets.all(|secret| !said.contains(secret)), "{said}");
        ensure!(!said.contains("PRIVATE KEY-"), "{said}");
        Ok(ended)
    }

    /// Runs it with `--yes`, and expects this code, one line, and a Vault to which nothing was sent.
    async fn refused(&self, code: &str, says: &[&str]) -> Result<()> {
        let writes = self.vault.count(WRITE);
        self.refused_after(code, says).await?;
        ensure!(self.vault.count(WRITE) == writes, "{code}: it was written to Vault");
        Ok(())
    }

    async fn refused_after(&self, code: &str, says: &[&str]) -> Result<()> {
        let Ended { code: exit, stdout, stderr } = self.run(&["--yes"]).await?;
        let what = format!("{code}: {exit:?}: {stdout}{stderr}");
        ensure!(exit == Some(1) && stderr.lines().count() == 1, "{what}");
        ensure!(stderr.starts_with(&format!("istio-ca-gate: {code}: cluster c: ")), "{what}");
        ensure!(says.iter().all(|says| stderr.contains(says)), "not all of {says:?}: {what}");
        ensure!(!stderr.contains("by itself") && !stdout.contains("Adopted"), "{what}");
        self.changed_nothing()
    }

    fn changed_nothing(&self) -> Result<()> {
        let lines = self.kubernetes.server.lines();
        ensure!(lines.iter().all(|line| line.starts_with("GET ")), "{lines:?}");
        Ok(())
    }

    fn finds(&self, lines: &[(&str, Answer)]) {
        lines.iter().for_each(|(line, answer)| self.vault.always(line, answer.clone()));
    }
}

fn record_of(authority: &Authority, number: u64) -> Answer {
    version(number, &authority.record())
}

fn gone(number: u64) -> Answer {
    let metadata = json!({ "version": number, "deletion_time": "2026-01-01T00:00:00Z", "destroyed": false });
    Answer::json(404, &json!({ "data": { "data": null, "metadata": metadata } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_both_sides_and_writes_nothing() -> Result<()> {
    let world = World::start().await?;
    let Ended { code, stdout, stderr } = world.run(&["--dry-run"]).await?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?} {stderr}");
    let server = world.kubernetes.server.url();
    for part in [
        &*format!("c ({server})"),
        "istio-system/cacerts",
        "CN=Own Root CA",
        "SHA-256",
        "expires",
        "the root itself",
        &world.vault.url(),
        "secret/istio/ca, never written",
        "Dry run: nothing was written.",
    ] {
        ensure!(stdout.contains(part), "{part} is not in {stdout}");
    }
    ensure!(world.vault.count(WRITE) == 0);
    world.changed_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_yes_it_is_written_once_with_check_and_set_and_read_back() -> Result<()> {
    let world = World::start().await?;
    let Ended { code, stdout, stderr } = world.run(&["--yes"]).await?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?} {stderr}");
    ensure!(stdout.contains("Adopted: secret/istio/ca") && stdout.contains("version 1"), "{stdout}");
    let [write] = &world.vault.of(WRITE)[..] else { anyhow::bail!("{:?}", world.vault.lines()) };
    ensure!(write.json() == json!({ "data": world.authority.record(), "options": { "cas": 0 } }));
    ensure!(write.token() == world.token && world.vault.count(LOGIN) == 0);
    // The last thing that it did is to look.
    ensure!(world.vault.lines().last().is_some_and(|line| line == READ), "{:?}", world.vault.lines());
    world.changed_nothing()?;

    // The second time there is nothing to do, and nobody has to say yes to that.
    for args in [&["--yes"][..], &["--dry-run"]] {
        let Ended { code, stdout, stderr } = world.run(args).await?;
        ensure!(code == Some(0) && stderr.is_empty() && stdout.starts_with("Nothing to do: "), "{stdout} {stderr}");
    }
    ensure!(world.vault.count(WRITE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_and_without_yes_it_is_wrong_use_and_nobody_is_asked_anything() -> Result<()> {
    let world = World::start().await?;
    let Ended { code, stdout, stderr } = world.run(&[]).await?;
    ensure!(code == Some(2) && stdout.is_empty() && stderr.lines().count() == 1, "{code:?} {stderr}");
    ensure!(["not a terminal", "--yes", "GATE_YES", "--dry-run"].iter().all(|part| stderr.contains(part)), "{stderr}");
    ensure!(world.vault.seen().is_empty() && world.kubernetes.server.seen().is_empty());
    // The variable is as good as the flag.
    let mut command = world.command(&[]);
    command.env("GATE_YES", "true");
    let Ended { code, stdout, .. } = world.ended(command).await?;
    ensure!(code == Some(0) && stdout.contains("Adopted"), "{stdout}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_person_decides() -> Result<()> {
    let world = World::start().await?;
    // The last one is the end of input.
    for no in [b"n\n".as_slice(), b"\n", b"adopt\n", b"\x04"] {
        let Ended { code, stdout, stderr } = world.asked(|| Ok(()), no).await?;
        ensure!(code == Some(1) && stderr.contains("not adopted: nothing was written"), "{no:?}: {code:?} {stderr}");
        ensure!(stdout.contains("CN=Own Root CA") && world.vault.count(WRITE) == 0, "{stdout}");
    }
    let Ended { code, stdout, .. } = world.asked(|| Ok(()), b"y\n").await?;
    ensure!(code == Some(0) && stdout.contains("Adopted"), "{code:?} {stdout}");
    ensure!(world.vault.count(WRITE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_shown_is_not_adopted() -> Result<()> {
    let world = World::start().await?;
    let other = Authority::new("Another Root CA")?;
    let Ended { code, stderr, .. } = world.asked(|| world.publish(&other), b"y\n").await?;
    ensure!(
        code == Some(1) && stderr.contains("Converging: cluster c: ") && stderr.contains("run adopt again"),
        "{stderr}"
    );
    ensure!(world.vault.count(WRITE) == 0);

    // Nor is a root adopted beside one that was made while the person thought about it.
    let made = record_of(&world.authority, 1);
    let appears = || {
        world.vault.always(READ, made);
        Ok(())
    };
    let Ended { code, stderr, .. } = world.asked(appears, b"y\n").await?;
    ensure!(code == Some(1) && stderr.contains("RootChanged: cluster c: "), "{stderr}");
    ensure!(world.vault.count(WRITE) == 0);
    world.changed_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cacerts_that_is_not_there_or_not_sound_is_not_adopted() -> Result<()> {
    let world = World::start().await?;
    let sound = world.authority.secret_data();
    let other = Authority::new("Another Root CA")?.secret_data();
    let with = |file: &str, value: Value| {
        let mut data = sound.clone();
        data[file] = value;
        data
    };
    for (data, says) in [
        (with("ca-key.pem", other["ca-key.pem"].clone()), "the private key is not that of the signing CA"),
        (with("root-cert.pem", other["root-cert.pem"].clone()), "no root of root-cert.pem"),
        (with("root-cert.pem", sound["ca-key.pem"].clone()), "root-cert.pem has a PEM block in it"),
        (with("ca-cert.pem", json!("")), "ca-cert.pem is empty"),
        (with("tls.crt", json!("eA==")), "ca.crt is missing"),
    ] {
        world.put_cacerts(data)?;
        world.refused("CacertsInvalid", &[says, "istio-system/cacerts"]).await?;
    }
    let elsewhere = world.run(&["--yes", "--secret", "other"]).await?;
    ensure!(elsewhere.code == Some(1), "{}", elsewhere.stderr);
    ensure!(elsewhere.stderr.contains("CacertsInvalid: cluster c: Secret istio-system/other is not there"));
    // None of them was worth a question to Vault.
    ensure!(world.vault.seen().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_is_another_root_or_cannot_be_read_refuses() -> Result<()> {
    let world = World::start().await?;
    let pinned = "ab".repeat(32);
    world.put_pin(&pinned)?;
    let shown = ["AB"; 32].join(":");
    world.refused("RootChanged", &[&shown, "ConfigMap istio-system/istio-ca-gate"]).await?;
    world.put_pin("tampered with")?;
    world.refused("RootChanged", &["root-sha256"]).await?;
    let read = format!("GET {CONFIG_MAPS}/istio-ca-gate");
    world.kubernetes.server.always(&read, status(403, "Forbidden"));
    world.refused("KubernetesForbidden", &["read ConfigMap"]).await?;
    let world = World::start().await?;
    let read = format!("GET {SECRETS}/cacerts");
    world.kubernetes.server.always(&read, status(500, "InternalError"));
    world.refused("KubernetesUnreachable", &["read Secret"]).await?;
    ensure!(world.vault.count(WRITE) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_had_a_root_or_cannot_tell_is_not_written_to() -> Result<()> {
    let other = Authority::new("Another Root CA")?;
    let mut broken = other.record();
    broken.remove("key.pem");
    let v1 = mount("kv", json!(null));
    let cases = [
        ("RootChanged", "never written over", vec![(READ, record_of(&other, 3))]),
        ("RootDeleted", "version 2", vec![(READ, gone(2))]),
        ("RootInvalid", "key.pem is missing", vec![(READ, version(1, &broken))]),
        ("VaultMountInvalid", "KV version 1", vec![(PREFLIGHT, v1)]),
        ("VaultMountInvalid", "nothing is mounted", vec![(READ, errors(404, &["no handler for route"]))]),
        ("VaultPermissionDenied", "read", vec![(READ, errors(403, &["permission denied"]))]),
        ("VaultPermissionDenied", "mounted", vec![(PREFLIGHT, errors(403, &["permission denied"]))]),
        ("VaultSealed", "unseal it", vec![(READ, errors(503, &["Vault is sealed"]))]),
        ("VaultUnreachable", "a 404 that is not Vault's", vec![(READ, Answer::html(404))]),
        ("VaultUnreachable", "status 502", vec![(READ, Answer::html(502))]),
    ];
    for (code, says, answers) in cases {
        let world = World::start().await?;
        world.finds(&answers);
        world.refused(code, &[says]).await?;
        ensure!(answers.iter().all(|(line, _)| world.vault.count(line) > 0), "{code}: it did not hit");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_addresses_that_are_two_vaults_are_not_written_to() -> Result<()> {
    let world = World::start().await?;
    let other = world.vault.beside().await?;
    other.always(HEALTH, health(json!(vault::TWO)));
    let mut command = world.command(&["--yes"]);
    command.env("GATE_VAULT_ADDRS", format!("{},{}", world.vault.url(), other.url()));
    let Ended { code, stderr, .. } = world.ended(command).await?;
    ensure!(code == Some(1) && stderr.contains("VaultAmbiguous: cluster c: "), "{stderr}");
    ensure!(other.count(HEALTH) > 0 && world.vault.count(WRITE) + other.count(WRITE) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_written_where_its_absence_was_read_and_nowhere_else() -> Result<()> {
    let world = World::start().await?;
    let down = world.vault.beside().await?;
    down.always(READ, Answer::html(503));
    let mut command = world.command(&["--yes"]);
    command.env("GATE_VAULT_ADDRS", format!("{},{}", down.url(), world.vault.url()));
    let Ended { code, stdout, stderr } = world.ended(command).await?;
    ensure!(code == Some(0) && stdout.contains(&format!("Vault at {}", world.vault.url())), "{stdout}{stderr}");
    ensure!(down.count(READ) > 0 && down.count(WRITE) == 0 && world.vault.count(WRITE) == 1);
    Ok(())
}

/// The two looks before the write find nothing.
fn two_looks(vault: &StandIn) {
    (0..2).for_each(|_| vault.once(READ, never_written()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_write_of_unknown_outcome_vault_is_read_and_believed() -> Result<()> {
    // Applied, and the answer lost; also behind a node that shows it late.
    for late in [0, 3] {
        let world = World::start().await?;
        two_looks(&world.vault);
        world.vault.once(WRITE, Answer::hang_up());
        (0..late).for_each(|_| world.vault.once(READ, never_written()));
        world.vault.always(READ, record_of(&world.authority, 1));
        let Ended { code, stdout, stderr } = world.run(&["--yes"]).await?;
        ensure!(code == Some(0) && stdout.contains("Adopted"), "{code:?} {stdout}{stderr}");
        ensure!(world.vault.waiting() == 0 && world.vault.count(WRITE) == 1, "{:?}", world.vault.lines());
    }
    // Lost. It may still arrive, so that it is not written a second time.
    let world = World::start().await?;
    world.vault.always(WRITE, Answer::hang_up());
    world
        .refused_after("VaultUnreachable", &["it is not known whether Vault took the root", "run adopt again"])
        .await?;
    ensure!(world.vault.count(WRITE) == 1, "{:?}", world.vault.lines());
    // And then Vault goes away.
    let world = World::start().await?;
    two_looks(&world.vault);
    world.vault.once(WRITE, Answer::html(500));
    world.vault.always(READ, errors(503, &["Vault is sealed"]));
    world.refused_after("VaultSealed", &["it is not known whether Vault took the root"]).await?;
    ensure!(world.vault.waiting() == 0 && world.vault.count(WRITE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_refused_is_judged_by_what_is_there() -> Result<()> {
    let refusals = [errors(403, &["permission denied"]), errors(400, &["check-and-set parameter did not match"])];
    let other = Authority::new("Another Root CA")?;
    for refusal in refusals {
        // Somebody else was faster, with another root.
        let world = World::start().await?;
        two_looks(&world.vault);
        world.vault.once(WRITE, refusal.clone());
        world.vault.always(READ, record_of(&other, 1));
        world.refused_after("RootChanged", &["never written over"]).await?;
        ensure!(world.vault.waiting() == 0);
        // Or with this very root.
        let world = World::start().await?;
        two_looks(&world.vault);
        world.vault.once(WRITE, refusal);
        world.vault.always(READ, record_of(&world.authority, 1));
        let Ended { code, stdout, .. } = world.run(&["--yes"]).await?;
        ensure!(code == Some(0) && stdout.contains("Nothing to do") && world.vault.waiting() == 0, "{stdout}");
    }
    // A right is missing: nothing is there afterwards, and nobody waits for it.
    let world = World::start().await?;
    world.vault.always(WRITE, errors(403, &["permission denied"]));
    let began = std::time::Instant::now();
    world.refused_after("VaultPermissionDenied", &["`create`"]).await?;
    ensure!(world.vault.count(WRITE) == 1 && began.elapsed() < Duration::from_secs(4));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_it_logs_in_as_the_bootstrap_role() -> Result<()> {
    let world = World::start().await?;
    let jwt = world.folder.path().join("jwt");
    std::fs::write(&jwt, vault::JWT)?;
    let mut command = world.command(&["--yes"]);
    command.env_remove("VAULT_TOKEN").env("GATE_VAULT_JWT_FILE", jwt);
    let Ended { code, stdout, stderr } = world.ended(command).await?;
    ensure!(code == Some(0) && stdout.contains("Adopted"), "{stdout}{stderr}");
    let [login] = &world.vault.of(LOGIN)[..] else { anyhow::bail!("{:?}", world.vault.lines()) };
    ensure!(login.json()["role"] == "istio-ca-bootstrap");
    ensure!(world.vault.of(WRITE)[0].token() == vault::token(&world.vault, 1)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_clusters_that_adopt_at_once_into_a_whole_vault_one_wins() -> Result<()> {
    let vault = standin::vault::Vault::start().await?;
    let worlds = futures::future::try_join_all((0..10).map(|_| World::start())).await?;
    let to_the_vault = |world: &World, args: &[&str]| -> Result<Command> {
        let ca = world.folder.path().join("vault-ca.pem");
        std::fs::write(&ca, vault.ca_pem())?;
        let mut command = world.command(args);
        command.env("VAULT_ADDR", vault.address()).env("VAULT_CACERT", ca).env("VAULT_TOKEN", vault.root_token());
        Ok(command)
    };
    // Each has found Vault empty before any is told to go on.
    let all_have_looked = Barrier::new(worlds.len());
    let race = worlds.iter().map(async |world| {
        let looked = async || {
            all_have_looked.wait().await;
            Ok(())
        };
        world.asked_by(to_the_vault(world, &[])?, looked, b"y\n").await
    });
    let ended = futures::future::try_join_all(race).await?;
    let (won, lost): (Vec<_>, Vec<_>) = worlds.iter().zip(&ended).partition(|(_, ended)| ended.code == Some(0));
    let [(winner, Ended { stdout, .. })] = won[..] else { anyhow::bail!("{} of them won", won.len()) };
    ensure!(stdout.contains("Adopted"), "{stdout}");
    for (_, Ended { code, stderr, .. }) in &lost {
        ensure!(*code == Some(1) && stderr.contains("istio-ca-gate: RootChanged: "), "{stderr}");
    }
    let (status, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    ensure!(status == 200 && record["data"]["data"] == json!(winner.authority.record()), "it is not the winner's");
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);

    let adopt = async |world: &World| world.ended(to_the_vault(world, &["--yes"])?).await;
    // What was deleted is not adopted anew, not even the same.
    vault.ok("DELETE", "secret/data/istio/ca", None).await?;
    let Ended { code, stderr, .. } = adopt(winner).await?;
    ensure!(code == Some(1) && stderr.starts_with("istio-ca-gate: RootDeleted: "), "{stderr}");
    vault.ok("POST", "secret/undelete/istio/ca", Some(json!({ "versions": [1] }))).await?;
    let Ended { code, stdout, .. } = adopt(winner).await?;
    ensure!(code == Some(0) && stdout.starts_with("Nothing to do: "), "{stdout}");
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

/// A `cacerts` as a restore from a backup leaves it: with the gate's label, and by another field manager.
fn restored(world: &World, authority: &Authority) -> Result<()> {
    let labels = json!({ "app.kubernetes.io/managed-by": "istio-ca-gate" });
    let metadata = json!({ "name": "cacerts", "labels": labels });
    world.kubernetes.put(SECRETS, json!({ "metadata": metadata, "data": authority.secret_data() })).map(drop)
}

const PATCH: &str = "PATCH /api/v1/namespaces/istio-system/secrets/cacerts";

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cacerts_is_handed_back_with_the_bytes_that_are_in_it() -> Result<()> {
    let world = World::start().await?;
    world.vault.always(READ, version(3, &world.authority.record()));
    restored(&world, &world.authority)?;
    let before = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    ensure!(before["metadata"]["managedFields"][0]["manager"] == "somebody");

    let shown = world.run(&["--own", "--dry-run"]).await?;
    ensure!(shown.code == Some(0) && shown.stdout.contains("version 3, the same roots"), "{}", shown.stdout);
    ensure!(world.kubernetes.server.count(PATCH) == 0);

    let ended = world.run(&["--own", "--yes"]).await?;
    ensure!(ended.code == Some(0) && ended.stdout.contains("Handed back: "), "{}{}", ended.stdout, ended.stderr);
    let after = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    ensure!(after["data"] == before["data"] && after["metadata"]["managedFields"][0]["manager"] == "istio-ca-gate");
    ensure!(after["metadata"]["annotations"]["istio-ca-gate.io/vault-version"] == "3");
    let patches = world.kubernetes.server.of(PATCH);
    let [patch] = &patches[..] else { anyhow::bail!("{} patches", patches.len()) };
    ensure!(patch.header("content-type") == Some("application/apply-patch+yaml"));
    ensure!(patch.target.contains("fieldManager=istio-ca-gate"), "{}", patch.target);
    ensure!(patch.json()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]);
    ensure!(world.vault.count(WRITE) == 0, "it was written to Vault");

    let again = world.run(&["--own", "--yes"]).await?;
    ensure!(again.code == Some(0) && again.stdout.contains("Nothing to do"), "{}", again.stdout);
    ensure!(world.kubernetes.server.count(PATCH) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_handed_back_is_told_and_left_alone() -> Result<()> {
    let (world, other) = (World::start().await?, Authority::new("Other")?);
    world.vault.always(READ, version(3, &world.authority.record()));
    let refused = async |code: &str, says: &str| {
        let ended = world.run(&["--own", "--yes"]).await?;
        let is_told = ended.stderr.contains(&format!("{code}: ")) && ended.stderr.contains(says);
        ensure!(ended.code == Some(1) && is_told, "{code}: {}{}", ended.stdout, ended.stderr);
        ensure!(world.kubernetes.server.count(PATCH) == 0 && world.vault.count(WRITE) == 0, "{code}");
        Ok(())
    };
    // As World::start leaves it.
    refused("CacertsUnknown", "has no label").await?;
    restored(&world, &other)?;
    refused("RootChanged", "find out which one the mesh runs on").await?;
    restored(&world, &world.authority)?;
    world.put_pin(&"ab".repeat(32))?;
    refused("RootChanged", "this cluster trusts").await?;
    world.kubernetes.delete(CONFIG_MAPS, "istio-ca-gate")?;
    world.vault.always(READ, never_written());
    refused("RootMissing", "run adopt without --own").await?;
    world.kubernetes.delete(SECRETS, "cacerts")?;
    refused("CacertsInvalid", "is not there").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cacerts_that_changes_while_a_person_is_asked_is_left_alone() -> Result<()> {
    let world = World::start().await?;
    world.vault.always(READ, version(3, &world.authority.record()));
    restored(&world, &world.authority)?;
    let touched = async || {
        let mut cacerts = world.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
        cacerts["metadata"]["annotations"] = json!({ "touched": "yes" });
        world.kubernetes.put(SECRETS, cacerts).map(drop)
    };
    let ended = world.asked_by(world.command(&["--own"]), touched, b"y\n").await?;
    ensure!(ended.code == Some(1) && ended.stderr.contains("was changed after it was shown"), "{}", ended.stderr);
    ensure!(world.kubernetes.server.count(PATCH) == 0);
    Ok(())
}
