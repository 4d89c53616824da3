//! The gate's turns, as this process has seen them: what is told, and when Flux is asked.

use super::attempt::Pass;

/// A change between two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Opened,
    Closed,
}

/// Pure; nothing of it is kept over a restart.
#[derive(Default)]
pub(super) struct Turns {
    open: bool,
    /// It was closed before, or a write of this process has opened it: this opening is news to Flux.
    news: bool,
    /// What there was to ask of Flux in this opening is asked.
    settled: bool,
}

impl Turns {
    /// Takes note of how the gate stands after an attempt.
    pub(super) fn see(&mut self, open: bool, has_written: bool) -> Option<Turn> {
        let was_open = std::mem::replace(&mut self.open, open);
        if !open {
            (self.news, self.settled) = (true, false);
        }
        match (was_open, open) {
            (false, true) => {
                self.news |= has_written;
                Some(Turn::Opened)
            }
            (true, false) => Some(Turn::Closed),
            _ => None,
        }
    }

    /// Whether Flux is to be asked, now that blocked owners were looked for: once an opening. One that was found at the
    /// start of the process is none of its affair, unless something is still blocked.
    pub(super) fn wants_reconciliation(&mut self, pass: Pass) -> bool {
        let wants = !self.settled && (self.news || matches!(pass, Pass::Touched | Pass::Unfinished));
        self.settled |= wants || pass != Pass::Failed;
        wants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_told_once_and_asked_for_once() {
        let mut turns = Turns::default();
        assert_eq!(turns.see(false, false), None);
        assert_eq!(turns.see(true, true), Some(Turn::Opened));
        assert!(turns.wants_reconciliation(Pass::NoneBlocked));
        assert_eq!(turns.see(true, false), None);
        assert!(!turns.wants_reconciliation(Pass::Touched), "it was asked in this opening");
        assert_eq!(turns.see(false, false), Some(Turn::Closed));
        assert_eq!(turns.see(true, false), Some(Turn::Opened));
        assert!(turns.wants_reconciliation(Pass::NoneBlocked));
    }

    #[test]
    fn one_that_opens_by_its_own_write_in_the_first_attempt_is_news() {
        let mut turns = Turns::default();
        assert_eq!(turns.see(true, true), Some(Turn::Opened));
        assert!(turns.wants_reconciliation(Pass::NoneBlocked));
    }

    #[test]
    fn open_at_start_asks_only_if_something_is_blocked_then() {
        let at_start = |pass| {
            let mut turns = Turns::default();
            turns.see(true, false);
            (turns.wants_reconciliation(pass), turns)
        };
        assert!(at_start(Pass::Touched).0);
        let (wants, mut turns) = at_start(Pass::NoneBlocked);
        assert!(!wants && !turns.wants_reconciliation(Pass::Touched), "what is blocked later is blocked by others");
        let (wants, mut turns) = at_start(Pass::Failed);
        assert!(!wants && turns.wants_reconciliation(Pass::Touched), "it could not be told before");
    }

    #[test]
    fn a_pass_that_fails_does_not_ask_again() {
        let mut turns = Turns::default();
        turns.see(false, false);
        turns.see(true, false);
        assert!(turns.wants_reconciliation(Pass::Failed));
        assert!(!turns.wants_reconciliation(Pass::Touched));
    }
}
