//! One AdmissionReview: parse, ask the gate, wait for the convergence where it must, answer.

pub mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use json_patch::Patch;
use tokio::sync::Semaphore;

use crate::clock::Clocks;
use crate::converge::Converger;
use crate::gate::{Decision, Gated, gate};
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::Events;
use crate::k8s::flux::{HelmRelease, Releases};
use crate::k8s::pin::Pins;
use crate::patch;
use crate::reason::{ByItself, Held, Reason};
use crate::snapshot::Policy;
use review::Request;

/// The API server's own default, where a call does not tell its timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The API server's own limits of a webhook's timeout.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Left for the answer's way back. The API server rounds what it has left up to whole seconds.
const MARGIN: Duration = Duration::from_secs(1);

/// Longest wait for the name of a HelmRelease: reading two objects takes a few milliseconds.
const RELEASE_WAIT: Duration = Duration::from_millis(300);

/// Each pass through the gate either decides or learns something; more than a few is a cluster in turmoil.
const PASSES_MAX: usize = 4;

/// Gated reviews that wait at a time: several times the pods of a large mesh's istiods and gateways. Each holds a
/// connection and a request of the server's.
pub const WAITING_MAX: usize = 128;

/// What the admission endpoints answer by.
pub struct Webhook {
    /// This cluster's name.
    pub cluster: String,
    /// Which pods are gated.
    pub gated: Gated,
    /// The user's settings.
    pub policy: Policy,
    /// The convergence.
    pub converger: Converger,
    /// For live reads.
    pub cacerts: Arc<Cacerts>,
    /// The same of the pin.
    pub pins: Pins,
    /// For the names of the HelmReleases of denied pods.
    pub releases: Releases,
    /// Where denials are told.
    pub events: Events,
    /// Places of those that wait; [`WAITING_MAX`].
    pub waiting: Semaphore,
}

impl Webhook {
    /// Decides on a request within the timeout that the API server gave it, from when its head was there. Of a denied pod, also the HelmRelease that it
    /// is from, if that can be found out in what is left of the time.
    pub async fn answer(
        &self,
        request: &Request,
        began: Instant,
        timeout: Option<Duration>,
    ) -> (Decision, Option<HelmRelease>) {
        let began = tokio::time::Instant::from_std(began);
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
        let decision = self.decide(request, began + timeout.saturating_sub(MARGIN).max(timeout / 2)).await;
        let Decision::Deny(held) = &decision else { return (decision, None) };
        let left = timeout.saturating_sub(began.elapsed());
        let release = match request.controller() {
            Some(controller) => self.releases.of(controller, RELEASE_WAIT.min(left / 2)).await,
            None => None,
        };
        if !request.is_dry_run() {
            self.events.held(held, request.controller(), release.as_ref());
        }
        (decision, release)
    }

    async fn decide(&self, request: &Request, deadline: tokio::time::Instant) -> Decision {
        match self.look(request) {
            Decision::ReadLive | Decision::ReadPin | Decision::Consult => {}
            decided => return decided,
        }
        // Who finds no place is retried as soon as those that wait.
        let Ok(_place) = self.waiting.try_acquire() else {
            self.converger.wake();
            return self.converging();
        };
        for _ in 0..PASSES_MAX {
            match self.look(request) {
                Decision::ReadLive => {
                    self.converger.wake();
                    if let Err(held) = self.read_live(deadline).await {
                        return Decision::Deny(held);
                    }
                }
                Decision::ReadPin => {
                    if let Err(held) = self.read_pin(deadline).await {
                        return Decision::Deny(held);
                    }
                }
                Decision::Consult => {
                    if !self.converger.consult(deadline).await {
                        break;
                    }
                    match self.look(request) {
                        Decision::Consult => {
                            if let Some(held) = self.converger.look(|known| known.convergence.held.clone()) {
                                return Decision::Deny(held);
                            }
                            // It ended open, and something changed at once: ask again.
                        }
                        Decision::ReadLive | Decision::ReadPin => {}
                        decided => return decided,
                    }
                }
                decided => return decided,
            }
        }
        self.converging()
    }

    /// What `/mutate` changes in a gated pod that is let in.
    pub fn patch(&self, request: &Request, decision: &Decision) -> Option<Patch> {
        let (root, version) = match decision {
            Decision::Open { root, version } => (*root, Some(*version)),
            // By the pin, which knows the root alone.
            Decision::OpenUnverified { root, .. } => (*root, None),
            _ => return None,
        };
        Some(patch::patch(request.shape(), self.cacerts.name(), root, version))
    }

    fn converging(&self) -> Decision {
        let doing = self.converger.look(|known| known.convergence.doing);
        Decision::Deny(Held::without_next(
            Reason::Converging,
            format!(
                "cacerts is being brought to Vault's root, which waits for {}; the pod is retried by itself, nothing has to be done",
                doing.as_str()
            ),
            ByItself::Unsaid,
        ))
    }

    fn look(&self, request: &Request) -> Decision {
        self.converger.look(|known| gate(&request.ask(), &self.gated, known, &self.policy, Clocks::now()))
    }

    async fn read_pin(&self, deadline: tokio::time::Instant) -> Result<(), Held> {
        tokio::time::timeout_at(deadline, self.converger.read_pin(&self.pins)).await.unwrap_or_else(|_| {
            Err(Held::new(
                Reason::KubernetesUnreachable,
                "Vault cannot be asked, and the pin cannot be read in time",
                "check the API server",
                ByItself::TriedAgain,
            ))
        })
    }

    async fn read_live(&self, deadline: tokio::time::Instant) -> Result<(), Held> {
        tokio::time::timeout_at(deadline, self.cacerts.read_anew()).await.unwrap_or_else(|_| {
            Err(Held::new(
                Reason::KubernetesUnreachable,
                "cacerts cannot be read in time, and its watch is silent",
                "check the API server",
                ByItself::TriedAgain,
            ))
        })
    }
}
