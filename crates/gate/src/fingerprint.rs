//! What `GET /fingerprint` tells: both roots side by side, and how the gate stands.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::ca::bundle::Glance;
use crate::clock::Clocks;
use crate::plan::Role;
use crate::reason::Reason;
use crate::snapshot::{Policy, Snapshot};

/// The JSON of `GET /fingerprint`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub(crate) cluster: String,
    pub(crate) role: &'static str,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: Option<String>,
    pub(crate) r#match: bool,
    pub(crate) vault: Option<Vault>,
    pub(crate) cacerts: Option<Cacerts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Root {
    pub(crate) sha256: String,
    pub(crate) sha1: String,
    pub(crate) roots: Vec<String>,
    pub(crate) subject: String,
    pub(crate) not_after: String,
}

/// Until when the check lets it pass, and what ends it.
#[derive(Debug, Serialize)]
pub(crate) struct End {
    #[serde(rename = "usableUntil")]
    pub(crate) at: Option<String>,
    #[serde(rename = "usableUntilSetBy")]
    pub(crate) set_by: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Vault {
    #[serde(flatten)]
    pub(crate) root: Root,
    #[serde(flatten)]
    pub(crate) end: End,
    pub(crate) version: u64,
    pub(crate) checked_at: String,
    pub(crate) address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cacerts {
    #[serde(flatten)]
    pub(crate) root: Root,
    #[serde(flatten)]
    pub(crate) end: End,
    pub(crate) resource_version: String,
}

/// Tells what is known.
pub fn report(cluster: &str, role: Role, known: Snapshot<'_>, policy: &Policy, now: Clocks) -> Report {
    let Snapshot { watched, convergence } = known;
    let open = known.is_open(policy, now);
    let state = if open {
        "open"
    } else if convergence.running {
        "converging"
    } else if convergence.held.is_some() {
        "held"
    } else if convergence.consulted {
        "converging"
    } else {
        "dormant"
    };
    let published = watched.glance();
    let stored = convergence.root.as_ref();
    Report {
        cluster: cluster.to_owned(),
        role: role.as_str(),
        state,
        reason: convergence.held.as_ref().map(|held| Reason::as_str(held.reason)),
        message: convergence.held.as_ref().map(|held| held.message(cluster)),
        r#match: matches!((stored, published), (Some(stored), Some((glance, _))) if stored.glance.roots == glance.roots),
        vault: stored.map(|stored| Vault {
            root: root(&stored.glance),
            end: end(Some(stored.end())),
            version: stored.version,
            checked_at: stamp(stored.checked_at),
            address: stored.address.clone(),
        }),
        cacerts: published.map(|(glance, version)| Cacerts {
            root: root(glance),
            end: end(watched.end()),
            resource_version: version.to_owned(),
        }),
    }
}

impl Report {
    /// The lines of `openssl x509 -fingerprint`, for `Accept: text/plain`: SHA-256 and SHA-1 of the
    /// cluster's root, else of Vault's.
    pub fn openssl(&self) -> String {
        let root = self.cacerts.as_ref().map(|c| &c.root).or(self.vault.as_ref().map(|v| &v.root));
        root.map(|root| format!("sha256 Fingerprint={}\nSHA1 Fingerprint={}\n", root.sha256, root.sha1))
            .unwrap_or_default()
    }
}

fn root(glance: &Glance) -> Root {
    Root {
        sha256: glance.sha256.openssl(),
        sha1: glance.sha1.openssl(),
        roots: glance.roots.iter().map(|root| root.openssl()).collect(),
        subject: glance.subject.clone(),
        not_after: stamp(glance.not_after),
    }
}

fn end(end: Option<(Timestamp, String)>) -> End {
    let (at, set_by) = end.map(|(at, set_by)| (stamp(at), set_by)).unzip();
    End { at, set_by }
}

/// As all of this program's JSON has it.
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
