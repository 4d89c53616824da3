//! Two clusters and a Vault, set up as the README says.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Cluster, Vault, VaultOptions, eventually};
use tokio::sync::{Semaphore, SemaphorePermit};

pub const NAMESPACE: &str = "istio-system";

/// Worlds at a time: each takes up to 1.5 GB, and the machine may have two cores.
static WORLDS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));

/// Longest wait for something that takes the controllers or the gate a moment.
pub const SOON: Duration = Duration::from_secs(30);

/// A cluster, and what its gate is to Vault.
pub struct Side {
    pub name: &'static str,
    pub role: &'static str,
    pub service_account: &'static str,
    pub auth_mount: &'static str,
    pub cluster: Cluster,
}

impl Side {
    async fn homelab() -> Result<Self> {
        let cluster = Cluster::start("homelab").await?;
        let side = Self {
            name: "homelab",
            role: "bootstrap",
            service_account: "istio-ca-bootstrap",
            auth_mount: "kubernetes",
            cluster,
        };
        side.prepare().await
    }

    async fn nas() -> Result<Self> {
        let cluster = Cluster::start("nas").await?;
        let side =
            Self { name: "nas", role: "sync", service_account: "istio-ca-sync", auth_mount: "kubernetes-nas", cluster };
        side.prepare().await
    }

    /// Applies the manifests of deploy/, and points the webhook at this machine in place of the Service.
    async fn prepare(self) -> Result<Self> {
        self.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        self.cluster.kubectl(&["apply", "-k", &deploy(self.name)]).await?;
        Ok(self)
    }

    /// Sends the API server's calls to these ports: each of the manifest's webhooks to the first, and
    /// a copy of the first webhook to each further one.
    pub async fn point_webhooks_at(&self, ports: &[u16]) -> Result<()> {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-ca-gate";
        let (status, mut configuration) = self.cluster.request("GET", path, None).await?;
        ensure!(status == 200, "{configuration}");
        let webhooks = configuration["webhooks"].as_array_mut().context("no webhooks")?;
        let url = |port: &u16| json!({ "url": format!("https://127.0.0.1:{port}/validate") });
        webhooks.iter_mut().for_each(|webhook| webhook["clientConfig"] = url(&ports[0]));
        for (index, port) in ports.iter().enumerate().skip(1) {
            let mut webhook = webhooks[0].clone();
            webhook["name"] = json!(format!("app{index}.istio-ca-gate.io"));
            webhook["clientConfig"] = url(port);
            webhooks.push(webhook);
        }
        let (status, answer) = self.cluster.request("PUT", path, Some(configuration)).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// Applies a Deployment of one pod with these labels.
    pub async fn deploy(&self, name: &str, labels: Value) -> Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
        let (status, answer) = self.cluster.request("POST", &path, Some(deployment(name, labels))).await?;
        ensure!(status == 201, "{answer}");
        Ok(())
    }

    pub async fn deploy_istiod(&self) -> Result<()> {
        self.deploy("istiod", json!({ "app": "istiod", "istio": "pilot" })).await
    }

    pub async fn deploy_gateway(&self) -> Result<()> {
        let labels = json!({ "app": "istio-eastwestgateway", "istio": "eastwestgateway" });
        self.deploy("istio-eastwestgateway", labels).await
    }

    /// Names of the pods of a Deployment.
    pub async fn pods(&self, deployment: &str) -> Result<Vec<String>> {
        let pods = self.list(&format!("/api/v1/namespaces/{NAMESPACE}/pods")).await?;
        let prefix = format!("{deployment}-");
        let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect())
    }

    /// Waits for the pod of a Deployment.
    pub async fn pod(&self, deployment: &str) -> Result<String> {
        let what = format!("a pod of {deployment} in {}", self.name);
        let pod = eventually(&what, SOON, || async {
            match self.pods(deployment).await?.into_iter().next() {
                Some(pod) => Ok(pod),
                None => Err(anyhow::anyhow!("{:?}", self.refusals(deployment).await)),
            }
        });
        pod.await
    }

    /// What users see of refused pods of a Deployment: the messages of its ReplicaSets' events.
    pub async fn refusals(&self, deployment: &str) -> Result<Vec<String>> {
        let events = self.list(&format!("/api/v1/namespaces/{NAMESPACE}/events")).await?;
        let prefix = format!("{deployment}-");
        let of = |event: &&Value| {
            event["reason"] == "FailedCreate"
                && event["involvedObject"]["kind"] == "ReplicaSet"
                && event["involvedObject"]["name"].as_str().is_some_and(|name| name.starts_with(&prefix))
        };
        Ok(events.iter().filter(of).filter_map(|event| event["message"].as_str()).map(str::to_owned).collect())
    }

    /// Waits until a Deployment's pod was refused with this code, and returns the message.
    pub async fn refusal(&self, deployment: &str, code: &str) -> Result<String> {
        let what = format!("{deployment} in {} to be refused with {code}", self.name);
        let wanted = format!("denied the request: {code}: cluster {}: ", self.name);
        eventually(&what, SOON, || async {
            let refusals = self.refusals(deployment).await?;
            match refusals.iter().find(|message| message.contains(&wanted)) {
                Some(message) => Ok(message.clone()),
                None => Err(anyhow::anyhow!("{refusals:?}")),
            }
        })
        .await
    }

    /// How often a Deployment's pods were refused so far.
    pub async fn refused(&self, deployment: &str) -> Result<u64> {
        let events = self.list(&format!("/api/v1/namespaces/{NAMESPACE}/events")).await?;
        let prefix = format!("{deployment}-");
        let of =
            |event: &&Value| event["involvedObject"]["name"].as_str().is_some_and(|name| name.starts_with(&prefix));
        let counts = events.iter().filter(|event| event["reason"] == "FailedCreate").filter(of);
        Ok(counts.filter_map(|event| event["count"].as_u64().or(event["series"]["count"].as_u64())).sum())
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (status, mut answer) = self.cluster.request("GET", path, None).await?;
        ensure!(status == 200, "{answer}");
        Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// `cacerts`, if it is there.
    pub async fn cacerts(&self) -> Result<Option<Value>> {
        self.object(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/cacerts")).await
    }

    /// The pin, if it is there.
    pub async fn pin(&self) -> Result<Option<Value>> {
        self.object(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-gate")).await
    }

    async fn object(&self, path: &str) -> Result<Option<Value>> {
        let (status, answer) = self.cluster.request("GET", path, None).await?;
        match status {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            status => anyhow::bail!("{path}: {status}: {answer}"),
        }
    }

    pub async fn delete_cacerts(&self) -> Result<()> {
        self.cluster.kubectl(&["-n", NAMESPACE, "delete", "secret", "cacerts"]).await?;
        Ok(())
    }

    /// Makes the controllers ask for a new istiod pod now, and returns when the old one is gone.
    pub async fn restart(&self, deployment: &str) -> Result<()> {
        for pod in self.pods(deployment).await? {
            self.cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod, "--grace-period=0", "--force"]).await?;
        }
        Ok(())
    }
}

