//! What `GET /fingerprint` tells: both roots side by side, and how the gate stands. The one shape of it, for who makes it
//! and for who reads another gate's.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ca::Sha256;
use crate::ca::bundle::Glance;
use crate::ca::record::IssuerName;
use crate::ca::signer::{SigningCa, renewal_due};
use crate::clock::Clocks;
use crate::life::attestation::{Attestation, NAMED_MOST};
use crate::life::course::{Course, Outlook};
use crate::life::rule::Step;
use crate::plan::Role;
use crate::reason::Reason;
use crate::snapshot::{Policy, Snapshot};

/// The JSON of `GET /fingerprint`. A reader takes it of any version of a gate: what that may leave out has a default.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The cluster's name.
    pub cluster: String,
    /// `bootstrap` or `sync`.
    #[serde(default)]
    pub role: String,
    /// `dormant`, `converging`, `held` or `open`.
    pub state: String,
    /// The reason code, where it is held.
    pub reason: Option<String>,
    /// The text of a denial, where it is held.
    pub message: Option<String>,
    /// Both sides have the same roots.
    #[serde(default)]
    pub r#match: bool,
    /// Vault's copy, where it is known.
    pub vault: Option<VaultSide>,
    /// The cluster's copy, where it is known.
    pub cacerts: Option<CacertsSide>,
    /// What all of its mesh works with, where its gate attests to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<ReportedMesh>,
    /// The change of the root that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<ReportedRotation>,
}

/// The roots of one side.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedRoot {
    /// SHA-256 of the first, as openssl prints it.
    pub sha256: String,
    /// SHA-1 of the first.
    #[serde(default)]
    pub sha1: String,
    /// SHA-256 of all.
    pub roots: Vec<String>,
    /// The subject of the first.
    #[serde(default)]
    pub subject: String,
    /// The end of the first.
    pub not_after: String,
}

/// Until when the check lets it pass, and what ends it.
#[derive(Debug, Deserialize, Serialize)]
pub struct UsableUntil {
    /// When.
    #[serde(rename = "usableUntil")]
    pub at: Option<String>,
    /// Which certificate of which file.
    #[serde(rename = "usableUntilSetBy")]
    pub set_by: Option<String>,
}

/// Vault's copy.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultSide {
    /// Its roots.
    #[serde(flatten)]
    pub root: ReportedRoot,
    /// Its end.
    #[serde(flatten)]
    pub end: UsableUntil,
    /// The version of the record.
    #[serde(default)]
    pub version: u64,
    /// When the token that it was read with ends, where nobody renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ends: Option<String>,
    /// When it was read.
    #[serde(default)]
    pub checked_at: String,
    /// Where.
    #[serde(default)]
    pub address: String,
}

/// The cluster's copy.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacertsSide {
    /// Its roots.
    #[serde(flatten)]
    pub root: ReportedRoot,
    /// Its end.
    #[serde(flatten)]
    pub end: UsableUntil,
    /// The version token of the read.
    #[serde(default)]
    pub resource_version: String,
    /// This cluster's own signer, if it has one that Vault certified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<ReportedSigner>,
}

/// What signs in one cluster alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedSigner {
    /// SHA-256 of its certificate, as openssl prints it.
    pub sha256: String,
    /// That of the root that it is under.
    pub root: String,
    /// Its end.
    pub not_after: String,
    /// From when on it is to be renewed.
    pub renewal_due: String,
}

/// What a gate attests to.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedMesh {
    /// Since when all of it works with what the record says.
    pub settled: Option<String>,
    /// Why it does not.
    pub why: Option<String>,
    /// Istiods that present the published signer.
    pub istiods_settled: u64,
    /// Those that do not.
    pub istiods_behind: Vec<String>,
    /// Namespaces that have the mesh's roots, or should have.
    pub namespaces: u64,
    /// Those that have other roots.
    pub namespaces_behind: Vec<String>,
    /// When it was looked at.
    pub at: String,
}

/// A change of the root, as the record says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedRotation {
    /// The issuer that it leads to.
    pub goal: String,
    /// That issuer's root, as openssl prints its SHA-256.
    pub goal_sha256: Option<String>,
    /// Where it came from.
    pub from: Vec<String>,
    /// The step that comes next, where it is known.
    pub next: Option<String>,
    /// Not before then, where there is a wait that has begun.
    pub not_before: Option<String>,
    /// No step is taken.
    pub paused: bool,
    /// The longest life of a workload's certificate.
    pub ttl: String,
    /// When it began.
    pub started: String,
    /// Who began it.
    pub by: String,
    /// The clusters that it waits for by name.
    pub clusters: Vec<String>,
}

impl ReportedSigner {
    /// Of this cluster, under this root.
    pub fn of(signer: &SigningCa, root: Sha256, cluster: &str) -> Self {
        Self {
            sha256: signer.sha256.openssl(),
            root: root.openssl(),
            not_after: stamp(signer.valid_until),
            renewal_due: stamp(renewal_due(signer, cluster)),
        }
    }
}

