//! Istio's agent, which has a workload's certificate renewed, as it runs beside each proxy. There is no proxy here.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binaries;
use crate::cluster::Cluster;
use crate::kubelet::{Mounting, mount_volumes};
use crate::ports::Port;
use crate::process::Process;
use crate::temporary_folder;

/// Longer than any test.
const TOKEN: u64 = 4 * 3600;

/// A running agent of a workload in the namespace `default`.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    pod: Value,
    folder: TempDir,
    _status: Port,
}

impl Agent {
    /// Starts it for a service account that is there, with certificates of this life, and istiod at this address. The
    /// mesh's roots have to be in the cluster.
    pub async fn start(cluster: &Cluster, account: &str, istiod: SocketAddr, life: &str) -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| binaries::istio("pilot-agent")).await??;
        let folder = temporary_folder(&format!("agent-{}", cluster.name()))?;
        let root = folder.path().join("root");
        let pod = pod(account);
        let mounting = mount_volumes(cluster, &pod, &root).await?;
        ensure!(mounting == Mounting::Done, "{mounting:?}");
        let tokens = root.join("var/run/secrets/tokens");
        fs::create_dir_all(&tokens)?;
        let token = cluster.service_account_token("default", account, &["istio-ca"], TOKEN).await?;
        fs::write(tokens.join("istio-token"), token)?;
        let certificates = folder.path().join("certificates");
        fs::create_dir_all(&certificates)?;
        let status = Port::reserve()?;
        let proxy_config = json!({ "discoveryAddress": istiod.to_string(), "statusPort": status.number() });
        let process = program
            .args(["proxy", "sidecar"])
            .env("DISABLE_ENVOY", "true")
            .env("OUTPUT_CERTS", certificates)
            .env("SECRET_TTL", life)
            .env("ECC_SIGNATURE_ALGORITHM", "ECDSA")
            .env("ISTIOD_SAN", "istiod.istio-system.svc")
            .env("PROXY_CONFIG", proxy_config.to_string())
            .env("POD_NAME", account)
            .env("POD_NAMESPACE", "default")
            .env("SERVICE_ACCOUNT", account)
            .env("INSTANCE_IP", "127.0.0.1")
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .current_dir(&root)
            .spawn(folder.path().join("log"))?;
        Ok(Self { process, pod, folder, _status: status })
    }

    /// Where it puts `key.pem`, `cert-chain.pem` and `root-cert.pem`, one after the other.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    /// Brings `istio-ca-root-cert` up to date in its volume, as a kubelet does now and then.
    pub async fn remount(&self, cluster: &Cluster) -> Result<()> {
        let mounting = mount_volumes(cluster, &self.pod, &self.folder.path().join("root")).await?;
        ensure!(mounting == Mounting::Done, "{mounting:?}");
        Ok(())
    }

    /// Takes the workload away, with what it had.
    pub fn stop(&self) -> Result<()> {
        self.process.stop()?;
        for entry in fs::read_dir(self.certificates())? {
            fs::remove_file(entry?.path()).context("a certificate stays")?;
        }
        Ok(())
    }
}

/// The volume that the injector gives to each pod.
fn pod(account: &str) -> Value {
    let mount = json!({ "name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio" });
    json!({
        "metadata": { "name": account, "namespace": "default" },
        "spec": {
            "containers": [{ "name": "istio-proxy", "volumeMounts": [mount] }],
            "volumes": [{ "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } }],
        },
    })
}
