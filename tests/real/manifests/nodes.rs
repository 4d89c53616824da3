//! Where the real scheduler puts the gate's pods, on nodes made by hand: in a cluster that comes up from cold, on one node,
//! on several, and through a roll-out.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Cluster, Helm, Process, eventually};

use super::{apply, cluster, deploy, pods};
use crate::mesh::charts;
use crate::world::{self, NAMESPACE, SOON};

/// Of the gate's pods.
const GATE: &str = "app=istio-ca-gate";

/// A taint: key and effect.
type Taint = (&'static str, &'static str);

/// istiod takes it away.
const NO_CNI: Taint = ("cni.istio.io/not-ready", "NoSchedule");
const CONTROL_PLANE: Taint = ("node-role.kubernetes.io/control-plane", "NoSchedule");
const RATHER_NOT: Taint = ("example.com/slow", "PreferNoSchedule");

/// A cluster with the gate's manifests and a scheduler, and no node yet. Its webhooks are gone: here nobody answers.
struct Scheduled {
    _scheduler: Process,
    cluster: Cluster,
}

impl Scheduled {
    async fn new(name: &str) -> Result<Self> {
        let cluster = cluster(name).await?;
        apply(&cluster, &deploy(&format!("kustomize/overlays/{name}"))).await?;
        for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
            cluster.kubectl(&["delete", kind, "istio-ca-gate"]).await?;
        }
        Ok(Self { _scheduler: cluster.start_scheduler()?, cluster })
    }

    async fn node(&self, name: &str, taints: &[Taint]) -> Result<()> {
        let room = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
        let taints: Vec<_> = taints.iter().map(|(key, effect)| json!({ "key": key, "effect": effect })).collect();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "spec": { "taints": taints },
            "status": { "capacity": room, "allocatable": room, "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let (status, answer) = self.cluster.request("POST", "/api/v1/nodes", Some(node)).await?;
        ensure!(status == 201, "{answer}");
        // A new node is tainted until its controller has seen that it is ready, and the scheduler follows later still.
        self.bystander(name, Some(name)).await?;
        self.placed(&format!("app={name}"), 1).await?;
        self.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"]).await
    }

    async fn kubectl(&self, args: &[&str]) -> Result<()> {
        self.cluster.kubectl(&[&["-n", NAMESPACE][..], args].concat()).await.map(drop)
    }

    /// A pod of this name and app that tolerates nothing; or, of one node, everything but that it is not ready.
    async fn bystander(&self, name: &str, on: Option<&str>) -> Result<()> {
        let security = json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        });
        let tolerated = [NO_CNI, CONTROL_PLANE].map(|(key, _)| json!({ "key": key, "operator": "Exists" }));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "containers": [{ "name": "c", "image": "registry.example/c", "securityContext": security }],
                "nodeSelector": on.map(|node| json!({ "kubernetes.io/hostname": node })),
                "tolerations": on.map(|_| tolerated),
            },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let (status, answer) = self.cluster.request("POST", &path, Some(pod)).await?;
        ensure!(status == 201, "{answer}");
        Ok(())
    }

    /// The nodes of so many pods, once each has one.
    async fn placed(&self, selector: &str, count: usize) -> Result<Vec<String>> {
        eventually(&format!("{count} pods with {selector} to be placed"), SOON, || async {
            let pods = pods(&self.cluster, selector).await?;
            let nodes: Vec<_> =
                pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).map(str::to_owned).collect();
            ensure!(pods.len() == count && nodes.len() == count, "{}", told(&pods));
            Ok(nodes)
        })
        .await
    }

    /// As placed, with no two on the same node.
    async fn spread(&self, selector: &str) -> Result<()> {
        let nodes = self.placed(selector, 2).await?;
        ensure!(nodes[0] != nodes[1], "both are on {}", nodes[0]);
        Ok(())
    }

    /// Waits until the scheduler says this of a pod that it finds no node for.
    async fn finds_no_node(&self, app: &str, why: &str) -> Result<()> {
        eventually(&format!("{app} to find no node"), SOON, || async {
            let text = told(&pods(&self.cluster, &format!("app={app}")).await?);
            ensure!(text.contains(why), "{text}");
            Ok(())
        })
        .await
    }

    /// Plays the kubelet of all nodes: what was placed is ready, what is to end has ended.
    async fn run_pods(&self) -> Result<()> {
        for pod in pods(&self.cluster, GATE).await? {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.cluster.request("DELETE", &format!("{path}?gracePeriodSeconds=0"), None).await?;
            } else if pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] != "Running" {
                let conditions = json!([{ "type": "Ready", "status": "True" }]);
                let body = json!({ "status": { "phase": "Running", "conditions": conditions } });
                self.cluster.request("PATCH", &format!("{path}/status"), Some(body)).await?;
            }
        }
        Ok(())
    }

    async fn rolled_out(&self) -> Result<String> {
        eventually("the roll-out to end", SOON, || async {
            self.run_pods().await?;
            let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istio-ca-gate");
            let (_, deployment) = self.cluster.request("GET", &path, None).await?;
            let status = &deployment["status"];
            let seen = status["observedGeneration"] == deployment["metadata"]["generation"];
            let all = ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|count| status[*count] == 2);
            ensure!(seen && all && pods(&self.cluster, GATE).await?.len() == 2, "{status}");
            let hashes: BTreeSet<_> = pods(&self.cluster, GATE)
                .await?
                .iter()
                .map(|pod| pod["metadata"]["labels"]["pod-template-hash"].to_string())
                .collect();
            ensure!(hashes.len() == 1, "{hashes:?}");
            Ok(hashes.into_iter().next().unwrap_or_default())
        })
        .await
    }

    /// All of the gate's pods anew, and at once.
    async fn anew(&self) -> Result<()> {
        self.kubectl(&["delete", "pods", "-l", GATE, "--force", "--grace-period=0"]).await
    }
}

