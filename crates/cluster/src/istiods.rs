//! The pods of istiod, of any revision.

use std::net::IpAddr;

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;

use super::{call, stream};
use crate::mesh;
use gate_core::ca::bundle::glance;
use gate_core::life::witness::NamespaceRoots;
use gate_core::reason::Held;

/// What Istio's own charts and operators put on every istiod.
const LABEL: &str = "app=istiod";

/// Items of a page.
const PAGE: u32 = 250;

/// An istiod's pod that is there, going or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IstiodPod {
    /// Its name.
    pub name: String,
    /// `None`: it has none yet.
    pub address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Named,
    #[serde(default)]
    status: PodStatus,
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
                pods.push(IstiodPod { name: pod.metadata.name, address: pod.status.pod_ip });
            }
        };
        self.all(&doing, &path, ListParams::default().labels(LABEL), take).await?;
        Ok(pods)
    }

    /// Each namespace that has `istio-ca-root-cert`, and the roots in it; `None` where they cannot be read.
    ///
    /// # Errors
    /// If it is not known which there are.
    pub async fn served(&self) -> Result<NamespaceRoots, Held> {
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
