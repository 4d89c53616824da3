//! The places of connections, and who loses one: a new connection gets in at any time, and a whole request before a
//! body that does not come.

mod queue;

use std::collections::HashMap;
use std::collections::hash_map;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use self::queue::{Entry, Queue};
use super::limits::Limits;

/// All places of a server.
pub(super) struct Places {
    slots: Arc<Semaphore>,
    queues: Mutex<Queues>,
    /// How long an answer may stay unread while others need the place.
    answer_grace: Duration,
    /// Somebody began to wait, and could be closed.
    joined: Notify,
}

#[derive(Default)]
struct Queues {
    next: u64,
    /// Connections without a whole head of a request.
    waiting: Queue,
    /// Requests that have room, and whose body is not whole.
    receiving: Queue,
    /// Answers that are not taken.
    answering: Queue,
    /// How many places each caller has, whatever it does with them; none that has no place.
    held: HashMap<IpAddr, usize>,
}

impl Queues {
    fn held(&self, caller: IpAddr) -> usize {
        self.held.get(&caller).copied().unwrap_or_default()
    }
}

impl Places {
    pub(super) fn new(connections: usize, answer_grace: Duration) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { slots, queues: Mutex::default(), answer_grace, joined: Notify::new() })
    }

    /// A place for a new connection, and whether another one was closed for it.
    pub(super) async fn take(self: &Arc<Self>, caller: IpAddr) -> (Place, bool) {
        loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return (Place::new(self, caller, Some(slot)), false);
            }
            let joined = self.joined.notified();
            let closed = self.close_for(Some(caller));
            tokio::select! {
                // It fails never, since they are never closed.
                slot = Arc::clone(&self.slots).acquire_owned() => return (Place::new(self, caller, slot.ok()), closed),
                // Until then, all had a request under way.
                () = joined, if !closed => {}
                () = sleep(self.answer_grace), if !closed => {}
            }
        }
    }

    /// Closes a connection whose answer nobody reads, else one that has no request under way, if there is one.
    pub(super) fn close_waiting(&self) -> bool {
        self.close_for(None)
    }

    /// The same for a new connection of this caller: of those without a request, one of the caller that has the most
    /// places, and never of one that has fewer than the caller itself. However fast one caller connects, and whatever it
    /// does with its places, it pushes out its own connections and not the API server's.
    fn close_for(&self, caller: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let queues = &mut *self.lock();
        let unread = now.checked_sub(self.answer_grace).and_then(|begun_before| queues.answering.pop(begun_before));
        let own = caller.map_or(0, |caller| queues.held(caller));
        let held = &queues.held;
        close(
            unread
                .or_else(|| queues.waiting.pop_by(now, own, |caller, _| held.get(caller).copied().unwrap_or_default())),
        )
    }

    /// Closes a connection whose body began before then and is not whole, if there is one.
    pub(super) fn close_receiving(&self, begun_before: Instant) -> bool {
        close(self.lock().receiving.pop(begun_before))
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(entry: Option<Entry>) -> bool {
    entry.is_some_and(|entry| {
        entry.close.notify_one();
        true
    })
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing of a request is there: in the handshake, or between requests.
    Idle { number: u64, since: Instant },
    /// The head is not whole.
    Head { number: u64, since: Instant },
    /// A request is under way. Its handler has deadlines of its own. `receiving`: its body is not whole.
    Busy { receiving: Option<u64> },
    /// The answer is being written. `handed_over`: all of it is in the hands of hyper.
    Answering { number: u64, since: Instant, handed_over: bool },
}

/// One connection's place. Its phase changes only while the connection's own task polls it.
pub(super) struct Place {
    places: Arc<Places>,
    caller: IpAddr,
    close: Arc<Notify>,
    phase: Mutex<Phase>,
    /// An answer was taken.
    written: Notify,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn new(places: &Arc<Places>, caller: IpAddr, slot: Option<OwnedSemaphorePermit>) -> Self {
        let phase = Mutex::new(Phase::Busy { receiving: None });
        let (close, written) = (Arc::new(Notify::new()), Notify::new());
        *places.lock().held.entry(caller).or_default() += 1;
        let place = Self { places: Arc::clone(places), caller, close, phase, written, _slot: slot };
        *place.lock() = place.idle();
        place
    }

    /// Ends when the place is needed for another connection.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// The handshake is done: the time to the first request begins.
    pub(super) fn opened(&self) {
        if let Phase::Idle { since, .. } = &mut *self.lock() {
            *since = Instant::now();
        }
    }

    /// Something was read.
    pub(super) fn read(&self) {
        let mut phase = self.lock();
        if let Phase::Idle { number, .. } = *phase {
            *phase = Phase::Head { number, since: Instant::now() };
        }
    }

    /// Ends when the answer before is taken: who sends requests ahead gets one answer at a time.
    pub(super) async fn written(&self) {
        while matches!(*self.lock(), Phase::Answering { .. }) {
            self.written.notified().await;
        }
    }

    /// A head is whole: from now on the place is safe. `false`: it was taken just before.
    pub(super) fn begin(&self) -> bool {
        let mut phase = self.lock();
        let kept = match *phase {
            Phase::Idle { number, .. } | Phase::Head { number, .. } => self.places.lock().waiting.remove(number),
            Phase::Busy { .. } | Phase::Answering { .. } => true,
        };
        *phase = Phase::Busy { receiving: None };
        kept
    }

    /// The request has room, and its body begins.
    pub(super) fn receiving(&self) {
        let number = self.join(|queues| &mut queues.receiving);
        *self.lock() = Phase::Busy { receiving: Some(number) };
    }

    /// Nothing more of the body is waited for.
    pub(super) fn received(&self) {
        if let Phase::Busy { receiving } = &mut *self.lock()
            && let Some(number) = receiving.take()
        {
            self.places.lock().receiving.remove(number);
        }
    }

    /// The answer is known.
    pub(super) fn answering(&self) {
        let number = self.join(|queues| &mut queues.answering);
        *self.lock() = Phase::Answering { number, since: Instant::now(), handed_over: false };
    }

    /// The last of the answer was taken over.
    pub(super) fn handed_over(&self) {
        if let Phase::Answering { handed_over, .. } = &mut *self.lock() {
            *handed_over = true;
        }
    }

    /// Everything that was taken over is written.
    pub(super) fn flushed(&self) {
        let mut phase = self.lock();
        if let Phase::Answering { number, handed_over: true, .. } = *phase {
            // Else it is being closed.
            if self.places.lock().answering.remove(number) {
                *phase = self.idle();
                self.written.notify_one();
            }
        }
    }

    /// When the phase has taken too long.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match *self.lock() {
            Phase::Idle { since, .. } => since.checked_add(limits.idle),
            Phase::Head { since, .. } => since.checked_add(limits.head),
            Phase::Busy { .. } => None,
            Phase::Answering { since, .. } => since.checked_add(limits.answer),
        }
    }

    fn idle(&self) -> Phase {
        let number = self.join(|queues| &mut queues.waiting);
        self.places.joined.notify_one();
        Phase::Idle { number, since: Instant::now() }
    }

    fn join(&self, queue: impl FnOnce(&mut Queues) -> &mut Queue) -> u64 {
        let mut queues = self.places.lock();
        let number = queues.next;
        queues.next += 1;
        let close = Arc::clone(&self.close);
        queue(&mut queues).push(number, Entry { caller: self.caller, since: Instant::now(), close });
        number
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match *self.lock() {
            Phase::Idle { number, .. } | Phase::Head { number, .. } => {
                self.places.lock().waiting.remove(number);
            }
            Phase::Busy { receiving: Some(number) } => {
                self.places.lock().receiving.remove(number);
            }
            Phase::Answering { number, .. } => {
                self.places.lock().answering.remove(number);
            }
            Phase::Busy { receiving: None } => {}
        }
        let queues = &mut *self.places.lock();
        if let hash_map::Entry::Occupied(mut held) = queues.held.entry(self.caller) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn places(connections: usize) -> Arc<Places> {
        Places::new(connections, Duration::from_secs(600))
    }

    /// Whether it is being closed, without waiting.
    fn is_closed(place: &Place) -> bool {
        futures::FutureExt::now_or_never(place.closed()).is_some()
    }

    async fn fill(places: &Arc<Places>, count: usize) -> Vec<Place> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(places.take(CALLER).await.0);
        }
        taken
    }

    #[tokio::test]
    async fn a_new_connection_gets_the_place_that_was_waited_on_the_longest() {
        let places = places(3);
        let mut taken = fill(&places, 3).await;
        // The first one has had a request since: now it is the youngest.
        assert!(taken[0].begin());
        taken[0].answering();
        taken[0].handed_over();
        taken[0].flushed();
        assert!(futures::FutureExt::now_or_never(places.take(CALLER)).is_none(), "before the other one has gone");
        assert!(is_closed(&taken[1]) && !is_closed(&taken[0]) && !is_closed(&taken[2]));
        drop(taken.remove(1));
        assert!(!places.take(CALLER).await.1, "a place that is free costs nobody");
    }

    #[tokio::test]
    async fn a_place_with_a_request_under_way_is_not_taken() {
        let places = places(2);
        let taken = fill(&places, 2).await;
        assert!(taken[0].begin() && taken[1].begin());
        let new = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(CALLER).await.1 }
        });
        tokio::task::yield_now().await;
        assert!(!new.is_finished() && !is_closed(&taken[0]) && !is_closed(&taken[1]));
        // Not even while its answer is being written; but then.
        taken[1].answering();
        taken[1].flushed();
        tokio::task::yield_now().await;
        assert!(!is_closed(&taken[1]));
        taken[1].handed_over();
        taken[1].flushed();
        taken[1].closed().await;
        drop(taken);
        assert!(new.await.is_ok_and(|closed| closed));
    }

    #[tokio::test]
    async fn who_has_most_places_loses_none_of_another_caller_even_with_all_its_requests_under_way() {
        let places = places(4);
        let api_server = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
        let kept = places.take(api_server).await.0;
        let flood = fill(&places, 3).await;
        assert!(flood.iter().all(Place::begin));
        assert!(futures::FutureExt::now_or_never(places.take(CALLER)).is_none());
        assert!(!is_closed(&kept), "its one idle connection is not the flood's to have");
        // The other way round it is.
        flood[0].answering();
        flood[0].handed_over();
        flood[0].flushed();
        assert!(futures::FutureExt::now_or_never(places.take(api_server)).is_none());
        assert!(is_closed(&flood[0]) && !is_closed(&kept));
        drop((flood, kept));
        assert!(places.lock().held.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_read_an_answer_goes_before_who_is_idle_and_not_at_once() {
        for (grace, idle_goes) in [(Duration::ZERO, false), (Duration::from_secs(600), true)] {
            let places = Places::new(2, grace);
            let taken = fill(&places, 2).await;
            assert!(taken[1].begin());
            taken[1].answering();
            taken[1].handed_over();
            assert!(places.close_waiting());
            assert_eq!((is_closed(&taken[0]), is_closed(&taken[1])), (idle_goes, !idle_goes));
        }
    }

    #[tokio::test]
    async fn when_nobody_reads_a_new_connection_gets_a_place_all_the_same() {
        let places = Places::new(2, Duration::from_millis(10));
        let mut taken = fill(&places, 2).await;
        for place in &taken {
            assert!(place.begin());
            place.answering();
        }
        let new = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(CALLER).await.1 }
        });
        taken[0].closed().await;
        // It is not asked for twice, whatever it says by then.
        taken[0].handed_over();
        taken[0].flushed();
        drop(taken.remove(0));
        assert!(new.await.is_ok_and(|closed| closed));
        assert!(!is_closed(&taken[0]));
    }

    #[tokio::test]
    async fn a_request_that_was_sent_ahead_waits_until_the_answer_before_is_taken() {
        let places = places(1);
        let taken = fill(&places, 1).await;
        let is_written = || futures::FutureExt::now_or_never(taken[0].written()).is_some();
        assert!(is_written() && taken[0].begin());
        taken[0].answering();
        assert!(!is_written());
        taken[0].handed_over();
        assert!(!is_written());
        taken[0].flushed();
        assert!(is_written() && taken[0].begin());
    }

    #[tokio::test]
    async fn a_request_that_comes_when_the_place_is_taken_is_not_begun() {
        let places = places(1);
        let taken = fill(&places, 1).await;
        assert!(places.close_waiting());
        taken[0].read();
        assert!(!taken[0].begin());
        assert!(!places.close_waiting(), "twice");
    }

    #[tokio::test]
    async fn a_body_that_is_overdue_loses_its_room_and_no_other_does() {
        let places = places(3);
        let taken = fill(&places, 3).await;
        let begun = Instant::now() - Duration::from_secs(1);
        for place in &taken {
            assert!(place.begin());
            place.receiving();
        }
        taken[0].received();
        assert!(!places.close_receiving(begun), "they have just begun");
        let overdue = Instant::now();
        assert!(places.close_receiving(overdue) && is_closed(&taken[1]), "the first one is whole");
        assert!(places.close_receiving(overdue) && is_closed(&taken[2]));
        assert!(!places.close_receiving(overdue) && !is_closed(&taken[0]));
    }

    #[tokio::test]
    async fn each_phase_has_its_own_deadline() {
        let limits = Limits {
            idle: Duration::from_secs(100),
            head: Duration::from_secs(10),
            answer: Duration::from_secs(1),
            ..Limits::default()
        };
        let place = places(1).take(CALLER).await.0;
        let within = |least: u64, most: u64| {
            let left = place.deadline(&limits).map(|at| at.saturating_duration_since(Instant::now()));
            left.is_some_and(|left| left > Duration::from_secs(least) && left <= Duration::from_secs(most))
        };
        assert!(within(50, 100));
        place.read();
        assert!(within(5, 10));
        place.begin();
        assert!(place.deadline(&limits).is_none());
        place.read();
        assert!(place.deadline(&limits).is_none(), "a byte of the body is no head");
        place.answering();
        assert!(within(0, 1));
        place.handed_over();
        place.flushed();
        assert!(within(50, 100));
    }
}
