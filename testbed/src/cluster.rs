//! A Kubernetes control plane: etcd, API server and controllers, with no node, so that pods stay Pending.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::api::Api;
use crate::binaries::ControlPlane;
use crate::evidence;
use crate::kubernetes_api::KubernetesApi;
use crate::ports::{Port, retry_if_taken};
use crate::process::{Process, Program};
use crate::temporary_folder;
use crate::tls::{token_signing_key, write_serving_files};

/// A start takes 3 seconds on 2 idle cores; several clusters may start at once on busy ones.
const START: Duration = Duration::from_secs(120);

/// The bearer token of a member of `system:masters`.
const ADMIN_TOKEN: &str = "admin-token-of-this-test-cluster";

/// A running control plane of its own. All its processes end, and its data goes, on drop.
#[derive(Debug)]
pub struct Cluster {
    api: KubernetesApi,
    kubectl: Program,
    // In the order in which they are to be dropped: clients before servers, the data last.
    controller_manager: Process,
    api_server: Process,
    etcd: Process,
    scheduler: Program,
    folder: TempDir,
    _ports: [Port; 3],
}

impl Cluster {
    /// Starts a cluster and waits until its API server is ready and its `default` service account exists.
    pub async fn start(name: &str) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(ControlPlane::find).await??;
        let start = || async {
            let cluster = Self::launch(name, &programs)?;
            cluster.ready().await?;
            Ok(cluster)
        };
        retry_if_taken(start).await.with_context(|| format!("start of cluster {name}"))
    }

    fn launch(name: &str, programs: &ControlPlane) -> Result<Self> {
        let folder = temporary_folder(name)?;
        let home = folder.path();
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let [etcd_port, etcd_peer_port, port] = ports.each_ref().map(Port::number);
        let issuer = format!("https://kubernetes.{name}.test");
        let url = format!("https://127.0.0.1:{port}");

        let authority = write_serving_files(home, &format!("CA of test cluster {name}"))?;
        let (token_key, token_public_key_pem) = token_signing_key()?;
        fs::write(home.join("token-key.pem"), token_key)?;
        fs::write(home.join("token-public-key.pem"), &token_public_key_pem)?;
        let admin = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
        fs::write(home.join("tokens.csv"), admin)?;
        fs::write(home.join("audit-policy.json"), evidence::AUDIT_POLICY)?;
        let api = KubernetesApi {
            name: name.to_owned(),
            issuer,
            api: Api::new(url, authority.certificate_pem())?,
            ca_pem: authority.certificate_pem().to_owned(),
            admin_token: ADMIN_TOKEN.to_owned(),
            token_public_key_pem,
        };
        fs::write(home.join("kubeconfig"), api.kubeconfig("admin", ADMIN_TOKEN))?;

        let spawn = |program: &Program, args: Vec<String>, log| {
            let program = program.clone().current_dir(home).env("HOME", home);
            program.args(args).spawn(home.join(log))
        };
        let kubectl = programs.kubectl.clone().env("HOME", home);
        Ok(Self {
            kubectl: kubectl.env("KUBECONFIG", home.join("kubeconfig")),
            // All at once: each waits for the one before it by itself.
            etcd: spawn(&programs.etcd, etcd_args(etcd_port, etcd_peer_port), "etcd.log")?,
            api_server: spawn(
                &programs.api_server,
                [api_server_args(port, etcd_port, api.issuer()), audit_args(name)].concat(),
                "kube-apiserver.log",
            )?,
            controller_manager: spawn(
                &programs.controller_manager,
                controller_manager_args(),
                "kube-controller-manager.log",
            )?,
            scheduler: programs.scheduler.clone().current_dir(home).env("HOME", home).args(scheduler_args()),
            api,
            folder,
            _ports: ports,
        })
    }

    async fn ready(&self) -> Result<()> {
        tokio::select! {
            ready = self.api_server_ready() => ready?,
            // Only its end ends this wait: the API server alone would say nothing of the cause.
            ended = self.etcd.until("the API server", START, || async { None }) => ended?,
        }
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        self.controller_manager.until("the default service account", START, || self.exists(account)).await
    }

    async fn api_server_ready(&self) -> Result<()> {
        self.api_server.until("/readyz", START, || self.exists("/readyz")).await
    }

    async fn exists(&self, path: &str) -> Result<()> {
        let (status, body) = self.request("GET", path, None).await?;
        ensure!(status == 200, "{status}: {body}");
        Ok(())
    }

    /// The file with the CA of the API server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A kubeconfig with all rights. Its context is named like the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Writes a kubeconfig for the owner of a bearer token. Its context is named like the cluster.
    pub fn kubeconfig_for(&self, user: &str, token: &str) -> Result<PathBuf> {
        let file = format!("kubeconfig-{}", user.replace(['/', ':'], "-"));
        let path = self.folder.path().join(file);
        fs::write(&path, self.api.kubeconfig(user, token))?;
        Ok(path)
    }

    /// Runs kubectl with all rights, and returns what it prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.clone().args(args).output(None).await
    }

    /// Runs kubectl with all rights and a manifest on its standard input.
    pub async fn kubectl_stdin(&self, args: &[&str], manifest: &str) -> Result<String> {
        self.kubectl.clone().args(args).output(Some(manifest)).await
    }

    /// The API server's process.
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    /// The controllers' process.
    pub fn controller_manager(&self) -> &Process {
        &self.controller_manager
    }

    /// Starts a scheduler, which gives pods their nodes. Drop it before the cluster.
    pub fn start_scheduler(&self) -> Result<Process> {
        self.scheduler.clone().spawn(self.folder.path().join("kube-scheduler.log"))
    }

    /// etcd's process.
    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// Kills the API server.
    pub fn stop_api_server(&self) -> Result<()> {
        self.api_server.stop()
    }

    /// Starts the API server again, with the same port and data, and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        self.api_server.start_again()?;
        self.api_server_ready().await
    }

    /// Kills etcd.
    pub fn stop_etcd(&self) -> Result<()> {
        self.etcd.stop()
    }

    /// Starts etcd again, with the same port and data, and waits until the API server is ready with it.
    pub async fn start_etcd(&self) -> Result<()> {
        self.etcd.start_again()?;
        self.etcd.until("a read from etcd", START, || self.exists("/api/v1/namespaces/default")).await
    }
}

