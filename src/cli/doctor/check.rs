//! The one interface of all that the report is made of, and the list of it.

use async_trait::async_trait;

use super::asked::Asked;
use super::cluster::Cluster;
use super::line::Line;
use super::look::Asker;
use super::vault::Told;
use super::{addresses, api, cacerts, gated, login, neighbours, record, rights, roots, self_test, settings, webhook};
use crate::vault::Vault;

/// A check: what it looks at, and what it says of it.
#[async_trait(?Send)]
pub(super) trait Check: Sync {
    /// Looks at what it needs and no check before it has looked at.
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight);

    /// What it says, by all that was seen.
    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line>;
}

/// What is looked with.
pub(super) struct Eyes<'a> {
    pub(super) vault: &'a Vault,
    pub(super) asker: &'a Asker,
    pub(super) asked: &'a Asked,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Sight {
    /// Flags that the cluster's own gate gave.
    pub(super) taken: Vec<String>,
    pub(super) told: Told,
    pub(super) cluster: Cluster,
}

/// The parts of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Settings,
    Vault,
    Cluster,
    Roots,
    Gate,
    Beside,
}

impl Group {
    /// Over its lines, and beside the spinner while they are looked for.
    pub(super) const fn heading(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Vault => "Vault",
            Self::Cluster => "The cluster",
            Self::Roots => "The roots",
            Self::Gate => "The gate",
            Self::Beside => "Beside it",
        }
    }
}

/// All checks, in the order of their lines: what one needs of another comes after it.
pub(super) const CHECKS: &[(Group, &dyn Check)] = &[
    (Group::Settings, &settings::Taken),
    (Group::Vault, &addresses::Addresses),
    (Group::Vault, &login::Login),
    (Group::Vault, &record::InVault),
    (Group::Cluster, &api::ApiServer),
    (Group::Cluster, &rights::GateRights),
    (Group::Cluster, &cacerts::InNamespace),
    (Group::Roots, &cacerts::CacertsAndPin),
    (Group::Roots, &roots::Roots),
    (Group::Gate, &webhook::Webhooks),
    (Group::Gate, &self_test::Tried),
    (Group::Gate, &gated::Workloads),
    (Group::Beside, &neighbours::OldWay),
    (Group::Beside, &neighbours::ExternalSecrets),
    (Group::Beside, &neighbours::HelmReleases),
    (Group::Beside, &neighbours::BlockedPods),
];

/// Those that have something to say before anything is installed.
pub(super) const BEFORE: &[(Group, &dyn Check)] = &[
    (Group::Vault, &addresses::Addresses),
    (Group::Vault, &login::Login),
    (Group::Vault, &record::InVault),
    (Group::Cluster, &api::ApiServer),
    (Group::Cluster, &cacerts::InNamespace),
    (Group::Roots, &cacerts::CacertsAndPin),
    (Group::Roots, &roots::Roots),
    (Group::Beside, &neighbours::OldWay),
    (Group::Beside, &neighbours::ExternalSecrets),
    (Group::Beside, &neighbours::HelmReleases),
];
