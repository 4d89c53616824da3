//! Admission calls, counted for Prometheus.

use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounterVec, IntGauge, Registry};

use crate::gate::Decision;
use crate::metrics::{counters, histogram, opts, registered};
use crate::reason::Reason;

/// Answers of an open gate take a fraction of a millisecond; a call's longest budget is 30 s.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Admission calls.
#[derive(Clone)]
pub struct Admissions {
    requests: IntCounterVec,
    seconds: Histogram,
    in_flight: IntGauge,
}

impl Admissions {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let in_flight = IntGauge::with_opts(opts("admission_in_flight", "Admission calls that are being answered."))?;
        Ok(Self {
            requests: counters(
                registry,
                "admission_requests_total",
                "Admission calls by endpoint, decision and, for what is not simply allowed, reason code.",
                &["endpoint", "decision", "reason"],
            )?,
            seconds: histogram(
                registry,
                "admission_duration_seconds",
                "From the head of an admission call to its answer.",
                &SECONDS,
            )?,
            in_flight: registered(registry, in_flight)?,
        })
    }

    /// A call begins. It is counted when what is returned is told its end, or dropped: then it was given up.
    pub fn begin(&self, endpoint: &'static str) -> Admission<'_> {
        self.in_flight.inc();
        Admission { all: self, endpoint, began: Instant::now(), ended: ("abandoned", "") }
    }
}

/// An admission call under way.
pub struct Admission<'a> {
    all: &'a Admissions,
    endpoint: &'static str,
    began: Instant,
    ended: (&'static str, &'static str),
}

impl Admission<'_> {
    /// It is decided.
    pub fn decided(&mut self, decision: &Decision) {
        self.ended = (decision.as_str(), decision.reason().map_or("", Reason::as_str));
    }

    /// It was no AdmissionReview that can be answered.
    pub fn malformed(&mut self) {
        self.ended = ("malformed", "");
    }

    /// When its head was there.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let (decision, reason) = self.ended;
        self.all.in_flight.dec();
        self.all.requests.with_label_values(&[self.endpoint, decision, reason]).inc();
        self.all.seconds.observe(self.elapsed().as_secs_f64());
    }
}