/// All that can be asked of any API server can be asked of this one.
impl Deref for Cluster {
    type Target = KubernetesApi;

    fn deref(&self) -> &KubernetesApi {
        &self.api
    }
}

fn etcd_args(port: u16, peer_port: u16) -> Vec<String> {
    let url = format!("http://127.0.0.1:{port}");
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    vec![
        "--data-dir=etcd-data".into(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
        "--log-level=warn".into(),
        // The data need not survive the machine.
        "--unsafe-no-fsync".into(),
        // One member waits for nobody: its first election may be quick.
        "--heartbeat-interval=10".into(),
        "--election-timeout=100".into(),
    ]
}

fn api_server_args(port: u16, etcd_port: u16, issuer: &str) -> Vec<String> {
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        // Otherwise it looks for an address of the machine, which may have none.
        "--advertise-address=127.0.0.1".into(),
        // Endpoints cannot have a loopback address.
        "--endpoint-reconciler-type=none".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--tls-cert-file=serving.pem".into(),
        "--tls-private-key-file=serving-key.pem".into(),
        "--authorization-mode=RBAC".into(),
        "--token-auth-file=tokens.csv".into(),
        "--service-account-key-file=token-public-key.pem".into(),
        "--service-account-signing-key-file=token-key.pem".into(),
        format!("--service-account-issuer={issuer}"),
        format!("--api-audiences={issuer},vault"),
        // Off by default; istiod can be told to tell its roots by it.
        "--feature-gates=ClusterTrustBundle=true".into(),
        "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true".into(),
    ]
}

/// What changed is recorded before it is answered, so that nothing is missing at the end.
fn audit_args(name: &str) -> Vec<String> {
    let log = evidence::file(name, "kubernetes-audit");
    let args = log.map(|log| {
        vec![
            "--audit-policy-file=audit-policy.json".into(),
            "--audit-log-mode=blocking".into(),
            format!("--audit-log-path={}", log.display()),
        ]
    });
    args.unwrap_or_default()
}

fn controller_manager_args() -> Vec<String> {
    [
        "--kubeconfig=kubeconfig",
        "--root-ca-file=ca.pem",
        "--service-account-private-key-file=token-key.pem",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
        // At the default of 20 requests a second, the controllers take 5 seconds to start.
        "--kube-api-qps=1000",
        "--kube-api-burst=1000",
        // Nodes that tests make by hand have no kubelet that would say it is alive.
        "--node-monitor-grace-period=1h",
    ]
    .map(Into::into)
    .into()
}

fn scheduler_args() -> [&'static str; 3] {
    ["--kubeconfig=kubeconfig", "--leader-elect=false", "--secure-port=0"]
}
