//! Runs by chance: first things go wrong, then nothing does, and all has to be open again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use faults::history::{Promises, Said};
use faults::judge::{Verdict, judge};
use serde_json::{Value, json};
use testbed::side::{Login, NAMESPACE, Side, WEBHOOKS};
use testbed::{Signal, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::arena::{Arena, Gate, PATIENCE, REPLICAS, Site, foreign};
use crate::kept;
use crate::schedule::{Act, Deed, Server, Step, schedule};

/// Runs at a time: a gate waits more than it works.
const AT_ONCE: usize = 3;

/// How long a frozen gate stays so.
const FROZEN: Duration = Duration::from_millis(1500);

/// Between the last gate's word that it is shut, and the moment from which no pod may come in: calls that were under way.
const SETTLES: Duration = Duration::from_secs(2);

/// Between two gated pods that are asked for in a cluster.
const PAUSE: Duration = Duration::from_millis(200);

const PROMISES: Promises = Promises {
    // A watch that is silent for 90 s is not trusted.
    unseen: 100_000,
    // As long as it is waited for: how long it took is told. A busy machine says nothing about seconds.
    heals: PATIENCE.as_millis() as u64,
    // A debug build with glibc's allocator, at trace.
    resident: 160 << 20,
    descriptors: 400,
    each_hits: false,
};

/// What to run.
pub struct Settings {
    first: u64,
    runs: usize,
    within: Duration,
}

impl Settings {
    pub fn of(flags: &[&str]) -> Result<Self> {
        let mut settings = Self { first: 1, runs: usize::MAX, within: Duration::from_secs(60) };
        for pair in flags.chunks(2) {
            let [flag, value] = pair else { bail!("{pair:?} has no value") };
            match *flag {
                "--for" => settings.within = humantime::parse_duration(value)?,
                "--runs" => (settings.runs, settings.within) = (value.parse()?, Duration::MAX),
                "--seed" => (settings.first, settings.runs) = (value.parse()?, settings.runs.min(1)),
                _ => bail!("{flag} is none of --for, --runs and --seed"),
            }
        }
        Ok(settings)
    }
}

/// Where histories are kept, by seed.
fn kept_at(seed: u64) -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("histories");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("seed-{seed}.jsonl")))
}

