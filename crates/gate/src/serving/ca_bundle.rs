//! Keeps the serving CAs in `caBundle` of this service's own webhook configurations. Server-side apply
//! owns that field alone, so that the rest stays with whoever applied the manifest.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::secret::keep::Exchange;
use super::secret::{ServingSecret, Stored};
use crate::backoff::{Backoff, SOON};
use crate::k8s::follow::{Seen, follow};
use crate::k8s::{FIELD_MANAGER, Write, call, written};
use crate::reason::{Held, Reason};
use crate::serving::trust::{Configured, Trust};

/// cert-manager's CA injector owns the field where one of these is set.
pub const CERT_MANAGER: [&str; 3] =
    ["cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret", "cert-manager.io/inject-apiserver-ca"];

/// At most one write a second: somebody who keeps stripping the field causes no storm. Also the first pause after one that
/// failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A webhook configuration of either kind.
pub trait Configuration: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {
    /// Which of both.
    const CONFIGURED: Configured;

    /// Name and `caBundle` of each webhook.
    fn webhooks(&self) -> Vec<(&str, Option<&ByteString>)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    const CONFIGURED: Configured = Configured::Validating;

    fn webhooks(&self) -> Vec<(&str, Option<&ByteString>)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.as_ref())).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    const CONFIGURED: Configured = Configured::Mutating;

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
    /// The Secret that the replicas share their CAs by.
    pub secret: ServingSecret,
    /// Where the bundle is from, and what is trusted is told.
    pub exchange: Arc<Exchange>,
}

/// Keeps the bundle in every webhook of the configuration, for ever. `settled` is called whenever it is in, or turns out
/// not to be ours to inject.
pub async fn keep<K: Configuration>(client: Client, injection: Injection, settled: impl Fn()) {
    let api: Api<K> = Api::all(client.clone());
    let (sender, receiver) = watch::channel(None);
    let trust = &injection.exchange.trust;
    // What is injected is compared with what it replaces by the API server itself.
    let anew = Notify::new();
    let following = follow(api, &injection.configuration, &anew, |seen| match seen {
        Seen::Present(configuration) => {
            trust.send_modify(|trust| see(trust, &configuration));
            drop(sender.send(Some(configuration)));
        }
        Seen::Absent(_) => {
            trust.send_modify(|trust| trust.absent(K::CONFIGURED));
            drop(sender.send(None));
            settled();
        }
        Seen::Alive => {}
        Seen::Failed(held) => {
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

fn see<K: Configuration>(trust: &mut Trust, configuration: &K) {
    let bundles = configuration.webhooks().into_iter();
    let bundles = bundles.map(|(_, bundle)| bundle.map_or(&[][..], |bundle| &bundle.0));
    trust.bundles(K::CONFIGURED, bundles, Instant::now());
}

async fn inject_each<K: Configuration>(
    client: &Client,
    injection: &Injection,
    mut configurations: watch::Receiver<Option<K>>,
    settled: &impl Fn(),
) {
    let mut bundles = injection.exchange.bundle.subscribe();
    let (mut backoff, mut said) = (Backoff::new(PAUSE, SOON), None);
    while either_changes(&mut configurations, &mut bundles).await {
        let bundle = bundles.borrow_and_update().clone();
        let configuration = configurations.borrow_and_update().clone();
        let (Some(bundle), Some(configuration)) = (bundle, configuration) else { continue };
        let Some(body) = wanted(&configuration, bundle.as_bytes()) else {
            settled();
            continue;
        };
        match inject::<K>(client, injection, &bundle, &body).await {
            Ok(written) => {
                match written {
                    Write::Done => settled(),
                    Write::Changed => configurations.mark_changed(),
                }
                backoff.reset();
                said = None;
                tokio::time::sleep(PAUSE).await;
            }
            Err(held) => {
                say_once(&mut said, &held);
                // Somebody else's to inject, or soon ours: being held back by RBAC is not unready.
                if held.reason == Reason::KubernetesForbidden {
                    settled();
                }
                configurations.mark_changed();
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// `false`: there will be nothing new.
async fn either_changes<A, B>(one: &mut watch::Receiver<A>, other: &mut watch::Receiver<B>) -> bool {
    tokio::select! {
        open = one.changed() => open.is_ok(),
        open = other.changed() => open.is_ok(),
    }
}

/// What is in the way is told when it changes.
fn say_once(said: &mut Option<Held>, held: &Held) {
    if said.as_ref() != Some(held) {
        tracing::warn!(reason = %held.reason, "{}", held.sentence());
    }
    *said = Some(held.clone());
}

async fn inject<K: Configuration>(
    client: &Client,
    injection: &Injection,
    bundle: &str,
    body: &Value,
) -> Result<Write, Held> {
    let Injection { configuration, secret, exchange } = injection;
    // A replica whose watch lags must not put an older bundle over a newer one.
    match exchange.read(secret).await? {
        None => return Ok(Write::Changed),
        Some(Stored::Usable(usable)) if usable.bundle != bundle => return Ok(Write::Changed),
        Some(_) => {}
    }
    let doing = format!("inject caBundle into {} {configuration}", K::kind(&()));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api: Api<K> = Api::all(client.clone());
    let ended = written(call(&doing, api.patch(configuration, &params, &Patch::Apply(body))).await)?;
    if ended == Write::Done {
        tracing::info!(kind = %K::kind(&()), configuration, "injected caBundle");
    }
    Ok(ended)
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
