//! What may be adopted, and where. Pure.

use std::sync::Arc;

use crate::ca::Sha256;
use crate::ca::check::Sound;
use crate::plan::{Names, Pin, Published, Stored};
use crate::reason::{ByItself, Held, Reason};

/// What is to be done about a CA that may be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write it: Vault has never had a root.
    Adopt,
    /// Vault holds the same roots.
    Nothing {
        /// Vault's version.
        version: u64,
    },
}

/// The cluster's CA, if it is one to adopt.
pub(super) fn candidate(published: &Published, pin: Option<&Pin>, names: &Names) -> Result<Arc<Sound>, Held> {
    let Published::Present(copy) = published else {
        return Err(Held::new(
            Reason::CacertsInvalid,
            format!("Secret {} is not there, so there is no CA to adopt", names.cacerts),
            "check --context, --namespace and --secret",
            ByItself::Unsaid,
        ));
    };
    let sound = copy.verdict.as_ref().map_err(|flaw| {
        Held::new(
            Reason::CacertsInvalid,
            format!("Secret {} cannot be adopted", names.cacerts),
            format!("{}, and run adopt again: as long as a mesh runs on it, it has to stay", flaw.remedy()),
            ByItself::Unsaid,
        )
        .because(flaw.to_string())
    })?;
    match pin {
        Some(pin) if !sound.roots().contains(&pin.root) => Err(Held::new(
            Reason::RootChanged,
            format!(
                "Secret {} holds root {}, but this cluster trusts {}",
                names.cacerts,
                sound.root.openssl(),
                pin.root.openssl()
            ),
            format!("put that one back; only to give it up for good, delete ConfigMap {}", names.pin),
            ByItself::Unsaid,
        )),
        _ => Ok(Arc::clone(sound)),
    }
}

/// What Vault's side allows.
pub(super) fn step(stored: &Stored, sound: &Sound, names: &Names) -> Result<Step, Held> {
    match stored {
        Stored::Absent => Ok(Step::Adopt),
        Stored::Sound { version, sound: root } if root.same_roots(sound) => Ok(Step::Nothing { version: *version }),
        Stored::Sound { sound: root, .. } => Err(other_root(root.root, sound, names)),
        Stored::Signing { version, record } if record.roots() == sound.roots() => {
            Ok(Step::Nothing { version: *version })
        }
        Stored::Signing { record, .. } => Err(other_root(record.glance().sha256, sound, names)),
        Stored::Deleted { version } => Err(Held::new(
            Reason::RootDeleted,
            format!("version {version} of {} was deleted in Vault", names.record),
            "bring it back with `vault kv undelete` or from a backup; a root is adopted only where there has never been one",
            ByItself::Unsaid,
        )),
        Stored::Unsound { version, flaw } => Err(Held::new(
            if flaw.is_expired() { Reason::RootExpired } else { Reason::RootInvalid },
            format!("version {version} of {} in Vault cannot be used", names.record),
            format!("nothing is written over it: {}, and write it as a new version", flaw.remedy()),
            ByItself::Unsaid,
        )
        .because(flaw.to_string())),
    }
}

fn other_root(stored: Sha256, sound: &Sound, names: &Names) -> Held {
    Held::new(
        Reason::RootChanged,
        format!(
            "Vault holds root {} at {}, but Secret {} holds {}",
            stored.openssl(),
            names.record,
            names.cacerts,
            sound.root.openssl()
        ),
        "a root is never written over, and a Secret that a mesh runs on is not to be deleted: see \"Change the root\" in docs/operate.md",
        ByItself::Unsaid,
    )
}

/// The Secret is no longer what was shown.
pub(super) fn changed(names: &Names) -> Held {
    Held::new(
        Reason::Converging,
        format!("Secret {} was changed after it was shown, and nothing was written", names.cacerts),
        "run adopt again",
        ByItself::Unsaid,
    )
}

/// Vault says that there is a version, and does not show it.
pub(super) fn behind(names: &Names) -> Held {
    Held::new(
        Reason::VaultUnreachable,
        format!("Vault has a version of {} but does not show it", names.record),
        "run adopt again to see what it is",
        ByItself::Unsaid,
    )
    .because("a standby node is behind")
}

/// Nobody knows whether the write arrived.
pub(super) fn unclear(held: &Held) -> Held {
    let what = format!("it is not known whether Vault took the root ({})", held.without_promise().sentence());
    let next = "run adopt again, which writes nothing where there is a root";
    Held::new(held.reason, what, next, ByItself::Unsaid)
}

