//! The composition root: starts every task, and joins every task.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::jiff::SignedDuration;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::{KubernetesArgs, Serve};
use crate::converge::{Attempts, Converger, Parts, Schedule};
use crate::gate::Gated;
use crate::k8s::ca_bundle::{self, Injection};
use crate::k8s::cacerts::Cacerts;
use crate::k8s::external_secrets::ExternalSecrets;
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::k8s::serving;
use crate::plan::Names;
use crate::readiness::{Part, Readiness};
use crate::reason::{Held, Reason, foreign_text};
use crate::server::{self, Bound};
use crate::snapshot::Policy;
use crate::tls::{self, Serving, ServingCa};
use crate::vault::Vault;
use crate::webhook::Webhook;
use crate::{shutdown, telemetry};

/// Connecting to an API server that is there takes milliseconds.
const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The pin's date is written anew at least so often.
const PIN_AGE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// Pause between tries of what has to be done once at start; where it may be for long, it doubles up to the cap.
const START_PAUSE: Duration = Duration::from_secs(1);
const START_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a command ends that does not end well.
#[derive(Debug)]
pub enum Failure {
    /// Wrong use or configuration: exit code 2.
    Usage(String),
    /// Something broke that should not: exit code 1.
    Broken(String),
}

/// Runs the admission service until a signal.
///
/// # Errors
/// A wrong configuration, or a task that ended although it should not.
pub async fn serve(args: Serve) -> Result<(), Failure> {
    telemetry::init(&args.log).map_err(Failure::Usage)?;
    let mut signals = shutdown::Signals::listen().map_err(|error| Failure::Broken(error.to_string()))?;
    let settings = args.vault.settings(args.role).map_err(Failure::Usage)?;
    let names = Names {
        cacerts: format!("{}/{}", args.namespace, args.secret),
        pin: format!("{}/{}", args.namespace, pin::NAME),
        record: settings.record(),
    };
    let vault = Vault::new(settings)
        .map_err(|error| Failure::Usage(format!("--vault-ca-cert (variable VAULT_CACERT): {error}")))?;
    let client = client(&args.kubernetes).await?;
    let https = bind(args.listen, "--listen (variable GATE_LISTEN)").await?;
    let http = match args.admin_listen.0 {
        Some(address) => Some(bind(address, "--admin-listen (variable GATE_ADMIN_LISTEN)").await?),
        None => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = args.cluster(),
        role = args.role.as_str(),
        https = %https.address(),
        http = http.as_ref().map(|http| http.address().to_string()),
        "starting"
    );

    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let policy = Policy {
        refresh: signed(args.refresh),
        vault_unavailable: args.vault_unavailable,
        max_staleness: signed(args.max_staleness),
    };
    let gated = Gated(args.gate_selectors.clone());
    let cacerts = Arc::new(Cacerts::new(client.clone(), &args.namespace, &args.secret));
    let owners = Arc::new(Owners::new(client.clone(), &args.namespace, gated.clone()));
    let converger = Converger::new(cacerts.watched());
    let readiness = Arc::new(Readiness::default());
    let attempts = Attempts::new(Parts {
        role: args.role,
        on_root_change: args.on_root_change,
        pin_age_max: PIN_AGE_MAX.min(policy.max_staleness / 4),
        names,
        common_name: format!("Istio Root CA {}", args.cluster()),
        vault,
        cacerts: Arc::clone(&cacerts),
        pins: Pins::new(client.clone(), &args.namespace),
        owners: Arc::clone(&owners),
        external_secrets: ExternalSecrets::new(client.clone(), &args.namespace),
    });
    let state = server::State {
        webhook: Arc::new(Webhook {
            cluster: args.cluster(),
            gated,
            policy,
            converger: converger.clone(),
            cacerts: Arc::clone(&cacerts),
        }),
        role: args.role,
        readiness: Arc::clone(&readiness),
    };

    let (stop, stopping) = watch::channel(false);
    let stopped = move || {
        let mut stopping = stopping.clone();
        async move { if let Err(_gone) = stopping.wait_for(|stop| *stop).await {} }
    };
    let mut servers = JoinSet::new();
    let mut tasks = JoinSet::new();
    if let Some(http) = http {
        servers.spawn(http.serve(server::admin(state.clone()), None, stopped()));
    }
    let schedule = Schedule { retry_max: args.retry_max, refresh: args.refresh };
    tasks.spawn({
        let converger = converger.clone();
        async move { converger.run(attempts, schedule, policy).await }
    });
    tasks.spawn({
        let (cacerts, readiness) = (Arc::clone(&cacerts), Arc::clone(&readiness));
        async move { cacerts.watch(|| readiness.done(Part::Cacerts)).await }
    });
    tasks.spawn({
        let (client, args, readiness) = (client.clone(), args.namespace.clone(), Arc::clone(&readiness));
        async move {
            resume(client, &args, &cacerts, &owners, &converger, &readiness).await;
            std::future::pending().await
        }
    });

    let mut certified =
        Box::pin(certify(client.clone(), args.namespace.clone(), args.tls_secret.clone(), args.dns_names()));
    let mut https = Some(https);
    let ended = loop {
        tokio::select! {
            (ca, serving) = &mut certified, if https.is_some() => {
                readiness.done(Part::Tls);
                if let Some(https) = https.take() {
                    let tls = tls::server_config(Arc::clone(&serving));
                    servers.spawn(https.serve(server::admission(state.clone()), Some(tls), stopped()));
                }
                keep_certified(&mut tasks, &client, &args, ca, serving, &readiness);
            }
            () = signals.next() => break Ok(()),
            Some(ended) = tasks.join_next() => break Err(why(ended)),
            Some(ended) = servers.join_next() => break Err(why(ended)),
        }
    };

    if ended.is_ok() {
        tracing::info!(delay_seconds = args.shutdown_delay.as_secs_f64(), "shutting down");
        readiness.ending();
        tokio::select! {
            () = tokio::time::sleep(args.shutdown_delay) => {}
            () = signals.next() => {}
        }
    }
    stop.send_replace(true);
    tokio::select! {
        () = async { while servers.join_next().await.is_some() {} } => {}
        () = signals.next() => {}
    }
    // What an attempt leaves half done, the next start mends.
    tasks.shutdown().await;
    ended.map_err(Failure::Broken)
}

