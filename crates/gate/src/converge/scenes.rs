//! Whole attempts, and whole lives of replicas, on a store and clusters in memory that lie. No socket, and time that moves
//! by itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod crashes;
mod loops;
mod races;
mod rows;
mod signing;
mod unclear;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use tokio::time::Instant;

use super::Convergences;
use super::memory::{MemoryCluster, MemoryStore, World, make, told_at};
use super::*;
use crate::ca::check::Sound;
use crate::ca::signer::SignerTerms;
use crate::metrics::{Labels, Metrics};
use crate::plan::{OnRootChange, Published, Role, Stored};
use crate::samples::names;

const SCHEDULE: Schedule = Schedule { retry_max: Duration::from_secs(2), refresh: Duration::from_secs(60) };

/// Of a signer.
const SIGNER_LIFE: Duration = Duration::from_hours(90 * 24);

/// Longer than any convergence takes that needs nobody.
const SOON: Duration = Duration::from_secs(60);

pub(super) static COUNTED: LazyLock<Convergences> = LazyLock::new(|| {
    let labels = Labels { cluster: "nas".to_owned(), role: Role::Sync, version: "0" };
    Metrics::new(labels).unwrap().convergences
});

/// Who a replica is.
#[derive(Clone, Copy, Debug)]
struct Who {
    replica: usize,
    cluster: usize,
    role: Role,
    on_root_change: OnRootChange,
    /// It has its signer certified by the PKI engine.
    signs: bool,
    /// How often its process began before.
    life: usize,
}

impl Who {
    fn first(role: Role) -> Self {
        Self { replica: 0, cluster: 0, role, on_root_change: OnRootChange::Halt, signs: false, life: 0 }
    }
}

/// A process that has just begun.
struct Process {
    converger: Converger,
    attempts: Attempts<MemoryStore, MemoryCluster>,
}

impl Process {
    fn begin(world: &Arc<World>, who: Who) -> Self {
        let cluster = MemoryCluster::new(world, who.replica, who.cluster);
        let converger = Converger::new(cluster.watched(), told_at);
        let attempts = Attempts::new(Parts {
            role: who.role,
            on_root_change: who.on_root_change,
            pin_age_max: SignedDuration::from_hours(1),
            names: names(),
            common_name: format!("root {}", who.replica + 3 * who.life),
            signer: who.signs.then(|| SignerTerms { cluster: format!("cluster-{}", who.cluster), life: SIGNER_LIFE }),
            store: MemoryStore::new(world, who.replica),
            cluster,
            make_root: make,
            now: told_at,
            counted: COUNTED.clone(),
        });
        Self { converger, attempts }
    }

    /// One attempt, and what it is held by.
    async fn attempt(&mut self) -> Option<Reason> {
        self.converger.attempt(&mut self.attempts).await;
        self.converger.look(|known| {
            assert_eq!(known.convergence.verified.is_some(), known.convergence.held.is_none());
            known.convergence.held.as_ref().map(|held| held.reason)
        })
    }

    fn is_contradicted(&self) -> bool {
        self.converger.look(|known| known.convergence.contradicted.is_some())
    }
}

/// One attempt of a process that has just begun, and what it is held by.
async fn attempt(world: &Arc<World>, who: Who) -> Option<Reason> {
    Process::begin(world, who).attempt().await
}

/// A replica until its gate is open, whose process is begun anew whenever it ends.
async fn live(world: Arc<World>, mut who: Who) -> Verified {
    let deadline = Instant::now() + SOON;
    loop {
        let Process { converger, attempts } = Process::begin(&world, who);
        tokio::select! {
            opened = converger.until_open(attempts, SCHEDULE, deadline) => return opened.unwrap(),
            () = world.crashed(who.replica) => who.life += 1,
        }
    }
}

/// Vault's CA.
fn in_vault(world: &World) -> Arc<Sound> {
    match world.state().stored {
        Stored::Sound { sound, .. } => sound,
        other => panic!("{other:?}"),
    }
}

/// What must hold once everything is open: one version, the first, and each cluster on it.
fn assert_one_root(world: &World) {
    let state = world.state();
    let Stored::Sound { version: 1, sound } = &state.stored else { panic!("{:?}", state.stored) };
    for side in &state.clusters {
        let Published::Present(copy) = &side.cacerts else { panic!("no cacerts") };
        assert!(copy.verdict.as_ref().is_ok_and(|published| published.same_bytes(sound)), "{side:?}");
        let pin = side.pin.pin.as_ref().unwrap();
        assert_eq!((pin.root, &pin.roots, pin.contradicted), (sound.root, sound.roots(), None));
    }
}
