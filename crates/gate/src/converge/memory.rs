//! A store and clusters in memory, shared by several replicas. They lie on purpose: a write that is done and whose answer
//! is lost, one that is lost, one that arrives late, a reader that is behind, and an end of the process before or after
//! any call. Time is tokio's, so that a test may pause it.
#![allow(clippy::unwrap_used)]

mod sides;
mod state;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use crate::ca::bundle::Bundle;
use crate::ca::fixtures::{Ca, HOUR};
use crate::ca::issue::set_validity;
use crate::clock::Clocks;
use crate::cluster::{Happened, Maker};
use crate::order::Told;
use crate::plan::Published;
use crate::reason::{Held, Reason};
use crate::samples::{clocks, later};
use crate::snapshot::Watched;
pub(super) use sides::{MemoryCluster, MemoryStore, found};
use state::State;
pub(super) use state::ours;

/// What is asked of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    ReadVault,
    IsOne,
    Create,
    Issuer,
    Certify,
    Attested,
    Attest,
    MakeRoot,
    Look,
    Read,
    IsStill,
    Publish,
    ReadPin,
    WritePin,
    Contradict,
    Mesh,
    ForceSync,
    Touch,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not done, and there is no answer.
    Lost,
    /// It is done, and there is no answer.
    AnswerLost,
    /// There is no answer, and it is done after so many further calls of anybody.
    Late(usize),
    /// It is refused, and not done.
    Refused(Reason),
    /// It is answered by one that has not seen the last change yet.
    Behind,
    /// The process ends before it.
    CrashBefore,
    /// It is done, and the process ends before it hears of it.
    CrashAfter,
}

/// A write that is under way.
type Delayed = Box<dyn FnOnce(&mut State) + Send>;

struct Inner {
    state: State,
    /// Before the last change.
    before: State,
    calls: Vec<(usize, Call)>,
    /// Of the next call of this kind, or of the call of this number.
    faults: Vec<(When, Fault)>,
    late: Vec<(usize, Delayed)>,
    watchers: Vec<(usize, watch::Sender<Watched>)>,
    told: Vec<Happened>,
    blocked: bool,
    vault_down: Option<Reason>,
    api_down: bool,
    is_one: Result<(), Reason>,
    maker: Maker,
    /// Whether watches tell of what changes.
    watching: bool,
    flux_asked: usize,
    random: Option<fastrand::Rng>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Next(Call),
    Number(usize),
}

/// What replicas share.
pub(super) struct World {
    inner: Mutex<Inner>,
    crashed: Vec<Notify>,
}

/// Most replicas in one world.
const REPLICAS: usize = 10;

impl World {
    /// So many clusters and a store, all with nothing in them.
    pub(super) fn new(clusters: usize) -> Arc<Self> {
        let inner = Inner {
            state: State::nothing(clusters),
            before: State::nothing(clusters),
            calls: Vec::new(),
            faults: Vec::new(),
            late: Vec::new(),
            watchers: Vec::new(),
            told: Vec::new(),
            blocked: false,
            vault_down: None,
            api_down: false,
            is_one: Ok(()),
            maker: Maker::ExternalSecret,
            watching: true,
            flux_asked: 0,
            random: None,
        };
        let crashed = (0..REPLICAS).map(|_| Notify::new()).collect();
        Arc::new(Self { inner: Mutex::new(inner), crashed })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes what is there, as operators and others do.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.lock().act(|state| {
            state.version += 1;
            change(state)
        })
    }

    pub(super) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// The next call of this kind goes wrong.
    pub(super) fn fault(&self, call: Call, fault: Fault) {
        self.lock().faults.push((When::Next(call), fault));
    }

    /// The call of this number, of all, goes wrong.
    pub(super) fn fault_at(&self, number: usize, fault: Fault) {
        self.lock().faults.push((When::Number(number), fault));
    }

    /// Faults that have not happened.
    pub(super) fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    pub(super) fn vault_is_down(&self, reason: Option<Reason>) {
        self.lock().vault_down = reason;
    }

    pub(super) fn api_is_down(&self, down: bool) {
        self.lock().api_down = down;
    }

    pub(super) fn is_one(&self, said: Result<(), Reason>) {
        self.lock().is_one = said;
    }

    pub(super) fn nobody_makes_the_secret(&self) {
        self.lock().maker = Maker::Nobody;
    }

    pub(super) fn watches_are_silent(&self) {
        self.lock().watching = false;
    }

    pub(super) fn some_owner_is_blocked(&self) {
        self.lock().blocked = true;
    }

    /// Each call takes a few milliseconds, and who comes first is decided by this seed.
    pub(super) fn in_the_order_of(&self, seed: u64) {
        self.lock().random = Some(fastrand::Rng::with_seed(seed));
    }

    /// The calls until now, with who made each.
    pub(super) fn calls(&self) -> Vec<(usize, Call)> {
        self.lock().calls.clone()
    }

    pub(super) fn count(&self, call: Call) -> usize {
        self.calls().iter().filter(|(_, made)| *made == call).count()
    }

