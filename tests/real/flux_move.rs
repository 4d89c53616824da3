//! docs/migrate.md under Flux's real kustomize-controller, beside the real External Secrets Operator: from the set-up of
//! old to the gate and back, by commits alone, while istiod's pods are asked for all the time.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::binaries::ControlPlane;
use testbed::side::{MUTATING_WEBHOOKS, WEBHOOKS};
use testbed::{Cluster, Flux, Port, Program, Vault, VaultOptions, eventually};

use crate::commands::blocks::{blocks, commands};
use crate::external_secrets::{manifests, operator, record};
use crate::gate::{Gate, Options};
use crate::probe::{Probe, during};
use crate::world::{self, NAMESPACE, SOON, Side};

/// The Kustomizations of the repository: the one that a person applied, of the others; the set-up of old; the gate.
const CLUSTER: &str = "cluster";
const OLD: &str = "istio-ca-bootstrap";
const GATE: &str = "istio-ca-gate";

/// A repository as people have it: deploy/ of this project, and what is their own.
struct Repository {
    folder: TempDir,
    flux: Flux,
}

impl Repository {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        Program::new("cp").arg("-r").arg(deploy).arg(folder.path()).output(None).await?;
        let flux = Flux::start(cluster).await?;
        let this = Self { folder, flux };
        this.kustomization("cluster", &[])?;
        this.flux.commit(this.folder.path()).await?;
        let root = Flux::kustomization(CLUSTER, "./cluster").to_string();
        eventually("the first Kustomization", SOON, || cluster.kubectl_stdin(&["create", "-f", "-"], &root)).await?;
        Ok(this)
    }

    /// Writes the file `kustomization.yaml` of a folder, of objects that it has itself.
    fn kustomization(&self, folder: &str, objects: &[Value]) -> Result<()> {
        let folder = self.folder.path().join(folder);
        std::fs::create_dir_all(&folder)?;
        let mut resources = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            let name = format!("{number}.yaml");
            std::fs::write(folder.join(&name), object.to_string())?;
            resources.push(name);
        }
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources,
        });
        std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        Ok(())
    }

    /// The overlay with its component, and with so many of the three entries of its webhooks, which call a port of this
    /// machine: there is no kube-proxy.
    fn gate(&self, overlay: &str, port: u16, entries: usize) -> Result<()> {
        let patch = |path: &str| {
            let url = json!({ "url": format!("https://127.0.0.1:{port}/{path}") });
            let place =
                |entry| json!({ "op": "replace", "path": format!("/webhooks/{entry}/clientConfig"), "value": url });
            let mut operations: Vec<_> = (0..entries).map(place).collect();
            operations.extend((entries..3).map(|_| json!({ "op": "remove", "path": format!("/webhooks/{entries}") })));
            json!(operations).to_string()
        };
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../deploy/kustomize/overlays/{overlay}")],
            "components": ["../deploy/kustomize/components/external-secrets"],
            "patches": [
                { "target": { "kind": "ValidatingWebhookConfiguration" }, "patch": patch("validate") },
                { "target": { "kind": "MutatingWebhookConfiguration" }, "patch": patch("mutate") },
            ],
        });
        let folder = self.folder.path().join("gate");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        Ok(())
    }

    /// Commits, with these Kustomizations of the cluster.
    async fn commit(&self, named: &[(&str, &str)]) -> Result<String> {
        let objects: Vec<_> = named.iter().map(|(name, path)| Flux::kustomization(name, path)).collect();
        self.kustomization("cluster", &objects)?;
        self.flux.commit(self.folder.path()).await
    }

    /// Commits, and waits until all are applied.
    async fn push(&self, named: &[(&str, &str)]) -> Result<()> {
        let revision = self.commit(named).await?;
        for name in [CLUSTER].iter().chain(named.iter().map(|(name, _)| name)) {
            self.flux.applied(name, &revision).await?;
        }
        Ok(())
    }
}

/// A cluster with the set-up of old: Flux, External Secrets, the Job's account, and `cacerts`.
struct Old {
    side: Side,
    vault: Vault,
    repository: Repository,
    /// Of `cacerts`, which is never another.
    data: Value,
    _operator: (testbed::Process, TempDir),
}

