//! The convergence: one task that brings `cacerts` to Vault's root, and keeps it there.
//!
//! It is woken by consultations and outlives them. However many ask, one attempt runs at a time.

mod attempt;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use attempt::{Attempts, Parts};

use crate::reason::Held;
use crate::snapshot::{Convergence, Policy, Snapshot, Watched};

/// First back-off; doubles up to `--retry-max`.
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// Consultations bring the next attempt forward to at most one a second.
const CONSULTED_PAUSE: Duration = Duration::from_secs(1);

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// `--retry-max`.
    pub retry_max: Duration,
    /// `--refresh`.
    pub refresh: Duration,
}

/// The gate's side of the convergence: what is known, and a way to ask for more.
#[derive(Clone)]
pub struct Converger {
    state: watch::Sender<Convergence>,
    watched: watch::Receiver<Watched>,
    wake: Arc<Notify>,
}

impl Converger {
    /// A converger whose task is [`run`](Self::run).
    pub fn new(watched: watch::Receiver<Watched>) -> Self {
        Self { state: watch::Sender::new(Convergence::default()), watched, wake: Arc::new(Notify::new()) }
    }

    /// Looks at what is known now. Must not be nested.
    pub fn look<T>(&self, look: impl FnOnce(Snapshot<'_>) -> T) -> T {
        let (watched, convergence) = (self.watched.borrow(), self.state.borrow());
        look(Snapshot { watched: &watched, convergence: &convergence })
    }

    /// Starts an attempt, if none is under way, and waits for the end of one.
    ///
    /// During back-off it only brings the next attempt forward, and does not wait. `false`: the
    /// deadline came first.
    pub async fn consult(&self, deadline: Instant) -> bool {
        let mut state = self.state.subscribe();
        let (finished, backing_off) = {
            let now = state.borrow_and_update();
            (now.finished, !now.running && now.held.is_some())
        };
        self.wake.notify_one();
        if backing_off {
            return true;
        }
        timeout_at(deadline, state.wait_for(|now| now.finished > finished)).await.is_ok_and(|ended| ended.is_ok())
    }

    /// Marks the cluster as consulted without anybody asking: by a pin, or by blocked owners.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Runs attempts for ever: when asked, after a back-off, at each `--refresh`, and when `cacerts` changes.
    pub async fn run(&self, mut attempts: Attempts, schedule: Schedule, policy: Policy) {
        let mut watched = self.watched.clone();
        let mut backoff = Backoff::new(schedule.retry_max);
        // Nothing is due before the first consultation.
        let mut due: Option<Instant> = None;
        let mut not_before = Instant::now();
        // The last pass over blocked owners since the gate opened.
        let mut unblocked: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.wake.notified() => due = Some(due.map_or(not_before, |due| due.min(not_before))),
                () = at(due) => {}
                Ok(()) = watched.changed(), if due.is_some() => {
                    if self.contradicted() {
                        due = due.map(|due| due.min(not_before));
                    }
                }
            }
            if due.is_none_or(|due| due > Instant::now()) {
                continue;
            }
            watched.mark_unchanged();
            let began = Instant::now();
            let ended = self.attempt(&mut attempts).await;
            let now = Instant::now();
            let wait = match &ended {
                Ok(()) => {
                    backoff.reset();
                    schedule.refresh
                }
                Err(wait) => wait.unwrap_or_else(|| backoff.next()),
            };
            // Vault's own wish to be left alone is not brought forward by anybody.
            let asked_to_wait = matches!(ended, Err(Some(_)));
            not_before = if asked_to_wait { now + wait } else { now.max(began + CONSULTED_PAUSE) };
            due = Some(now + wait);
            // Also where only an earlier verification opens it; then attempts are many, and passes need not be.
            let open = self.look(|known| known.is_open(&policy, Timestamp::now(), now.into_std()));
            let pass_due = unblocked.is_none_or(|pass: Instant| pass.elapsed() >= schedule.refresh);
            if !open {
                unblocked = None;
            } else if ended.is_ok() || pass_due {
                unblocked = Some(now);
                if !attempts.unblock().await {
                    unblocked = None;
                    due = due.map(|due| due.min(now + CONSULTED_PAUSE));
                }
            }
        }
    }

    /// One attempt, with its beginning and end told. `Err` has the wait that Vault asked for, if it did.
    async fn attempt(&self, attempts: &mut Attempts) -> Result<(), Option<Duration>> {
        self.state.send_modify(|state| {
            state.consulted = true;
            state.running = true;
        });
        let ended = attempts.run(&self.state).await;
        let (held, answered, wait) = match ended {
            Ok(()) => (None, true, Ok(())),
            Err(refused) => (Some(refused.held), refused.is_answer, Err(refused.retry_after)),
        };
        let before = self.state.borrow().held.clone();
        if held != before {
            tell(held.as_ref());
        }
        self.state.send_modify(|state| {
            state.running = false;
            state.finished += 1;
            // Trouble with the API server says nothing about the CA: what was verified stays so for its time.
            if held.as_ref().is_some_and(|held| !held.reason.is_kubernetes()) {
                state.verified = None;
            }
            state.held = held;
            state.answered = answered;
        });
        wait
    }

    /// Whether the watch tells of a `cacerts` other than the one that was verified.
    fn contradicted(&self) -> bool {
        self.look(|known| {
            known.convergence.verified.as_ref().is_some_and(|verified| known.watched.is_other_than(verified))
        })
    }
}

fn tell(held: Option<&Held>) {
    match held {
        Some(held) => tracing::warn!(reason = %held.reason, "held: {}", held.sentence),
        None => tracing::info!("open: cacerts holds Vault's root"),
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Exponential, with full jitter: many gates that wait for one Vault must not ask in step.
struct Backoff {
    max: Duration,
    step: Duration,
}

impl Backoff {
    fn new(max: Duration) -> Self {
        Self { max, step: RETRY_FIRST.min(max) }
    }

    fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    fn next(&mut self) -> Duration {
        let wait = self.step.mul_f64(fastrand::f64());
        self.step = (self.step * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_cap_with_full_jitter() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        let caps = [200, 400, 800, 1600, 2000, 2000].map(Duration::from_millis);
        for cap in caps {
            assert_eq!(backoff.step, cap);
            assert!(backoff.next() <= cap);
        }
        backoff.reset();
        assert_eq!(backoff.step, RETRY_FIRST);
    }
}