/// Whether a person's answer means yes: anything else means no.
pub(super) fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ca::check::{At, Flaw};
    use crate::ca::fixtures::now;
    use crate::plan::Owner;
    use crate::samples::{
        BOTH, FOREIGN_KEY, R1, R1_OTHER_BYTES, R1_OTHER_CA, R2, UNSOUND, VERSION, assert_fit_for_users,
        external_secrets, names, pin, present, published, stored,
    };

    fn refused<T>(refused: Result<T, Held>) -> Held {
        let held = refused.err().unwrap();
        assert_fit_for_users(&held.message("homelab"));
        held
    }

    #[test]
    fn a_sound_cacerts_may_be_adopted_whoever_made_it() {
        for owner in [Owner::Other, Owner::Ours, external_secrets()] {
            for sound in [&R1, &R1_OTHER_CA, &BOTH] {
                let candidate = candidate(&published(owner.clone(), sound), None, &names()).unwrap();
                assert!(candidate.same_bytes(sound));
            }
        }
    }

    #[test]
    fn what_istiod_could_not_use_is_not_adopted() {
        let expired = Flaw::Expired(At { file: "root-cert.pem", position: 1 }, now());
        for flaw in [UNSOUND, FOREIGN_KEY, expired] {
            let held = refused(candidate(&present(Owner::Other, Err(flaw.clone())), None, &names()));
            assert_eq!(held.reason, Reason::CacertsInvalid);
            assert!(held.sentence().contains(&flaw.to_string()), "{}", held.sentence());
        }
        assert_eq!(refused(candidate(&Published::Absent, None, &names())).reason, Reason::CacertsInvalid);
    }

    #[test]
    fn a_root_other_than_the_pinned_one_is_not_adopted() {
        let held = refused(candidate(&published(Owner::Other, &R1), Some(&pin(R2.root)), &names()));
        assert_eq!(held.reason, Reason::RootChanged);
        assert!(held.sentence().contains(&R1.root.openssl()) && held.sentence().contains(&R2.root.openssl()));
        for (sound, pinned) in [(&R1, R1.root), (&R1_OTHER_CA, R1.root), (&BOTH, R2.root)] {
            assert!(candidate(&published(Owner::Other, sound), Some(&pin(pinned)), &names()).is_ok());
        }
    }

    #[test]
    fn only_a_vault_that_never_had_a_root_is_written_to() {
        assert_eq!(step(&Stored::Absent, &R1, &names()), Ok(Step::Adopt));
        let unsound = |flaw| Stored::Unsound { version: 2, flaw };
        let expired = Flaw::Expired(At { file: "root-cert.pem", position: 1 }, now());
        for (there, reason) in [
            (Stored::Deleted { version: 2 }, Reason::RootDeleted),
            (unsound(UNSOUND), Reason::RootInvalid),
            (unsound(expired), Reason::RootExpired),
            (stored(&R2), Reason::RootChanged),
            // It would not be the same trust.
            (stored(&BOTH), Reason::RootChanged),
        ] {
            assert_eq!(refused(step(&there, &R1, &names())).reason, reason, "{there:?}");
        }
    }

    #[test]
    fn where_vault_has_the_same_roots_nothing_is_to_be_done() {
        for there in [&R1, &R1_OTHER_BYTES, &R1_OTHER_CA] {
            assert_eq!(step(&stored(there), &R1, &names()), Ok(Step::Nothing { version: VERSION }));
        }
    }

    #[test]
    fn an_unclear_end_keeps_its_code_and_says_that_it_may_be_run_again() {
        let held = Held::without_next(Reason::VaultSealed, "it is sealed", ByItself::Unsaid);
        let held = refused(Err::<(), _>(unclear(&held)));
        assert_eq!(held.reason, Reason::VaultSealed);
        assert!(held.sentence().contains("it is sealed") && held.sentence().contains("run adopt again"));
        assert_eq!(refused(Err::<(), _>(behind(&names()))).reason, Reason::VaultUnreachable);
        assert_eq!(refused(Err::<(), _>(changed(&names()))).reason, Reason::Converging);
    }

    #[test]
    fn nothing_but_yes_is_yes() {
        for yes in ["y\n", "Y", " yes \r\n", "YES\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yy", "yes please", "ja", "y y"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
