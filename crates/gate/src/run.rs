//! The composition root: starts every task, and joins every task.

mod once;
pub mod parts;
mod startup;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use https::{Bound, Limits, Room};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::args::Serve;
use crate::clock::Clocks;
use crate::converge::{Attempts, Converger, Schedule};
use crate::endpoints;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::flux::{Reconciles, Releases};
use crate::k8s::istiods::MeshSide;
use crate::k8s::owners::Owners;
use crate::k8s::pin::Pins;
use crate::k8s::{Clients, events};
use crate::metrics::{Labels, Metrics};
use crate::peers::Peers;
use crate::readiness::{Part, Readiness};
use crate::self_test::{Probe, SelfTest, SelfTestArgs};
use crate::serving::certificate::Certificate;
use crate::serving::{self, Serving};
use crate::shutdown::Signals;
use crate::snapshot::Policy;
use crate::telemetry;
use crate::vault::Vault;
use crate::webhook::{WAITING_MAX, Webhook};
use crate::witness::{LOOK, LastLook, MeshLookout, WitnessTask};
pub use once::{bootstrap, sync};
use parts::Made;

/// The pin's date is written anew at least so often.
const PIN_AGE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// How a command ends that does not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong use or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something broke that should not: exit code 1.
    #[error("{0}")]
    Broken(String),
    /// Held back, in words that begin with the reason code: exit code 1.
    #[error("{0}")]
    Held(String),
}

/// Runs the admission service until a signal.
///
/// # Errors
/// A wrong configuration, or a task that ended although it should not.
pub async fn serve(args: Serve, version: &'static str) -> Result<(), Failure> {
    let _logging = telemetry::init(&args.log).map_err(Failure::Usage)?;
    let signals = Signals::listen().map_err(|error| Failure::Broken(error.to_string()))?;
    let prepared = Box::pin(Prepared::new(args, version)).await?;
    Box::pin(prepared.run(signals)).await
}

/// A service whose configuration is sound and whose sockets are bound, and that does nothing yet.
pub struct Prepared {
    service: Service,
    work: Work,
    certificate: Certificate,
    https: Bound,
    http: Option<Bound>,
}

impl Prepared {
    /// Checks the configuration, and binds.
    ///
    /// # Errors
    /// A wrong configuration.
    pub async fn new(args: Serve, version: &'static str) -> Result<Self, Failure> {
        https::raise_descriptor_limit();
        let vault = parts::vault(&args.vault, args.role)?;
        let client = parts::client(&args.kubernetes).await?;
        let peers = Arc::new(Peers::new(&args.peers)?);
        let certificate = Certificate::new(&args).await?;
        let https = bind(args.listen, "--listen (variable GATE_LISTEN)").await?;
        let http = match args.admin_listen.0 {
            Some(address) => Some(bind(address, "--admin-listen (variable GATE_ADMIN_LISTEN)").await?),
            None => None,
        };
        let labels = Labels { cluster: args.cluster_name(), role: args.role, version };
        let metrics = Metrics::new(labels).map_err(Failure::Broken)?;
        let (service, mut work) =
            Service::assemble(args, client, vault, metrics, Arc::clone(&certificate.serving), peers)?;
        work.self_test = service.self_test()?;
        work.witness = service.witness(version)?;
        Ok(Self { service, work, certificate, https, http })
    }

    /// Where `--listen` is bound.
    pub fn https(&self) -> SocketAddr {
        self.https.address()
    }

    /// Where `--admin-listen` is bound, if it is.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Bound::address)
    }

    /// Runs until a signal.
    ///
    /// # Errors
    /// A task that ended although it should not.
    pub async fn run(self, signals: Signals) -> Result<(), Failure> {
        let args = &self.service.args;
        tracing::info!(
            version = self.service.state.metrics.labels().version,
            cluster = args.cluster_name(),
            role = args.role.as_str(),
            https = %self.https(),
            http = self.http().map(|http| http.to_string()),
            "starting"
        );
        let Self { service, work, certificate, https, http } = self;
        service.run(work, certificate, https, http, signals).await.map_err(Failure::Broken)
    }
}

/// What has a task of its own.
struct Work {
    attempts: Attempts<Vault, Clients>,
    reconciles: Arc<Reconciles>,
    writer: events::Writer,
    self_test: Option<SelfTest>,
    witness: Option<WitnessTask<Vault, MeshLookout>>,
}

