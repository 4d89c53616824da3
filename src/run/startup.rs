//! What has to be done once before the service is itself.

use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Failure;
use crate::args::KubernetesArgs;
use crate::converge::Converger;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::k8s::serving;
use crate::readiness::{Part, Readiness};
use crate::reason::{Held, Reason, foreign_text};
use crate::tls::{Serving, ServingCa};

/// Connecting to an API server that is there takes milliseconds.
const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between tries of what has to be done once at start; where it may be for long, it doubles up to the cap.
const START_PAUSE: Duration = Duration::from_secs(1);
const START_PAUSE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn client(args: &KubernetesArgs) -> Result<Client, Failure> {
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
pub(super) async fn resume(
    pins: &Pins,
    cacerts: &Cacerts,
    owners: &Owners,
    converger: &Converger,
    readiness: &Readiness,
) {
    let mut pause = START_PAUSE;
    loop {
        let found = consulted_before(pins, cacerts, owners).await;
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
pub(super) async fn certify(
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
