//! A rotation in every order, and what must hold in each.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use gate_core::life::joining::{Awaited, First};
use gate_core::life::rule::Next;
use stateright::{Model, Property};

use crate::records::{Asked, Kind, Member, Product, Root, Says, Stand};
use crate::world::{Cluster, Decision, Gate, Leaves, OLD, World};

/// What is wrong with it on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing.
    Nothing,
    /// The old root is dropped as soon as all are settled.
    NoWaitBeforeDrop,
    /// The switch has no cross, and does not wait.
    NoCrossAndNoWait,
    /// An attestation counts, however old it is.
    StaleCounts,
    /// A cluster that is off is not waited for.
    OffIsLeftOut,
    /// The record is written whatever it is by now.
    BlindWrite,
    /// An istiod counts as settled as soon as its serving certificate is another one.
    CertificateChanged,
    /// At a switch the signer has a new key.
    NewKey,
    /// The wait counts by the gates' clocks, whoever saw what when.
    GatesClocks,
    /// A gate reads the record before it reads `cacerts`.
    RecordFirst,
    /// A decision is written however long ago it was made.
    LateDecision,
    /// A cluster attests only once it has published.
    AttestsLate,
    /// It attests before it has its signer certified, and after it has read the record that it goes by.
    ReadsBeforeItAttests,
    /// It is settled since before it was published anew, if that is for the same state.
    SettledByState,
}

/// What there is to be explored.
#[derive(Debug)]
pub struct Rotations {
    /// What is wrong with it.
    pub wrong: Wrong,
    /// Crosses can be had.
    pub may_cross: bool,
    /// The second cluster joins at some time.
    pub joins: bool,
    /// Gates' clocks may be behind by more than a leaf lives.
    pub wrong_clocks: bool,
    /// A gate may be slow.
    pub slow_gates: bool,
    /// Clusters may be restored from a backup, istiods restarted on an older volume.
    pub restores: bool,
    /// So often the operator changes his mind.
    pub aborts: u8,
    /// So often he pauses.
    pub pauses: u8,
    /// The product.
    pub product: Product,
    /// From these the end is reached.
    pub ends: Mutex<HashSet<u64>>,
}

/// What may happen. Numbers are of a cluster, then of an istiod, or of a conductor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A gate goes through a whole turn.
    Publish(usize),
    /// A slow one reads both sides.
    GateReads(usize),
    /// Its signer is certified.
    GateSigns(usize),
    /// It publishes.
    GatePublishes(usize),
    /// It is killed.
    GateDies(usize),
    /// An istiod takes up what is published.
    Reload(usize, usize),
    /// It is restarted on an older volume.
    RestartOld(usize, usize),
    /// A whole cluster is put back.
    Restore(usize),
    /// The witness looks and attests.
    Attest(usize),
    /// The same by a clock that is behind.
    AttestBehind(usize),
    /// A cluster joins the mesh.
    Join(usize),
    /// A conductor reads and decides.
    Decide(usize),
    /// It does the engine's part.
    Prepare(usize),
    /// It writes, and perhaps hears of it.
    Write(usize),
    /// It is killed.
    Die(usize),
    /// The operator changes his mind.
    Abort,
    /// He pauses.
    Pause,
    /// He resumes.
    Resume,
    /// Time passes.
    Tick,
}

impl Default for Rotations {
    fn default() -> Self {
        Self {
            wrong: Wrong::Nothing,
            may_cross: true,
            joins: false,
            wrong_clocks: false,
            slow_gates: false,
            restores: false,
            aborts: 0,
            pauses: 0,
            product: Product::default(),
            ends: Mutex::default(),
        }
    }
}

