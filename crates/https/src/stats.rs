//! What the servers count. Whoever shows it reads it; nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many there are just now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until the guard is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self)
    }
}

pub(super) struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of one server, or of several that share it.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that are open, in a handshake or beyond it.
    pub connections_open: Gauge,
    /// Connections that were closed because a new one needed their place.
    pub connections_closed_for_room: Counter,
    /// Connections that were ended by a deadline, but those of a handshake.
    pub connections_timed_out: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Requests between their head and their answer.
    pub requests_in_flight: Gauge,
    /// Requests that were answered with 429, because too many were under way.
    pub requests_shed: Counter,
    /// Panics that were caught.
    pub panics: Counter,
}
