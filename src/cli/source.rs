//! Where commands read a root from, and in which words they tell that they cannot.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use zeroize::Zeroizing;

use crate::args::VaultArgs;
use crate::ca::bundle::{Glance, MAX_BUNDLE};
use crate::ca::record::SigningRecord;
use crate::k8s::Failed;
use crate::k8s::root_cert::{self, Holder, PublicFiles};
use crate::plan::{Names, OnRootChange, Published, Role, Situation, Step, Stored};
use crate::reason::{Held, Reason};
use crate::run::{Failure, parts};
use crate::vault::{Refused, Vault};

/// Why a place tells no root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The code, where there is one.
    pub(crate) reason: Option<Reason>,
    /// The cause and what to do next.
    pub(crate) sentence: String,
}

impl Unread {
    /// Without a code.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self { reason: None, sentence: sentence.into() }
    }
}

impl From<Held> for Unread {
    fn from(held: Held) -> Self {
        Self { reason: Some(held.reason), sentence: held.without_promise().sentence() }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{reason}: {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

/// A file, up to one byte more than any trust bundle has. It may have a key in it, so it is wiped.
pub(crate) async fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    file_of(path, MAX_BUNDLE).await
}

/// A file, up to one byte more than `most`.
pub(crate) async fn file_of(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    blocking(&shown, most, move || std::fs::File::open(path)).await
}

/// Standard input, likewise.
pub(crate) async fn stdin() -> Result<Zeroizing<Vec<u8>>, Unread> {
    stdin_of(MAX_BUNDLE).await
}

/// Standard input, up to one byte more than `most`.
pub(crate) async fn stdin_of(most: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    blocking("standard input", most, || Ok(std::io::stdin())).await
}

/// A pipe may keep its reader for ever.
async fn blocking<R: Read>(
    shown: &str,
    most: usize,
    open: impl FnOnce() -> std::io::Result<R> + Send + 'static,
) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let read = move || {
        // Of its final size from the start: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 2));
        open()?.take(most as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let read: std::io::Result<_> = tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(e.into()));
    read.map_err(|error| Unread::new(format!("cannot read {shown}: {error}")))
}

/// `root-cert.pem` of an object of a cluster, and what signs beneath it.
pub(crate) async fn object(
    client: &Client,
    holder: Holder,
    namespace: &str,
    name: &str,
) -> Result<PublicFiles, Unread> {
    let object = format!("{} {namespace}/{name}", holder.kind());
    match root_cert::read(client, holder, namespace, name).await {
        Ok(Some(files)) => Ok(files),
        Ok(None) => Err(Unread::new(format!("{object} has no root-cert.pem: see who writes it"))),
        Err(Failed::NotFound) => Err(Unread::new(match holder {
            Holder::Secret => format!("there is no {object}: have it published by `serve`, `bootstrap` or `sync`"),
            Holder::ConfigMap => format!("there is no {object}: istiod makes it when it starts"),
        })),
        Err(failed) => Err(failed.into_held(&format!("read {object}")).into()),
    }
}

/// A client of Vault for a command that only reads.
pub(crate) fn vault(args: &VaultArgs) -> Result<Vault, Failure> {
    parts::vault(args, Role::Sync)
}

/// What Vault has.
#[derive(Clone, Debug)]
pub(crate) struct StoredRoot {
    /// Its roots.
    pub(crate) glance: Glance,
    /// Until when they can be used.
    pub(crate) end: Timestamp,
    /// The record, where each cluster has a signer of its own.
    pub(crate) signing: Option<Arc<SigningRecord>>,
}

/// Vault's root.
pub(crate) async fn stored(vault: &mut Vault, now: Timestamp) -> Result<StoredRoot, Unread> {
    let record = vault.settings().record();
    match vault.read(now).await {
        Ok(found) => {
            let (glance, end) = glance(&found.stored, &record)?;
            let end = found.deleted_at.map_or(end, |deleted| deleted.min(end));
            let signing = match found.stored {
                Stored::Signing { record, .. } => Some(record),
                _ => None,
            };
            Ok(StoredRoot { glance, end, signing })
        }
        Err(Refused { held, .. }) => Err(held.into()),
    }
}

fn glance(stored: &Stored, record: &str) -> Result<(Glance, Timestamp), Unread> {
    let names = Names { cacerts: String::new(), pin: String::new(), mesh: String::new(), record: record.to_owned() };
    let situation = Situation {
        role: Role::Sync,
        on_root_change: OnRootChange::Halt,
        stored,
        published: &Published::Absent,
        pin: None,
        signer: None,
        now: Timestamp::UNIX_EPOCH,
        names: &names,
    };
    match (stored, situation.step()) {
        (Stored::Sound { sound, .. }, _) => Ok((sound.glance.clone(), sound.usable_until.at)),
        (Stored::Signing { record, .. }, _) => Ok((record.glance().clone(), record.usable_until().at)),
        (Stored::Deleted { .. } | Stored::Unsound { .. }, Step::Hold(held)) => Err(held.into()),
        _ => Err(Unread {
            reason: Some(Reason::RootMissing),
            sentence: format!("Vault has no root at {record}: run `bootstrap`, or start istiod in that cluster"),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ca::check::Flaw;
    use crate::reason::ByItself;
    use crate::samples::{R1, stored as sound};

    #[test]
    fn a_sound_record_is_shown() {
        assert_eq!(glance(&sound(&R1), "secret/istio/ca").unwrap(), (R1.glance.clone(), R1.usable_until.at));
    }

    #[test]
    fn a_record_that_is_not_there_or_not_sound_gives_code_record_and_next_step() {
        let expired = Flaw::Expired(crate::ca::check::At { file: "root-cert.pem", position: 1 }, Timestamp::UNIX_EPOCH);
        for (stored, code) in [
            (Stored::Absent, Reason::RootMissing),
            (Stored::Deleted { version: 1 }, Reason::RootDeleted),
            (Stored::Unsound { version: 1, flaw: Flaw::KeyMismatch }, Reason::RootInvalid),
            (Stored::Unsound { version: 1, flaw: expired }, Reason::RootExpired),
        ] {
            let unread = glance(&stored, "secret/istio/ca").unwrap_err();
            assert_eq!(unread.reason, Some(code));
            assert!(unread.to_string().starts_with(&format!("{code}: ")), "{unread}");
            assert!(unread.sentence.contains("secret/istio/ca") && unread.sentence.contains(": "), "{unread}");
        }
    }

    #[test]
    fn a_command_does_not_say_that_it_tries_again() {
        for again in [ByItself::TriedAgain, ByItself::ReadAgain, ByItself::TriedWhenVaultAllows] {
            let held = Held::new(Reason::VaultUnreachable, "no answer", "check it", again);
            assert_eq!(Unread::from(held).sentence, "no answer: check it");
        }
    }
}
