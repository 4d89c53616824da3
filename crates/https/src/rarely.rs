//! Log lines that callers can cause at any rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line in so long says enough: it has the number of those that were left out.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets one line through, and then none for a while.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Rarely {
    /// Says it, with how often it was not said since the last time; or counts it.
    pub fn tell(&self, say: impl FnOnce(u64)) {
        if let Some(left_out) = self.at(Instant::now()) {
            say(left_out);
        }
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_once_in_a_while_and_counts_the_others() {
        let (rarely, start) = (Rarely::default(), Instant::now());
        assert_eq!(rarely.at(start), Some(0));
        assert_eq!(rarely.at(start), None);
        assert_eq!(rarely.at(start + PAUSE / 2), None);
        assert_eq!(rarely.at(start + PAUSE), Some(2));
        assert_eq!(rarely.at(start + PAUSE), None);
    }
}
