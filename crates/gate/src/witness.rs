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

use crate::ca::record::SigningRecord;
use crate::ca::{Sha256, file};
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::Events;
use crate::k8s::istiods::{IstiodPod, MeshSide};
use crate::life::attestation::{Attestation, AttestedSigner};
use crate::life::course::{Course, Outlook};
use crate::life::witness::{Presented, PublishedSigner, Sight, Witness};
use crate::plan::{Published, Stored};
use crate::reason::Held;
use crate::signer::Signer as _;
use crate::skew::Ahead;
use crate::store::Store;
use crate::vault::{Vault, Written};
pub use counted::Witnessed;
use handshake::Handshake;
pub use last::LastLook;
use news::News;

/// How often it looks, unless Vault is asked more often than that (`--refresh`). A rotation's steps wait for it, and each
/// look is a handshake with each istiod.
pub const LOOK: Duration = Duration::from_secs(10);

/// How often it attests while a root is replaced: whoever takes the steps believes what is five minutes old.
const ATTEST: SignedDuration = SignedDuration::from_secs(60);

/// How often it attests otherwise, if nothing changed: each attestation is a version in Vault.
const ATTEST_AT_REST: SignedDuration = SignedDuration::from_hours(1);

/// Where istiod takes its proxies' calls.
const XDS_PORT: u16 = 15012;

/// Handshakes at a time.
const AT_ONCE: usize = 4;

/// The one who looks.
pub struct WitnessTask {
    /// This cluster.
    pub cluster: String,
    /// Of the program.
    pub version: &'static str,
    /// Between two looks.
    pub pause: Duration,
    /// A client of its own.
    pub vault: Vault,
    /// `cacerts`.
    pub cacerts: Arc<Cacerts>,
    /// The istiods, and what they serve.
    pub mesh: MeshSide,
    /// What is told to Prometheus.
    pub counted: Witnessed,
    /// What is told on the page.
    pub last_look: LastLook,
    /// What is told to people.
    pub events: Events,
}

/// What it keeps between two looks.
#[derive(Default)]
struct Looked {
    /// What it saw last, whether or not it attested to that.
    last: Option<Outlook>,
    /// Since when this cluster has not been settled.
    unsettled: Option<Timestamp>,
    /// That it keeps a change of the root waiting was told.
    held: bool,
    /// That the root ends was told.
    ends: bool,
    /// What it could not do, told once.
    failed: Option<String>,
}

impl WitnessTask {
    /// Looks for ever.
    pub async fn run(mut self) {
        let mut looked = Looked::default();
        let handshake = Handshake::new();
        loop {
            let outcome = self.look(&mut looked, &handshake).await;
            let failed = outcome.err().map(|held| held.without_promise().sentence());
            if let Some(failed) = failed.as_ref().filter(|_| failed != looked.failed) {
                tracing::warn!("this cluster does not attest to its mesh: {failed}");
            }
            looked.failed = failed;
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn look(&mut self, looked: &mut Looked, handshake: &Handshake) -> Result<(), Held> {
        self.vault.begin();
        let found = Store::read(&mut self.vault, None, Timestamp::now()).await.map_err(|refused| refused.held)?;
        let Stored::Signing { version, record } = &found.stored else {
            self.last_look.saw(None);
            return Ok(());
        };
        let ahead = Ahead { vault: found.ahead, api: None };
        ahead.judge()?;
        let over = self.vault.attested(&self.cluster).await.map_err(|refused| refused.held)?;
        let (sight, goal) = (self.see(handshake).await?, self.goal(record).await);
        // All clusters' times are by one clock.
        let now = Timestamp::now().saturating_add(found.ahead.unwrap_or_default()).unwrap_or(Timestamp::MAX);
        let before = later(over.attestation.as_ref(), looked.last.as_ref().map(|last| &last.attestation));
        let witness = Witness { cluster: &self.cluster, version: self.version };
        let attestation = witness.attestation(record, *version, &sight, before, now);
        let is_due = is_due(over.attestation.as_ref(), &attestation, record);
        let outlook = Outlook { attestation, course: Course::of(record, goal, now) };
        self.counted.saw(&outlook, found.written_at);
        self.last_look.saw(Some(outlook.clone()));
        let before = looked.last.replace(outlook.clone());
        self.tell_own(&outlook, record, looked);
        if !is_due {
            return Ok(());
        }
        // Who lost has another replica that attested, and tells of it.
        if let Written::Applied(_) =
            self.vault.attest(&over, &outlook.attestation).await.map_err(|refused| refused.held)?
        {
            self.counted.attested(now);
            before.iter().flat_map(|before| news::news(before, &outlook)).for_each(|news| self.tell(&news));
        }
        Ok(())
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

    async fn see(&self, handshake: &Handshake) -> Result<Sight, Held> {
        let (published, pods) = tokio::join!(self.cacerts.read(), self.mesh.istiods());
        let pods = pods.map_err(|held| held.cause());
        let known = pods.as_deref().unwrap_or_default();
        let (served, ztunnel) = tokio::join!(self.mesh.served(known), self.mesh.ztunnel_ttl());
        // What is not known of it is as if nobody was told: `--ttl` counts.
        let ttl = known.iter().map(|pod| pod.ttl).max().flatten().max(ztunnel.unwrap_or_default());
        let istiods = match pods {
            Err(why) => Err(why),
            Ok(pods) => Ok(stream::iter(pods)
                .map(|pod| async move { (pod.name.clone(), presented(handshake, &pod).await) })
                .buffered(AT_ONCE)
                .collect()
                .await),
        };
        Ok(Sight { published: signer(&published?), istiods, namespaces: served.map_err(|held| held.cause()), ttl })
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

fn later<'a>(one: Option<&'a Attestation>, other: Option<&'a Attestation>) -> Option<&'a Attestation> {
    match (one, other) {
        // What is attested counts before what was only seen, so that replicas agree on since when.
        (Some(attested), Some(seen)) if seen.says_as(attested) || attested.at >= seen.at => Some(attested),
        (attested, seen) => seen.or(attested),
    }
}

fn is_due(attested: Option<&Attestation>, attestation: &Attestation, record: &SigningRecord) -> bool {
    let Some(attested) = attested else { return true };
    let pause = if record.rotation.is_some() { ATTEST } else { ATTEST_AT_REST };
    !attestation.says_as(attested) || attestation.at.duration_since(attested.at) >= pause
}

#[cfg(test)]
mod tests;
