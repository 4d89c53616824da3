//! Beside the real External Secrets Operator: who writes `cacerts`, who does not, and the way from one to the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::binaries;
use testbed::{Process, Vault, eventually};

use crate::cacerts::foreign_ca;
use crate::gate::{Gate, Options};
use crate::probe::during;
use crate::story::decode;
use crate::world::{Login, NAMESPACE, SOON, Side, SmallWorld};

/// How long a gated pod may be refused in the move, if at all: a controller's first retries take longer.
const REFUSED_MAX: Duration = Duration::from_secs(2);

/// What writes `cacerts` in the set-up of old: the account of old, its login to Vault, and the four files.
pub fn manifests(side: &Side, vault: &Vault, policy: &str) -> [Value; 3] {
    let ca = serde_json::to_value(k8s_openapi::ByteString(vault.ca_pem().as_bytes().to_vec())).unwrap_or_default();
    let file =
        |name: &str, key: &str| json!({ "secretKey": name, "remoteRef": { "key": "istio/ca", "property": key } });
    let (account, mount) = (side.job_account(), side.auth_mount);
    let named = json!({ "name": account });
    let login = match side.login() {
        Login::TokenReview => json!({ "kubernetes": {
            "mountPath": mount, "role": account, "serviceAccountRef": { "name": account, "audiences": ["vault"] },
        } }),
        Login::Signature => json!({ "jwt": { "path": mount, "role": account, "kubernetesServiceAccountToken": {
            "serviceAccountRef": named, "audiences": ["vault"],
        } } }),
    };
    let store = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
        "metadata": { "name": "istio-ca-vault", "namespace": NAMESPACE },
        "spec": { "provider": { "vault": {
            "server": vault.address(), "path": "secret", "version": "v2", "caBundle": ca, "auth": login,
        } } },
    });
    let external_secret = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": { "name": "istio-cacerts", "namespace": NAMESPACE },
        "spec": {
            // Longer than any test: what is synced is synced on request.
            "refreshInterval": "24h",
            "secretStoreRef": { "name": "istio-ca-vault", "kind": "SecretStore" },
            "target": { "name": "cacerts", "creationPolicy": policy },
            "data": [
                file("root-cert.pem", "root-cert.pem"), file("cert-chain.pem", "cert-chain.pem"),
                file("ca-cert.pem", "cert-chain.pem"), file("ca-key.pem", "key.pem"),
            ],
        },
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account, "namespace": NAMESPACE },
    });
    [account, store, external_secret]
}

fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n---\n")).collect()
}

/// The real operator, in a cluster with its kinds.
pub async fn operator(side: &Side) -> Result<(Process, TempDir)> {
    let program = tokio::task::spawn_blocking(binaries::external_secrets).await??;
    let definitions = binaries::external_secrets_definitions()?;
    let definitions = definitions.to_str().context("the folder's name is not UTF-8")?;
    side.cluster.kubectl(&["apply", "--server-side", "-k", definitions]).await?;
    let folder = tempfile::tempdir()?;
    // The addresses of its metrics and probes are off.
    let operator = program
        .args(["--metrics-addr=0", "--live-addr=0", "--loglevel=debug", "--enable-push-secret-reconciler=false"])
        .args(["--enable-cluster-store-reconciler=false", "--enable-cluster-push-secret-reconciler=false"])
        .args(["--enable-cluster-external-secret-reconciler=false"])
        .env("KUBECONFIG", side.cluster.kubeconfig())
        .spawn(folder.path().join("log"))?;
    Ok((operator, folder))
}

/// Puts a root into Vault, as the Job of old made it, and returns it.
pub async fn record(vault: &Vault) -> Result<String> {
    let ca = foreign_ca().await?;
    let root = ca["root-cert.pem"].as_str().context("no root")?.to_owned();
    let record = json!({ "root-cert.pem": root, "cert-chain.pem": root, "key.pem": ca["ca-key.pem"] });
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record, "options": { "cas": 0 } }))).await?;
    Ok(root)
}

/// A NAS whose `cacerts` is made by External Secrets, and a Vault with a root.
struct Beside {
    world: SmallWorld,
    operator: Process,
    /// Vault's data, as they are in `cacerts`.
    data: Value,
    root: String,
    _folder: TempDir,
}