impl Rotations {
    /// With a fault.
    pub fn but(wrong: Wrong) -> Self {
        Self { wrong, ..Self::default() }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    fn member(&self, cluster: &Cluster) -> Member {
        let Cluster { is_named, says, seen, .. } = *cluster;
        let mut member = Member { is_named, says, seen };
        let is_away = says.is_some_and(|says| says.at > 0);
        if self.is(Wrong::StaleCounts) {
            member.says = says.map(|says| Says { at: 0, ..says });
        }
        if self.is(Wrong::OffIsLeftOut) && is_away {
            member = Member { is_named: false, says: None, seen: None };
        }
        if self.is(Wrong::NoWaitBeforeDrop) || self.is(Wrong::NoCrossAndNoWait) {
            member.says = member.says.map(|says| Says { settled: says.settled.map(|_| OLD), ..says });
            member.seen = Some(OLD);
        }
        if self.is(Wrong::GatesClocks) {
            member.seen = says.and_then(|says| says.settled);
        }
        member
    }

    fn decide(&self, world: &World) -> Option<Decision> {
        let asked = Asked {
            record: world.record,
            goal: world.goal,
            paused: world.paused,
            retired: world.retired,
            may_cross: self.may_cross && !self.is(Wrong::NoCrossAndNoWait),
            members: world.clusters.map(|cluster| self.member(&cluster)),
        };
        let Next::Take(step) = self.product.next(&asked) else { return None };
        let noted = world.clusters.map(|cluster| cluster.says.is_some_and(|says| says.settled.is_some()));
        let kind = Kind::of(&step);
        let is_noting = kind == Kind::Note;
        Some(Decision {
            kind,
            goal: world.goal?,
            is_current: true,
            is_prepared: false,
            noted: noted.map(|noted| noted && is_noting),
        })
    }

    /// The engine's part of a step.
    fn prepare(&self, world: &mut World, at: usize) -> Option<()> {
        let decision = world.conductors[at].as_mut().filter(|decision| !decision.is_prepared)?;
        decision.is_prepared = true;
        match decision.kind {
            Kind::Drop => world.retired[decision.goal.other() as usize] = true,
            Kind::GiveBack | Kind::Crossed | Kind::Plain | Kind::Return => {
                world.retired[decision.goal as usize] = false
            }
            _ => {}
        }
        Some(())
    }

    fn write(&self, world: &mut World, at: usize) -> Option<()> {
        let decision = world.conductors[at].take().filter(|decision| decision.is_prepared)?;
        if decision.kind == Kind::GiveBack || !decision.is_current && !self.is(Wrong::BlindWrite) {
            return Some(());
        }
        let before = world.record;
        world.record = self.product.after(before, decision.goal, decision.kind);
        if decision.kind == Kind::Done {
            world.goal = None;
        }
        for (cluster, noted) in world.clusters.iter_mut().zip(decision.noted) {
            cluster.seen = match decision.kind {
                Kind::Note if noted => Some(cluster.seen.unwrap_or(0)),
                Kind::Note => cluster.seen,
                _ => None,
            };
        }
        was_written(world);
        Some(())
    }

    fn attest(&self, world: &mut World, at: usize, is_behind: bool) -> Option<()> {
        let cluster = &mut world.clusters[at];
        let state = Some(cluster.published?);
        let is_settled = cluster.is_settled() || self.is(Wrong::CertificateChanged);
        let is_same = !cluster.is_unattested || self.is(Wrong::SettledByState);
        cluster.is_unattested = false;
        let before = cluster.says.filter(|says| is_same && says.state == state && says.at < OLD);
        let kept = before.and_then(|says| says.settled).filter(|_| is_settled);
        let new = Some(if is_behind { OLD } else { 0 }).filter(|_| is_settled);
        cluster.says = Some(Says { state, settled: kept.or(new), at: 0 });
        if kept.is_none() {
            cluster.seen = None;
            world.conductors.iter_mut().flatten().for_each(|decision| decision.noted[at] = false);
        }
        Some(())
    }

    fn reload(&self, world: &mut World, at: usize, istiod: usize) -> Option<()> {
        let cluster = &mut world.clusters[at];
        let published = cluster.published.filter(|stand| cluster.istiods[istiod].loaded != Some(*stand))?;
        let was = cluster.istiods[istiod].loaded;
        if self.is(Wrong::NewKey) && was.is_some_and(|was| was.issuer != published.issuer) {
            // Certified by the new signer, and answered with the chain of the old one.
            world.torn = OLD;
        }
        let cluster = &mut world.clusters[at];
        cluster.istiods[istiod].loaded = Some(published);
        cluster.istiods[istiod].is_behind = false;
        Some(())
    }

    fn gate_signs(world: &mut World, at: usize) -> Option<()> {
        let cluster = &mut world.clusters[at];
        let Gate::Read(stand) = cluster.gate else { return None };
        let may_sign = !world.retired[stand.issuer as usize] && cluster.published != Some(stand);
        cluster.gate = if may_sign { Gate::Signed(stand) } else { Gate::Idle };
        Some(())
    }

    fn publish(&self, world: &mut World, at: usize, stand: Stand) {
        let cluster = &mut world.clusters[at];
        cluster.publish(stand);
        if !(self.is(Wrong::RecordFirst) && matches!(cluster.gate, Gate::Read(_))) {
            cluster.gate = Gate::Idle;
        }
    }

    fn act(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Publish(at) => {
                let stand = Some(world.record).filter(|stand| world.clusters[at].published != Some(*stand))?;
                (!world.retired[stand.issuer as usize]).then(|| self.publish(world, at, stand))?;
            }
            Action::GateReads(at) => world.clusters[at].gate = Gate::Read(world.record),
            Action::GateSigns(at) => Self::gate_signs(world, at)?,
            Action::GatePublishes(at) => {
                let Gate::Signed(stand) = world.clusters[at].gate else { return None };
                self.publish(world, at, stand);
            }
            Action::GateDies(at) => world.clusters[at].gate = Gate::Idle,
            Action::Reload(at, istiod) => self.reload(world, at, istiod)?,
            Action::RestartOld(at, istiod) => {
                let cluster = &mut world.clusters[at];
                cluster.istiods[istiod].loaded = Some(cluster.before?);
                cluster.istiods[istiod].is_behind = true;
            }
            Action::Restore(at) => restore(&mut world.clusters[at]),
            Action::Attest(at) => self.attest(world, at, false)?,
            Action::AttestBehind(at) => self.attest(world, at, true)?,
            Action::Join(at) => world.clusters[at].says = Some(Says { state: None, settled: None, at: 0 }),
            Action::Decide(at) => world.conductors[at] = Some(self.decide(world)?),
            Action::Prepare(at) => self.prepare(world, at)?,
            Action::Write(at) => self.write(world, at)?,
            Action::Die(at) => world.conductors[at] = None,
            Action::Abort => {
                world.goal = Some(world.goal?.other());
                world.aborts -= 1;
                was_written(world);
            }
            Action::Pause => {
                (world.paused, world.pauses) = (true, world.pauses - 1);
                was_written(world);
            }
            Action::Resume => {
                world.paused = false;
                was_written(world);
            }
            Action::Tick => self.tick(world),
        }
        tidy(world);
        Some(())
    }

