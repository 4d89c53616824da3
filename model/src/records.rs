//! Records of two roots, and the product's rule and changes on them. Each question is asked of the product once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gate_core::ca::Sha256;
use gate_core::ca::fixtures::{Ca, now};
use gate_core::ca::record::{CHAIN, ISSUER, Rotation, Sighting, SigningRecord};
use gate_core::life::attestation::Attestation;
use gate_core::life::audience::Heard;
use gate_core::life::change::{self, Data, Material};
use gate_core::life::rule::{self, Next, Standing, Step};
use gate_core::samples;
use jiff::SignedDuration;

/// Longer than an attestation is fresh; as long as the skew that the rule adds, which pays for a clock of whole ticks.
const TICK: SignedDuration = SignedDuration::from_mins(10);

/// The life of a leaf: a tick. Issued within one tick it may be valid in the next, and is not in the one after.
const TTL: Duration = Duration::from_secs(600);

/// The names of the clusters, in order.
pub const NAMES: [&str; 2] = ["homelab", "nas"];

/// A root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// The one that there was.
    A,
    /// The one that is to be.
    B,
}

impl Root {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn issuer(self) -> &'static str {
        match self {
            Self::A => "root-1",
            Self::B => "root-2",
        }
    }
}

/// What clusters publish by a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stand {
    /// A is trusted, B is.
    pub trusts: [bool; 2],
    /// Signers are under it.
    pub issuer: Root,
    /// The issuer's root is in the chain, certified by this one.
    pub crossed_by: Option<Root>,
}

impl Stand {
    /// A alone.
    pub const FIRST: Self = Self { trusts: [true, false], issuer: Root::A, crossed_by: None };

    /// Whether this root is trusted.
    pub const fn trusts(self, root: Root) -> bool {
        self.trusts[root as usize]
    }

    /// Whether who has its roots from `self` accepts a leaf that was issued by `other`, as every verifier does.
    pub fn accepts(self, other: Self) -> bool {
        self.trusts(other.issuer) || other.crossed_by.is_some_and(|by| self.trusts(by))
    }

    /// A number of its own, below 18.
    pub const fn index(self) -> usize {
        let trusts = self.trusts[0] as usize + 2 * self.trusts[1] as usize - 1;
        let crossed = match self.crossed_by {
            None => 0,
            Some(root) => 1 + root as usize,
        };
        trusts * 6 + self.issuer as usize * 3 + crossed
    }
}

/// A cluster as the rule sees it. Ages are in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The rotation waits for it by name.
    pub is_named: bool,
    /// What it attests to.
    pub says: Option<Says>,
    /// So long ago it was seen settled as it is.
    pub seen: Option<u8>,
}

/// An attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Says {
    /// What is published.
    pub state: Option<Stand>,
    /// Since when all work with it.
    pub settled: Option<u8>,
    /// When it was written.
    pub at: u8,
}

/// All that the rule goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The record.
    pub record: Stand,
    /// Its goal.
    pub goal: Option<Root>,
    /// It is paused.
    pub paused: bool,
    /// The engine lets this root certify no more.
    pub retired: [bool; 2],
    /// A cross can be had.
    pub may_cross: bool,
    /// The clusters.
    pub members: [Member; 2],
}

/// The product, asked once for each question.
#[derive(Debug)]
pub struct Product {
    roots: [String; 2],
    digests: [Sha256; 2],
    /// B by A, A by B.
    crosses: [String; 2],
    next: Mutex<HashMap<Asked, Next>>,
    after: Mutex<HashMap<(Stand, Root, Kind), Stand>>,
}

/// A step, without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Of the engine alone.
    GiveBack,
    /// Append.
    Trust,
    /// By a cross.
    Crossed,
    /// Without one.
    Plain,
    /// Back.
    Return,
    /// Take note.
    Note,
    /// Take out.
    Drop,
    /// End.
    Done,
}

impl Kind {
    /// Of a step.
    pub const fn of(step: &Step) -> Self {
        match step {
            Step::GiveBack => Self::GiveBack,
            Step::Trust => Self::Trust,
            Step::Switch { crossed: true } => Self::Crossed,
            Step::Switch { crossed: false } => Self::Plain,
            Step::Return => Self::Return,
            Step::Note => Self::Note,
            Step::Drop => Self::Drop,
            Step::Done => Self::Done,
        }
    }

    const fn step(self) -> Step {
        match self {
            Self::GiveBack => Step::GiveBack,
            Self::Trust => Step::Trust,
            Self::Crossed => Step::Switch { crossed: true },
            Self::Plain => Step::Switch { crossed: false },
            Self::Return => Step::Return,
            Self::Note => Step::Note,
            Self::Drop => Step::Drop,
            Self::Done => Step::Done,
        }
    }
}

