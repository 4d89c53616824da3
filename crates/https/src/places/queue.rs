//! Connections that can be closed, in the order in which they began to wait.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) struct Entry {
    pub(super) caller: IpAddr,
    pub(super) since: Instant,
    /// What closes it.
    pub(super) close: Arc<Notify>,
}

#[derive(Default)]
pub(super) struct Queue {
    entries: BTreeMap<u64, Entry>,
    /// How many each caller has in it; none that has no entry.
    callers: HashMap<IpAddr, usize>,
}

impl Queue {
    /// The numbers have to grow.
    pub(super) fn push(&mut self, number: u64, entry: Entry) {
        *self.callers.entry(entry.caller).or_default() += 1;
        self.entries.insert(number, entry);
    }

    /// `false`: it was taken out before.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        self.take(number).is_some()
    }

    /// Takes out the one that has waited the longest, of the caller that has the most in here. It has to wait since
    /// `begun_before`.
    pub(super) fn pop(&mut self, begun_before: Instant) -> Option<Entry> {
        self.pop_by(begun_before, 0, |caller, queue| queue.callers.get(caller).copied().unwrap_or_default())
    }

    /// The same, of the caller that has the most of what is counted, and at least so much of it.
    pub(super) fn pop_by(
        &mut self,
        begun_before: Instant,
        at_least: usize,
        count: impl Fn(&IpAddr, &Self) -> usize,
    ) -> Option<Entry> {
        let most = self.callers.keys().map(|caller| count(caller, self)).max().filter(|most| *most >= at_least)?;
        let (number, _) = self
            .entries
            .iter()
            .take_while(|(_, entry)| entry.since <= begun_before)
            .find(|(_, entry)| count(&entry.caller, self) == most)?;
        let number = *number;
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if let Some(count) = self.callers.get_mut(&entry.caller) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&entry.caller);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(callers: &[u8]) -> Queue {
        let mut queue = Queue::default();
        for (number, caller) in callers.iter().enumerate() {
            let caller = IpAddr::from([10, 0, 0, *caller]);
            queue.push(number as u64, Entry { caller, since: Instant::now(), close: Arc::default() });
        }
        queue
    }

    fn pop(queue: &mut Queue) -> Option<u8> {
        match queue.pop(Instant::now())?.caller {
            IpAddr::V4(caller) => Some(caller.octets()[3]),
            IpAddr::V6(_) => None,
        }
    }

    #[test]
    fn the_caller_that_has_the_most_loses_its_oldest() {
        let mut queue = queue(&[1, 2, 3, 2, 2, 3]);
        let popped: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        // Of as many, the one that has waited the longest.
        assert_eq!(popped, [2, 3, 2, 1, 2, 3]);
        assert!(queue.callers.is_empty());
    }

    #[test]
    fn what_was_removed_is_neither_taken_nor_counted() {
        let mut queue = queue(&[1, 1, 1, 2, 2]);
        assert!(queue.remove(1) && queue.remove(2) && !queue.remove(2));
        assert_eq!(pop(&mut queue), Some(2));
    }

    #[test]
    fn who_began_too_late_is_not_taken() {
        let before = Instant::now();
        assert!(queue(&[1]).pop(before).is_none_or(|entry| entry.since <= before));
    }
}