    fn tick(&self, world: &mut World) {
        if !self.is(Wrong::LateDecision) {
            world.conductors = [None; 2];
        }
        world.leaves.age();
        world.torn = world.torn.saturating_sub(1);
        let older = |age: &mut u8| *age = (*age + 1).min(OLD);
        for cluster in &mut world.clusters {
            cluster.is_new = false;
            if !self.restores {
                cluster.before = None;
            }
            if let Some(says) = &mut cluster.says {
                older(&mut says.at);
                says.settled.as_mut().into_iter().for_each(older);
            }
            cluster.seen.as_mut().into_iter().for_each(older);
        }
    }

    /// Whether the rotation comes to its end from here, if nothing fails from now on and nobody changes his mind.
    fn ends(&self, world: &World) -> bool {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = world.clone();
        let mut passed = Vec::new();
        for _ in 0..40 {
            let hash = hash(&world);
            if world.goal.is_none() || ends.contains(&hash) {
                ends.extend(passed);
                return true;
            }
            passed.push(hash);
            let goal = world.goal;
            self.all_do_their_part(&mut world);
            if world.goal.is_none() {
                let trusts = [Root::A, Root::B].map(|root| Some(root) == goal);
                ends.extend(passed);
                return world.record.trusts == trusts && Some(world.record.issuer) == goal;
            }
        }
        false
    }

    fn all_do_their_part(&self, world: &mut World) {
        world.paused = false;
        world.conductors = [None; 2];
        for at in 0..2 {
            if world.clusters[at].says.is_none() && world.clusters[at].published.is_none() {
                continue;
            }
            let of_each = [Action::GateDies(at), Action::Publish(at), Action::Reload(at, 0), Action::Reload(at, 0)];
            // The one that is left is either the first or the second: they are kept in order.
            for action in of_each.into_iter().chain([Action::Reload(at, 1), Action::Reload(at, 1), Action::Attest(at)])
            {
                let _ = self.act(world, action);
            }
        }
        for action in [Action::Decide(0), Action::Prepare(0), Action::Prepare(1), Action::Write(0), Action::Write(1)] {
            let _ = self.act(world, action);
        }
        let _ = self.act(world, Action::Tick);
    }

