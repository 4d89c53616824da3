//! The loop that makes attempts: when it begins one, what it tells, and what it does once the gate is open.

use super::super::memory::{Call, Fault, ours};
use super::*;
use crate::samples::{POLICY, R1, R2, stored};
use tokio::task::JoinHandle;

/// A replica that runs, and is stopped when this is dropped.
struct Running {
    world: Arc<World>,
    converger: Converger,
    task: JoinHandle<()>,
}

impl Running {
    fn begin(world: &Arc<World>, role: Role) -> Self {
        let Process { converger, attempts } = Process::begin(world, Who::first(role));
        let running = converger.clone();
        let task = tokio::spawn(async move { running.run(attempts, SCHEDULE, POLICY).await });
        Self { world: Arc::clone(world), converger, task }
    }

    async fn consult(&self) -> bool {
        self.converger.consult(Instant::now() + SOON).await
    }

    fn held(&self) -> Option<Reason> {
        self.converger.look(|known| known.convergence.held.as_ref().map(|held| held.reason))
    }

    fn is_open(&self) -> bool {
        self.converger.look(|known| known.is_open(&POLICY, told_at()))
    }

    fn attempts(&self) -> u64 {
        self.converger.look(|known| known.convergence.finished)
    }

    /// Waits for this, by the paused clock, and returns how long that took.
    async fn until(&self, what: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !what(self) {
            assert!(began.elapsed() < Duration::from_secs(600), "it does not come about: {:?}", self.held());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn with_root() -> Arc<World> {
    let world = World::new(1);
    world.change(|state| state.stored = stored(&R1));
    world
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_or_written_before_anybody_asks() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Bootstrap);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((world.calls().len(), running.attempts()), (0, 0));
    assert!(running.converger.look(|known| !known.convergence.consulted));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_waits_for_the_end_of_the_attempt_and_finds_it_open() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Bootstrap);
    assert!(running.consult().await);
    assert!(running.is_open());
    assert_one_root(&world);
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_one_attempt_runs() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Bootstrap);
    let all = futures::future::join_all((0..500).map(|_| running.consult())).await;
    assert!(all.into_iter().all(|ended| ended));
    assert_eq!((running.attempts(), world.count(Call::Create)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_time_is_not_kept_and_the_attempt_goes_on() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Bootstrap);
    assert!(!running.converger.consult(Instant::now() + Duration::from_millis(1)).await);
    running.until(Running::is_open).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_backs_off_nobody_waits() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    let began = Instant::now();
    assert!(running.consult().await);
    assert_eq!((began.elapsed(), running.held()), (Duration::ZERO, Some(Reason::RootMissing)));
}

#[tokio::test(start_paused = true)]
async fn a_root_that_comes_is_taken_up_within_the_longest_back_off() {
    let world = World::new(1);
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    tokio::time::sleep(Duration::from_secs(600)).await;
    world.change(|state| state.stored = stored(&R1));
    assert!(running.until(Running::is_open).await <= SCHEDULE.retry_max + Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_is_compared_again_at_each_refresh_and_not_more_often() {
    let running = Running::begin(&with_root(), Role::Sync);
    assert!(running.consult().await);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((10..=11).contains(&running.attempts()), "{}", running.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_cacerts_that_is_deleted_is_published_again_at_once() {
    let world = with_root();
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.change(|state| state.put_cacerts(0, Published::Absent));
    assert!(!running.is_open());
    let took = running.until(|running| running.is_open() && running.world.count(Call::Publish) == 2).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_in_vault_closes_it_at_the_next_refresh_and_is_told_once() {
    let world = with_root();
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    world.change(|state| state.stored = stored(&R2));
    let took = running.until(|running| !running.is_open()).await;
    assert!(took <= SCHEDULE.refresh + Duration::from_secs(1), "{took:?}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let told = |reason| move |told: &Happened| matches!(told, Happened::Held(held) if held.reason == reason);
    assert_eq!(world.told().iter().filter(|happened| told(Reason::RootChanged)(happened)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_and_told_as_such() {
    let world = with_root();
    assert_eq!(attempt(&world, Who::first(Role::Sync)).await, None);
    world.vault_is_down(Some(Reason::VaultUnreachable));
    let running = Running::begin(&world, Role::Sync);
    running.converger.wake();
    running.until(|running| running.world.told().contains(&Happened::Opened { bridged: true })).await;
    assert!(running.is_open());
    assert_eq!(running.held(), Some(Reason::VaultUnreachable));
}

#[tokio::test(start_paused = true)]
async fn what_was_blocked_is_touched_and_flux_is_asked_once_when_it_opens() {
    let world = with_root();
    world.some_owner_is_blocked();
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    running.until(|running| running.world.flux_asked() == 1).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.flux_asked(), 1);
    assert!(world.count(Call::Touch) >= 10, "one pass each refresh: {}", world.count(Call::Touch));
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_is_made_again_soon() {
    let world = with_root();
    world.fault(Call::Touch, Fault::Lost);
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    let took = running.until(|running| running.world.count(Call::Touch) == 2).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn somebody_who_writes_all_the_time_is_named_and_not_waited_for_ever() {
    let world = World::new(1);
    world.change(|state| {
        state.stored = stored(&R1);
        state.put_cacerts(0, ours(&R1));
    });
    for _ in 0..20 {
        world.fault(Call::IsStill, Fault::Behind);
    }
    let mut process = Process::begin(&world, Who::first(Role::Sync));
    // Each of its looks is at what was there before the last change.
    world.change(|state| state.put_cacerts(0, ours(&R1)));
    assert_eq!(process.attempt().await, Some(Reason::Converging));
    assert_eq!(world.count(Call::IsStill), 12);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_keeps_the_gate_shut_until_somebody_reads() {
    let world = with_root();
    world.watches_are_silent();
    let running = Running::begin(&world, Role::Sync);
    assert!(running.consult().await);
    assert_eq!(running.held(), None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!running.is_open(), "what was read is older than a second, and no watch tells of changes");
}

#[tokio::test(start_paused = true)]
async fn one_convergence_and_out_says_why_if_its_time_runs_out() {
    let Process { converger, attempts } = Process::begin(&World::new(1), Who::first(Role::Sync));
    let began = Instant::now();
    let held = converger.until_open(attempts, SCHEDULE, Instant::now() + SOON).await.unwrap_err();
    assert_eq!(held.reason, Reason::RootMissing);
    assert!(began.elapsed() <= SOON && began.elapsed() > SOON - SCHEDULE.retry_max);
}

#[tokio::test(start_paused = true)]
async fn one_convergence_and_out_touches_and_asks_before_it_ends() {
    let world = with_root();
    world.some_owner_is_blocked();
    let Process { converger, attempts } = Process::begin(&world, Who::first(Role::Sync));
    assert!(converger.until_open(attempts, SCHEDULE, Instant::now() + SOON).await.is_ok());
    assert_eq!((world.count(Call::Touch), world.flux_asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_is_back_is_noticed_within_a_second() {
    let mut waits = Vec::new();
    for turn in 0..101 {
        let world = with_root();
        world.vault_is_down(Some(if turn % 2 == 0 { Reason::VaultUnreachable } else { Reason::VaultSealed }));
        let running = Running::begin(&world, Role::Sync);
        assert!(running.consult().await);
        tokio::time::sleep(Duration::from_millis(20_000 + 37 * turn)).await;
        world.vault_is_down(None);
        waits.push(running.until(Running::is_open).await);
    }
    waits.sort();
    // Without looking, the back-off alone would find it after 0.6 s at the median, and 2 s at most.
    assert!(waits[50] < Duration::from_millis(450) && waits[100] < Duration::from_secs(1), "{waits:?}");
}