    pub(super) fn told(&self) -> Vec<Happened> {
        self.lock().told.clone()
    }

    pub(super) fn flux_asked(&self) -> usize {
        self.lock().flux_asked
    }

    /// Ends once this replica's process has.
    pub(super) async fn crashed(&self, who: usize) {
        self.crashed[who].notified().await;
    }

    async fn pause(&self) {
        let pause = self.lock().random.as_mut().map(|random| random.u64(1..10));
        if let Some(pause) = pause {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

impl Inner {
    fn act<T>(&mut self, act: impl FnOnce(&mut State) -> T) -> T {
        let before = self.state.clone();
        let acted = act(&mut self.state);
        if self.state.version != before.version {
            self.before = before;
        }
        if self.watching {
            for (cluster, watcher) in &self.watchers {
                tell(watcher, &self.state.clusters[*cluster].cacerts, self.state.version);
            }
        }
        acted
    }

    /// A call arrives: what was late is done first.
    fn arrives(&mut self, who: usize, call: Call) -> Option<Fault> {
        let number = self.calls.len();
        self.calls.push((who, call));
        let due;
        (due, self.late) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= number);
        for (_, act) in due {
            self.act(act);
        }
        let is_due = |when: &When| matches!(when, When::Next(next) if *next == call) || *when == When::Number(number);
        let at = self.faults.iter().position(|(when, _)| is_due(when))?;
        Some(self.faults.remove(at).1)
    }
}

impl Inner {
    /// What comes of a call with this fault.
    fn answer<T>(
        &mut self,
        fault: Option<Fault>,
        act: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Option<Reason>> {
        match fault {
            None => return Ok(self.act(act)),
            Some(Fault::Behind) => return Ok(act(&mut self.before.clone())),
            Some(Fault::Refused(reason)) => return Err(Some(reason)),
            Some(Fault::Late(calls)) => {
                self.late.push((self.calls.len() + calls, Box::new(move |state| drop(act(state)))));
            }
            Some(Fault::AnswerLost | Fault::CrashAfter) => drop(self.act(act)),
            Some(Fault::Lost | Fault::CrashBefore) => {}
        }
        Err(None)
    }
}

/// What the watch and the read after it tell.
fn tell(watcher: &watch::Sender<Watched>, cacerts: &Published, version: u64) {
    watcher.send_if_modified(|watched| {
        let told = match cacerts {
            Published::Absent => Told::absent(version.to_string()),
            Published::Present(copy) => Told::present(copy.resource_version.clone()),
        };
        let is_news = watched.order.version() != Some(&told.version) || watched.heard.is_none();
        if is_news {
            watched.was_told(told, told_at().boot);
            watched.was_read(watched.order.generation(), cacerts, told_at().boot);
        }
        is_news
    });
}

/// The time of all tests, and what has passed by tokio's clock since the first of them began.
pub(super) fn told_at() -> Clocks {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let start = *START;
    let passed = tokio::time::Instant::now().into_std().saturating_duration_since(start);
    later(clocks(), SignedDuration::try_from(passed).unwrap())
}

/// Roots of which each gate that makes one makes another.
static ROOTS: LazyLock<Vec<Bundle>> =
    LazyLock::new(|| (0..16).map(|at| Ca::root(&format!("Made {at}")).bundle()).collect());

/// Roots that the PKI engine makes, one after the other.
static IN_VAULT: LazyLock<Vec<Ca>> = LazyLock::new(|| (0..3).map(|at| Ca::root(&format!("In Vault {at}"))).collect());

/// What an issuer certifies for so long from now on.
fn certify(root: usize, request: &str, common_name: &str, life: Duration) -> String {
    let now = told_at().wall.as_second();
    let until = now + i64::try_from(life.as_secs()).unwrap();
    IN_VAULT[root].certify(request, common_name, |params| set_validity(params, now - HOUR, until))
}

/// Makes the root of the number that ends the name.
pub(super) fn make(common_name: String, _: Timestamp) -> BoxFuture<'static, Result<Bundle, Held>> {
    let number: usize = common_name.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap();
    Box::pin(async move {
        // Others act meanwhile.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(ROOTS[number % ROOTS.len()].clone())
    })
}

/// One replica's side of a call.
#[derive(Clone)]
struct Caller {
    world: Arc<World>,
    who: usize,
}

impl Caller {
    /// `Err`: refused, with this reason, or else no answer.
    async fn call<T: 'static>(
        &self,
        call: Call,
        down: impl Fn(&Inner) -> Option<Reason>,
        act: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Option<Reason>> {
        self.world.pause().await;
        let (answer, crash) = {
            let mut inner = self.world.lock();
            let fault = inner.arrives(self.who, call);
            match down(&inner).filter(|_| fault.is_none()) {
                Some(reason) => (Err(Some(reason)), false),
                None => (inner.answer(fault, act), matches!(fault, Some(Fault::CrashBefore | Fault::CrashAfter))),
            }
        };
        if crash {
            self.world.crashed[self.who].notify_one();
            std::future::pending::<()>().await;
        }
        self.world.pause().await;
        answer
    }
}
