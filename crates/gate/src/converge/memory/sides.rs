//! The two sides as a replica is handed them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{Call, Caller, Inner, State, World, tell, told_at};
use crate::attests::{AttestedAt, Attests};
use crate::ca::Sha256;
use crate::ca::check::Sound;
use crate::ca::record::RecordState;
use crate::cluster::{Bystanders, Cluster, Happened, Maker, Passed, Write};
use crate::life::attestation::Attestation;
use crate::order::Worth;
use crate::plan::{Contradiction, Mesh, Pin, Published, ReadPin, Stored};
use crate::reason::{Held, Reason};
use crate::refused::Refused;
use crate::samples::held;
use crate::signer::Signer;
use crate::snapshot::Watched;
use crate::store::{Created, Found, Store};

/// What a read of Vault finds, with nothing remarkable about it.
pub(in super::super) fn found<P>(stored: Stored, place: P) -> Found<P> {
    Found {
        stored,
        written_at: None,
        deleted_at: None,
        token_end: None,
        address: "https://vault".to_owned(),
        ahead: Some(SignedDuration::ZERO),
        place,
    }
}

/// The store, for one replica.
pub(in super::super) struct MemoryStore(Caller);

impl MemoryStore {
    pub(in super::super) fn new(world: &Arc<World>, who: usize) -> Self {
        Self(Caller { world: Arc::clone(world), who })
    }

    async fn call<T: 'static>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let ended = self.0.call(call, |inner| inner.vault_down, act).await;
        ended.map_err(|reason| Refused::from(held(reason.unwrap_or(Reason::VaultUnreachable))))
    }
}

impl Store for MemoryStore {
    type Place = ();

    async fn is_there(&self) -> bool {
        self.0.world.lock().vault_down.is_none()
    }

    fn begin(&mut self) {}

    async fn read(&mut self, _: Option<Sha256>, _: Timestamp) -> Result<Found<()>, Refused> {
        let stored = self.call(Call::ReadVault, |state| state.stored.clone()).await?;
        Ok(found(stored, ()))
    }

    async fn is_one(&self, _: &Found<()>) -> Result<(), Refused> {
        self.call(Call::IsOne, |_| ()).await?;
        let said = self.0.world.lock().is_one;
        said.map_err(|reason| held(reason).into())
    }

    async fn create(&mut self, _: &Found<()>, record: Map<String, Value>) -> Created {
        match self.call(Call::Create, move |state| state.create(&record)).await {
            Ok(created) => created,
            Err(Refused { held, .. }) if held.reason == Reason::VaultPermissionDenied => Created::Forbidden(held),
            Err(refused) => Created::Unclear(refused),
        }
    }
}

impl Signer for MemoryStore {
    async fn issuer(&mut self, name: &str) -> Result<String, Refused> {
        let name = name.to_owned();
        self.call(Call::Issuer, move |state| state.issuer(&name)).await?.ok_or_else(no_issuer)
    }

    async fn certify(&mut self, issuer: &str, csr: &str, common_name: &str, life: Duration) -> Result<String, Refused> {
        let (issuer, csr, name) = (issuer.to_owned(), csr.to_owned(), common_name.to_owned());
        self.call(Call::Certify, move |state| state.certify(&issuer, &csr, &name, life)).await?.ok_or_else(no_issuer)
    }

    async fn make_root(&mut self, name: &str, _: &str) -> Result<String, Refused> {
        let name = name.to_owned();
        self.call(Call::MakeRoot, move |state| state.make_root(&name)).await
    }
}

impl Attests for MemoryStore {
    type Over = u64;

    async fn attested(&mut self, cluster: &str) -> Result<AttestedAt<u64>, Refused> {
        let name = cluster.to_owned();
        let read = self.call(Call::Attested, move |state| state.attested.get(&name).cloned()).await?;
        Ok(AttestedAt { over: read.as_ref().map_or(0, |(_, version)| *version), read: read.map(|(it, _)| Ok(it)) })
    }

    async fn attest(&mut self, over: &u64, attestation: &Attestation) -> Result<Write, Refused> {
        let (over, attestation) = (*over, attestation.clone());
        self.call(Call::Attest, move |state| state.attest(over, &attestation)).await
    }
}

fn no_issuer() -> Refused {
    held(Reason::SigningRefused).into()
}

/// A cluster, for one replica, with a watch of its own.
pub(in super::super) struct MemoryCluster {
    caller: Caller,
    at: usize,
    watched: watch::Sender<Watched>,
}

