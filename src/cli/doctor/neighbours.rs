//! Links 18 to 20: what is there beside the gate, Istio's, External Secrets' and Flux's, and pods that are blocked.

use async_trait::async_trait;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::asked::Asked;
use super::cacerts::published;
use super::check::{Check, Eyes, Sight};
use super::cluster::Cluster;
use super::line::{Line, Link};
use super::look::{Asker, Kind, Look};
use super::rights::{self, Behalf, Rights};
use super::vault::Address;
use crate::plan::{Owner, Published, Role};
use crate::reason::{Reason, foreign_text};

/// What the set-up of old reached Vault by, through the mesh.
const SERVICE_ENTRY: &str = "vault-vault-nas";

/// Charts whose releases wait for the gate.
const CHARTS: [&str; 2] = ["istiod", "gateway"];

const PODS: Kind = Kind { group: "", versions: &["v1"], kind: "Pod", plural: "pods" };
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

/// The way of old to Vault; its ServiceEntries were looked at with the addresses.
pub(super) struct OldWay;

/// Those that write `cacerts`.
pub(super) struct ExternalSecrets;

/// Those that wait for gated pods.
pub(super) struct HelmReleases;

/// What is refused; seen with the workloads.
pub(super) struct BlockedPods;

#[async_trait(?Send)]
impl Check for OldWay {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            let pods = eyes.asker.list_in(&PODS, &eyes.asked.namespace, "app=istio-eastwestgateway").await;
            seen.cluster.gateway_pods = each(pods, GatewayPod::of);
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        old_way(&seen.cluster, &seen.told.addresses, asked)
    }
}

#[async_trait(?Send)]
impl Check for ExternalSecrets {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if !seen.cluster.answers() {
            return;
        }
        let (asker, asked) = (eyes.asker, eyes.asked);
        let found = asker.list(&EXTERNAL_SECRETS, &asked.namespace).await;
        seen.cluster.external_secrets = each(found, ExternalSecret::of);
        let writers = writers(&seen.cluster, asked);
        let needed: Vec<_> = writers.flat_map(|it| rights::of_external_secret(&it.namespace, &it.name)).collect();
        let gate = rights::user_of(&asked.namespace, &asked.account);
        seen.cluster.sync_rights = rights::look(asker, &seen.cluster.me, &asked.namespace, &gate, &needed).await;
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        external_secrets(&seen.cluster, asked)
    }
}

#[async_trait(?Send)]
impl Check for HelmReleases {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            let found = eyes.asker.list(&HELM_RELEASES, &eyes.asked.namespace).await;
            seen.cluster.helm_releases = each(found, HelmRelease::of);
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        helm_releases(&seen.cluster, asked)
    }
}

#[async_trait(?Send)]
impl Check for BlockedPods {
    async fn look(&self, _: &Eyes<'_>, _: &mut Sight) {}

    fn lines(&self, seen: &Sight, _: &Asked) -> Vec<Line> {
        blocked(&seen.cluster)
    }
}

pub(super) async fn service_entries(asker: &Asker, asked: &Asked) -> Look<Vec<ServiceEntry>> {
    each(asker.list(&SERVICE_ENTRIES, &asked.namespace).await, ServiceEntry::of)
}

fn each<T>(objects: Look<Vec<DynamicObject>>, of: impl Fn(&DynamicObject) -> T) -> Look<Vec<T>> {
    objects.map(|objects| objects.iter().map(of).collect())
}

/// A ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceEntry {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
}

/// A pod of the east-west gateway: whether it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GatewayPod(pub(super) bool);

/// A condition `Ready`, and its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// `None`: not told yet.
    pub(super) is: Option<bool>,
    pub(super) message: String,
    /// Flux gave up.
    pub(super) stalled: bool,
}

/// An ExternalSecret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExternalSecret {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The Secret that it writes.
    pub(super) target: String,
    pub(super) ready: Ready,
}

