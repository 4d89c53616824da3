//! The node of a cluster: it starts the istiods whose pods were admitted, brings volumes up to date, each at a time of its
//! own, and ends what is gone.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Agent, Istiod, IstiodService, Mounting};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::service::Service;
use crate::world::{NAMESPACE, Side};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// A kubelet brings a volume up to date within about a minute; here it is within this.
const LATE: Duration = Duration::from_secs(3);

const SECURE: u16 = 15012;

/// One side's node, which works as long as it is kept.
pub struct Node {
    state: Arc<Mutex<State>>,
    working: AbortHandle,
    pub side: Arc<Side>,
}

struct State {
    istiods: BTreeMap<String, Running>,
    agents: BTreeMap<&'static str, Agent>,
    roots: Late,
    service: Service,
    /// The node is off.
    is_off: bool,
    /// What it could not do in the last look.
    trouble: Option<String>,
}

struct Running {
    istiod: Istiod,
    pod: Value,
    cacerts: Late,
}

/// A volume that follows an object some time later.
#[derive(Default)]
struct Late {
    mounted: String,
    seen: Option<(String, Instant)>,
}

impl Late {
    /// Whether it is time to bring the volume up to this version.
    fn is_due(&mut self, version: &str) -> bool {
        if self.mounted == version {
            self.seen = None;
            return false;
        }
        let random = RandomState::new().hash_one(version) % 1000;
        let late = LATE.mul_f64(random as f64 / 1000.0);
        let (_, due) = self.seen.get_or_insert_with(|| (version.to_owned(), Instant::now() + late));
        let is_due = Instant::now() >= *due;
        if is_due {
            (self.mounted, self.seen) = (version.to_owned(), None);
        }
        is_due
    }
}

impl Node {
    pub async fn start(side: Arc<Side>) -> Result<Self> {
        let state = Arc::new(Mutex::new(State {
            istiods: BTreeMap::new(),
            agents: BTreeMap::new(),
            roots: Late::default(),
            service: Service::start(SECURE).await?,
            is_off: false,
            trouble: None,
        }));
        let working = tokio::spawn(work(Arc::clone(&side), Arc::clone(&state))).abort_handle();
        Ok(Self { state, working, side })
    }

    /// How many istiods are ready, or what the node could not do.
    pub async fn ready(&self) -> Result<usize> {
        let state = self.state.lock().await;
        if let Some(trouble) = &state.trouble {
            anyhow::bail!("{trouble}");
        }
        Ok(state.istiods.len())
    }

    /// Starts a workload of this service account, with certificates of this life.
    pub async fn run(&self, account: &'static str, life: &str) -> Result<std::path::PathBuf> {
        let mut state = self.state.lock().await;
        let agent = Agent::start(&self.side.cluster, account, state.service.address(), life).await?;
        let certificates = agent.certificates();
        state.agents.insert(account, agent);
        Ok(certificates)
    }

    /// What the agent of a workload has said.
    pub async fn agent_log(&self, account: &str) -> String {
        let state = self.state.lock().await;
        state.agents.get(account).map(|agent| agent.process.log()).unwrap_or_default()
    }

    /// The process ids of the istiods: they are the same as long as none is restarted.
    pub async fn pids(&self) -> Vec<u32> {
        self.state.lock().await.istiods.values().map(|running| running.istiod.process.pid()).collect()
    }

    /// Ends all that runs on it, as if its power were gone.
    pub async fn turn_off(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.is_off = true;
        for agent in state.agents.values() {
            agent.stop()?;
        }
        state.istiods.clear();
        state.service.lead_to(Vec::new());
        Ok(())
    }

    /// Starts what ran on it again.
    pub async fn turn_on(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.is_off = false;
        state.agents.values().try_for_each(|agent| agent.process.start_again())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.working.abort();
    }
}

async fn work(side: Arc<Side>, state: Arc<Mutex<State>>) {
    loop {
        {
            let mut state = state.lock().await;
            if !state.is_off {
                state.trouble = look(&side, &mut state).await.err().map(|error| format!("{error:#}"));
            }
        }
        sleep(PAUSE).await;
    }
}

async fn look(side: &Side, state: &mut State) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3Distiod");
    let list = side.object(&path).await?.context("no pods")?;
    let pods: BTreeMap<String, &Value> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?.to_owned(), pod)))
        .collect();
    state.istiods.retain(|name, _| pods.contains_key(name));
    let addresses = |state: &State| state.istiods.values().map(|running| running.istiod.address()).collect();
    state.service.lead_to(addresses(state));
    let version = version(side, &testbed::side::Side::cacerts_path()).await?;
    let new = pods.iter().filter(|(name, _)| !state.istiods.contains_key(*name));
    let started = futures::future::try_join_all(new.map(|(name, pod)| begin(side, name, pod, &version)));
    state.istiods.extend(started.await?);
    state.service.lead_to(addresses(state));
    for running in state.istiods.values_mut() {
        if running.cacerts.is_due(&version) {
            let mounting = running.istiod.remount(&side.cluster, &running.pod).await?;
            ensure!(mounting == Mounting::Done, "{mounting:?}");
        }
    }
    let roots = self::version(side, "/api/v1/namespaces/default/configmaps/istio-ca-root-cert").await?;
    if state.roots.is_due(&roots) {
        for agent in state.agents.values() {
            agent.remount(&side.cluster).await?;
        }
    }
    Ok(())
}

/// What tells one state of an object from another.
async fn version(side: &Side, path: &str) -> Result<String> {
    let object = side.object(path).await?;
    Ok(object.and_then(|object| object["metadata"]["resourceVersion"].as_str().map(str::to_owned)).unwrap_or_default())
}

/// Starts an istiod, and tells its address.
async fn begin(side: &Side, name: &str, pod: &Value, version: &str) -> Result<(String, Running)> {
    let istiod = IstiodService::reserve_pod()?.start(&side.cluster, pod).await?;
    let address = istiod.address().ip().to_string();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(
        |kind| json!({ "type": kind, "status": "True", "lastTransitionTime": pod["metadata"]["creationTimestamp"] }),
    );
    let status =
        json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "conditions": conditions });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/status");
    let (code, answer) = side.api.request("PATCH", &path, Some(json!({ "status": status }))).await?;
    ensure!(code == 200, "{code}: {answer}");
    let cacerts = Late { mounted: version.to_owned(), seen: None };
    Ok((name.to_owned(), Running { istiod, pod: pod.clone(), cacerts }))
}
