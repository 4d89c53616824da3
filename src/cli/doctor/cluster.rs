//! Reads all of the cluster that the report is about.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client, ResourceExt};
use url::Url;

use super::asked::Asked;
use super::cacerts::Cacerts;
use super::look::{Asker, Kind, Look};
use super::neighbours::{self, ExternalSecret, GatewayPod, HelmRelease, ServiceEntry};
use super::rights::{self, Names, Rights};
use super::self_test;
use super::vault::Way;
use super::webhook::{Backend, Configuration};
use super::workloads::{Blocked, Workload};
use crate::ca::bundle::{CA_CERT, Glance, ROOT_CERT, glance};
use crate::k8s::pin::{self, Pins};
use crate::k8s::{cacerts, serving};
use crate::reason::{Reason, foreign_text};
use crate::self_test::Verdict;

/// istiod's own CA, which it makes where it does not find `cacerts`.
pub(super) const OWN_ROOT: &str = "istio-ca-secret";

/// What istiod gives to workloads as their root.
pub(super) const SERVED_ROOT: &str = "istio-ca-root-cert";

const WEBHOOKS: [Kind; 2] = [
    Kind {
        group: "admissionregistration.k8s.io",
        versions: &["v1"],
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
    },
    Kind {
        group: "admissionregistration.k8s.io",
        versions: &["v1"],
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
    },
];

const NAMESPACES: Kind = Kind { group: "", versions: &["v1"], kind: "Namespace", plural: "namespaces" };
const PODS: Kind = Kind { group: "", versions: &["v1"], kind: "Pod", plural: "pods" };
const SLICES: Kind =
    Kind { group: "discovery.k8s.io", versions: &["v1"], kind: "EndpointSlice", plural: "endpointslices" };
const DEPLOYMENTS: Kind = Kind { group: "apps", versions: &["v1"], kind: "Deployment", plural: "deployments" };
const REPLICA_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "ReplicaSet", plural: "replicasets" };
const STATEFUL_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "StatefulSet", plural: "statefulsets" };
const DAEMON_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "DaemonSet", plural: "daemonsets" };
const SERVICE_ENTRIES: Kind = Kind {
    group: "networking.istio.io",
    versions: &["v1", "v1beta1", "v1alpha3"],
    kind: "ServiceEntry",
    plural: "serviceentries",
};
const EXTERNAL_SECRETS: Kind = Kind {
    group: "external-secrets.io",
    versions: &["v1", "v1beta1"],
    kind: "ExternalSecret",
    plural: "externalsecrets",
};
const HELM_RELEASES: Kind = Kind {
    group: "helm.toolkit.fluxcd.io",
    versions: &["v2", "v2beta2", "v2beta1"],
    kind: "HelmRelease",
    plural: "helmreleases",
};

pub(super) type Labels = BTreeMap<String, String>;

/// The cluster as it was seen.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) version: Look<String>,
    /// The asker's user name.
    pub(super) me: Look<String>,
    pub(super) rights: Look<Rights>,
    /// Labels, and whether it is being deleted.
    pub(super) namespace: Look<(Labels, bool)>,
    pub(super) namespaces: Look<BTreeMap<String, Labels>>,
    pub(super) cacerts: Look<Cacerts>,
    pub(super) pin: Look<pin::Read>,
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

/// Reads it, all at once where one thing does not depend on another.
pub(super) async fn look(asker: &Asker, asked: &Asked) -> Cluster {
    let version = asker.ask("get /version", asker.client.apiserver_version()).await;
    let version = version.map(|version| foreign_text(&version.git_version));
    if matches!(version, Look::Failed(_)) {
        return Cluster { version, ..Cluster::default() };
    }
    let (core, webhooks, self_test, running, beside) = tokio::join!(
        Box::pin(core(asker, asked)),
        Box::pin(webhooks(asker, asked)),
        Box::pin(self_test::look(asker, asked)),
        Box::pin(running(asker, asked)),
        Box::pin(beside(asker, asked)),
    );
    let cluster = Cluster {
        version,
        validating: webhooks.validating,
        mutating: webhooks.mutating,
        backends: webhooks.backends,
        self_test,
        workloads: running.workloads,
        blocked: running.blocked,
        namespaces: running.namespaces,
        service_entries: beside.service_entries,
        gateway_pods: beside.gateway_pods,
        external_secrets: beside.external_secrets,
        helm_releases: beside.helm_releases,
        ..core
    };
    Cluster { sync_rights: sync_rights(asker, asked, &cluster).await, ..cluster }
}

