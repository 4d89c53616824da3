//! Link 15: the webhook configurations, and what stands behind them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::{Selector, SelectorExt};
use serde::Deserialize;

use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::cluster::{Cluster, Labels};
use super::line::{Line, Link};
use super::look::{Asker, Kind, Look};
use crate::reason::foreign_text;
use crate::serving::ca_bundle::CERT_MANAGER;
use crate::serving::secret as serving;

/// A shorter one ends before the gate has made a root.
const TIMEOUT: i32 = 10;

/// The API server's default.
const PORT: i32 = 443;

const VALIDATING: Kind = Kind {
    group: "admissionregistration.k8s.io",
    versions: &["v1"],
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
};

const MUTATING: Kind =
    Kind { kind: "MutatingWebhookConfiguration", plural: "mutatingwebhookconfigurations", ..VALIDATING };

const SLICES: Kind =
    Kind { group: "discovery.k8s.io", versions: &["v1"], kind: "EndpointSlice", plural: "endpointslices" };

/// Both configurations, what stands behind them, and the CA that has to be in them.
pub(super) struct Webhooks;

#[async_trait(?Send)]
impl Check for Webhooks {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if !seen.cluster.answers() {
            return;
        }
        let Asked { namespace, tls_secret, webhook_config, .. } = eyes.asked;
        let (validating, mutating, serving_ca) = tokio::join!(
            eyes.asker.find(&VALIDATING, webhook_config),
            eyes.asker.find(&MUTATING, webhook_config),
            async {
                match tls_secret {
                    Some(name) => eyes.asker.get::<Secret>(namespace, "secrets", name).await,
                    None => Look::Skipped("the gate's certificate is from files"),
                }
            },
        );
        seen.cluster.validating = validating.map(|it| Configuration::of(&it));
        seen.cluster.mutating = mutating.map(|it| Configuration::of(&it));
        seen.cluster.serving_ca = serving_ca.map(|secret| Some(secret.data?.get(serving::CERTIFICATE)?.0.clone()));
        seen.cluster.backends = backends(eyes.asker, &seen.cluster).await;
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        lines(&seen.cluster, asked)
    }
}

async fn backends(asker: &Asker, cluster: &Cluster) -> BTreeMap<(String, String), Backend> {
    let configurations = [&cluster.validating, &cluster.mutating].into_iter().filter_map(Look::seen);
    let services: BTreeSet<_> = configurations.flat_map(Configuration::services).collect();
    let mut backends = BTreeMap::new();
    for (namespace, name) in services {
        let of_service = format!("kubernetes.io/service-name={name}");
        let (service, slices) = tokio::join!(
            asker.get::<Service>(&namespace, "services", &name),
            asker.list_in(&SLICES, &namespace, &of_service),
        );
        backends.insert((namespace, name), Backend::of(service, slices));
    }
    backends
}

/// A webhook configuration of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Configuration {
    pub(super) name: String,
    /// cert-manager keeps `caBundle` in it.
    pub(super) cert_manager: bool,
    /// `None`: they cannot be read.
    pub(super) entries: Option<Vec<Entry>>,
}

/// One of its webhooks: the fields that both kinds have.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) client_config: WebhookClientConfig,
    pub(super) failure_policy: Option<String>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) side_effects: String,
    pub(super) admission_review_versions: Vec<String>,
    #[serde(default)]
    pub(super) rules: Vec<RuleWithOperations>,
    #[serde(default)]
    pub(super) object_selector: LabelSelector,
    #[serde(default)]
    pub(super) namespace_selector: LabelSelector,
    #[serde(default)]
    pub(super) match_conditions: Vec<serde_json::Value>,
}

/// The Service of an entry.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// Selector and ports.
    service: Look<(Labels, BTreeSet<i32>)>,
    /// Endpoints that are ready.
    ready: Look<usize>,
}

impl Configuration {
    pub(super) fn of(object: &DynamicObject) -> Self {
        Self {
            name: object.name_any(),
            cert_manager: CERT_MANAGER.iter().any(|key| object.annotations().contains_key(*key)),
            entries: serde_json::from_value(object.data["webhooks"].clone()).ok(),
        }
    }

    /// Namespaces and names of the Services that it calls.
    pub(super) fn services(&self) -> BTreeSet<(String, String)> {
        let entries = self.entries.iter().flatten();
        entries
            .filter_map(|entry| entry.client_config.service.as_ref())
            .map(|it| (it.namespace.clone(), it.name.clone()))
            .collect()
    }
}

impl Entry {
    /// Whether the API server asks about pods with these labels in a namespace with those.
    pub(super) fn selects(&self, pod: &Labels, namespace: Option<&Labels>) -> bool {
        let matches = |selector: &LabelSelector, labels: &Labels| {
            Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
        };
        // Of a namespace that may not be looked at nothing is known, and most entries select all.
        let in_namespace = namespace.is_none_or(|labels| matches(&self.namespace_selector, labels));
        in_namespace && matches(&self.object_selector, pod)
    }

