//! One cluster of the two: how it is set up for its gate and made known to Vault, and what its user does and sees.
//! By its API server alone, so that it does not matter whether that is a real one.

mod node;

use std::time::Duration;

use crate::{KubernetesApi, VaultApi, eventually};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Where Istio, `cacerts` and the gate are.
pub const NAMESPACE: &str = "istio-system";

/// Longest wait for what takes a controller or the gate a moment.
pub const SOON: Duration = Duration::from_secs(30);

/// The path of the webhook configuration for `/validate`.
pub const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-ca-gate";

/// The path of the one for `/mutate`, where there is one.
pub const MUTATING_WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-ca-gate";

const RBAC: &str = include_str!("../../deploy/kustomize/base/rbac.yaml");
const WEBHOOK: &str = include_str!("../../deploy/kustomize/base/webhook.yaml");
const MUTATING_WEBHOOK: &str = include_str!("../../deploy/kustomize/base/mutating.yaml");
const BOOTSTRAP_POLICY: &str = include_str!("../../deploy/vault/istio-ca-bootstrap.hcl");
const SYNC_POLICY: &str = include_str!("../../deploy/vault/istio-ca-sync.hcl");

/// The gate's service account.
const ACCOUNT: &str = "istio-ca-gate";

/// A cluster, and what its gate is to Vault.
#[derive(Clone, Debug)]
pub struct Side {
    /// The cluster's name.
    pub name: &'static str,
    /// The gate's role.
    pub role: &'static str,
    /// The gate's service account.
    pub service_account: &'static str,
    /// Where the gate logs in to Vault.
    pub auth_mount: &'static str,
    /// The cluster's API server.
    pub api: KubernetesApi,
}

/// How the gate's service accounts log in to Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Vault asks the cluster's API server to review each token.
    TokenReview,
    /// Vault checks each token's signature with the cluster's public key, and never asks the cluster.
    Signature,
}

impl Side {
    /// The cluster that makes the root.
    pub fn homelab(api: KubernetesApi) -> Self {
        Self { name: "homelab", role: "bootstrap", service_account: ACCOUNT, auth_mount: "kubernetes", api }
    }

    /// The cluster that copies it.
    pub fn nas(api: KubernetesApi) -> Self {
        Self { name: "nas", role: "sync", service_account: ACCOUNT, auth_mount: "kubernetes-nas", api }
    }