impl Default for Product {
    fn default() -> Self {
        let [a, b] = ["Root 1", "Root 2"].map(Ca::root);
        let pem = |ca: &Ca| ca.certificate.pem();
        Self {
            roots: [pem(&a), pem(&b)],
            digests: [&a, &b].map(|ca| Sha256::of(ca.certificate.der())),
            crosses: [a.cross_sign(&b).certificate.pem(), b.cross_sign(&a).certificate.pem()],
            next: Mutex::default(),
            after: Mutex::default(),
        }
    }
}

impl Product {
    /// What is due.
    pub fn next(&self, asked: &Asked) -> Next {
        let mut known = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(*asked).or_insert_with(|| self.ask(asked)).clone()
    }

    /// What the record is after a step.
    pub fn after(&self, stand: Stand, goal: Root, kind: Kind) -> Stand {
        let mut known = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry((stand, goal, kind)).or_insert_with(|| self.change(stand, goal, kind))
    }

    fn ask(&self, asked: &Asked) -> Next {
        let record = self.record(&self.data(asked.record));
        let rotation = asked.goal.map(|goal| rotation(goal, asked));
        let issuer_retired = asked.retired[asked.record.issuer as usize];
        let goal = asked.goal.map(|goal| self.digests[goal as usize]);
        let standing = Standing {
            rotation: rotation.as_ref(),
            may_cross: asked.may_cross && !issuer_retired,
            issuer_retired,
            ..Standing::of(&record, goal)
        };
        rule::next(&standing, &self.heard(asked), now())
    }

    fn heard(&self, asked: &Asked) -> Heard {
        let heard = |(name, member): (&str, &Member)| {
            let says = member.says?;
            let attestation = Attestation {
                state: says.state.map(|stand| self.record(&self.data(stand)).state()),
                settled: says.settled.map(|age| now() - TICK * i32::from(age)),
                ..samples::attestation(name, now() - TICK * i32::from(says.at))
            };
            Some((name.to_owned(), Ok(attestation)))
        };
        NAMES.into_iter().zip(&asked.members).filter_map(heard).collect()
    }

    fn data(&self, stand: Stand) -> Data {
        let roots = [Root::A, Root::B].into_iter().filter(|root| stand.trusts(*root));
        let roots: String = roots.map(|root| self.roots[root as usize].as_str()).collect();
        let mut data = SigningRecord::first(&roots, &stand.issuer.issuer().parse().unwrap());
        if let Some(by) = stand.crossed_by {
            data.insert(CHAIN.to_owned(), self.crosses[by as usize].as_str().into());
        }
        data
    }

    fn record(&self, data: &Data) -> SigningRecord {
        SigningRecord::parse(data, now()).expect("each record of the model passes the check")
    }

    fn change(&self, stand: Stand, goal: Root, kind: Kind) -> Stand {
        let nobody = Member { is_named: false, says: None, seen: None };
        let asked = Asked {
            record: stand,
            goal: Some(goal),
            paused: false,
            retired: [false; 2],
            may_cross: true,
            members: [nobody; 2],
        };
        let data = change::started(&self.data(stand), &rotation(goal, &asked));
        let sightings = BTreeMap::new();
        let goal = &self.roots[goal as usize];
        let material = Material { goal, cross: Some(&self.crosses[stand.issuer as usize]), sightings: &sightings };
        let after = change::after(&data, &self.record(&data), &kind.step(), &material).unwrap().unwrap_or(data);
        self.stand(&after)
    }

    fn stand(&self, data: &Data) -> Stand {
        let record = self.record(data);
        let named = |digest| if digest == self.digests[0] { Root::A } else { Root::B };
        Stand {
            trusts: self.digests.map(|digest| record.roots().contains(&digest)),
            issuer: if data[ISSUER] == Root::A.issuer() { Root::A } else { Root::B },
            crossed_by: record.cross().map(|cross| named(cross.by)),
        }
    }
}

fn rotation(goal: Root, asked: &Asked) -> Rotation {
    let members = || NAMES.into_iter().zip(&asked.members);
    let named = members().filter(|(_, member)| member.is_named).map(|(name, _)| name.to_owned());
    let seen = |(name, member): (&str, &Member)| {
        let settled = now() - TICK * i32::from(member.says?.settled?);
        Some((name.to_owned(), Sighting { settled, at: now() - TICK * i32::from(member.seen?) }))
    };
    Rotation {
        goal: goal.issuer().parse().unwrap(),
        from: vec![goal.other().issuer().parse().unwrap()],
        clusters: named.collect(),
        ttl: TTL,
        paused: asked.paused,
        started: now(),
        by: String::new(),
        seen: members().filter_map(seen).collect(),
    }
}
