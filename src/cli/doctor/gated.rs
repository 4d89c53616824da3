//! Links 16 and 17: whether what should be gated is, and the gate itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::cluster::{Cluster, DEPLOYMENTS, Labels};
use super::line::{Line, Link};
use super::look::{Kind, Look};
use super::webhook::{self, Configuration};
use super::workloads::{Blocked, Workload};

/// Labels that keep a pod out of sidecar injection and out of ambient mode. Labels: the injector's selector does
/// not see annotations.
const OUTSIDE: [(&str, &str); 2] = [("sidecar.istio.io/inject", "false"), ("istio.io/dataplane-mode", "none")];

/// What the manifests call the gate.
const GATE: (&str, &str) = ("app", "istio-ca-gate");

const NAMESPACES: Kind = Kind { group: "", versions: &["v1"], kind: "Namespace", plural: "namespaces" };
const REPLICA_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "ReplicaSet", plural: "replicasets" };
const STATEFUL_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "StatefulSet", plural: "statefulsets" };
const DAEMON_SETS: Kind = Kind { group: "apps", versions: &["v1"], kind: "DaemonSet", plural: "daemonsets" };

/// All that makes pods.
pub(super) struct Workloads;

#[async_trait(?Send)]
impl Check for Workloads {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            Box::pin(look(eyes, &mut seen.cluster)).await;
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let mut lines = selectors(&seen.cluster, asked);
        lines.extend(gate(&seen.cluster, asked));
        lines
    }
}

async fn look(eyes: &Eyes<'_>, cluster: &mut Cluster) {
    let (asker, namespace) = (eyes.asker, &eyes.asked.namespace);
    let (deployments, replica_sets, stateful_sets, daemon_sets, namespaces) = tokio::join!(
        asker.list(&DEPLOYMENTS, namespace),
        asker.list(&REPLICA_SETS, namespace),
        asker.list(&STATEFUL_SETS, namespace),
        asker.list(&DAEMON_SETS, namespace),
        asker.list(&NAMESPACES, namespace),
    );
    let refused = |sets: &Vec<DynamicObject>| {
        sets.iter().filter_map(|set| Blocked::of(set, &eyes.asked.gated)).collect::<Vec<_>>()
    };
    cluster.blocked = replica_sets.clone().map(|sets| refused(&sets));
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
    cluster.workloads = workloads;
    cluster.namespaces = namespaces.map(|namespaces| {
        namespaces.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect()
    });
}

/// A line for each workload that is not gated as it should be, or one for all.
pub(super) fn selectors(cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let link = Link::new("selectors", "which pods are gated");
    let workloads = match cluster.workloads.or_line(&link) {
        Err(line) => return vec![line],
        Ok(workloads) => workloads.map_or(&[][..], Vec::as_slice),
    };
    let configurations: Vec<_> = [&cluster.validating, &cluster.mutating].into_iter().filter_map(Look::seen).collect();
    if configurations.is_empty() {
        return vec![link.skipped("there is no webhook configuration that could be read")];
    }
    let mut lines = Vec::new();
    let mut gated = Vec::new();
    for workload in workloads {
        let namespace = cluster.namespaces.seen().and_then(|all| all.get(&workload.namespace));
        let counts = configurations.iter().map(|it| selected_by(it, workload, namespace));
        let link = Link::new("selectors", workload.full_name());
        match verdict(&link, workload, &counts.collect::<Vec<_>>(), asked) {
            Some(line) => lines.push(line),
            None if asked.gated.matches(&workload.labels) => gated.push(workload.full_name()),
            None => {}
        }
    }
    match (lines.is_empty(), gated.is_empty()) {
        (true, true) => vec![link.note("no istiod and no east-west gateway is deployed yet, as far as may be seen")],
        (true, false) => vec![link.ok(format!("{}, each by one webhook", gated.join(", ")))],
        _ => lines,
    }
}

/// By how many webhooks of a configuration its pods are sent to the gate.
fn selected_by(configuration: &Configuration, workload: &Workload, namespace: Option<&Labels>) -> usize {
    let entries = configuration.entries.iter().flatten();
    entries.filter(|entry| entry.selects(&workload.labels, namespace)).count()
}

