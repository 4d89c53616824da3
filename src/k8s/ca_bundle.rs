//! Keeps the serving CA in `caBundle` of this service's own webhook configurations. Server-side apply
//! owns that field alone, so that the rest stays with whoever applied the manifest.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::follow::{Seen, follow};
use super::{FIELD_MANAGER, Write, call, serving};
use crate::reason::{Held, Reason};

/// cert-manager's CA injector owns the field where one of these is set.
pub const CERT_MANAGER: [&str; 3] =
    ["cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret", "cert-manager.io/inject-apiserver-ca"];

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

/// What is kept injected, and where.
#[derive(Clone)]
pub struct Injection {
    /// Name of the webhook configuration.
    pub configuration: String,
    /// The CA of this replica's leaf, PEM.
    pub ca: Vec<u8>,
    /// Namespace and name of the Secret that the replicas share it by.
    pub secret: (String, String),
}

/// Keeps the CA in every webhook of the configuration. `settled` is called whenever it is in, or turns out
/// not to be ours to inject.
///
/// Ends only where the Secret has another CA by now: then this replica has to start anew with that one,
/// instead of injecting against the others.
pub async fn keep<K: Configuration>(client: Client, injection: Injection, settled: impl Fn()) {
    let api: Api<K> = Api::all(client.clone());
    let (sender, receiver) = watch::channel(None);
    let following = follow(api, &injection.configuration, |seen| match seen {
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
    tokio::select! {
        () = following => {}
        () = inject_each(&client, &injection, receiver, &settled) => {}
    }
}

async fn inject_each<K: Configuration>(
    client: &Client,
    injection: &Injection,
    mut configurations: watch::Receiver<Option<K>>,
    settled: &impl Fn(),
) {
    while configurations.changed().await.is_ok() {
        let Some(configuration) = configurations.borrow_and_update().clone() else { continue };
        let Some(body) = wanted(&configuration, &injection.ca) else {
            settled();
            continue;
        };
        match inject::<K>(client, injection, &body).await {
            Ok(Injected::Done) => settled(),
            // The watch tells what it is now.
            Ok(Injected::Changed) => {}
            Ok(Injected::Outdated) => {
                tracing::error!("Secret {} has another serving CA: starting anew with it", injection.secret.1);
                return;
            }
            Err(held) => {
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

enum Injected {
    Done,
    Changed,
    Outdated,
}

async fn inject<K: Configuration>(client: &Client, injection: &Injection, body: &Value) -> Result<Injected, Held> {
    let Injection { configuration, ca, secret: (namespace, secret) } = injection;
    if !serving::is_current(client, namespace, secret, ca).await? {
        return Ok(Injected::Outdated);
    }
    let doing = format!("inject caBundle into {} {configuration}", K::kind(&()));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api: Api<K> = Api::all(client.clone());
    match Write::of(call(&doing, api.patch(configuration, &params, &Patch::Apply(body))).await)? {
        Write::Changed => Ok(Injected::Changed),
        Write::Done => {
            tracing::info!(kind = %K::kind(&()), configuration, "injected caBundle");
            Ok(Injected::Done)
        }
    }
}

/// The apply patch that is due, if any.
fn wanted<K: Configuration>(configuration: &K, ca: &[u8]) -> Option<Value> {
    let webhooks = configuration.webhooks();
    let injected = webhooks.iter().all(|(_, bundle)| bundle.is_some_and(|bundle| bundle.0 == ca));
    if injected || CERT_MANAGER.iter().any(|key| configuration.annotations().contains_key(*key)) {
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

#[cfg(test)]
mod tests;
