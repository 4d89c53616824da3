//! Asks External Secrets to sync what it manages. It syncs at once when any annotation of an
//! ExternalSecret changes; `force-sync` is the conventional one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{Failed, call, patch};
use gate_core::cluster::Maker;
use gate_core::reason::Held;

/// The annotation; its value is a time in seconds.
const FORCE_SYNC: &str = "force-sync";

/// At most one sync is asked for in so long, by all replicas together.
const PAUSE: Duration = Duration::from_secs(30);

/// ExternalSecrets in one answer; a namespace has a handful.
const PAGE: u32 = 250;

/// The ExternalSecrets of one namespace, for one Secret in it.
pub struct ExternalSecrets {
    api: Api<DynamicObject>,
    secret: String,
    /// When it was last looked after, and what came out.
    last: Mutex<Option<(Instant, Maker)>>,
}

impl ExternalSecrets {
    /// Those that may make this Secret.
    pub fn new(client: Client, namespace: &str, secret: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret"));
        let api = Api::namespaced_with(client, namespace, &resource);
        Self { api, secret: secret.to_owned(), last: Mutex::new(None) }
    }

    /// Asks for a sync, unless that was done lately, by the ExternalSecret of this name or the one that is found.
    ///
    /// What fails is logged: the hold stands either way.
    pub async fn force_sync(&self, name: Option<&str>, now: Timestamp) -> Maker {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, maker)) = last.filter(|(at, _)| at.elapsed() < PAUSE) {
            return maker;
        }
        let maker = self.ask(name, now).await.unwrap_or_else(|held| {
            tracing::warn!(reason = %held.reason, "{}", held.sentence());
            // Not known to be gone.
            Maker::ExternalSecret
        });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), maker));
        maker
    }

    async fn ask(&self, name: Option<&str>, now: Timestamp) -> Result<Maker, Held> {
        let Some(found) = self.find(name).await? else { return Ok(Maker::Nobody) };
        let asked = found.annotations().get(FORCE_SYNC).and_then(|text| text.parse::<i64>().ok());
        // Another replica, or a person.
        if asked.is_some_and(|at| (now.as_second() - at).unsigned_abs() < PAUSE.as_secs()) {
            return Ok(Maker::ExternalSecret);
        }
        let name = found.name_any();
        let doing = format!("annotate ExternalSecret {name}");
        let body = json!({ "metadata": {
            "resourceVersion": found.resource_version(),
            "annotations": { FORCE_SYNC: now.as_second().to_string() },
        }});
        match call(&doing, self.api.patch(&name, &patch(), &Patch::Merge(&body))).await {
            Ok(_) => tracing::info!(name, "asked External Secrets to sync"),
            // It was changed meanwhile, and so is synced anyway.
            Err(Failed::Conflict) => {}
            Err(error) => return Err(error.into_held(&doing)),
        }
        Ok(Maker::ExternalSecret)
    }

    /// The one that makes the Secret. Where the Secret names none, the one that names the Secret.
    async fn find(&self, name: Option<&str>) -> Result<Option<DynamicObject>, Held> {
        if let Some(name) = name {
            let doing = format!("read ExternalSecret {name}");
            return call(&doing, self.api.get(name)).await.map(Some).map_err(|error| error.into_held(&doing));
        }
        let doing = "list ExternalSecrets";
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match call(doing, self.api.list(&params)).await {
                Ok(page) => page,
                // The kind is unknown: External Secrets is not installed any more.
                Err(Failed::NotFound) => return Ok(None),
                Err(error) => return Err(error.into_held(doing)),
            };
            let mut items = page.items.into_iter();
            if let Some(found) = items.find(|object| target(&object.name_any(), &object.data) == self.secret) {
                return Ok(Some(found));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(None),
            }
        }
    }
}

/// The Secret that an ExternalSecret makes: its own name is the default.
fn target(name: &str, external_secret: &Value) -> String {
    match external_secret["spec"]["target"]["name"].as_str() {
        Some(target) if !target.is_empty() => target.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_secret_makes_the_secret_that_it_names_or_one_of_its_own_name() {
        assert_eq!(target("istio-cacerts", &json!({ "spec": { "target": { "name": "cacerts" } } })), "cacerts");
        assert_eq!(target("cacerts", &json!({ "spec": { "target": { "creationPolicy": "Owner" } } })), "cacerts");
        assert_eq!(target("cacerts", &json!({ "spec": { "target": { "name": "" } } })), "cacerts");
        assert_eq!(target("cacerts", &json!({})), "cacerts");
    }
}
