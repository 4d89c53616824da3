//! From a blocked pod's controller to the HelmRelease that it is from.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, GetParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::HelmRelease;
use crate::controller::Controller;
use crate::{call, stream};
use gate_core::reason::Held;

/// A ReplicaSet, and its Deployment.
const HOPS: usize = 2;

/// Look-ups at a time: a storm of denials must not become a storm of reads, nor fill the memory with what it reads.
const AT_ONCE: usize = 2;

/// Controllers whose release is kept; a cluster has a handful of gated ones.
const KEPT_MAX: usize = 256;

/// How long an answer is kept: labels of a Deployment hardly ever change.
const KEPT: Duration = Duration::from_secs(600);

/// How long a failure is taken for granted, so that a missing right or a slow answer costs a denial nothing.
const FAILED: Duration = Duration::from_secs(30);

/// What is looked at of a controller: whoever made it may have filled the rest.
#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// Looks up HelmReleases, and keeps what it found.
pub struct Releases {
    client: Client,
    kept: Mutex<Kept>,
    places: Semaphore,
}

impl Releases {
    /// The releases of one cluster.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// The release of a controller's pods, if that is found out within `wait`.
    pub async fn of(&self, controller: &Controller, wait: Duration) -> Option<HelmRelease> {
        if let Some(kept) = self.kept().get(controller, Instant::now()) {
            return kept;
        }
        let _place = self.places.try_acquire().ok()?;
        let looked = tokio::time::timeout(wait, self.walk(controller)).await;
        let (release, keep) = match looked {
            Ok(Ok(release)) => (release, KEPT),
            Ok(Err(held)) => {
                tracing::debug!(reason = %held.reason, "no HelmRelease is named: {}", held.sentence());
                (None, FAILED)
            }
            Err(_) => (None, FAILED),
        };
        self.kept().put(controller, release.clone(), keep, Instant::now());
        release
    }

    async fn walk(&self, controller: &Controller) -> Result<Option<HelmRelease>, Held> {
        let mut at = controller.clone();
        for _ in 0..HOPS {
            let doing = format!("read {} {}/{}", at.kind(), at.namespace(), at.name());
            let path = DynamicObject::url_path(&at.resource(), Some(at.namespace()));
            let read = async {
                let request = Request::new(path).get(at.name(), &GetParams::default());
                let request = request.map_err(kube::Error::BuildRequest)?;
                stream::object::<Wire>(&self.client, request).await
            };
            let Wire { metadata } = call(&doing, read).await.map_err(|error| error.into_held(&doing))?;
            // Another object of that name is not the one that the pod is from.
            if metadata.uid != at.uid() {
                return Ok(None);
            }
            if let Some(release) = HelmRelease::of_labels(&metadata.labels.unwrap_or_default()) {
                return Ok(Some(release));
            }
            let above = metadata.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true));
            let above = above.and_then(|owner| {
                Controller::new(&owner.api_version, &owner.kind, at.namespace(), &owner.name, &owner.uid)
            });
            let Some(above) = above else { return Ok(None) };
            at = above;
        }
        Ok(None)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found, until when.
#[derive(Default)]
struct Kept(HashMap<Controller, (Option<HelmRelease>, Instant)>);

impl Kept {
    fn get(&self, controller: &Controller, now: Instant) -> Option<Option<HelmRelease>> {
        self.0.get(controller).filter(|(_, until)| now < *until).map(|(release, _)| release.clone())
    }

    fn put(&mut self, controller: &Controller, release: Option<HelmRelease>, keep: Duration, now: Instant) {
        if self.0.len() >= KEPT_MAX {
            self.0.retain(|_, (_, until)| now < *until);
        }
        // Still full of fresh ones: to look up again costs less than to keep order.
        if self.0.len() >= KEPT_MAX {
            self.0.clear();
        }
        self.0.insert(controller.clone(), (release, now + keep));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn controller(name: &str) -> Controller {
        Controller::new("apps/v1", "ReplicaSet", "istio-system", name, "u-1").unwrap()
    }

    #[test]
    fn what_was_found_is_kept_for_its_time_also_where_it_was_nothing() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let release = HelmRelease::new("flux-system", "istiod");
        kept.put(&controller("a"), release.clone(), KEPT, now);
        kept.put(&controller("b"), None, FAILED, now);
        assert_eq!(kept.get(&controller("a"), now + FAILED), Some(release));
        assert_eq!(kept.get(&controller("b"), now), Some(None));
        assert_eq!(kept.get(&controller("b"), now + FAILED), None);
        assert_eq!(kept.get(&controller("c"), now), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_expired_goes_first() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        kept.put(&controller("fresh"), None, KEPT, now);
        for n in 1..KEPT_MAX {
            kept.put(&controller(&format!("r{n}")), None, FAILED, now);
        }
        kept.put(&controller("one-more"), None, KEPT, now + FAILED);
        assert_eq!(kept.0.len(), 2);
        for n in 0..3 * KEPT_MAX {
            kept.put(&controller(&format!("s{n}")), None, KEPT, now);
        }
        assert!(kept.0.len() <= KEPT_MAX);
    }
}