/// What the tasks of the service share.
struct Service {
    args: Serve,
    client: Client,
    cacerts: Arc<Cacerts>,
    owners: Arc<Owners>,
    state: endpoints::State,
}

impl Service {
    fn assemble(
        args: Serve,
        client: Client,
        vault: Vault,
        metrics: Metrics,
        serving: Arc<Serving>,
        peers: Arc<Peers>,
    ) -> Result<(Self, Work), Failure> {
        let policy = policy(&args);
        let pin_age_max = PIN_AGE_MAX.min(policy.max_staleness / 4);
        let Made { gated, clients: Clients { cacerts, owners, reconciles, events, .. }, attempts, writer } =
            parts::assemble(args.role, &args.cluster, &args.converge, &client, vault, pin_age_max, &metrics)?;
        let webhook = Webhook {
            cluster: args.cluster_name(),
            gated,
            policy,
            converger: Converger::new(cacerts.watched(), Clocks::now),
            cacerts: Arc::clone(&cacerts),
            pins: Pins::new(client.clone(), &args.cluster.namespace),
            releases: Releases::new(client.clone()),
            events,
            waiting: Semaphore::new(WAITING_MAX),
            kept_out: Mutex::default(),
        };
        let state = endpoints::State {
            webhook: Arc::new(webhook),
            role: args.role,
            peers,
            last_look: LastLook::default(),
            has_self_test: args.self_test.self_test.is_some(),
            readiness: Arc::new(Readiness::default()),
            metrics,
            serving,
            lines: endpoints::lines(),
            room: Room::new(Limits::default(), Arc::default()),
            shown: Arc::default(),
        };
        let work = Work { attempts, reconciles, writer, self_test: None, witness: None };
        Ok((Self { args, client, cacerts, owners, state }, work))
    }

    /// What tries now and then whether the API server calls, if that is asked for.
    fn self_test(&self) -> Result<Option<SelfTest>, Failure> {
        let SelfTestArgs { self_test, self_test_interval } = &self.args.self_test;
        let Some(namespace) = self_test else { return Ok(None) };
        let endpoints::State { webhook, metrics, readiness, .. } = &self.state;
        let probe = Probe::new(self.client.clone(), namespace, &webhook.gated, &self.args.tls.webhook_config)
            .map_err(|error| Failure::Usage(format!("--self-test (variable GATE_SELF_TEST): {error}")))?;
        Ok(Some(SelfTest::new(probe, *self_test_interval, Arc::clone(readiness), metrics.self_test.clone())))
    }

    /// Who attests to the mesh, where each cluster has a signer of its own.
    fn witness(&self, version: &'static str) -> Result<Option<WitnessTask<Vault, MeshLookout>>, Failure> {
        let vault = parts::vault(&self.args.vault, self.args.role)?;
        if vault.settings().pki_mount.is_none() {
            return Ok(None);
        }
        let endpoints::State { metrics, webhook, last_look, .. } = &self.state;
        Ok(Some(WitnessTask {
            cluster: self.args.cluster_name(),
            version,
            pause: LOOK.min(self.args.refresh),
            vault: vault.counted_by(metrics.vault.clone()),
            lookout: MeshLookout::new(
                Arc::clone(&self.cacerts),
                MeshSide::new(self.client.clone(), &self.args.cluster.namespace),
            ),
            now: Timestamp::now,
            counted: metrics.witnessed().map_err(Failure::Broken)?,
            last_look: last_look.clone(),
            events: webhook.events.clone(),
        }))
    }

