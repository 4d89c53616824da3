//! Links 11 and 12: the namespace, `cacerts`, and the pin.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};

use super::asked::{Asked, CA_ENDS_SOON, VERIFIED_LONG_AGO, day, minute};
use super::check::{Check, Eyes, Sight};
use super::cluster::Cluster;
use super::line::{Line, Link, Outcome};
use super::look::{Asker, Look};
use super::record::situation;
use crate::ca::check::Sound;
use crate::ca::signer::SigningCa;
use crate::k8s::pin::{self, Pins};
use crate::plan::{Contradiction, Departure, Owner, Pin, Published, ReadPin, Step, Stored};
use crate::reason::{Held, Reason, foreign_text};

/// `cacerts`, if it is there, beside what the convergence reads of it.
#[derive(Clone, Debug)]
pub(super) struct Cacerts {
    pub(super) published: Published,
    pub(super) immutable: bool,
    /// Field managers.
    pub(super) managers: Vec<String>,
}

impl Cacerts {
    pub(super) fn of(secret: &Secret, published: Published) -> Self {
        let managers = secret.managed_fields().iter().filter_map(|entry| entry.manager.as_deref());
        let mut managers: Vec<_> = managers.map(foreign_text).collect();
        managers.sort_unstable();
        managers.dedup();
        Self { published, immutable: secret.immutable == Some(true), managers }
    }
}

/// The namespace.
pub(super) struct InNamespace;

#[async_trait(?Send)]
impl Check for InNamespace {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            let all: Api<Namespace> = Api::all(eyes.asker.client.clone());
            let name = &eyes.asked.namespace;
            let namespace = eyes.asker.ask(&format!("get namespaces {name}"), all.get(name)).await;
            seen.cluster.namespace =
                namespace.map(|it| (it.labels().clone(), it.metadata.deletion_timestamp.is_some()));
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        vec![namespace(&seen.cluster, asked)]
    }
}

/// `cacerts` and the pin, which the record's check has looked at.
pub(super) struct CacertsAndPin;

#[async_trait(?Send)]
impl Check for CacertsAndPin {
    async fn look(&self, _: &Eyes<'_>, _: &mut Sight) {}

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let stored = seen.told.stored();
        vec![cacerts(&seen.cluster, stored, asked), pin(&seen.cluster, stored, asked)]
    }
}

pub(super) async fn look(asker: &Asker, asked: &Asked) -> Look<Cacerts> {
    let secret = asker.get::<Secret>(&asked.namespace, "secrets", &asked.secret).await;
    secret.map(|secret| Cacerts::of(&secret, crate::k8s::cacerts::published(&secret, Timestamp::now())))
}

pub(super) async fn look_at_pin(eyes: &Eyes<'_>) -> Look<ReadPin> {
    let namespace = &eyes.asked.namespace;
    let right = format!("get configmaps {} in {namespace}", pin::NAME);
    let pins = Pins::new(eyes.asker.client.clone(), namespace);
    match eyes.asker.ask(&right, async { Ok(pins.read().await) }).await {
        Look::Seen(Err(held)) if held.reason == Reason::KubernetesForbidden => {
            Look::Forbidden(format!("no right to {right}"))
        }
        answered => answered.and_then(Look::from),
    }
}

/// What is published, where that is known.
pub(super) fn published(cluster: &Cluster) -> Option<&Published> {
    match &cluster.cacerts {
        Look::Seen(cacerts) => Some(&cacerts.published),
        Look::Absent => Some(&Published::Absent),
        _ => None,
    }
}

/// The pin in force, where there is one that can be read.
pub(super) fn pin_in_force(cluster: &Cluster) -> Option<Pin> {
    let read = match &cluster.pin {
        Look::Seen(read) => read.clone(),
        _ => ReadPin::default(),
    };
    read.in_force(published(cluster)?).ok().flatten().or(read.pin)
}

pub(super) fn namespace(cluster: &Cluster, asked: &Asked) -> Line {
    let link = Link::new("namespace", asked.namespace.clone());
    match cluster.namespace.or_line(&link) {
        Err(line) => line,
        Ok(None) if asked.pre => link.note(format!("not there yet: `kubectl create namespace {}`", asked.namespace)),
        Ok(None) => link
            .failed("there is none", format!("create it: `kubectl create namespace {}`", asked.namespace))
            .reason(Reason::KubernetesForbidden),
        Ok(Some((_, true))) => link
            .failed("is being deleted, and takes nothing new", "wait until it is gone, and create it anew")
            .reason(Reason::KubernetesForbidden),
        Ok(Some((_, false))) => link.ok("is there"),
    }
}