impl Old {
    async fn start(name: &'static str) -> Result<Self> {
        let (cluster, vault) = tokio::try_join!(Cluster::start(name), Vault::start(VaultOptions::default()))?;
        let api = (*cluster).clone();
        let side = match name {
            "homelab" => testbed::side::Side::homelab(api),
            _ => testbed::side::Side::nas(api),
        };
        let side = Side { side, cluster };
        side.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        side.introduce_to(&vault).await?;
        record(&vault).await?;
        let operator = operator(&side).await?;
        let repository = Repository::start(&side.cluster).await?;
        repository.kustomization("old", &old(&side, &vault, "Owner"))?;
        repository.push(&[(OLD, "./old")]).await?;
        let data = eventually("External Secrets to make cacerts", 2 * SOON, || async {
            anyhow::Ok(side.cacerts().await?.context("no cacerts")?["data"].clone())
        })
        .await?;
        Ok(Self { side, vault, repository, data, _operator: operator })
    }

    async fn account(&self, name: &str) -> Result<Option<Value>> {
        self.side.object(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}")).await
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.side.cluster.kubectl(&[&["-n", NAMESPACE], args].concat()).await
    }

    /// The version of Vault's record, of which there has to be one alone.
    async fn is_the_first_version(&self) -> Result<()> {
        let (status, record) = self.vault.api("GET", "secret/data/istio/ca", None).await?;
        ensure!(status == 200 && record["data"]["metadata"]["version"] == 1, "{status}");
        Ok(())
    }
}

/// What the repository has of the set-up of old. The Job has been done long ago, and its pods never run here.
fn old(side: &Side, vault: &Vault, policy: &str) -> Vec<Value> {
    let mut objects = manifests(side, vault, policy).to_vec();
    if side.role == "bootstrap" {
        let pod = json!({
            "serviceAccountName": side.job_account(), "restartPolicy": "Never",
            "containers": [{ "name": "bootstrap", "image": "registry.example/vault" }],
        });
        objects.push(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": side.job_account(), "namespace": NAMESPACE },
            "spec": { "template": { "spec": pod } },
        }));
    }
    objects
}

/// Steps 2 to 5 of docs/migrate.md. Returns the gate, and when it was ready.
async fn move_over(world: &Old) -> Result<(Gate, Instant)> {
    let Old { side, vault, repository, .. } = world;
    let https = Port::reserve()?;
    repository.gate(side.name, https.number(), 3)?;
    // The gate's pods, which Flux has asked for, are a process here: it starts as soon as it has an account.
    let applied = repository.push(&[(OLD, "./old"), (GATE, "./gate")]);
    let started = async {
        eventually("the gate's account", SOON, || async { world.account("istio-ca-gate").await?.context("none") })
            .await?;
        eventually("the gate's rights", SOON, || world.kubectl(&["get", "rolebinding", "istio-ca-gate"])).await?;
        let flags = ["--refresh", "1s"];
        let gate =
            Gate::launch(side, vault, Options { flags: &flags, https: Some(https), ..Options::default() }).await?;
        side.is_injected().await?;
        Ok((gate, Instant::now()))
    };
    let ((), (gate, ready)) = tokio::try_join!(applied, started)?;
    gate.stands("open", None).await?;
    let account = world.account("istio-ca-gate").await?.context("no account")?["metadata"]["uid"].clone();

    // Step 4, made in the source of the ExternalSecret.
    repository.kustomization("old", &old(side, vault, "Orphan"))?;
    repository.push(&[(OLD, "./old"), (GATE, "./gate")]).await?;
    eventually("cacerts to be nobody's", SOON, || async {
        let owners = side.cacerts().await?.context("no cacerts")?["metadata"]["ownerReferences"].clone();
        ensure!(owners.is_null(), "{owners}");
        Ok(())
    })
    .await?;
    let without: Vec<_> =
        old(side, vault, "Orphan").into_iter().filter(|object| object["kind"] != "ExternalSecret").collect();
    repository.kustomization("old", &without)?;
    repository.push(&[(OLD, "./old"), (GATE, "./gate")]).await?;
    let labels = ["app.kubernetes.io/managed-by=istio-ca-gate", "reconcile.external-secrets.io/managed-"];
    let hand_over = ["label", "secret", "cacerts", "--overwrite", "--field-manager=istio-ca-gate"];
    world.kubectl(&[&hand_over[..], &labels].concat()).await?;

    // Step 5. An annotation of kubectl's keeps nothing: Flux takes it away, and then what it was to keep.
    let old_account = side.job_account();
    world.kubectl(&["annotate", "serviceaccount", &old_account, "kustomize.toolkit.fluxcd.io/prune=disabled"]).await?;
    repository.flux.reconcile(OLD).await?;
    repository.push(&[(GATE, "./gate")]).await?;
    repository.flux.gone(OLD).await?;
    ensure!(world.account(&old_account).await?.is_none(), "it was kept, and the gate could have been, too");
    for name in [CLUSTER, GATE] {
        repository.flux.reconcile(name).await?;
    }
    let kept = world.account("istio-ca-gate").await?.context("the gate's account was pruned")?;
    ensure!(kept["metadata"]["uid"] == account, "it is another account: {kept}");
    Ok((gate, ready))
}