/// None are needed where no ExternalSecret writes `cacerts`.
async fn sync_rights(asker: &Asker, asked: &Asked, cluster: &Cluster) -> Look<Rights> {
    let writers = neighbours::writers(cluster, asked);
    let needed: Vec<_> =
        writers.flat_map(|writer| rights::of_external_secret(&writer.namespace, &writer.name)).collect();
    let gate = rights::user_of(&asked.namespace, &asked.account);
    rights::look(asker, &cluster.me, &asked.namespace, &gate, &needed).await
}

async fn core(asker: &Asker, asked: &Asked) -> Cluster {
    let Asked { namespace, secret, tls_secret, webhook_config, .. } = asked;
    let review: Api<SelfSubjectReview> = Api::all(asker.client.clone());
    let (post, who) = (PostParams::default(), SelfSubjectReview::default());
    let me = asker.ask("create selfsubjectreviews.authentication.k8s.io", review.create(&post, &who)).await;
    let me = me.map(|review| review.status.and_then(|status| status.user_info?.username).unwrap_or_default());
    let me = me.map(|name| foreign_text(&name));
    let needed = rights::needed(&Names { namespace, secret, tls_secret: tls_secret.as_deref(), webhook_config });
    let gate = rights::user_of(namespace, &asked.account);

    let all: Api<Namespace> = Api::all(asker.client.clone());
    let right = format!("get namespaces {namespace}");
    let (rights, in_namespace, cacerts, pin, own_root, served_root, serving_ca) = tokio::join!(
        rights::look(asker, &me, namespace, &gate, &needed),
        asker.ask(&right, all.get(namespace)),
        asker.get::<Secret>(namespace, "secrets", secret),
        pin(asker, namespace),
        asker.get::<Secret>(namespace, "secrets", OWN_ROOT),
        asker.get::<ConfigMap>(namespace, "configmaps", SERVED_ROOT),
        async {
            match tls_secret {
                Some(name) => asker.get::<Secret>(namespace, "secrets", name).await,
                None => Look::Skipped("the gate's certificate is from files"),
            }
        },
    );
    let file = |secret: &Secret, key: &str| secret.data.as_ref().and_then(|data| Some(data.get(key)?.0.clone()));
    Cluster {
        me,
        rights,
        namespace: in_namespace.map(|it| (it.labels().clone(), it.metadata.deletion_timestamp.is_some())),
        cacerts: cacerts.map(|secret| Cacerts::of(&secret, cacerts::published(&secret, Timestamp::now()))),
        pin,
        own_root: own_root.map(|secret| glance(&file(&secret, CA_CERT)?)),
        served_root: served_root.map(|map| glance(map.data?.get(ROOT_CERT)?.as_bytes())),
        serving_ca: serving_ca.map(|secret| file(&secret, serving::CERTIFICATE)),
        ..Cluster::default()
    }
}

async fn pin(asker: &Asker, namespace: &str) -> Look<pin::Read> {
    let right = format!("get configmaps {} in {namespace}", pin::NAME);
    let pins = Pins::new(asker.client.clone(), namespace);
    match asker.ask(&right, async { Ok(pins.read().await) }).await {
        Look::Seen(Err(held)) if held.reason == Reason::KubernetesForbidden => {
            Look::Forbidden(format!("no right to {right}"))
        }
        answered => answered.and_then(Look::from),
    }
}