/// What is said of pods that wait.
fn told(pods: &[Value]) -> String {
    let mut text = format!("{} pods", pods.len());
    for pod in pods {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let message = conditions.filter_map(|condition| condition["message"].as_str()).next().unwrap_or_default();
        let _ = write!(text, "; on {}: {message}", pod["spec"]["nodeName"]);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_node_waits_for_istiod_the_gate_and_the_job_find_one() -> Result<()> {
    let _place = world::place().await?;
    let scheduled = Scheduled::new("homelab").await?;
    apply(&scheduled.cluster, &deploy("kustomize/jobs/homelab")).await?;
    scheduled.bystander("bystander", None).await?;
    for node in ["one", "two"] {
        scheduled.node(node, &[NO_CNI]).await?;
    }
    // Both nodes are there by now: before, the first one may have taken both.
    scheduled.anew().await?;
    scheduled.spread(GATE).await?;
    scheduled.placed("batch.kubernetes.io/job-name", 1).await?;
    scheduled.finds_no_node("bystander", "untolerated taint").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_tolerates_what_istiod_of_the_real_chart_tolerates_and_both_come_up() -> Result<()> {
    let _place = world::place().await?;
    let helm = Helm::new().await?;
    let scheduled = Scheduled::new("nas").await?;
    let charts = charts().await?;
    helm.install(&scheduled.cluster, NAMESPACE, "istio-base", &charts.join("base"), &[]).await?;
    let restricted = ["seccompProfile.type=RuntimeDefault"];
    let istiod = charts.join("istio-control/istio-discovery");
    helm.install(&scheduled.cluster, NAMESPACE, "istiod", &istiod, &restricted).await?;
    scheduled.node("one", &[NO_CNI]).await?;
    ensure!(scheduled.placed(GATE, 2).await? == ["one", "one"]);
    ensure!(scheduled.placed("app=istiod", 1).await? == ["one"]);
    let mut tolerated = Vec::new();
    for selector in [GATE, "app=istiod"] {
        tolerated.push(pods(&scheduled.cluster, selector).await?[0]["spec"]["tolerations"].take());
    }
    ensure!(tolerated[0] == tolerated[1], "{tolerated:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_runs_both_and_a_second_one_that_is_worse_takes_its_share() -> Result<()> {
    let _place = world::place().await?;
    let scheduled = Scheduled::new("nas").await?;
    scheduled.node("one", &[]).await?;
    ensure!(scheduled.placed(GATE, 2).await? == ["one", "one"]);
    // By preference alone both would be on the first again.
    scheduled.node("two", &[RATHER_NOT]).await?;
    scheduled.anew().await?;
    scheduled.spread(GATE).await?;

    // A roll-out ends spread, too.
    let before = scheduled.rolled_out().await?;
    scheduled.kubectl(&["rollout", "restart", "deploy/istio-ca-gate"]).await?;
    ensure!(scheduled.rolled_out().await? != before);
    scheduled.spread(GATE).await?;

    // And while the second one is drained, the first runs both.
    scheduled.kubectl(&["cordon", "two"]).await?;
    scheduled.bystander("late", Some("two")).await?;
    scheduled.finds_no_node("late", "unschedulable").await?;
    scheduled.anew().await?;
    ensure!(scheduled.placed(GATE, 2).await? == ["one", "one"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_take_no_pods_keep_no_replica_waiting() -> Result<()> {
    let _place = world::place().await?;
    let scheduled = Scheduled::new("homelab").await?;
    for node in ["control-plane-one", "control-plane-two"] {
        scheduled.node(node, &[CONTROL_PLANE]).await?;
    }
    scheduled.node("worker", &[]).await?;
    ensure!(scheduled.placed(GATE, 2).await? == ["worker", "worker"]);
    Ok(())
}
