//! Flux's HelmReleases: which one a blocked pod is from, and asking it to reconcile.
//!
//! Flux labels the top-level objects of a release only: of istiod the Deployment, not its ReplicaSets and pods.

mod lookup;
mod reconcile;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};

pub use lookup::Releases;
pub use reconcile::Reconciles;

use gate_core::names::{is_label, is_subdomain};

/// Labels of what Flux's helm-controller has installed.
const NAME: &str = "helm.toolkit.fluxcd.io/name";
const NAMESPACE: &str = "helm.toolkit.fluxcd.io/namespace";

/// A HelmRelease by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HelmRelease {
    namespace: String,
    name: String,
}

impl HelmRelease {
    fn new(namespace: &str, name: &str) -> Option<Self> {
        let sound = is_label(namespace) && is_subdomain(name);
        sound.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Its group, version and kind.
    pub(crate) fn kind() -> GroupVersionKind {
        GroupVersionKind::gvk("helm.toolkit.fluxcd.io", "v2", "HelmRelease")
    }

    /// Those of its namespace.
    pub(crate) fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &ApiResource::from_gvk(&Self::kind()))
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The one that installed an object with these labels. Whoever may label the object writes them.
    fn of_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        Self::new(labels.get(NAMESPACE)?, labels.get(NAME)?)
    }
}

impl fmt::Display for HelmRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for HelmRelease {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(namespace, name)| Self::new(namespace, name))
            .ok_or_else(|| "it is not NAMESPACE/NAME of a HelmRelease".to_owned())
    }
}

/// A message about a pod that came from this release, if it is known to have.
pub fn message_about(message: String, release: Option<&HelmRelease>) -> String {
    match release {
        Some(release) => format!("{message} (HelmRelease {release})"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_helm_release_is_namespace_and_name() {
        assert_eq!("flux-system/istiod".parse::<HelmRelease>().unwrap().to_string(), "flux-system/istiod");
        for wrong in ["istiod", "/istiod", "flux-system/", "a/b/c", "a/../b", "A/b", ""] {
            assert!(wrong.parse::<HelmRelease>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_that_are_no_names_name_no_release() {
        let labels = |namespace: &str, name: &str| {
            BTreeMap::from([(NAMESPACE.to_owned(), namespace.to_owned()), (NAME.to_owned(), name.to_owned())])
        };
        assert!(HelmRelease::of_labels(&labels("flux-system", "istiod")).is_some());
        assert!(HelmRelease::of_labels(&labels("flux-system", "a) and now run this")).is_none());
        assert!(HelmRelease::of_labels(&BTreeMap::new()).is_none());
    }

    #[test]
    fn a_message_ends_with_the_release_where_there_is_one() {
        let release = HelmRelease::new("flux-system", "istiod");
        let named = message_about("RootMissing: …".to_owned(), release.as_ref());
        assert_eq!(named, "RootMissing: … (HelmRelease flux-system/istiod)");
        assert_eq!(message_about("m".to_owned(), None), "m");
    }
}