/// A HelmRelease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HelmRelease {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) chart: String,
    pub(super) ready: Ready,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ready(object: &DynamicObject) -> Ready {
    let conditions = object.data["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    let ready = condition("Ready");
    Ready {
        is: ready.and_then(|ready| match ready["status"].as_str() {
            Some("True") => Some(true),
            Some("False") => Some(false),
            _ => None,
        }),
        message: ready.map(|ready| foreign_text(&text(&ready["message"]))).unwrap_or_default(),
        stalled: condition("Stalled").is_some_and(|stalled| stalled["status"] == "True"),
    }
}

impl ServiceEntry {
    pub(super) fn of(object: &DynamicObject) -> Self {
        let hosts = object.data["spec"]["hosts"].as_array().into_iter().flatten().map(text).collect();
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any(), hosts }
    }
}

impl GatewayPod {
    pub(super) fn of(object: &DynamicObject) -> Self {
        Self(ready(object).is == Some(true))
    }
}

impl ExternalSecret {
    pub(super) fn of(object: &DynamicObject) -> Self {
        let target = object.data["spec"]["target"]["name"].as_str().filter(|name| !name.is_empty());
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            target: target.map_or_else(|| object.name_any(), str::to_owned),
            ready: ready(object),
        }
    }
}

impl HelmRelease {
    pub(super) fn of(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let chart = spec["chart"]["spec"]["chart"].as_str().or(spec["chartRef"]["name"].as_str()).unwrap_or_default();
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            chart: chart.to_owned(),
            ready: ready(object),
        }
    }
}

/// The way of old to Vault. Nothing is said where Istio's kinds are not there.
pub(super) fn old_way(cluster: &Cluster, addresses: &[Address], asked: &Asked) -> Vec<Line> {
    if asked.role != Role::Sync || cluster.service_entries == Look::Absent {
        return Vec::new();
    }
    vec![service_entry(cluster, addresses), gateway(cluster, asked)]
}

fn service_entry(cluster: &Cluster, addresses: &[Address]) -> Line {
    let link = Link::new("service-entry", format!("ServiceEntry {SERVICE_ENTRY}"));
    let entries = match cluster.service_entries.or_line(&link) {
        Err(line) => return line,
        Ok(entries) => entries.map_or(&[][..], Vec::as_slice),
    };
    let is_configured = |host: &String| addresses.iter().any(|address| address.url.host_str() == Some(host));
    match entries.iter().find(|entry| entry.name == SERVICE_ENTRY || entry.hosts.iter().any(is_configured)) {
        Some(entry) => {
            link.ok(format!("{}/{} has {}", entry.namespace, entry.name, foreign_text(&entry.hosts.join(", "))))
        }
        None => link.note("there is none: only what reaches Vault through the mesh needs one, and the gate does not"),
    }
}

fn gateway(cluster: &Cluster, asked: &Asked) -> Line {
    let link = Link::new("eastwest-gateway", format!("pods app=istio-eastwestgateway in {}", asked.namespace));
    let pods = match cluster.gateway_pods.or_line(&link) {
        Err(line) => return line,
        Ok(pods) => pods.map_or(&[][..], Vec::as_slice),
    };
    let ready = pods.iter().filter(|GatewayPod(ready)| *ready).count();
    match (ready, pods.len()) {
        (_, 0) => link.note("there are none, or none of the chart's"),
        (0, all) => link.warning(
            format!("none of {all} is ready: what other clusters reach through the mesh is not reached"),
            format!("`kubectl -n {} describe pods -l app=istio-eastwestgateway`", asked.namespace),
        ),
        (ready, all) => link.ok(format!("{ready} of {all} ready")),
    }
}

/// Each ExternalSecret that writes `cacerts`.
pub(super) fn external_secrets(cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let link = Link::new("external-secret", format!("ExternalSecrets of {}", asked.names.cacerts));
    if let Err(line) = cluster.external_secrets.or_line(&link) {
        return vec![line];
    }
    writers(cluster, asked).map(|it| external_secret(it, cluster, asked)).collect()
}

/// Those that are known to write it.
pub(super) fn writers<'a>(cluster: &'a Cluster, asked: &Asked) -> impl Iterator<Item = &'a ExternalSecret> {
    let all = cluster.external_secrets.seen().into_iter().flatten();
    all.filter(|it| it.namespace == asked.namespace && it.target == asked.secret)
}

