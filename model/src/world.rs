//! A mesh of two clusters, of two istiods each, and whoever carries its rotation.

use crate::records::{Kind, Root, Says, Stand};

/// Ages are told up to here: as long as a leaf may be about.
pub const OLD: u8 = 2;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Vault's record.
    pub record: Stand,
    /// Where its rotation leads.
    pub goal: Option<Root>,
    /// It rests.
    pub paused: bool,
    /// The engine lets these certify no more.
    pub retired: [bool; 2],
    /// The clusters.
    pub clusters: [Cluster; 2],
    /// Who decided what and has not written it yet.
    pub conductors: [Option<Decision>; 2],
    /// Leaves that are about.
    pub leaves: Leaves,
    /// For so long there is a leaf that fits no chain.
    pub torn: u8,
    /// So often the operator still changes his mind.
    pub aborts: u8,
    /// So often he still pauses.
    pub pauses: u8,
}

/// A cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// The rotation waits for it by name.
    pub is_named: bool,
    /// `cacerts`.
    pub published: Option<Stand>,
    /// What was there before.
    pub before: Option<Stand>,
    /// It was published within this tick, so that a kubelet may be behind.
    pub is_new: bool,
    /// It was published since it was attested to, so that the signer is another one.
    pub is_unattested: bool,
    /// In order, since nobody tells one from the other.
    pub istiods: [Istiod; 2],
    /// A gate that is slow. Another one is quick.
    pub gate: Gate,
    /// What it attests to.
    pub says: Option<Says>,
    /// So long ago it was seen settled as it is.
    pub seen: Option<u8>,
}

/// An istiod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Istiod {
    /// What it works with.
    pub loaded: Option<Stand>,
    /// It was restarted on an older volume, which is brought up to date within the tick.
    pub is_behind: bool,
}

/// A gate on its way to a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Nothing to do.
    Idle,
    /// It has read `cacerts` and the record.
    Read(Stand),
    /// Its signer is certified.
    Signed(Stand),
}

/// What a conductor is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decision {
    /// What.
    pub kind: Kind,
    /// The goal that it was decided for.
    pub goal: Root,
    /// The record is the one that it was decided on.
    pub is_current: bool,
    /// The engine's part is done.
    pub is_prepared: bool,
    /// Whom it saw settled.
    pub noted: [bool; 2],
}

/// The leaves that any number of workloads may have: for each stand that an istiod works with, how long the youngest is
/// still valid. Whoever could renew has done so, and whoever could wait has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leaves(u64);

impl Leaves {
    /// Issues one.
    pub fn issue(&mut self, stand: Stand) {
        let at = stand.index() * 2;
        self.0 = self.0 & !(3 << at) | u64::from(OLD) << at;
    }

    /// A tick passes.
    pub fn age(&mut self) {
        let ages = (0..18).map(|index| self.0 >> (index * 2) & 3);
        self.0 = ages.enumerate().fold(0, |all, (index, left)| all | left.saturating_sub(1) << (index * 2));
    }

    /// All that are valid.
    pub fn valid(self) -> impl Iterator<Item = Stand> {
        let trusts = [[true, false], [false, true], [true, true]];
        let all = trusts.into_iter().flat_map(|trusts| {
            [Root::A, Root::B].into_iter().flat_map(move |issuer| {
                let crosses = [None, Some(Root::A), Some(Root::B)];
                crosses.into_iter().map(move |crossed_by| Stand { trusts, issuer, crossed_by })
            })
        });
        all.filter(move |stand| self.0 >> (stand.index() * 2) & 3 > 0)
    }
}

impl Cluster {
    /// At rest.
    pub fn settled(stand: Stand) -> Self {
        Self {
            is_named: true,
            published: Some(stand),
            before: None,
            is_new: false,
            is_unattested: false,
            istiods: [Istiod { loaded: Some(stand), is_behind: false }; 2],
            gate: Gate::Idle,
            says: Some(Says { state: Some(stand), settled: Some(OLD), at: 0 }),
            seen: None,
        }
    }

    /// One that is not there yet, and nobody knows of.
    pub const fn absent() -> Self {
        Self {
            is_named: false,
            published: None,
            before: None,
            is_new: false,
            is_unattested: false,
            istiods: [Istiod { loaded: None, is_behind: false }; 2],
            gate: Gate::Idle,
            says: None,
            seen: None,
        }
    }

    /// Publishes. Who has read `cacerts` before loses.
    pub fn publish(&mut self, stand: Stand) {
        self.before = self.published;
        self.published = Some(stand);
        self.is_new = true;
        self.is_unattested = true;
    }

    /// Whether all of it works with what is published.
    pub fn is_settled(&self) -> bool {
        self.published.is_some() && self.istiods.iter().all(|istiod| istiod.loaded == self.published)
    }
}
