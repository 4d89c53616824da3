//! A store that could not be asked is asked how it is, more often than an attempt is made: that costs it next to nothing, and
//! a blocked pod waits for it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::store::Store;

/// From one question to the next at first, give or take a half: many that wait for one store must not ask in step.
const EVERY: Duration = Duration::from_millis(250);

/// The same of a store that is away for long.
const EVERY_MAX: Duration = Duration::from_secs(1);

/// Who hears that it is back comes within this, and not with all others at once.
pub(super) const SPREAD: Duration = Duration::from_millis(300);

/// Questions to a store while it is away.
#[derive(Default)]
pub(super) struct Probe {
    /// When it was first heard to be away. Only what has been away can come back: a store that says that it is there, and
    /// answers nothing else, is left to the back-off.
    away_since: Option<Instant>,
    next: Option<Instant>,
}

impl Probe {
    /// Ends when the store is back. It may be dropped at any point.
    pub(super) async fn back(&mut self, store: &impl Store) {
        loop {
            let due = *self.next.get_or_insert_with(|| Instant::now() + jittered(EVERY));
            sleep_until(due).await;
            let away_for = self.away_since.map_or(Duration::ZERO, |since| since.elapsed());
            self.next = Some(Instant::now() + jittered((away_for / 64).clamp(EVERY, EVERY_MAX)));
            if !store.is_there().await {
                self.away_since.get_or_insert_with(Instant::now);
            } else if self.away_since.take().is_some() {
                return;
            }
        }
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use gate_core::ca::Sha256;
    use gate_core::plan::Stored;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Map, Value};
    use tokio::time::timeout;

    use super::*;
    use crate::refused::Refused;
    use crate::store::{Created, Found};

    /// Says what it is told to, one answer after the other, and the last one for ever. Nothing else is asked of it.
    struct Says(Mutex<Vec<bool>>);

    impl Says {
        fn of(answers: impl IntoIterator<Item = bool>) -> Self {
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.reverse();
            Self(Mutex::new(answers))
        }
    }

    impl Store for Says {
        type Place = ();

        async fn is_there(&self) -> bool {
            let mut answers = self.0.lock().unwrap();
            if answers.len() > 1 { answers.pop().unwrap() } else { answers[0] }
        }

        fn begin(&mut self) {}

        async fn read(&mut self, _: Option<Sha256>, _: Timestamp) -> Result<Found<()>, Refused> {
            unreachable!("{:?}", Stored::Absent)
        }

        async fn is_one(&self, _: &Found<()>) -> Result<(), Refused> {
            unreachable!()
        }

        async fn create(&mut self, _: &Found<()>, _: Map<String, Value>) -> Created {
            unreachable!()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_away_is_back_as_soon_as_it_says_so() {
        let (mut probe, began) = (Probe::default(), Instant::now());
        probe.back(&Says::of([false, false, true])).await;
        assert!((EVERY..EVERY * 5).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_only_says_that_it_is_there_is_left_alone() {
        let mut probe = Probe::default();
        assert!(timeout(Duration::from_secs(3600), probe.back(&Says::of([true]))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_is_kept_while_others_end_the_wait() {
        let mut probe = Probe::default();
        assert!(timeout(EVERY * 2, probe.back(&Says::of([false]))).await.is_err());
        let began = Instant::now();
        probe.back(&Says::of([true])).await;
        assert!(began.elapsed() < EVERY * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_for_long_is_asked_about_once_a_second() {
        let (says, mut probe) = (Says::of((0..10_000).map(|_| false)), Probe::default());
        assert!(timeout(Duration::from_secs(3600), probe.back(&says)).await.is_err());
        let asked = 10_000 - says.0.lock().unwrap().len();
        assert!((3400..4200).contains(&asked), "{asked}");
    }
}
