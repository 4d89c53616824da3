//! What is told to people. Each text is constant for its cause.

use super::attestation::NAMED_MOST;
use super::audience::Unready;
use super::rescue::Unrescuable;
use super::rule::{Cause, Step};
use super::start::Obstacle;
use crate::ca::Sha256;
use crate::reason::{ByItself, Held, Reason};

impl Step {
    /// Its name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::GiveBack => "give-back",
            Self::Trust => "trust",
            Self::Switch { .. } => "switch",
            Self::Return => "return",
            Self::Note => "note",
            Self::Drop => "drop",
            Self::Done => "done",
        }
    }

    /// What it does.
    pub const fn does(&self) -> &'static str {
        match self {
            Self::GiveBack => "lets the goal certify again in Vault",
            Self::Trust => "adds the new root to those that all clusters trust",
            Self::Switch { crossed: true } => {
                "has all signers certified by the new root, with a cross for those who do not trust it yet"
            }
            Self::Switch { crossed: false } => "has all signers certified by the new root",
            Self::Return => "has all signers certified by the root again that everybody has trusted all the time",
            Self::Note => "notes that all clusters are settled: the wait counts from now",
            Self::Drop => "takes the right to certify from the other root, and the root out of those that are trusted",
            Self::Done => "ends the rotation",
        }
    }
}

impl Unready {
    /// What is wrong, as the end of a sentence about the cluster, and what to do.
    fn parts(&self, cluster: &str) -> (String, String) {
        let gone = format!("or `istio-ca-gate rotate forget {cluster}` if that cluster is gone for good");
        match self {
            Self::Silent => (
                "has never attested".to_owned(),
                format!("see that its gate runs and may write its attestation, {gone}"),
            ),
            Self::Unreadable(key) => (
                format!("attests to something that cannot be read ({key})"),
                "see that its gate is of this version".to_owned(),
            ),
            Self::Stale => {
                ("has not attested for 5 min".to_owned(), format!("see that its gate runs and reaches Vault, {gone}"))
            }
            Self::ClockAhead => {
                ("attests to the future".to_owned(), "mend the clock of its nodes (timedatectl, chrony)".to_owned())
            }
            Self::NotTakenUp { why } => (
                format!("has not published what the record says{}", because(why.as_deref())),
                "see what its gate says".to_owned(),
            ),
            Self::Behind { istiods, namespaces, why } => {
                let some =
                    |kind: &str, names: &[String]| (!names.is_empty()).then(|| format!("{kind} {}", listed(names)));
                let behind: Vec<_> =
                    [some("istiod", istiods), some("namespace", namespaces)].into_iter().flatten().collect();
                let what = match behind.is_empty() {
                    true => format!("is not settled{}", because(why.as_deref())),
                    false => format!("is behind with {}{}", behind.join(" and "), because(why.as_deref())),
                };
                let next = match istiods.is_empty() {
                    true => "it settles by itself as a rule",
                    false => "if that stays so, restart that istiod, or start it with ISTIO_MULTIROOT_MESH=true",
                };
                (what, next.to_owned())
            }
        }
    }
}

impl Cause {
    /// The reason with its sentence.
    pub fn held(&self) -> Held {
        rotation_held(match self {
            Self::Cluster { name, unready } => {
                let (what, next) = unready.parts(name);
                (format!("cluster {name} {what}"), next)
            }
            Self::NoCluster => nobody_attests(),
            Self::BundleFull => (
                "the record trusts as many roots as istiod takes".to_owned(),
                "take out one that nothing is under any more".to_owned(),
            ),
            Self::NoGoal => (
                "Vault does not give the certificate of the goal".to_owned(),
                "bring that issuer back, or `istio-ca-gate rotate abort`".to_owned(),
            ),
        })
    }
}

