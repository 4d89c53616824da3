//! Owners of gated pods whose creation was refused. Their controllers back off for up to 1000 s;
//! any change of the owner makes them try again at once. An annotation is written through the
//! `status` subresource, which needs no right to change a spec.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{Failed, call, patch};
use crate::gate::Gated;
use crate::reason::{Held, Reason};

/// Tells when a blocked owner was last touched.
const TOUCHED: &str = "istio-ca-gate.io/touched-at";

/// The kinds that make pods, with their API group.
const KINDS: [(&str, &str); 4] =
    [("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job")];

/// Owners in one answer.
const PAGE: u32 = 250;

/// How long a refusal to list them in all namespaces is taken for granted.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// The owners of one cluster's gated pods.
pub struct Owners {
    client: Client,
    namespace: String,
    gated: Gated,
    /// When RBAC last refused to list them in all namespaces.
    refused: Mutex<Option<Instant>>,
}

impl Owners {
    /// Owners of pods that `gated` matches: in all namespaces where RBAC lets it, else in this one.
    pub fn new(client: Client, namespace: &str, gated: Gated) -> Self {
        Self { client, namespace: namespace.to_owned(), gated, refused: Mutex::new(None) }
    }

    /// Whether any owner of gated pods lacks pods.
    ///
    /// # Errors
    /// The reason why it cannot be told.
    pub async fn any_blocked(&self) -> Result<bool, Held> {
        for (resource, kind) in kinds() {
            if !self.blocked(&resource, kind).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Touches every blocked owner, so that its controller tries again now. Returns whether there was any.
    ///
    /// # Errors
    /// The first failure, after the others were tried.
    pub async fn touch_blocked(&self, now: Timestamp) -> Result<bool, Held> {
        let (mut any, mut failure) = (false, None);
        for (resource, kind) in kinds() {
            match self.blocked(&resource, kind).await {
                Ok(owners) => {
                    any |= !owners.is_empty();
                    for owner in owners {
                        failure = self.touch(&resource, kind, &owner, now).await.err().or(failure);
                    }
                }
                Err(held) => failure = failure.or(Some(held)),
            }
        }
        failure.map_or(Ok(any), Err)
    }

    async fn blocked(&self, resource: &ApiResource, kind: &str) -> Result<Vec<DynamicObject>, Held> {
        let everywhere = Api::all_with(self.client.clone(), resource);
        let here = Api::namespaced_with(self.client.clone(), &self.namespace, resource);
        if !self.may_look_everywhere() {
            return self.blocked_of(&here, kind).await;
        }
        match self.blocked_of(&everywhere, kind).await {
            Err(held) if held.reason == Reason::KubernetesForbidden => {
                *self.refused() = Some(Instant::now());
                self.blocked_of(&here, kind).await
            }
            answered => answered,
        }
    }

    /// Page by page, and of each page only what is blocked: a large cluster has thousands.
    async fn blocked_of(&self, api: &Api<DynamicObject>, kind: &str) -> Result<Vec<DynamicObject>, Held> {
        let doing = format!("list {kind}s");
        let mut params = ListParams::default().limit(PAGE);
        let mut blocked = Vec::new();
        loop {
            let page = call(&doing, api.list(&params)).await.map_err(|error| error.into_held(&doing))?;
            blocked.extend(page.items.into_iter().filter(|owner| lacks_gated_pods(kind, &owner.data, &self.gated)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(blocked),
            }
        }
    }

    fn may_look_everywhere(&self) -> bool {
        self.refused().is_none_or(|refused| refused.elapsed() > REFUSED_PAUSE)
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn touch(
        &self,
        resource: &ApiResource,
        kind: &str,
        owner: &DynamicObject,
        now: Timestamp,
    ) -> Result<(), Held> {
        let (name, namespace) = (owner.name_any(), owner.namespace().unwrap_or_default());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, resource);
        let doing = format!("touch {kind} {namespace}/{name}");
        let body = json!({ "metadata": {
            "resourceVersion": owner.resource_version(),
            "annotations": { TOUCHED: now.to_string() },
        }});
        match call(&doing, api.patch_status(&name, &patch(), &Patch::Merge(&body))).await {
            Ok(_) => {
                tracing::info!(kind, namespace, name, "touched a blocked owner, so that it tries again");
                Ok(())
            }
            // A conflict is a change by somebody else, which does as well; one that is gone needs nothing.
            Err(Failed::Conflict | Failed::NotFound) => Ok(()),
            Err(Failed::Held(held)) => Err(held),
        }
    }
}

fn kinds() -> impl Iterator<Item = (ApiResource, &'static str)> {
    KINDS.into_iter().map(|(group, kind)| (ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind)), kind))
}

/// Whether this owner makes gated pods and lacks some. Each kind tells in its own way.
fn lacks_gated_pods(kind: &str, owner: &Value, gated: &Gated) -> bool {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(owner["spec"]["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    if !gated.matches(&labels) {
        return false;
    }
    let status = &owner["status"];
    let number = |value: &Value, default| value.as_i64().unwrap_or(default);
    let has_condition = |name: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == name && c["status"] == "True")
    };
    match kind {
        "ReplicaSet" => has_condition("ReplicaFailure"),
        "StatefulSet" => number(&status["replicas"], 0) < number(&owner["spec"]["replicas"], 1),
        "DaemonSet" => number(&status["currentNumberScheduled"], 0) < number(&status["desiredNumberScheduled"], 0),
        "Job" => {
            let ended = has_condition("Complete") || has_condition("Failed");
            let suspended = owner["spec"]["suspend"] == true;
            !ended && !suspended && number(&status["active"], 0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::selector;

    fn lacks(kind: &str, app: &str, mut owner: Value) -> bool {
        owner["spec"]["template"]["metadata"]["labels"] = json!({ "app": app });
        lacks_gated_pods(kind, &owner, &Gated(vec![selector::parse("app=istiod").unwrap()]))
    }

    #[test]
    fn a_replica_set_tells_by_its_condition() {
        let failing =
            json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]}});
        assert!(lacks("ReplicaSet", "istiod", failing.clone()));
        assert!(!lacks("ReplicaSet", "other", failing));
        assert!(!lacks("ReplicaSet", "istiod", json!({"spec": {"replicas": 2}, "status": {"replicas": 1}})));
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
