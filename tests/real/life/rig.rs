//! A mesh of two clusters with real istiods, workloads with real agents, and gates, before one Vault.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::record::SigningRecord;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use testbed::side::{MUTATING_WEBHOOKS, WEBHOOKS};
use testbed::{Helm, Vault, VaultOptions, eventually};
use tokio::process::{Child, Command};
use tokio::sync::SemaphorePermit;

use super::killer::Killer;
use super::node::Node;
use super::prober::{Party, Prober, Tally};
use crate::gate::{Gate, Options, binary};
use crate::mesh::charts;
use crate::signers::{self, allow, enable};
use crate::world::{self, NAMESPACE, Side};

/// Longest wait for anything of a mesh, on a machine that others use.
pub const LONG: Duration = Duration::from_secs(300);

/// The life of a workload's certificate. Its agent renews it at half of that.
pub const LEAF: Duration = Duration::from_secs(60);

/// Workloads of each cluster.
const WORKLOADS: [[&str; 2]; 2] = [["shop", "cart"], ["archive", "photos"]];

/// One cluster with all that runs on it.
pub struct Member {
    pub side: Arc<Side>,
    pub node: Node,
    pub gate: Gate,
    /// Of its signers.
    life: &'static str,
}

/// The mesh, shaking hands.
pub struct Rig {
    pub prober: Prober,
    pub members: [Member; 2],
    pub vault: Vault,
    /// Through it whoever changes the root reaches Vault.
    pub killer: Killer,
    token: String,
    _place: SemaphorePermit<'static>,
}

/// What a mesh begins with.
#[derive(Clone, Copy)]
pub struct Beginning {
    pub kind: Kind,
    /// The lives of signers, in each cluster.
    pub lives: [&'static str; 2],
    /// Istiods of each cluster.
    pub istiods: usize,
}

/// What a mesh is when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A root and a key that both clusters have.
    Shared,
    /// A signer for each cluster.
    Signing,
    /// Each istiod has made a root of its own; the gates come later, and Vault has nothing.
    Split,
}

/// The lives that signers have.
pub const LIVES: [&str; 2] = ["2160h"; 2];

/// Begun an hour before they are made, two thirds of such lives, and what each cluster comes later, are over half a minute
/// after that.
pub const SHORT_LIVES: [&str; 2] = ["1433s", "1831s"];

/// Flags of gates that go by the signing kind.
fn flags(life: &str) -> Vec<&str> {
    ["--vault-pki-mount", "pki-mesh", "--refresh", "1s", "--max-staleness", "1h", "--signer-life", life].into()
}

impl Rig {
    /// Starts everything, and waits until all workloads shake hands.
    pub async fn start(beginning: Beginning) -> Result<Self> {
        let place = world::place().await?;
        let (homelab, nas, vault) = tokio::try_join!(
            Box::pin(Side::homelab_with("overlays/homelab")),
            Box::pin(Side::nas_with("overlays/nas")),
            Box::pin(Vault::start(VaultOptions::default()))
        )?;
        for side in [&homelab, &nas] {
            side.introduce_to(&vault).await?;
            side.apply_with(&["signing"]).await?;
        }
        enable(&vault, &[], "").await?;
        for (side, life) in [&homelab, &nas].into_iter().zip(beginning.lives) {
            allow(&vault, side, life).await?;
        }
        let token = conductors_token(&vault).await?;
        let helm = Helm::new().await?;
        let (homelab, nas) = tokio::try_join!(
            Box::pin(Member::start(homelab, &vault, &helm, beginning, beginning.lives[0])),
            Box::pin(Member::start(nas, &vault, &helm, beginning, beginning.lives[1]))
        )?;
        let members = [homelab, nas];
        let mut parties = Vec::new();
        for (member, accounts) in members.iter().zip(WORKLOADS) {
            member.istiods_are(beginning.istiods).await?;
            parties.extend(member.run(&accounts).await?);
        }
        let prober = Prober::start(&parties);
        prober.rounds(1).await;
        let killer = Killer::start(&vault).await?;
        let rig = Self { prober, members, vault, killer, token, _place: place };
        if beginning.kind != Kind::Split {
            rig.prober.so_far().is_whole()?;
        }
        Ok(rig)
    }

    pub fn homelab(&self) -> &Member {
        &self.members[0]
    }

    pub fn nas(&self) -> &Member {
        &self.members[1]
    }

    /// All handshakes while something is done, and until every workload has renewed its certificate after it.
    pub async fn handshakes(&self, work: impl Future<Output = Result<()>>) -> Result<Tally> {
        let before = self.prober.so_far();
        work.await?;
        self.prober.all_renewed(LONG).await?;
        self.prober.rounds(1).await;
        Ok(self.prober.since(&before))
    }

    /// `istio-ca-gate rotate`, as whoever may change the root.
    pub fn rotate(&self, args: &[&str]) -> Result<Child> {
        let address = self.killer.url();
        let kubeconfigs = self.members.each_ref().map(|member| member.side.cluster.kubeconfig());
        let kubeconfigs = std::env::join_paths(kubeconfigs)?;
        let variables = [
            ("VAULT_ADDR", address.as_str()),
            ("VAULT_TOKEN", &self.token),
            ("GATE_VAULT_PKI_MOUNT", "pki-mesh"),
            ("KUBECONFIG", kubeconfigs.to_str().context("no path")?),
        ];
        let mut command = Command::new(binary());
        command.arg("rotate").args(args).env_clear().envs(variables).stdin(Stdio::null());
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?)
    }

    /// The same to its end: whether it went well, and what it said.
    pub async fn rotated(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = tokio::time::timeout(LONG, self.rotate(args)?.wait_with_output()).await??;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((output.status.success(), said))
    }

    pub async fn record(&self) -> Result<SigningRecord> {
        let data = signers::record(&self.vault).await?;
        Ok(SigningRecord::parse(data.as_object().context("no data")?, Timestamp::now())?)
    }
}

