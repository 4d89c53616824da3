//! Everything around the replicas: Vaults, clusters, the network, operators, and who ends and begins when.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Mutex;

use stateright::{Model, Property};

use super::local::{Event, Locals, Number};
use super::script::{Answer, Ask, FOREIGN, PinAt, Pinned, Record, Root, Secret};
use crate::plan::Role;
use crate::reason::Reason;
use gate_vault::is_one_vault;

/// What is known to be wrong, and must be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Vault takes a first version over any other.
    NoCas,
    /// What was written is taken for what is there.
    NoReadBack,
    /// A soft deletion is taken for nothing.
    DeletedIsAbsent,
    /// The pin is written over whatever is there.
    PinWithoutCas,
    /// An outage is bridged by what this process knows of the pin.
    BridgesWithoutPin,
    /// An address that is silent is said to be gone.
    SilentIsGone,
    /// `cacerts` is written over whatever is there.
    PublishesWithoutCas,
}

/// What may happen in a world, and how often.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// The cluster of each replica.
    pub(super) replicas: Vec<u8>,
    /// Of each cluster.
    pub(super) roles: Vec<Role>,
    pub(super) vaults: usize,
    pub(super) crashes: u8,
    /// Answers and writes that are lost or late.
    pub(super) lies: u8,
    /// How often somebody acts.
    pub(super) acts: u8,
    pub(super) may: Vec<Act>,
    /// Vault cannot be asked, for as long and as often as may be; what was verified grows old.
    pub(super) outages: bool,
    /// Calls that are made together are answered in one order alone.
    pub(super) in_order: bool,
    /// Also a replica that is open makes attempts.
    pub(super) refreshes: bool,
    pub(super) flaw: Option<Flaw>,
}

/// What others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    SoftDelete,
    DeleteMetadata,
    /// A new version, with another root.
    OtherRoot,
    /// The first version again.
    Restore,
    DeleteCacerts,
    ForeignCacerts,
    /// One of several Vaults goes, or comes back. It is not counted.
    VaultToggles,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Vault {
    record: Record,
    /// The root of its first version.
    first: Option<Root>,
    up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Side {
    secret: Secret,
    secret_version: u8,
    pin: PinAt,
    pin_version: u8,
    /// What istiod serves the mesh, once it was let in.
    mesh: Option<Root>,
    /// What Vault said last that concerns the pin.
    said: Said,
}

/// What Vault said of the pinned root to any replica of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Nothing,
    Against,
    /// And an attempt has ended by it: somebody was told no.
    AgainstAndTold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Replica {
    cluster: u8,
    /// `None`: its process has ended.
    local: Option<Number>,
    /// What it has written to Vault, as far as it remembers; where that is a flaw.
    wrote: Option<Root>,
}

/// A write that is under way, of whom nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Late {
    cluster: u8,
    role_is_sync: bool,
    ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    vaults: Vec<Vault>,
    sides: Vec<Side>,
    replicas: Vec<Replica>,
    late: Vec<Late>,
    crashes: u8,
    lies: u8,
    acts: u8,
    next_root: Root,
    /// The root that pods were let in by.
    admitted: Option<Root>,
    /// Every root that a Vault has had.
    stored: u8,
    pub(super) wrong: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Begin(usize),
    Answer(usize, u8),
    /// Done, and not answered.
    LoseAnswer(usize, u8),
    /// Not done, and not answered.
    Lose(usize, u8),
    /// Not answered, and done later.
    Delay(usize, u8),
    Arrive(usize),
    Crash(usize),
    Restart(usize),
    Admit(usize),
    Bridge(usize),
    Age(usize),
    Others(Act, usize),
}

