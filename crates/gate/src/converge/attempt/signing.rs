//! This cluster's signer: certified by Vault, checked, published, and renewed while the gate is open.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{Attempts, Round, Seen, note_doing};
use crate::attests::Attests;
use crate::ca::check::Sound;
use crate::ca::record::{IssuerName, RecordState, SigningRecord};
use crate::ca::signer::{SharedKey, SignerKey, common_name};
use crate::clock::Boot;
use crate::cluster::{Bystanders, Cluster, Happened, Write};
use crate::life::attestation::Attestation;
use crate::life::joining::{Awaited, First};
use crate::plan::Step;
use crate::reason::{ByItself, Held, Reason};
use crate::refused::Refused;
use crate::signer::Signer;
use crate::snapshot::{Convergence, Doing};
use crate::store::Store;

/// Pause after the first "no" of the PKI engine; doubles up to [`PAUSE_MAX`]. Each answer that is of no use is a
/// certificate that Vault keeps.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// How long one that could not be published is held ready, with its key.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);

/// A right that is given back is found out only by trying, and a pod may wait for it.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is to be certified.
pub(super) struct Order {
    pub(super) version: u64,
    pub(super) record: Arc<SigningRecord>,
    pub(super) issuer: IssuerName,
    /// `None`: a new one.
    pub(super) key: Option<SharedKey>,
}

/// A signer that is to be published.
#[derive(Clone)]
pub(super) struct Signed {
    state: RecordState,
    key: SharedKey,
    sound: Arc<Sound>,
    /// When it was certified.
    at: Timestamp,
}

impl Signed {
    /// Whether it is what is ordered, and still young: an attempt may be a long time after another.
    fn is_for(&self, state: RecordState, order: &Order, now: Timestamp) -> bool {
        let is_young = now.duration_since(self.at) < KEPT_FOR;
        self.state == state && is_young && order.key.as_ref().is_none_or(|key| self.key.is_same(key))
    }
}

/// What the PKI engine has last said no to.
#[derive(Clone, Default)]
pub(super) struct Declined(Option<No>);

#[derive(Clone)]
struct No {
    state: RecordState,
    refused: Refused,
    pause: Duration,
    until: Boot,
}

impl Declined {
    /// The answer, while it would be the same.
    fn answer(&self, state: RecordState, now: Boot) -> Option<&Refused> {
        self.0.as_ref().filter(|no| no.state == state && now < no.until).map(|no| &no.refused)
    }

    /// Takes note of how it ended.
    fn ended<T>(&mut self, state: RecordState, end: &Result<T, Refused>, now: Boot) {
        let refused = match end {
            // Who does not answer has declined nothing.
            Err(refused) if !refused.held.reason.is_outage() => refused.clone(),
            _ => return self.0 = None,
        };
        let same = self.0.take().filter(|last| last.state == state);
        let pause = same.map_or(PAUSE_FIRST, |last| (last.pause * 2).min(PAUSE_MAX));
        self.0 = Some(No { state, refused, pause, until: now.plus(pause) });
    }
}

impl<S: Store + Signer + Attests, C: Cluster + Bystanders> Attempts<S, C> {
    /// Has the signer certified, and publishes it. `renews`: what is open whatever comes of it.
    pub(super) async fn certify(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        order: Order,
        renews: Option<Arc<Sound>>,
    ) -> Result<Round, Refused> {
        let published = self.publish_certified(state, seen, &order).await;
        let Some(in_use) = renews else { return published.map(|_| Round::Again) };
        match published {
            Ok((Write::Changed, _)) => return Ok(Round::Again),
            Ok((Write::Done, until)) => {
                self.parts.counted.renewed(None);
                self.kept.renewal_failed = None;
                tracing::info!(%until, "renewed this cluster's signer");
                self.parts.cluster.tell(Happened::SignerRenewed { until });
                return Ok(Round::Again);
            }
            Err(refused) => self.renewal_failed(refused.held, &in_use),
        }
        Ok(self.open(state, seen, order.version, in_use.facts(), &in_use).await?)
    }

    fn renewal_failed(&mut self, held: Held, in_use: &Sound) {
        self.parts.counted.renewed(Some(held.reason));
        let until = in_use.signing_ca.valid_until;
        if self.kept.renewal_failed != Some(held.reason) {
            tracing::warn!(reason = %held.reason, %until, "this cluster's signer was not renewed: {}", held.sentence());
        }
        self.kept.renewal_failed = Some(held.reason);
        self.parts.cluster.tell(Happened::SignerNotRenewed { held, until });
    }

