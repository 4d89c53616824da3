//! Questions that a person asks of Vault, each at one address: what the convergence never needs to know.
//! They write nothing, and what a login gives is given back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustify::Endpoint;
use serde::Deserialize;
use serde_json::json;
use vaultrs::api::kv2::requests::ReadSecretRequest;

use super::claims::{Claims, claims};
use super::login::{self, Credentials, Token};
use super::transport::Reply;
use super::{Plain, Refused, Vault, answer, own_token};
use gate_core::plan::Stored;
use gate_core::reason::{ByItself, Held, Reason, foreign_text};

/// Why an address did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// No connection came about, or no TLS on it.
    pub connecting: bool,
    /// In words.
    pub what: String,
}

/// Whether there is an auth method to log in at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMount {
    /// It wants to know which role: there is one.
    AsksForRole,
    /// It answers otherwise than kubernetes and jwt do, in these words.
    Other(String),
    /// There is none, as far as Vault lets on.
    Missing,
}

/// What the engine's configuration or the record's own says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Keeping {
    /// Versions are deleted by themselves after so long; `0s` is never.
    #[serde(default)]
    pub delete_version_after: String,
    /// So many versions are kept; 0 is the default of 10.
    #[serde(default)]
    pub max_versions: u64,
}

/// A record, and when Vault deletes it by itself.
#[derive(Clone, Debug)]
pub struct Record {
    /// What is there.
    pub stored: Stored,
    /// When this version goes by itself.
    pub deleted_at: Option<Timestamp>,
}

/// A token and the address that it is used at.
pub struct Inquiry<'a> {
    vault: &'a Vault,
    at: usize,
    token: Token,
    /// What the login gave: policies and lease in seconds. `None` with `VAULT_TOKEN`.
    pub granted: Option<Granted>,
}

/// What a login gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Names of the token's policies.
    pub policies: Vec<String>,
    /// Seconds.
    pub lease: u64,
}

impl Vault {
    /// Asks whether there is an auth method at the configured mount, by a login without role and token.
    ///
    /// # Errors
    /// If the address does not answer.
    pub async fn auth_mount(&self, at: usize) -> Result<AuthMount, Refused> {
        let path = format!("auth/{}/login", self.settings.auth_mount);
        let reply = self.transports[at].call(Plain::post(path, json!({})), &self.middleware(None)).await;
        let reply = self.told(at, reply)?;
        let said = answer::errors(&reply).unwrap_or_default().join("; ");
        Ok(match (reply.status, said.as_str()) {
            // The second: a jwt method with a default role.
            (400, "missing role" | "missing token") => AuthMount::AsksForRole,
            (403 | 404, _) => AuthMount::Missing,
            (status, said) => AuthMount::Other(foreign_text(format!("status {status} {said}").trim_end())),
        })
    }

    /// What the service-account token says of itself.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn claims(&self) -> Result<Claims, Held> {
        let credentials = Credentials::read(&self.settings)?;
        claims(credentials.jwt()).ok_or_else(|| {
            Held::new(
                Reason::VaultLoginDenied,
                "the service-account token is not a JWT",
                "mount one with audience vault, or set --vault-jwt-file",
                ByItself::Unsaid,
            )
        })
    }

    /// Logs in at an address, unless `VAULT_TOKEN` is set.
    ///
    /// # Errors
    /// As Vault refuses it, or does not answer.
    pub async fn inquire(&self, at: usize) -> Result<Inquiry<'_>, Refused> {
        if let Some(token) = self.settings.token.clone() {
            return Ok(Inquiry { vault: self, at, token, granted: None });
        }
        let credentials = Credentials::read(&self.settings)?;
        let reply = self.transports[at].call(credentials.request()?, &self.middleware(None)).await;
        let reply = self.told(at, reply)?;
        let session = login::session(&reply, &self.settings)?;
        let granted = Granted { policies: login::policies(&reply), lease: session.lease().as_secs() };
        Ok(Inquiry { vault: self, at, token: session.token_now(), granted: Some(granted) })
    }
}

