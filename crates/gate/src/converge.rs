//! The convergence: one task that brings `cacerts` to Vault's root, and keeps it there.
//!
//! It is woken by consultations and outlives them. However many ask, one attempt runs at a time.

pub mod args;
mod attempt;
mod counted;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model;
mod probe;
#[cfg(test)]
mod scenes;
mod spared;
mod turns;

/// The time of tests, by tokio's clock.
#[cfg(test)]
pub(crate) fn time_of_tests() -> k8s_openapi::jiff::Timestamp {
    memory::told_at().wall
}

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use attempt::{Attempts, MakeRoot, Parts, make_root};
use attempt::{Ended, Pass};
pub use counted::Convergences;

use crate::attests::Attests;
use crate::backoff::SOON;
use crate::clock::Clocks;
use crate::cluster::{Bystanders, Cluster, Happened};
use crate::plan::ReadPin;
use crate::reason::{Held, Reason};
use crate::signer::Signer;
use crate::snapshot::{Convergence, Policy, Snapshot, Standing, Verified, Watched};
use crate::store::Store;
use probe::{Probe, SPREAD};
use turns::{Turn, Turns};

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
    now: fn() -> Clocks,
    state: watch::Sender<Convergence>,
    watched: watch::Receiver<Watched>,
    wake: Arc<Notify>,
}