impl Beside {
    async fn start() -> Result<Self> {
        let world = SmallWorld::nas().await?;
        let (side, vault) = (&world.side, &world.vault);
        let root = record(vault).await?;
        let (operator, folder) = operator(side).await?;
        side.apply_with(&["external-secrets"]).await?;
        side.cluster.kubectl_stdin(&["apply", "-f", "-"], &stream(&manifests(side, vault, "Owner"))).await?;
        let data = operator
            .until("External Secrets to make cacerts", 2 * SOON, || async {
                anyhow::Ok(side.cacerts().await?.context("no cacerts")?["data"].clone())
            })
            .await?;
        ensure!(decode(&data["root-cert.pem"])? == root);
        Ok(Self { world, operator, data, root, _folder: folder })
    }

    fn side(&self) -> &Side {
        &self.world.side
    }

    async fn metadata(&self) -> Result<Value> {
        Ok(self.side().cacerts().await?.context("no cacerts")?["metadata"].clone())
    }

    /// Whether anything in `cacerts` was ever written by the gate.
    async fn is_touched_by_the_gate(&self) -> Result<bool> {
        let metadata = self.metadata().await?;
        let managers = metadata["managedFields"].as_array().context("no managed fields")?;
        Ok(managers.iter().any(|entry| entry["manager"] == "istio-ca-gate"))
    }

    /// The value of `force-sync`.
    async fn asked(&self) -> Result<Option<String>> {
        let path = format!("/apis/external-secrets.io/v1/namespaces/{NAMESPACE}/externalsecrets/istio-cacerts");
        let found = self.side().object(&path).await?.context("no ExternalSecret")?;
        Ok(found["metadata"]["annotations"]["force-sync"].as_str().map(str::to_owned))
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.side().cluster.kubectl(&[&["-n", NAMESPACE], args].concat()).await
    }

    async fn tamper(&self) -> Result<()> {
        let patch = json!({ "stringData": { "root-cert.pem": "tampered with" } }).to_string();
        self.kubectl(&["patch", "secret", "cacerts", "--type=merge", "-p", &patch]).await?;
        Ok(())
    }

    /// Waits until `cacerts` has the data of Vault's first version again.
    async fn is_as_made(&self) -> Result<()> {
        eventually("cacerts to be as it was", SOON, || async {
            let cacerts = self.side().cacerts().await?.context("no cacerts")?;
            ensure!(cacerts["data"] == self.data, "it is another");
            Ok(())
        })
        .await
    }
}

