//! The gate is killed before and after each of its calls to Vault and to the API server on its way from the first
//! consultation to the open gate, on real components. Started again, it goes on, and nothing was done twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use faults::history::Said;
use serde_json::{Value, json};
use testbed::eventually;

use crate::arena::{PATIENCE, foreign};
use crate::bridge::{Bridge, Point, Tap};
use crate::gate::{Gate, Options};
use crate::lines::{Lines, webhook_counts};
use crate::world::{NAMESPACE, SmallWorld};

/// How many of the same call are told apart.
const NTH_MAX: usize = 3;

/// After the gate is open, so long no call comes that was not seen.
const QUIET: Duration = Duration::from_secs(2);

/// One cluster, its gate, and the two networks that the gate looks through.
struct Rig {
    world: SmallWorld,
    gate: Arc<Gate>,
    tap: Arc<Tap>,
    lines: Lines,
    _bridges: [Bridge; 2],
}

impl Rig {
    async fn start(role: &str) -> Result<Self> {
        let world = if role == "homelab" { SmallWorld::homelab().await? } else { SmallWorld::nas().await? };
        let (side, vault, tap) = (&world.side, &world.vault, Arc::<Tap>::default());
        let bridges = [
            Bridge::start("vault", vault.address(), vault.ca_pem(), &tap).await?,
            Bridge::start("api", side.cluster.url(), side.cluster.ca_pem(), &tap).await?,
        ];
        let token = side.gate_token(side.cluster.issuer()).await?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", bridges[1].address) } }],
            "users": [{ "name": "u", "user": { "token": token } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        let file = side.cluster.kubeconfig().with_file_name("kubeconfig-by-bridge");
        std::fs::write(&file, kubeconfig.to_string())?;
        let path = file.to_str().context("the folder's name is not UTF-8")?;
        let address = format!("http://{}", bridges[0].address);
        // It compares seldom, so that what passes is what an opening takes.
        let flags = ["--vault-addr", &address, "--kubeconfig", path, "--refresh", "1h"];
        let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
        if role == "nas" {
            vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record()? }))).await?;
        }
        let rig = Self { world, gate: Arc::new(gate), tap, lines: Lines::new(), _bridges: bridges };
        Ok(rig)
    }

    /// As if nobody had ever asked; in the bootstrap cluster: as if there had never been a root.
    async fn clear(&self) -> Result<()> {
        let side = &self.world.side;
        self.tap.disarm();
        self.gate.process.stop()?;
        for object in ["deployment/istiod", "secret/cacerts", "configmap/istio-ca-gate"] {
            side.cluster.kubectl(&["-n", NAMESPACE, "delete", object, "--ignore-not-found"]).await?;
        }
        if side.role == "bootstrap" {
            self.world.vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
        }
        eventually("the pods to be gone", PATIENCE, || async {
            side.restart("istiod").await?;
            let pods = side.pods("istiod").await?;
            ensure!(pods.is_empty(), "{pods:?}");
            Ok(())
        })
        .await?;
        self.gate.process.start_again()?;
        self.gate.ready().await
    }

    /// What passes on the way from the first consultation to an open gate that has said so.
    async fn calls(&self) -> Result<Vec<String>> {
        self.clear().await?;
        self.tap.disarm();
        self.world.side.deploy_istiod().await?;
        self.opens().await?;
        tokio::time::sleep(QUIET).await;
        Ok(self.tap.seen())
    }

    async fn opens(&self) -> Result<()> {
        eventually("the gate to be open", PATIENCE, || self.is_open()).await
    }

    async fn is_open(&self) -> Result<()> {
        let side = &self.world.side;
        let pods = side.pods("istiod").await?;
        ensure!(!pods.is_empty(), "{:?}", side.refusals("istiod").await?);
        let report = self.gate.fingerprint().await?;
        ensure!(report["state"] == "open", "{report}");
        Ok(())
    }

    /// Whether the gate was killed at this point.
    async fn dies_and_goes_on(&mut self, point: &Point) -> Result<bool> {
        self.clear().await?;
        let before = self.tap.fired();
        let gate = Arc::clone(&self.gate);
        self.tap.arm(point.clone(), move || {
            // Only fails if it is reaped already.
            let _ = gate.process.stop();
        });
        self.world.side.deploy_istiod().await?;
        let died = eventually("the end of the gate", PATIENCE, || async {
            if !self.gate.process.is_running() {
                return Ok(true);
            }
            // A call that is not made this time does not end it.
            self.is_open().await?;
            tokio::time::sleep(QUIET).await;
            anyhow::Ok(!self.gate.process.is_running())
        })
        .await?;
        let hits = (self.tap.fired() - before) as u64;
        ensure!(died == (hits > 0), "{point}: {hits} hits, and it {}", if died { "ended" } else { "runs" });
        if died {
            self.lines.fault(&point.to_string(), hits);
            self.lines.say(Said::Process { name: "the gate".to_owned(), event: "killed".to_owned(), by_run: true });
        }
        self.tap.disarm();
        let began = Instant::now();
        if died {
            self.gate.process.start_again()?;
        }
        let open = self.opens().await;
        self.lines.end(&self.world.side, &point.to_string(), began, open).await?;
        Ok(died)
    }
}

/// A root that somebody else has made.
fn record() -> Result<Value> {
    let files = foreign()?;
    let file = |name: &str| -> Result<String> {
        Ok(String::from_utf8(BASE64_STANDARD.decode(files[name].as_str().context("a file")?)?)?)
    };
    Ok(
        json!({ "root-cert.pem": file("root-cert.pem")?, "cert-chain.pem": file("cert-chain.pem")?, "key.pem": file("ca-key.pem")? }),
    )
}

/// Both sides of each call, the first few times that it is made.
fn points(calls: &[String]) -> Vec<Point> {
    let (mut counts, mut points) = (BTreeMap::new(), Vec::new());
    for line in calls {
        let nth = counts.entry(line).or_insert(0);
        *nth += 1;
        if *nth <= NTH_MAX {
            points.extend([false, true].map(|after| Point { line: line.clone(), nth: *nth, after }));
        }
    }
    points
}

/// Every point of a side, and how many there were.
pub async fn all(side: &str) -> Result<usize> {
    Box::pin(one_side(side)).await
}

async fn one_side(name: &str) -> Result<usize> {
    let folder = testbed::evidence::folder().context("TESTBED_EVIDENCE names no folder")?;
    ensure!(["homelab", "nas"].contains(&name), "no cluster is called {name}");
    let mut rig = Rig::start(name).await?;
    let calls = rig.calls().await?;
    let points = points(&calls);
    println!("crash: {name}: {} calls, {} points", calls.len(), points.len());
    let (mut died, mut longest) = (0, Duration::ZERO);
    for point in &points {
        let began = Instant::now();
        let hit = rig.dies_and_goes_on(point).await.with_context(|| point.to_string())?;
        died += usize::from(hit);
        longest = longest.max(began.elapsed());
        println!("crash: {name}: {point}: {}", if hit { "killed, and open again" } else { "not made this time" });
        // What is made each time has to be met.
        ensure!(hit || point.nth > 1, "{point}: it was never reached");
    }
    webhook_counts(&rig.world.side).await?;
    let lines = std::mem::take(&mut rig.lines);
    drop(rig);
    lines.judged(&format!("crash-{name}"), &folder)?;
    println!("crash: {name}: {died} ends of the process, every promise was kept");
    Ok(died)
}
