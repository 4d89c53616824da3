//! Attempts, counted for Prometheus.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, Registry};

use crate::metrics::{counters, histogram};
use crate::reason::Reason;

/// Comparing takes milliseconds; making a key may take ten seconds.
const SECONDS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Attempts of the convergence.
#[derive(Clone)]
pub struct Convergences {
    ended: IntCounterVec,
    renewals: IntCounterVec,
    seconds: Histogram,
}

impl Convergences {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            ended: counters(
                registry,
                "convergences_total",
                "Attempts to bring cacerts to Vault's root, by the step it set out on and open or the reason code.",
                &["step", "outcome"],
            )?,
            renewals: counters(
                registry,
                "signer_renewals_total",
                "Renewals of this cluster's signer that were due, by renewed or the reason code.",
                &["outcome"],
            )?,
            seconds: histogram(registry, "convergence_duration_seconds", "How long an attempt takes.", &SECONDS)?,
        })
    }

    /// A renewal of the signer was due: it is done, or for this reason not.
    pub fn renewed(&self, reason: Option<Reason>) {
        self.renewals.with_label_values(&[reason.map_or("renewed", Reason::as_str)]).inc();
    }

    /// An attempt has ended: held back with a reason, or open.
    pub fn ended(&self, step: &'static str, reason: Option<Reason>, took: Duration) {
        self.ended.with_label_values(&[step, reason.map_or("open", Reason::as_str)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
