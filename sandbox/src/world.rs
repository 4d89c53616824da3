//! Two clusters and the Vault that they share, set up as the README says: embedded, or the real ones of `testbed`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use testbed::{Cluster, VaultApi, VaultOptions};
use tokio::task::JoinSet;

use crate::node;
use standin::faults::{Aim, Fault, Faults};
use standin::kubernetes::Kubernetes;
use standin::vault::Vault;
use testbed::side::{Login, Side};

/// Two clusters and a Vault. Their gates are not there yet.
#[derive(Debug)]
pub struct World {
    /// The cluster that makes the root.
    pub homelab: Side,
    /// The cluster that copies it.
    pub nas: Side,
    /// The Vault that they share.
    pub vault: VaultApi,
    /// How long the servers took to start, without their set-up.
    pub started_in: Duration,
    /// One for each cluster.
    nodes: JoinSet<()>,
    servers: Servers,
}

/// The servers that faults are switched on at.
pub(crate) const SERVERS: [&str; 3] = ["vault", "homelab", "nas"];

/// A server and a fault of it, both by name.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    server: &'static str,
    fault: Fault,
}

impl Trouble {
    /// Reads both names.
    ///
    /// # Errors
    /// In words for users, with all names that there are.
    pub fn named(server: &str, fault: &str) -> Result<Self> {
        let known = SERVERS.into_iter().find(|known| *known == server);
        let server =
            known.with_context(|| format!("no server is named {server:?}: there are {}", SERVERS.join(", ")))?;
        Ok(Self { server, fault: fault.parse().map_err(|error: String| anyhow!(error))? })
    }
}

impl FromStr for Trouble {
    type Err = anyhow::Error;

    /// As `vault=sealed` or `nas=slow=200ms`.
    fn from_str(text: &str) -> Result<Self> {
        let (server, fault) = text.split_once('=').context("it is not SERVER=FAULT, as vault=sealed")?;
        Self::named(server, fault)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.fault)
    }
}

/// What ends on drop.
#[derive(Debug)]
enum Servers {
    Embedded(Box<Embedded>),
    Real { _servers: Box<(Cluster, Cluster, testbed::Vault)> },
}

#[derive(Debug)]
struct Embedded {
    homelab: Kubernetes,
    nas: Kubernetes,
    vault: Vault,
}

impl World {
    /// In this process.
    pub async fn embedded() -> Result<Self> {
        let began = Instant::now();
        let (homelab, nas, vault) =
            tokio::try_join!(Kubernetes::start("homelab"), Kubernetes::start("nas"), Vault::start())?;
        let world = Self {
            homelab: Side::homelab((*homelab).clone()),
            nas: Side::nas((*nas).clone()),
            vault: (*vault).clone(),
            started_in: began.elapsed(),
            nodes: JoinSet::new(),
            servers: Servers::Embedded(Box::new(Embedded { homelab, nas, vault })),
        };
        world.set_up().await
    }

    /// Real control planes and a real Vault, as child processes.
    pub async fn real() -> Result<Self> {
        let began = Instant::now();
        let vault = testbed::Vault::start(VaultOptions::default());
        let (homelab, nas, vault) = tokio::try_join!(Cluster::start("homelab"), Cluster::start("nas"), vault)?;
        let world = Self {
            homelab: Side::homelab((*homelab).clone()),
            nas: Side::nas((*nas).clone()),
            vault: (*vault).clone(),
            started_in: began.elapsed(),
            nodes: JoinSet::new(),
            servers: Servers::Real { _servers: Box::new((homelab, nas, vault)) },
        };
        world.set_up().await
    }

    async fn set_up(mut self) -> Result<Self> {
        for (side, login) in [(&self.homelab, Login::TokenReview), (&self.nas, Login::Signature)] {
            side.install().await?;
            side.introduce_to(&self.vault, login).await?;
            self.nodes.spawn(node::run(side.clone()));
        }
        Ok(self)
    }

    /// The fault switches of the embedded servers, by the servers' names.
    pub fn faults(&self) -> Vec<(&'static str, &Faults)> {
        match &self.servers {
            Servers::Embedded(embedded) => {
                let Embedded { homelab, nas, vault } = &**embedded;
                SERVERS.into_iter().zip([vault.faults(), homelab.faults(), nas.faults()]).collect()
            }
            Servers::Real { .. } => Vec::new(),
        }
    }

    /// Switches a fault of an embedded server on.
    pub fn inject(&self, Trouble { server, fault }: Trouble) {
        for (name, faults) in self.faults() {
            if name == server {
                faults.inject(fault, Aim::all());
            }
        }
    }
}
