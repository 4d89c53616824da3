//! Waiting for a condition instead of sleeping.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// Short enough that no test notices, long enough that 2 cores do.
pub(crate) const POLL: Duration = Duration::from_millis(25);

/// What a probe may return: `Some` or `Ok` ends the waiting, `None` or `Err` goes on.
pub trait Attempt {
    /// What was waited for.
    type Value;

    /// The value, or what was seen instead.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Attempt for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// Polls `probe` until it returns `Some` or `Ok`.
///
/// After `timeout` the error says what was awaited, for how long, and what was seen last.
pub async fn eventually<F, Fut>(what: &str, timeout: Duration, mut probe: F) -> Result<<Fut::Output as Attempt>::Value>
where
    F: FnMut() -> Fut,
    Fut: Future<Output: Attempt>,
{
    let deadline = Instant::now() + timeout;
    let mut seen = "nothing".to_owned();
    loop {
        match timeout_at(deadline, probe()).await.map(Attempt::outcome) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(instead)) => seen = instead,
            Err(_) => seen = format!("no answer to the last probe; before that: {seen}"),
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} for {what}; last seen: {seen}");
        }
        sleep(POLL).await;
    }
}
