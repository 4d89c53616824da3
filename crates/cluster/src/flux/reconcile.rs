//! Asks Flux to reconcile HelmReleases, as `flux reconcile helmrelease --reset` does. A release whose pods were kept
//! out for long has used up its retries, and would stay failed although nothing holds it any more.

use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::api::Patch;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use super::HelmRelease;
use crate::{Failed, call, patch};
use gate_core::reason::{ByItself, Held, Reason};

/// Flux acts on a change of its value.
const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// With the same value, it also forgets earlier failures.
const RESET_AT: &str = "reconcile.fluxcd.io/resetAt";

/// Tries for one release, with a pause that doubles: half a minute together.
const TRIES: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_secs(2);

/// Reads and writes anew where Flux has changed the object in between, as it does while it works on it.
const CONFLICTS_MAX: usize = 5;

/// A request so young is another replica's, for the same opening.
const SAME_OPENING: SignedDuration = SignedDuration::from_secs(30);

/// The HelmReleases of `--reconcile-helmrelease`.
pub struct Reconciles {
    client: Client,
    releases: Vec<HelmRelease>,
    opened: watch::Sender<Option<Timestamp>>,
}

impl Reconciles {
    /// These releases.
    pub fn new(client: Client, releases: Vec<HelmRelease>) -> Self {
        Self { client, releases, opened: watch::Sender::new(None) }
    }

    /// Has them asked, in the background.
    pub fn ask(&self, now: Timestamp) {
        self.opened.send_replace(Some(now));
    }

    /// Asks for ever, whenever it is to.
    pub async fn run(&self) {
        let mut opened = self.opened.subscribe();
        loop {
            let asked = *opened.borrow_and_update();
            if let Some(now) = asked {
                self.ask_all(now).await;
            }
            // Cannot fail while this exists.
            let _ = opened.changed().await;
        }
    }

    /// Asks all of them, a few times where it fails, and returns when that is done.
    pub async fn ask_all(&self, now: Timestamp) {
        join_all(self.releases.iter().map(|release| self.persist(release, now))).await;
    }

    async fn persist(&self, release: &HelmRelease, now: Timestamp) {
        let (mut pause, mut told) = (PAUSE_FIRST, None);
        for tries_left in (0..TRIES).rev() {
            let held = match self.ask_one(release, now).await {
                Ok(asked) => return tell(release, asked),
                Err(held) => held,
            };
            if told.as_ref() != Some(&held) {
                tracing::warn!(reason = %held.reason, helm_release = %release, "{}", held.sentence());
                told = Some(held);
            }
            if tries_left > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        let HelmRelease { namespace, name } = release;
        tracing::error!(
            helm_release = %release,
            "gave up asking for a reconciliation: run `flux reconcile helmrelease {name} -n {namespace} --reset`"
        );
    }

    async fn ask_one(&self, release: &HelmRelease, now: Timestamp) -> Result<Asked, Held> {
        let (api, name) = (release.api(&self.client), release.name());
        let doing = format!("annotate HelmRelease {release}");
        for _ in 0..CONFLICTS_MAX {
            let read = match call(&doing, api.get(name)).await {
                Err(Failed::NotFound) => return Err(missing(release)),
                read => read.map_err(|error| explained(error.into_held(&doing)))?,
            };
            let value = |key| read.annotations().get(key).map(String::as_str);
            if asked_lately(value(REQUESTED_AT), value(RESET_AT), now) {
                return Ok(Asked::Already);
            }
            let stamp = now.to_string();
            let body = json!({ "metadata": {
                "resourceVersion": read.resource_version(),
                "annotations": { REQUESTED_AT: stamp, RESET_AT: stamp },
            }});
            match call(&doing, api.patch(name, &patch(), &Patch::Merge(&body))).await {
                Ok(_) => return Ok(Asked::Now),
                Err(Failed::Conflict) => {}
                Err(Failed::NotFound) => return Err(missing(release)),
                Err(error) => return Err(explained(error.into_held(&doing))),
            }
        }
        Err(Failed::Conflict.into_held(&doing))
    }
}

enum Asked {
    Now,
    Already,
}

fn tell(release: &HelmRelease, asked: Asked) {
    match asked {
        Asked::Now => tracing::info!(helm_release = %release, "asked Flux to reconcile a HelmRelease"),
        Asked::Already => tracing::debug!(helm_release = %release, "another replica has asked Flux to reconcile it"),
    }
}

/// Whether both annotations, with one value, are of this opening. A clock that is ahead counts like one that is behind.
fn asked_lately(requested: Option<&str>, reset: Option<&str>, now: Timestamp) -> bool {
    let at = requested.filter(|_| requested == reset).and_then(|text| text.parse::<Timestamp>().ok());
    at.is_some_and(|at| now.duration_since(at).abs() <= SAME_OPENING)
}

fn missing(release: &HelmRelease) -> Held {
    Held::new(
        Reason::KubernetesForbidden,
        format!("there is no HelmRelease {release}, or no Flux"),
        "mend --reconcile-helmrelease (variable GATE_RECONCILE_HELMRELEASES)",
        ByItself::Unsaid,
    )
}

/// The API server names the right that is missing, and this says where it is had.
fn explained(held: Held) -> Held {
    if held.reason != Reason::KubernetesForbidden {
        return held;
    }
    held.noting("the rights get and patch on it are in deploy/kustomize/components/flux-reconcile")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_young_request_with_a_reset_stands_for_this_opening() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let (young, old, ahead) = ("2026-11-24T09:59:45.123Z", "2026-11-24T09:59:00Z", "2026-11-24T10:00:20Z");
        assert!(asked_lately(Some(young), Some(young), now));
        assert!(asked_lately(Some(ahead), Some(ahead), now));
        assert!(!asked_lately(Some(old), Some(old), now));
        // By a person, without a reset: the failure count would stay.
        assert!(!asked_lately(Some(young), None, now));
        assert!(!asked_lately(Some(young), Some(old), now));
        assert!(!asked_lately(Some("soon"), Some("soon"), now));
        assert!(!asked_lately(None, None, now));
    }
}
