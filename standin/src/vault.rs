//! A Vault in memory: KV version 1 and 2, PKI, policies, tokens, the auth methods `kubernetes` and `jwt`, and the seal, with
//! the statuses, bodies and texts of Vault 1.21.
//!
//! `state` is a function of a request and a moment; here it gets its lock, its clock and its randomness.

mod acl;
mod asked;
mod claims;
mod fields;
mod jwt;
mod kubernetes;
mod kv;
mod limits;
mod method;
mod moment;
mod mounts;
mod pki;
mod plain;
mod policies;
mod pretend;
mod reply;
mod review;
mod roles;
mod seal;
mod state;
mod sys;
mod tokens;

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use testbed::VaultApi;

use crate::faults::{Fault, Faults};
use crate::journal::Journal;
use crate::scripted::Embedded;
use crate::wire::{self, Answer, Request, Server, Service, random_hex};
use moment::Moment;
use reply::{Refusal, Reply};
use state::{State, Step};

/// A running Vault: initialised, unsealed, with KV version 2 at `secret/`.
#[derive(Debug)]
pub struct Vault {
    api: VaultApi,
    core: Arc<Core>,
    server: Server,
}

impl Vault {
    /// Starts an empty one on a free port.
    pub async fn start() -> Result<Self> {
        Self::start_as(&moment()?.uuid()).await
    }

    /// The same with this cluster id, by which clients tell one Vault from another.
    pub async fn start_as(cluster_id: &str) -> Result<Self> {
        let (root_token, unseal_key) = (format!("hvs.{}", random_hex(12)?), random_hex(32)?);
        let state = State::new(&moment()?, cluster_id, &root_token, &unseal_key);
        let core = Arc::new(Core(Mutex::new(state)));
        let server = Server::start("the sandbox's Vault", Arc::clone(&core)).await?;
        let api = VaultApi::new(server.url().to_owned(), server.ca_pem())?.initialised(&unseal_key, &root_token);
        Ok(Self { api, core, server })
    }

    /// Itself, to be put behind a script.
    pub fn embedded(&self) -> Embedded {
        Embedded::new(Arc::clone(&self.core))
    }

    /// What goes wrong with it, and with the network before it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// What it was asked and did.
    pub fn journal(&self) -> &Journal {
        self.server.journal()
    }
}

impl Deref for Vault {
    type Target = VaultApi;

    fn deref(&self) -> &VaultApi {
        &self.api
    }
}

#[derive(Debug)]
struct Core(Mutex<State>);

impl Core {
    /// Never held while anything is awaited.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Core {
    async fn answer(&self, request: Request) -> Answer {
        let Some(path) = request.uri.path().strip_prefix("/v1/") else {
            return wire::text(404, "text/plain; charset=utf-8", "404 page not found\n");
        };
        let Ok(moment) = moment() else { return Reply::from(Refusal::new(500, "internal error")).into_answer() };
        let step = self.state().handle(&moment, &request, path);
        let reply = match step {
            Step::Reply(reply) => reply,
            Step::Review(pending) => {
                let reviewed = pending.review.ask().await;
                self.state().reviewed(*pending, reviewed.as_ref())
            }
            Step::Make(wanted) => {
                let key = tokio::task::spawn_blocking(move || wanted.key()).await;
                match key {
                    Ok((wanted, key)) => self.state().made(*wanted, key),
                    Err(_) => Refusal::new(500, "internal error").into(),
                }
            }
        };
        reply.into_answer()
    }

    fn pretend(&self, request: &Request, fault: Fault) -> Answer {
        pretend::answer(&self.state().seal, Timestamp::now(), request, fault)
    }
}

fn moment() -> Result<Moment> {
    Ok(Moment::new(Timestamp::now(), random_hex(moment::RANDOM_BYTES)?))
}
