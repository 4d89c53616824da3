//! The clients of one cluster's API, as the convergence knows them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::Client;

use super::cacerts::Cacerts;
use super::events::{Events, Writer};
use super::external_secrets::ExternalSecrets;
use super::flux::{HelmRelease, Reconciles};
use super::mesh::Served;
use super::owners::Owners;
use super::pin::Pins;
use super::{ApiClock, Write};
use gate_core::ca::check::Sound;
use gate_core::ca::record::RecordState;
use gate_core::cluster::{Bystanders, Cluster, Happened, Maker, Passed};
use gate_core::gate::Gated;
use gate_core::plan::{Contradiction, Mesh, Pin, Published, ReadPin};
use gate_core::reason::Held;

/// Which cluster it is, and what is looked after in it.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its name, for Events.
    pub cluster: &'a str,
    /// Of the Secret.
    pub namespace: &'a str,
    /// The Secret's name.
    pub secret: &'a str,
    /// Which replica this is, for Events.
    pub instance: &'a str,
}

/// All that the convergence works with in a cluster. Others use some of them, too.
#[derive(Clone)]
pub struct Clients {
    /// The Secret.
    pub cacerts: Arc<Cacerts>,
    /// Owners of gated pods.
    pub owners: Arc<Owners>,
    /// HelmReleases to have reconciled once it is open.
    pub reconciles: Arc<Reconciles>,
    /// Where it is told what was done.
    pub events: Events,
    pins: Arc<Pins>,
    served: Arc<Served>,
    clock: ApiClock,
    external_secrets: Arc<ExternalSecrets>,
}

impl Clients {
    /// Those of this site, and the task that writes its Events.
    pub fn new(client: &Client, site: Site<'_>, gated: Gated, releases: Vec<HelmRelease>) -> (Self, Writer) {
        let Site { cluster, namespace, secret, instance } = site;
        let clock = ApiClock::default();
        let client = clock.of(client);
        let (events, writer) = Events::new(client.clone(), cluster, namespace, secret, instance);
        let clients = Self {
            cacerts: Arc::new(Cacerts::new(client.clone(), namespace, secret)),
            owners: Arc::new(Owners::new(client.clone(), namespace, gated)),
            events: events.of_releases(&releases),
            reconciles: Arc::new(Reconciles::new(client.clone(), releases)),
            pins: Arc::new(Pins::new(client.clone(), namespace)),
            served: Arc::new(Served::new(client.clone(), namespace)),
            external_secrets: Arc::new(ExternalSecrets::new(client, namespace, secret)),
            clock,
        };
        (clients, writer)
    }
}

impl Cluster for Clients {
    async fn look(&self) -> Result<Option<Published>, Held> {
        self.cacerts.look().await
    }

    async fn read(&self) -> Result<Published, Held> {
        self.cacerts.read().await
    }

    async fn is_still(&self, version: &str) -> Result<bool, Held> {
        self.cacerts.is_still(version).await
    }

    async fn publish(
        &self,
        over: &Published,
        sound: &Sound,
        version: u64,
        state: Option<RecordState>,
    ) -> Result<Write, Held> {
        self.cacerts.publish(over, sound, version, state).await
    }

    async fn read_pin(&self) -> Result<ReadPin, Held> {
        self.pins.read().await
    }

    async fn write_pin(&self, read: &ReadPin, pin: &Pin) -> Result<Write, Held> {
        self.pins.write(read, pin).await
    }

    async fn contradict(&self, read: &ReadPin, contradiction: Contradiction) -> Result<Write, Held> {
        self.pins.contradict(read, contradiction).await
    }

    async fn mesh(&self) -> Result<Mesh, Held> {
        self.served.read().await
    }

    fn ahead(&self) -> Option<SignedDuration> {
        self.clock.ahead()
    }
}

impl Bystanders for Clients {
    async fn touch_blocked(&self, now: Timestamp) -> Result<Passed, Held> {
        self.owners.touch_blocked(now).await
    }

    async fn force_sync(&self, external_secret: Option<&str>, now: Timestamp) -> Maker {
        self.external_secrets.force_sync(external_secret, now).await
    }

    fn ask_flux(&self, now: Timestamp) {
        self.reconciles.ask(now);
    }

    async fn asked_flux(&self, now: Timestamp) {
        self.reconciles.ask_all(now).await;
    }

    fn tell(&self, happened: Happened) {
        match happened {
            Happened::Bootstrapped { record } => self.events.bootstrapped(&record),
            Happened::Published { root, version, signer } => self.events.published(root, version, signer),
            Happened::SignerRenewed { until } => self.events.signer_renewed(until),
            Happened::SignerNotRenewed { held, until } => self.events.signer_not_renewed(&held, until),
            Happened::Opened { bridged } => self.events.opened(bridged),
            Happened::Held(held) => self.events.held(&held, None, None),
        }
    }
}