    /// Runs until a signal, or until a task ends that should not: then with the reason.
    async fn run(
        self,
        work: Work,
        certificate: Certificate,
        https: Bound,
        http: Option<Bound>,
        mut signals: Signals,
    ) -> Result<(), String> {
        let stop = Stop::default();
        let (mut servers, mut tasks) = (JoinSet::new(), JoinSet::new());
        if let Some(http) = http {
            servers.spawn(self.serve(http, endpoints::admin(self.state.clone()), None, stop.asked()));
        }
        self.spawn_work(&mut tasks, work);
        let tls = serving::server_config(Arc::clone(&certificate.serving), certificate.callers());
        let router = self.admission(&certificate);
        let (first, mut certified) = oneshot::channel();
        certificate.spawn(&mut tasks, self.client.clone(), &self.args, &self.state.readiness, first);
        let mut https = Some((https, router));
        let ended = loop {
            tokio::select! {
                Ok(()) = &mut certified, if https.is_some() => {
                    self.state.readiness.done(Part::Tls);
                    if let Some((https, router)) = https.take() {
                        servers.spawn(self.serve(https, router, Some(Arc::clone(&tls)), stop.asked()));
                    }
                }
                () = signals.next() => break Ok(()),
                Some(ended) = tasks.join_next() => break Err(why(ended)),
                Some(ended) = servers.join_next() => break Err(why(ended)),
            }
        };
        if ended.is_ok() {
            self.linger(&mut signals).await;
        }
        stop.ask();
        wind_up(servers, tasks, &mut signals).await;
        ended
    }

    fn admission(&self, certificate: &Certificate) -> Router {
        let router = endpoints::admission(self.state.clone());
        match certificate.callers() {
            None => router,
            Some(callers) => callers.guard(router),
        }
    }

    fn serve<S: Future<Output = ()> + Send>(
        &self,
        bound: Bound,
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        bound.serve(router, tls, Arc::clone(&self.state.room), stop)
    }

    /// Serves on while the API server learns that this replica is going.
    async fn linger(&self, signals: &mut Signals) {
        let delay = self.args.shutdown_delay;
        tracing::info!(delay_seconds = delay.as_secs_f64(), "shutting down");
        self.state.readiness.ending();
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.next() => {}
        }
    }

    fn spawn_work(&self, tasks: &mut JoinSet<()>, work: Work) {
        let Work { attempts, reconciles, writer, self_test, witness } = work;
        if let Some(witness) = witness {
            tasks.spawn(witness.run());
        }
        let (schedule, policy) = (
            Schedule { retry_max: self.args.converge.retry_max, refresh: self.args.refresh },
            self.state.webhook.policy,
        );
        let converger = self.state.webhook.converger.clone();
        tasks.spawn(async move { converger.run(attempts, schedule, policy).await });
        tasks.spawn(async move { reconciles.run().await });
        tasks.spawn(writer.run());
        let peers = Arc::clone(&self.state.peers);
        tasks.spawn(async move { peers.run().await });
        if let Some(self_test) = self_test {
            tasks.spawn(self_test.run());
        }

        let (cacerts, readiness) = (Arc::clone(&self.cacerts), Arc::clone(&self.state.readiness));
        tasks.spawn(async move { cacerts.watch(|| readiness.done(Part::Cacerts)).await });

        let (converger, readiness) = (self.state.webhook.converger.clone(), Arc::clone(&self.state.readiness));
        let (cacerts, owners) = (Arc::clone(&self.cacerts), Arc::clone(&self.owners));
        let pins = Pins::new(self.client.clone(), &self.args.cluster.namespace);
        tasks.spawn(async move {
            startup::resume(&pins, &cacerts, &owners, &converger, &readiness).await;
            std::future::pending().await
        });
    }
}

/// Waits for what is being answered, up to another signal, and ends the rest.
async fn wind_up(mut servers: JoinSet<()>, mut tasks: JoinSet<()>, signals: &mut Signals) {
    tokio::select! {
        () = async { while servers.join_next().await.is_some() {} } => {}
        () = signals.next() => {}
    }
    // What an attempt leaves half done, the next start mends.
    tasks.shutdown().await;
}

fn policy(args: &Serve) -> Policy {
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    Policy {
        refresh: signed(args.refresh),
        vault_unavailable: args.vault_unavailable,
        max_staleness: signed(args.max_staleness),
    }
}

/// Tells the servers to stop.
struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Ends once it was asked, or cannot be any more.
    fn asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = self.0.subscribe();
        async move { while !*asked.borrow_and_update() && asked.changed().await.is_ok() {} }
    }
}

fn why(ended: Result<(), tokio::task::JoinError>) -> String {
    match ended {
        Ok(()) => "a task ended; the log says why".to_owned(),
        Err(error) => format!("a task broke: {error}; please report this"),
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<Bound, Failure> {
    Bound::bind(address).await.map_err(|error| Failure::Usage(format!("{flag}: cannot listen on {address}: {error}")))
}
