//! What has to be done once before the service is itself.

use std::time::Duration;

use crate::backoff::{Backoff, SOON};
use crate::converge::Converger;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::owners::Owners;
use crate::k8s::pin::Pins;
use crate::readiness::{Part, Readiness};
use crate::reason::{Held, Reason};

/// First pause between tries of what has to be done once at start.
const START_PAUSE: Duration = Duration::from_millis(500);

/// A cluster that was consulted before, in another process, goes on where that one ended.
pub(super) async fn resume(
    pins: &Pins,
    cacerts: &Cacerts,
    owners: &Owners,
    converger: &Converger,
    readiness: &Readiness,
) {
    let (mut backoff, mut said) = (Backoff::new(START_PAUSE, SOON), None);
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
            Err(held) => {
                if said.as_ref() != Some(&held) {
                    tracing::warn!(reason = %held.reason, "{}", held.sentence());
                }
                said = Some(held);
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn consulted_before(pins: &Pins, cacerts: &Cacerts, owners: &Owners) -> Result<bool, Held> {
    let (pin, published) = tokio::try_join!(pins.read(), cacerts.read())?;
    Ok(pin.in_force(&published)?.is_some() || owners.any_blocked().await?)
}
