//! What a node does for the pods of a cluster that has none, and what istiod does once it runs.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{NAMESPACE, Side, manifests};

const WITNESS: &str = include_str!("../../../deploy/kustomize/components/signing/rbac.yaml");
const DEPLOYMENT: &str = include_str!("../../../deploy/kustomize/base/deployment.yaml");

/// As all of the conditions that the controllers wait for.
const CONDITIONS: [&str; 5] = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

impl Side {
    /// Applies the gate's Deployment, with these settings in its ConfigMap, as an overlay of deploy/kustomize has them.
    pub async fn deploy_gate(&self, settings: &[(&str, &str)]) -> Result<()> {
        let settings: Map<_, _> = settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let metadata = json!({ "name": "istio-ca-gate-settings", "namespace": NAMESPACE });
        self.make(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": settings })).await?;
        let manifests = manifests(DEPLOYMENT)?;
        let deployment = manifests.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        self.make(deployment).await
    }

    /// Lets every pod that waits run and be ready, as its node would say. An istiod among them tells its mesh's roots.
    pub async fn run_pods(&self) -> Result<()> {
        for pod in self.list("pods").await?.iter().filter(|pod| pod["status"]["phase"] == "Pending") {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/status");
            let (status, answer) = self.api.request("PATCH", &path, Some(json!({ "status": running(pod) }))).await?;
            // It may have gone meanwhile.
            ensure!(matches!(status, 200 | 404), "{status}: {answer}");
            if pod["metadata"]["labels"]["app"] == "istiod" {
                self.tell_roots().await?;
            }
        }
        Ok(())
    }

    /// Changes these settings of the gate, as an overlay does.
    pub async fn set_gate(&self, settings: &[(&str, &str)]) -> Result<()> {
        let settings: Map<_, _> = settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-gate-settings");
        let (status, answer) = self.api.request("PATCH", &path, Some(json!({ "data": settings }))).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// Applies what component signing grants the gate: to see which istiods there are, and what they serve.
    pub async fn let_witness(&self) -> Result<()> {
        for object in manifests(WITNESS)? {
            self.make(&object).await?;
        }
        Ok(())
    }

    /// Tells each istiod's pod that it has this address, as its node would.
    pub async fn give_address(&self, address: IpAddr) -> Result<()> {
        let is_without =
            |pod: &&Value| pod["metadata"]["labels"]["app"] == "istiod" && pod["status"]["podIP"].is_null();
        for pod in self.list("pods").await?.iter().filter(is_without) {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/status");
            let status = json!({ "podIP": address, "podIPs": [{ "ip": address }] });
            let (code, answer) = self.api.request("PATCH", &path, Some(json!({ "status": status }))).await?;
            // It may have gone meanwhile.
            ensure!(matches!(code, 200 | 404), "{code}: {answer}");
        }
        Ok(())
    }

    /// `istio-ca-root-cert`, as istiod writes it where it has started on this `cacerts`.
    pub async fn tell_roots(&self) -> Result<()> {
        let Some(cacerts) = self.cacerts().await? else { return Ok(()) };
        let roots = STANDARD.decode(cacerts["data"]["root-cert.pem"].as_str().context("no root-cert.pem")?)?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let metadata = json!({ "name": "istio-ca-root-cert", "labels": { "istio.io/config": "true" } });
        let map = json!({ "metadata": metadata, "data": { "root-cert.pem": String::from_utf8(roots)? } });
        let (status, _) = self.api.request("POST", &path, Some(map.clone())).await?;
        if status == 201 {
            return Ok(());
        }
        let (status, answer) = self.api.request("PATCH", &format!("{path}/istio-ca-root-cert"), Some(map)).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }
}

fn running(pod: &Value) -> Value {
    let since = &pod["metadata"]["creationTimestamp"];
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": since });
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let container = |spec: &Value| {
        json!({
            "name": spec["name"], "image": spec["image"], "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "state": { "running": { "startedAt": since } },
        })
    };
    json!({
        "phase": "Running",
        "conditions": CONDITIONS.map(condition),
        "containerStatuses": containers.map(container).collect::<Vec<_>>(),
        "startTime": since,
    })
}
