//! Looks now and then whether all of this cluster's mesh works with what was published, and attests to it in Vault. By
//! that, and by nothing else, whoever replaces the root knows that this cluster is not left behind.

mod counted;
mod handshake;
mod last;
mod news;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::attests::Attests;
use crate::ca::record::SigningRecord;
use crate::ca::{Sha256, file};
use crate::cluster::Write;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::Events;
use crate::k8s::istiods::{IstiodPod, MeshSide};
use crate::life::attestation::{Attestation, AttestedSigner};
use crate::life::course::{Course, Outlook};
use crate::life::witness::{Presented, PublishedSigner, Sight, Witness};
use crate::plan::{Owner, Published, Stored};
use crate::reason::Held;
use crate::signer::{Engine, Signer};
use crate::skew::Ahead;
use crate::store::Store;
pub use counted::Witnessed;
use handshake::Handshake;
pub use last::LastLook;
use news::News;

/// How often it looks while something changes, unless Vault is asked more often than that (`--refresh`). A rotation's steps
/// wait for it, and each look is a handshake with each istiod.
pub const LOOK: Duration = Duration::from_secs(10);

/// How often it looks otherwise: so often, or up to [`JITTER`] later, so that clusters do not come to Vault together.
const LOOK_AT_REST: Duration = Duration::from_secs(50);
const JITTER: Duration = Duration::from_secs(20);

/// So long after it has last seen something new, it looks as if more were to come.
const STIRRED: Duration = Duration::from_secs(600);

/// How often it attests while a root is replaced: whoever takes the steps believes what is five minutes old.
const ATTEST: SignedDuration = SignedDuration::from_secs(60);

/// How often it attests otherwise, if nothing changed: each attestation is a version in Vault.
const ATTEST_AT_REST: SignedDuration = SignedDuration::from_hours(1);

/// Where istiod takes its proxies' calls.
const XDS_PORT: u16 = 15012;

/// Handshakes at a time.
const AT_ONCE: usize = 4;

/// The one who looks: by what it may ask of Vault, and at what.
pub struct WitnessTask<V, L> {
    /// This cluster.
    pub cluster: String,
    /// Of the program.
    pub version: &'static str,
    /// Between two looks while something changes.
    pub pause: Duration,
    /// A client of its own.
    pub vault: V,
    /// The cluster.
    pub lookout: L,
    /// Tells the time.
    pub now: fn() -> Timestamp,
    /// What is told to Prometheus.
    pub counted: Witnessed,
    /// What is told on the page.
    pub last_look: LastLook,
    /// What is told to people.
    pub events: Events,
}

/// Sees what there is in a cluster.
pub trait Lookout: Send + Sync {
    /// One look. An error: nothing at all is known.
    fn see(&self) -> impl Future<Output = Result<Sight, Held>> + Send;
}

/// What it keeps between two looks.
#[derive(Default)]
struct Looked {
    /// What it saw last, whether or not it attested to that.
    last: Option<Outlook>,
    /// What is in Vault, as far as it knows.
    attested: Option<Attestation>,
    /// A root is being replaced.
    is_changing: bool,
    /// When it last saw something new.
    stirred: Option<Instant>,
    /// Since when this cluster has not been settled.
    unsettled: Option<Timestamp>,
    /// That it keeps a change of the root waiting was told.
    held: bool,
    /// That the root ends was told.
    ends: bool,
    /// What it could not do, told once.
    failed: Option<String>,
}

impl Looked {
    /// Until the next look; `look`: while something changes.
    fn pause(&self, look: Duration) -> Duration {
        let is_stirred = self.stirred.is_none_or(|at| at.elapsed() < STIRRED);
        if self.is_changing || is_stirred { look } else { LOOK_AT_REST + JITTER.mul_f64(fastrand::f64()) }
    }

    /// What was seen before.
    fn saw(&mut self, outlook: &Outlook) -> Option<Outlook> {
        let says_as = |last: &Outlook| outlook.attestation.says_as(&last.attestation);
        if !self.last.as_ref().is_some_and(says_as) {
            self.stirred = Some(Instant::now());
        }
        self.last.replace(outlook.clone())
    }
}

impl<V: Store + Signer + Engine + Attests, L: Lookout> WitnessTask<V, L> {
    /// Looks for ever.
    pub async fn run(mut self) {
        let mut looked = Looked::default();
        loop {
            let outcome = self.look(&mut looked).await;
            let failed = outcome.err().map(|held| held.without_promise().sentence());
            if let Some(failed) = failed.as_ref().filter(|_| failed != looked.failed) {
                tracing::warn!("this cluster does not attest to its mesh: {failed}");
            }
            looked.failed = failed;
            tokio::time::sleep(looked.pause(self.pause)).await;
        }
    }