    /// How the write ended, and until when the signer lives.
    async fn publish_certified(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        order: &Order,
    ) -> Result<(Write, Timestamp), Refused> {
        if !self.is_awaited(seen, order.version, order.record.state()).await? {
            return Ok((Write::Changed, seen.now.wall));
        }
        let signed = self.signed(state, seen, order).await?;
        let written = self.publish(state, seen, order.version, &signed.sound, Some(signed.state)).await?;
        // Also where another replica was first: its signer is the one.
        self.kept.signer = None;
        Ok((written, signed.sound.signing_ca.valid_until))
    }

    /// Whether this cluster had attested before the record was read. If that is not known, it has by now, and all is to be
    /// read again.
    pub(super) async fn is_awaited(
        &mut self,
        seen: &Seen<S::Place>,
        version: u64,
        state: RecordState,
    ) -> Result<bool, Refused> {
        if self.kept.awaited.first() == First::Publish {
            return Ok(true);
        }
        if let Some(refused) = self.kept.declined.answer(state, seen.now.boot) {
            return Err(refused.clone());
        }
        let joined = self.join(seen, version).await.map_err(unknown_cluster);
        if joined.is_err() {
            self.kept.declined.ended(state, &joined, seen.now.boot);
        }
        joined?;
        self.kept.awaited = Awaited::Known;
        Ok(false)
    }

    /// Sees to it that this cluster is one of those that have attested.
    async fn join(&mut self, seen: &Seen<S::Place>, version: u64) -> Result<(), Refused> {
        let Some(terms) = &self.parts.signer else { return Err(no_key().into()) };
        let there = self.parts.store.attested(&terms.cluster).await?;
        // One that cannot be read is waited for, too.
        if there.read.is_none() {
            let now = seen.found.by_its_clock(seen.now.wall);
            let attestation = Attestation::joining(&terms.cluster, version, now);
            // Who loses has another replica that attested.
            let _: Write = self.parts.store.attest(&there.over, &attestation).await?;
            tracing::info!(cluster = terms.cluster, "this cluster is waited for by whoever replaces the root");
        }
        Ok(())
    }

    /// The signer to publish: one that was certified before and could not be written, or another one.
    async fn signed(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        order: &Order,
    ) -> Result<Signed, Refused> {
        let for_state = order.record.state();
        if let Some(kept) = self.kept.signer.as_ref().filter(|kept| kept.is_for(for_state, order, seen.now.wall)) {
            return Ok(kept.clone());
        }
        let now = seen.now.boot;
        if let Some(refused) = self.kept.declined.answer(for_state, now) {
            return Err(refused.clone());
        }
        note_doing(state, Doing::Certifying);
        let signed = self.ask_signer(seen, order).await;
        self.kept.declined.ended(for_state, &signed, now);
        let signed = signed?;
        self.kept.signer = Some(signed.clone());
        Ok(signed)
    }

    async fn ask_signer(&mut self, seen: &Seen<S::Place>, order: &Order) -> Result<Signed, Refused> {
        let Some(terms) = self.parts.signer.clone() else { return Err(no_key().into()) };
        let Order { version, record, issuer, key } = order;
        let certificate = self.parts.store.issuer(issuer.as_str()).await?;
        let root = seen.situation(&self.parts).issuing(record, &certificate)?;
        let key = match key {
            Some(key) => Arc::clone(key),
            None => Arc::new(SignerKey::generate().map_err(|_| no_key())?),
        };
        let name = common_name(&terms.cluster);
        let request = key.request(&name).map_err(|_| no_key())?;
        let answer = self.parts.store.certify(issuer.as_str(), &request, &name, terms.life).await?;
        match seen.situation(&self.parts).certified(*version, record, root, &answer, &key, &terms) {
            Step::Publish { sound, state: Some(state), .. } => Ok(Signed { state, key, sound, at: seen.now.wall }),
            Step::Hold(held) => Err(held.into()),
            // No other step comes of a certificate.
            _ => Err(no_key().into()),
        }
    }
}

/// A right that is missing is no outage.
fn unknown_cluster(refused: Refused) -> Refused {
    if refused.held.reason != Reason::VaultPermissionDenied {
        return refused;
    }
    let what = "no signer is published for a cluster that whoever replaces the root does not know of";
    let next = refused.held.next.clone().unwrap_or_default();
    Held::new(Reason::SigningRefused, what, next, ByItself::TriedAgain).because(refused.held.what).into()
}

fn no_key() -> Held {
    Held::without_next(Reason::Converging, "a signer's key could not be made", ByItself::TriedAgain)
}
