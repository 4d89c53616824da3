//! Faults that need a whole cluster and its gate, one after another on real components.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use faults::history::Said;
use serde_json::json;
use testbed::{Port, Signal, eventually};

use crate::arena::PATIENCE;
use crate::gate::{Gate, Options};
use crate::lines::{Lines, webhook_counts};
use crate::world::{NAMESPACE, SmallWorld};

/// How long a server is away: longer than a call waits.
const AWAY: Duration = Duration::from_secs(12);

/// How long a gate is stopped.
const STOPPED: Duration = Duration::from_secs(60);

struct Stage {
    world: SmallWorld,
    gate: Option<Gate>,
    lines: Lines,
}

/// All of them.
pub async fn all() -> Result<usize> {
    let folder = testbed::evidence::folder().context("TESTBED_EVIDENCE names no folder")?;
    let mut stage = Stage { world: SmallWorld::homelab().await?, gate: None, lines: Lines::new() };
    let scenes = [
        stage.webhooks_before_the_gate().await?,
        stage.a_quota_refuses_cacerts().await?,
        stage.the_api_server_is_killed().await?,
        stage.etcd_is_stopped().await?,
        stage.the_gate_is_stopped_for_a_minute().await?,
        stage.webhooks_without_a_gate().await?,
    ];
    webhook_counts(&stage.world.side).await?;
    let Stage { world, gate, lines } = stage;
    drop((gate, world));
    lines.judged("scenes", &folder)?;
    println!("scenes: {} scenes, every promise was kept", scenes.len());
    Ok(scenes.len())
}

impl Stage {
    fn gate(&self) -> Result<&Gate> {
        self.gate.as_ref().context("no gate")
    }

    fn process(&mut self, event: &str) {
        self.lines.say(Said::Process { name: "the gate".to_owned(), event: event.to_owned(), by_run: true });
    }

    /// A gated pod is refused, because nobody can be asked.
    async fn nobody_comes_in(&self) -> Result<u64> {
        let pod = json!({
            "metadata": { "generateName": "probe-", "labels": { "app": "istiod" } },
            "spec": { "containers": [{ "name": "c", "image": "registry.example/istio" }] },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let (status, answer) = self.world.side.cluster.request("POST", &path, Some(pod)).await?;
        ensure!(status >= 400 && answer.to_string().contains("failed calling webhook"), "{status}: {answer}");
        Ok(1)
    }

    /// A new pod of istiod comes in by an open gate.
    async fn heals(&mut self, fault: &str) -> Result<()> {
        let began = Instant::now();
        let side = &self.world.side;
        let open = async {
            eventually("new pods", PATIENCE, || side.restart("istiod")).await?;
            eventually("the pod", PATIENCE, || async {
                let pods = side.pods("istiod").await?;
                ensure!(!pods.is_empty(), "{:?}", side.refusals("istiod").await?);
                Ok(())
            })
            .await?;
            eventually("the gate to be open", PATIENCE, || async {
                let report = self.gate()?.fingerprint().await?;
                ensure!(report["state"] == "open", "{report}");
                Ok(())
            })
            .await
        };
        let open = open.await;
        println!(
            "scenes: {fault}: {}, {:.1} s later",
            if open.is_ok() { "open" } else { "not open" },
            began.elapsed().as_secs_f64()
        );
        self.lines.end(&self.world.side, fault, began, open).await
    }

    async fn webhooks_before_the_gate(&mut self) -> Result<()> {
        let (side, vault, https) = (&self.world.side, &self.world.vault, Port::reserve()?);
        side.point_webhooks_at(&[https.number()]).await?;
        let hits = self.nobody_comes_in().await?;
        let options = Options { https: Some(https), flags: &["--refresh", "1s"], ..Options::default() };
        let gate = Gate::launch(side, vault, options).await?;
        side.is_injected().await?;
        self.gate = Some(gate);
        self.lines.fault("webhooks before the gate", hits);
        self.process("started");
        Ok(())
    }

    /// Right after the root was made: it is published once that is allowed, and no other one is made.
    async fn a_quota_refuses_cacerts(&mut self) -> Result<()> {
        let side = &self.world.side;
        side.cluster.kubectl(&["-n", NAMESPACE, "create", "quota", "none", "--hard=count/secrets=0"]).await?;
        eventually("the quota to count", PATIENCE, || async {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/resourcequotas/none");
            let quota = side.object(&path).await?.context("no quota")?;
            ensure!(quota["status"]["used"].is_object(), "{quota}");
            Ok(())
        })
        .await?;
        side.deploy_istiod().await?;
        side.refusal("istiod", "KubernetesForbidden").await?;
        ensure!(self.world.vault.versions("secret", "istio/ca").await? == [1] && side.cacerts().await?.is_none());
        side.cluster.kubectl(&["-n", NAMESPACE, "delete", "quota", "none"]).await?;
        self.lines.fault("a quota", 1);
        self.heals("a quota").await?;
        ensure!(self.world.vault.versions("secret", "istio/ca").await? == [1]);
        Ok(())
    }

    async fn the_api_server_is_killed(&mut self) -> Result<()> {
        self.world.side.cluster.stop_api_server()?;
        tokio::time::sleep(AWAY).await;
        let running = !self.world.side.cluster.api_server().is_running();
        self.world.side.cluster.start_api_server().await?;
        self.lines.fault("the API server killed", running.into());
        self.heals("the API server killed").await
    }

    async fn etcd_is_stopped(&mut self) -> Result<()> {
        self.world.side.cluster.stop_etcd()?;
        tokio::time::sleep(AWAY).await;
        let stopped = !self.world.side.cluster.etcd().is_running();
        self.world.side.cluster.start_etcd().await?;
        self.lines.fault("etcd stopped", stopped.into());
        self.heals("etcd stopped").await
    }

    async fn the_gate_is_stopped_for_a_minute(&mut self) -> Result<()> {
        self.gate()?.process.signal(Signal::STOP)?;
        self.process("stopped");
        let hits = self.nobody_comes_in().await?;
        tokio::time::sleep(STOPPED).await;
        self.gate()?.process.signal(Signal::CONT)?;
        self.lines.fault("the gate stopped for a minute", hits);
        self.process("goes on");
        self.heals("the gate stopped for a minute").await
    }

    async fn webhooks_without_a_gate(&mut self) -> Result<()> {
        self.gate()?.process.stop()?;
        self.process("killed");
        let hits = self.nobody_comes_in().await?;
        self.lines.fault("webhooks without a gate", hits);
        Ok(())
    }
}
