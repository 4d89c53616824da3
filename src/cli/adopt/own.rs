//! `adopt --own`: hands a `cacerts` that was the gate's back to it. A restore from a backup keeps the label and loses the
//! field manager, so that the Secret is somebody else's from then on, and no newer version of Vault's is published to it.
//!
//! Written are the bytes that are there, over exactly what was shown. Nothing is written to Vault.

use std::process::ExitCode;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::{Adopt, Adoption, agreed, decide, say, tell};
use crate::ca::Sha256;
use crate::ca::check::Sound;
use crate::k8s::{MANAGED_BY, Write};
use crate::plan::{Copy, Names, Owner, Pin, Published, Stored};
use crate::reason::{ByItself, Held, Reason};
use crate::run::Failure;

/// A Secret that may be handed back, and Vault's CA.
struct Seen {
    copy: Arc<Copy>,
    sound: Arc<Sound>,
    /// `None`: the record is of the signing kind, and has no CA.
    stored: Option<Arc<Sound>>,
    version: u64,
    address: String,
}

impl Seen {
    /// Whether the Secret has the CA that Vault holds.
    fn is_same(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| self.sound.same_ca(stored))
    }
}

/// The Secret as it was read, and its CA.
type Lapsed = (Arc<Copy>, Arc<Sound>);

/// Runs it.
///
/// # Errors
/// Why the Secret was not handed back.
pub(super) async fn run(args: &Adopt, asks: bool) -> Result<ExitCode, Failure> {
    let mut adoption = Adoption::prepare(args).await?;
    let cluster = adoption.cluster.clone();
    let held = |held: Held| Failure::Held(held.without_promise().message(&cluster));
    let secret = adoption.names.cacerts.clone();
    let already = format!("Nothing to do: Secret {secret} is managed by istio-ca-gate.");
    let Some(shown) = adoption.look_at_lapsed().await.map_err(held)? else {
        say(&already);
        return Ok(ExitCode::SUCCESS);
    };
    say(&adoption.own_proposal(&shown));
    if args.dry_run {
        say("Dry run: nothing was written.");
        return Ok(ExitCode::SUCCESS);
    }
    if asks && !agreed("Hand it back? [y/N] ").await {
        eprintln!("istio-ca-gate: not handed back: nothing was written");
        return Ok(ExitCode::FAILURE);
    }
    // A person has been asked meanwhile: Vault may have another root by now.
    let Some(now) = adoption.look_at_lapsed().await.map_err(held)? else {
        say(&already);
        return Ok(ExitCode::SUCCESS);
    };
    let is_shown = now.copy.resource_version == shown.copy.resource_version;
    let version = now.is_same().then_some(now.version);
    let written = match is_shown {
        true => adoption.cacerts.own(&now.copy, &now.sound, version).await.map_err(held)?,
        false => Write::Changed,
    };
    match written {
        Write::Done => {
            say(&format!("Handed back: Secret {secret} is managed by istio-ca-gate, and follows Vault again."))
        }
        Write::Changed => return Err(held(decide::changed(&adoption.names))),
    }
    Ok(ExitCode::SUCCESS)
}

impl Adoption {
    /// Reads both sides. `None`: the Secret is the gate's.
    async fn look_at_lapsed(&mut self) -> Result<Option<Seen>, Held> {
        let (published, pins) = tokio::try_join!(self.cacerts.read(), self.pins.read())?;
        let pin = pins.in_force(&published)?;
        let Some((copy, sound)) = lapsed(&published, pin.as_ref(), &self.names)? else { return Ok(None) };
        let found = self.vault.read(Timestamp::now()).await.map_err(|refused| refused.held)?;
        let (stored, version) = same_roots(&found.stored, &sound, &self.names)?;
        Ok(Some(Seen { copy, sound, stored, version, address: found.address }))
    }

