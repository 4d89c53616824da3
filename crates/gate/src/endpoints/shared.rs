//! What is the same for whoever asks is made once for all who ask at a time, so that a flood of such requests leaves the
//! processor to admissions.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Shortest time from one making to the next.
const EVERY: Duration = Duration::from_millis(50);

/// Something that is made now and then, and shown to many.
pub(super) struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Shared<T> {
    /// What `make` makes, or what it made for another one since this was called: never anything older.
    pub(super) async fn get(&self, make: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((begun, made)) = &*last {
            if *begun >= asked {
                return made.clone();
            }
            sleep_until(*begun + EVERY).await;
        }
        let begun = Instant::now();
        let made = make();
        *last = Some((begun, made.clone()));
        made
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_at_once_get_one_making_and_none_gets_what_was_made_before_it_asked() {
        let (shared, made) = (Shared::default(), AtomicUsize::new(0));
        let make = || made.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(shared.get(make).await, 1);
        let began = Instant::now();
        let got = join_all((0..100).map(|_| shared.get(make))).await;
        assert_eq!(got, [2; 100]);
        assert!(began.elapsed() >= EVERY / 2, "at once");
        assert_eq!(shared.get(make).await, 3);
    }

    #[tokio::test]
    async fn who_goes_away_while_it_waits_leaves_it_to_the_next() {
        let shared = Shared::default();
        assert_eq!(shared.get(|| 1).await, 1);
        assert!(futures::FutureExt::now_or_never(shared.get(|| 2)).is_none());
        assert_eq!(shared.get(|| 3).await, 3);
    }
}
