//! The real istiod, started from a pod as its kubelet would start it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binaries;
use crate::cluster::Cluster;
use crate::eventually::eventually;
use crate::kubelet::{Mounting, mount_volumes};
use crate::kubernetes_api::KubernetesApi;
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::temporary_folder;

/// A start takes a few seconds on idle cores.
const START: Duration = Duration::from_secs(120);

/// What istiod has to call itself, beside the name of its Service, for an API server that calls it on this machine: pass
/// it to the chart as `env.ISTIOD_CUSTOM_HOST`.
const HOST: &str = "localhost";

/// Where istiod takes the calls of proxies.
const SECURE: u16 = 15012;

/// The Service `istiod` of a cluster: ports of this machine, on which an istiod listens once it is started.
#[derive(Debug)]
pub struct IstiodService {
    http: Port,
    plain: Port,
    secure: Port,
    webhooks: Port,
    monitoring: Port,
}

impl IstiodService {
    /// The setting of the chart with which an istiod can be called at [`Self::route_webhooks`]' address.
    pub const CHART_SETTING: &str = "env.ISTIOD_CUSTOM_HOST=localhost";

    /// Reserves the ports. Nothing listens there yet: a connection is refused, as kube-proxy refuses it for a Service
    /// without endpoints.
    pub fn reserve() -> Result<Self> {
        Self::with_secure(Port::reserve()?)
    }

    /// The same for a pod with an address of its own, on which proxies are served at the port that istiod has in every
    /// cluster.
    pub fn reserve_pod() -> Result<Self> {
        Self::with_secure(Port::of_a_pod(SECURE)?)
    }

    fn with_secure(secure: Port) -> Result<Self> {
        Ok(Self {
            http: Port::reserve()?,
            plain: Port::reserve()?,
            secure,
            webhooks: Port::reserve()?,
            monitoring: Port::reserve()?,
        })
    }

    /// Sends the API server's calls of Istio's webhooks here in place of the Service's address, which leads nowhere
    /// without kube-proxy.
    pub async fn route_webhooks(&self, api: &KubernetesApi) -> Result<()> {
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
            let (status, mut list) = api.request("GET", &path, None).await?;
            ensure!(status == 200, "{list}");
            for configuration in list["items"].as_array_mut().context("no list")? {
                if self.route(configuration)? {
                    let name = configuration["metadata"]["name"].as_str().context("no name")?.to_owned();
                    let answer = api.request("PUT", &format!("{path}/{name}"), Some(configuration.take())).await?;
                    ensure!(answer.0 == 200, "{}", answer.1);
                }
            }
        }
        Ok(())
    }

    fn route(&self, configuration: &mut Value) -> Result<bool> {
        let mut routed = false;
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            let client = &mut webhook["clientConfig"];
            if client["service"]["name"].as_str().is_none_or(|name| !name.starts_with("istiod")) {
                continue;
            }
            let path = client["service"]["path"].as_str().context("a webhook without path")?;
            let url = format!("https://{HOST}:{}{path}", self.webhooks.number());
            // istiod injects its own caBundle.
            *client = json!({ "url": url, "caBundle": client["caBundle"] });
            routed = true;
        }
        Ok(routed)
    }

    /// Starts the first container of a pod of the chart `istiod`, with its own arguments, environment, volumes and
    /// service account, and waits until it is ready. As long as a volume is missing that is not optional, nothing starts.
    pub async fn start(self, cluster: &Cluster, pod: &Value) -> Result<Istiod> {
        let program = tokio::task::spawn_blocking(|| binaries::istio("pilot-discovery")).await??;
        let folder = temporary_folder(&format!("istiod-{}", cluster.name()))?;
        // Its working directory is what is the root of its container: the paths of cacerts and others are relative.
        let root = folder.path().join("root");
        eventually("the pod's volumes", START, || async {
            match mount_volumes(cluster, pod, &root).await? {
                Mounting::Done => Ok(()),
                Mounting::Waits(missing) => bail!("{missing}"),
            }
        })
        .await?;
        let account = pod["spec"]["serviceAccountName"].as_str().context("a pod without service account")?;
        let namespace = pod["metadata"]["namespace"].as_str().context("a pod without namespace")?;
        let token = cluster.service_account_token(namespace, account, &[cluster.issuer()], 3600).await?;
        let kubeconfig = cluster.kubeconfig_for(&format!("{namespace}/{account}"), &token)?;
        let container = &pod["spec"]["containers"][0];
        let program = with_environment(program.args(arguments(container)?), pod)?
            .args(self.listeners())
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .current_dir(&root);
        let process = program.spawn(folder.path().join("log"))?;
        let istiod = Istiod { process, service: self, folder };
        istiod.ready(container).await?;
        Ok(istiod)
    }

    /// In place of the chart's: a flag's last value counts.
    fn listeners(&self) -> Vec<String> {
        let flags = [
            ("httpAddr", &self.http),
            ("grpcAddr", &self.plain),
            ("secureGRPCAddr", &self.secure),
            ("httpsAddr", &self.webhooks),
            ("monitoringAddr", &self.monitoring),
        ];
        let listeners = flags.iter().map(|(flag, port)| format!("--{flag}={}", port.address()));
        // The introspection is on any port that is free.
        listeners.chain(["--ctrlz_address=127.0.0.1".into(), "--ctrlz_port=0".into()]).collect()
    }
}

