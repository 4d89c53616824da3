//! Clusters on roots of their own, brought under one: in every order of whoever brings them, gates, istiods, conductors and
//! time, by the product's own rules. Workloads are any number: each state of an istiod has issued to whoever could renew.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gate_core::ca::Sha256;
use gate_core::ca::fixtures::{Ca, now};
use gate_core::ca::record::{Rotation, Sighting, SigningRecord};
use gate_core::life::attestation::Attestation;
use gate_core::life::audience::Heard;
use gate_core::life::change::{self, Material};
use gate_core::life::rescue::{Rescue, SplitCluster, rescue};
use gate_core::life::rule::{self, Next, Standing, Step};
use gate_core::plan::{Copy, Mesh, Owner, Published};
use gate_core::samples;
use jiff::SignedDuration;
use stateright::{Model, Property};

use crate::records::NAMES;
use crate::world::OLD;

/// A step of the clocks, and the life of a leaf.
const TICK: SignedDuration = SignedDuration::from_mins(10);
const TTL: Duration = Duration::from_secs(600);

/// What is wrong with it on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    Nothing,
    /// The switch does not wait.
    SwitchAtOnce,
    /// The drop does not wait.
    DropAtOnce,
    /// A cluster's first signer is under the shared root.
    BroughtUnderTheGoal,
    /// A cluster gets a signer under its own root, and trusts that one alone beside the goal.
    BroughtWithoutTheOthers,
    /// The second cluster is not waited for.
    OneIsLeftOut,
}

/// Where the record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// There is none.
    Absent,
    /// All are trusted, and each cluster keeps its signer.
    Begun,
    /// Signers are under the goal.
    Switched,
    /// The goal alone is trusted.
    Dropped,
    /// It is over.
    Done,
}

/// What a cluster works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stand {
    /// The root that its istiod made.
    Own,
    /// A signer, and whom it trusts.
    By {
        /// The goal's, or the cluster's own root's.
        is_shared: bool,
        /// Itself, the other cluster, the goal.
        trusts: [bool; 3],
    },
}

impl Stand {
    /// Whether a workload of cluster `at` accepts one of cluster `from`, as every verifier does.
    fn accepts(self, at: usize, other: Self, from: usize) -> bool {
        match (self.trusts(), other) {
            ([.., goal], Self::By { is_shared: true, .. }) => goal,
            ([own, others, _], _) => {
                if at == from {
                    own
                } else {
                    others
                }
            }
        }
    }

    const fn trusts(self) -> [bool; 3] {
        match self {
            Self::Own => [true, false, false],
            Self::By { trusts, .. } => trusts,
        }
    }
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    published: Option<(Phase, Stand)>,
    istiods: [Stand; 2],
    /// Which phase it attests to, since when it is settled, and when it said so.
    says: Option<(Phase, Option<u8>, u8)>,
    seen: Option<u8>,
    /// What leaves there are, and for how long.
    leaves: BTreeMap<Stand, u8>,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    record: Phase,
    members: [Member; 2],
    /// Decided, and not written yet; and whom it saw settled.
    conductors: [Option<(Decided, [bool; 2])>; 2],
}

/// A step, by the record that it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decided {
    /// Of the record.
    To(Phase),
    /// Of who is settled.
    Note(Phase),
}

/// What may happen. Numbers are of a cluster, then of an istiod, or of a conductor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The command writes the record.
    Begin,
    /// It gives a cluster its signer.
    Bring(usize),
    /// A gate goes through a whole turn.
    Publish(usize),
    /// An istiod is restarted, or takes up live what it can.
    Load(usize, usize),
    /// The witness looks and attests.
    Attest(usize),
    /// A conductor reads and decides.
    Decide(usize),
    /// It writes.
    Write(usize),
    /// It is killed.
    Die(usize),
    /// Time passes.
    Tick,
}

/// What there is to be explored.
pub struct Rescues {
    /// What is wrong with it.
    pub flaw: Flaw,
    roots: [Ca; 3],
    records: BTreeMap<Phase, SigningRecord>,
    next: Mutex<HashMap<String, Next>>,
}

