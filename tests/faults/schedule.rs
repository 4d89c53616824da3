//! What goes wrong in a run, and when: all of it follows from a seed.

use std::fmt;
use std::time::Duration;

use axum::http::Method;
use standin::faults::{Aim, Fault};

/// Numbers that follow from a seed, the same at all times and places (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Vault,
    Cluster(usize),
}

/// What becomes of a gate's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Kill,
    Terminate,
    Freeze,
}

/// What people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    DeleteCacerts,
    TamperWithCacerts,
    PutForeignCacerts,
    DeletePin,
    DeleteServingSecret,
    StripBundle,
    RestartPods,
    SealVault,
    WriteSameVersion,
    RefuseLogins,
    DeleteRecord,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Step {
    Fault {
        server: Server,
        fault: Fault,
        method: Option<Method>,
        path: &'static str,
        times: Option<usize>,
    },
    Heal(Server),
    Act {
        act: Act,
        cluster: usize,
    },
    Process {
        deed: Deed,
        cluster: usize,
        replica: usize,
    },
    /// Vault says that the root is deleted, and once the gates have heard it is away: no gate may open by what it knew.
    ContradictAndVanish,
}

impl Step {
    /// Which requests a fault is at; those of an administrator are spared.
    pub fn aim(method: Option<&Method>, path: &str, times: Option<usize>, token: &str) -> Aim {
        let aim = Aim::all().path(path).sparing(token);
        let aim = method.map_or(aim.clone(), |method| aim.method(method.clone()));
        times.map_or(aim.clone(), |times| aim.times(times))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { server, fault, method, path, times } => {
                let method = method.as_ref().map_or("any", Method::as_str);
                write!(f, "{server:?}: {fault} at {method} {path:?}")?;
                times.map_or(Ok(()), |times| write!(f, ", {times} times"))
            }
            Self::Heal(server) => write!(f, "{server:?}: its faults end"),
            Self::Act { act, cluster } => write!(f, "cluster {cluster}: {act:?}"),
            Self::Process { deed, cluster, replica } => write!(f, "cluster {cluster}, replica {replica}: {deed:?}"),
            Self::ContradictAndVanish => f.write_str("Vault speaks against the root, and is away"),
        }
    }
}

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(6);

const VAULT_FAULTS: [&str; 13] = [
    "silent",
    "request-lost",
    "answer-lost",
    "late",
    "slow=4s",
    "cut",
    "html",
    "html=200",
    "403",
    "429",
    "500",
    "sealed",
    "byte-by-byte",
];

const VAULT_PATHS: [(&str, Option<Method>); 5] = [
    ("", None),
    ("/login", None),
    ("secret/data/istio/ca", None),
    ("secret/data/istio/ca", Some(Method::POST)),
    ("sys/health", None),
];

const CLUSTER_FAULTS: [&str; 12] =
    ["silent", "request-lost", "answer-lost", "late", "slow=4s", "cut", "html", "401", "403", "409", "410", "500"];

const CLUSTER_PATHS: [(&str, Option<Method>); 9] = [
    ("", None),
    ("secrets/cacerts", None),
    ("secrets/cacerts", Some(Method::PATCH)),
    ("namespaces/istio-system/secrets", Some(Method::POST)),
    ("configmaps", None),
    ("watch=true", None),
    ("events", None),
    ("replicasets", None),
    ("webhookconfigurations", None),
];

const ACTS: [Act; 11] = [
    Act::DeleteCacerts,
    Act::TamperWithCacerts,
    Act::PutForeignCacerts,
    Act::DeletePin,
    Act::DeleteServingSecret,
    Act::StripBundle,
    Act::RestartPods,
    Act::SealVault,
    Act::WriteSameVersion,
    Act::RefuseLogins,
    Act::DeleteRecord,
];

/// What goes wrong by this seed, with `replicas` in each of two clusters.
pub fn schedule(seed: u64, replicas: usize) -> Vec<(Duration, Step)> {
    let mut random = Random::new(seed);
    let count = 8 + random.below(9);
    let mut steps: Vec<_> = (0..count)
        .map(|_| {
            let at = Duration::from_millis(random.below(TROUBLE.as_millis() as u64));
            (at, step(&mut random, replicas))
        })
        .collect();
    if random.below(3) == 0 {
        steps.push((TROUBLE, Step::ContradictAndVanish));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn step(random: &mut Random, replicas: usize) -> Step {
    let cluster = random.below(2) as usize;
    match random.below(10) {
        0..=3 => {
            let server = if random.below(2) == 0 { Server::Vault } else { Server::Cluster(cluster) };
            let (faults, paths) = match server {
                Server::Vault => (&VAULT_FAULTS[..], &VAULT_PATHS[..]),
                Server::Cluster(_) => (&CLUSTER_FAULTS[..], &CLUSTER_PATHS[..]),
            };
            let (path, method) = random.pick(paths).clone();
            let fault = random.pick(faults).parse().unwrap_or(Fault::Silent);
            let times = (random.below(3) > 0).then(|| 1 + random.below(4) as usize);
            Step::Fault { server, fault, method, path, times }
        }
        4 => Step::Heal(if random.below(2) == 0 { Server::Vault } else { Server::Cluster(cluster) }),
        5..=7 => Step::Act { act: *random.pick(&ACTS), cluster },
        _ => {
            let deed = *random.pick(&[Deed::Kill, Deed::Kill, Deed::Terminate, Deed::Freeze]);
            Step::Process { deed, cluster, replica: random.below(replicas as u64) as usize }
        }
    }
}

/// A seed gives one schedule, and every fault is one that there is. Asked before each run: no harness counts tests here.
pub fn check() -> Result<(), String> {
    for name in VAULT_FAULTS.iter().chain(&CLUSTER_FAULTS) {
        name.parse::<Fault>()?;
    }
    let told = |seed| format!("{:?}", schedule(seed, 2));
    if told(7) == told(7) && told(7) != told(8) { Ok(()) } else { Err("a seed does not reproduce".to_owned()) }
}