impl Inquiry<'_> {
    /// Reads the record.
    ///
    /// # Errors
    /// Whenever it cannot be told what Vault holds.
    pub async fn record(&self, now: Timestamp) -> Result<Record, Refused> {
        let settings = &self.vault.settings;
        let request = ReadSecretRequest::builder().mount(settings.mount.as_str()).path(settings.path.as_str()).build();
        let reply = match request {
            Ok(request) => self.ask(request).await?,
            Err(error) => return Err(answer::unreachable(self.address(), &foreign_text(&error.to_string())).into()),
        };
        let deleted_at = answer::times(&reply).deleted_at;
        let stored = match answer::read(&reply, settings, now)? {
            answer::Read::Stored(stored) => stored,
            answer::Read::NeverWritten => {
                self.is_version_2().await?;
                Stored::Absent
            }
        };
        Ok(Record { stored, deleted_at })
    }

    /// Holds unless the mount is positively KV version 2.
    ///
    /// # Errors
    /// What it is instead, or why that is not told.
    pub async fn is_version_2(&self) -> Result<(), Refused> {
        let reply = self.ask(Plain::get(format!("sys/internal/ui/mounts/{}", self.vault.settings.mount))).await?;
        answer::preflight(&reply, &self.vault.settings)
    }

    /// How the engine keeps versions. `None`: the token may not know.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn engine_keeping(&self) -> Result<Option<Keeping>, Refused> {
        self.keeping(format!("{}/config", self.vault.settings.mount)).await
    }

    /// How the record's versions are kept. `None`: the token may not know, or there is none.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn record_keeping(&self) -> Result<Option<Keeping>, Refused> {
        let settings = &self.vault.settings;
        self.keeping(format!("{}/metadata/{}", settings.mount, settings.path)).await
    }

    async fn keeping(&self, path: String) -> Result<Option<Keeping>, Refused> {
        #[derive(Deserialize)]
        struct Body {
            data: Keeping,
        }
        let reply = self.ask(Plain::get(path)).await?;
        let body = serde_json::from_slice::<Body>(&reply.body).ok().filter(|_| reply.status == 200);
        Ok(body.map(|body| body.data))
    }

    /// What the token may do at these paths. `None`: it may not even ask that.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn capabilities(&self, paths: &[String]) -> Result<Option<BTreeMap<String, Vec<String>>>, Refused> {
        let reply = self.ask(Plain::post("sys/capabilities-self", json!({ "paths": paths }))).await?;
        Ok(answer::capabilities(&reply)
            .map(|mut told| paths.iter().filter_map(|path| Some((path.clone(), told.remove(path)?))).collect()))
    }

    /// When the token ends. `None`: it has no end, or may not know it.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn token_end(&self) -> Result<Option<Timestamp>, Refused> {
        Ok(own_token::end(&self.ask(own_token::question()).await?))
    }

    /// Gives up a token that a login gave; that of a user stays.
    ///
    /// # Errors
    /// If Vault does not confirm it.
    pub async fn give_up(self) -> Result<(), Refused> {
        if self.granted.is_none() {
            return Ok(());
        }
        let reply = self.ask(Plain::post("auth/token/revoke-self", json!({}))).await?;
        match reply.status {
            200 | 204 => Ok(()),
            status => {
                Err(answer::unreachable(self.address(), &format!("giving the token up gave status {status}")).into())
            }
        }
    }

    /// Where it asks.
    pub fn address(&self) -> &str {
        self.vault.transports[self.at].address()
    }

    async fn ask<E: Endpoint>(&self, endpoint: E) -> Result<Reply, Refused> {
        let reply = self.vault.transports[self.at].call(endpoint, &self.vault.middleware(Some(&self.token))).await;
        self.vault.told(self.at, reply)
    }
}
