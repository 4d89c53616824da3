//! A Vault as an administrator reaches it over the network: a real one, or one that claims to be.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::eventually::eventually;
use crate::kubernetes_api::KubernetesApi;

/// Longest wait for a Vault to be sealed, or to become active: an election on a busy machine.
const TURN: Duration = Duration::from_secs(90);

/// Longest wait for a record that nobody writes meanwhile.
const CHANGED: Duration = Duration::from_secs(60);

/// A Vault with KV version 2 at `secret/`, and all rights in it.
#[derive(Clone, Debug)]
pub struct VaultApi {
    api: Api,
    ca_pem: String,
    unseal_key: String,
    root_token: String,
}

impl VaultApi {
    /// The Vault at this address, of which nothing else is known yet.
    pub fn new(url: String, ca_pem: &str) -> Result<Self> {
        let api = Api::new(url, ca_pem)?;
        Ok(Self { api, ca_pem: ca_pem.to_owned(), unseal_key: String::new(), root_token: String::new() })
    }

    /// The same with what its initialisation told.
    #[must_use]
    pub fn initialised(self, unseal_key: &str, root_token: &str) -> Self {
        Self { unseal_key: unseal_key.to_owned(), root_token: root_token.to_owned(), ..self }
    }

    /// `https://127.0.0.1:<port>`
    pub fn address(&self) -> &str {
        self.api.url()
    }

    /// The CA of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A token with all rights.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The one key that unseals it.
    pub fn unseal_key(&self) -> &str {
        &self.unseal_key
    }

    /// Sends one API request with all rights; the path is that below `/v1/`.
    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let token = Some(self.root_token.as_str()).filter(|token| !token.is_empty());
        self.api_with(token, method, path, body).await
    }

    /// Sends one API request with another token, or none.
    pub async fn api_with(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        self.api.send(method, &format!("v1/{path}"), token, body).await
    }

    /// Sends one API request with these headers, and returns the answer as soon as it begins.
    pub async fn raw(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<reqwest::Response> {
        self.api.raw(method, &format!("v1/{path}"), token, headers, body).await
    }

    /// Sends one API request with all rights, and expects it to be granted.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.api(method, path, body).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        Ok(answer)
    }

    /// Changes a KV version 2 record with check and set; where somebody else writes meanwhile, it is read again.
    pub async fn change(&self, path: &str, change: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
        eventually(path, CHANGED, || async {
            let mut read = self.ok("GET", path, None).await?["data"].take();
            change(&mut read["data"])?;
            let body = json!({ "data": read["data"], "options": { "cas": read["metadata"]["version"] } });
            self.ok("POST", path, Some(body)).await
        })
        .await?;
        Ok(())
    }

    /// Whether `sys/health` answers with this status now.
    pub(crate) async fn answers_health(&self, wanted: u16) -> Result<()> {
        let (status, body) = self.api("GET", "sys/health", None).await?;
        ensure!(status == wanted, "{status}: {body}");
        Ok(())
    }

    /// Seals it.
    pub async fn seal(&self) -> Result<()> {
        self.ok("PUT", "sys/seal", None).await?;
        eventually("a sealed Vault", TURN, || self.answers_health(503)).await
    }

    /// Unseals it, and waits until it is active.
    pub async fn unseal(&self) -> Result<()> {
        self.ok("PUT", "sys/unseal", Some(json!({ "key": self.unseal_key }))).await?;
        eventually("an active Vault", TURN, || self.answers_health(200)).await
    }

    /// Writes a policy.
    pub async fn policy(&self, name: &str, hcl: &str) -> Result<()> {
        self.ok("PUT", &format!("sys/policies/acl/{name}"), Some(json!({ "policy": hcl }))).await?;
        Ok(())
    }

    /// Enables an auth method of kind `kubernetes` for the service accounts of a cluster, whose API server is asked to
    /// review each token with `reviewer_jwt`.
    pub async fn kubernetes_auth(&self, mount_path: &str, cluster: &KubernetesApi, reviewer_jwt: &str) -> Result<()> {
        let config = json!({
            "kubernetes_host": cluster.url(),
            "kubernetes_ca_cert": cluster.ca_pem(),
            "token_reviewer_jwt": reviewer_jwt,
            "disable_local_ca_jwt": true,
        });
        self.auth("kubernetes", mount_path, config).await
    }

    /// Enables an auth method of kind `jwt` for the service accounts of a cluster, whose API server is never asked.
    pub async fn jwt_auth(&self, mount_path: &str, cluster: &KubernetesApi) -> Result<()> {
        let config = json!({
            "jwt_validation_pubkeys": [cluster.service_account_public_key_pem()],
            "bound_issuer": cluster.issuer(),
        });
        self.auth("jwt", mount_path, config).await
    }

    async fn auth(&self, kind: &str, mount_path: &str, config: Value) -> Result<()> {
        self.ok("POST", &format!("sys/auth/{mount_path}"), Some(json!({ "type": kind }))).await?;
        self.ok("POST", &format!("auth/{mount_path}/config"), Some(config)).await?;
        Ok(())
    }

    /// Writes a role of an auth method.
    pub async fn role(&self, mount_path: &str, role: &str, body: Value) -> Result<()> {
        self.ok("POST", &format!("auth/{mount_path}/role/{role}"), Some(body)).await?;
        Ok(())
    }

    /// The versions that a path of a KV v2 mount has or had, deleted ones included; none if it was never written.
    pub async fn versions(&self, mount: &str, path: &str) -> Result<Vec<u64>> {
        let (status, answer) = self.api("GET", &format!("{mount}/metadata/{path}"), None).await?;
        if status == 404 && answer["errors"].as_array().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        ensure!(status == 200, "versions of {mount}/{path}: {status}: {answer}");
        let versions = answer["data"]["versions"].as_object().context("no versions")?;
        let mut versions = versions.keys().map(|version| version.parse()).collect::<Result<Vec<u64>, _>>()?;
        versions.sort_unstable();
        Ok(versions)
    }
}