/// As many runs as there is time for, and how many there were.
pub async fn all(settings: &Settings) -> Result<usize> {
    crate::schedule::check().map_err(anyhow::Error::msg)?;
    let (began, mut running, mut figures) = (Instant::now(), JoinSet::new(), Figures::default());
    let mut seeds = (settings.first..).take(settings.runs);
    loop {
        // A machine on which no run has shown anything yet is given more time, and not for ever.
        let within = if figures.runs == 0 { settings.within.saturating_mul(5) } else { settings.within };
        while running.len() < AT_ONCE && began.elapsed() < within {
            let Some(seed) = seeds.next() else { break };
            running.spawn(async move { (seed, run(seed).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (seed, figure) = ended?;
        let figure = figure.with_context(|| {
            format!("seed {seed}: again by `./test random --seed {seed}`, judged again by `./test judge FILE`")
        })?;
        match figure {
            Ok(figure) => {
                println!("random: seed {seed}: {figure}");
                figures.add(figure);
            }
            // Neither passed nor failed.
            Err(why) => println!("random: seed {seed}: shows nothing, and does not count: {why}"),
        }
    }
    println!("random: {} in {} s", figures.told(), began.elapsed().as_secs());
    ensure!(figures.runs > 0, "no run showed anything: run it again when less is going on");
    Ok(figures.runs)
}

/// What became of one run.
struct Figure {
    hits: u64,
    faults: usize,
    gated: usize,
    denied: usize,
    healed: Duration,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hits, faults, gated, denied, healed } = self;
        write!(f, "{faults} faults hit {hits} times, {gated} gated pods let in, {denied} refused; ")?;
        write!(f, "all open {:.1} s after the last", healed.as_secs_f64())
    }
}

#[derive(Default)]
struct Figures {
    runs: usize,
    hits: u64,
    gated: usize,
    denied: usize,
    longest: Duration,
}

impl Figures {
    fn add(&mut self, figure: Figure) {
        self.runs += 1;
        self.hits += figure.hits;
        self.gated += figure.gated;
        self.denied += figure.denied;
        self.longest = self.longest.max(figure.healed);
    }

    fn told(&self) -> String {
        let Self { runs, hits, gated, denied, longest } = self;
        let longest = longest.as_secs_f64();
        format!("{runs} runs, {hits} hits, {gated} gated pods let in, {denied} refused, healed within {longest:.1} s")
    }
}

/// One run, judged.
async fn run(seed: u64) -> Result<Result<Figure, String>> {
    let arena = Arc::new(Arena::start(seed, PROMISES).await?);
    let done = Box::pin(trouble_and_peace(&arena, seed)).await;
    let (history, path) = (arena.history(), kept_at(seed)?);
    history.write(&path)?;
    let verdict = judge(&history);
    if let (Ok(_), Verdict::Invalid(why)) = (&done, &verdict) {
        return Ok(Err(why.clone()));
    }
    let verdict = done.and_then(|healed| kept(&verdict).map(|()| healed));
    let verdict = verdict.with_context(|| format!("see {}", path.display()));
    let healed = match verdict {
        Ok(healed) => healed,
        Err(error) => {
            let logs = Arc::into_inner(arena).map(|mut arena| arena.keep_logs().display().to_string());
            return Err(error.context(format!("the gates' logs: {logs:?}")));
        }
    };
    let mut figure = Figure { hits: 0, faults: 0, gated: 0, denied: 0, healed };
    for line in &history.0 {
        match &line.said {
            Said::Fired { hits, .. } => {
                figure.hits += hits;
                figure.faults += usize::from(*hits > 0);
            }
            Said::Pod { gated: true, .. } => figure.gated += 1,
            Said::Denied { .. } => figure.denied += 1,
            _ => {}
        }
    }
    Ok(Ok(figure))
}

async fn trouble_and_peace(arena: &Arc<Arena>, seed: u64) -> Result<Duration> {
    let enough = Arc::new(AtomicBool::new(false));
    let mut probes = JoinSet::new();
    for number in 0..arena.sites.len() {
        probes.spawn(probe(Arc::clone(arena), number, Arc::clone(&enough)));
        arena.sites[number].side.deploy_istiod().await?;
    }
    let troubled = trouble(arena, seed).await;
    let healed = match troubled {
        Ok(()) => peace(arena).await,
        Err(error) => Err(error),
    };
    enough.store(true, Ordering::Relaxed);
    while let Some(ended) = probes.join_next().await {
        ended?;
    }
    let healed = healed?;
    arena.look_at_processes();
    arena.scan().await?;
    Ok(healed)
}

/// Asks for a gated pod and for another one, again and again.
async fn probe(arena: Arc<Arena>, number: usize, enough: Arc<AtomicBool>) {
    let api = &arena.sites[number].side.api;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    while !enough.load(Ordering::Relaxed) {
        for (name, app) in [("probe-", "istiod"), ("bystander-", "web")] {
            let pod = json!({
                "metadata": { "generateName": name, "labels": { "app": app } },
                "spec": { "containers": [{ "name": "c", "image": "registry.example/c" }] },
            });
            // What came of it is in the journal, also where the webhooks' timeouts together are longer than is waited here.
            let _ = api.request("POST", &path, Some(pod)).await;
        }
        sleep(PAUSE).await;
    }
}

async fn trouble(arena: &Arc<Arena>, seed: u64) -> Result<()> {
    let began = tokio::time::Instant::now();
    for (at, step) in schedule(seed, REPLICAS) {
        sleep_until(began + at).await;
        arena.say(Said::Act { act: step.to_string() });
        let text = step.to_string();
        take(arena, step).await.with_context(|| text)?;
    }
    Ok(())
}

async fn take(arena: &Arc<Arena>, step: Step) -> Result<()> {
    match step {
        Step::Fault { server, fault, method, path, times } => {
            let (faults, token) = arena.faults(server);
            let switch = faults.inject(fault, Step::aim(method.as_ref(), path, times, token));
            let name = format!("{fault} at {path:?} of {server:?}, {}", switch_number(arena));
            arena.injected(name, server, switch);
            Ok(())
        }
        Step::Heal(server) => {
            arena.heal(server);
            Ok(())
        }
        Step::Process { deed, cluster, replica } => process(arena, deed, &arena.sites[cluster].gates[replica]).await,
        Step::Act { act, cluster } => act_of(arena, act, &arena.sites[cluster]).await,
        Step::ContradictAndVanish => contradict(arena).await,
    }
}

/// So that each fault of a run has a name of its own.
fn switch_number(arena: &Arena) -> usize {
    let is_fault = |line: &&faults::history::Line| matches!(line.said, Said::Fault { .. });
    arena.history().0.iter().filter(is_fault).count() + 1
}

async fn process(arena: &Arc<Arena>, deed: Deed, gate: &Gate) -> Result<()> {
    let say = |event: &str| {
        arena.say(Said::Process { name: gate.name.clone(), event: event.to_owned(), by_run: true });
    };
    match deed {
        Deed::Kill => {
            say("killed");
            gate.process.start_again()?;
        }
        Deed::Terminate => {
            say("terminated");
            let ended = gate.process.terminate().await?;
            ensure!(ended.success(), "{} ended with {ended}", gate.name);
            gate.process.start_again()?;
        }
        Deed::Freeze => {
            say("frozen");
            gate.process.signal(Signal::STOP)?;
            sleep(FROZEN).await;
            gate.process.signal(Signal::CONT)?;
        }
    }
    say("goes on");
    Ok(())
}

/// A person's request; that what it is about is not there is nothing.
async fn ask(side: &Side, method: &str, path: &str, body: Option<Value>) -> Result<()> {
    let (status, answer) = side.api.request(method, path, body).await?;
    ensure!(status < 300 || status == 404, "{method} {path}: {status}: {answer}");
    Ok(())
}

async fn act_of(arena: &Arena, act: Act, site: &Site) -> Result<()> {
    let (side, vault) = (&site.side, &arena.vault);
    let in_namespace = |path: &str| format!("/api/v1/namespaces/{NAMESPACE}/{path}");
    let cacerts = Side::cacerts_path();
    match act {
        Act::DeleteCacerts => ask(side, "DELETE", &cacerts, None).await,
        Act::TamperWithCacerts => {
            ask(side, "PATCH", &cacerts, Some(json!({ "data": { "root-cert.pem": "bm90aGluZw==" } }))).await
        }
        Act::PutForeignCacerts => {
            ask(side, "DELETE", &cacerts, None).await?;
            let secret = json!({ "metadata": { "name": "cacerts" }, "type": "Opaque", "data": foreign()? });
            // A gate may have been faster.
            side.api.request("POST", &in_namespace("secrets"), Some(secret)).await.map(|_| ())
        }
        Act::DeletePin => ask(side, "DELETE", &in_namespace("configmaps/istio-ca-gate"), None).await,
        Act::DeleteServingSecret => ask(side, "DELETE", &in_namespace("secrets/istio-ca-gate-tls"), None).await,
        Act::StripBundle => {
            let mut configuration = side.object(WEBHOOKS).await?.context("no webhooks")?;
            let webhooks = configuration["webhooks"].as_array_mut().context("no webhooks")?;
            webhooks.iter_mut().for_each(|webhook| webhook["clientConfig"]["caBundle"] = Value::Null);
            // Somebody else may have written it meanwhile.
            side.api.request("PUT", WEBHOOKS, Some(configuration)).await.map(|_| ())
        }
        Act::RestartPods => side.restart("istiod").await,
        Act::SealVault => {
            vault.seal().await?;
            sleep(FROZEN).await;
            vault.unseal().await
        }
        Act::WriteSameVersion => {
            if let Some(record) = arena.record().await? {
                vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record }))).await?;
            }
            Ok(())
        }
        Act::RefuseLogins => {
            vault.api("DELETE", &format!("auth/{}/role/{}", side.auth_mount, side.policy()), None).await?;
            sleep(FROZEN).await;
            side.grant(vault, login(side)).await
        }
        Act::DeleteRecord => {
            vault.api("DELETE", "secret/data/istio/ca", None).await?;
            sleep(FROZEN).await;
            undelete(arena).await
        }
    }
}

