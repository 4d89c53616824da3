//! The making of the root, here or in Vault's PKI engine, and the one write of a record that there may ever be.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{Attempts, Parts, Seen, note_doing};
use crate::ca::bundle::Bundle;
#[cfg(test)]
use crate::ca::bundle::ROOT_CERT;
use crate::ca::issue;
use crate::ca::record::{IssuerName, SigningRecord};
use crate::cluster::{Bystanders, Cluster, Happened};
use crate::plan::{Mesh, OnRootChange, Published};
use crate::reason::{ByItself, Held, Reason};
use crate::refused::Refused;
use crate::signer::{FIRST_ROOT, Signer, root_common_name};
use crate::snapshot::{Convergence, Doing};
use crate::store::{Created, Store};

/// Which kind of record is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the key of a root that is made here.
    Shared,
    /// Without a key: Vault's PKI engine makes the root.
    Signing,
}

/// A root that no record tells of yet.
#[derive(Clone)]
pub(super) struct Candidate {
    root: Root,
    /// Why its write did not settle the matter, if it was tried in this attempt.
    pub(super) refused: Option<Refused>,
}

#[derive(Clone)]
enum Root {
    Here(Arc<Bundle>),
    InVault { certificate: String, issuer: IssuerName },
}

#[cfg(test)]
impl Candidate {
    /// What it comes to, for tests that compare: its certificate, and what was said of it.
    pub(super) fn key(&self) -> String {
        format!("{} {:?}", self.root.record()[ROOT_CERT], self.refused)
    }
}

impl Root {
    fn record(&self) -> Map<String, Value> {
        match self {
            Self::Here(bundle) => bundle.to_record(),
            Self::InVault { certificate, issuer } => SigningRecord::first(certificate, issuer),
        }
    }
}

impl<S: Store + Signer, C: Cluster + Bystanders> Attempts<S, C> {
    /// Makes a root first, and writes the record in the next round, when all has been read again: making one
    /// takes seconds, in which others act.
    pub(super) async fn make(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        kind: Kind,
    ) -> Result<(), Refused> {
        let found = &seen.found;
        self.ahead(found).known()?;
        // It was tried, and Vault still has nothing.
        if let Some(refused) = self.kept.candidate.as_mut().and_then(|candidate| candidate.refused.take()) {
            return Err(refused);
        }
        self.parts.store.is_one(found).await?;
        if self.kept.candidate.is_none() {
            note_doing(state, Doing::MakingKey);
            let root = self.root(kind, seen.now.wall).await?;
            self.kept.candidate = root.map(|root| Candidate { root, refused: None });
            return Ok(());
        }
        // The last look before the one write that cannot be taken back.
        let nothing_came = self.nothing_came().await?;
        let Some(candidate) = self.kept.candidate.as_mut().filter(|_| nothing_came) else {
            return Ok(());
        };
        note_doing(state, Doing::WritingVault);
        let record = candidate.root.record();
        candidate.refused = match self.parts.store.create(found, record).await {
            Created::Applied => {
                tracing::info!("made a root and wrote it to {} in Vault", self.parts.names.record);
                self.parts.cluster.tell(Happened::Bootstrapped { record: self.parts.names.record.clone() });
                Some(behind(&self.parts.names.record))
            }
            Created::Lost => Some(behind(&self.parts.names.record)),
            Created::Forbidden(held) => Some(held.into()),
            Created::Unclear(refused) => Some(refused),
        };
        Ok(())
    }

    /// The root to be written. `None`: something came in between.
    async fn root(&mut self, kind: Kind, now: Timestamp) -> Result<Option<Root>, Refused> {
        if kind == Kind::Shared {
            let bundle = (self.parts.make_root)(self.parts.common_name.clone(), now).await?;
            return Ok(Some(Root::Here(Arc::new(bundle))));
        }
        // Unlike one that is made here, it stays there.
        if !self.nothing_came().await? {
            return Ok(None);
        }
        let issuer: IssuerName = FIRST_ROOT.parse().map_err(|_| unusable("its name", ""))?;
        let certificate = self.parts.store.make_root(FIRST_ROOT, &root_common_name(FIRST_ROOT)).await?;
        match SigningRecord::parse(&SigningRecord::first(&certificate, &issuer), now) {
            Ok(_) => Ok(Some(Root::InVault { certificate, issuer })),
            Err(flaw) => Err(unusable(&flaw.to_string(), &flaw.remedy()).into()),
        }
    }

    /// Whether there is still nothing here that a new root would be a second one to.
    async fn nothing_came(&self) -> Result<bool, Held> {
        let Parts { cluster, on_root_change, .. } = &self.parts;
        let (pins, published, mesh) = tokio::try_join!(cluster.read_pin(), cluster.read(), cluster.mesh())?;
        let mesh_has_none = mesh == Mesh::Absent || *on_root_change == OnRootChange::Replace;
        Ok(pins.pin.is_none() && matches!(published, Published::Absent) && mesh_has_none)
    }
}

/// Makes a root as [`issue::root`] does, where it keeps nobody from working.
pub fn make_root(common_name: String, now: Timestamp) -> BoxFuture<'static, Result<Bundle, Held>> {
    Box::pin(async move {
        let began = std::time::Instant::now();
        let made = tokio::task::spawn_blocking(move || issue::root(&common_name, now)).await;
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("a root key could not be made ({error})");
            Held::without_next(Reason::Converging, what, ByItself::TriedAgain)
        };
        let bundle = made.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "made a root key");
        Ok(bundle)
    })
}

/// The root that the PKI engine gave is none that a record could name.
fn unusable(why: &str, next: &str) -> Held {
    let what = format!("issuer {FIRST_ROOT} of Vault's PKI engine cannot be the root");
    Held::new(Reason::SigningRefused, what, next, ByItself::TriedAgain).because(why)
}

/// Vault says that there is a version, and does not show it: the node that answers is behind.
fn behind(record: &str) -> Refused {
    let what = format!("Vault has a version of {record} but does not show it yet");
    let held = Held::without_next(Reason::VaultUnreachable, what, ByItself::ReadAgain);
    held.because("a standby node is behind").into()
}
