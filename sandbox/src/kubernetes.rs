//! A Kubernetes API server in memory, with the controllers that make pods.

mod admission;
mod controllers;

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use testbed::{KubernetesApi, KubernetesIdentity, token_signing_key};

use crate::faults::{Fault, Faults};
use crate::wire::{self, Answer, Request, Server, Service, random_hex};

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    api: KubernetesApi,
    server: Server,
}

impl Kubernetes {
    /// Starts an empty one on a free port.
    pub async fn start(name: &str) -> Result<Self> {
        let (_token_key, token_public_key_pem) = token_signing_key()?;
        let server = Server::start(&format!("the sandbox's cluster {name}"), Arc::new(Core)).await?;
        let api = KubernetesApi::new(KubernetesIdentity {
            name: name.to_owned(),
            url: server.url().to_owned(),
            ca_pem: server.ca_pem().to_owned(),
            admin_token: random_hex(16)?,
            issuer: format!("https://kubernetes.{name}.sandbox"),
            token_public_key_pem,
        })?;
        Ok(Self { api, server })
    }

    /// What goes wrong with it, and with the network before it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }
}

impl Deref for Kubernetes {
    type Target = KubernetesApi;

    fn deref(&self) -> &KubernetesApi {
        &self.api
    }
}

struct Core;

impl Service for Core {
    async fn answer(&self, _request: Request) -> Answer {
        wire::text(200, "text/plain", "ok")
    }

    fn pretend(&self, _request: &Request, _fault: Fault) -> Answer {
        wire::json(403, &json!({}))
    }
}
