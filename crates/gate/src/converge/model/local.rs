//! One replica in the model: the product's own attempt, run by the answers that it was given, and the product's own gate
//! over what it knows then. Each such replica is worked out once and has a number.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use k8s_openapi::jiff::SignedDuration;
use tokio::sync::watch;

use super::super::attempt::{Attempts, Kept, Parts, Round};
use super::super::scenes::COUNTED;
use super::script::{
    Answer, Ask, PinAt, Root, SCRIPT, Script, ScriptedCluster, ScriptedStore, Secret, fixed, make, number,
};
use crate::gate::{self, Decision, Gated, Learn, gate};
use crate::order::Told;
use crate::plan::{OnRootChange, Role};
use crate::reason::{Held, Reason};
use crate::samples::{POLICY, clocks_ago, held, names};
use crate::selector;
use crate::snapshot::{Convergence, Snapshot, Watched};

/// The number of a replica's state.
pub(super) type Number = u32;

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// An attempt begins.
    Began,
    /// A call of this round is answered.
    Answered(u8, Answer),
    /// The watch tells, by this version, and what it tells of is read.
    Told(Secret, u8),
    /// The webhook reads the pin.
    PinRead(PinAt),
    /// What was verified is older than `--refresh`.
    Aged,
}

/// At the beginning of a round, or between attempts.
#[derive(Clone)]
struct Start {
    convergence: Convergence,
    watched: Watched,
    kept: Kept,
    in_attempt: bool,
}

/// A replica's state, and what follows from it.
pub(super) struct Local {
    role: Role,
    start: Start,
    /// Of this round.
    events: Vec<Event>,
    /// Calls that are under way.
    pub(super) asks: Vec<(u8, Ask)>,
    /// The gate lets in by an agreement with this root.
    pub(super) open: Option<Root>,
    /// The gate lets in by what was verified before, if it knows the pin at this moment.
    pub(super) bridges: Option<Root>,
    /// The gate would bridge once it has read the pin.
    pub(super) wants_pin: bool,
    /// The last attempt's end, between attempts.
    pub(super) ended: Option<Option<Reason>>,
    /// Vault speaks against the pin, and the pin tells it.
    pub(super) contradiction_recorded: bool,
    pub(super) has_verified: bool,
}

/// All replicas that came about.
#[derive(Default)]
pub(super) struct Locals {
    all: Vec<Arc<Local>>,
    numbers: HashMap<String, Number>,
    steps: HashMap<(Number, Event), Number>,
    /// How often the product's code was run.
    pub(super) runs: usize,
}