/// The model.
pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) locals: Mutex<Locals>,
    /// States from which it is known to heal.
    healed: Mutex<HashSet<u64>>,
}

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        Self { setting, locals: Mutex::default(), healed: Mutex::default() }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.setting.flaw == Some(flaw)
    }

    fn fresh(&self, side: &Side, role: Role) -> Number {
        self.locals.lock().unwrap().fresh(role, side.secret, side.secret_version)
    }

    fn step(&self, local: Number, event: Event) -> Number {
        self.locals.lock().unwrap().step(local, event)
    }

    /// What a Vault says to the read of a record.
    fn read_vault(&self, state: &State, trusted: Option<Root>, replica: Replica) -> Answer {
        let Some(place) = state.vaults.iter().position(|vault| vault.up) else { return Answer::Silence };
        let holds = |vault: &Vault| matches!(vault.record, Record::Root { root, .. } if Some(root) == trusted);
        let mut place = place;
        if trusted.is_some() && !holds(&state.vaults[place]) {
            // One that is silent may be the Vault that has it.
            match state.vaults.iter().position(|vault| vault.up && holds(vault)) {
                Some(other) => place = other,
                None if state.vaults.iter().any(|vault| !vault.up) => return Answer::Silence,
                None => {}
            }
        }
        let record = match (state.vaults[place].record, replica.wrote) {
            (_, Some(root)) if self.has(Flaw::NoReadBack) => Record::Root { root, version: 1 },
            (Record::Deleted(_), _) if self.has(Flaw::DeletedIsAbsent) => Record::Absent,
            (record, _) => record,
        };
        Answer::Vault { record, place: place.try_into().unwrap() }
    }

    /// Whether all addresses are one Vault, as the product judges it.
    fn is_one(&self, state: &State, place: u8) -> Answer {
        const NAMES: [&str; 2] = ["https://one", "https://two"];
        if state.vaults.len() == 1 {
            return Answer::One(Ok(()));
        }
        let told =
            |(at, vault): (usize, &Vault)| (NAMES[at], vault.up.then_some(NAMES[at]), self.has(Flaw::SilentIsGone));
        let asked: Vec<_> = state.vaults.iter().enumerate().map(told).collect();
        Answer::One(is_one_vault(NAMES[usize::from(place)], &asked).map_err(|held| held.reason))
    }

    /// A call is done, and this is the answer.
    fn execute(&self, state: &mut State, cluster: u8, sync: bool, ask: Ask) -> Answer {
        let at = usize::from(cluster);
        match ask {
            Ask::ReadVault { .. } | Ask::MakeRoot => unreachable!("of a replica, not of a cluster"),
            Ask::IsOne { place } => self.is_one(state, place),
            Ask::Create { place, root } => self.create(state, sync, usize::from(place), root),
            Ask::Look | Ask::Read => Answer::Secret(state.sides[at].secret),
            Ask::IsStill { version } => Answer::Still(state.sides[at].secret.version() == version),
            Ask::Publish { over, root } => self.publish(state, at, over, root),
            Ask::ReadPin => Answer::Pin(state.sides[at].pin),
            Ask::WritePin { over, pin } => self.write_pin(state, at, over, |_| Some(pin)),
            Ask::Contradict { over, by } => {
                self.write_pin(state, at, over, |pin| pin.map(|pin| Pinned { contradicted: Some(by), ..pin }))
            }
            Ask::Mesh => Answer::Mesh(state.sides[at].mesh),
        }
    }

    fn create(&self, state: &mut State, sync: bool, place: usize, root: Root) -> Answer {
        if !state.vaults[place].up {
            return Answer::Silence;
        }
        if state.vaults[place].record != Record::Absent && !self.has(Flaw::NoCas) {
            // Also over a version that was deleted: it is there still.
            if !(self.has(Flaw::DeletedIsAbsent) && matches!(state.vaults[place].record, Record::Deleted(_))) {
                return Answer::Created { applied: false };
            }
        }
        if sync {
            state.blame("a root was made in the sync role");
        }
        if state.vaults[place].record != Record::Absent {
            state.blame("a version was written over another one");
        }
        if state.vaults.iter().any(|vault| vault.first.is_some() && vault.record != Record::Absent) {
            state.blame("a second root was made");
        }
        let vault = &mut state.vaults[place];
        (vault.record, vault.first) = (Record::Root { root, version: 1 }, Some(root));
        state.stored |= 1 << root;
        Answer::Created { applied: true }
    }

    fn publish(&self, state: &mut State, at: usize, over: u8, root: Root) -> Answer {
        let side = &mut state.sides[at];
        if side.secret.version() != over && !self.has(Flaw::PublishesWithoutCas) {
            return Answer::Written { done: false };
        }
        if matches!(side.secret, Secret::Root { ours: false, .. }) {
            state.blame("somebody else's cacerts was overwritten");
        } else if state.stored & (1 << root) == 0 {
            state.blame("a root was published that Vault never had");
        }
        let side = &mut state.sides[at];
        side.secret_version += 1;
        side.secret = Secret::Root { root, ours: true, version: side.secret_version };
        self.tell(state, at);
        Answer::Written { done: true }
    }

    fn write_pin(
        &self,
        state: &mut State,
        at: usize,
        over: u8,
        change: impl FnOnce(Option<Pinned>) -> Option<Pinned>,
    ) -> Answer {
        let side = &mut state.sides[at];
        if side.pin.version != over && !self.has(Flaw::PinWithoutCas) {
            return Answer::Written { done: false };
        }
        side.pin_version += 1;
        side.pin = PinAt { pin: change(side.pin.pin), version: side.pin_version };
        Answer::Written { done: true }
    }

    /// Watches tell of a `cacerts` that has changed.
    fn tell(&self, state: &mut State, at: usize) {
        let (secret, by) = (state.sides[at].secret, state.sides[at].secret_version);
        for replica in &mut state.replicas {
            if usize::from(replica.cluster) == at
                && let Some(local) = &mut replica.local
            {
                *local = self.step(*local, Event::Told(secret, by));
            }
        }
    }

    /// Hands a replica an answer, and looks at what it comes to.
    fn answer(&self, state: &mut State, at: usize, call: u8, answer: Answer) {
        let Some(before) = state.replicas[at].local else { return };
        let after = self.step(before, Event::Answered(call, answer));
        state.replicas[at].local = Some(after);
        let locals = self.locals.lock().unwrap();
        let local = locals.get(after);
        // What depends on nothing around it happens at once.
        let own = local
            .asks
            .iter()
            .find(|(_, ask)| *ask == Ask::MakeRoot || (matches!(ask, Ask::IsOne { .. }) && self.setting.vaults == 1));
        if let Some((call, ask)) = own.copied() {
            drop(locals);
            let answer = self.ask(state, at, ask);
            return self.answer(state, at, call, answer);
        }
        let side = &mut state.sides[usize::from(state.replicas[at].cluster)];
        if local.is_between() && local.contradiction_recorded && side.said == Said::Against {
            side.said = Said::AgainstAndTold;
        }
    }

    /// Does a call of a replica.
    fn ask(&self, state: &mut State, at: usize, ask: Ask) -> Answer {
        let replica = state.replicas[at];
        let cluster = usize::from(replica.cluster);
        match ask {
            Ask::MakeRoot => {
                state.next_root += 1;
                Answer::Made(state.next_root - 1)
            }
            Ask::ReadVault { trusted } => {
                let answer = self.read_vault(state, trusted, replica);
                let side = &mut state.sides[cluster];
                if let (Answer::Vault { record, .. }, Some(pin)) = (answer, side.pin.pin) {
                    let agrees = matches!(record, Record::Root { root, .. } if root == pin.root);
                    side.said = match (agrees, side.said) {
                        (true, _) => Said::Nothing,
                        (false, Said::Nothing) => Said::Against,
                        (false, said) => said,
                    };
                }
                answer
            }
            ask => {
                if let (Ask::Create { root, .. }, true) = (ask, self.has(Flaw::NoReadBack)) {
                    state.replicas[at].wrote = Some(root);
                }
                let sync = self.setting.roles[cluster] == Role::Sync;
                self.execute(state, replica.cluster, sync, ask)
            }
        }
    }

    fn asked(&self, state: &State, at: usize, call: u8) -> Option<Ask> {
        let local = state.replicas[at].local?;
        let locals = self.locals.lock().unwrap();
        locals.get(local).asks.iter().find(|(number, _)| *number == call).map(|(_, ask)| *ask)
    }

    fn act(&self, state: &mut State, act: Act, at: usize) {
        if act != Act::VaultToggles {
            state.acts -= 1;
        }
        match act {
            Act::VaultToggles => state.vaults[at].up = !state.vaults[at].up,
            Act::SoftDelete => {
                if let Record::Root { version, .. } = state.vaults[at].record {
                    state.vaults[at].record = Record::Deleted(version);
                }
            }
            Act::DeleteMetadata => state.vaults[at].record = Record::Absent,
            Act::OtherRoot => {
                state.vaults[at].record = Record::Root { root: FOREIGN, version: 2 };
                state.stored |= 1 << FOREIGN;
            }
            Act::Restore => {
                if let Some(root) = state.vaults[at].first {
                    state.vaults[at].record = Record::Root { root, version: 3 };
                }
            }
            Act::DeleteCacerts => {
                state.sides[at].secret_version += 1;
                state.sides[at].secret = Secret::Absent;
                self.tell(state, at);
            }
            Act::ForeignCacerts => {
                let version = state.sides[at].secret_version + 1;
                state.sides[at].secret_version = version;
                state.sides[at].secret = Secret::Root { root: FOREIGN, ours: false, version };
                self.tell(state, at);
            }
        }
    }

    /// A pod is let in.
    fn admit(&self, state: &mut State, at: usize, root: Root) {
        let cluster = usize::from(state.replicas[at].cluster);
        if state.admitted.is_some_and(|before| before != root) {
            state.blame("pods were let in under two roots");
        }
        if state.stored & (1 << root) == 0 {
            state.blame("a pod was let in under a root that Vault never had");
        }
        if !matches!(state.sides[cluster].secret, Secret::Root { root: there, .. } if there == root) {
            state.blame("a pod was let in beside another cacerts");
        }
        state.admitted = Some(root);
        state.sides[cluster].mesh = Some(root);
    }

    fn bridge(&self, state: &mut State, at: usize) {
        let Some(local) = state.replicas[at].local else { return };
        let cluster = usize::from(state.replicas[at].cluster);
        let pin = match self.has(Flaw::BridgesWithoutPin) {
            true => None,
            false => Some(state.sides[cluster].pin),
        };
        let root = match pin {
            Some(pin) => {
                let after = self.step(local, Event::PinRead(pin));
                state.replicas[at].local = Some(after);
                self.locals.lock().unwrap().get(after).bridges
            }
            None => state.sides[cluster].pin.pin.map(|pin| pin.root),
        };
        if let Some(root) = root {
            if state.sides[cluster].said == Said::AgainstAndTold {
                state.blame("an outage was bridged although Vault had spoken against it");
            }
            self.admit(state, at, root);
        }
    }
}