impl Rescues {
    /// With this flaw.
    pub fn with(flaw: Flaw) -> Self {
        let roots = ["Own 1", "Own 2", "Istio Root CA root-1"].map(Ca::root);
        let [one, other, goal] = roots.each_ref().map(|root| root.certificate.pem());
        let begun = change::rescuing([one.as_str(), &other], &rotation(BTreeMap::new(), flaw), &goal);
        let sightings = BTreeMap::new();
        let material = Material { goal: &goal, cross: None, sightings: &sightings };
        let read =
            |data: &change::Data| SigningRecord::parse(data, now()).expect("a record of the model passes the check");
        let mut records = BTreeMap::from([(Phase::Begun, read(&begun))]);
        let mut data = begun;
        for (phase, step) in [
            (Phase::Switched, Step::Switch { crossed: false }),
            (Phase::Dropped, Step::Drop),
            (Phase::Done, Step::Done),
        ] {
            data = change::after(&data, &read(&data), &step, &material).expect("it can be taken").expect("it writes");
            records.insert(phase, read(&data));
        }
        Self { flaw, roots, records, next: Mutex::default() }
    }

    fn root(&self, at: usize) -> Sha256 {
        Sha256::of(self.roots[at].certificate.der())
    }

    /// What a cluster publishes by the record.
    fn stand(&self, phase: Phase, at: usize) -> Stand {
        let record = &self.records[&phase];
        let has = |root: usize| record.roots().contains(&self.root(root));
        Stand::By { is_shared: record.issuer.is_some(), trusts: [has(at), has(1 - at), has(2)] }
    }

    fn is_named(&self, at: usize) -> bool {
        self.flaw != Flaw::OneIsLeftOut || at == 0
    }

    fn heard(&self, split: &Split) -> Heard {
        let heard = |(at, member): (usize, &Member)| {
            let (phase, settled, age) = member.says.filter(|_| self.is_named(at))?;
            let attestation = Attestation {
                state: self.records.get(&phase).map(SigningRecord::state),
                settled: settled.map(|age| now() - TICK * i32::from(age)),
                ready: phase == Phase::Absent,
                ..samples::attestation(NAMES[at], now() - TICK * i32::from(age))
            };
            Some((NAMES[at].to_owned(), Ok(attestation)))
        };
        split.members.iter().enumerate().filter_map(heard).collect()
    }

    /// What the command would do now, by the product's own rule.
    fn todo(&self, split: &Split) -> Option<[Rescue; 2]> {
        let mesh = |at: usize| {
            let [own, others, goal] = split.members[at].istiods[0].trusts();
            let all = [(own, at), (others, 1 - at), (goal, 2)];
            let roots =
                all.into_iter().filter(|(is_trusted, _)| *is_trusted).map(|(_, root)| self.root(root)).collect();
            Mesh::Serves { first: self.root(at), roots }
        };
        let cacerts = |at: usize| match split.members[at].published {
            None => Published::Absent,
            Some((phase, _)) => brought(self.records[&phase].state()),
        };
        let (meshes, cacerts) = ([mesh(0), mesh(1)], [cacerts(0), cacerts(1)]);
        let given = if self.flaw == Flaw::OneIsLeftOut { 1 } else { 2 };
        let cluster = |at: usize| SplitCluster {
            name: NAMES[at],
            own: Some(self.root(at)),
            mesh: &meshes[at],
            cacerts: &cacerts[at],
        };
        let clusters: Vec<_> = (0..given).map(cluster).collect();
        let todo = rescue(self.records.get(&split.record), &clusters, &self.heard(split), now()).ok()?;
        Some(NAMES.map(|name| todo.get(name).copied().unwrap_or(Rescue::Done)))
    }

    fn due(&self, split: &Split) -> Option<Decided> {
        if matches!(split.record, Phase::Absent | Phase::Done) {
            return None;
        }
        let key = format!("{:?} {:?}", split.record, split.members.each_ref().map(|member| (member.says, member.seen)));
        let mut known = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = known.entry(key).or_insert_with(|| self.ask(split)).clone();
        let hurries = |wrong, then: &Step| {
            self.flaw == wrong && matches!(next, Next::Wait { then: ref step, .. } if step == then)
        };
        let switch = Step::Switch { crossed: false };
        match &next {
            Next::Take(step) if *step == switch => Some(Decided::To(Phase::Switched)),
            Next::Take(Step::Drop) => Some(Decided::To(Phase::Dropped)),
            Next::Take(Step::Done) => Some(Decided::To(Phase::Done)),
            Next::Take(Step::Note) => Some(Decided::Note(split.record)),
            Next::Wait { .. } if hurries(Flaw::SwitchAtOnce, &switch) => Some(Decided::To(Phase::Switched)),
            Next::Wait { .. } if hurries(Flaw::DropAtOnce, &Step::Drop) => Some(Decided::To(Phase::Dropped)),
            _ => None,
        }
    }

