//! A Vault in memory.

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use testbed::VaultApi;

use crate::faults::{Fault, Faults};
use crate::wire::{self, Answer, Request, Server, Service, random_hex};

/// A running Vault: initialised, unsealed, with KV version 2 at `secret/`.
#[derive(Debug)]
pub struct Vault {
    api: VaultApi,
    server: Server,
}

impl Vault {
    /// Starts an empty one on a free port.
    pub async fn start() -> Result<Self> {
        let (root_token, unseal_key) = (format!("hvs.{}", random_hex(12)?), random_hex(32)?);
        let server = Server::start("the sandbox's Vault", Arc::new(Core)).await?;
        let api = VaultApi::new(server.url().to_owned(), server.ca_pem())?.initialised(&unseal_key, &root_token);
        Ok(Self { api, server })
    }

    /// What goes wrong with it, and with the network before it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }
}

impl Deref for Vault {
    type Target = VaultApi;

    fn deref(&self) -> &VaultApi {
        &self.api
    }
}

struct Core;

impl Service for Core {
    async fn answer(&self, _request: Request) -> Answer {
        wire::json(404, &json!({ "errors": [] }))
    }

    fn pretend(&self, _request: &Request, _fault: Fault) -> Answer {
        wire::json(503, &json!({ "errors": ["Vault is sealed"] }))
    }
}
