//! The serving certificate behind a real API server: CA and leaves are rotated while pods are created, and no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use istio_ca_gate::serving::ca::CaCertificate;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use testbed::eventually;
use tokio::task::JoinSet;

use crate::gate::{Gate, Options};
use crate::world::{NAMESPACE, Side, SmallWorld};

/// A CA's life, a leaf's life after its switch, and room for a busy machine.
const IN_TIME: Duration = Duration::from_secs(120);

/// Between two pods of one of their creators.
const PAUSE: Duration = Duration::from_millis(40);

/// At a time, so that the API server needs several connections.
const CREATORS: usize = 3;

const FLAGS: [&str; 4] = ["--tls-ca-life", "24s", "--tls-leaf-life", "8s"];

const TLS_SECRET: &str = "/api/v1/namespaces/istio-system/secrets/istio-ca-gate-tls";

/// The CAs in the Secret, the signing one first.
async fn cas(side: &Side) -> Result<Vec<Sha256>> {
    let secret = side.object(TLS_SECRET).await?.context("no Secret")?;
    let bundle: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone())?;
    let cas = CaCertificate::all_of(&bundle.0).map_err(anyhow::Error::msg)?;
    Ok(cas.into_iter().map(|ca| ca.id).collect())
}

/// Waits until another CA signs and this one is not trusted any more.
async fn retired(side: &Side, old: &Sha256) -> Result<Sha256> {
    eventually("the CA to be retired", IN_TIME, || async {
        let cas = cas(side).await?;
        ensure!(!cas.contains(old), "{cas:?}");
        Ok(cas[0])
    })
    .await
}

fn istiod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "istiod-", "namespace": NAMESPACE, "labels": { "app": "istiod" } },
        "spec": { "containers": [{ "name": "discovery", "image": "registry.example/pilot" }] },
    })
}

/// Gated pods, created until it is ended.
struct Creation {
    creators: JoinSet<Result<()>>,
    ended: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
}

impl Creation {
    /// In a dry run, which the API server has reviewed like any other.
    fn start(side: &Side) -> Self {
        let mut creators = JoinSet::new();
        let (ended, created) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        for _ in 0..CREATORS {
            let (api, ended, created) = (side.api.clone(), Arc::clone(&ended), Arc::clone(&created));
            creators.spawn(async move {
                let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
                while !ended.load(Ordering::Relaxed) {
                    let (status, answer) = api.request("POST", &path, Some(istiod())).await?;
                    ensure!(status == 201, "{status}: {answer}");
                    created.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            });
        }
        Self { creators, ended, created }
    }

    /// Ends it. The first refusal is the error.
    async fn end(mut self) -> Result<usize> {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(creator) = self.creators.join_next().await {
            creator??;
        }
        Ok(self.created.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_two_replicas_is_rotated_and_lost_and_no_pod_is_refused() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let options = || Options { flags: &FLAGS, log: Some("info"), ..Options::default() };
    let gates = [Gate::launch(side, vault, options()).await?, Gate::launch(side, vault, options()).await?];
    // Each pod is reviewed by both.
    side.point_webhooks_at(&[gates[0].port(), gates[1].port()]).await?;
    side.is_injected().await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    for gate in &gates {
        gate.stands("open", None).await?;
    }

    let first = cas(side).await?[0];
    let creation = Creation::start(side);
    let second = retired(side, &first).await?;
    let rotated = creation.created.load(Ordering::Relaxed);
    println!("serving CA {first} was rotated to {second}: {rotated} pods, none refused");

    // And one that is deleted, with no calm after the rotation.
    side.cluster.kubectl(&["-n", NAMESPACE, "delete", "secret", "istio-ca-gate-tls"]).await?;
    let third = retired(side, &second).await?;
    let created = creation.end().await?;
    println!("serving CA {second} was lost and became {third}: {} more pods, none refused", created - rotated);
    ensure!(first != second && second != third && rotated >= 100 && created - rotated >= 50);
    for gate in &gates {
        gate.ready().await?;
        let log = gate.process.log();
        let issued = log.matches("issued a serving certificate").count();
        println!("port {}: {issued} leaves", gate.port());
        ensure!(issued >= 4 && log.contains(&format!("\"ca\":\"{second}\"")), "{log}");
        let allowed = allowed(gate).await?;
        ensure!(allowed >= created, "{allowed} of {created} pods were reviewed by this replica");
    }
    Ok(())
}

/// Reviews that this replica allowed. Its log has not a line for each: lines that callers cause have a rate.
async fn allowed(gate: &Gate) -> Result<usize> {
    let text = reqwest::get(gate.url("metrics")).await?.text().await?;
    let of_pods = |line: &&str| {
        line.starts_with("istio_ca_gate_admission_requests_total{") && line.contains("decision=\"allowed\"")
    };
    let counts = text.lines().filter(of_pods).filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    Ok(counts.sum())
}
