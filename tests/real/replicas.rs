//! Several replicas behind one address, asked by the real API server at a steady rate while they come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use testbed::{KubernetesApi, Paced, Signal, eventually, until_shown};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::gate::{Gate, Options};
use crate::world::{NAMESPACE, SOON, SmallWorld};

/// Pods a second at most. Each is reviewed twice: by `/mutate` and by `/validate`.
const RATE: u64 = 100;

/// Pods a second without which a run says nothing: fewer leave moments in which nobody asks.
const RATE_NEEDED: f64 = 25.0;

/// Pods under way at a time: a machine that cannot keep up is asked less, and not buried.
const UNDER_WAY: usize = 64;

/// Longest wait for the load to go on: far above what any rate that is of use takes.
const GOES_ON: Duration = Duration::from_secs(180);

/// Longest that the API server may take for one of them, more than the webhook's timeout.
const PATIENCE: Duration = Duration::from_secs(20);

/// How soon a change of a replica's readiness reaches the network: kubelet, controllers and kube-proxy take longer, and so
/// does `--shutdown-delay` by default.
const PROPAGATION: Duration = Duration::from_millis(500);

/// `--shutdown-delay` of the replicas here.
const SHUTDOWN_DELAY: &str = "3s";

/// What a Service does: each connection goes to a replica that was ready a moment ago, and stays with it.
struct Service {
    port: u16,
    ready: Arc<Mutex<Vec<u16>>>,
    /// Connections that were made to each replica.
    made: Arc<Mutex<BTreeMap<u16, usize>>>,
    accepting: AbortHandle,
}

impl Service {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (ready, made) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(BTreeMap::<u16, usize>::new())));
        let (backends, counted) = (Arc::clone(&ready), Arc::clone(&made));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let backend = {
                    let (backends, mut counted) = (lock(&backends).clone(), lock(&counted));
                    // The one with the fewest, so that none is left out by chance. Without any it is refused, as by
                    // kube-proxy.
                    let fewest = |port: &&u16| counted.get(*port).copied().unwrap_or_default();
                    let Some(backend) = backends.iter().min_by_key(fewest).copied() else { continue };
                    *counted.entry(backend).or_default() += 1;
                    backend
                };
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", backend)).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self { port, ready, made, accepting: accepting.abort_handle() })
    }

    /// From now on new connections go to these.
    fn points_at(&self, gates: &[Gate]) {
        *lock(&self.ready) = gates.iter().map(Gate::port).collect();
    }

    fn made(&self) -> BTreeMap<u16, usize> {
        lock(&self.made).clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gated pods that are created through the API server at a steady rate, each by a dry run.
struct Load {
    counts: Arc<Counts>,
    sending: JoinSet<()>,
    began: Instant,
}

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    admitted: AtomicUsize,
    refused: Mutex<Vec<String>>,
    enough: AtomicBool,
}

impl Load {
    fn start(api: &KubernetesApi) -> Result<Self> {
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(api.ca_pem().as_bytes())?])
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        let url = format!("{}/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", api.url());
        let (token, counts) = (api.admin_token().to_owned(), Arc::new(Counts::default()));
        let shared = Arc::clone(&counts);
        let mut sending = JoinSet::new();
        sending.spawn(async move {
            let (mut ticks, mut under_way) = (interval(Duration::from_micros(1_000_000 / RATE)), JoinSet::new());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while !shared.enough.load(Ordering::Relaxed) {
                ticks.tick().await;
                while under_way.try_join_next().is_some() {}
                if under_way.len() >= UNDER_WAY {
                    under_way.join_next().await;
                }
                let number = shared.sent.fetch_add(1, Ordering::Relaxed);
                let request = client.post(&url).bearer_auth(&token).json(&pod(number));
                under_way.spawn(count(request, Arc::clone(&shared)));
            }
            while under_way.join_next().await.is_some() {}
        });
        Ok(Self { counts, sending, began: Instant::now() })
    }

    fn admitted(&self) -> usize {
        self.counts.admitted.load(Ordering::Relaxed)
    }

    fn refused(&self) -> Vec<String> {
        lock(&self.counts.refused).clone()
    }

    /// Waits until so many more were admitted.
    async fn goes_on(&self, more: usize) -> Result<()> {
        let enough = self.admitted() + more;
        eventually("the load to go on", GOES_ON, || async {
            ensure!(self.admitted() >= enough, "{} admitted, refused: {:?}", self.admitted(), self.refused());
            Ok(())
        })
        .await
    }

    /// Sends no more, and waits for every answer.
    async fn end(mut self) -> Result<Reached> {
        self.counts.enough.store(true, Ordering::Relaxed);
        self.sending.join_next().await.context("the load has ended by itself")??;
        let (sent, admitted, refused) = (self.counts.sent.load(Ordering::Relaxed), self.admitted(), self.refused());
        ensure!(sent == admitted + refused.len(), "of {sent}, {admitted} were admitted and {} refused", refused.len());
        let pace = Paced::by_rate("pods", admitted as f64 / self.began.elapsed().as_secs_f64(), RATE_NEEDED);
        Ok(Reached { admitted, refused, pace })
    }
}

