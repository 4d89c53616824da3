//! One AdmissionReview: parse, ask the gate, wait for the convergence where it must, answer.

pub mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::converge::Converger;
use crate::gate::{Decision, Gated, gate};
use crate::k8s::cacerts::Cacerts;
use crate::plan::Published;
use crate::reason::{Held, Reason};
use crate::snapshot::Policy;
use review::Request;

/// The API server's own default, where a call does not tell its timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The API server's own limits of a webhook's timeout.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Left for the answer's way back. The API server rounds what it has left up to whole seconds.
const MARGIN: Duration = Duration::from_secs(1);

/// Each pass through the gate either decides or learns something; more than a few is a cluster in turmoil.
const PASSES_MAX: usize = 4;

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
}

impl Webhook {
    /// Decides on a request within the timeout that the API server gave it.
    pub async fn decide(&self, request: &Request, timeout: Option<Duration>) -> Decision {
        let began = tokio::time::Instant::now();
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
        let deadline = began + timeout.saturating_sub(MARGIN).max(timeout / 2);
        for _ in 0..PASSES_MAX {
            match self.look(request) {
                Decision::ReadLive => {
                    self.converger.wake();
                    if let Err(held) = self.read_live(deadline).await {
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
                        Decision::ReadLive => {}
                        decided => return decided,
                    }
                }
                decided => return decided,
            }
        }
        Decision::Deny(Held::new(
            Reason::Converging,
            "cacerts is being brought to Vault's root; the pod is retried by itself, nothing has to be done",
        ))
    }

    fn look(&self, request: &Request) -> Decision {
        self.converger
            .look(|known| gate(&request.ask(), &self.gated, known, &self.policy, Timestamp::now(), Instant::now()))
    }

    async fn read_live(&self, deadline: tokio::time::Instant) -> Result<(), Held> {
        let generation = self.converger.look(|known| known.watched.generation);
        let read = tokio::time::timeout_at(deadline, self.cacerts.read()).await;
        let published: Published = read.unwrap_or_else(|_| {
            Err(Held::new(
                Reason::KubernetesUnreachable,
                "cacerts cannot be read in time, and its watch is silent: check the API server; it is tried again by itself",
            ))
        })?;
        self.cacerts.observe_unless_changed(generation, &published);
        Ok(())
    }
}
