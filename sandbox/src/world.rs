//! Two clusters and the Vault that they share, set up as the README says: embedded, or the real ones of `testbed`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::{Cluster, VaultApi, VaultOptions};

use standin::faults::{Aim, Faults};
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
    servers: Servers,
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
            servers: Servers::Real { _servers: Box::new((homelab, nas, vault)) },
        };
        world.set_up().await
    }

    async fn set_up(self) -> Result<Self> {
        for (side, login) in [(&self.homelab, Login::TokenReview), (&self.nas, Login::Signature)] {
            side.install().await?;
            side.introduce_to(&self.vault, login).await?;
        }
        Ok(self)
    }

    /// The fault switches of the embedded servers, by the servers' names.
    pub fn faults(&self) -> Vec<(&'static str, &Faults)> {
        match &self.servers {
            Servers::Embedded(embedded) => {
                let Embedded { homelab, nas, vault } = &**embedded;
                vec![("vault", vault.faults()), ("homelab", homelab.faults()), ("nas", nas.faults())]
            }
            Servers::Real { .. } => Vec::new(),
        }
    }

    /// Switches a fault of an embedded server on, both by name.
    ///
    /// # Errors
    /// In words for users, if there is no such server or fault.
    pub fn inject(&self, server: &str, fault: &str) -> Result<()> {
        let faults = self.faults();
        let faults = faults.iter().find(|(name, _)| *name == server).map(|(_, faults)| faults);
        let faults = faults.with_context(|| format!("no server is named {server}: there are vault, homelab, nas"))?;
        faults.inject(fault.parse().map_err(anyhow::Error::msg)?, Aim::all());
        Ok(())
    }
}
