//! Log lines that callers can cause at any rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One line in so long says enough: it has the number of those that were left out.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets so many lines through, and then none for a while.
#[derive(Debug)]
pub struct Rarely {
    most: u32,
    every: Duration,
    state: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

/// One line every 10 s.
impl Default for Rarely {
    fn default() -> Self {
        Self::at_most(1, PAUSE)
    }
}

impl Rarely {
    /// At most so many lines in so long.
    pub fn at_most(most: u32, every: Duration) -> Self {
        Self { most, every, state: Mutex::default() }
    }

    /// Says it, with how often it was not said since the last time; or counts it.
    pub fn tell(&self, say: impl FnOnce(u64)) {
        if let Some(left_out) = self.at(Instant::now()) {
            say(left_out);
        }
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= self.every) {
            (state.since, state.told) = (Some(now), 0);
        }
        if state.told == self.most {
            state.left_out += 1;
            return None;
        }
        state.told += 1;
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

    #[test]
    fn several_lines_may_come_at_once_and_no_more_in_that_time() {
        let (rarely, start) = (Rarely::at_most(3, PAUSE), Instant::now());
        let told: Vec<_> = (0..5).filter_map(|_| rarely.at(start)).collect();
        assert_eq!(told, [0, 0, 0]);
        assert_eq!((rarely.at(start + PAUSE), rarely.at(start + PAUSE)), (Some(2), Some(0)));
    }
}
