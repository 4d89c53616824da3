//! What a cluster that is held is told: a sentence for each cause.

use super::{Names, Situation};
use crate::ca::Sha256;
use crate::ca::check::{Flaw, Sound};
use crate::reason::{ByItself, Held, Reason};

impl Situation<'_> {
    pub(super) fn lost(&self) -> Held {
        Held::new(
            Reason::RootDeleted,
            format!("Vault has nothing at {}, yet this cluster has used its root", self.names.record),
            format!(
                "restore Vault's data, or put the root back with `istio-ca-gate adopt`; only to give that root up for good, delete ConfigMap {} and Secret {}",
                self.names.pin, self.names.cacerts
            ),
            ByItself::Unsaid,
        )
    }

    pub(super) fn unknown(&self) -> Held {
        Held::new(
            Reason::CacertsUnknown,
            format!("Secret {} exists, but Vault has never had a root at {}", self.names.cacerts, self.names.record),
            "put its CA into Vault with `istio-ca-gate adopt`, or delete the Secret to have a new root made",
            ByItself::Unsaid,
        )
    }

    pub(super) fn missing(&self) -> Held {
        Held::new(
            Reason::RootMissing,
            format!("Vault has no root at {} yet, and role sync makes none", self.names.record),
            "start istiod in the bootstrap cluster",
            ByItself::PodFollows,
        )
    }

    pub(super) fn on_other_root(&self, what: &str, has_root: bool) -> Held {
        let Names { mesh, record, .. } = self.names;
        let running = match has_root {
            true => "see `istio-ca-gate explain MeshOnOtherRoot` for how the two roots are brought together",
            false => {
                "bring its root into Vault with `istio-ca-gate adopt`, or several clusters under one root with `istio-ca-gate rotate rescue`"
            }
        };
        Held::new(
            Reason::MeshOnOtherRoot,
            format!(
                "the mesh of this cluster is served {what} (ConfigMap {mesh}), which Vault does not have at {record}"
            ),
            format!(
                "where the mesh runs, {running}; where Istio was removed, delete that ConfigMap, which its uninstall leaves; or replace that root with --on-root-change replace"
            ),
            ByItself::Unsaid,
        )
    }

    pub(super) fn deleted(&self, version: u64) -> Held {
        Held::new(
            Reason::RootDeleted,
            format!("version {version} of {} was deleted in Vault", self.names.record),
            "bring it back with `vault kv undelete` or from a backup; no new root is made",
            ByItself::Unsaid,
        )
    }

    pub(super) fn unsound(&self, version: u64, flaw: &Flaw) -> Held {
        Held::new(
            unsound_for(flaw),
            format!("version {version} of {} in Vault cannot be used", self.names.record),
            format!("{}, and write it as a new version", flaw.remedy()),
            ByItself::Unsaid,
        )
        .because(flaw.to_string())
    }

    pub(super) fn changed_in_vault(&self, pinned: Sha256, stored: Sha256) -> Held {
        Held::new(
            Reason::RootChanged,
            format!(
                "Vault's root at {} is {}, but this cluster trusts {}",
                self.names.record,
                stored.openssl(),
                pinned.openssl()
            ),
            "restore that one in Vault, or accept the new one with --on-root-change replace",
            ByItself::Unsaid,
        )
    }

    pub(super) fn signs_too_early(&self, pinned: Sha256, stored: Sha256) -> Held {
        Held::new(
            Reason::RootChanged,
            format!(
                "Vault's CA at {} signs under root {}, which the workloads of this cluster do not trust yet",
                self.names.record,
                stored.openssl()
            ),
            format!(
                "let {} sign until each cluster has both roots, or accept the new one with --on-root-change replace",
                pinned.openssl()
            ),
            ByItself::Unsaid,
        )
    }

    pub(super) fn changed_in_cluster(&self, published: &Sound, stored: Sha256) -> Held {
        Held::new(
            Reason::RootChanged,
            format!(
                "Secret {} holds root {}, but Vault's is {}",
                self.names.cacerts,
                published.root.openssl(),
                stored.openssl()
            ),
            "delete the Secret to take Vault's, or accept it with --on-root-change replace",
            ByItself::Unsaid,
        )
    }

    pub(super) fn managed_elsewhere(&self) -> Held {
        Held::new(
            Reason::CacertsManagedElsewhere,
            format!("External Secrets manages Secret {}, which does not hold Vault's root yet", self.names.cacerts),
            "look at its ExternalSecret's conditions",
            ByItself::Unsaid,
        )
    }

    pub(super) fn immutable(&self) -> Held {
        Held::new(
            Reason::KubernetesForbidden,
            format!("Secret {} is immutable, so it cannot be brought to Vault's root", self.names.cacerts),
            "delete it to have that published",
            ByItself::Unsaid,
        )
    }

    pub(super) fn invalid(&self, flaw: &Flaw) -> Held {
        Held::new(
            Reason::CacertsInvalid,
            format!("Secret {} cannot be used", self.names.cacerts),
            format!("{}; only where no mesh runs on it, delete it to have Vault's root published", flaw.remedy()),
            ByItself::Unsaid,
        )
        .because(flaw.to_string())
    }
}

pub(super) fn unsound_for(flaw: &Flaw) -> Reason {
    if flaw.is_expired() { Reason::RootExpired } else { Reason::RootInvalid }
}

/// The hold where a Secret has the marks of External Secrets, and no ExternalSecret makes it any more.
pub fn left_behind(names: &Names) -> Held {
    Held::new(
        Reason::CacertsManagedElsewhere,
        format!(
            "Secret {} has the label of External Secrets and does not hold Vault's root, and no ExternalSecret makes it any more",
            names.cacerts
        ),
        "delete the Secret to have Vault's root published",
        ByItself::Unsaid,
    )
}