    fn ask(&self, split: &Split) -> Next {
        let record = &self.records[&split.record];
        let seen = |(at, member): (usize, &Member)| {
            let settled = now() - TICK * i32::from(member.says?.1?);
            Some((NAMES[at].to_owned(), Sighting { settled, at: now() - TICK * i32::from(member.seen?) }))
        };
        let rotation = rotation(split.members.iter().enumerate().filter_map(seen).collect(), self.flaw);
        let standing = Standing { rotation: Some(&rotation), ..Standing::of(record, Some(self.root(2))) };
        rule::next(&standing, &self.heard(split), now())
    }

    fn bring(&self, split: &mut Split, at: usize) -> Option<()> {
        // The record comes first.
        if split.record == Phase::Absent || self.todo(split)?[at] != Rescue::Bring {
            return None;
        }
        let Stand::By { is_shared, mut trusts } = self.stand(split.record, at) else { return None };
        let is_shared = is_shared || self.flaw == Flaw::BroughtUnderTheGoal;
        if self.flaw == Flaw::BroughtWithoutTheOthers {
            trusts[1] = false;
        }
        split.members[at].published = Some((split.record, Stand::By { is_shared, trusts }));
        Some(())
    }

    fn publish(&self, split: &mut Split, at: usize) -> Option<()> {
        let member = &mut split.members[at];
        let (phase, _) = member.published?;
        let is_other = matches!(split.record, Phase::Switched | Phase::Dropped) && phase != split.record;
        member.published = Some((split.record, self.stand(split.record, at)));
        is_other.then_some(())
    }

    fn attest(split: &mut Split, at: usize) -> Option<()> {
        let member = &mut split.members[at];
        let phase = member.published.map_or(Phase::Absent, |(phase, _)| phase);
        let is_settled =
            member.published.is_some_and(|(_, stand)| member.istiods.iter().all(|istiod| *istiod == stand));
        let kept =
            member.says.filter(|(said, _, age)| *said == phase && *age < OLD).and_then(|(_, settled, _)| settled);
        let settled = is_settled.then(|| kept.unwrap_or(0));
        if kept.is_none() || !is_settled {
            member.seen = None;
            split.conductors.iter_mut().flatten().for_each(|(_, noted)| noted[at] = false);
        }
        split.members[at].says = Some((phase, settled, 0));
        Some(())
    }

    fn write(split: &mut Split, at: usize) -> Option<()> {
        let (decided, noted) = split.conductors[at].take()?;
        let (from, to) = match decided {
            Decided::Note(phase) => (phase, phase),
            Decided::To(phase) => (before(phase), phase),
        };
        // Of two, one wins: what was decided on is no longer there.
        if split.record != from {
            return Some(());
        }
        split.record = to;
        for (member, noted) in split.members.iter_mut().zip(noted) {
            member.seen = if from == to { member.seen.or(noted.then_some(0)) } else { None };
        }
        Some(())
    }

    fn act(&self, split: &mut Split, act: Act) -> Option<()> {
        match act {
            Act::Begin => {
                self.todo(split)?;
                (split.record == Phase::Absent).then(|| split.record = Phase::Begun)?;
            }
            Act::Bring(at) => self.bring(split, at)?,
            Act::Publish(at) => self.publish(split, at)?,
            Act::Load(at, istiod) => {
                let member = &mut split.members[at];
                let stand = member.published?.1;
                (member.istiods[istiod] != stand).then(|| member.istiods[istiod] = stand)?;
            }
            Act::Attest(at) => Self::attest(split, at)?,
            Act::Decide(at) => {
                let noted = split.members.each_ref().map(|member| member.says.is_some_and(|says| says.1.is_some()));
                split.conductors[at] = Some((self.due(split)?, noted));
            }
            Act::Write(at) => Self::write(split, at)?,
            Act::Die(at) => drop(split.conductors[at].take()?),
            Act::Tick => tick(split),
        }
        for member in &mut split.members {
            member.istiods.sort_unstable();
            for stand in member.istiods {
                member.leaves.insert(stand, OLD);
            }
        }
        split.conductors.sort_unstable();
        Some(())
    }

