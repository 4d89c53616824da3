//! A JSON API on 127.0.0.1, reached with trust in one CA only.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, Method, Response};
use serde_json::Value;

/// Above the longest wait of any request of the tests; a server that is stopped or hangs is noticed.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Api {
    url: String,
    client: Client,
}

impl Api {
    pub(crate) fn new(url: String, ca_pem: &str) -> Result<Self> {
        let client = Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(ca_pem.as_bytes())?)
            .no_proxy()
            // A connection that is kept would break in the first request after a restart of the server.
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { url, client })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The status and body of the answer: JSON, a string if it is not JSON, or null if it is empty.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string());
        let response = self.raw(method, path, token, &[(CONTENT_TYPE.as_str(), content_type)], body).await?;
        let status = response.status().as_u16();
        let text = response.text().await.with_context(|| format!("{}/{path}", self.url))?;
        let value = match text.as_str() {
            "" => Value::Null,
            json => serde_json::from_str(json).unwrap_or(Value::String(text)),
        };
        Ok((status, value))
    }

    /// The answer with its headers, as soon as it begins.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Response> {
        let url = format!("{}/{}", self.url, path.trim_start_matches('/'));
        let mut request = self.client.request(Method::from_bytes(method.as_bytes())?, &url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        Ok(request.send().await?)
    }
}