fn verdict(link: &Link, workload: &Workload, counts: &[usize], asked: &Asked) -> Option<Line> {
    let together = "change --gate-selector and the objectSelectors of deploy/kustomize/base/webhook.yaml together";
    let (least, most) = (counts.iter().min().copied()?, counts.iter().max().copied()?);
    if !asked.gated.matches(&workload.labels) {
        if most > 0 {
            return Some(
                link.warning("the API server asks the gate about its pods, and the gate lets all of them in", together),
            );
        }
        let seen = "looks like istiod or an east-west gateway, and is not gated";
        let next = "if it needs cacerts, give its pods the labels of the charts, or name them by --gate-selector and in webhook.yaml";
        return looks_gated(workload).then(|| link.warning(seen, next));
    }
    match (least, most) {
        (0, _) => {
            Some(link.failed("the gate's selectors match its pods, and no webhook does: they start unasked", together))
        }
        (_, 1) => None,
        _ => Some(link.warning(format!("{most} webhooks match its pods, each of which costs a call"), together)),
    }
}

/// By image and name, as the charts have them; not what only talks to istiod.
fn looks_gated(workload: &Workload) -> bool {
    let is_pilot = |image: &String| {
        let name = image.rsplit('/').next().unwrap_or_default();
        name.split([':', '@']).next() == Some("pilot")
    };
    let name = workload.name.as_str();
    workload.images.iter().any(is_pilot)
        || name == "istiod"
        || name.starts_with("istiod-")
        || name.contains("eastwestgateway")
        || name.contains("east-west")
}

/// The gate's own pods.
pub(super) fn gate(cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let link = Link::new("gate", format!("the gate's pods in {}", asked.namespace));
    let workloads = match cluster.workloads.or_line(&link) {
        Err(line) => return vec![line],
        Ok(workloads) => workloads.map_or(&[][..], Vec::as_slice),
    };
    let by_label: Labels = BTreeMap::from([(GATE.0.to_owned(), GATE.1.to_owned())]);
    let mut selectors = webhook::selectors(&cluster.backends);
    selectors.push(&by_label);
    let is_gate = |workload: &&Workload| {
        let has = |selector: &&Labels| selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value));
        workload.namespace == asked.namespace && selectors.iter().any(has)
    };
    match workloads.iter().find(is_gate) {
        None => vec![link.failed("there is no Deployment of it", "apply deploy/, in this namespace")],
        Some(gate) => vec![ready(gate), outside(gate, cluster, asked)],
    }
}

fn ready(gate: &Workload) -> Line {
    let link = Link::new("gate", gate.full_name());
    let Workload { wanted, ready, .. } = gate;
    let next = format!("`kubectl -n {} describe pods -l app=istio-ca-gate`, and their logs", gate.namespace);
    match (ready, wanted) {
        (0, 0) => link.failed("has 0 replicas: every gated pod is refused", "scale it to 2"),
        (0, _) => link.failed(format!("none of {wanted} pods is ready: every gated pod is refused"), next),
        (ready, wanted) if ready < wanted => link.warning(format!("{ready} of {wanted} pods ready"), next),
        (1, _) => link.note("1 of 1 pods ready; with one, its restart refuses gated pods"),
        _ => link.ok(format!("{ready} of {wanted} pods ready")),
    }
}

/// istiod depends on the gate, so that the gate must not depend on istiod.
fn outside(gate: &Workload, cluster: &Cluster, asked: &Asked) -> Line {
    let link = Link::new("gate-mesh", gate.full_name());
    let namespace = cluster.namespace.seen().map(|(labels, _)| labels);
    let value = |key: &str| namespace.and_then(|labels| labels.get(key)).map(String::as_str);
    let injected = value("istio-injection") == Some("enabled")
        || (value("istio.io/rev").is_some() && value("istio-injection") != Some("disabled"));
    let ambient = value("istio.io/dataplane-mode") == Some("ambient");
    let lacks = |at: usize| {
        let (key, wanted) = OUTSIDE[at];
        gate.labels.get(key).is_none_or(|value| value != wanted)
    };
    let missing: Vec<_> =
        (0..OUTSIDE.len()).filter(|at| lacks(*at)).map(|at| format!("{}={}", OUTSIDE[at].0, OUTSIDE[at].1)).collect();
    let next = "label the pod template as deploy/kustomize/base/deployment.yaml does: annotations do not do";
    if injected && lacks(0) || ambient && lacks(1) {
        let seen = format!(
            "namespace {} is labelled for the mesh, and the pods are not kept out of it: they lack {}; they need istiod, and istiod needs them",
            asked.namespace,
            missing.join(", ")
        );
        return link.failed(seen, next);
    }
    if !missing.is_empty() {
        return link.warning(
            format!("only the namespace's labels keep the pods out of the mesh: they lack {}", missing.join(", ")),
            next,
        );
    }
    link.ok("the pods are labelled to stay outside of the mesh")
}

#[cfg(test)]
mod tests;
