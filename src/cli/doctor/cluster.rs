//! All of the cluster that the report is about, as far as it was seen; and how it leads to Vault.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::SignedDuration;
use url::Url;

use super::cacerts::Cacerts;
use super::look::{Asker, Kind, Look};
use super::neighbours::{ExternalSecret, GatewayPod, HelmRelease, ServiceEntry};
use super::rights::Rights;
use super::vault::Way;
use super::webhook::{Backend, Configuration};
use super::workloads::{Blocked, Workload};
use crate::ca::bundle::Glance;
use crate::plan::ReadPin;
use crate::self_test::Verdict;

/// istiod's own CA, which it makes where it does not find `cacerts`.
pub(super) const OWN_ROOT: &str = "istio-ca-secret";

/// What istiod gives to workloads as their root.
pub(super) const SERVED_ROOT: &str = "istio-ca-root-cert";

pub(super) const DEPLOYMENTS: Kind =
    Kind { group: "apps", versions: &["v1"], kind: "Deployment", plural: "deployments" };

pub(super) type Labels = BTreeMap<String, String>;

/// The cluster as it was seen.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) version: Look<String>,
    /// How far the API server's clock is ahead of this one, where it tells.
    pub(super) ahead: Option<SignedDuration>,
    /// The asker's user name.
    pub(super) me: Look<String>,
    pub(super) rights: Look<Rights>,
    /// Labels, and whether it is being deleted.
    pub(super) namespace: Look<(Labels, bool)>,
    pub(super) namespaces: Look<BTreeMap<String, Labels>>,
    pub(super) cacerts: Look<Cacerts>,
    pub(super) pin: Look<ReadPin>,
    /// The root in [`OWN_ROOT`], if it can be read.
    pub(super) own_root: Look<Option<Glance>>,
    /// The root in [`SERVED_ROOT`], if it can be read.
    pub(super) served_root: Look<Option<Glance>>,
    /// The certificate in `--tls-secret`, if there is one.
    pub(super) serving_ca: Look<Option<Vec<u8>>>,
    pub(super) validating: Look<Configuration>,
    pub(super) mutating: Look<Configuration>,
    /// Whether the API server calls a gate.
    pub(super) self_test: Look<Verdict>,
    /// Behind the webhooks, by namespace and name.
    pub(super) backends: BTreeMap<(String, String), Backend>,
    pub(super) workloads: Look<Vec<Workload>>,
    pub(super) blocked: Look<Vec<Blocked>>,
    pub(super) service_entries: Look<Vec<ServiceEntry>>,
    pub(super) gateway_pods: Look<Vec<GatewayPod>>,
    pub(super) external_secrets: Look<Vec<ExternalSecret>>,
    /// The gate's, about those of them that write `cacerts`.
    pub(super) sync_rights: Look<Rights>,
    pub(super) helm_releases: Look<Vec<HelmRelease>>,
}

impl Cluster {
    /// Nothing can be asked of one that does not.
    pub(super) fn answers(&self) -> bool {
        !matches!(self.version, Look::Failed(_) | Look::Skipped(_))
    }
}

/// How each address of Vault is reached.
pub(super) async fn ways(asker: Option<&Asker>, cluster: &Cluster, addresses: &[Url]) -> Vec<Way> {
    let mut ways = Vec::new();
    for address in addresses {
        let host = address.host_str().unwrap_or_default().to_owned();
        let service = match (asker, service_of(&host)) {
            (_, None) => {
                ways.push(Way::Direct);
                continue;
            }
            (None, Some(_)) => Look::default(),
            (Some(asker), Some((name, namespace))) => {
                asker.get::<Service>(namespace, "services", name).await.map(|_| ())
            }
        };
        ways.push(way(&host, &service, cluster.service_entries.seen().map_or(&[], Vec::as_slice)));
    }
    ways
}

/// Name and namespace of the Service that a name in the cluster is of.
fn service_of(host: &str) -> Option<(&str, &str)> {
    let mut parts = host.trim_end_matches('.').split('.');
    let (name, namespace, svc) = (parts.next()?, parts.next()?, parts.next()?);
    (svc == "svc").then_some((name, namespace))
}

fn way(host: &str, service: &Look<()>, entries: &[ServiceEntry]) -> Way {
    let entry = entries.iter().find(|entry| entry.hosts.iter().any(|other| other == host.trim_end_matches('.')));
    match (service, entry) {
        (Look::Seen(()), _) => Way::Direct,
        (_, Some(entry)) => Way::MeshOnly(format!("{}/{}", entry.namespace, entry.name)),
        _ => Way::Unknown,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entries() -> Vec<ServiceEntry> {
        let host = "vault-vault-nas.vault.svc.cluster.local".to_owned();
        vec![ServiceEntry { namespace: "vault".to_owned(), name: "vault-vault-nas".to_owned(), hosts: vec![host] }]
    }

    #[test]
    fn a_name_of_a_service_entry_and_no_service_is_of_the_mesh_only() {
        let host = "vault-vault-nas.vault.svc.cluster.local";
        assert_eq!(service_of(host), Some(("vault-vault-nas", "vault")));
        assert_eq!(way(host, &Look::Absent, &entries()), Way::MeshOnly("vault/vault-vault-nas".to_owned()));
        // Also where the asker may not look for a Service.
        assert_eq!(
            way(host, &Look::Forbidden(String::new()), &entries()),
            Way::MeshOnly("vault/vault-vault-nas".to_owned())
        );
    }

    #[test]
    fn a_service_is_reached_without_the_mesh_whatever_else_has_its_name() {
        let host = "vault-vault-nas.vault.svc.cluster.local";
        assert_eq!(way(host, &Look::Seen(()), &entries()), Way::Direct);
        assert_eq!(way("vault.vault.svc", &Look::Absent, &entries()), Way::Unknown);
    }

    #[test]
    fn names_outside_of_the_cluster_are_no_services() {
        for host in ["vault.homelab.example", "127.0.0.1", "vault", "a.b.svcx.c"] {
            assert_eq!(service_of(host), None, "{host}");
        }
    }
}
