//! Links 7 and 8: the secrets engine, and the record in it.

use async_trait::async_trait;
use k8s_openapi::jiff::Timestamp;

use super::asked::{Asked, CA_ENDS_SOON, day, minute};
use super::cacerts;
use super::check::{Check, Eyes, Sight};
use super::line::{Line, Link};
use super::vault::{Keepings, Told};
use crate::ca::check::Note;
use crate::ca::record::{IssuerName, SigningRecord};
use crate::plan::{Pin, Published, Situation, Step, Stored};
use crate::reason::{Held, Reason, foreign_text};
use crate::vault::{Keeping, Record};

/// The engine and the record. What an empty Vault means, the cluster's side of it tells.
pub(super) struct InVault;

#[async_trait(?Send)]
impl Check for InVault {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            let (cacerts, pin) = tokio::join!(cacerts::look(eyes.asker, eyes.asked), cacerts::look_at_pin(eyes));
            (seen.cluster.cacerts, seen.cluster.pin) = (cacerts, pin);
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let pin = cacerts::pin_in_force(&seen.cluster);
        let here = Here { published: cacerts::published(&seen.cluster), pin: pin.as_ref() };
        vec![engine(&seen.told, asked), record(&seen.told, here, asked)]
    }
}

pub(super) fn engine(told: &Told, asked: &Asked) -> Line {
    let link = Link::new("vault-mount", format!("{}/", asked.mount));
    match told.mount.or_line(&link) {
        Err(line) => line,
        Ok(None) => link.note("Vault does not tell"),
        Ok(Some(keepings)) => keeping(&link, keepings, asked),
    }
}

fn keeping(link: &Link, (engine, record): &Keepings, asked: &Asked) -> Line {
    let deletes = |keeping: &&Keeping| !matches!(keeping.delete_version_after.as_str(), "" | "0s" | "0");
    // Where the record has a term of its own, that one counts.
    let terms = [(record, asked.names.record.as_str()), (engine, asked.mount.as_str())];
    let term =
        terms.into_iter().find_map(|(keeping, of)| keeping.as_ref().filter(deletes).map(|keeping| (keeping, of)));
    if let Some((keeping, of)) = term {
        let seen = format!(
            "KV version 2, and delete_version_after of {of} is {}: Vault deletes the root by itself",
            foreign_text(&keeping.delete_version_after)
        );
        let next = format!(
            "`vault kv metadata put -mount={} -delete-version-after=0s {}`, and write the record anew",
            asked.mount, asked.path
        );
        return link.warning(seen, next);
    }
    let kept = |keeping: &Keeping| match keeping.max_versions {
        0 => "10 (the default)".to_owned(),
        versions => versions.to_string(),
    };
    match (engine, record) {
        (None, None) => link.ok("KV version 2; its settings may not be read, which the gate does not need"),
        (engine, record) => {
            let versions = record.iter().chain(engine).map(kept).next().unwrap_or_default();
            link.ok(format!("KV version 2, keeps {versions} versions, deletes none by itself"))
        }
    }
}

/// What this cluster says that has a part in what an empty Vault means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    /// `None`: it could not be read.
    pub(super) published: Option<&'a Published>,
    pub(super) pin: Option<&'a Pin>,
}

pub(super) fn record(told: &Told, here: Here<'_>, asked: &Asked) -> Line {
    let link = Link::new("vault-record", asked.names.record.clone());
    match told.record.or_line(&link) {
        Err(line) => line,
        Ok(None) => link.note("Vault does not tell"),
        Ok(Some(Record { stored: Stored::Absent, .. })) if has_metadata(told) => link
            .failed(
                "no version, and yet metadata: writing one needs `update`, which the gate's policy does not have",
                format!(
                    "`vault kv metadata get -mount={} {}`: with current_version 0 take it away by `vault kv metadata delete`; else there was a root: bring it back",
                    asked.mount, asked.path
                ),
            )
            .reason(Reason::VaultPermissionDenied),
        Ok(Some(record)) => stored(&link, record, here, asked),
    }
}

fn has_metadata(told: &Told) -> bool {
    matches!(told.mount.seen(), Some((_, Some(_))))
}

