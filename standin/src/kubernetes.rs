//! A Kubernetes API server in memory, with the controllers that make pods.
//!
//! In reading order: `resources` has all that is served in one table; `store` keeps the objects and what happened to
//! them; `route` tells what a request asks for, `tokens` and `rbac` who asks and whether he may; `read`, `watch` and
//! `write` do it, with `kinds`, `defaults`, `validate`, `patch` and `managed` for what becomes of an object;
//! `admission` asks the webhooks. `server` puts it all together.

mod admission;
mod body;
mod controllers;
mod defaults;
mod discovery;
mod fields;
mod kinds;
mod managed;
mod namespaces;
mod object;
mod options;
mod patch;
mod rbac;
mod read;
mod refusal;
mod resources;
mod reviews;
mod roles;
mod route;
mod schema;
mod selectors;
mod server;
mod store;
mod strategic;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod validate;
mod watch;
mod write;

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use testbed::{KubernetesApi, KubernetesIdentity, token_signing_key};
use tokio::task::JoinHandle;

use self::refusal::Refusal;
use self::server::Core;
use self::tokens::{Account, Tokens};
use crate::faults::Faults;
use crate::journal::Journal;
use crate::scripted::Embedded;
use crate::wire::{Server, random_hex};

/// Controllers' tokens are for as long as any cluster of this crate lives.
const CONTROLLER_TOKEN_SECONDS: i64 = 30 * 24 * 3600;

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    api: KubernetesApi,
    server: Server,
    core: Arc<Core>,
    controllers: JoinHandle<()>,
}

impl Kubernetes {
    /// Starts an empty one on a free port.
    pub async fn start(name: &str) -> Result<Self> {
        let (token_key, token_public_key_pem) = token_signing_key()?;
        let issuer = format!("https://kubernetes.{name}.sandbox");
        let tokens = Arc::new(Tokens::new(&issuer, &token_key, &token_public_key_pem)?);
        let admin_token = random_hex(16)?;
        let core = Arc::new(Core::new(Arc::clone(&tokens), admin_token.clone()));
        let server = Server::start(&format!("the sandbox's cluster {name}"), Arc::clone(&core)).await?;
        core.state.furnish(server.ca_pem());
        let api = KubernetesApi::new(KubernetesIdentity {
            name: name.to_owned(),
            url: server.url().to_owned(),
            ca_pem: server.ca_pem().to_owned(),
            admin_token,
            issuer,
            token_public_key_pem,
        })?;
        let token = move |name: &str| {
            let account = Account { namespace: "kube-system".into(), name: name.to_owned(), uid: String::new() };
            let audiences = [tokens.issuer().to_owned()];
            let (now, id) = (now().as_second(), uid().unwrap_or_default());
            tokens.issue(&account, &audiences, now, CONTROLLER_TOKEN_SECONDS, &id).unwrap_or_default()
        };
        let controllers = tokio::spawn(controllers::run(api.clone(), token));
        Ok(Self { api, server, core, controllers })
    }

    /// Itself, to be put behind a script. Its controllers end with this one.
    pub fn embedded(&self) -> Result<Embedded> {
        let authorization = format!("Bearer {}", self.api.admin_token()).parse()?;
        Ok(Embedded::new(Arc::clone(&self.core)).with_authorization(authorization))
    }

    /// What goes wrong with it, and with the network before it.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// What it was asked and did.
    pub fn journal(&self) -> &Journal {
        self.server.journal()
    }

    /// Forgets the past: watches and lists that would go on from there are told so (410 Gone).
    pub fn compact(&self) {
        self.core.state.write(store::Store::compact);
    }
}

impl Deref for Kubernetes {
    type Target = KubernetesApi;

    fn deref(&self) -> &KubernetesApi {
        &self.api
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.controllers.abort();
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// A time as Kubernetes writes it.
fn seconds(since_1970: i64) -> String {
    let time = Timestamp::from_second(since_1970).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A UUID, version 4.
fn uid() -> Result<String, Refusal> {
    let hex = random_hex(16).map_err(Refusal::internal)?;
    let part = |range| hex.get(range).unwrap_or_default();
    Ok(format!("{}-{}-4{}-a{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32)))
}