/// Waits for more attempts of the gate's convergence.
async fn attempts(gate: &Gate, more: usize) -> Result<()> {
    let seen = || async { anyhow::Ok(gate.fingerprint().await?["vault"]["checkedAt"].clone()) };
    for _ in 0..more {
        let before = seen().await?;
        eventually("another attempt", SOON, || async {
            ensure!(seen().await? != before, "none yet");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn asks(gate: &Gate) -> usize {
    gate.process.log().matches("asked External Secrets to sync").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_external_secrets_the_gate_never_writes_asks_seldom_and_opens_when_it_is_equal() -> Result<()> {
    let beside = Beside::start().await?;
    let (side, vault) = (beside.side(), &beside.world.vault);
    let options = Options { flags: &["--refresh", "1s", "--retry-max", "500ms"], ..Options::default() };
    let gate = Gate::start_with(side, vault, options).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    gate.stands("open", None).await?;
    let metadata = beside.metadata().await?;
    ensure!(metadata["labels"]["reconcile.external-secrets.io/managed"] == "true", "{metadata}");
    ensure!(metadata["ownerReferences"][0]["kind"] == "ExternalSecret", "{metadata}");
    ensure!(!beside.is_touched_by_the_gate().await? && asks(&gate) == 0);

    // Tampered with, it is the operator that reverts it, at once.
    beside.tamper().await?;
    beside.is_as_made().await?;
    gate.stands("open", None).await?;

    // A newer version with the same root and one more. The operator looks once a day, and is asked to look now.
    let more = format!("{}{}", beside.root, foreign_ca().await?["root-cert.pem"].as_str().context("no root")?);
    let record = json!({
        "root-cert.pem": more, "cert-chain.pem": beside.root, "key.pem": decode(&beside.data["ca-key.pem"])?,
    });
    let earlier = asks(&gate);
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record, "options": { "cas": 1 } }))).await?;
    let report = eventually("the gate to open on the newer version", 2 * SOON, || async {
        let report = gate.fingerprint().await?;
        ensure!(report["state"] == "open" && report["vault"]["version"] == 2 && report["match"] == true, "{report}");
        Ok(report)
    })
    .await?;
    ensure!(report["cacerts"]["roots"].as_array().is_some_and(|roots| roots.len() == 2), "{report}");
    ensure!(asks(&gate) > earlier && beside.asked().await?.is_some());

    // Without the operator nothing mends it: held, asked for once, however often it is tried.
    beside.operator.stop()?;
    beside.tamper().await?;
    let report = gate.stands("held", Some("CacertsManagedElsewhere")).await?;
    ensure!(report["message"].as_str().is_some_and(|text| text.contains("look at its ExternalSecret's conditions")));
    side.restart("istiod").await?;
    side.refusal("istiod", "CacertsManagedElsewhere").await?;
    let (asked, at) = (asks(&gate), Instant::now());
    attempts(&gate, 5).await?;
    ensure!(
        at.elapsed() > Duration::from_secs(25) || asks(&gate) <= asked + 1,
        "{} in {:?}",
        asks(&gate),
        at.elapsed()
    );
    beside.operator.start_again()?;
    side.pod("istiod").await?;
    gate.stands("open", None).await?;
    ensure!(!beside.is_touched_by_the_gate().await?, "the gate has written what is not its own");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_away_from_external_secrets_leaves_no_gap() -> Result<()> {
    let beside = Beside::start().await?;
    let (side, vault) = (beside.side(), &beside.world.vault);
    let gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;

    let ((), probe) = during(side, Some(&beside.data), move_away(&beside)).await?;
    ensure!(probe.allowed > 10 && probe.refused.is_empty(), "{} let in, {:?}", probe.allowed, probe.refused);
    gate.stands("open", None).await?;
    println!("moved away under {} gated pods, of which none was refused", probe.allowed);

    // From here on it is the gate that mends it.
    beside.tamper().await?;
    beside.is_as_made().await?;
    gate.stands("open", None).await?;
    ensure!(beside.is_touched_by_the_gate().await?);

    // And back.
    side.cluster.kubectl_stdin(&["apply", "-f", "-"], &stream(&manifests(side, vault, "Owner"))).await?;
    eventually("External Secrets to take it up again", SOON, || async {
        let metadata = beside.metadata().await?;
        ensure!(metadata["ownerReferences"][0]["kind"] == "ExternalSecret", "{metadata}");
        ensure!(metadata["labels"]["reconcile.external-secrets.io/managed"] == "true", "{metadata}");
        Ok(())
    })
    .await?;
    beside.is_as_made().await?;
    gate.stands("open", None).await?;
    Ok(())
}

/// The steps of docs/external-secrets.md.
async fn move_away(beside: &Beside) -> Result<()> {
    let orphan = r#"{"spec":{"target":{"creationPolicy":"Orphan"}}}"#;
    beside.kubectl(&["patch", "externalsecret", "istio-cacerts", "--type=merge", "-p", orphan]).await?;
    eventually("cacerts to be nobody's", SOON, || async {
        let owners = beside.metadata().await?["ownerReferences"].clone();
        ensure!(owners.is_null(), "{owners}");
        Ok(())
    })
    .await?;
    beside.kubectl(&["delete", "externalsecret", "istio-cacerts"]).await?;
    let metadata = beside.metadata().await?;
    ensure!(metadata["labels"]["reconcile.external-secrets.io/managed"] == "true", "the label is not left behind");
    let labels = ["app.kubernetes.io/managed-by=istio-ca-gate", "reconcile.external-secrets.io/managed-"];
    let hand_over = ["label", "secret", "cacerts", "--overwrite", "--field-manager=istio-ca-gate"];
    beside.kubectl(&[&hand_over[..], &labels].concat()).await?;
    beside.kubectl(&["delete", "secretstore", "istio-ca-vault"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_with_its_external_secret_cacerts_is_made_anew_by_the_gate_within_moments() -> Result<()> {
    let beside = Beside::start().await?;
    let (side, vault) = (beside.side(), &beside.world.vault);
    let gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let before = beside.metadata().await?["uid"].clone();

    // The wrong order: the Secret goes with its owner.
    let deleted = async {
        beside.kubectl(&["delete", "externalsecret", "istio-cacerts"]).await?;
        // What the garbage collector does a while later.
        beside.kubectl(&["delete", "secret", "cacerts", "--ignore-not-found"]).await?;
        eventually("another cacerts, by the gate", SOON, || async {
            let metadata = beside.metadata().await?;
            ensure!(metadata["uid"] != before, "it is the old one");
            Ok(())
        })
        .await
    };
    let ((), probe) = during(side, None, deleted).await?;
    ensure!(probe.longest < REFUSED_MAX, "refused for {:?}: {:?}", probe.longest, probe.refused);
    println!("cacerts was deleted and made anew under {} gated pods, {} refused", probe.allowed, probe.refused.len());
    beside.is_as_made().await?;
    gate.stands("open", None).await?;
    ensure!(beside.metadata().await?["labels"]["app.kubernetes.io/managed-by"] == "istio-ca-gate");
    Ok(())
}
