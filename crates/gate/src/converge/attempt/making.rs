//! The making of the root, here or in Vault's PKI engine, and the one write of a record that there may ever be.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, select_ok};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{Attempts, Parts, Seen, note_doing};
use crate::attests::Attests;
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

/// Searches for a key at a time. One alone takes ten times its median now and then; of two, hardly ever both do.
const SEARCHES: usize = 2;

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

impl<S: Store + Signer + Attests, C: Cluster + Bystanders> Attempts<S, C> {
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
        // With one processor, two searches would only wait for each other.
        let searches = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(SEARCHES));
        let bundle = first_of(searches, move || issue::root(&common_name, now)).await.map_err(|error| {
            let what = format!("a root key could not be made ({error})");
            Held::without_next(Reason::Converging, what, ByItself::TriedAgain)
        })?;
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "made a root key");
        Ok(bundle)
    })
}

/// What the first of so many makings comes to that succeeds. The others go on to their end, and what they made is dropped.
async fn first_of<T, E>(makings: usize, make: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let make = Arc::new(make);
    let makings = (0..makings.max(1)).map(|_| {
        let make = Arc::clone(&make);
        let made = tokio::task::spawn_blocking(move || make().map_err(|error| error.to_string()));
        made.map(|made| made.map_err(|error| error.to_string()).flatten()).boxed()
    });
    Ok(select_ok(makings).await?.0)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[tokio::test]
    async fn the_first_key_that_is_found_is_taken_and_the_other_search_is_not_waited_for() {
        let (turn, (found, wait)) = (AtomicUsize::new(0), channel::<()>());
        let wait = Mutex::new(wait);
        let search = move || {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            if turn == 0 {
                // An unlucky one.
                let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
            }
            Ok::<_, String>(turn)
        };
        assert_eq!(first_of(2, search).await, Ok(1));
        drop(found);
    }

    #[tokio::test]
    async fn a_search_that_fails_or_panics_is_made_up_for_by_the_other() {
        for fault in [false, true] {
            let turn = AtomicUsize::new(0);
            let search = move || match turn.fetch_add(1, Ordering::Relaxed) {
                0 if fault => unreachable!("on purpose"),
                0 => Err("no entropy"),
                turn => Ok(turn),
            };
            assert_eq!(first_of(2, search).await, Ok(1));
        }
        let none = first_of(2, || Err::<(), _>("no entropy")).await;
        assert_eq!(none, Err("no entropy".to_owned()));
    }
}
