//! What stands between a gate and Vault, and passes on what is asked.

use anyhow::Result;
use reqwest::{Certificate, Client, Method};
use standin::scripted::{Answer, Request};
use testbed::Vault;

/// The way to a Vault.
pub struct Onward {
    client: Client,
    address: String,
}

impl Onward {
    pub fn to(vault: &Vault) -> Result<Self> {
        let client = Client::builder().tls_certs_only([Certificate::from_pem(vault.ca_pem().as_bytes())?]);
        Ok(Self { client: client.no_proxy().build()?, address: vault.address().to_owned() })
    }

    /// Vault's answer, with its status.
    pub async fn forward(&self, request: &Request) -> (u16, Answer) {
        match self.ask(request).await {
            Ok(answer) => answer,
            Err(error) => (502, Answer::new(502, "text/plain", format!("{error:#}"))),
        }
    }

    async fn ask(&self, request: &Request) -> Result<(u16, Answer)> {
        let url = format!("{}{}", self.address, request.target);
        let mut onward = self.client.request(Method::from_bytes(request.method.as_bytes())?, url);
        onward = onward.body(request.body.clone());
        for name in ["x-vault-token", "x-vault-request", "content-type"] {
            if let Some(value) = request.header(name) {
                onward = onward.header(name, value);
            }
        }
        let answer = onward.send().await?;
        let status = answer.status().as_u16();
        Ok((status, Answer::new(status, "application/json", answer.bytes().await?.to_vec())))
    }
}