/// Two sides and the Vault that they share.
pub struct World {
    pub homelab: Side,
    pub nas: Side,
    pub vault: Vault,
    _permit: SemaphorePermit<'static>,
}

/// One side and its Vault, where the other side has no part.
pub struct SmallWorld {
    pub side: Side,
    pub vault: Vault,
    _permit: SemaphorePermit<'static>,
}

impl World {
    pub async fn start() -> Result<Self> {
        let permit = WORLDS.acquire().await?;
        let (homelab, nas, vault) =
            tokio::try_join!(Side::homelab(), Side::nas(), Vault::start(VaultOptions::default()))?;
        introduce(&homelab, &vault).await?;
        introduce(&nas, &vault).await?;
        Ok(Self { homelab, nas, vault, _permit: permit })
    }
}

impl SmallWorld {
    pub async fn homelab() -> Result<Self> {
        let permit = WORLDS.acquire().await?;
        let (side, vault) = tokio::try_join!(Side::homelab(), Vault::start(VaultOptions::default()))?;
        introduce(&side, &vault).await?;
        Ok(Self { side, vault, _permit: permit })
    }

    pub async fn nas() -> Result<Self> {
        let permit = WORLDS.acquire().await?;
        let (side, vault) = tokio::try_join!(Side::nas(), Vault::start(VaultOptions::default()))?;
        introduce(&side, &vault).await?;
        Ok(Self { side, vault, _permit: permit })
    }
}

/// Makes a cluster known to Vault: its auth mount, its policy, its role.
pub async fn introduce(side: &Side, vault: &Vault) -> Result<()> {
    let policy = format!("istio-ca-{}", side.role);
    vault.policy(&policy, &shipped_policy(side.role)?).await?;
    match side.role {
        "bootstrap" => {
            // Vault asks this cluster's API server to review each token.
            let cluster = &side.cluster;
            cluster.kubectl(&["-n", "default", "create", "serviceaccount", "vault-reviewer"]).await?;
            cluster
                .kubectl(&[
                    "create",
                    "clusterrolebinding",
                    "vault-reviewer",
                    "--clusterrole=system:auth-delegator",
                    "--serviceaccount=default:vault-reviewer",
                ])
                .await?;
            let reviewer =
                cluster.service_account_token("default", "vault-reviewer", &[cluster.issuer()], 3600).await?;
            vault.kubernetes_auth(side.auth_mount, cluster, &reviewer).await?;
        }
        _ => vault.jwt_auth(side.auth_mount, &side.cluster).await?,
    }
    grant(side, vault).await
}

/// Writes the role that this side logs in as.
pub async fn grant(side: &Side, vault: &Vault) -> Result<()> {
    let policy = format!("istio-ca-{}", side.role);
    let role = match side.role {
        "bootstrap" => json!({
            "bound_service_account_names": side.service_account,
            "bound_service_account_namespaces": NAMESPACE,
            "audience": "vault",
            "policies": policy,
            "ttl": "1h",
        }),
        _ => json!({
            "role_type": "jwt",
            "bound_audiences": "vault",
            "bound_subject": format!("system:serviceaccount:{NAMESPACE}:{}", side.service_account),
            "user_claim": "sub",
            "policies": policy,
            "ttl": "1h",
        }),
    };
    vault.role(side.auth_mount, &format!("istio-ca-{}", side.role), role).await
}

/// The policy file that is shipped for a role.
pub fn shipped_policy(role: &str) -> Result<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/vault/istio-ca-{role}.hcl"));
    Ok(std::fs::read_to_string(file)?)
}

fn deploy(side: &str) -> String {
    format!("{}/deploy/{side}", env!("CARGO_MANIFEST_DIR"))
}

fn deployment(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "containers": [{ "name": "c", "image": "registry.example/istio" }],
                    "volumes": [{ "name": "cacerts", "secret": { "secretName": "cacerts", "optional": true } }],
                },
            },
        },
    })
}
