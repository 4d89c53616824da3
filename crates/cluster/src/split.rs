//! A cluster whose istiod has made a root for itself: that root with its key, and the istiods, which take another CA only
//! when they start. Read and written with a person's rights: the gate has none of these.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{Failed, RECORD_STATE, call, forgetful, patch};
use gate_core::ca::bundle::{CA_CERT, CA_KEY, KeyPem};
use gate_core::ca::record::RecordState;
use gate_core::ca::signer::{OwnRoot, OwnRootFlaw};
use gate_core::reason::Held;

/// Where istiod keeps the root that it has made.
pub const OWN_ROOT: &str = "istio-ca-secret";

/// What Istio's own charts and operators put on the pods of every istiod.
const LABEL: (&str, &str) = ("app", "istiod");

fn is_istiod(deployment: &Deployment) -> bool {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let labels = template.and_then(|metadata| metadata.labels.as_ref());
    labels.and_then(|labels| labels.get(LABEL.0)).is_some_and(|value| value == LABEL.1)
}

/// One of several clusters without a root in common.
pub struct SplitSide {
    secrets: Api<Secret>,
    deployments: Api<Deployment>,
    namespace: String,
}

impl SplitSide {
    /// That of this namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(forgetful(client), namespace),
            deployments: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// The root that istiod has made, with its key. `None`: it has made none.
    ///
    /// # Errors
    /// If it is not known whether there is one.
    pub async fn own_root(&self) -> Result<Option<Result<OwnRoot, OwnRootFlaw>>, Held> {
        let doing = format!("read Secret {}/{OWN_ROOT}", self.namespace);
        let mut secret = match call(&doing, self.secrets.get(OWN_ROOT)).await {
            Ok(secret) => secret,
            Err(Failed::NotFound) => return Ok(None),
            Err(failed) => return Err(failed.into_held(&doing)),
        };
        let mut take = |key: &str| secret.data.as_mut().and_then(|data| data.remove(key)).unwrap_or_default().0;
        let (certificate, key) = (take(CA_CERT), KeyPem::new(take(CA_KEY)));
        Ok(Some(OwnRoot::read(&certificate, &key)))
    }

    /// Has each istiod started anew that has not been for this state, and tells how many there are.
    ///
    /// # Errors
    /// If that is not known to be asked for.
    pub async fn restart_istiod(&self, state: RecordState) -> Result<usize, Held> {
        let doing = format!("list the Deployments in {}", self.namespace);
        let listed = call(&doing, self.deployments.list(&ListParams::default())).await;
        let mut istiods = listed.map_err(|failed| failed.into_held(&doing))?.items;
        istiods.retain(is_istiod);
        // The same twice is one restart: whoever runs it again restarts nothing that was.
        let annotations = json!({ RECORD_STATE: state.to_string() });
        let change = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
        for istiod in &istiods {
            let name = istiod.name_any();
            let doing = format!("restart Deployment {}/{name}", self.namespace);
            let patched = call(&doing, self.deployments.patch(&name, &patch(), &Patch::Merge(&change))).await;
            patched.map_err(|failed| failed.into_held(&doing))?;
        }
        Ok(istiods.len())
    }
}
