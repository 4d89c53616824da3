//! How long to wait before something is tried again.

use std::time::Duration;

/// Longest pause before what a waiting pod depends on is tried again: its cause may be gone at any moment.
pub const SOON: Duration = Duration::from_secs(2);

/// Pauses that double up to a cap, with jitter: many that wait for one server must not ask in step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` to `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The next pause: between half of what is due and all of it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.cap);
        self.next = (pause * 2).min(self.cap);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: the next pause is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_with_jitter_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(300), SOON);
        for due in [300, 600, 1200, 2000, 2000].map(Duration::from_millis) {
            let pause = backoff.pause();
            assert!((due / 2..=due).contains(&pause), "{pause:?} of {due:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(300));
    }
}
