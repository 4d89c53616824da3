//! Whether an owner of gated pods lacks some because of this gate: each kind tells in its own way.

use std::collections::BTreeMap;

use serde::Deserialize;

use gate_core::gate::Gated;

/// How the names of this gate's webhooks end, as the API server names them in a refusal.
const WEBHOOKS: &str = "istio-ca-gate.io\"";

/// The few fields of an owner that are looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wire {
    pub(super) metadata: Metadata,
    spec: OwnerSpec,
    status: OwnerStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnerSpec {
    replicas: Option<i64>,
    suspend: Option<bool>,
    template: Option<Template>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Option<TemplateMetadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateMetadata {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnerStatus {
    replicas: Option<i64>,
    current_number_scheduled: Option<i64>,
    desired_number_scheduled: Option<i64>,
    active: Option<i64>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: Option<String>,
}

impl Wire {
    fn is_of_gated_pods(&self, gated: &Gated) -> bool {
        let metadata = self.spec.template.as_ref().and_then(|template| template.metadata.as_ref());
        gated.matches(metadata.and_then(|metadata| metadata.labels.as_ref()).unwrap_or(&BTreeMap::new()))
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.find(|condition| condition.kind == kind && condition.status == "True")
    }
}

/// Whether an owner of this kind lacks gated pods, as far as it tells because of this gate.
pub(super) fn is_blocked(kind: &str, owner: &Wire, gated: &Gated) -> bool {
    if !owner.is_of_gated_pods(gated) {
        return false;
    }
    let Wire { spec, status, .. } = owner;
    match kind {
        "ReplicaSet" => owner.condition("ReplicaFailure").is_some_and(Condition::is_by_this_gate),
        "StatefulSet" => status.replicas.unwrap_or(0) < spec.replicas.unwrap_or(1),
        "DaemonSet" => status.current_number_scheduled.unwrap_or(0) < status.desired_number_scheduled.unwrap_or(0),
        "Job" => {
            let ended = owner.condition("Complete").or(owner.condition("Failed")).is_some();
            !ended && spec.suspend != Some(true) && status.active.unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether owners of this kind tell why they lack pods. Of the others it is told by their counts alone that they do.
pub(super) fn tells_why(kind: &str) -> bool {
    kind == "ReplicaSet"
}

impl Condition {
    /// A pod was refused by a webhook of this gate, or that webhook could not be called: no replica was there. A quota,
    /// another webhook, a missing service account are no business of the gate, and a touch mends none of them.
    fn is_by_this_gate(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        message.split("webhook \"").skip(1).any(|after| {
            let name = after.split_inclusive('"').next().unwrap_or_default();
            name.ends_with(WEBHOOKS)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use gate_core::selector;

    fn lacks(kind: &str, app: &str, mut owner: Value) -> bool {
        owner["spec"]["template"]["metadata"]["labels"] = json!({ "app": app });
        let owner = serde_json::from_value(owner).unwrap();
        is_blocked(kind, &owner, &Gated(vec![selector::parse("app=istiod").unwrap()]))
    }

    fn failing(message: &str) -> Value {
        json!({"status": {"conditions": [
            {"type": "Other", "status": "True"},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]}})
    }

    #[test]
    fn a_replica_set_tells_by_its_condition() {
        let denied = r#"admission webhook "app.istio-ca-gate.io" denied the request: RootMissing: cluster nas: …"#;
        let away = r#"Internal error occurred: failed calling webhook "istio.istio-ca-gate.io": failed to call webhook: Post "https://istio-ca-gate.istio-system.svc:443/validate?timeout=10s": no endpoints available for service "istio-ca-gate""#;
        for message in [denied, away] {
            assert!(lacks("ReplicaSet", "istiod", failing(message)), "{message}");
            assert!(!lacks("ReplicaSet", "other", failing(message)), "{message}");
        }
        assert!(!lacks("ReplicaSet", "istiod", json!({"spec": {"replicas": 2}, "status": {"replicas": 1}})));
    }

    #[test]
    fn a_replica_set_that_failed_for_another_reason_is_not_blocked_by_this_gate() {
        for message in [
            "",
            r#"pods "istiod-5d4-" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0"#,
            r#"admission webhook "validate.kyverno.svc" denied the request: not signed"#,
            r#"pods "istiod-5d4-" is forbidden: error looking up service account istio-system/istio-ca-gate.io"#,
            r#"admission webhook "other" denied the request: ask "app.istio-ca-gate.io""#,
        ] {
            assert!(!lacks("ReplicaSet", "istiod", failing(message)), "{message}");
        }
    }

    #[test]
    fn other_kinds_tell_by_their_counts() {
        assert!(lacks("StatefulSet", "istiod", json!({"spec": {"replicas": 2}, "status": {"replicas": 1}})));
        assert!(lacks("StatefulSet", "istiod", json!({})));
        assert!(!lacks("StatefulSet", "istiod", json!({"spec": {"replicas": 0}})));
        let daemons = |current| json!({"status": {"desiredNumberScheduled": 2, "currentNumberScheduled": current}});
        assert!(lacks("DaemonSet", "istiod", daemons(1)));
        assert!(!lacks("DaemonSet", "istiod", daemons(2)));
        assert!(lacks("Job", "istiod", json!({"status": {}})));
        assert!(!lacks("Job", "istiod", json!({"status": {"active": 1}})));
        assert!(!lacks("Job", "istiod", json!({"spec": {"suspend": true}})));
        assert!(!lacks("Job", "istiod", json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}})));
    }
}
