//! What was asked of a server and acted on, kept so that an observer can tell what happened.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use crate::wire::Request;

/// A request that was acted on, and what came of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it was done.
    pub at: SystemTime,
    /// What was asked.
    pub request: Request,
    /// The answer's status, whether or not the answer arrived.
    pub status: u16,
    /// The answer's body.
    pub body: Bytes,
}

/// Which requests are kept.
pub type Wanted = fn(&Request) -> bool;

/// The entries of one server. It keeps none until it is told which.
#[derive(Debug, Default)]
pub struct Journal {
    wanted: Mutex<Option<Wanted>>,
    entries: Mutex<Vec<Entry>>,
}

impl Journal {
    /// Keeps these from now on. What is answered without an end, as a watch, must not be among them.
    pub fn keep(&self, wanted: Wanted) {
        *lock(&self.wanted) = Some(wanted);
    }

    /// All that was kept, in the order in which it was done.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    pub(crate) fn wants(&self, request: &Request) -> bool {
        lock(&self.wanted).is_some_and(|wanted| wanted(request))
    }

    pub(crate) fn add(&self, request: Request, status: u16, body: Bytes) {
        lock(&self.entries).push(Entry { at: SystemTime::now(), request, status, body });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