/// `stored` is Vault's copy, where it could be read.
pub(super) fn cacerts(cluster: &Cluster, stored: Option<&Stored>, asked: &Asked) -> Line {
    let link = Link::new("cacerts", format!("Secret {}", asked.names.cacerts));
    let cacerts = match cluster.cacerts.or_line(&link) {
        Err(line) => return line,
        Ok(None) => return absent(&link, cluster, stored, asked),
        Ok(Some(cacerts)) => cacerts,
    };
    let line = present(&link, cacerts, cluster, stored, asked);
    if cacerts.immutable && line.outcome != Outcome::Failed {
        let seen = format!("{}; it is immutable, so that it can neither be mended nor follow Vault", line.seen);
        return link.warning(
            seen,
            format!(
                "delete it to have it published anew: `kubectl -n {} delete secret {}`",
                asked.namespace, asked.secret
            ),
        );
    }
    line
}

fn absent(link: &Link, cluster: &Cluster, stored: Option<&Stored>, asked: &Asked) -> Line {
    let pin = pin_in_force(cluster);
    match stored.map(|stored| situation(stored, &Published::Absent, pin.as_ref(), asked).step()) {
        Some(Step::Publish { .. } | Step::Bootstrap | Step::MakeRoot | Step::Certify { .. }) => {
            link.note("not there yet: the gate publishes it once a gated pod asks to be let in")
        }
        Some(_) => link.note("not there, and not to be published yet: see vault-record and pin"),
        None => link.note("not there, and Vault could not be asked what belongs in it"),
    }
}

fn present(link: &Link, cacerts: &Cacerts, cluster: &Cluster, stored: Option<&Stored>, asked: &Asked) -> Line {
    let Published::Present(copy) = &cacerts.published else { return link.note("not there") };
    let owner = owner(&copy.owner, cacerts);
    let pin = pin_in_force(cluster);
    let step = stored.map(|stored| situation(stored, &cacerts.published, pin.as_ref(), asked).step());
    let about = match &copy.verdict {
        Ok(sound) => format!("sound, root sha256 {}, {owner}{}", sound.root.openssl(), sound.remarks()),
        Err(flaw) => format!("cannot be used: {flaw}; {owner}"),
    };
    let held = |reason: Reason, next: &str| link.failed(about.clone(), next).reason(reason);
    match (step, &copy.verdict) {
        (Some(Step::Open { .. }), Ok(_)) if copy.was_ours => link.warning(
            format!("{about}; it has the gate's label and not its field manager, as after a restore from a backup, so that it does not follow Vault"),
            "hand it back: `istio-ca-gate adopt --own`",
        ),
        (Some(Step::Open { .. } | Step::Certify { renews: Some(_), .. }), Ok(sound)) if copy.annotated_state.is_some() => {
            signer(link, &about, sound, asked)
        }
        (Some(Step::Open { other_bytes, .. }), Ok(sound)) => open(link, &about, other_bytes, sound, asked),
        (Some(Step::Publish { .. } | Step::Certify { renews: None, .. }), _) => link.warning(
            format!("{about}; not what Vault holds"),
            "wait until the gate has mended it, and look for who changes it if that is again and again",
        ),
        (Some(Step::ForceSync { .. }), _) => held(
            Reason::CacertsManagedElsewhere,
            "look at its ExternalSecret: it has to give Vault's root, sound and whole",
        ),
        (Some(Step::Hold(why)), verdict) if is_about_cacerts(&why, stored, pin.as_ref()) => {
            let is_new = why.reason == Reason::CacertsInvalid && verdict.is_ok();
            let seen = if is_new { format!("{about}; {}", why.cause()) } else { about };
            link.failed(seen, why.next.unwrap_or_default()).reason(why.reason)
        }
        (_, Err(flaw)) => held(Reason::CacertsInvalid, &flaw.remedy()),
        (Some(_), Ok(_)) => link.note(format!("{about}; see vault-record and pin")),
        (None, Ok(_)) => link.note(format!("{about}; not compared, since Vault's record could not be read")),
    }
}

/// A hold for the sake of the Secret itself, and not of Vault's record or of the pin.
fn is_about_cacerts(why: &Held, stored: Option<&Stored>, pin: Option<&Pin>) -> bool {
    let departs = stored.zip(pin).is_some_and(|(stored, pin)| stored.departure(pin).is_some());
    match why.reason {
        Reason::CacertsUnknown | Reason::CacertsInvalid => true,
        Reason::RootChanged => !departs,
        _ => false,
    }
}

