//! Asks External Secrets to sync what it manages. It syncs at once when any annotation of an
//! ExternalSecret changes; `force-sync` is the conventional one.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::json;

use super::{call, patch};

/// At most one sync is asked for in so long.
const PAUSE: Duration = Duration::from_secs(30);

/// The ExternalSecrets of one namespace.
pub struct ExternalSecrets {
    api: Api<DynamicObject>,
    asked: Mutex<Option<Instant>>,
}

impl ExternalSecrets {
    /// Those of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret"));
        Self { api: Api::namespaced_with(client, namespace, &resource), asked: Mutex::new(None) }
    }

    /// Asks for a sync, unless that was done lately. What fails is logged: the hold stands either way.
    pub async fn force_sync(&self, name: Option<&str>, now: Timestamp) {
        let Some(name) = name else { return };
        {
            let mut asked = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
                return;
            }
            *asked = Some(Instant::now());
        }
        let doing = format!("annotate ExternalSecret {name}");
        let body = json!({ "metadata": { "annotations": { "force-sync": now.as_second().to_string() } } });
        match call(&doing, self.api.patch(name, &patch(), &Patch::Merge(&body))).await {
            Ok(_) => tracing::info!(name, "asked External Secrets to sync"),
            Err(error) => {
                let held = error.into_held(&doing);
                tracing::warn!(reason = %held.reason, "{}", held.sentence);
            }
        }
    }
}
