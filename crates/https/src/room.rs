//! What callers may hold of this process, whatever the number of its servers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::limits::Limits;
use crate::places::{Place, Places};
use crate::rarely::Rarely;
use crate::stats::Stats;

/// The room of a connection that was just closed comes free within microseconds.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// The room that all servers of a process share, and what is counted of it.
pub struct Room {
    pub(crate) limits: Limits,
    pub(crate) stats: Arc<Stats>,
    pub(crate) places: Arc<Places>,
    requests: Semaphore,
    /// Bytes that bodies and answers may take beyond what each has anyway.
    memory: Arc<Semaphore>,
    /// For the one body at a time that may be very large.
    largest: Arc<Semaphore>,
    pub(crate) told: Told,
}

/// What is logged, at a bounded rate.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) accept: Rarely,
    pub(crate) shed: Rarely,
    room: Rarely,
}

/// Bytes that are held until this is dropped.
pub(crate) type Occupied = OwnedSemaphorePermit;

impl Room {
    /// Room within these limits, which is counted here.
    pub fn new(limits: Limits, stats: Arc<Stats>) -> Arc<Self> {
        let semaphore = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Arc::new(Self {
            limits,
            stats,
            places: Places::new(limits.connections, limits.answer_grace),
            requests: semaphore(limits.requests),
            memory: Arc::new(semaphore(limits.memory)),
            largest: Arc::new(Semaphore::new(1)),
            told: Told::default(),
        })
    }

    /// What is counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) async fn place(&self, caller: IpAddr) -> Place {
        let (place, closed) = self.places.take(caller).await;
        if closed {
            self.closed_for_room();
        }
        place
    }

    /// Closes a connection whose answer nobody reads, else one that has no request under way, if there is one.
    pub(crate) fn close_waiting(&self) {
        if self.places.close_waiting() {
            self.closed_for_room();
        }
    }

    fn closed_for_room(&self) {
        self.stats.connections_closed_for_room.add();
        let most = self.limits.connections;
        self.told.room.tell(|more| tracing::warn!(most, more, "too many connections: those that wait are closed"));
    }

    /// Room for a request, if need be that of one whose body is overdue.
    pub(crate) async fn request(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(room) = self.requests.try_acquire() {
            return Some(room);
        }
        let begun_before = Instant::now().checked_sub(self.limits.body_grace)?;
        if !self.places.close_receiving(begun_before) {
            return None;
        }
        self.closed_for_room();
        // That connection ends at once.
        timeout(ROOM_WAIT, self.requests.acquire()).await.ok()?.ok()
    }

    /// So many bytes, after all who asked before.
    pub(crate) async fn memory(&self, bytes: usize) -> Option<Occupied> {
        let bytes = u32::try_from(bytes).ok()?;
        // Never closed, so that it is to be had in the end.
        Arc::clone(&self.memory).acquire_many_owned(bytes).await.ok()
    }

    /// So many bytes, if they are to be had at once.
    pub(crate) fn memory_now(&self, bytes: usize) -> Option<Occupied> {
        Arc::clone(&self.memory).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// The place of the one very large body.
    pub(crate) async fn largest(&self) -> Option<Occupied> {
        Arc::clone(&self.largest).acquire_owned().await.ok()
    }
}