impl Obstacle {
    /// The reason with its sentence.
    pub fn held(&self) -> Held {
        rotation_held(match self {
            Self::UnderWay { goal, by } => (
                format!("{by} has begun a rotation to {goal} already"),
                "look at it with `istio-ca-gate rotate status`".to_owned(),
            ),
            Self::Unreadable => (
                "`rotation` of the record cannot be read".to_owned(),
                "mend or remove that key, by hand or by the version that wrote it".to_owned(),
            ),
            Self::NoIssuer => (
                "the record names no issuer".to_owned(),
                "let the rescue that is under way end first: `istio-ca-gate rotate status`".to_owned(),
            ),
            Self::SameRoot => {
                ("that is the root that signers are under".to_owned(), "give --goal another name".to_owned())
            }
            Self::NoCluster => nobody_attests(),
            Self::Silent(cluster) => (
                format!("cluster {cluster} does not attest"),
                "see that its gate runs with --vault-pki-mount, reaches Vault, and has its policy istio-ca-signer-NAME"
                    .to_owned(),
            ),
            Self::Stale(cluster) => stale(cluster),
            Self::NotReady { cluster, why } => not_ready(cluster, why.as_deref()),
            Self::NotSettled { cluster, why } => (
                format!("cluster {cluster} does not work with what the record says yet{}", because(why.as_deref())),
                "see what its gate says".to_owned(),
            ),
            Self::ShortTtl { cluster, seen } => (
                format!(
                    "workloads of cluster {cluster} have certificates that live for {}",
                    humantime::format_duration(*seen)
                ),
                "give --ttl at least that".to_owned(),
            ),
        })
    }
}

impl Unrescuable {
    /// The reason with its sentence.
    pub fn held(&self) -> Held {
        rotation_held(match self {
            Self::Unready(obstacle) => return obstacle.held(),
            Self::NotGiven(cluster) => (
                format!("cluster {cluster} attests, and is not among those that are to be rescued"),
                "give its context, too; each rescue is of all clusters at once".to_owned(),
            ),
            Self::NoMesh(cluster) => (
                format!("cluster {cluster} serves no root to a mesh, so that there is nothing to rescue"),
                "leave it out: its gate gives it a signer once the others have been brought together".to_owned(),
            ),
            Self::OtherRoot { cluster, served } => other_root(cluster, *served),
            Self::HasCacerts(cluster) => (
                format!("cluster {cluster} has a Secret cacerts, so that its istiod does not run on a root of its own"),
                "if all clusters have the same root there, `istio-ca-gate adopt` brings it into Vault; if it was put there in vain, delete it"
                    .to_owned(),
            ),
            Self::SameRoot(one, other) => (
                format!("clusters {one} and {other} run on one root"),
                "see that their contexts are of two clusters; a copy of one cluster's root is brought into Vault by `istio-ca-gate adopt`"
                    .to_owned(),
            ),
            Self::LeftOut(cluster) => (
                format!("the rescue was begun without cluster {cluster}, whose root Vault's record does not trust"),
                "let that one end first (`istio-ca-gate rotate status`), then see \"A cluster that comes late\" in docs/rotate.md"
                    .to_owned(),
            ),
            Self::Switched(cluster) => (
                format!("signers are under the shared root by now, and cluster {cluster} has none"),
                "see \"A cluster that comes late\" in docs/rotate.md".to_owned(),
            ),
        })
    }
}

fn rotation_held((what, next): (String, String)) -> Held {
    Held::new(Reason::RotationHeld, what, next, ByItself::Unsaid)
}

fn not_ready(cluster: &str, why: Option<&str>) -> (String, String) {
    (
        format!("cluster {cluster} is not ready to have a signer of its own{}", because(why)),
        "its gate needs --vault-pki-mount, policy istio-ca-signer-NAME and component signing (docs/signing.md), and its istiod has to run"
            .to_owned(),
    )
}

fn other_root(cluster: &str, served: Option<Sha256>) -> (String, String) {
    let served =
        served.map_or_else(|| "something that is no root".to_owned(), |root| format!("root {}", root.openssl()));
    (
        format!(
            "the mesh of cluster {cluster} is served {served}, which is not the root that Secret istio-ca-secret has the key of"
        ),
        "see which CA its istiod runs on; where that is no root of its own, docs/operate.md has the way by hand"
            .to_owned(),
    )
}