    async fn look(&mut self, looked: &mut Looked) -> Result<(), Held> {
        self.vault.begin();
        let found = self.vault.read(None, (self.now)()).await.map_err(|refused| refused.held)?;
        if matches!(found.stored, Stored::Deleted { .. } | Stored::Unsound { .. }) {
            self.last_look.saw(None);
            return Ok(());
        }
        Ahead { vault: found.ahead, api: None }.judge()?;
        looked.is_changing = matches!(&found.stored, Stored::Signing { record, .. } if record.rotation.is_some());
        let sight = self.lookout.see().await?;
        let (engine, goal) = match &found.stored {
            Stored::Signing { record, .. } => (Ok(()), self.goal(record).await),
            _ => (self.vault.reach().await.map_err(|refused| refused.held.cause()), None),
        };
        let now = found.by_its_clock((self.now)());
        let seen = Seen { stored: &found.stored, written_at: found.written_at, sight, engine, goal, now };
        self.attest(looked, &seen).await
    }

    /// Attests to what was seen, if that is due. At rest Vault is not asked what it has as long as that is known.
    async fn attest(&mut self, looked: &mut Looked, seen: &Seen<'_>) -> Result<(), Held> {
        let witness = Witness { cluster: &self.cluster, version: self.version };
        let said =
            seen.said(&witness, later(looked.attested.as_ref(), looked.last.as_ref().map(|last| &last.attestation)));
        if !looked.is_changing && looked.attested.is_some() && !is_due(looked.attested.as_ref(), &said, false) {
            self.saw(looked, seen, &Outlook { attestation: said, course: seen.course() });
            return Ok(());
        }
        let there = self.vault.attested(&self.cluster).await.map_err(|refused| refused.held)?;
        let said = seen.said(&witness, later(there.attestation(), looked.last.as_ref().map(|last| &last.attestation)));
        let outlook = Outlook { attestation: said, course: seen.course() };
        let before = self.saw(looked, seen, &outlook);
        looked.attested = there.attestation().cloned();
        if !is_due(there.attestation(), &outlook.attestation, looked.is_changing) {
            return Ok(());
        }
        // Who lost has another replica that attested, and tells of it.
        let written = self.vault.attest(&there.over, &outlook.attestation).await.map_err(|refused| refused.held)?;
        if written == Write::Done {
            self.counted.attested(seen.now);
            before.iter().flat_map(|before| news::news(before, &outlook)).for_each(|news| self.tell(&news));
            looked.attested = Some(outlook.attestation);
        }
        Ok(())
    }

    /// Tells of a look, and what was seen before.
    fn saw(&self, looked: &mut Looked, seen: &Seen<'_>, outlook: &Outlook) -> Option<Outlook> {
        let before = looked.saw(outlook);
        match seen.stored {
            Stored::Signing { record, .. } => {
                self.counted.saw(outlook, seen.written_at);
                self.last_look.saw(Some(outlook.clone()));
                self.tell_own(outlook, record, looked);
            }
            _ => self.last_look.saw(None),
        }
        before
    }

    /// The root that a change of the root leads to. Only for people: what cannot be had is not known.
    async fn goal(&mut self, record: &SigningRecord) -> Option<Sha256> {
        let goal = record.under_way()?.goal.to_string();
        let pem = self.vault.issuer(&goal).await.ok()?;
        file::first(pem.as_bytes()).ok().map(|glance| glance.sha256)
    }

    /// What each replica tells, once.
    fn tell_own(&self, outlook: &Outlook, record: &SigningRecord, looked: &mut Looked) {
        let at = outlook.attestation.at;
        if outlook.attestation.settled.is_some() {
            (looked.unsettled, looked.held) = (None, false);
        } else if let Some(held) = news::held(*looked.unsettled.get_or_insert(at), outlook).filter(|_| !looked.held) {
            looked.held = true;
            self.tell(&held);
        }
        let until = record.usable_until().at;
        if !looked.ends && news::ends_soon(until, at) {
            looked.ends = true;
            self.events.root_ends(until);
        }
    }

    fn tell(&self, news: &News) {
        match news {
            News::Settled => self.events.settled(),
            News::Step(what) => {
                tracing::info!("{what}");
                self.events.rotation_step(what);
            }
            News::Held(why) => {
                tracing::warn!("the change of the root waits for this cluster: {why}");
                self.events.rotation_held(why);
            }
        }
    }
}

