//! What has to be done once before the service is itself.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::converge::Converger;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::k8s::serving;
use crate::readiness::{Part, Readiness};
use crate::reason::{Held, Reason};
use crate::tls::{Serving, ServingCa};

/// Pause between tries of what has to be done once at start; where it may be for long, it doubles up to the cap.
const START_PAUSE: Duration = Duration::from_secs(1);
const START_PAUSE_MAX: Duration = Duration::from_secs(30);

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