    fn asks_about_new_pods(&self) -> bool {
        let has = |list: &Option<Vec<String>>, wanted: &str| {
            list.iter().flatten().any(|one| one == wanted || one == "*" || (wanted == "pods" && one == "*/*"))
        };
        self.rules.iter().any(|rule| {
            has(&rule.api_groups, "")
                && has(&rule.api_versions, "v1")
                && has(&rule.resources, "pods")
                && has(&rule.operations, "CREATE")
                && rule.scope.as_deref() != Some("Cluster")
        })
    }
}

impl Backend {
    pub(super) fn of(service: Look<Service>, slices: Look<Vec<DynamicObject>>) -> Self {
        let parts = |service: Service| {
            let spec = service.spec.unwrap_or_default();
            let ports = spec.ports.iter().flatten().map(|port| port.port).collect();
            (spec.selector.unwrap_or_default(), ports)
        };
        let ready = |slices: Vec<DynamicObject>| {
            let endpoints = slices.iter().flat_map(|slice| slice.data["endpoints"].as_array().into_iter().flatten());
            // Absent means that it is.
            endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).count()
        };
        Self { service: service.map(parts), ready: slices.map(ready) }
    }

    pub(super) fn selector(&self) -> Option<&Labels> {
        self.service.seen().map(|(selector, _)| selector)
    }
}

pub(super) fn lines(cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let mut lines = configuration("ValidatingWebhookConfiguration", &cluster.validating, cluster, asked);
    // Needed by nobody: where there is one it has to be right.
    if cluster.mutating != Look::Absent {
        lines.extend(configuration("MutatingWebhookConfiguration", &cluster.mutating, cluster, asked));
    }
    lines.extend(
        cluster.backends.iter().map(|((namespace, name), backend)| backend_line(namespace, name, backend, cluster)),
    );
    lines
}

fn configuration(kind: &str, looked: &Look<Configuration>, cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let link = Link::new("webhook", format!("{kind} {}", asked.webhook_config));
    let configuration = match looked.or_line(&link) {
        Err(line) => return vec![line],
        Ok(None) => {
            let seen = "there is none: nothing keeps istiod from starting with a root of its own";
            return vec![
                link.failed(seen, "apply deploy/kustomize/base/webhook.yaml, or name yours with --webhook-config"),
            ];
        }
        Ok(Some(configuration)) => configuration,
    };
    let Some(entries) = configuration.entries.as_ref().filter(|entries| !entries.is_empty()) else {
        return vec![link.failed("it has no webhooks that can be read", "apply deploy/kustomize/base/webhook.yaml")];
    };
    let path = if kind.starts_with("Mutating") { "/mutate" } else { "/validate" };
    let flawed: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let link = Link::new("webhook", format!("{} of {kind} {}", entry.name, asked.webhook_config));
            flaw(&link, entry, configuration, path, cluster, asked)
        })
        .collect();
    if flawed.is_empty() {
        let places: BTreeSet<_> = entries.iter().map(place).collect();
        let places: Vec<_> = places.into_iter().collect();
        return vec![link.ok(format!("{} webhooks, of {}, fail closed", entries.len(), places.join(" and ")))];
    }
    flawed
}

/// Where an entry sends reviews.
fn place(entry: &Entry) -> String {
    match (&entry.client_config.service, &entry.client_config.url) {
        (Some(service), _) => format!("Service {}/{}", service.namespace, service.name),
        (None, Some(url)) => foreign_text(url),
        (None, None) => "nothing".to_owned(),
    }
}

/// What is wrong with an entry, the worst first.
fn flaw(link: &Link, entry: &Entry, of: &Configuration, path: &str, cluster: &Cluster, asked: &Asked) -> Option<Line> {
    let apply = "apply deploy/kustomize/base/webhook.yaml";
    if entry.failure_policy.as_deref().is_some_and(|policy| policy != "Fail") {
        let seen = "failurePolicy is not Fail: while the gate does not answer, istiod starts with a root of its own";
        return Some(link.failed(seen, apply));
    }
    if !entry.asks_about_new_pods() {
        return Some(link.failed("no rule of it is about CREATE of pods: it keeps nothing out", apply));
    }
    if !entry.match_conditions.is_empty() {
        let seen = "has matchConditions, which may let pods past the gate";
        return Some(link.warning(seen, "take them out: selectors say which pods are gated"));
    }
    client_flaw(link, entry, path)
        .or_else(|| ca_flaw(link, entry, of, cluster, asked))
        .or_else(|| call_flaw(link, entry))
}