fn login(side: &Side) -> Login {
    if side.role == "bootstrap" { Login::TokenReview } else { Login::Signature }
}

/// Brings the newest version back, if there is one.
async fn undelete(arena: &Arena) -> Result<()> {
    if let Some(newest) = arena.vault.versions("secret", "istio/ca").await?.last() {
        arena.vault.ok("POST", "secret/undelete/istio/ca", Some(json!({ "versions": [newest] }))).await?;
    }
    Ok(())
}

/// The root is deleted, every gate says so, and then Vault is away: nobody may be let in by what was known before.
async fn contradict(arena: &Arc<Arena>) -> Result<()> {
    if arena.record().await?.is_none() {
        return Ok(());
    }
    for server in [Server::Vault, Server::Cluster(0), Server::Cluster(1)] {
        arena.heal(server);
    }
    arena.vault.api("DELETE", "secret/data/istio/ca", None).await?;
    for gate in arena.sites.iter().flat_map(|site| &site.gates) {
        // One that finds a cacerts of somebody else says that, as long as it has not asked Vault.
        eventually(&format!("{} to be shut", gate.name), PATIENCE, || async {
            let (state, reason) = gate.stands().await?;
            ensure!(state == "dormant" || (state == "held" && reason == "RootDeleted"), "{state} {reason}");
            Ok(())
        })
        .await?;
    }
    sleep(SETTLES).await;
    for site in &arena.sites {
        arena.say(Said::Shut { cluster: site.side.name.to_owned(), why: "its root was deleted from Vault".to_owned() });
    }
    let (faults, token) = arena.faults(Server::Vault);
    let switch = faults.inject("silent".parse().map_err(anyhow::Error::msg)?, Step::aim(None, "", None, token));
    arena.injected("silent after a deletion".to_owned(), Server::Vault, switch);
    let gate = &arena.sites[0].gates[0];
    process(arena, Deed::Kill, gate).await?;
    gate.process.until("the gate that starts while Vault is away", PATIENCE, || gate.stands()).await?;
    sleep(SETTLES).await;
    for site in &arena.sites {
        arena.say(Said::MayOpen { cluster: site.side.name.to_owned() });
    }
    undelete(arena).await
}