/// What one look has seen of both sides.
struct Seen<'a> {
    stored: &'a Stored,
    /// When the record's version was.
    written_at: Option<Timestamp>,
    sight: Sight,
    /// Whether the PKI engine can be asked, where that is not known otherwise.
    engine: Result<(), String>,
    /// Where a change of the root leads.
    goal: Option<Sha256>,
    now: Timestamp,
}

impl Seen<'_> {
    fn said(&self, witness: &Witness<'_>, before: Option<&Attestation>) -> Attestation {
        let Self { stored, sight, now, .. } = self;
        let ready = |roots, version| witness.readiness(roots, version, self.engine.clone(), sight, *now);
        match stored {
            Stored::Signing { version, record } => witness.attestation(record, *version, sight, before, *now),
            Stored::Sound { version, sound } => ready(Some(sound.roots()), *version),
            _ => ready(None, 0),
        }
    }

    fn course(&self) -> Option<Course> {
        let Stored::Signing { record, .. } = self.stored else { return None };
        Course::of(record, self.goal, self.now)
    }
}

/// The cluster, by its API and by handshakes.
pub struct MeshLookout {
    cacerts: Arc<Cacerts>,
    mesh: MeshSide,
    handshake: Handshake,
}

impl MeshLookout {
    /// At this cluster's istiods, and what they serve.
    pub fn new(cacerts: Arc<Cacerts>, mesh: MeshSide) -> Self {
        Self { cacerts, mesh, handshake: Handshake::new() }
    }
}

impl Lookout for MeshLookout {
    async fn see(&self) -> Result<Sight, Held> {
        let (published, pods) = tokio::join!(self.cacerts.read(), self.mesh.istiods());
        let pods = pods.map_err(|held| held.cause());
        let known = pods.as_deref().unwrap_or_default();
        let (served, ztunnel) = tokio::join!(self.mesh.served(known), self.mesh.ztunnel_ttl());
        // What is not known of it is as if nobody was told: `--ttl` counts.
        let ttl = known.iter().map(|pod| pod.ttl).max().flatten().max(ztunnel.unwrap_or_default());
        let istiods = match pods {
            Err(why) => Err(why),
            Ok(pods) => Ok(stream::iter(pods)
                .map(|pod| async move { (pod.name.clone(), presented(&self.handshake, &pod).await) })
                .buffered(AT_ONCE)
                .collect()
                .await),
        };
        let published = published?;
        Ok(Sight {
            published: signer(&published),
            not_ours: not_ours(&published),
            istiods,
            namespaces: served.map_err(|held| held.cause()),
            ttl,
        })
    }
}

async fn presented(handshake: &Handshake, pod: &IstiodPod) -> Presented {
    match pod.address {
        Some(address) => handshake.with(SocketAddr::new(address, XDS_PORT)).await,
        None => Err("an istiod has no address yet".to_owned()),
    }
}

/// What is published, if it is sound.
fn signer(published: &Published) -> Option<PublishedSigner> {
    let Published::Present(copy) = published else { return None };
    let sound = copy.verdict.as_ref().ok()?;
    let not_after = sound.signing_ca.valid_until;
    Some(PublishedSigner {
        state: copy.annotated_state,
        signer: AttestedSigner { sha256: sound.signing_ca.sha256, root: sound.root, not_after },
        roots: BTreeSet::<Sha256>::clone(sound.roots()),
    })
}

/// Why the gate may not write it.
fn not_ours(published: &Published) -> Option<&'static str> {
    let Published::Present(copy) = published else { return None };
    match copy.owner {
        Owner::Ours if copy.immutable => Some("cacerts is immutable"),
        Owner::Ours => None,
        Owner::ExternalSecrets(_) => Some("External Secrets manages cacerts"),
        Owner::Other => Some("cacerts is not the gate's"),
    }
}

fn later<'a>(one: Option<&'a Attestation>, other: Option<&'a Attestation>) -> Option<&'a Attestation> {
    match (one, other) {
        // What is attested counts before what was only seen at the same time, so that replicas agree on since when.
        (Some(attested), Some(seen)) if attested.at >= seen.at => Some(attested),
        (attested, seen) => seen.or(attested),
    }
}

fn is_due(attested: Option<&Attestation>, attestation: &Attestation, is_changing: bool) -> bool {
    let Some(attested) = attested else { return true };
    let pause = if is_changing { ATTEST } else { ATTEST_AT_REST };
    !attestation.says_as(attested) || attestation.at.duration_since(attested.at) >= pause
}

#[cfg(test)]
mod tests;
