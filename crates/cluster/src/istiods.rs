//! The pods of istiod, of any revision, what they are told, and what they tell namespaces.

use std::net::IpAddr;
use std::time::Duration;

use http::Request as HttpRequest;
use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;

use super::{Failed, call, stream};
use crate::mesh;
use gate_core::ca::bundle::glance;
use gate_core::life::witness::NamespaceRoots;
use gate_core::reason::Held;

/// What Istio's own charts and operators put on every istiod.
const LABEL: &str = "app=istiod";

/// What they put on every ztunnel. All have one setting, so that one pod says it for all.
const ZTUNNEL: &str = "app=ztunnel";

/// Items of a page.
const PAGE: u32 = 250;

/// In place of the ConfigMaps, where istiod is told to write it.
const TRUST_BUNDLE: &str = "istio.io:istiod-ca:root-cert";

/// By which istiod is told to.
const BY_TRUST_BUNDLE: &str = "ENABLE_CLUSTER_TRUST_BUNDLE_API";

/// The life of a workload's certificate, for who asks for none; and what ztunnel asks for.
const LIVES: [&str; 2] = ["DEFAULT_WORKLOAD_CERT_TTL", "SECRET_TTL"];

/// An istiod's pod that is there, going or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstiodPod {
    /// Its name.
    pub name: String,
    /// `None`: it has none yet.
    pub address: Option<IpAddr>,
    /// The life of a workload's certificate, where it is told one.
    pub ttl: Option<Duration>,
    /// It tells the roots in a ClusterTrustBundle, and not in ConfigMaps.
    pub by_trust_bundle: bool,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Named,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    /// `None`: it is from somewhere else.
    value: Option<String>,
}

impl Pod {
    fn told(&self, name: &str) -> Option<&str> {
        let variables = self.spec.containers.iter().flat_map(|container| &container.env);
        variables.filter(|variable| variable.name == name).find_map(|variable| variable.value.as_deref())
    }

    /// The longest life that it is told. Go writes `24h0m0s`.
    fn ttl(&self) -> Option<Duration> {
        let lives = LIVES.iter().filter_map(|name| humantime::parse_duration(self.told(name)?).ok());
        lives.max()
    }