async fn conductors_token(vault: &Vault) -> Result<String> {
    vault.policy("istio-ca-rotate", include_str!("../../../deploy/vault/istio-ca-rotate.hcl")).await?;
    let wanted = json!({ "policies": ["istio-ca-rotate"], "ttl": "8h" });
    let made = vault.ok("POST", "auth/token/create", Some(wanted)).await?;
    Ok(made["auth"]["client_token"].as_str().context("no token")?.to_owned())
}

async fn gate(side: &Side, vault: &Vault, flags: &[&str]) -> Result<Gate> {
    Gate::start_with(side, vault, Options { flags, log: Some("info"), ..Options::default() }).await
}

/// The homelab's istiods take another bundle of roots while they run. Those of the NAS have to be restarted for it, as they
/// are unless they are told otherwise.
async fn install_istio(side: &Side, helm: &Helm, istiods: usize) -> Result<()> {
    let charts = charts().await?;
    helm.install(&side.cluster, NAMESPACE, "istio-base", &charts.join("base"), &[]).await?;
    let replicas = format!("replicaCount={istiods}");
    let multiroot = format!("env.ISTIO_MULTIROOT_MESH={}", side.role == "bootstrap");
    let settings = ["autoscaleEnabled=false", &replicas, &multiroot];
    let istiod = charts.join("istio-control/istio-discovery");
    helm.install(&side.cluster, NAMESPACE, "istiod", &istiod, &settings).await?;
    Ok(())
}

/// Takes the webhooks away, so that no gate is asked.
pub async fn ungate(side: &Side) -> Result<()> {
    for webhooks in [WEBHOOKS, MUTATING_WEBHOOKS] {
        let (status, answer) = side.api.request("DELETE", webhooks, None).await?;
        ensure!(matches!(status, 200 | 404), "{answer}");
    }
    Ok(())
}

impl Member {
    /// The gate first, then Istio by its charts, or the other way round where the mesh is split.
    async fn start(side: Side, vault: &Vault, helm: &Helm, beginning: Beginning, life: &'static str) -> Result<Self> {
        let side = Arc::new(side);
        if beginning.kind == Kind::Split {
            ungate(&side).await?;
            install_istio(&side, helm, beginning.istiods).await?;
            let node = Node::start(Arc::clone(&side)).await?;
            eventually("istiods on roots of their own", LONG, || async {
                ensure!(node.ready().await? == beginning.istiods, "not all");
                Ok(())
            })
            .await?;
            side.apply_with(&["signing"]).await?;
            return Ok(Self { gate: gate(&side, vault, &flags(life)).await?, node, side, life });
        }
        let flags = if beginning.kind == Kind::Signing { flags(life) } else { Vec::new() };
        let gate = gate(&side, vault, &flags).await?;
        install_istio(&side, helm, beginning.istiods).await?;
        Ok(Self { node: Node::start(Arc::clone(&side)).await?, side, gate, life })
    }

    /// Has another gate take over, which goes by the signing kind, and reaches Vault this way.
    pub async fn take_over(&mut self, vault: &Vault, way: Option<&Killer>) -> Result<()> {
        self.gate.process.terminate().await?;
        let url = way.map(Killer::url);
        let mut flags = flags(self.life);
        flags.extend(url.iter().flat_map(|url| ["--vault-addr", url]));
        self.gate = gate(&self.side, vault, &flags).await?;
        Ok(())
    }

    /// Waits until so many istiods run.
    pub async fn istiods_are(&self, count: usize) -> Result<()> {
        eventually("the istiods", LONG, || async {
            let ready = self.node.ready().await?;
            ensure!(ready == count, "{ready} are ready");
            Ok(())
        })
        .await
    }

    /// Starts workloads, and waits for their certificates.
    async fn run(&self, accounts: &[&'static str]) -> Result<Vec<Party>> {
        let path = "/api/v1/namespaces/default/configmaps/istio-ca-root-cert";
        eventually("the mesh's roots", LONG, || async { self.side.object(path).await?.context("none yet") }).await?;
        let life = format!("{}s", LEAF.as_secs());
        let mut parties = Vec::new();
        for name in accounts {
            self.side.cluster.kubectl(&["-n", "default", "create", "serviceaccount", name]).await?;
            let files = self.node.run(name, &life).await?;
            let party = Party { cluster: self.side.name, name, files };
            let all = ["key.pem", "cert-chain.pem", "root-cert.pem"];
            let is_there = || async { all.iter().all(|name| party.files.join(name).is_file()).then_some(()) };
            let waited = eventually("a workload's certificate", LONG, is_there).await;
            if let Err(error) = waited {
                anyhow::bail!("{error:#}\n{}", self.node.agent_log(name).await);
            }
            parties.push(party);
        }
        Ok(parties)
    }

    /// Restarts its istiods one after the other, as a person does, or `kubectl rollout restart`.
    pub async fn restart_istiods(&self) -> Result<()> {
        let count = self.node.ready().await?;
        for pod in self.side.pods("istiod").await? {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}");
            let now = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
            let (status, answer) = self.side.api.request("DELETE", &path, Some(now)).await?;
            ensure!(status == 200, "{status}: {answer}");
            eventually("another istiod", LONG, || async {
                let pods = self.side.pods("istiod").await?;
                let ready = self.node.ready().await?;
                ensure!(!pods.contains(&pod) && pods.len() == count && ready == count, "{ready} of {pods:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