impl Converger {
    /// A converger whose task is [`run`](Self::run), by this clock.
    pub fn new(watched: watch::Receiver<Watched>, now: fn() -> Clocks) -> Self {
        Self { now, state: watch::Sender::new(Convergence::default()), watched, wake: Arc::new(Notify::new()) }
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
    pub async fn run<S: Store + Signer + Attests, C: Cluster + Bystanders>(
        &self,
        mut attempts: Attempts<S, C>,
        schedule: Schedule,
        policy: Policy,
    ) {
        let mut watched = self.watched.clone();
        let mut pace = Pace::new(schedule);
        let (mut passes, mut turns) = (Passes::default(), Turns::default());
        let mut probe = Probe::default();
        loop {
            self.until_due(&mut pace, &mut watched, &mut probe, &attempts).await;
            if pace.due.is_none_or(|due| due > Instant::now()) {
                continue;
            }
            watched.mark_unchanged();
            let began = Instant::now();
            let Attempted { wait, has_written } = self.attempt(&mut attempts).await;
            pace.ended(began, wait);
            let seen = self.sees(&policy);
            // Who cannot look does not see a turn.
            if let Some(open) = seen.filter(|open| *open || !self.is_blind()) {
                self.tell_turn(turns.see(open, has_written), attempts.cluster());
            }
            let open = seen == Some(true);
            if passes.is_due(open, schedule.refresh) {
                let pass = attempts.unblock().await;
                if turns.wants_reconciliation(pass) {
                    attempts.cluster().ask_flux((self.now)().wall);
                }
                if matches!(pass, Pass::Failed | Pass::Unfinished) {
                    passes = Passes::default();
                    pace.within(SOON);
                }
            }
        }
    }

    /// Whether it is open, also where only an earlier verification opens it. `None`: that cannot be told.
    fn sees(&self, policy: &Policy) -> Option<bool> {
        self.look(|known| match known.standing(policy, (self.now)()) {
            Standing::Open(_) | Standing::OpenUnverified(..) => Some(true),
            Standing::Blind => None,
            Standing::Closed => Some(false),
        })
    }

    /// Waits until an attempt is due, or may be.
    async fn until_due<S: Store + Signer + Attests, C: Cluster + Bystanders>(
        &self,
        pace: &mut Pace,
        watched: &mut watch::Receiver<Watched>,
        probe: &mut Probe,
        attempts: &Attempts<S, C>,
    ) {
        let is_probed = !pace.is_wished && self.is_store_away();
        if !is_probed {
            *probe = Probe::default();
        }
        tokio::select! {
            () = self.wake.notified() => pace.bring_forward(),
            () = at(pace.due) => {}
            Ok(()) = watched.changed(), if pace.due.is_some() => {
                if self.is_changed() {
                    pace.bring_forward();
                }
            }
            () = probe.back(attempts.store()), if is_probed => pace.within(SPREAD.mul_f64(fastrand::f64())),
        }
    }

    /// Whether the last attempt learnt nothing but that Vault cannot be asked.
    fn is_store_away(&self) -> bool {
        let reason = self.look(|known| known.convergence.held.as_ref().map(|held| held.reason));
        matches!(reason, Some(Reason::VaultUnreachable | Reason::VaultSealed))
    }

    /// Whether the last attempt learnt nothing but that the API server does not answer.
    fn is_blind(&self) -> bool {
        let reason = self.look(|known| known.convergence.held.as_ref().map(|held| held.reason));
        reason == Some(Reason::KubernetesUnreachable)
    }

    fn tell_turn(&self, turn: Option<Turn>, cluster: &impl Bystanders) {
        match turn {
            Some(Turn::Opened) => {
                let bridged = self.look(|known| known.convergence.verified.is_none());
                cluster.tell(Happened::Opened { bridged });
            }
            Some(Turn::Closed) => {
                if let Some(held) = self.look(|known| known.convergence.held.clone()) {
                    cluster.tell(Happened::Held(held));
                }
            }
            None => {}
        }
    }

    /// Makes attempts, with the same back-off, until one ends open, and touches what was blocked.
    ///
    /// # Errors
    /// The last reason, if the next attempt would begin after the deadline.
    pub async fn until_open<S: Store + Signer + Attests, C: Cluster + Bystanders>(
        &self,
        mut attempts: Attempts<S, C>,
        schedule: Schedule,
        deadline: Instant,
    ) -> Result<Verified, Held> {
        let (mut pace, mut turns) = (Pace::new(schedule), Turns::default());
        loop {
            let began = Instant::now();
            let Attempted { wait, has_written } = self.attempt(&mut attempts).await;
            let verified = self.look(|known| known.convergence.verified.clone());
            turns.see(verified.is_some(), has_written);
            if let Some(verified) = verified {
                // What fails is logged, and they try again by themselves.
                if turns.wants_reconciliation(attempts.unblock().await) {
                    attempts.cluster().asked_flux((self.now)().wall).await;
                }
                return Ok(verified);
            }
            pace.ended(began, wait);
            if let Some(due) = pace.due.filter(|due| *due <= deadline) {
                sleep_until(due).await;
            } else if let Some(held) = self.look(|known| known.convergence.held.clone()) {
                return Err(held);
            }
        }
    }

    /// One attempt, with its beginning and end told.
    async fn attempt<S: Store + Signer + Attests, C: Cluster + Bystanders>(
        &self,
        attempts: &mut Attempts<S, C>,
    ) -> Attempted {
        self.state.send_modify(Convergence::began);
        let began = Instant::now();
        let Ended { outcome, step, has_written } = attempts.run(&self.state).await;
        let (held, wait) = match outcome {
            Ok(()) => (None, Ok(())),
            Err(refused) => (Some(refused.held), Err(refused.retry_after)),
        };
        attempts.counted().ended(step, held.as_ref().map(|held| held.reason), began.elapsed());
        let mut is_news = false;
        self.state.send_modify(|state| is_news = state.ended(held, (self.now)().wall));
        if is_news {
            tell(self.state.borrow().held.as_ref());
        }
        Attempted { wait, has_written }
    }

    /// Reads the pin, for who lets in by what was verified before: other replicas may have heard more of Vault.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub async fn read_pin(&self, read: impl Future<Output = Result<ReadPin, Held>>) -> Result<(), Held> {
        let (learnt, began) = (self.state.borrow().pin_learnt, (self.now)());
        let read = read.await?;
        // Where it is not taken, more is known by now.
        self.state.send_modify(|state| {
            state.pin_was_read(learnt, read.pin.as_ref(), began);
        });
        Ok(())
    }

    /// Whether the watch tells of a `cacerts` other than the one that was verified.
    fn is_changed(&self) -> bool {
        self.look(|known| {
            known.convergence.verified.as_ref().is_some_and(|verified| known.watched.is_other_than(verified))
        })
    }
}

/// What an attempt leaves to whoever made it.
struct Attempted {
    /// `Err`: it did not end open; with the wait that Vault asked for, if it did.
    wait: Result<(), Option<Duration>>,
    /// It wrote something of the CA.
    has_written: bool,
}

