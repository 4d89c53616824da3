//! Where the root is kept that all clusters share: what the convergence asks of it, and how it answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::ca::Sha256;
use crate::plan::Stored;
use crate::reason::Held;
use crate::refused::Refused;

/// The record, and where it was read.
#[derive(Clone, Debug)]
pub struct Found<P> {
    /// What is there.
    pub stored: Stored,
    /// When that version was written, by the store's clock, where it tells that.
    pub written_at: Option<Timestamp>,
    /// When that version goes by itself.
    pub deleted_at: Option<Timestamp>,
    /// When the token that it was read with ends, where nobody renews it.
    pub token_end: Option<Timestamp>,
    /// The address that answered.
    pub address: String,
    /// How far the store's clock is ahead of this one, where it tells the time.
    pub ahead: Option<SignedDuration>,
    /// The store's own: a write goes there and nowhere else.
    pub place: P,
}

impl<P> Found<P> {
    /// This moment by the store's clock: all clusters' times are by that one.
    pub fn by_its_clock(&self, now: Timestamp) -> Timestamp {
        self.ahead.map_or(now, |ahead| now.saturating_add(ahead).unwrap_or(now))
    }
}

/// How the write of a first version ended. After any of them the record is read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The store says that it wrote version 1.
    Applied,
    /// The store says that there already was a version.
    Lost,
    /// The store refuses: for want of a right, or, with a policy of `create` and `read`, since there already is a version.
    Forbidden(Held),
    /// No word on whether it was applied.
    Unclear(Refused),
}

/// The store, as one replica sees it.
pub trait Store: Send + Sync {
    /// Where an answer was read.
    type Place: Send + Sync;

    /// Whether it can be asked, by a question that costs it next to nothing. `false` also where it does not tell.
    fn is_there(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    /// An attempt begins: what may have changed around this process is taken up.
    fn begin(&mut self);

    /// Reads the record. What speaks against the root that this cluster trusts is made sure of: of several that answer,
    /// one that is behind is not believed.
    ///
    /// An error whenever it cannot be told what is there.
    fn read(
        &mut self,
        trusted: Option<Sha256>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Found<Self::Place>, Refused>> + Send;

    /// Holds unless all that is configured is known to be the one store in which nothing was found.
    fn is_one(&self, found: &Found<Self::Place>) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Writes the first version of the record, where its absence was read, and over nothing.
    fn create(
        &mut self,
        found: &Found<Self::Place>,
        record: Map<String, Value>,
    ) -> impl Future<Output = Created> + Send;
}