    fn of_cluster(&self, world: &World, at: usize, actions: &mut Vec<Action>) {
        let cluster = &world.clusters[at];
        let awaited = if cluster.says.is_some() { Awaited::Known } else { Awaited::Unknown };
        if awaited.first() == First::Attest && !self.is(Wrong::AttestsLate) {
            actions.push(Action::Join(at));
            if self.is(Wrong::ReadsBeforeItAttests) && cluster.gate == Gate::Idle {
                actions.push(Action::GateReads(at));
            }
            return;
        }
        let is_due = cluster.published != Some(world.record);
        if is_due {
            actions.push(Action::Publish(at));
        }
        match cluster.gate {
            Gate::Idle if is_due && self.slow_gates => actions.push(Action::GateReads(at)),
            Gate::Idle => {}
            Gate::Read(_) => actions.extend([Action::GateSigns(at), Action::GateDies(at)]),
            Gate::Signed(_) => actions.extend([Action::GatePublishes(at), Action::GateDies(at)]),
        }
        for istiod in 0..2 {
            if cluster.istiods[istiod].loaded != cluster.published {
                actions.push(Action::Reload(at, istiod));
            } else if self.restores && cluster.is_new && cluster.before.is_some() {
                actions.push(Action::RestartOld(at, istiod));
            }
        }
        if cluster.published.is_some() {
            actions.push(Action::Attest(at));
            if self.wrong_clocks {
                actions.push(Action::AttestBehind(at));
            }
        }
        let was_away = cluster.says.is_some_and(|says| says.at == OLD);
        // One whose own root was dropped meanwhile is not put back: it has to be brought in anew.
        let fits = cluster.before.is_some_and(|before| world.record.trusts(before.issuer));
        if self.restores && was_away && fits {
            actions.push(Action::Restore(at));
        }
    }
}

/// Who decided on what was there before has decided in vain.
fn was_written(world: &mut World) {
    world.conductors.iter_mut().flatten().for_each(|decision| decision.is_current = false);
}

fn restore(cluster: &mut Cluster) {
    cluster.published = cluster.before;
    cluster.before = None;
    (cluster.is_new, cluster.is_unattested) = (false, false);
    cluster.gate = Gate::Idle;
    for istiod in &mut cluster.istiods {
        (istiod.loaded, istiod.is_behind) = (cluster.published, false);
    }
}

/// Every istiod issues all the time, and who cannot be told apart is in order.
fn tidy(world: &mut World) {
    for cluster in &mut world.clusters {
        cluster.istiods.sort_unstable();
        cluster.istiods.iter().filter_map(|istiod| istiod.loaded).for_each(|stand| world.leaves.issue(stand));
    }
    world.conductors.sort_unstable();
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

impl Model for Rotations {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let first = Cluster::settled(Stand::FIRST);
        let second = if self.joins { Cluster::absent() } else { first };
        let mut world = World {
            record: Stand::FIRST,
            goal: Some(Root::B),
            paused: false,
            retired: [false; 2],
            clusters: [first, second],
            conductors: [None; 2],
            leaves: Leaves::default(),
            torn: 0,
            aborts: self.aborts,
            pauses: self.pauses,
        };
        tidy(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        (0..2).for_each(|at| self.of_cluster(world, at, actions));
        for (at, conductor) in world.conductors.iter().enumerate() {
            match conductor {
                // Of two that have nothing to do, one may begin.
                None if at == 0 || world.conductors[0].is_some() => actions.push(Action::Decide(at)),
                None => {}
                Some(decision) if decision.is_prepared => actions.extend([Action::Write(at), Action::Die(at)]),
                Some(_) => actions.extend([Action::Prepare(at), Action::Die(at)]),
            }
        }
        if world.goal.is_some() {
            if world.aborts > 0 {
                actions.push(Action::Abort);
            }
            match world.paused {
                true => actions.push(Action::Resume),
                false if world.pauses > 0 => actions.push(Action::Pause),
                false => {}
            }
        }
        let behind = world.clusters.iter().flat_map(|cluster| cluster.istiods).any(|istiod| istiod.is_behind);
        if !behind {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, action)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("any two workloads accept each other", |_, world: &World| {
                let all = || world.leaves.valid();
                world.torn == 0 && all().all(|one| all().all(|other| one.accepts(other)))
            }),
            Property::always("no leaf is under a root that the record does not trust", |_, world: &World| {
                world.leaves.valid().all(|leaf| world.record.trusts(leaf.issuer))
            }),
            Property::always("the record trusts the root that it has signers under", |_, world: &World| {
                world.record.trusts(world.record.issuer)
            }),
            Property::always("it ends at its goal if nothing fails from now on", |model: &Self, world: &World| {
                model.ends(world)
            }),
            Property::sometimes("the new root is the only one", |_, world: &World| {
                world.goal.is_none() && world.record.trusts == [false, true]
            }),
        ]
    }
}