fn why(ended: Result<(), tokio::task::JoinError>) -> String {
    match ended {
        Ok(()) => "a task ended; the log says why".to_owned(),
        Err(error) => format!("a task broke: {error}; please report this"),
    }
}

async fn bind(address: std::net::SocketAddr, flag: &str) -> Result<Bound, Failure> {
    Bound::bind(address).await.map_err(|error| Failure::Usage(format!("{flag}: cannot listen on {address}: {error}")))
}

async fn client(args: &KubernetesArgs) -> Result<Client, Failure> {
    // Only the outermost text: the others repeat what is in the file.
    let wrong = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        let error = foreign_text(text.split([':', '\n']).next().unwrap_or_default());
        Failure::Usage(format!(
            "--kubeconfig (variable KUBECONFIG), --context (variable GATE_CONTEXT): no access to Kubernetes: {error}"
        ))
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (&args.kubeconfig, &args.context) {
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(&error))?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
        (None, None) => Config::infer().await.map_err(|error| wrong(&error))?,
    };
    config.connect_timeout = Some(API_CONNECT_TIMEOUT);
    // The convergence retries, and knows why.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| wrong(&error))
}

/// A cluster that was consulted before, in another process, goes on where that one ended.
async fn resume(
    client: Client,
    namespace: &str,
    cacerts: &Cacerts,
    owners: &Owners,
    converger: &Converger,
    readiness: &Readiness,
) {
    let pins = Pins::new(client, namespace);
    let mut pause = START_PAUSE;
    loop {
        let found = consulted_before(&pins, cacerts, owners).await;
        // A refusal is an answer, too: being held back by RBAC is not unready.
        if !matches!(&found, Err(held) if held.reason == Reason::KubernetesUnreachable) {
            readiness.done(Part::Consulted);
        }
        match found {
            Ok(true) => return converger.wake(),
            Ok(false) => return,
            // There is a pin, and it cannot be read: the convergence tells so.
            Err(held) if !held.reason.is_kubernetes() => return converger.wake(),
            Err(held) => tracing::warn!(reason = %held.reason, "{}", held.sentence),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(START_PAUSE_MAX);
    }
}

async fn consulted_before(pins: &Pins, cacerts: &Cacerts, owners: &Owners) -> Result<bool, Held> {
    let (pin, published) = tokio::try_join!(pins.read(), cacerts.read())?;
    Ok(pin::in_force(&pin, &published)?.is_some() || owners.any_blocked().await?)
}

/// Tries until there is a serving certificate.
async fn certify(
    client: Client,
    namespace: String,
    secret: String,
    names: Vec<String>,
) -> (Arc<ServingCa>, Arc<Serving>) {
    loop {
        match serving::adopt_or_create(client.clone(), &namespace, &secret).await {
            Ok(ca) => match Serving::issue(&ca, &names) {
                Ok(serving) => return (Arc::new(ca), serving),
                Err(error) => tracing::error!("--dns-name (variable GATE_DNS_NAMES): {error}"),
            },
            Err(held) => tracing::error!(reason = %held.reason, "{}", held.sentence),
        }
        tokio::time::sleep(START_PAUSE).await;
    }
}

fn keep_certified(
    tasks: &mut JoinSet<()>,
    client: &Client,
    args: &Serve,
    ca: Arc<ServingCa>,
    serving: Arc<Serving>,
    readiness: &Arc<Readiness>,
) {
    tasks.spawn(inject::<ValidatingWebhookConfiguration>(client, args, &ca, readiness, Part::ValidatingCaBundle));
    tasks.spawn(inject::<MutatingWebhookConfiguration>(client, args, &ca, readiness, Part::MutatingCaBundle));
    let names = args.dns_names();
    tasks.spawn(async move { serving.keep_fresh(&ca, &names).await });
}

fn inject<K: ca_bundle::Configuration>(
    client: &Client,
    args: &Serve,
    ca: &ServingCa,
    readiness: &Arc<Readiness>,
    part: Part,
) -> impl Future<Output = ()> + Send + use<K> {
    let (client, readiness) = (client.clone(), Arc::clone(readiness));
    let injection = Injection {
        configuration: args.webhook_config.clone(),
        ca: ca.certificate_pem().as_bytes().to_vec(),
        secret: (args.namespace.clone(), args.tls_secret.clone()),
    };
    async move { ca_bundle::keep::<K>(client, injection, || readiness.done(part)).await }
}