fn tell(held: Option<&Held>) {
    match held {
        Some(held) => tracing::warn!(reason = %held.reason, "held: {}", held.sentence()),
        None => tracing::info!("open: cacerts holds Vault's root"),
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// When the next attempt is due.
struct Pace {
    schedule: Schedule,
    /// Nothing is due before the first consultation.
    due: Option<Instant>,
    /// Nobody brings the next attempt forward to before this.
    not_before: Instant,
    /// The wait is Vault's own wish.
    is_wished: bool,
    /// Cap of the next back-off.
    step: Duration,
}

impl Pace {
    fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            due: None,
            not_before: Instant::now(),
            is_wished: false,
            step: RETRY_FIRST.min(schedule.retry_max),
        }
    }

    fn bring_forward(&mut self) {
        self.due = Some(self.due.map_or(self.not_before, |due| due.min(self.not_before)));
    }

    fn within(&mut self, wait: Duration) {
        let latest = Instant::now() + wait;
        self.due = Some(self.due.map_or(latest, |due| due.min(latest)));
    }

    fn ended(&mut self, began: Instant, ended: Result<(), Option<Duration>>) {
        let now = Instant::now();
        self.not_before = began + CONSULTED_PAUSE;
        self.is_wished = matches!(ended, Err(Some(_)));
        let wait = match ended {
            Ok(()) => {
                self.step = RETRY_FIRST.min(self.schedule.retry_max);
                self.schedule.refresh
            }
            // Vault's own wish to be left alone is not brought forward by anybody.
            Err(Some(wish)) => {
                let wish = wish.max(CONSULTED_PAUSE);
                self.not_before = now + wish;
                wish
            }
            Err(None) => self.back_off(),
        };
        self.due = Some(now + wait);
    }

    /// Exponential, with full jitter: many gates that wait for one Vault must not ask in step.
    fn back_off(&mut self) -> Duration {
        let wait = self.step.mul_f64(fastrand::f64());
        self.step = (self.step * 2).min(self.schedule.retry_max);
        wait
    }
}

/// Passes over blocked owners: one when the gate opens, then one each `--refresh`.
#[derive(Default)]
struct Passes {
    last: Option<Instant>,
}

impl Passes {
    fn is_due(&mut self, open: bool, every: Duration) -> bool {
        let due = open && self.last.is_none_or(|last| last.elapsed() >= every);
        if due || !open {
            self.last = open.then(Instant::now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Schedule { retry_max: Duration::from_secs(2), refresh: Duration::from_secs(60) })
    }

    #[test]
    fn back_off_grows_to_its_cap_with_full_jitter_and_starts_over_after_success() {
        let mut pace = pace();
        for cap in [200, 400, 800, 1600, 2000, 2000].map(Duration::from_millis) {
            assert_eq!(pace.step, cap);
            assert!(pace.back_off() <= cap);
        }
        pace.ended(Instant::now(), Ok(()));
        assert_eq!(pace.step, RETRY_FIRST);
    }

    #[test]
    fn nothing_is_due_before_anybody_asks() {
        let mut pace = pace();
        assert_eq!(pace.due, None);
        pace.bring_forward();
        assert!(pace.due.is_some_and(|due| due <= Instant::now()));
    }

    #[test]
    fn consultations_bring_an_attempt_forward_to_one_a_second_but_not_against_vaults_wish() {
        let (mut pace, began) = (pace(), Instant::now());
        pace.ended(began, Ok(()));
        pace.bring_forward();
        assert_eq!(pace.due, Some(began + CONSULTED_PAUSE));
        pace.ended(began, Err(Some(Duration::from_secs(30))));
        pace.bring_forward();
        assert!(pace.due.is_some_and(|due| due >= began + Duration::from_secs(30)));
    }

    #[test]
    fn blocked_owners_are_passed_over_when_it_opens_and_then_now_and_then() {
        let (hour, mut passes) = (Duration::from_secs(3600), Passes::default());
        assert!(!passes.is_due(false, hour));
        assert!(passes.is_due(true, hour));
        assert!(!passes.is_due(true, hour));
        assert!(!passes.is_due(false, hour));
        assert!(passes.is_due(true, hour), "it closed in between");
        assert!(passes.is_due(true, Duration::ZERO));
    }
}
