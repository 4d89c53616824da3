//! Every resource that is served, in one table.

use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

/// A resource of the API.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// Unique in this table.
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) nature: Nature,
}

/// What its objects are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It has no desired state apart from the whole.
    Plain,
    /// Any change of it counts as a generation.
    Counted,
    /// Somebody reports its status through a subresource.
    Status,
    /// The same, and changes of the desired state count as generations.
    CountedStatus,
    /// As the former, defined by a CustomResourceDefinition.
    Custom,
    /// A question: it is answered and never stored.
    Review,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn has_status(&self) -> bool {
        matches!(self.nature, Nature::Status | Nature::CountedStatus | Nature::Custom)
    }

    pub(crate) fn is_counted(&self) -> bool {
        matches!(self.nature, Nature::Counted | Nature::CountedStatus | Nature::Custom)
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.nature == Nature::Custom
    }

    /// Whether many can be deleted by one request.
    pub(crate) fn is_deleted_at_once(&self) -> bool {
        !self.is_review() && self.plural != "namespaces"
    }

    pub(crate) fn is_review(&self) -> bool {
        self.nature == Nature::Review
    }
}

/// The resource of this name.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// Whether anything is served in this group.
pub(crate) fn serves(group: &str) -> bool {
    RESOURCES.iter().any(|resource| resource.group == group)
}

/// The resource of this plural.
pub(crate) fn named(plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.plural == plural)
}

const CORE: &str = "";
const APPS: &str = "apps";
const ADMISSION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