impl Locals {
    pub(super) fn get(&self, number: Number) -> &Arc<Local> {
        &self.all[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// A process that has just begun, and has heard of this by its watch.
    pub(super) fn fresh(&mut self, role: Role, secret: Secret, by: u8) -> Number {
        let start = Start {
            convergence: Convergence::default(),
            watched: Watched::default(),
            kept: Kept::default(),
            in_attempt: false,
        };
        self.settle(role, start, vec![Event::Told(secret, by)])
    }

    pub(super) fn step(&mut self, number: Number, event: Event) -> Number {
        if let Some(next) = self.steps.get(&(number, event)) {
            return *next;
        }
        let local = Arc::clone(self.get(number));
        let mut events = local.events.clone();
        forget_the_same_read(&mut events, event);
        events.push(event);
        sort_answers(&mut events);
        let next = self.settle(local.role, local.start.clone(), events);
        self.steps.insert((number, event), next);
        next
    }

    fn settle(&mut self, role: Role, mut start: Start, mut events: Vec<Event>) -> Number {
        loop {
            if !start.in_attempt {
                return self.between(role, start, events);
            }
            self.runs += 1;
            let ran = run(role, &start, &events);
            let Some(round) = ran.round else {
                let asks = ran.asks;
                return self.number(Local::new(role, start, events, asks, ran.convergence, ran.watched, ran.pin_fresh));
            };
            events.clear();
            start = Start::after(ran.convergence, ran.watched, ran.kept, round);
        }
    }

    /// Between attempts an event is all there is.
    fn between(&mut self, role: Role, mut start: Start, events: Vec<Event>) -> Number {
        let mut pin_fresh = false;
        for event in events {
            if event == Event::Began {
                start.convergence.began();
                start.kept.begin();
                start.in_attempt = true;
                return self.settle(role, start.at_rest(), Vec::new());
            }
            pin_fresh = happen(event, &mut start.convergence, &mut start.watched);
        }
        let (convergence, watched) = (start.convergence.clone(), start.watched.clone());
        let start = start.at_rest();
        self.number(Local::new(role, start, Vec::new(), Vec::new(), convergence, watched, pin_fresh))
    }

    fn number(&mut self, local: Local) -> Number {
        let key = local.key();
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = Number::try_from(self.all.len()).unwrap();
        self.all.push(Arc::new(local));
        self.numbers.insert(key, number);
        number
    }
}

/// A process cannot tell in which order two calls were answered that it waits for together.
fn sort_answers(events: &mut [Event]) {
    let order = |event: &Event| match event {
        Event::Answered(at, _) => Some(*at),
        _ => None,
    };
    for group in events.chunk_by_mut(|one, other| order(one).is_some() && order(other).is_some()) {
        group.sort_by_key(order);
    }
}

/// A pin that is read again, and tells what it told, tells nothing new: a call may come at any time, and as often as it
/// likes.
fn forget_the_same_read(events: &mut Vec<Event>, event: Event) {
    let since_answer = events.iter().rposition(|event| matches!(event, Event::Answered(..))).map_or(0, |at| at + 1);
    let same = |before: &Event| *before == event && matches!(event, Event::PinRead(_));
    if let Some(at) = events[since_answer..].iter().position(same) {
        events.remove(since_answer + at);
    }
}

/// What an event other than an answer does. Returns whether the pin is known from just now.
fn happen(event: Event, convergence: &mut Convergence, watched: &mut Watched) -> bool {
    match event {
        Event::Told(secret, by) => {
            let told = match secret {
                Secret::Absent => Told::absent(by.to_string()),
                Secret::Root { version, .. } => Told::present(version.to_string()),
            };
            watched.was_told(told, fixed().boot);
            watched.was_read(watched.order.generation(), &secret.published(), fixed().boot);
        }
        Event::PinRead(pin) => {
            let learnt = convergence.pin_learnt;
            return convergence.pin_was_read(learnt, pin.read().pin.as_ref(), fixed());
        }
        Event::Aged => {
            if let Some(verified) = &mut convergence.verified {
                verified.at = clocks_ago(3600);
            }
        }
        Event::Began | Event::Answered(..) => {}
    }
    false
}

/// A second has passed: what was read is not known from just now.
fn pass(convergence: &mut Convergence, watched: &mut Watched) {
    (convergence.pin_read, watched.read) = (None, None);
}

/// What came of a round as far as it has got.
struct Ran {
    /// `None`: it waits.
    round: Option<Result<Round, Held>>,
    asks: Vec<(u8, Ask)>,
    convergence: Convergence,
    watched: Watched,
    kept: Kept,
    pin_fresh: bool,
}

fn run(role: Role, start: &Start, events: &[Event]) -> Ran {
    SCRIPT.with_borrow_mut(|script| *script = Script::default());
    let state = watch::Sender::new(start.convergence.clone());
    let watched = watch::Sender::new(start.watched.clone());
    let mut attempts = Attempts::new(Parts {
        role,
        on_root_change: OnRootChange::Halt,
        pin_age_max: SignedDuration::from_hours(1),
        names: names(),
        common_name: String::new(),
        signer: None,
        store: ScriptedStore,
        cluster: ScriptedCluster(watched.clone()),
        make_root: make,
        now: fixed,
        counted: COUNTED.clone(),
    });
    attempts.kept = start.kept.clone();
    let (mut round, mut pin_fresh) = (None, false);
    {
        let mut future = pin!(attempts.round(&state));
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = || match future.as_mut().poll(&mut context) {
            Poll::Ready(ended) => Some(ended.map_err(|refused| refused.held)),
            Poll::Pending => None,
        };
        round = round.or_else(&mut poll);
        for event in events {
            state.send_modify(|convergence| watched.send_modify(|watched| pass(convergence, watched)));
            pin_fresh = false;
            if let Event::Answered(at, answer) = event {
                answered(usize::from(*at), *answer);
            } else {
                state.send_modify(|convergence| {
                    watched.send_modify(|watched| pin_fresh = happen(*event, convergence, watched));
                });
            }
            round = round.or_else(&mut poll);
        }
    }
    let (convergence, watched) = (state.borrow().clone(), watched.borrow().clone());
    Ran { round, asks: waiting(), convergence, watched, kept: attempts.kept, pin_fresh }
}

fn answered(at: usize, answer: Answer) {
    SCRIPT.with_borrow_mut(|script| {
        script.answers.resize(script.answers.len().max(at + 1), None);
        script.answers[at] = Some(answer);
    });
}

/// Calls without an answer.
fn waiting() -> Vec<(u8, Ask)> {
    SCRIPT.with_borrow(|script| {
        let is_open = |at: &usize| script.answers.get(*at).copied().flatten().is_none();
        let open = (0..script.asked.len()).filter(is_open);
        open.map(|at| (u8::try_from(at).unwrap(), script.asked[at])).collect()
    })
}

impl Start {
    /// After a round that ended so.
    fn after(mut convergence: Convergence, watched: Watched, kept: Kept, round: Result<Round, Held>) -> Self {
        let ended = match round {
            Ok(Round::Open) => Some(None),
            Ok(Round::Again) => None,
            Err(held) => Some(Some(held)),
        };
        let in_attempt = ended.is_none();
        if let Some(held) = ended {
            convergence.ended(held, fixed().wall);
        }
        Self { convergence, watched, kept, in_attempt }.at_rest()
    }

    /// Without what only counts, or is only shown.
    fn at_rest(mut self) -> Self {
        let convergence = &mut self.convergence;
        (convergence.finished, convergence.pin_learnt) = (0, 0);
        (convergence.doing, convergence.root) = Default::default();
        convergence.held = convergence.held.take().map(|known| held(known.reason));
        self.kept.forget_what_is_told();
        self.watched.order = self.watched.order.at_rest();
        pass(convergence, &mut self.watched);
        self
    }
}

impl Local {
    fn new(
        role: Role,
        start: Start,
        events: Vec<Event>,
        asks: Vec<(u8, Ask)>,
        mut convergence: Convergence,
        mut watched: Watched,
        pin_fresh: bool,
    ) -> Self {
        let pin_read = convergence.pin_read.filter(|_| pin_fresh);
        pass(&mut convergence, &mut watched);
        convergence.pin_read = pin_read;
        let (mut open, mut bridges, mut wants_pin) = (None, None, false);
        match let_in(&convergence, &watched) {
            Ok(Decision::Open { root, .. }) => open = Some(number(root)),
            Ok(Decision::OpenUnverified { root, .. }) => bridges = Some(number(root)),
            Err(Learn::Pin) => wants_pin = true,
            Ok(Decision::NotGated | Decision::Deny(_)) | Err(Learn::Cacerts | Learn::Convergence) => {}
        }
        let ended =
            (!start.in_attempt && convergence.consulted).then(|| convergence.held.as_ref().map(|held| held.reason));
        Self {
            role,
            start,
            events,
            asks,
            open,
            bridges,
            wants_pin,
            ended,
            contradiction_recorded: convergence.contradicted.is_some_and(|known| known.recorded),
            has_verified: convergence.verified.is_some_and(|verified| verified.at == fixed()),
        }
    }

    pub(super) fn is_between(&self) -> bool {
        !self.start.in_attempt
    }

    fn key(&self) -> String {
        let Start { convergence, watched, kept, in_attempt } = &self.start;
        let (bridges, role) = (self.bridges, self.role);
        format!("{role:?} {in_attempt} {} {convergence:?} {watched:?} {:?} {bridges:?}", kept.key(), self.events)
    }
}

/// The product's answer for the creation of a gated pod.
fn let_in(convergence: &Convergence, watched: &Watched) -> Result<Decision, Learn> {
    static LABELS: LazyLock<BTreeMap<String, String>> =
        LazyLock::new(|| BTreeMap::from([("app".to_owned(), "istiod".to_owned())]));
    static GATED: LazyLock<Gated> = LazyLock::new(|| Gated(vec![selector::parse("app=istiod").unwrap()]));
    let ask = gate::Ask { is_pod: true, is_create: true, dry_run: false, labels: &LABELS };
    gate(&ask, &GATED, Snapshot { watched, convergence }, &POLICY, fixed())
}