/// What came of a load.
struct Reached {
    admitted: usize,
    refused: Vec<String>,
    pace: Paced,
}

async fn count(request: reqwest::RequestBuilder, counts: Arc<Counts>) {
    let failed = match request.send().await {
        Ok(answer) if answer.status() == 201 => {
            counts.admitted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Ok(answer) => answer.text().await.unwrap_or_else(|error| error.to_string()),
        Err(error) => error.to_string(),
    };
    lock(&counts.refused).push(failed);
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": format!("istiod-{number}"), "namespace": NAMESPACE, "labels": { "app": "istiod" } },
        "spec": { "containers": [{ "name": "c", "image": "registry.example/istio" }] },
    })
}

fn options() -> Options<'static> {
    Options { shutdown_delay: Some(SHUTDOWN_DELAY), log: Some("info"), ..Options::default() }
}

async fn replica(world: &SmallWorld) -> Result<Gate> {
    let gate = Gate::launch(&world.side, &world.vault, options()).await?;
    // It knows of the open gate by the pin, and compares at once.
    gate.stands("open", None).await?;
    Ok(gate)
}

/// Three replicas of an open gate, and a Service that the API server's webhooks point at.
async fn three(world: &SmallWorld) -> Result<(Service, Vec<Gate>)> {
    let service = Service::start().await?;
    let first = Gate::start_with(&world.side, &world.vault, options()).await?;
    world.side.deploy_istiod().await?;
    world.side.pod("istiod").await?;
    let gates = vec![first, replica(world).await?, replica(world).await?];
    service.points_at(&gates);
    world.side.point_webhooks_at(&[service.port]).await?;
    world.side.is_injected().await?;
    Ok((service, gates))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_review() -> Result<()> {
    until_shown("rolling restart", rolling_restart).await
}

async fn rolling_restart() -> Result<Paced> {
    let world = SmallWorld::homelab().await?;
    let (service, mut gates) = three(&world).await?;
    let load = Load::start(&world.side.api)?;
    load.goes_on(2 * RATE as usize).await?;
    for _ in 0..gates.len() {
        // As a Deployment does it with maxSurge 1 and maxUnavailable 0.
        gates.push(replica(&world).await?);
        service.points_at(&gates);
        let old = gates.remove(0);
        old.process.signal(Signal::TERM)?;
        tokio::time::sleep(PROPAGATION).await;
        service.points_at(&gates);
        let status = old.process.exited(SOON).await?;
        ensure!(status.success(), "{status}");
        ensure!(!old.process.log().contains("still open at the end"), "{}", old.process.log());
        load.goes_on(RATE as usize).await?;
    }
    let Reached { admitted, refused, pace } = load.end().await?;
    println!("rolling restart: {admitted} pods admitted, two reviews each, {} refused", refused.len());
    println!("connections by replica: {:?}", service.made());
    if pace == Paced::Shown {
        ensure!(refused.is_empty(), "{refused:?}");
        // The API server keeps more connections than it needs where the first seconds were slow, and then opens none to those
        // that come last.
        if service.made().len() < 6 {
            return Ok(Paced::TooSlow(format!("some replica was never asked: {:?}", service.made())));
        }
    }
    Ok(pace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_under_load_takes_only_its_own_calls_with_it() -> Result<()> {
    until_shown("a replica killed", replica_killed).await
}

async fn replica_killed() -> Result<Paced> {
    let world = SmallWorld::homelab().await?;
    let (service, mut gates) = three(&world).await?;
    let load = Load::start(&world.side.api)?;
    load.goes_on(2 * RATE as usize).await?;
    let killed = gates.remove(0);
    killed.process.stop()?;
    tokio::time::sleep(PROPAGATION).await;
    service.points_at(&gates);
    load.goes_on(RATE as usize).await?;
    let lost = load.refused();
    load.goes_on(5 * RATE as usize).await?;
    let Reached { admitted, refused, pace } = load.end().await?;
    println!("a replica killed: {admitted} pods admitted, {} refused until the network knew", lost.len());
    // The failurePolicy holds at any pace: what could not be asked was not let in.
    ensure!(refused.iter().all(|text| text.contains("failed calling webhook")), "{refused:?}");
    if pace == Paced::Shown {
        ensure!(refused.len() == lost.len(), "refused when the network knew: {:?}", &refused[lost.len()..]);
        let share = RATE as f64 * (PROPAGATION + Duration::from_secs(1)).as_secs_f64();
        ensure!((lost.len() as f64) < share, "{} were lost: {lost:?}", lost.len());
    }
    let text = reqwest::get(gates[0].url("metrics")).await?.text().await?;
    let is_open = |line: &str| line.starts_with("istio_ca_gate_open{") && line.ends_with("} 1");
    ensure!(text.lines().any(is_open), "{text}");
    world.side.restart("istiod").await?;
    world.side.pod("istiod").await.context("the ReplicaSet's own pod")?;
    Ok(pace)
}