impl MemoryCluster {
    pub(in super::super) fn new(world: &Arc<World>, who: usize, at: usize) -> Self {
        let watched = watch::Sender::new(Watched::default());
        let mut inner = world.lock();
        if inner.watching {
            tell(&watched, &inner.state.clusters[at].cacerts, inner.state.version);
        }
        inner.watchers.push((at, watched.clone()));
        Self { caller: Caller { world: Arc::clone(world), who }, at, watched }
    }

    pub(in super::super) fn watched(&self) -> watch::Receiver<Watched> {
        self.watched.subscribe()
    }

    async fn call<T: 'static>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Held> {
        let down = |inner: &Inner| inner.api_down.then_some(Reason::KubernetesUnreachable);
        let ended = self.caller.call(call, down, act).await;
        ended.map_err(|reason| held(reason.unwrap_or(Reason::KubernetesUnreachable)))
    }
}

impl Cluster for MemoryCluster {
    async fn look(&self) -> Result<Option<Published>, Held> {
        let (at, generation) = (self.at, self.watched.borrow().order.generation());
        let published = self.call(Call::Look, move |state| state.clusters[at].cacerts.clone()).await?;
        let mut worth = Worth::Same;
        self.watched.send_modify(|watched| worth = watched.was_read(generation, &published, told_at().boot));
        match worth {
            Worth::Same | Worth::Newer => Ok(Some(published)),
            Worth::Overtaken => Ok(None),
            Worth::Stale => Err(held(Reason::KubernetesUnreachable)),
        }
    }

    async fn read(&self) -> Result<Published, Held> {
        let at = self.at;
        self.call(Call::Read, move |state| state.clusters[at].cacerts.clone()).await
    }

    async fn is_still(&self, version: &str) -> Result<bool, Held> {
        let (at, version) = (self.at, version.to_owned());
        self.call(Call::IsStill, move |state| state.clusters[at].cacerts.resource_version() == version).await
    }

    async fn publish(&self, over: &Published, sound: &Sound, _: u64, of: Option<RecordState>) -> Result<Write, Held> {
        let (at, over, sound) = (self.at, over.resource_version().to_owned(), sound.clone());
        self.call(Call::Publish, move |state| state.publish(at, &over, &sound, of)).await
    }

    async fn read_pin(&self) -> Result<ReadPin, Held> {
        let at = self.at;
        self.call(Call::ReadPin, move |state| state.clusters[at].pin.clone()).await
    }

    async fn write_pin(&self, read: &ReadPin, pin: &Pin) -> Result<Write, Held> {
        let (at, over, pin) = (self.at, read.token().to_owned(), pin.clone());
        self.call(Call::WritePin, move |state| state.write_pin(at, &over, |_| Some(pin))).await
    }

    async fn contradict(&self, read: &ReadPin, contradiction: Contradiction) -> Result<Write, Held> {
        let (at, over) = (self.at, read.token().to_owned());
        let note = move |pin: Option<Pin>| pin.map(|pin| Pin { contradicted: Some(contradiction), ..pin });
        self.call(Call::Contradict, move |state| state.write_pin(at, &over, note)).await
    }

    async fn mesh(&self) -> Result<Mesh, Held> {
        let at = self.at;
        self.call(Call::Mesh, move |state| state.clusters[at].mesh.clone()).await
    }

    fn ahead(&self) -> Option<SignedDuration> {
        Some(SignedDuration::ZERO)
    }
}

impl Bystanders for MemoryCluster {
    async fn touch_blocked(&self, _: Timestamp) -> Result<Passed, Held> {
        self.call(Call::Touch, |_| ()).await?;
        Ok(Passed { any: std::mem::take(&mut self.caller.world.lock().blocked), whole: true })
    }

    async fn force_sync(&self, _: Option<&str>, _: Timestamp) -> Maker {
        let asked = self.call(Call::ForceSync, |_| ()).await;
        asked.map_or(Maker::ExternalSecret, |()| self.caller.world.lock().maker)
    }

    fn ask_flux(&self, _: Timestamp) {
        self.caller.world.lock().flux_asked += 1;
    }

    async fn asked_flux(&self, now: Timestamp) {
        self.ask_flux(now);
    }

    fn tell(&self, happened: Happened) {
        self.caller.world.lock().told.push(happened);
    }
}
