//! Which owners were touched in vain.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Pause before an owner that still lacks pods is touched again; it doubles up to the cap.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Owners that are remembered; a cluster has a handful.
const KEPT_MAX: usize = 1024;

/// Owners by uid: when each was last touched, and how long it is left since.
#[derive(Default)]
pub(super) struct Touched(HashMap<String, (Instant, Duration)>);

impl Touched {
    pub(super) fn is_due(&self, uid: &str, now: Instant) -> bool {
        self.0.get(uid).is_none_or(|(at, pause)| now.saturating_duration_since(*at) >= *pause)
    }

    pub(super) fn note(&mut self, uid: &str, now: Instant) {
        // What was not touched for so long needed none, or is gone.
        self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < PAUSE_MAX * 2);
        if self.0.len() >= KEPT_MAX {
            self.0.clear();
        }
        let pause = self.0.get(uid).map_or(PAUSE, |(_, pause)| (*pause * 2).min(PAUSE_MAX));
        self.0.insert(uid.to_owned(), (now, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_a_touch_does_not_help_is_touched_ever_more_rarely() {
        let (mut touched, start) = (Touched::default(), Instant::now());
        assert!(touched.is_due("a", start));
        touched.note("a", start);
        assert!(!touched.is_due("a", start + PAUSE / 2) && touched.is_due("b", start));
        let again = start + PAUSE;
        assert!(touched.is_due("a", again));
        touched.note("a", again);
        assert!(!touched.is_due("a", again + PAUSE) && touched.is_due("a", again + PAUSE * 2));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut touched, now) = (Touched::default(), Instant::now());
        for n in 0..3 * KEPT_MAX {
            touched.note(&n.to_string(), now);
        }
        assert!(touched.0.len() <= KEPT_MAX);
    }
}