async fn webhooks(asker: &Asker, asked: &Asked) -> Cluster {
    let [validating, mutating] = &WEBHOOKS;
    let (validating, mutating) =
        tokio::join!(asker.find(validating, &asked.webhook_config), asker.find(mutating, &asked.webhook_config));
    let (validating, mutating) =
        (validating.map(|it| Configuration::of(&it)), mutating.map(|it| Configuration::of(&it)));
    let mut backends = BTreeMap::new();
    for configuration in [&validating, &mutating].into_iter().filter_map(Look::seen) {
        for (namespace, name) in configuration.services() {
            if !backends.contains_key(&(namespace.clone(), name.clone())) {
                let backend = backend(asker, &namespace, &name).await;
                backends.insert((namespace, name), backend);
            }
        }
    }
    Cluster { validating, mutating, backends, ..Cluster::default() }
}

async fn backend(asker: &Asker, namespace: &str, name: &str) -> Backend {
    let of_service = format!("kubernetes.io/service-name={name}");
    let (service, slices) = tokio::join!(
        asker.get::<Service>(namespace, "services", name),
        asker.list_in(&SLICES, namespace, &of_service),
    );
    Backend::of(service, slices)
}

async fn running(asker: &Asker, asked: &Asked) -> Cluster {
    let namespace = &asked.namespace;
    let (deployments, replica_sets, stateful_sets, daemon_sets, namespaces) = tokio::join!(
        asker.list(&DEPLOYMENTS, namespace),
        asker.list(&REPLICA_SETS, namespace),
        asker.list(&STATEFUL_SETS, namespace),
        asker.list(&DAEMON_SETS, namespace),
        asker.list(&NAMESPACES, namespace),
    );
    let blocked = match &replica_sets {
        Look::Seen(sets) => Look::Seen(sets.iter().filter_map(|set| Blocked::of(set, &asked.gated)).collect()),
        other => other.clone().map(|_| Vec::new()),
    };
    let of = |kind: &Kind, objects: Look<Vec<DynamicObject>>| {
        objects.map(|objects| objects.iter().map(|object| Workload::of(kind.kind, object)).collect::<Vec<_>>())
    };
    // The gate may list ReplicaSets, and not the Deployments that they come from.
    let mut workloads = match of(&DEPLOYMENTS, deployments) {
        Look::Forbidden(right) => match of(&REPLICA_SETS, replica_sets) {
            Look::Seen(sets) => Look::Seen(sets.into_iter().filter(Workload::wants_pods).collect()),
            _ => Look::Forbidden(right),
        },
        deployments => deployments,
    };
    if let Look::Seen(workloads) = &mut workloads {
        for others in [of(&STATEFUL_SETS, stateful_sets), of(&DAEMON_SETS, daemon_sets)] {
            workloads.extend(others.seen().cloned().unwrap_or_default());
        }
    }
    let namespaces = namespaces.map(|namespaces| {
        namespaces.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect()
    });
    Cluster { workloads, blocked, namespaces, ..Cluster::default() }
}

async fn beside(asker: &Asker, asked: &Asked) -> Cluster {
    let namespace = &asked.namespace;
    let (service_entries, gateway_pods, external_secrets, helm_releases) = tokio::join!(
        asker.list(&SERVICE_ENTRIES, namespace),
        asker.list_in(&PODS, namespace, "app=istio-eastwestgateway"),
        asker.list(&EXTERNAL_SECRETS, namespace),
        asker.list(&HELM_RELEASES, namespace),
    );
    fn each<T>(objects: Look<Vec<DynamicObject>>, of: impl Fn(&DynamicObject) -> T) -> Look<Vec<T>> {
        objects.map(|objects| objects.iter().map(of).collect())
    }
    Cluster {
        service_entries: each(service_entries, ServiceEntry::of),
        gateway_pods: each(gateway_pods, GatewayPod::of),
        external_secrets: each(external_secrets, ExternalSecret::of),
        helm_releases: each(helm_releases, HelmRelease::of),
        ..Cluster::default()
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

/// A client for the questions, with their deadline.
pub(super) fn asker(client: Client, timeout: std::time::Duration) -> Asker {
    Asker { client, timeout }
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