fn client_flaw(link: &Link, entry: &Entry, wanted: &str) -> Option<Line> {
    let path = match (&entry.client_config.service, &entry.client_config.url) {
        (Some(service), _) => service.path.clone().unwrap_or_default(),
        (None, Some(url)) => url.parse::<url::Url>().map(|url| url.path().to_owned()).unwrap_or_default(),
        (None, None) => String::new(),
    };
    (path != wanted).then(|| {
        let seen = format!("sends reviews to path {:?} of {}, and not to {wanted}", foreign_text(&path), place(entry));
        link.failed(seen, "point clientConfig at the gate, as deploy/kustomize/base/webhook.yaml does")
    })
}

fn ca_flaw(link: &Link, entry: &Entry, of: &Configuration, cluster: &Cluster, asked: &Asked) -> Option<Line> {
    let next = match &asked.tls_secret {
        Some(_) => "look at the gate's log, which injects it; it needs the RBAC of deploy/",
        None => {
            "put the CA of the gate's certificate into it: the gate injects none, since its certificate is from files"
        }
    };
    let Some(bundle) = entry.client_config.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty()) else {
        let next = if of.cert_manager { "look at cert-manager's CA injector" } else { next };
        return Some(link.failed("has no caBundle: the API server trusts no gate", next));
    };
    if of.cert_manager {
        return None;
    }
    let secret = format!("Secret {}/{}", asked.namespace, asked.tls_secret.as_ref()?);
    match &cluster.serving_ca {
        Look::Seen(Some(ca)) if *ca == bundle.0 => None,
        Look::Seen(Some(_)) => {
            Some(link.failed(format!("caBundle is not the CA in {secret}: the API server trusts another gate"), next))
        }
        Look::Seen(None) => {
            Some(link.failed(format!("{secret} has no certificate"), "delete it: the gate makes a new one"))
        }
        Look::Absent => Some(link.failed(
            format!("has a caBundle, and there is no {secret}"),
            "look at the gate's log: it makes the Secret anew by itself",
        )),
        // Said where the rights are.
        Look::Forbidden(_) | Look::Failed(_) | Look::Skipped(_) => None,
    }
}

fn call_flaw(link: &Link, entry: &Entry) -> Option<Line> {
    let apply = "apply deploy/kustomize/base/webhook.yaml";
    if !entry.admission_review_versions.iter().any(|version| version == "v1") {
        return Some(link.failed("does not send AdmissionReviews of version v1, the gate's only one", apply));
    }
    // Absent means 10.
    let timeout = entry.timeout_seconds.unwrap_or(TIMEOUT);
    if timeout < TIMEOUT {
        let seen = format!(
            "timeoutSeconds is {timeout}: too short to make a root in, so that a first pod is refused more often"
        );
        return Some(link.warning(seen, format!("{apply}, with {TIMEOUT} to 30")));
    }
    if entry.side_effects != "NoneOnDryRun" {
        let seen = format!(
            "sideEffects is {}, and the gate has some, unless it is a dry run",
            foreign_text(&entry.side_effects)
        );
        return Some(link.warning(seen, format!("{apply}, with NoneOnDryRun")));
    }
    None
}

fn backend_line(namespace: &str, name: &str, backend: &Backend, cluster: &Cluster) -> Line {
    let link = Link::new("webhook-service", format!("Service {namespace}/{name}"));
    let ports = match backend.service.or_line(&link) {
        Err(line) => return line,
        Ok(None) => {
            let seen = "there is none: the API server refuses every gated pod";
            return link.failed(
                seen,
                "apply deploy/kustomize/base/deployment.yaml, or point the webhooks at the gate's Service",
            );
        }
        Ok(Some((_, ports))) => ports,
    };
    if let Some(port) = called_ports(cluster, namespace, name).into_iter().find(|port| !ports.contains(port)) {
        return link.failed(
            format!("has no port {port}, which the webhooks call"),
            "apply deploy/kustomize/base/deployment.yaml",
        );
    }
    match backend.ready.or_line(&link) {
        Err(line) => line,
        Ok(None | Some(0)) => link.failed(
            "has no endpoint that is ready: the API server refuses every gated pod",
            format!("`kubectl -n {namespace} get pods -l app=istio-ca-gate`, and look at why they are not ready"),
        ),
        Ok(Some(ready)) => link.ok(format!("ready endpoints: {ready}")),
    }
}

fn called_ports(cluster: &Cluster, namespace: &str, name: &str) -> BTreeSet<i32> {
    let entries = [&cluster.validating, &cluster.mutating].into_iter().filter_map(Look::seen);
    let services =
        entries.flat_map(|it| it.entries.iter().flatten()).filter_map(|entry| entry.client_config.service.as_ref());
    services.filter(|it| it.namespace == namespace && it.name == name).map(|it| it.port.unwrap_or(PORT)).collect()
}

/// The selectors of the Services behind the webhooks: their pods are the gate's.
pub(super) fn selectors(backends: &BTreeMap<(String, String), Backend>) -> Vec<&Labels> {
    backends.values().filter_map(Backend::selector).filter(|selector| !selector.is_empty()).collect()
}

#[cfg(test)]
mod tests;
