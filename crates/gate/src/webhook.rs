//! One AdmissionReview: parse, ask the gate, wait for the convergence where it must, answer.

pub mod kept_out;
pub mod review;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use json_patch::Patch;
use tokio::sync::Semaphore;

use crate::clock::Clocks;
use crate::converge::Converger;
use crate::gate::{Decision, Gated, Learn, gate};
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::Events;
use crate::k8s::flux::{HelmRelease, Releases};
use crate::k8s::pin::Pins;
use crate::patch;
use crate::reason::{ByItself, Held, Reason};
use crate::snapshot::Policy;
use kept_out::KeptOut;
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
    /// Whose pods are kept out.
    pub kept_out: Mutex<KeptOut>,
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
        self.note(request, &decision);
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

    /// Remembers whose pod it was, for the page.
    fn note(&self, request: &Request, decision: &Decision) {
        let Some(owner) = request.controller().filter(|_| !request.is_dry_run()) else { return };
        match decision {
            Decision::Deny(_) => self.kept_out().refused(owner, Clocks::now().wall),
            Decision::Open { .. } | Decision::OpenUnverified { .. } => self.kept_out().let_in(owner),
            Decision::NotGated => {}
        }
    }

    /// Whose pods are kept out.
    pub fn kept_out(&self) -> MutexGuard<'_, KeptOut> {
        self.kept_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn decide(&self, request: &Request, deadline: tokio::time::Instant) -> Decision {
        if let Ok(decision) = self.look(request) {
            return decision;
        }
        // Who finds no place is retried as soon as those that wait.
        let Ok(_place) = self.waiting.try_acquire() else {
            self.converger.wake();
            return Decision::Deny(self.converging());
        };
        for _ in 0..PASSES_MAX {
            let learnt = match self.look(request) {
                Ok(decision) => return decision,
                Err(learn) => self.learn(learn, request, deadline).await,
            };
            if let Err(held) = learnt {
                return Decision::Deny(held);
            }
        }
        self.look(request).unwrap_or_else(|_| Decision::Deny(self.converging()))
    }

    /// Learns what a decision lacks, or why it is to be a denial.
    async fn learn(&self, learn: Learn, request: &Request, deadline: tokio::time::Instant) -> Result<(), Held> {
        match learn {
            Learn::Cacerts => {
                self.converger.wake();
                self.read_live(deadline).await
            }
            Learn::Pin => self.read_pin(deadline).await,
            Learn::Convergence => {
                if !self.converger.consult(deadline).await {
                    return Err(self.converging());
                }
                match self.look(request) {
                    // `None`: it ended open, and something changed at once: ask again.
                    Err(Learn::Convergence) => {
                        self.converger.look(|known| known.convergence.held.clone()).map_or(Ok(()), Err)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Whether it is about a gated pod, if it is about a pod's creation.
    pub fn is_gated(&self, request: &Request) -> bool {
        self.gated.matches(request.ask().labels)
    }

    /// What `/mutate` changes in a gated pod that is let in.
    pub fn patch(&self, request: &Request, decision: &Decision) -> Option<Patch> {
        let (root, version) = match decision {
            Decision::Open { root, version } => (*root, Some(*version)),
            // By the pin, which knows the root alone.
            Decision::OpenUnverified { root, .. } => (*root, None),
            Decision::NotGated | Decision::Deny(_) => return None,
        };
        Some(patch::patch(request.shape(), self.cacerts.name(), root, version))
    }

    fn converging(&self) -> Held {
        let doing = self.converger.look(|known| known.convergence.doing);
        let what = format!(
            "cacerts is being brought to Vault's root, which waits for {}; the pod is retried by itself, nothing has to be done",
            doing.as_str()
        );
        Held::without_next(Reason::Converging, what, ByItself::Unsaid)
    }

    fn look(&self, request: &Request) -> Result<Decision, Learn> {
        self.converger.look(|known| gate(&request.ask(), &self.gated, known, &self.policy, Clocks::now()))
    }

    async fn read_pin(&self, deadline: tokio::time::Instant) -> Result<(), Held> {
        tokio::time::timeout_at(deadline, self.converger.read_pin(self.pins.read())).await.unwrap_or_else(|_| {
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