/// The way back of docs/migrate.md.
async fn move_back(world: &Old) -> Result<()> {
    let Old { side, vault, repository, .. } = world;
    repository.kustomization("old", &old(side, vault, "Owner"))?;
    repository.push(&[(OLD, "./old"), (GATE, "./gate")]).await?;
    eventually("External Secrets to take cacerts up again", 2 * SOON, || async {
        let metadata = side.cacerts().await?.context("no cacerts")?["metadata"].clone();
        ensure!(metadata["ownerReferences"][0]["kind"] == "ExternalSecret", "{metadata}");
        Ok(())
    })
    .await?;
    repository.push(&[(OLD, "./old")]).await?;
    repository.flux.gone(GATE).await?;
    // Before the Service behind them.
    let order =
        r"ValidatingWebhookConfiguration/istio-ca-gate deleted\nMutatingWebhookConfiguration/istio-ca-gate deleted\n";
    ensure!(repository.flux.controller.log().contains(&format!(r#""msg":"{order}"#)), "another order");
    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration", "validatingadmissionpolicy"] {
        let left = world.kubectl(&["get", kind, "-o", "name"]).await?;
        ensure!(!left.contains("istio-ca-gate"), "{left}");
    }
    Ok(())
}

/// Whatever was refused was so before the gate was ready, and since the API server could not reach it.
fn refused_before(probe: &Probe, ready: Instant) -> Result<usize> {
    for (at, message) in &probe.refused {
        ensure!(*at <= ready && message.contains("failed calling webhook"), "refused: {message}");
    }
    Ok(probe.refused.len())
}

async fn there_and_back(name: &'static str) -> Result<()> {
    let _place = world::place().await?;
    let world = Old::start(name).await?;
    let cacerts = world.side.cacerts().await?.context("no cacerts")?["metadata"]["uid"].clone();

    let ((gate, ready), there) = during(&world.side, Some(&world.data), move_over(&world)).await?;
    let early = refused_before(&there, ready)?;
    ensure!(there.allowed > 20, "{} let in", there.allowed);
    gate.stands("open", None).await?;
    // A pod of the gate that starts now has its account, its rights, its role in Vault, and the same root.
    let next = Gate::launch(&world.side, &world.vault, Options::default()).await?;
    next.stands("open", None).await?;
    next.process.stop()?;

    let ((), back) = during(&world.side, Some(&world.data), move_back(&world)).await?;
    ensure!(back.allowed > 20 && back.refused.is_empty(), "{} let in, {:?}", back.allowed, back.refused);
    gate.process.stop()?;
    ensure!(world.account(&world.side.job_account()).await?.is_some(), "the account of old is not back");
    let after = world.side.cacerts().await?.context("no cacerts")?;
    ensure!(after["data"] == world.data && after["metadata"]["uid"] == cacerts, "cacerts is another one");
    world.is_the_first_version().await?;
    println!(
        "{name}: to the gate, {} of istiod's pods let in, {early} refused before it was ready; back, {} let in, none refused",
        there.allowed, back.allowed
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nas_moves_to_the_gate_and_back_by_flux_and_no_root_changes() -> Result<()> {
    Box::pin(there_and_back("nas")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homelab_moves_to_the_gate_and_back_by_flux_and_no_root_changes() -> Result<()> {
    Box::pin(there_and_back("homelab")).await
}

/// A NAS with the gate's manifests alone, applied by Flux, and a Vault without a root.
async fn by_flux() -> Result<(Side, Vault, Repository, Port)> {
    let (cluster, vault) = tokio::try_join!(Cluster::start("nas"), Vault::start(VaultOptions::default()))?;
    let side = Side { side: testbed::side::Side::nas((*cluster).clone()), cluster };
    side.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
    side.introduce_to(&vault).await?;
    let repository = Repository::start(&side.cluster).await?;
    let https = Port::reserve()?;
    repository.gate(side.name, https.number(), 3)?;
    repository.push(&[(GATE, "./gate")]).await?;
    Ok((side, vault, repository, https))
}

/// What a person does by kubectl in an emergency.
async fn by_hand(side: &Side) -> Result<()> {
    let both = "validatingwebhookconfiguration,mutatingwebhookconfiguration";
    side.cluster.kubectl(&["delete", both, "istio-ca-gate"]).await?;
    let set = ["-n", NAMESPACE, "set", "env", "deploy/istio-ca-gate", "GATE_ON_ROOT_CHANGE=replace"];
    side.cluster.kubectl(&set).await?;
    Ok(())
}

/// Whether what was done by hand is still so: the webhooks, the variable.
async fn is_by_hand(side: &Side) -> Result<(bool, bool)> {
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istio-ca-gate");
    let deployment = side.object(&deployment).await?.context("no Deployment")?;
    let variables = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    Ok((side.object(WEBHOOKS).await?.is_none(), !variables.is_null()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_by_hand_is_taken_back_by_flux_unless_it_is_suspended() -> Result<()> {
    let _place = world::place().await?;
    let (side, _vault, Repository { flux, .. }, _https) = by_flux().await?;
    by_hand(&side).await?;
    ensure!(is_by_hand(&side).await? == (true, true));
    flux.reconcile(GATE).await?;
    ensure!(is_by_hand(&side).await? == (false, false), "Flux leaves it");

    flux.suspend(GATE, true).await?;
    by_hand(&side).await?;
    // The one that applies it, which must not take the suspension back.
    flux.reconcile(CLUSTER).await?;
    ensure!(is_by_hand(&side).await? == (true, true), "it is taken back in suspension");
    flux.suspend(GATE, false).await?;
    eventually("Flux to go on", SOON, || async {
        ensure!(is_by_hand(&side).await? == (false, false), "not yet");
        Ok(())
    })
    .await
}

/// The command of the document that lets go of what the gate owns, for the NAS.
async fn let_go(side: &Side) -> Result<()> {
    let pages = blocks(&["docs/operate.md"])?;
    let block = pages.iter().find(|block| block.text.contains("managedFields |= map")).context("no such block")?;
    let command = commands(&block.text).await?.into_iter().next().context("no command")?;
    let folder = tempfile::tempdir()?;
    tokio::task::spawn_blocking(ControlPlane::find).await??.kubectl.install(folder.path(), "kubectl")?;
    let path = format!("export PATH={}:$PATH\n", folder.path().display());
    let bash = Program::new("bash").args(["-euo", "pipefail", "-c", &format!("{path}{command}")]);
    bash.env("KUBECONFIG", side.cluster.kubeconfig()).env("HOME", folder.path()).output(None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_webhooks_that_goes_is_let_go_by_the_documents_command_and_nothing_opens() -> Result<()> {
    let _place = world::place().await?;
    let (side, vault, repository, https) = by_flux().await?;
    let port = https.number();
    let gate = Gate::launch(&side, &vault, Options { https: Some(https), ..Options::default() }).await?;
    side.is_injected().await?;

    let goes = async {
        repository.gate(side.name, port, 2)?;
        let revision = repository.commit(&[(GATE, "./gate")]).await?;
        repository.flux.refused(GATE, "sideEffects: Required value").await?;
        let_go(&side).await?;
        repository.flux.applied(GATE, &revision).await?;
        for path in [WEBHOOKS, MUTATING_WEBHOOKS] {
            let configuration = side.object(path).await?.context("no webhooks")?;
            let entries = configuration["webhooks"].as_array().context("no entries")?;
            ensure!(entries.len() == 2, "{configuration}");
            ensure!(entries.iter().all(|entry| entry["clientConfig"]["caBundle"].is_string()), "{configuration}");
        }
        Ok(())
    };
    // Vault has no root: not one may come in.
    let ((), probe) = during(&side, None, goes).await?;
    ensure!(probe.allowed == 0 && probe.refused.len() > 10, "{} let in, {:?}", probe.allowed, probe.refused);
    let denied = probe.refused.iter().filter(|(_, message)| message.contains("RootMissing")).count();
    println!("an entry was taken away while {} pods were asked for: none was let in", probe.refused.len());
    ensure!(denied == probe.refused.len(), "{:?}", probe.refused);
    gate.stands("held", Some("RootMissing")).await?;
    Ok(())
}
