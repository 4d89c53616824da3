//! What makes pods, as far as labels, images and readiness go; and what may not make its pods.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::cluster::Labels;
use crate::gate::Gated;
use crate::reason::{Reason, gates_sentence};

/// Flux's labels on what a HelmRelease made.
const HELM_NAME: &str = "helm.toolkit.fluxcd.io/name";
const HELM_NAMESPACE: &str = "helm.toolkit.fluxcd.io/namespace";

/// A Deployment, or what does its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Labels of its pods.
    pub(super) labels: Labels,
    pub(super) images: Vec<String>,
    pub(super) wanted: u64,
    pub(super) ready: u64,
    /// Namespace and name of the HelmRelease that made it.
    pub(super) release: Option<(String, String)>,
}

impl Workload {
    pub(super) fn of(kind: &'static str, object: &DynamicObject) -> Self {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let containers = spec["template"]["spec"]["containers"].as_array().into_iter().flatten();
        let label = |key: &str| object.labels().get(key).cloned();
        let daemons = kind == "DaemonSet";
        let number = |value: &Value, default| value.as_u64().unwrap_or(default);
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            labels: labels(&spec["template"]["metadata"]["labels"]),
            images: containers.filter_map(|it| it["image"].as_str()).map(str::to_owned).collect(),
            wanted: if daemons { number(&status["desiredNumberScheduled"], 0) } else { number(&spec["replicas"], 1) },
            ready: number(&status[if daemons { "numberReady" } else { "readyReplicas" }], 0),
            release: label(HELM_NAMESPACE).zip(label(HELM_NAME)),
        }
    }

    /// For people.
    pub(super) fn full_name(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Not an old ReplicaSet.
    pub(super) fn wants_pods(&self) -> bool {
        self.wanted > 0
    }
}

pub(super) fn labels(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// A ReplicaSet whose gated pods are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) name: String,
    pub(super) message: String,
    /// The gate's reason code in it.
    pub(super) reason: Option<Reason>,
}

impl Blocked {
    /// `None`: its pods are not gated, or are not refused.
    pub(super) fn of(set: &DynamicObject, gated: &Gated) -> Option<Self> {
        if !gated.matches(&labels(&set.data["spec"]["template"]["metadata"]["labels"])) {
            return None;
        }
        let conditions = set.data["status"]["conditions"].as_array().into_iter().flatten();
        let failure = conditions.into_iter().find(|it| it["type"] == "ReplicaFailure" && it["status"] == "True")?;
        let message = failure["message"].as_str().unwrap_or_default();
        let code = |reason: &&Reason| message.contains(&format!("{reason}: cluster "));
        Some(Self {
            name: format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any()),
            message: gates_sentence(message),
            reason: Reason::ALL.iter().find(code).copied(),
        })
    }
}