impl State {
    fn blame(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    /// Replicas of one cluster are alike: which is which says nothing.
    fn sorted(mut self) -> Self {
        self.replicas.sort_unstable();
        self
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let side = Side {
            secret: Secret::Absent,
            secret_version: 1,
            pin: PinAt::default(),
            pin_version: 0,
            mesh: None,
            said: Said::Nothing,
        };
        let Setting { replicas, roles, vaults, crashes, lies, acts, .. } = &self.setting;
        let replica = |cluster: &u8| Replica {
            cluster: *cluster,
            local: Some(self.fresh(&side, roles[usize::from(*cluster)])),
            wrote: None,
        };
        let state = State {
            vaults: vec![Vault { record: Record::Absent, first: None, up: true }; *vaults],
            replicas: replicas.iter().map(replica).collect(),
            sides: vec![side.clone(); roles.len()],
            late: Vec::new(),
            crashes: *crashes,
            lies: *lies,
            acts: *acts,
            next_root: 0,
            admitted: None,
            stored: 0,
            wrong: None,
        };
        vec![state.sorted()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        let locals = self.locals.lock().unwrap();
        for (at, replica) in state.replicas.iter().enumerate() {
            // Alike replicas do alike.
            if at > 0 && state.replicas[at - 1] == *replica {
                continue;
            }
            let Some(local) = replica.local else {
                actions.push(Action::Restart(at));
                continue;
            };
            let local = locals.get(local);
            if local.is_between() && (self.setting.refreshes || !local.has_verified) {
                actions.push(Action::Begin(at));
            }
            let calls = if self.setting.in_order { 1 } else { local.asks.len() };
            for (call, ask) in local.asks.iter().take(calls) {
                actions.push(Action::Answer(at, *call));
                let is_outage = self.setting.outages && matches!(ask, Ask::ReadVault { .. });
                if state.lies > 0 || is_outage {
                    actions.push(Action::Lose(at, *call));
                }
                if state.lies > 0 && ask.is_write() {
                    actions.extend([Action::LoseAnswer(at, *call), Action::Delay(at, *call)]);
                }
            }
            if state.crashes > 0 {
                actions.push(Action::Crash(at));
            }
            if local.open.is_some() {
                actions.push(Action::Admit(at));
            }
            if local.wants_pin || local.bridges.is_some() {
                actions.push(Action::Bridge(at));
            }
            if local.has_verified && self.setting.outages {
                actions.push(Action::Age(at));
            }
        }
        drop(locals);
        actions.extend((0..state.late.len()).map(Action::Arrive));
        for act in &self.setting.may {
            let places = match act {
                Act::DeleteCacerts | Act::ForeignCacerts => state.sides.len(),
                _ => state.vaults.len(),
            };
            if state.acts > 0 || *act == Act::VaultToggles {
                actions.extend((0..places).map(|at| Action::Others(*act, at)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin(at) => self.happens(&mut state, at, Event::Began),
            Action::Age(at) => self.happens(&mut state, at, Event::Aged),
            Action::Answer(at, call) => {
                let ask = self.asked(&state, at, call)?;
                let answer = self.ask(&mut state, at, ask);
                self.answer(&mut state, at, call, answer);
            }
            Action::LoseAnswer(at, call) => {
                state.lies -= 1;
                let ask = self.asked(&state, at, call)?;
                self.ask(&mut state, at, ask);
                self.answer(&mut state, at, call, Answer::Silence);
            }
            Action::Lose(at, call) => {
                let is_outage = matches!(self.asked(&state, at, call)?, Ask::ReadVault { .. }) && self.setting.outages;
                state.lies -= u8::from(!is_outage);
                self.answer(&mut state, at, call, Answer::Silence);
            }
            Action::Delay(at, call) => {
                state.lies -= 1;
                let (ask, cluster) = (self.asked(&state, at, call)?, state.replicas[at].cluster);
                let role_is_sync = self.setting.roles[usize::from(cluster)] == Role::Sync;
                state.late.push(Late { cluster, role_is_sync, ask });
                self.answer(&mut state, at, call, Answer::Silence);
            }
            Action::Arrive(at) => {
                let Late { cluster, role_is_sync, ask } = state.late.remove(at);
                self.execute(&mut state, cluster, role_is_sync, ask);
            }
            Action::Crash(at) => {
                state.crashes -= 1;
                (state.replicas[at].local, state.replicas[at].wrote) = (None, None);
            }
            Action::Restart(at) => {
                let cluster = usize::from(state.replicas[at].cluster);
                state.replicas[at].local = Some(self.fresh(&state.sides[cluster], self.setting.roles[cluster]));
            }
            Action::Admit(at) => {
                let root = self.locals.lock().unwrap().get(state.replicas[at].local?).open?;
                self.admit(&mut state, at, root);
            }
            Action::Bridge(at) => self.bridge(&mut state, at),
            Action::Others(act, at) => self.act(&mut state, act, at),
        }
        let state = state.sorted();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_, state: &State| state.wrong.is_none()),
            Property::always("it heals", |world: &Self, state: &State| state.wrong.is_some() || world.heals(state)),
            Property::sometimes("a pod is let in", |world: &Self, state: &State| {
                state.admitted.is_some() || world.setting.vaults > 1
            }),
        ]
    }
}

impl World {
    fn happens(&self, state: &mut State, at: usize, event: Event) {
        if let Some(local) = &mut state.replicas[at].local {
            *local = self.step(*local, event);
        }
    }

    /// Whether, from here on without faults, each replica ends an attempt with an open gate, or by what only a person can
    /// mend.
    fn heals(&self, state: &State) -> bool {
        let mut state = state.clone();
        let mut seen = Vec::new();
        for vault in &mut state.vaults {
            vault.up = true;
        }
        while let Some(late) = state.late.pop() {
            self.execute(&mut state, late.cluster, late.role_is_sync, late.ask);
        }
        (state.crashes, state.lies) = (0, 0);
        for _ in 0..1000 {
            let key = BuildHasherDefault::<DefaultHasher>::default().hash_one(&state);
            if self.healed.lock().unwrap().contains(&key) {
                break;
            }
            seen.push(key);
            if self.is_whole(&state) {
                break;
            }
            if state.wrong.is_some() || !self.goes_on(&mut state) {
                return false;
            }
            state = state.sorted();
        }
        let healed = seen.len() < 1000;
        if healed {
            self.healed.lock().unwrap().extend(seen);
        }
        healed
    }

    /// Whether each replica stands as it should.
    fn is_whole(&self, state: &State) -> bool {
        let locals = self.locals.lock().unwrap();
        state.replicas.iter().all(|replica| {
            replica.local.is_some_and(|local| {
                let local = locals.get(local);
                match local.ended {
                    Some(None) => local.open.is_some() && local.has_verified,
                    Some(Some(reason)) => self.is_for_a_person(state, reason),
                    None => false,
                }
            })
        })
    }

    fn is_for_a_person(&self, state: &State, reason: Reason) -> bool {
        let nobody_acted = state.acts == self.setting.acts;
        match reason {
            Reason::VaultAmbiguous => state.vaults.len() > 1,
            Reason::RootMissing => self.setting.roles.iter().all(|role| *role == Role::Sync) || !nobody_acted,
            Reason::RootDeleted | Reason::RootChanged | Reason::CacertsUnknown | Reason::MeshOnOtherRoot => {
                !nobody_acted || state.vaults.len() > 1
            }
            _ => false,
        }
    }

    /// The first replica that is not as it should be does its next step. `false`: none can.
    fn goes_on(&self, state: &mut State) -> bool {
        // In turn: the one that has done the least.
        for at in 0..state.replicas.len() {
            let Some(local) = state.replicas[at].local else {
                *state = match self.next_state(state, Action::Restart(at)) {
                    Some(next) => next,
                    None => return false,
                };
                return true;
            };
            let call = {
                let locals = self.locals.lock().unwrap();
                let local = locals.get(local);
                let is_done = match local.ended {
                    Some(None) => local.open.is_some() && local.has_verified,
                    Some(Some(reason)) => self.is_for_a_person(state, reason),
                    None => false,
                };
                match (is_done, local.asks.first()) {
                    (true, _) => continue,
                    (false, ask) => ask.map(|(call, _)| *call),
                }
            };
            let action = call.map_or(Action::Begin(at), |call| Action::Answer(at, call));
            return match self.next_state(state, action) {
                Some(next) => {
                    *state = next;
                    true
                }
                None => false,
            };
        }
        false
    }
}