fn arguments(container: &Value) -> Result<Vec<String>> {
    serde_json::from_value(container["args"].clone()).context("a container without arguments")
}

/// The environment of a pod's first container, as a kubelet makes it.
fn with_environment(program: Program, pod: &Value) -> Result<Program> {
    let variables = pod["spec"]["containers"][0]["env"].as_array().context("a container without environment")?;
    variables.iter().try_fold(program, |program, variable| {
        let name = variable["name"].as_str().context("a variable without name")?;
        let from = &variable["valueFrom"];
        let value = match (&variable["value"], from["fieldRef"]["fieldPath"].as_str()) {
            // An optional file for an istiod outside of its cluster.
            _ if name == "KUBECONFIG" => return Ok(program),
            (Value::String(value), _) => value.clone(),
            (_, Some(field)) => {
                let pointer = format!("/{}", field.replace('.', "/"));
                let value = pod.pointer(&pointer).and_then(Value::as_str);
                value.with_context(|| format!("no {field} in the pod"))?.to_owned()
            }
            // Without a limit, the node's.
            _ if from["resourceFieldRef"]["resource"] == "limits.cpu" => {
                std::thread::available_parallelism()?.to_string()
            }
            // An empty value is left out of the stored pod.
            _ if from.is_null() => String::new(),
            _ => bail!("cannot make the variable {variable}"),
        };
        Ok(program.env(name, value))
    })
}

/// A running istiod.
#[derive(Debug)]
pub struct Istiod {
    /// Its process.
    pub process: Process,
    service: IstiodService,
    folder: TempDir,
}

impl Istiod {
    async fn ready(&self, container: &Value) -> Result<()> {
        let path = container["readinessProbe"]["httpGet"]["path"].as_str().context("a container without readiness")?;
        let url = format!("http://127.0.0.1:{}{path}", self.service.http.number());
        let probe = || async {
            let answer = reqwest::get(&url).await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            Ok(())
        };
        self.process.until("istiod to be ready", START, probe).await
    }

    /// Where it takes the calls of proxies.
    pub fn address(&self) -> SocketAddr {
        self.service.secure.address()
    }

    /// Brings its volumes up to date, as a kubelet does now and then.
    pub async fn remount(&self, cluster: &Cluster, pod: &Value) -> Result<Mounting> {
        mount_volumes(cluster, pod, &self.folder.path().join("root")).await
    }

    /// The root that istiod serves: ConfigMap `istio-ca-root-cert` of a namespace, once it is there.
    pub async fn served_root(&self, cluster: &Cluster, namespace: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/istio-ca-root-cert");
        let probe = || async {
            let (status, found) = cluster.request("GET", &path, None).await?;
            ensure!(status == 200, "{status}");
            found["data"]["root-cert.pem"].as_str().map(str::to_owned).context("no root-cert.pem")
        };
        self.process.until("istio-ca-root-cert", START, probe).await
    }

    /// Has istiod sign a certificate for a service account, as the agent beside a proxy does.
    pub async fn workload_certificate(
        &self,
        cluster: &Cluster,
        namespace: &str,
        account: &str,
    ) -> Result<WorkloadCertificate> {
        let folder = tempfile::tempdir_in(self.folder.path())?;
        let (root, token) = (folder.path().join("root.pem"), folder.path().join("token"));
        fs::write(&root, self.served_root(cluster, namespace).await?)?;
        fs::write(&token, cluster.service_account_token(namespace, account, &["istio-ca"], 600).await?)?;
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
        binaries::istio("workload-certificate")?
            .args(["--address", &self.address().to_string()])
            .args(["--server-name", "istiod.istio-system.svc", "--identity", &identity])
            .arg("--root")
            .arg(root)
            .arg("--token-file")
            .arg(token)
            .arg("--out")
            .arg(folder.path())
            .output(None)
            .await?;
        WorkloadCertificate::read(folder.path(), identity)
    }
}

/// What a proxy shows to others.
#[allow(missing_debug_implementations, reason = "it has a key")]
pub struct WorkloadCertificate {
    /// The SPIFFE URI that was asked for.
    pub identity: String,
    /// The leaf first.
    pub chain_pem: String,
    /// The leaf's key.
    pub key_pem: String,
}

impl WorkloadCertificate {
    fn read(folder: &Path, identity: String) -> Result<Self> {
        let file = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
        Ok(Self { identity, chain_pem: file("cert-chain.pem")?, key_pem: file("key.pem")? })
    }
}