fn external_secret(it: &ExternalSecret, cluster: &Cluster, asked: &Asked) -> Line {
    let ExternalSecret { namespace, name, ready, .. } = it;
    let link = Link::new("external-secret", format!("ExternalSecret {namespace}/{name}"));
    let describe = format!("`kubectl -n {namespace} describe externalsecret {name}`");
    match ready.is {
        Some(true) if !managed_by_es(cluster) && published(cluster).is_some_and(is_there) => link.warning(
            format!(
                "writes Secret {}, which does not say that External Secrets manages it: two may write it",
                asked.names.cacerts
            ),
            "keep one of them: see \"Coming from the Job and External Secrets\" in docs/operate.md",
        ),
        Some(true) => match cluster.sync_rights.seen() {
            Some(Rights { behalf: Behalf::Gate, missing }) if !missing.is_empty() => link
                .warning(
                    format!("is ready, and the gate cannot have it synced: lacks {}", rights::listed(missing)),
                    "apply deploy/kustomize/components/external-secrets, with this name in its rbac.yaml",
                )
                .reason(Reason::KubernetesForbidden),
            _ => link.ok("is ready"),
        },
        Some(false) if managed_by_es(cluster) => {
            link.warning(format!("is not ready: {}; cacerts stays as it is", ready.message), describe)
        }
        Some(false) => link.failed(format!("is not ready: {}", ready.message), describe),
        None => link.warning("does not tell whether it is ready", "check that the External Secrets Operator runs"),
    }
}

fn is_there(published: &Published) -> bool {
    matches!(published, Published::Present(_))
}

fn managed_by_es(cluster: &Cluster) -> bool {
    matches!(published(cluster), Some(Published::Present(copy)) if matches!(copy.owner, Owner::ExternalSecrets(_)))
}

/// Each HelmRelease that waits, or gave up waiting, for gated pods.
pub(super) fn helm_releases(cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let link = Link::new("helm-release", "Flux's releases of istiod and gateways");
    let all = match cluster.helm_releases.or_line(&link) {
        Ok(all) => all.map_or(&[][..], Vec::as_slice),
        Err(line) => return vec![line],
    };
    let gated =
        cluster.workloads.seen().map_or(&[][..], Vec::as_slice).iter().filter(|it| asked.gated.matches(&it.labels));
    let made: Vec<_> = gated.filter_map(|workload| workload.release.as_ref()).collect();
    let waits = |it: &&HelmRelease| {
        made.iter().any(|(namespace, name)| (namespace, name) == (&it.namespace, &it.name))
            || CHARTS.contains(&it.chart.as_str())
    };
    all.iter().filter(waits).map(helm_release).collect()
}

fn helm_release(it: &HelmRelease) -> Line {
    let HelmRelease { namespace, name, ready, .. } = it;
    let link = Link::new("helm-release", format!("HelmRelease {namespace}/{name}"));
    match ready {
        Ready { is: Some(true), .. } => link.ok("is ready"),
        Ready { stalled: true, message, .. } => link.failed(
            format!("has given up: {message}"),
            format!("once the rest is ok: `flux -n {namespace} reconcile helmrelease {name} --reset`"),
        ),
        Ready { is, message, .. } => link.warning(
            format!("is not ready{}{message}", if is.is_some() { ": " } else { " yet" }),
            format!("once the rest is ok: `flux -n {namespace} reconcile helmrelease {name}`"),
        ),
    }
}

/// Each ReplicaSet whose gated pods are refused: what a user sees of all the rest.
pub(super) fn blocked(cluster: &Cluster) -> Vec<Line> {
    let link = Link::new("blocked", "ReplicaSets of gated pods");
    let blocked = match cluster.blocked.or_line(&link) {
        Err(line) => return vec![line],
        Ok(blocked) => blocked.map_or(&[][..], Vec::as_slice),
    };
    if blocked.is_empty() {
        return vec![link.ok("none is refused its pods")];
    }
    let line = |it: &super::workloads::Blocked| {
        let link = Link::new("blocked", format!("ReplicaSet {}", it.name));
        let next = "mend what FAILED above; the gate then has it retried by itself";
        let line = link.failed(format!("is refused its pods: {}", it.message), next);
        it.reason.map_or(line.clone(), |reason| line.reason(reason))
    };
    blocked.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
