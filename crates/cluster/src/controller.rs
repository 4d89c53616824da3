//! The controller of a pod or of an owner of pods, as an owner reference names it.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;

use gate_core::names::{is_label, is_subdomain};

/// The kinds that are looked at, with their API group; all are of version v1.
const KINDS: [(&str, &str); 5] =
    [("apps", "ReplicaSet"), ("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job")];

/// Longest uid; the API server's have 36 characters.
const UID_MAX: usize = 64;

/// A controller of one of Kubernetes' own kinds. Its names are names: they may stand in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Controller {
    group: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
}

impl Controller {
    /// `None`: not a kind that is known here, or not names as Kubernetes gives them.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str, uid: &str) -> Option<Self> {
        let group = api_version.strip_suffix("/v1")?;
        let (group, kind) = KINDS.into_iter().find(|known| *known == (group, kind))?;
        let uid_is_sound =
            !uid.is_empty() && uid.len() <= UID_MAX && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let sound = is_label(namespace) && is_subdomain(name) && uid_is_sound;
        sound.then(|| Self { group, kind, namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() })
    }

    /// As `apps/v1`.
    pub fn api_version(&self) -> String {
        format!("{}/v1", self.group)
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub(super) fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(self.group, "v1", self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_kinds_with_sound_names_are_taken() {
        let with = |version, kind, namespace, name, uid| Controller::new(version, kind, namespace, name, uid).is_some();
        assert!(with("apps/v1", "ReplicaSet", "istio-system", "istiod-5d4", "0c2a-1"));
        assert!(with("batch/v1", "Job", "istio-system", "job", "u"));
        for (version, kind) in [("argoproj.io/v1", "Rollout"), ("apps/v1beta1", "ReplicaSet"), ("v1", "Job"), ("", "")]
        {
            assert!(!with(version, kind, "n", "a", "u"), "{version} {kind}");
        }
        for (namespace, name, uid) in
            [("a/b", "a", "u"), ("n", "../secrets/cacerts", "u"), ("n", "a", "u u"), ("n", "a", "")]
        {
            assert!(!with("apps/v1", "ReplicaSet", namespace, name, uid), "{namespace} {name} {uid}");
        }
    }
}
