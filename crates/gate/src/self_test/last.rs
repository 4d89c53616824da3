//! The last self-test, told to Prometheus.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use prometheus::Registry;

use crate::metrics::gauge;

/// The last self-test: how it ended, and when. Nothing before the first one.
#[derive(Clone, Debug, Default)]
pub struct LastTest(Arc<Mutex<Option<(bool, Timestamp)>>>);

impl LastTest {
    /// One has ended.
    pub fn ended(&self, ok: bool, at: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((ok, at));
    }

    /// Whether it came back to a gate, and when.
    pub(crate) fn last(&self) -> Option<(bool, Timestamp)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, registry: &Registry) -> prometheus::Result<()> {
        let Some((ok, at)) = self.last() else { return Ok(()) };
        gauge(registry, "self_test_ok", "1 if the last self-test came back to a gate.")?.set(f64::from(u8::from(ok)));
        gauge(registry, "self_test_timestamp_seconds", "When it ended, as Unix time.")?.set(at.as_second() as f64);
        Ok(())
    }
}