    /// Applies what the gate needs of deploy/: namespace, service account, rights and webhook configurations.
    pub async fn install(&self) -> Result<()> {
        self.make(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })).await?;
        let account = json!({ "name": self.service_account, "namespace": NAMESPACE });
        self.make(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": account })).await?;
        let manifests = [manifests(RBAC)?, manifests(WEBHOOK)?, manifests(MUTATING_WEBHOOK)?];
        for object in manifests.into_iter().flatten() {
            self.make(&object).await?;
        }
        Ok(())
    }

    /// Creates an object of a kind that tests and tour use.
    async fn make(&self, object: &Value) -> Result<()> {
        let plural = match object["kind"].as_str().context("no kind")? {
            "Namespace" => "namespaces",
            "ServiceAccount" => "serviceaccounts",
            "ConfigMap" => "configmaps",
            "Role" => "roles",
            "RoleBinding" => "rolebindings",
            "ClusterRole" => "clusterroles",
            "ClusterRoleBinding" => "clusterrolebindings",
            "ValidatingWebhookConfiguration" => "validatingwebhookconfigurations",
            "MutatingWebhookConfiguration" => "mutatingwebhookconfigurations",
            "Deployment" => "deployments",
            kind => bail!("no path is known for a {kind}"),
        };
        let version = object["apiVersion"].as_str().context("no apiVersion")?;
        let api = if version.contains('/') { "apis" } else { "api" };
        let path = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("/{api}/{version}/namespaces/{namespace}/{plural}"),
            None => format!("/{api}/{version}/{plural}"),
        };
        let (status, answer) = self.api.request("POST", &path, Some(object.clone())).await?;
        ensure!(status == 201, "POST {path} in {}: {status}: {answer}", self.name);
        Ok(())
    }

    /// Sends the API server's calls to these ports of this machine in place of the Service: each of the manifest's
    /// webhooks to the first, and a copy of the first webhook to each further one.
    pub async fn point_webhooks_at(&self, ports: &[u16]) -> Result<()> {
        self.point_mutating_webhooks_at(ports).await?;
        let mut configuration = self.object(WEBHOOKS).await?.context("no webhook configuration")?;
        let webhooks = configuration["webhooks"].as_array_mut().context("no webhooks")?;
        let url = |port: &u16| json!({ "url": format!("https://127.0.0.1:{port}/validate") });
        webhooks.iter_mut().for_each(|webhook| webhook["clientConfig"] = url(&ports[0]));
        for (index, port) in ports.iter().enumerate().skip(1) {
            let mut webhook = webhooks[0].clone();
            webhook["name"] = json!(format!("app{index}.istio-ca-gate.io"));
            webhook["clientConfig"] = url(port);
            webhooks.push(webhook);
        }
        let (status, answer) = self.api.request("PUT", WEBHOOKS, Some(configuration)).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// Mutating webhooks are asked one after another, and the first refusal ends it. So where more than one port has to
    /// be asked they are taken away.
    async fn point_mutating_webhooks_at(&self, ports: &[u16]) -> Result<()> {
        let Some(mut configuration) = self.object(MUTATING_WEBHOOKS).await? else { return Ok(()) };
        let (method, body) = if let [port] = ports {
            let url = json!({ "url": format!("https://127.0.0.1:{port}/mutate") });
            let webhooks = configuration["webhooks"].as_array_mut().context("no webhooks")?;
            webhooks.iter_mut().for_each(|webhook| webhook["clientConfig"] = url.clone());
            ("PUT", Some(configuration))
        } else {
            ("DELETE", None)
        };
        let (status, answer) = self.api.request(method, MUTATING_WEBHOOKS, body).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// Waits until every webhook has a `caBundle`.
    pub async fn is_injected(&self) -> Result<()> {
        eventually("caBundle to be injected", SOON, || async {
            let validating = self.object(WEBHOOKS).await?.context("no webhook configuration")?;
            for configuration in [Some(validating), self.object(MUTATING_WEBHOOKS).await?].iter().flatten() {
                let webhooks = configuration["webhooks"].as_array().context("no webhooks")?;
                ensure!(webhooks.iter().all(|webhook| webhook["clientConfig"]["caBundle"].is_string()), "not in all");
            }
            Ok(())
        })
        .await
    }

    /// Makes the cluster known to Vault: its policy, its auth mount, its role.
    pub async fn introduce_to(&self, vault: &VaultApi, login: Login) -> Result<()> {
        vault.policy(&self.policy(), shipped_policy(self.role)).await?;
        match login {
            Login::TokenReview => {
                let reviewer = self.reviewer().await?;
                vault.kubernetes_auth(self.auth_mount, &self.api, &reviewer).await?;
            }
            Login::Signature => vault.jwt_auth(self.auth_mount, &self.api).await?,
        }
        self.grant(vault, login).await
    }

    /// Writes the role that the gate and the Job log in as.
    pub async fn grant(&self, vault: &VaultApi, login: Login) -> Result<()> {
        let accounts = [self.service_account, &self.job_account()];
        let role = match login {
            Login::TokenReview => json!({
                "bound_service_account_names": accounts,
                "bound_service_account_namespaces": NAMESPACE,
                "audience": "vault",
                "token_policies": self.policy(),
                "token_ttl": "1h",
            }),
            Login::Signature => json!({
                "role_type": "jwt",
                "bound_audiences": "vault",
                "bound_claims": { "sub": accounts.map(|name| format!("system:serviceaccount:{NAMESPACE}:{name}")) },
                "user_claim": "sub",
                "token_policies": self.policy(),
                "token_ttl": "1h",
            }),
        };
        vault.role(self.auth_mount, &self.policy(), role).await
    }

    /// The Job's service account, which it had before there was a gate.
    pub fn job_account(&self) -> String {
        self.policy()
    }

    /// The name of policy and role in Vault.
    pub fn policy(&self) -> String {
        format!("istio-ca-{}", self.role)
    }

    /// A token with which Vault may ask the API server to review others.
    async fn reviewer(&self) -> Result<String> {
        let account = json!({ "name": "vault-reviewer", "namespace": "default" });
        self.make(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": account })).await?;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "vault-reviewer" },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator" },
            "subjects": [{ "kind": "ServiceAccount", "name": "vault-reviewer", "namespace": "default" }],
        });
        self.make(&binding).await?;
        self.api.service_account_token("default", "vault-reviewer", &[self.api.issuer()], DAY).await
    }

    /// A token of the gate's own service account.
    pub async fn gate_token(&self, audience: &str) -> Result<String> {
        self.api.service_account_token(NAMESPACE, self.service_account, &[audience], DAY).await
    }

    /// Applies a Deployment of one pod with these labels.
    pub async fn deploy(&self, name: &str, labels: Value) -> Result<()> {
        self.make(&deployment(name, &labels)).await
    }

    /// Applies istiod as its chart labels it.
    pub async fn deploy_istiod(&self) -> Result<()> {
        self.deploy("istiod", json!({ "app": "istiod", "istio": "pilot" })).await
    }

    /// Applies the east-west gateway as its chart labels it.
    pub async fn deploy_gateway(&self) -> Result<()> {
        let labels = json!({ "app": "istio-eastwestgateway", "istio": "eastwestgateway" });
        self.deploy("istio-eastwestgateway", labels).await
    }

    /// Names of the pods of a Deployment.
    pub async fn pods(&self, deployment: &str) -> Result<Vec<String>> {
        let pods = self.list("pods").await?;
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

    /// Makes the controllers ask for a new pod now.
    pub async fn restart(&self, deployment: &str) -> Result<()> {
        for pod in self.pods(deployment).await? {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}");
            let now = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
            let (status, answer) = self.api.request("DELETE", &path, Some(now)).await?;
            ensure!(status == 200, "{status}: {answer}");
        }
        Ok(())
    }

    /// The events that tell of refused pods of a Deployment.
    async fn refused_events(&self, deployment: &str) -> Result<Vec<Value>> {
        let prefix = format!("{deployment}-");
        let of = |event: &Value| {
            event["reason"] == "FailedCreate"
                && event["involvedObject"]["kind"] == "ReplicaSet"
                && event["involvedObject"]["name"].as_str().is_some_and(|name| name.starts_with(&prefix))
        };
        Ok(self.list("events").await?.into_iter().filter(of).collect())
    }

    /// What users see of refused pods of a Deployment: the messages of its ReplicaSets' events.
    pub async fn refusals(&self, deployment: &str) -> Result<Vec<String>> {
        let events = self.refused_events(deployment).await?;
        Ok(events.iter().filter_map(|event| event["message"].as_str()).map(str::to_owned).collect())
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
        let count = |event: &Value| event["count"].as_u64().or(event["series"]["count"].as_u64());
        Ok(self.refused_events(deployment).await?.iter().filter_map(count).sum())
    }

    async fn list(&self, plural: &str) -> Result<Vec<Value>> {
        let (status, mut answer) =
            self.api.request("GET", &format!("/api/v1/namespaces/{NAMESPACE}/{plural}"), None).await?;
        ensure!(status == 200, "{answer}");
        Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// The path of `cacerts`.
    pub fn cacerts_path() -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/secrets/cacerts")
    }

    /// `cacerts`, if it is there.
    pub async fn cacerts(&self) -> Result<Option<Value>> {
        self.object(&Self::cacerts_path()).await
    }

    /// Deletes `cacerts`.
    pub async fn delete_cacerts(&self) -> Result<()> {
        let (status, answer) = self.api.request("DELETE", &Self::cacerts_path(), None).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// The pin, if it is there.
    pub async fn pin(&self) -> Result<Option<Value>> {
        self.object(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-gate")).await
    }

    /// The object at a path, if it is there.
    pub async fn object(&self, path: &str) -> Result<Option<Value>> {
        let (status, answer) = self.api.request("GET", path, None).await?;
        match status {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            status => bail!("{path}: {status}: {answer}"),
        }
    }
}

/// The policy file that is shipped for a role.
pub fn shipped_policy(role: &str) -> &'static str {
    if role == "bootstrap" { BOOTSTRAP_POLICY } else { SYNC_POLICY }
}

/// Longer than any world is looked at: its tokens are not renewed.
const DAY: u64 = 24 * 3600;

fn manifests(yaml: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(yaml).context("a manifest of deploy/ cannot be read")
}

fn deployment(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": NAMESPACE },
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