fn open(link: &Link, about: &str, other_bytes: bool, sound: &Sound, asked: &Asked) -> Line {
    if other_bytes {
        return link.warning(
            format!("{about}; Vault's certificates in other bytes, which a running istiod refuses to reload"),
            format!(
                "delete it to have Vault's bytes published: `kubectl -n {} delete secret {}`",
                asked.namespace, asked.secret
            ),
        );
    }
    if asked.ends_within(sound.usable_until.at, CA_ENDS_SOON) {
        let days = asked.days_until(sound.usable_until.at);
        return link.warning(
            format!(
                "{about}; equal to Vault's, and a certificate in it ends in {days} days, on {}",
                day(sound.usable_until.at)
            ),
            "renew it in time: see \"Change the root\" in docs/operate.md",
        );
    }
    link.ok(format!("{about}; the root that Vault holds"))
}

/// This cluster's own signer: which root it is under, and until when.
fn signer(link: &Link, about: &str, sound: &Sound, asked: &Asked) -> Line {
    let SigningCa { sha256, valid_from, valid_until } = &sound.signing_ca;
    let seen = format!(
        "{about}; signs by this cluster's own signer, sha256 {}, under that root until {}",
        sha256.openssl(),
        day(*valid_until)
    );
    // Renewed when a third is left, as the alert has it.
    let quarter = valid_until.duration_since(*valid_from) / 4;
    if asked.ends_within(*valid_until, quarter) {
        let days = asked.days_until(*valid_until);
        let next = "see why it was not renewed: `kubectl get events`, and SigningRefused in docs/troubleshoot.md";
        return link.warning(format!("{seen}, in {days} days"), next).reason(Reason::SigningRefused);
    }
    link.ok(seen)
}

fn owner(owner: &Owner, cacerts: &Cacerts) -> String {
    match owner {
        Owner::Ours => "managed by the gate".to_owned(),
        Owner::ExternalSecrets(Some(name)) => format!("managed by External Secrets (ExternalSecret {name})"),
        Owner::ExternalSecrets(None) => {
            "managed by External Secrets (which ExternalSecret, it does not say)".to_owned()
        }
        Owner::Other if cacerts.managers.is_empty() => "managed by somebody else".to_owned(),
        Owner::Other => format!("managed by somebody else ({})", cacerts.managers.join(", ")),
    }
}

pub(super) fn pin(cluster: &Cluster, stored: Option<&Stored>, asked: &Asked) -> Line {
    let link = Link::new("pin", format!("ConfigMap {}", asked.names.pin));
    let read = match cluster.pin.or_line(&link) {
        Err(line) => return line,
        Ok(read) => read.cloned().unwrap_or_default(),
    };
    let from_map = read.pin.is_some();
    let pin = match read.in_force(published(cluster).unwrap_or(&Published::Absent)) {
        Err(held) => return link.held(&held),
        Ok(None) => return link.note("none yet: it is written when the gate first finds cacerts equal to Vault's"),
        Ok(Some(pin)) => pin,
    };
    let of = if from_map { "" } else { ", by the annotation of cacerts" };
    let seen = format!("trusts root sha256 {}{of}", pin.root.openssl());
    match stored {
        Some(there) if there.departure(&pin).is_some() => {
            let published = published(cluster).unwrap_or(&Published::Absent);
            let step = stored.map(|stored| situation(stored, published, Some(&pin), asked).step());
            let next = step.as_ref().and_then(Step::held).and_then(|held| held.next.as_deref());
            let next = next.unwrap_or("compare both roots, and restore the right one");
            let but = match there.departure(&pin) {
                Some(Departure::SignsTooEarly) => "and not yet the one that Vault's CA signs under",
                _ => "which Vault's record lacks",
            };
            link.failed(format!("{seen}, {but}"), next).reason(Reason::RootChanged)
        }
        Some(Stored::Sound { .. } | Stored::Signing { .. }) => verified(&link, &seen, &pin, asked),
        Some(_) => link.note(format!("{seen}; see vault-record")),
        None => link.note(format!("{seen}; not compared, since Vault's record could not be read")),
    }
}

fn verified(link: &Link, seen: &str, pin: &Pin, asked: &Asked) -> Line {
    if let Some(Contradiction { by, at }) = pin.contradicted {
        return link.warning(
            format!("{seen}, which Vault holds again after {by} at {}", minute(at)),
            "until the gate has agreed with Vault, no outage is bridged: it does so by itself once the other lines are ok",
        );
    }
    match pin.verified_at {
        Some(at) if asked.now.duration_since(at) > VERIFIED_LONG_AGO => link.warning(
            format!("{seen}, which Vault holds; last verified at {}", minute(at)),
            "look at the gate's pods and log: it verifies at least every hour while it runs",
        ),
        Some(at) => link.ok(format!("{seen}, which Vault holds; last verified at {}", minute(at))),
        None => link.ok(format!("{seen}, which Vault holds")),
    }
}

#[cfg(test)]
mod tests;