fn stored(link: &Link, record: &Record, here: Here<'_>, asked: &Asked) -> Line {
    match &record.stored {
        Stored::Sound { version, sound } => {
            let root = sound.root.openssl();
            let until = day(sound.usable_until.at);
            let seen = format!("version {version}, root sha256 {root}, until {until}{}", sound.remarks());
            if let Some(line) = ends_early(link, &seen, record.deleted_at, sound.usable_until.at, asked) {
                return line;
            }
            if sound.notes.iter().any(Note::is_warning) {
                return link.warning(seen, "take out what is of no use with the next change of the root");
            }
            link.ok(seen)
        }
        Stored::Signing { version, record: signing } => of_signers(link, *version, signing, record.deleted_at, asked),
        Stored::Unsound { version, flaw } => {
            let reason = if flaw.is_expired() { Reason::RootExpired } else { Reason::RootInvalid };
            link.failed(
                format!("version {version} cannot be used: {flaw}"),
                format!("{}, and write it as a new version", flaw.remedy()),
            )
            .reason(reason)
        }
        Stored::Absent | Stored::Deleted { .. } => match hold(&record.stored, here, asked) {
            // The bootstrap cluster may be the next one to be installed.
            Some(held) if asked.pre && held.reason == Reason::RootMissing => link.held(&held).at_most_a_warning(),
            Some(held) if held.reason != Reason::CacertsUnknown => link.held(&held),
            _ => link.note("no root yet: the gate makes it once a gated pod asks to be let in"),
        },
    }
}

fn of_signers(
    link: &Link,
    version: u64,
    signing: &SigningRecord,
    deleted_at: Option<Timestamp>,
    asked: &Asked,
) -> Line {
    let issuer = signing.issuer.as_ref().map_or("nobody yet", IssuerName::as_str);
    let (root, until) = (signing.glance().sha256.openssl(), signing.usable_until().at);
    let seen = format!(
        "version {version}, root sha256 {root}, until {}; signers are certified by {issuer}{}",
        day(until),
        under_way(signing)
    );
    if let Some(Err(unread)) = &signing.rotation {
        let next = "mend or remove that key, by hand or by the version that wrote it";
        return link.warning(format!("{seen}; {unread}"), next).reason(Reason::RotationHeld);
    }
    ends_early(link, &seen, deleted_at, until, asked).unwrap_or_else(|| link.ok(seen))
}

/// A change of the root, where there is one.
fn under_way(record: &SigningRecord) -> String {
    match record.under_way() {
        None => String::new(),
        Some(rotation) if rotation.paused => {
            format!("; the change of the root to {} is paused (`istio-ca-gate rotate resume`)", rotation.goal)
        }
        Some(rotation) => {
            format!("; the root is being replaced by {} (`istio-ca-gate rotate status`)", rotation.goal)
        }
    }
}

/// What ends before its time, or soon.
fn ends_early(link: &Link, seen: &str, deleted_at: Option<Timestamp>, until: Timestamp, asked: &Asked) -> Option<Line> {
    if let Some(end) = deleted_at {
        let next = "take delete_version_after away (see vault-mount), and write the record anew";
        return Some(link.warning(format!("{seen}; Vault deletes this version by itself at {}", minute(end)), next));
    }
    asked.ends_within(until, CA_ENDS_SOON).then(|| {
        let days = asked.days_until(until);
        let next = "renew it in time: see \"Change the root\" in docs/operate.md";
        link.warning(format!("{seen}, in {days} days"), next)
    })
}

/// Why the gate would hold.
fn hold(stored: &Stored, here: Here<'_>, asked: &Asked) -> Option<Held> {
    match situation(stored, here.published.unwrap_or(&Published::Absent), here.pin, asked).step() {
        Step::Hold(held) => Some(held),
        _ => None,
    }
}

/// What the gate decides on, with a halt at another root.
pub(super) fn situation<'a>(
    stored: &'a Stored,
    published: &'a Published,
    pin: Option<&'a Pin>,
    asked: &'a Asked,
) -> Situation<'a> {
    let on_root_change = crate::plan::OnRootChange::Halt;
    let (signer, now) = (asked.signer.as_ref(), asked.now);
    Situation { role: asked.role, on_root_change, stored, published, pin, signer, now, names: &asked.names }
}

#[cfg(test)]
mod tests;
