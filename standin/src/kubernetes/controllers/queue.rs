//! What is to be looked at and when: `k8s.io/client-go/util/workqueue`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a key waits after failures: doubled with each, up to a longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Backoff {
    pub(super) fn after(self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures).and_then(|factor| self.first.checked_mul(factor));
        doubled.map_or(self.longest, |wait| wait.min(self.longest))
    }
}

/// Keys that are due, each at most once at a time.
#[derive(Debug)]
pub(super) struct Queue<K> {
    entries: BTreeMap<K, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether it is due at once.
    now: bool,
    /// When it is due anyway: the earliest of all times that it was to wait for.
    later: Option<Instant>,
    failures: u32,
    running: bool,
}

impl Entry {
    fn is_due(&self, now: Instant) -> bool {
        !self.running && (self.now || self.later.is_some_and(|later| later <= now))
    }

    fn wait(&mut self, until: Instant) {
        self.later = Some(self.later.map_or(until, |earlier| earlier.min(until)));
    }
}

impl<K: Ord + Clone> Queue<K> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// This key is to be looked at now.
    pub(super) fn add(&mut self, key: K) {
        self.entries.entry(key).or_default().now = true;
    }

    /// This key is to be looked at then, at the latest.
    pub(super) fn add_at(&mut self, key: K, then: Instant) {
        self.entries.entry(key).or_default().wait(then);
    }

    /// The next key that is due, of those that may run now.
    pub(super) fn take(&mut self, now: Instant, may_run: impl Fn(&K) -> bool) -> Option<K> {
        let (key, entry) = self.entries.iter_mut().find(|(key, entry)| entry.is_due(now) && may_run(key))?;
        (entry.now, entry.running) = (false, true);
        entry.later = entry.later.filter(|later| *later > now);
        Some(key.clone())
    }

    /// How many keys of a sort run now.
    pub(super) fn running(&self, of: impl Fn(&K) -> bool) -> usize {
        self.entries.iter().filter(|(key, entry)| entry.running && of(key)).count()
    }

    /// A key was looked at, in vain or not.
    pub(super) fn done(&mut self, key: &K, failed: bool, backoff: Backoff, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        if failed {
            entry.wait(now + backoff.after(entry.failures));
            entry.failures = entry.failures.saturating_add(1);
        } else {
            entry.failures = 0;
            if !entry.now && entry.later.is_none() {
                self.entries.remove(key);
            }
        }
    }

    /// When the next key that waits is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| !entry.running).filter_map(|entry| entry.later).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FIVE: Backoff = Backoff { first: Duration::from_millis(5), longest: Duration::from_secs(1000) };

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u128> = (0..4).map(|failures| FIVE.after(failures).as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40]);
        assert_eq!((FIVE.after(17), FIVE.after(18)), (Duration::from_millis(655_360), Duration::from_secs(1000)));
        assert_eq!(FIVE.after(u32::MAX), Duration::from_secs(1000));
    }

    #[test]
    fn a_failed_key_is_due_again_later_and_at_once_after_a_change() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        queue.add("a");
        assert_eq!(queue.take(start, |_| true), Some("a"));
        queue.done(&"a", true, FIVE, start);
        assert_eq!((queue.take(start, |_| true), queue.next_due()), (None, Some(start + 5 * MS)));
        queue.add("a");
        assert_eq!(queue.take(start + MS, |_| true), Some("a"));
        // It fails again: the earlier retry stands.
        queue.done(&"a", true, FIVE, start + MS);
        assert_eq!(queue.next_due(), Some(start + 5 * MS));
        assert_eq!(queue.take(start + 5 * MS, |_| true), Some("a"));
        queue.done(&"a", true, FIVE, start + 5 * MS);
        assert_eq!(queue.next_due(), Some(start + 25 * MS));
    }

    #[test]
    fn of_several_waits_the_shortest_counts() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        for wait in [3, 1, 2] {
            queue.add_at("a", start + wait * MS);
        }
        assert_eq!((queue.take(start, |_| true), queue.next_due()), (None, Some(start + MS)));
        assert_eq!(queue.take(start + MS, |_| true), Some("a"));
        queue.done(&"a", false, FIVE, start + MS);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for failed in [true, true, false] {
            queue.add("a");
            assert_eq!(queue.take(now, |_| true), Some("a"));
            queue.done(&"a", failed, FIVE, now);
        }
        assert!(queue.take(now + 5 * MS, |_| true).is_some(), "the retry of the first failure");
        queue.done(&"a", true, FIVE, now);
        assert_eq!(queue.next_due(), Some(now + 5 * MS));
    }

    #[test]
    fn a_key_that_runs_is_not_taken_again_until_it_is_done() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.add("a");
        assert_eq!(queue.take(now, |_| true), Some("a"));
        queue.add("a");
        assert_eq!((queue.take(now, |_| true), queue.running(|_| true)), (None, 1));
        queue.done(&"a", false, FIVE, now);
        assert_eq!(queue.take(now, |_| true), Some("a"));
        queue.done(&"a", false, FIVE, now);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn what_may_not_run_waits() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.add("a");
        assert_eq!(queue.take(now, |_| false), None);
        assert_eq!(queue.take(now, |_| true), Some("a"));
    }
}