/// Ends all that is wrong and that only a person can mend, and waits until everything is open.
async fn peace(arena: &Arc<Arena>) -> Result<Duration> {
    for server in [Server::Vault, Server::Cluster(0), Server::Cluster(1)] {
        arena.heal(server);
    }
    arena.vault.unseal().await?;
    undelete(arena).await?;
    for site in &arena.sites {
        site.side.grant(&arena.vault, login(&site.side)).await?;
        let label = |cacerts: &Value| cacerts["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "istio-ca-gate";
        if site.side.cacerts().await?.is_some_and(|cacerts| !label(&cacerts)) {
            ask(&site.side, "DELETE", &Side::cacerts_path(), None).await?;
        }
        site.side.restart("istiod").await?;
    }
    let began = Instant::now();
    for site in &arena.sites {
        let what = format!("{} to be open", site.side.name);
        let open = eventually(&what, PATIENCE, || is_open(arena, site)).await;
        let after = open.is_ok().then(|| began.elapsed());
        arena.end(site, after, open.err().map_or_else(|| "open".to_owned(), |error| format!("{error:#}"))).await?;
    }
    Ok(began.elapsed())
}

async fn is_open(arena: &Arena, site: &Site) -> Result<()> {
    for gate in &site.gates {
        let (state, reason) = gate.stands().await?;
        ensure!(state == "open", "{}: {state} {reason}", gate.name);
    }
    let pods = site.side.pods("istiod").await?;
    ensure!(!pods.is_empty(), "no pod: {:?}", site.side.refusals("istiod").await?);
    let record = faults::files::Files::of_record(&arena.record().await?.context("no record")?);
    let cacerts = site.side.cacerts().await?.context("no cacerts")?;
    ensure!(faults::files::Files::of_secret(&cacerts["data"]) == record, "cacerts is not Vault's");
    Ok(())
}