fn nobody_attests() -> (String, String) {
    (
        "no cluster attests, so that nobody knows whom the root would be taken from".to_owned(),
        "see that the gates of all clusters run and may write their attestation".to_owned(),
    )
}

fn stale(cluster: &str) -> (String, String) {
    (
        format!("cluster {cluster} has not attested to anything for more than an hour that can be read"),
        format!(
            "see that its gate runs and reaches Vault, or `istio-ca-gate rotate forget {cluster}` if that cluster is gone for good"
        ),
    )
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0..=SHOWN => shown,
        NAMED_MOST.. => format!("{shown} and many others"),
        many => format!("{shown} and {} others", many - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::samples::assert_fit_for_users;

    fn cluster(unready: Unready) -> Cause {
        Cause::Cluster { name: "nas".to_owned(), unready }
    }

    #[test]
    fn every_cause_and_every_obstacle_has_a_sentence_with_what_to_do() {
        let names = |count: usize| (0..count).map(|index| format!("istiod-{index}")).collect::<Vec<_>>();
        let why = Some("SigningRefused".to_owned());
        let behind = |istiods, namespaces| Unready::Behind { istiods, namespaces, why: why.clone() };
        let unready = [
            Unready::Silent,
            Unready::Unreadable("at"),
            Unready::Stale,
            Unready::ClockAhead,
            Unready::NotTakenUp { why: why.clone() },
            behind(names(0), names(0)),
            behind(names(1), names(20)),
            behind(names(7), names(0)),
        ];
        let causes = unready.into_iter().map(cluster).chain([Cause::NoCluster, Cause::BundleFull, Cause::NoGoal]);
        let nas = || "nas".to_owned();
        let obstacles = [
            Obstacle::UnderWay { goal: "root-2".to_owned(), by: "ops@laptop".to_owned() },
            Obstacle::Unreadable,
            Obstacle::NoIssuer,
            Obstacle::SameRoot,
            Obstacle::NoCluster,
            Obstacle::Silent(nas()),
            Obstacle::Stale(nas()),
            Obstacle::NotReady { cluster: nas(), why: why.clone() },
            Obstacle::NotSettled { cluster: nas(), why: why.clone() },
            Obstacle::ShortTtl { cluster: nas(), seen: Duration::from_secs(3600 * 48) },
        ];
        let unrescuable = [
            Unrescuable::Unready(Obstacle::Silent(nas())),
            Unrescuable::NotGiven(nas()),
            Unrescuable::NoMesh(nas()),
            Unrescuable::OtherRoot { cluster: nas(), served: None },
            Unrescuable::OtherRoot { cluster: nas(), served: Some(Sha256([7; 32])) },
            Unrescuable::HasCacerts(nas()),
            Unrescuable::SameRoot(nas(), "homelab".to_owned()),
            Unrescuable::LeftOut(nas()),
            Unrescuable::Switched(nas()),
        ];
        let obstacles = obstacles.iter().map(Obstacle::held).chain(unrescuable.iter().map(Unrescuable::held));
        for held in causes.map(|cause| cause.held()).chain(obstacles) {
            assert_eq!(held.reason, Reason::RotationHeld);
            assert!(held.next.is_some(), "{held:?}");
            assert_fit_for_users(&held.sentence());
        }
    }

    #[test]
    fn an_istiod_that_is_behind_is_named_with_what_helps_it() {
        let istiods = vec!["istiod-7".to_owned()];
        let held = cluster(Unready::Behind { istiods, namespaces: Vec::new(), why: None }).held();
        assert_eq!(
            held.sentence(),
            "cluster nas is behind with istiod istiod-7: if that stays so, restart that istiod, or start it with ISTIO_MULTIROOT_MESH=true"
        );
    }
}