    /// What is about to be done.
    fn own_proposal(&self, seen: &Seen) -> String {
        let glance = &seen.sound.glance;
        let is_same = seen.is_same();
        let mut text =
            String::from("The gate of this cluster takes this Secret back, with the bytes that are in it:\n\n");
        for (name, value) in [
            ("cluster", format!("{} ({})", self.cluster, self.server)),
            ("Secret", self.names.cacerts.clone()),
            ("subject", glance.subject.clone()),
            ("SHA-256", glance.sha256.openssl()),
            ("expires", tell::date(glance.not_after)),
            ("Vault", seen.address.clone()),
            ("record", format!("{}, version {}, the same roots", self.names.record, seen.version)),
            ("CA", if is_same { "the one that Vault holds" } else { "another one under these roots" }.to_owned()),
        ] {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
        if !is_same && seen.stored.is_none() {
            text.push_str(&tell::warning(
                "the gate then has this cluster's signer certified by Vault and publishes that over it, and istiod signs by that. The roots stay.",
            ));
        } else if !is_same {
            text.push_str(&tell::warning(
                "the signing CA is another one than Vault's: the gate then publishes Vault's over it, and istiod signs by that. The roots stay.",
            ));
        }
        text
    }
}

/// The Secret, if it is one to hand back. `None`: it is the gate's.
fn lapsed(published: &Published, pin: Option<&Pin>, names: &Names) -> Result<Option<Lapsed>, Held> {
    let secret = &names.cacerts;
    let Published::Present(copy) = published else {
        let what = format!("Secret {secret} is not there, so there is nothing to hand back");
        return refused(Reason::CacertsInvalid, what, "check --context, --namespace and --secret");
    };
    match &copy.owner {
        Owner::Ours => return Ok(None),
        Owner::ExternalSecrets(_) => {
            let what = format!("Secret {secret} is managed by External Secrets, which takes back what others write");
            return refused(Reason::CacertsManagedElsewhere, what, "hand it over as docs/migrate.md says");
        }
        Owner::Other if !copy.was_ours => {
            let what = format!(
                "Secret {secret} has no label {MANAGED_BY}: istio-ca-gate, so that it is not the gate's to take back"
            );
            return refused(Reason::CacertsUnknown, what, "if it is meant to be, set the label and run this again");
        }
        Owner::Other => {}
    }
    let sound = copy.verdict.as_ref().map_err(|flaw| {
        let what = format!("Secret {secret} cannot be handed back");
        Held::new(Reason::CacertsInvalid, what, "restore one that istiod can use", ByItself::Unsaid)
            .because(flaw.to_string())
    })?;
    if copy.beside.tls {
        let what = format!("Secret {secret} has a tls.crt, which istiod reads in place of the gate's four files");
        return refused(Reason::CacertsInvalid, what, "whoever makes it keeps it");
    }
    if let Some(pin) = pin.filter(|pin| !sound.roots().contains(&pin.root)) {
        let (held, pinned) = (sound.root.openssl(), pin.root.openssl());
        let what = format!("Secret {secret} holds root {held}, but this cluster trusts {pinned}");
        return refused(Reason::RootChanged, what, "restore one with that root");
    }
    Ok(Some((Arc::clone(copy), Arc::clone(sound))))
}

/// Vault's CA, where it has one, and its version, if it has the same roots: with others, the gate would publish them over the mesh's.
fn same_roots(stored: &Stored, sound: &Sound, names: &Names) -> Result<(Option<Arc<Sound>>, u64), Held> {
    let other = |root: Sha256| {
        let (root, held) = (root.openssl(), sound.root.openssl());
        let what = format!("Vault holds root {root} at {}, but Secret {} holds {held}", names.record, names.cacerts);
        refused(Reason::RootChanged, what, "find out which one the mesh runs on, by istio-ca-gate verify")
    };
    match stored {
        Stored::Sound { version, sound: root } if root.same_roots(sound) => Ok((Some(Arc::clone(root)), *version)),
        Stored::Sound { sound: root, .. } => other(root.root),
        Stored::Signing { version, record } if record.roots() == sound.roots() => Ok((None, *version)),
        Stored::Signing { record, .. } => other(record.glance().sha256),
        Stored::Absent => refused(
            Reason::RootMissing,
            format!("Vault has no root at {}", names.record),
            "run adopt without --own, which puts this one there",
        ),
        stored => decide::step(stored, sound, names).and(Err(decide::changed(names))),
    }
}

fn refused<T>(reason: Reason, what: String, next: &str) -> Result<T, Held> {
    Err(Held::new(reason, what, next, ByItself::Unsaid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::samples::{
        BOTH, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, UNSOUND, assert_fit_for_users, external_secrets, names, pin,
        present, published, stored,
    };

    /// As after a restore from a backup.
    fn restored(published: &Published) -> Published {
        let Published::Present(copy) = published else { return Published::Absent };
        Published::Present(Arc::new(Copy { was_ours: true, ..Copy::clone(copy) }))
    }

    fn refused<T>(refused: Result<T, Held>) -> Reason {
        let held = refused.err().unwrap();
        assert_fit_for_users(&held.message("homelab"));
        assert!(!held.sentence().contains("delete"), "{}", held.sentence());
        held.reason
    }

    #[test]
    fn only_a_sound_secret_with_our_label_and_the_trusted_root_is_handed_back() {
        let sound = restored(&published(Owner::Other, &R1));
        assert!(lapsed(&sound, None, &names()).unwrap().is_some());
        assert!(lapsed(&sound, Some(&pin(R1.root)), &names()).unwrap().is_some());
        assert!(lapsed(&published(Owner::Ours, &R1), None, &names()).unwrap().is_none());
        for (there, pinned, reason) in [
            (Published::Absent, None, Reason::CacertsInvalid),
            (published(Owner::Other, &R1), None, Reason::CacertsUnknown),
            (restored(&published(external_secrets(), &R1)), None, Reason::CacertsManagedElsewhere),
            (restored(&present(Owner::Other, Err(UNSOUND))), None, Reason::CacertsInvalid),
            (sound, Some(pin(R2.root)), Reason::RootChanged),
        ] {
            assert_eq!(refused(lapsed(&there, pinned.as_ref(), &names())), reason, "{there:?}");
        }
    }

    #[test]
    fn one_that_istiod_reads_other_files_of_is_left_to_its_maker() {
        let Published::Present(copy) = restored(&published(Owner::Other, &R1)) else { unreachable!() };
        let mut copy = Copy::clone(&copy);
        copy.beside.tls = true;
        assert_eq!(refused(lapsed(&Published::Present(Arc::new(copy)), None, &names())), Reason::CacertsInvalid);
    }

    #[test]
    fn only_the_roots_that_vault_holds_are_handed_back() {
        for there in [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA] {
            assert!(same_roots(&stored(there), &R1, &names()).is_ok());
        }
        for (there, reason) in [
            (stored(&R2), Reason::RootChanged),
            (stored(&BOTH), Reason::RootChanged),
            (Stored::Absent, Reason::RootMissing),
        ] {
            assert_eq!(refused(same_roots(&there, &R1, &names())), reason, "{there:?}");
        }
        let gone = Stored::Deleted { version: 2 };
        assert_eq!(same_roots(&gone, &R1, &names()).err().unwrap().reason, Reason::RootDeleted);
    }
}
