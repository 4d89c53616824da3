//! `bootstrap` and `sync` as the Jobs of deploy/kustomize/jobs run them, several at once, and beside a gate.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Process, Program, Vault, VaultOptions, eventually};

use crate::gate::{Gate, binary};
use crate::world::{self, NAMESPACE, SOON, Side, SmallWorld};

/// A run of the program with the rights of a service account.
pub struct Run {
    pub process: Process,
    _folder: TempDir,
}

impl Run {
    async fn start(
        side: &Side,
        vault: &Vault,
        account: &str,
        args: &[&str],
        settings: &[(String, String)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cluster = &side.cluster;
        let token = cluster.service_account_token(NAMESPACE, account, &[cluster.issuer()], 3600).await?;
        let jwt_file = folder.path().join("token");
        let jwt = cluster.service_account_token(NAMESPACE, account, &["vault"], 3600).await?;
        std::fs::write(&jwt_file, jwt)?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, side.api.kubeconfig(account, &token))?;
        let mut program = Program::new(binary()).args(args);
        for (name, value) in settings {
            program = program.env(name, value);
        }
        let process = program
            .env("GATE_VAULT_ADDRS", vault.address())
            .env("VAULT_CACERT", vault.ca_file())
            .env("GATE_VAULT_JWT_FILE", jwt_file)
            .env("KUBECONFIG", kubeconfig)
            .spawn(folder.path().join("log"))?;
        Ok(Self { process, _folder: folder })
    }

    /// One by hand, with the gate's account.
    pub async fn by_hand(side: &Side, vault: &Vault, args: &[&str]) -> Result<Self> {
        let settings = [("GATE_CLUSTER", side.name), ("GATE_VAULT_AUTH_MOUNT", side.auth_mount)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self::start(side, vault, side.service_account, args, &settings).await
    }

    /// What the kubelet would run for the pod of the side's Job, apart from where Vault is.
    async fn as_the_pod(side: &Side, vault: &Vault) -> Result<Self> {
        let pod = pod_of_job(side).await?;
        let spec = &pod["spec"];
        ensure!(spec["serviceAccountName"] == side.job_account(), "{spec}");
        let projected = &spec["volumes"].as_array().context("no volumes")?;
        let token = projected
            .iter()
            .find_map(|volume| volume["projected"]["sources"][0]["serviceAccountToken"]["audience"].as_str());
        ensure!(token == Some("vault"), "{spec}");
        let container = &spec["containers"][0];
        let args: Vec<_> = container["args"].as_array().context("no args")?.iter().filter_map(Value::as_str).collect();
        let settings = container["envFrom"][0]["configMapRef"]["name"].as_str().context("no settings")?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{settings}");
        let settings = side.object(&path).await?.context("the settings are not there")?;
        let settings = settings["data"].as_object().context("no data")?.iter();
        let settings: Vec<_> =
            settings.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        Self::start(side, vault, &side.job_account(), &args, &settings).await
    }

    /// Waits for its end, which is to be a good one, and returns the line that it ends with.
    async fn done(&self) -> Result<String> {
        let status = self.process.exited(SOON).await?;
        let log = self.process.log();
        ensure!(status.success(), "{status}: {log}");
        ensure!(!log.contains("PRIVATE KEY") && !log.contains("LS0tLS1CRUdJTiB"), "key material in its output");
        let mut lines = log.lines().filter(|line| line.starts_with("Secret "));
        lines.next_back().map(str::to_owned).context("no line tells of it")
    }
}

/// The pod that the Job's controller makes.
async fn pod_of_job(side: &Side) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=job-name%3D{}", side.job_account());
    eventually("the Job's pod", SOON, || async {
        let pods = side.object(&path).await?.context("no list")?;
        pods["items"].get(0).cloned().context("no pod yet")
    })
    .await
}