impl ReportedMesh {
    /// What is attested to.
    pub fn of(attestation: &Attestation) -> Self {
        let Attestation { settled, why, istiods, namespaces, at, .. } = attestation;
        let first = |names: &[String]| names.iter().take(NAMED_MOST).cloned().collect();
        Self {
            settled: settled.map(stamp),
            why: why.clone(),
            istiods_settled: istiods.settled,
            istiods_behind: first(&istiods.behind),
            namespaces: namespaces.total,
            namespaces_behind: first(&namespaces.behind),
            at: stamp(*at),
        }
    }
}

impl ReportedRotation {
    /// Until when it waits, where that is still to come.
    pub fn waits_until(&self, now: Timestamp) -> Option<&str> {
        self.not_before.as_deref().filter(|at| at.parse().is_ok_and(|at: Timestamp| at > now))
    }
}

impl From<&Course> for ReportedRotation {
    fn from(course: &Course) -> Self {
        let Course { rotation, goal, next, not_before } = course;
        Self {
            goal: rotation.goal.to_string(),
            goal_sha256: goal.as_ref().map(Sha256::openssl),
            from: rotation.from.iter().map(IssuerName::to_string).collect(),
            next: next.as_ref().map(Step::as_str).map(str::to_owned),
            not_before: not_before.map(stamp),
            paused: rotation.paused,
            ttl: humantime::format_duration(rotation.ttl).to_string(),
            started: stamp(rotation.started),
            by: rotation.by.clone(),
            clusters: rotation.clusters.iter().cloned().collect(),
        }
    }
}

/// Tells what is known.
pub fn report(cluster: &str, role: Role, known: Snapshot<'_>, policy: &Policy, now: Clocks) -> Report {
    let Snapshot { watched, convergence } = known;
    let state = state(known, policy, now);
    let published = watched.glance();
    let stored = convergence.root.as_ref();
    Report {
        cluster: cluster.to_owned(),
        role: role.as_str().to_owned(),
        state: state.to_owned(),
        reason: convergence.held.as_ref().map(|held| Reason::as_str(held.reason).to_owned()),
        message: convergence.held.as_ref().map(|held| held.message(cluster)),
        r#match: matches!((stored, published), (Some(stored), Some((glance, _))) if stored.glance.roots == glance.roots),
        vault: stored.map(|stored| VaultSide {
            root: root(&stored.glance),
            end: end(Some(stored.end())),
            version: stored.version,
            token_ends: stored.token_end.map(stamp),
            checked_at: stamp(stored.checked_at),
            address: stored.address.clone(),
        }),
        cacerts: published.map(|(glance, version)| CacertsSide {
            root: root(glance),
            end: end(watched.end()),
            resource_version: version.to_owned(),
            signer: watched.signer().map(|(signer, root)| ReportedSigner::of(signer, root, cluster)),
        }),
        mesh: None,
        rotation: None,
    }
}

fn state(known: Snapshot<'_>, policy: &Policy, now: Clocks) -> &'static str {
    let convergence = known.convergence;
    if known.is_open(policy, now) {
        "open"
    } else if convergence.running {
        "converging"
    } else if convergence.held.is_some() {
        "held"
    } else if convergence.consulted {
        "converging"
    } else {
        "dormant"
    }
}

impl Report {
    /// The same with what the witness saw last.
    #[must_use]
    pub fn with(self, outlook: Option<&Outlook>) -> Self {
        let mesh = outlook.map(|outlook| ReportedMesh::of(&outlook.attestation));
        let rotation = outlook.and_then(|outlook| outlook.course.as_ref()).map(ReportedRotation::from);
        Self { mesh, rotation, ..self }
    }

    /// The lines of `openssl x509 -fingerprint`, for `Accept: text/plain`: SHA-256 and SHA-1 of the
    /// cluster's root, else of Vault's.
    pub fn openssl(&self) -> String {
        let root = self.cacerts.as_ref().map(|c| &c.root).or(self.vault.as_ref().map(|v| &v.root));
        root.map(|root| format!("sha256 Fingerprint={}\nSHA1 Fingerprint={}\n", root.sha256, root.sha1))
            .unwrap_or_default()
    }
}

fn root(glance: &Glance) -> ReportedRoot {
    ReportedRoot {
        sha256: glance.sha256.openssl(),
        sha1: glance.sha1.openssl(),
        roots: glance.roots.iter().map(|root| root.openssl()).collect(),
        subject: glance.subject.clone(),
        not_after: stamp(glance.not_after),
    }
}

fn end(end: Option<(Timestamp, String)>) -> UsableUntil {
    let (at, set_by) = end.map(|(at, set_by)| (stamp(at), set_by)).unzip();
    UsableUntil { at, set_by }
}

/// As all of this program's JSON has it.
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
