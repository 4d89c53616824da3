//! Writes that the API server refuses, and would refuse again: for a while they are not tried. Pure.

use std::time::Duration;

use crate::clock::{Boot, Clocks};
use crate::cluster::Write;
use crate::reason::{Held, Reason};

/// Pause after the first refusal; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// A right that is given, or a quota that is raised, is found out only by trying, and a pod may wait for it.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One kind of write, and its last refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Spared {
    refused: Option<Refusal>,
}

#[derive(Clone, Debug)]
struct Refusal {
    /// What was to be written over which version.
    write: String,
    held: Held,
    pause: Duration,
    until: Boot,
}

impl Spared {
    /// The refusal, while the same write need not be tried again.
    pub(super) fn refusal(&self, write: &str, now: Boot) -> Option<&Held> {
        let refused = self.refused.as_ref().filter(|refused| refused.write == write && now < refused.until)?;
        Some(&refused.held)
    }

    /// Takes note of how it ended.
    pub(super) fn ended(&mut self, write: String, end: &Result<Write, Held>, now: Boot) {
        let held = match end {
            Err(held) if held.reason == Reason::KubernetesForbidden => held.clone(),
            // An API server that does not answer has refused nothing.
            _ => return self.refused = None,
        };
        let same = self.refused.take().filter(|last| last.write == write);
        let pause = same.map_or(PAUSE_FIRST, |last| (last.pause * 2).min(PAUSE_MAX));
        self.refused = Some(Refusal { write, held, pause, until: now.plus(pause) });
    }

    /// Writes, unless that is in vain.
    pub(super) async fn write(
        &mut self,
        what: String,
        now: fn() -> Clocks,
        write: impl Future<Output = Result<Write, Held>>,
    ) -> Result<Write, Held> {
        if let Some(held) = self.refusal(&what, now().boot) {
            return Err(held.clone());
        }
        let end = write.await;
        self.ended(what, &end, now().boot);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::held;

    const START: Boot = Boot(Duration::from_secs(1000));

    fn at(seconds: u64) -> Boot {
        START.plus(Duration::from_secs(seconds))
    }

    fn refusal() -> Result<Write, Held> {
        Err(held(Reason::KubernetesForbidden))
    }

    /// Refused once, at the start.
    fn refused() -> Spared {
        let mut spared = Spared::default();
        spared.ended("a".to_owned(), &refusal(), START);
        spared
    }

    #[test]
    fn what_was_never_refused_is_tried() {
        assert_eq!(Spared::default().refusal("a", START), None);
    }

    #[test]
    fn what_was_refused_is_not_tried_for_a_while_and_answered_as_before() {
        let spared = refused();
        assert_eq!(spared.refusal("a", at(0)), Some(&held(Reason::KubernetesForbidden)));
        assert_eq!(spared.refusal("a", at(1)), None);
    }

    #[test]
    fn another_write_or_one_over_another_version_is_tried_at_once() {
        assert_eq!(refused().refusal("b", at(0)), None);
    }

    #[test]
    fn the_pause_doubles_up_to_its_cap() {
        let (mut spared, mut now, mut pauses) = (Spared::default(), START, Vec::new());
        for _ in 0..6 {
            spared.ended("a".to_owned(), &refusal(), now);
            let pause = (0..60).find(|seconds| spared.refusal("a", now.plus(Duration::from_secs(*seconds))).is_none());
            pauses.extend(pause);
            now = now.plus(PAUSE_MAX);
        }
        assert_eq!(pauses, [1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn the_pause_starts_over_with_another_write() {
        let mut spared = refused();
        spared.ended("a".to_owned(), &refusal(), at(1));
        spared.ended("b".to_owned(), &refusal(), at(4));
        assert_eq!(spared.refusal("b", at(5)), None);
    }

    #[test]
    fn no_other_end_spares_anything() {
        let ends = [Ok(Write::Done), Ok(Write::Changed), Err(held(Reason::KubernetesUnreachable))];
        for end in ends {
            let mut spared = refused();
            spared.ended("a".to_owned(), &end, at(1));
            assert_eq!(spared.refusal("a", at(1)), None, "{end:?}");
        }
    }
}