    /// Whether it comes to its end from here, if nothing fails from now on.
    fn ends(&self, split: &Split) -> bool {
        let mut split = split.clone();
        for _ in 0..40 {
            if split.record == Phase::Done {
                return true;
            }
            split.conductors = [None, None];
            let _ = self.act(&mut split, Act::Begin);
            for at in 0..2 {
                for act in [
                    Act::Bring(at),
                    Act::Publish(at),
                    Act::Load(at, 0),
                    Act::Load(at, 0),
                    Act::Load(at, 1),
                    Act::Attest(at),
                ] {
                    let _ = self.act(&mut split, act);
                }
            }
            for act in [Act::Decide(0), Act::Write(0), Act::Write(1), Act::Tick] {
                let _ = self.act(&mut split, act);
            }
        }
        false
    }
}

fn before(phase: Phase) -> Phase {
    match phase {
        Phase::Absent | Phase::Begun => Phase::Absent,
        Phase::Switched => Phase::Begun,
        Phase::Dropped => Phase::Switched,
        Phase::Done => Phase::Dropped,
    }
}

/// A `cacerts` that the command or the gate has put there for this state.
fn brought(state: gate_core::ca::record::RecordState) -> Published {
    match samples::published(Owner::Ours, &samples::R1) {
        Published::Present(copy) => {
            Published::Present(Arc::new(Copy { annotated_state: Some(state), ..Copy::clone(&copy) }))
        }
        Published::Absent => Published::Absent,
    }
}

fn rotation(seen: BTreeMap<String, Sighting>, flaw: Flaw) -> Rotation {
    let named = if flaw == Flaw::OneIsLeftOut { 1 } else { 2 };
    Rotation {
        goal: "root-1".parse().expect("it is a name"),
        from: Vec::new(),
        clusters: NAMES.into_iter().take(named).map(str::to_owned).collect(),
        ttl: TTL,
        paused: false,
        started: now(),
        by: String::new(),
        seen,
    }
}

fn tick(split: &mut Split) {
    // What is decided is written within a minute, or decided anew.
    split.conductors = [None, None];
    let older = |age: &mut u8| *age = (*age + 1).min(OLD);
    for member in &mut split.members {
        member.leaves.values_mut().for_each(|left| *left -= 1);
        member.leaves.retain(|_, left| *left > 0);
        if let Some((_, settled, age)) = &mut member.says {
            older(age);
            settled.as_mut().into_iter().for_each(older);
        }
        member.seen.as_mut().into_iter().for_each(older);
    }
}

impl Model for Rescues {
    type State = Split;
    type Action = Act;

    fn init_states(&self) -> Vec<Split> {
        let member = Member {
            published: None,
            istiods: [Stand::Own; 2],
            says: Some((Phase::Absent, None, 0)),
            seen: None,
            leaves: BTreeMap::from([(Stand::Own, OLD)]),
        };
        vec![Split { record: Phase::Absent, members: [member.clone(), member], conductors: [None, None] }]
    }

    fn actions(&self, split: &Split, acts: &mut Vec<Act>) {
        if split.record == Phase::Absent {
            acts.push(Act::Begin);
        }
        for at in 0..2 {
            acts.extend([Act::Bring(at), Act::Publish(at), Act::Load(at, 0), Act::Load(at, 1), Act::Attest(at)]);
        }
        let is_going = !matches!(split.record, Phase::Absent | Phase::Done);
        for (at, conductor) in split.conductors.iter().enumerate() {
            match conductor {
                Some(_) => acts.extend([Act::Write(at), Act::Die(at)]),
                None if is_going && (at == 0 || split.conductors[0].is_some()) => acts.push(Act::Decide(at)),
                None => {}
            }
        }
        acts.push(Act::Tick);
    }

    fn next_state(&self, split: &Split, act: Act) -> Option<Split> {
        let mut next = split.clone();
        self.act(&mut next, act)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("two workloads of one cluster accept each other", |_, split: &Split| {
                let within = |(at, member): (usize, &Member)| {
                    member.leaves.keys().all(|one| member.leaves.keys().all(|other| one.accepts(at, *other, at)))
                };
                split.members.iter().enumerate().all(within)
            }),
            Property::always("from the switch on any two workloads accept each other", |_, split: &Split| {
                let [first, second] = &split.members;
                let all = |one: &Member, at: usize, other: &Member, from: usize| {
                    one.leaves.keys().all(|one| other.leaves.keys().all(|other| one.accepts(at, *other, from)))
                };
                split.record < Phase::Switched || (all(first, 0, second, 1) && all(second, 1, first, 0))
            }),
            Property::always("it ends if nothing fails from now on", |model: &Self, split: &Split| model.ends(split)),
            Property::sometimes("one root is trusted in both clusters", |_, split: &Split| split.record == Phase::Done),
        ]
    }
}