    /// As Go reads a boolean.
    fn is_told(&self, name: &str) -> bool {
        matches!(self.told(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

#[derive(Deserialize)]
struct TrustBundle {
    spec: TrustBundleSpec,
}

#[derive(Deserialize)]
struct TrustBundleSpec {
    #[serde(rename = "trustBundle")]
    trust_bundle: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct ServedMap {
    metadata: Named,
    #[serde(default)]
    data: Option<RootCert>,
}

#[derive(Deserialize)]
struct RootCert {
    #[serde(rename = "root-cert.pem")]
    root_cert: Option<String>,
}

/// What a cluster's istiods are and serve.
pub struct MeshSide {
    client: Client,
    namespace: String,
}

impl MeshSide {
    /// Of istiods in this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// All pods of istiod whose containers may run.
    ///
    /// # Errors
    /// If it is not known which there are.
    pub async fn istiods(&self) -> Result<Vec<IstiodPod>, Held> {
        let doing = format!("list the pods of istiod in {}", self.namespace);
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let mut pods = Vec::new();
        let take = |pod: Pod| {
            let has_ended = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
            if !has_ended {
                let (ttl, by_trust_bundle) = (pod.ttl(), pod.is_told(BY_TRUST_BUNDLE));
                pods.push(IstiodPod { name: pod.metadata.name, address: pod.status.pod_ip, ttl, by_trust_bundle });
            }
        };
        self.all(&doing, &path, ListParams::default().labels(LABEL), take).await?;
        Ok(pods)
    }

    /// The life that ztunnel asks for, where there is one that is told so.
    ///
    /// # Errors
    /// If that is not known.
    pub async fn ztunnel_ttl(&self) -> Result<Option<Duration>, Held> {
        let doing = format!("list the pods of ztunnel in {}", self.namespace);
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let request = Request::new(path).list(&ListParams::default().labels(ZTUNNEL).limit(1));
        let mut ttl = None;
        let take = |pod: Pod| ttl = ttl.max(pod.ttl());
        let page = async { stream::items(&self.client, request.map_err(kube::Error::BuildRequest)?, take).await };
        call(&doing, page).await.map_err(|failed| failed.into_held(&doing))?;
        Ok(ttl)
    }

    /// Where these istiods tell which roots, and those; `None` where they cannot be read: each namespace that has
    /// `istio-ca-root-cert`, or the one ClusterTrustBundle, or both where the istiods do not agree.
    ///
    /// # Errors
    /// If it is not known which there are.
    pub async fn served(&self, istiods: &[IstiodPod]) -> Result<NamespaceRoots, Held> {
        let by_bundle = istiods.iter().any(|pod| pod.by_trust_bundle);
        let by_maps = istiods.is_empty() || istiods.iter().any(|pod| !pod.by_trust_bundle);
        let mut served = if by_maps { self.served_in_maps().await? } else { Vec::new() };
        if by_bundle {
            served.push((format!("ClusterTrustBundle {TRUST_BUNDLE}"), self.trust_bundle().await?));
        }
        Ok(served)
    }

    async fn trust_bundle(&self) -> Result<Option<std::collections::BTreeSet<gate_core::ca::Sha256>>, Held> {
        let doing = format!("read ClusterTrustBundle {TRUST_BUNDLE}");
        let path = format!("/apis/certificates.k8s.io/v1beta1/clustertrustbundles/{TRUST_BUNDLE}");
        let request = HttpRequest::get(path).body(Vec::new());
        let asked = async { self.client.request(request.map_err(kube::Error::HttpError)?).await };
        match call(&doing, asked).await {
            Ok(TrustBundle { spec }) => Ok(glance(spec.trust_bundle.as_bytes()).map(|glance| glance.roots)),
            Err(Failed::NotFound) => Ok(None),
            Err(failed) => Err(failed.into_held(&doing)),
        }
    }

    async fn served_in_maps(&self) -> Result<NamespaceRoots, Held> {
        let doing = format!("list ConfigMaps {} of all namespaces", mesh::NAME);
        let params = ListParams::default().fields(&format!("metadata.name={}", mesh::NAME));
        let mut served = Vec::new();
        let take = |map: ServedMap| {
            let file = map.data.and_then(|data| data.root_cert);
            served.push((
                map.metadata.namespace,
                file.and_then(|file| glance(file.as_bytes())).map(|glance| glance.roots),
            ));
        };
        self.all(&doing, "/api/v1/configmaps", params, take).await?;
        Ok(served)
    }

    async fn all<T: serde::de::DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        params: ListParams,
        mut take: impl FnMut(T),
    ) -> Result<(), Held> {
        let mut params = params.limit(PAGE);
        loop {
            let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest);
            let page = async { stream::items(&self.client, request?, &mut take).await };
            match call(doing, page).await.map_err(|failed| failed.into_held(doing))? {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;
    use crate::samples::{answered_by, refusal};
    use gate_core::samples::{BOTH, R1};

    fn pod(name: &str, env: &Value) -> Value {
        json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "sidecar" }, { "env": env }] } })
    }

    /// A cluster with these pods of istiod, one ztunnel that asks for two days, root 1 in a namespace and both roots in the
    /// ClusterTrustBundle, if there is one.
    fn cluster(istiods: Vec<Value>, has_bundle: bool) -> MeshSide {
        let root = |pem: &[u8]| String::from_utf8(pem.to_vec()).unwrap();
        let client = answered_by(move |request| {
            let uri = request.uri().to_string();
            let items = if uri.contains("ztunnel") {
                vec![pod("ztunnel-1", &json!([{ "name": "SECRET_TTL", "value": "48h0m0s" }]))]
            } else if uri.contains("/pods?") {
                istiods.clone()
            } else if uri.contains("/configmaps?") {
                let data = json!({ "root-cert.pem": root(&R1.bundle.root_cert) });
                vec![json!({ "metadata": { "name": mesh::NAME, "namespace": "default" }, "data": data })]
            } else if uri.ends_with("/v1beta1/clustertrustbundles/istio.io:istiod-ca:root-cert") && has_bundle {
                return (200, json!({ "spec": { "trustBundle": root(&BOTH.bundle.root_cert) } }));
            } else {
                return refusal(404, "NotFound");
            };
            (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
        });
        MeshSide::new(client, "istio-system")
    }

    fn by_bundle(name: &str) -> Value {
        pod(name, &json!([{ "name": BY_TRUST_BUNDLE, "value": "true" }]))
    }

    #[tokio::test]
    async fn the_longest_life_is_the_one_that_istiod_or_ztunnel_is_told() {
        let told = |value: &str| pod("istiod", &json!([{ "name": "DEFAULT_WORKLOAD_CERT_TTL", "value": value }]));
        let elsewhere = pod("istiod", &json!([{ "name": "DEFAULT_WORKLOAD_CERT_TTL", "valueFrom": {} }]));
        let side = cluster(vec![told("720h"), told("24h0m0s"), told("soon"), elsewhere], false);
        let lives: Vec<_> = side.istiods().await.unwrap().into_iter().map(|pod| pod.ttl).collect();
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        assert_eq!(lives, [hours(720), hours(24), None, None]);
        assert_eq!(side.ztunnel_ttl().await.unwrap(), hours(48));
    }

    #[tokio::test]
    async fn roots_are_read_where_these_istiods_tell_them() {
        let maps = || pod("istiod-1", &json!([]));
        let bundle = ("ClusterTrustBundle istio.io:istiod-ca:root-cert".to_owned(), Some(BOTH.glance.roots.clone()));
        let map = ("default".to_owned(), Some(R1.glance.roots.clone()));
        for (istiods, has_bundle, wanted) in [
            (vec![], true, vec![map.clone()]),
            (vec![maps()], true, vec![map.clone()]),
            (vec![by_bundle("istiod-2")], true, vec![bundle.clone()]),
            (vec![maps(), by_bundle("istiod-2")], true, vec![map.clone(), bundle.clone()]),
            // Not written yet, or not served by this API server.
            (vec![by_bundle("istiod-2")], false, vec![(bundle.0.clone(), None)]),
        ] {
            let side = cluster(istiods, has_bundle);
            let pods = side.istiods().await.unwrap();
            assert_eq!(side.served(&pods).await.unwrap(), wanted);
        }
    }
}