/// Whether RBAC lets the Job's service account do this.
async fn may(side: &Side, verb: &str, group: &str, resource: &str, name: &str) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{}", side.job_account()),
            "resourceAttributes": {
                "namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource,
                "subresource": subresource, "name": name,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (status, answer) = side.cluster.request("POST", path, Some(review)).await?;
    ensure!(status == 201, "{answer}");
    answer["status"]["allowed"].as_bool().context("no verdict")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_old_bring_one_root_to_both_clusters_in_either_order() -> Result<()> {
    let _place = world::place().await?;
    let (homelab, nas, vault) = tokio::try_join!(
        Side::homelab_with("jobs/homelab"),
        Side::nas_with("jobs/nas"),
        Vault::start(VaultOptions::default())
    )?;
    homelab.introduce_to(&vault).await?;
    nas.introduce_to(&vault).await?;

    // The NAS first, as its Job does it: it waits.
    let sync = Run::as_the_pod(&nas, &vault).await?;
    sync.process
        .until("the NAS to be held", SOON, || async { sync.process.log().contains("RootMissing").then_some(()) })
        .await?;
    ensure!(nas.cacerts().await?.is_none() && nas.pin().await?.is_none());
    let bootstrap = Run::as_the_pod(&homelab, &vault).await?;
    let line = bootstrap.done().await?;
    ensure!(sync.done().await? == line, "{line}");
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    let cacerts = [homelab.cacerts().await?.context("no cacerts")?, nas.cacerts().await?.context("no cacerts")?];
    ensure!(cacerts[0]["data"] == cacerts[1]["data"]);

    // Again: nothing is done twice.
    ensure!(Run::as_the_pod(&homelab, &vault).await?.done().await? == line);
    ensure!(Run::as_the_pod(&nas, &vault).await?.done().await? == line);
    ensure!(
        homelab.cacerts().await?.as_ref() == Some(&cacerts[0]) && nas.cacerts().await?.as_ref() == Some(&cacerts[1])
    );
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);

    // The rights are enough, and no more than that.
    for run in [&bootstrap, &sync] {
        ensure!(!run.process.log().contains("KubernetesForbidden"), "{}", run.process.log());
    }
    for side in [&homelab, &nas] {
        let applied = side.apply(&format!("jobs/{}", side.name)).await?;
        ensure!(applied.lines().all(|line| line.ends_with("unchanged")), "{applied}");
        ensure!(
            may(side, "get", "", "secrets", "cacerts").await? && may(side, "patch", "", "secrets", "cacerts").await?
        );
        for (verb, group, resource, name) in [
            ("list", "", "secrets", ""),
            ("watch", "", "secrets", "cacerts"),
            ("delete", "", "secrets", "cacerts"),
            ("get", "", "secrets", "istio-ca-gate-tls"),
            ("patch", "", "configmaps", "istio-ca-root-cert"),
            ("delete", "", "configmaps", "istio-ca-gate"),
            ("patch", "apps", "replicasets", "istiod"),
            ("create", "", "pods", ""),
            ("patch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "istio-ca-gate"),
        ] {
            ensure!(!may(side, verb, group, resource, name).await?, "{} may {verb} {resource} {name}", side.name);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_bootstraps_at_once_on_an_empty_vault_make_one_root() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let start = || Run::by_hand(side, vault, &["bootstrap", "--wait", "30s"]);
    let runs = try_join_all((0..5).map(|_| start())).await?;
    let lines = try_join_all(runs.iter().map(Run::done)).await?;
    ensure!(lines.windows(2).all(|pair| pair[0] == pair[1]), "{lines:?}");
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    let pin = side.pin().await?.context("no pin")?;
    ensure!(lines[0].ends_with(pin["data"]["root-sha256"].as_str().context("no root")?), "{}", lines[0]);
    // The fault hit: more than one of them made a key.
    let having = |text: &str| runs.iter().filter(|run| run.process.log().contains(text)).count();
    let (made, wrote) = (having("made a root key"), having("wrote it to"));
    ensure!(made >= 2 && wrote == 1, "{made} made a key, {wrote} wrote it");
    println!("{made} of 5 made a key, 1 wrote it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_gate_they_make_no_second_root_and_write_nothing_anew() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let gate = Gate::start(side, vault).await?;
    // Both are asked for the root at once.
    let (run, deployed) =
        tokio::join!(Run::by_hand(side, vault, &["bootstrap", "--wait", "30s"]), side.deploy_istiod());
    deployed?;
    let line = run?.done().await?;
    side.pod("istiod").await?;
    let report = gate.stands("open", None).await?;
    ensure!(report["match"] == true && vault.versions("secret", "istio/ca").await? == [1], "{report}");

    let (cacerts, pin) = (side.cacerts().await?, side.pin().await?);
    for command in ["bootstrap", "sync"] {
        let again = Run::by_hand(side, vault, &[command, "--vault-role", "istio-ca-bootstrap"]).await?;
        ensure!(again.done().await? == line, "{command}");
    }
    ensure!(side.cacerts().await? == cacerts && side.pin().await? == pin);
    gate.stands("open", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_blocked_before_is_touched_with_the_rights_of_the_job() -> Result<()> {
    let _place = world::place().await?;
    let (side, vault) = tokio::try_join!(Side::nas_with("jobs/nas"), Vault::start(VaultOptions::default()))?;
    side.introduce_to(&vault).await?;
    // A webhook without a gate behind it refuses everything, and the controller's pauses grow.
    let webhook = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/base/webhook.yaml");
    side.cluster.kubectl(&["apply", "-f", webhook]).await?;
    side.deploy_istiod().await?;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/replicasets");
    let touched = async || -> Result<bool> {
        let owners = side.object(&path).await?.context("no ReplicaSets")?;
        Ok(owners.to_string().contains("istio-ca-gate.io/touched-at"))
    };
    eventually("istiod to be refused", SOON, || async {
        let refused = side.refused("istiod").await?;
        ensure!(refused > 0, "{refused} times");
        Ok(())
    })
    .await?;
    ensure!(!touched().await?);

    let ca = crate::cacerts::foreign_ca().await?;
    let record = json!({
        "root-cert.pem": ca["root-cert.pem"], "cert-chain.pem": ca["cert-chain.pem"], "key.pem": ca["ca-key.pem"],
    });
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record }))).await?;
    let run = Run::as_the_pod(&side, &vault).await?;
    run.done().await?;
    ensure!(touched().await? && !run.process.log().contains("KubernetesForbidden"), "{}", run.process.log());
    // Without the webhook, the pod comes.
    side.cluster.kubectl(&["delete", "-f", webhook]).await?;
    side.pod("istiod").await?;
    Ok(())
}
