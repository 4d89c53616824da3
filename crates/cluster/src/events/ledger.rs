//! Which Events were written lately, so that no storm of denials becomes one of Events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Regarding, What};

/// The same Event is written at most so often; what comes in between is counted.
const PAUSE: Duration = Duration::from_secs(60);

/// After so long a repeated Event starts anew: the API server drops one an hour after its last change, by default.
const FORGET: Duration = Duration::from_secs(50 * 60);

/// Different Events in one minute; a cluster has a handful. Also the most that hostile reviews can bring about.
const ENTRIES_MAX: usize = 64;

/// Two that are the same for the purpose of counting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) what: What,
    pub(super) about: Regarding,
}

/// What to do about something that was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Create,
    Repeat { name: String, version: String, count: i32 },
}

#[derive(Default)]
pub(super) struct Ledger(HashMap<Key, Entry>);

struct Entry {
    note: String,
    /// How often it was told since it was created.
    count: i32,
    /// When it was last tried to write it.
    tried: Instant,
    /// Name and version of the Event, where it was written.
    event: Option<(String, String)>,
}

impl Ledger {
    /// What to do now. `None`: nothing, it was written lately, or there are too many.
    pub(super) fn next(&mut self, key: &Key, note: &str, now: Instant) -> Option<Act> {
        if let Some(entry) = self.0.get_mut(key) {
            entry.count = entry.count.saturating_add(1);
            let age = now.saturating_duration_since(entry.tried);
            if age < PAUSE {
                return None;
            }
            entry.tried = now;
            let same = entry.note == note && age < FORGET;
            if let Some((name, version)) = entry.event.clone().filter(|_| same) {
                return Some(Act::Repeat { name, version, count: entry.count });
            }
        }
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, entry| now.saturating_duration_since(entry.tried) < PAUSE);
        }
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(key) {
            return None;
        }
        self.0.insert(key.clone(), Entry { note: note.to_owned(), count: 1, tried: now, event: None });
        Some(Act::Create)
    }

    /// It was written.
    pub(super) fn written(&mut self, key: &Key, name: String, version: String) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.event = Some((name, version));
        }
    }

    /// It was not, or not known to be.
    pub(super) fn lost(&mut self, key: &Key) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.event = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::controller::Controller;
    use gate_core::reason::Reason;

    fn held(reason: Reason, owner: &str) -> Key {
        let about = Controller::new("apps/v1", "ReplicaSet", "istio-system", owner, "u");
        Key { what: What::GateHeld(reason), about: Regarding::Owner(about.unwrap()) }
    }

    #[test]
    fn the_same_one_is_written_once_a_minute_with_the_count_of_all() {
        let (mut ledger, now, key) = (Ledger::default(), Instant::now(), held(Reason::RootMissing, "istiod"));
        assert_eq!(ledger.next(&key, "n", now), Some(Act::Create));
        ledger.written(&key, "e".to_owned(), "7".to_owned());
        for second in 1..60 {
            assert_eq!(ledger.next(&key, "n", now + Duration::from_secs(second)), None);
        }
        let repeat = |count| Some(Act::Repeat { name: "e".to_owned(), version: "7".to_owned(), count });
        assert_eq!(ledger.next(&key, "n", now + PAUSE), repeat(61));
        assert_eq!(ledger.next(&key, "n", now + PAUSE + Duration::from_secs(1)), None);
    }

    #[test]
    fn another_cause_or_another_owner_is_another_event() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for key in [held(Reason::RootMissing, "a"), held(Reason::VaultSealed, "a"), held(Reason::RootMissing, "b")] {
            assert_eq!(ledger.next(&key, "n", now), Some(Act::Create));
        }
    }

    #[test]
    fn another_text_a_lost_write_or_an_expired_event_starts_anew_but_not_before_the_minute_is_over() {
        let (mut ledger, now, key) = (Ledger::default(), Instant::now(), held(Reason::RootMissing, "istiod"));
        let written = |ledger: &mut Ledger| ledger.written(&key, "e".to_owned(), "7".to_owned());
        ledger.next(&key, "n", now);
        written(&mut ledger);
        assert_eq!(ledger.next(&key, "another", now), None);
        assert_eq!(ledger.next(&key, "another", now + PAUSE), Some(Act::Create));
        ledger.lost(&key);
        assert_eq!(ledger.next(&key, "another", now + PAUSE), None);
        assert_eq!(ledger.next(&key, "another", now + 2 * PAUSE), Some(Act::Create));
        written(&mut ledger);
        assert_eq!(ledger.next(&key, "another", now + 2 * PAUSE + FORGET), Some(Act::Create));
    }

    #[test]
    fn more_than_so_many_different_ones_in_a_minute_are_dropped() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let written = |ledger: &mut Ledger, now| {
            (0..1000).filter(|n| ledger.next(&held(Reason::RootMissing, &format!("r{n}")), "n", now).is_some()).count()
        };
        assert_eq!(written(&mut ledger, now), ENTRIES_MAX);
        assert!(ledger.0.len() <= ENTRIES_MAX);
        assert_eq!(ledger.next(&held(Reason::RootMissing, "late"), "n", now + PAUSE), Some(Act::Create));
    }
}