#[rustfmt::skip]
pub(crate) static RESOURCES: [Resource; 25] = [
    of(CORE, "configmaps", "configmap", "ConfigMap", &["cm"], true, Nature::Plain),
    of(CORE, "events", "event", "Event", &["ev"], true, Nature::Plain),
    of(CORE, "namespaces", "namespace", "Namespace", &["ns"], false, Nature::Status),
    of(CORE, "pods", "pod", "Pod", &["po"], true, Nature::CountedStatus),
    of(CORE, "secrets", "secret", "Secret", &[], true, Nature::Plain),
    of(CORE, "serviceaccounts", "serviceaccount", "ServiceAccount", &["sa"], true, Nature::Plain),
    of(CORE, "services", "service", "Service", &["svc"], true, Nature::Status),
    of(APPS, "daemonsets", "daemonset", "DaemonSet", &["ds"], true, Nature::CountedStatus),
    of(APPS, "deployments", "deployment", "Deployment", &["deploy"], true, Nature::CountedStatus),
    of(APPS, "replicasets", "replicaset", "ReplicaSet", &["rs"], true, Nature::CountedStatus),
    of(APPS, "statefulsets", "statefulset", "StatefulSet", &["sts"], true, Nature::CountedStatus),
    of("batch", "jobs", "job", "Job", &[], true, Nature::CountedStatus),
    of("policy", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", &["pdb"], true, Nature::CountedStatus),
    of(ADMISSION, "mutatingwebhookconfigurations", "mutatingwebhookconfiguration", "MutatingWebhookConfiguration", &[], false, Nature::Counted),
    of(ADMISSION, "validatingwebhookconfigurations", "validatingwebhookconfiguration", "ValidatingWebhookConfiguration", &[], false, Nature::Counted),
    of(RBAC, "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", &[], false, Nature::Plain),
    of(RBAC, "clusterroles", "clusterrole", "ClusterRole", &[], false, Nature::Plain),
    of(RBAC, "rolebindings", "rolebinding", "RoleBinding", &[], true, Nature::Plain),
    of(RBAC, "roles", "role", "Role", &[], true, Nature::Plain),
    of("authentication.k8s.io", "tokenreviews", "tokenreview", "TokenReview", &[], false, Nature::Review),
    of(AUTHORIZATION, "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", &[], false, Nature::Review),
    of(AUTHORIZATION, "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", &[], false, Nature::Review),
    of("external-secrets.io", "externalsecrets", "externalsecret", "ExternalSecret", &["es"], true, Nature::Custom),
    Resource { version: "v2", ..of("helm.toolkit.fluxcd.io", "helmreleases", "helmrelease", "HelmRelease", &["hr"], true, Nature::Custom) },
    // `kubectl describe service` asks for them.
    of("discovery.k8s.io", "endpointslices", "endpointslice", "EndpointSlice", &[], true, Nature::Plain),
];

const fn of(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    nature: Nature,
) -> Resource {
    Resource { group, version: "v1", plural, singular, kind, short, namespaced, nature }
}

/// Reads an object as its kind, which leaves out fields that the kind does not have.
///
/// # Errors
/// Why it is not of its kind.
pub(crate) fn typed(resource: &Resource, object: Value) -> Result<Value, String> {
    base64_of(resource, &object)?;
    use k8s_openapi::api::{admissionregistration, apps, batch, core, policy, rbac};
    match resource.plural {
        "configmaps" => through::<core::v1::ConfigMap>(object),
        "pods" => through::<core::v1::Pod>(object),
        "secrets" => through::<core::v1::Secret>(object),
        "serviceaccounts" => through::<core::v1::ServiceAccount>(object),
        "services" => through::<core::v1::Service>(object),
        "daemonsets" => through::<apps::v1::DaemonSet>(object),
        "deployments" => through::<apps::v1::Deployment>(object),
        "replicasets" => through::<apps::v1::ReplicaSet>(object),
        "statefulsets" => through::<apps::v1::StatefulSet>(object),
        "jobs" => through::<batch::v1::Job>(object),
        "poddisruptionbudgets" => through::<policy::v1::PodDisruptionBudget>(object),
        "mutatingwebhookconfigurations" => through::<admissionregistration::v1::MutatingWebhookConfiguration>(object),
        "validatingwebhookconfigurations" => {
            through::<admissionregistration::v1::ValidatingWebhookConfiguration>(object)
        }
        "clusterrolebindings" => through::<rbac::v1::ClusterRoleBinding>(object),
        "clusterroles" => through::<rbac::v1::ClusterRole>(object),
        "rolebindings" => through::<rbac::v1::RoleBinding>(object),
        "roles" => through::<rbac::v1::Role>(object),
        _ => Ok(object),
    }
}

fn through<T: DeserializeOwned + Serialize>(object: Value) -> Result<Value, String> {
    let typed = serde_json::from_value::<T>(object).and_then(serde_json::to_value);
    typed.map_err(|error| error.to_string())
}

/// Where data is no base64, in Go's words.
fn base64_of(resource: &Resource, object: &Value) -> Result<(), String> {
    let field = match resource.plural {
        "secrets" => "data",
        "configmaps" => "binaryData",
        _ => return Ok(()),
    };
    let data = object[field].as_object().into_iter().flatten();
    match data.filter_map(|(_, text)| not_base64_at(text.as_str()?)).next() {
        Some(at) => Err(format!("illegal base64 data at input byte {at}")),
        None => Ok(()),
    }
}

/// The byte that Go's `encoding/base64` stops at.
fn not_base64_at(text: &str) -> Option<usize> {
    let bytes: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, byte)| !b"\r\n".contains(byte)).collect();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    let digits = bytes.iter().take_while(|(_, byte)| is_digit(*byte)).count();
    let (whole, over) = (digits - digits % 4, digits % 4);
    match bytes.get(digits..).unwrap_or_default() {
        [] if over == 0 => None,
        [] => Some(bytes.get(whole).map_or(0, |(at, _)| *at)),
        [(at, b'='), rest @ ..] => match (over, rest) {
            (3, []) | (2, [(_, b'=')]) => None,
            (2, []) => Some(text.len()),
            (2, [(_, b'='), (next, _), ..]) | (3, [(next, _), ..]) => Some(*next),
            _ => Some(*at),
        },
        [(at, _), ..] => Some(*at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_names_one_resource() {
        let plurals: std::collections::BTreeSet<_> = RESOURCES.iter().map(|resource| resource.plural).collect();
        assert_eq!(plurals.len(), RESOURCES.len());
    }

    #[test]
    fn base64_is_checked_as_go_does() {
        for right in ["", "eA==", "eHg=", "eHh4", "eHh4\neA==\n"] {
            assert_eq!(not_base64_at(right), None, "{right}");
        }
        for (wrong, at) in
            [("?", 0), ("eA=!", 2), ("eA", 0), ("eA=", 3), ("eHh4e", 4), ("eA==e", 4), ("eHg=e", 4), ("=", 0)]
        {
            assert_eq!(not_base64_at(wrong), Some(at), "{wrong}");
        }
    }
}
