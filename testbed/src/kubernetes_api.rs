//! A Kubernetes API server as an administrator reaches it over the network: a real one, or one that claims to be.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::Api;

/// An API server, and all rights in it.
#[derive(Clone, Debug)]
pub struct KubernetesApi {
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) api: Api,
    pub(crate) ca_pem: String,
    pub(crate) admin_token: String,
    pub(crate) token_public_key_pem: String,
}

/// What has to be known of an API server beforehand.
#[derive(Clone, Debug)]
pub struct KubernetesIdentity {
    /// The cluster's name.
    pub name: String,
    /// `https://127.0.0.1:<port>`
    pub url: String,
    /// The CA of its certificate.
    pub ca_pem: String,
    /// A bearer token with all rights.
    pub admin_token: String,
    /// The issuer of its service-account tokens.
    pub issuer: String,
    /// The public key of its service-account tokens.
    pub token_public_key_pem: String,
}

impl KubernetesApi {
    /// The API server of this identity.
    pub fn new(identity: KubernetesIdentity) -> Result<Self> {
        let KubernetesIdentity { name, url, ca_pem, admin_token, issuer, token_public_key_pem } = identity;
        Ok(Self { api: Api::new(url, &ca_pem)?, name, issuer, ca_pem, admin_token, token_public_key_pem })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the API server.
    pub fn url(&self) -> &str {
        self.api.url()
    }

    /// The CA of the API server's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A bearer token with all rights.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The issuer of the service-account tokens, different in each cluster.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key of the service-account tokens.
    pub fn service_account_public_key_pem(&self) -> &str {
        &self.token_public_key_pem
    }

    /// A kubeconfig, in JSON, which every reader of YAML reads, for the owner of a bearer token. Its context is named
    /// like the cluster.
    pub fn kubeconfig(&self, user: &str, token: &str) -> String {
        let Self { name, ca_pem, .. } = self;
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": name, "cluster": {
                "server": self.url(),
                "certificate-authority-data": STANDARD.encode(ca_pem),
            } }],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": user } }],
            "current-context": name,
        })
        .to_string()
    }

    /// Sends one API request with all rights. The body of a `PATCH` is a JSON merge patch.
    pub async fn request(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        self.request_with(Some(&self.admin_token), method, path, body).await
    }

    /// Sends one API request with another bearer token, or none.
    pub async fn request_with(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        self.api.send(method, path, token, body).await
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
        self.api.raw(method, path, token, headers, body).await
    }

    /// Requests a token for a service account (TokenRequest; at least 600 seconds).
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        seconds: u64,
    ) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": audiences, "expirationSeconds": seconds },
        });
        let (status, answer) = self.request("POST", &path, Some(body)).await?;
        ensure!(status == 201, "POST {path}: {status}: {answer}");
        Ok(answer["status"]["token"].as_str().context("an answer without token")?.to_owned())
    }
}
