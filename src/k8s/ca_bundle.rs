//! Keeps the serving CA in `caBundle` of this service's own webhook configurations. Server-side apply
//! owns that field alone, so that the rest stays with whoever applied the manifest.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use super::follow::{Seen, follow};
use super::{FIELD_MANAGER, Failed, call};
use crate::reason::Reason;

/// cert-manager's CA injector owns the field where this is set.
const CERT_MANAGER: &str = "cert-manager.io/inject-ca-from";

/// At most one write a second: somebody who keeps stripping the field causes no storm.
const PAUSE: Duration = Duration::from_secs(1);

/// A missing right does not come by itself.
const PAUSE_FORBIDDEN: Duration = Duration::from_secs(30);

/// A webhook configuration of either kind.
pub trait Configuration: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {
    /// Name and `caBundle` of each webhook.
    fn webhooks(&self) -> Vec<(&str, Option<&ByteString>)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref())).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref())).collect()
    }
}

/// Keeps `ca` in every webhook of the configuration `name`, for ever. `settled` is called whenever it
/// is in, or turns out not to be ours to inject.
pub async fn keep<K: Configuration>(client: Client, name: &str, ca: &[u8], settled: impl Fn()) {
    let api: Api<K> = Api::all(client);
    let (sender, receiver) = watch::channel(None);
    let following = follow(api.clone(), name, |seen| match seen {
        Seen::Present(configuration) => drop(sender.send(Some(configuration))),
        Seen::Absent => settled(),
        Seen::Alive => {}
        Seen::Failed(held) => {
            tracing::warn!(reason = %held.reason, "{}", held.sentence);
            // Without the right to look at it, it cannot be ours to inject.
            if held.reason == Reason::KubernetesForbidden {
                settled();
            }
        }
    });
    futures::future::join(following, inject_each(api, name, ca, receiver, &settled)).await;
}

async fn inject_each<K: Configuration>(
    api: Api<K>,
    name: &str,
    ca: &[u8],
    mut configurations: watch::Receiver<Option<K>>,
    settled: &impl Fn(),
) {
    while configurations.changed().await.is_ok() {
        let Some(configuration) = configurations.borrow_and_update().clone() else { continue };
        let Some(body) = wanted(&configuration, ca) else {
            settled();
            continue;
        };
        let doing = format!("inject caBundle into {} {name}", K::kind(&()));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match call(&doing, api.patch(name, &params, &Patch::Apply(&body))).await {
            Ok(_) => {
                tracing::info!(kind = %K::kind(&()), name, "injected caBundle");
                settled();
            }
            // The watch tells what it is now.
            Err(Failed::Conflict | Failed::NotFound) => {}
            Err(Failed::Held(held)) => {
                tracing::warn!(reason = %held.reason, "{}", held.sentence);
                configurations.mark_changed();
                // Somebody else's to inject, or soon ours: being held back by RBAC is not unready.
                if held.reason == Reason::KubernetesForbidden {
                    settled();
                    tokio::time::sleep(PAUSE_FORBIDDEN).await;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The apply patch that is due, if any.
fn wanted<K: Configuration>(configuration: &K, ca: &[u8]) -> Option<serde_json::Value> {
    let webhooks = configuration.webhooks();
    let injected = webhooks.iter().all(|(_, bundle)| bundle.is_some_and(|bundle| bundle.0 == ca));
    if injected || configuration.annotations().contains_key(CERT_MANAGER) {
        return None;
    }
    let ca = ByteString(ca.to_vec());
    let entries: Vec<_> =
        webhooks.iter().map(|(name, _)| json!({ "name": name, "clientConfig": { "caBundle": ca } })).collect();
    Some(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With it, an apply cannot create what was deleted meanwhile.
        "metadata": { "name": configuration.name_any(), "resourceVersion": configuration.resource_version() },
        "webhooks": entries,
    }))
}
