//! Vault, as far as a root CA needs it: log in, read with version metadata, create with `cas=0`, and
//! the two questions that must be answered before a root is made.
//!
//! Every answer that is not plainly the one hoped for becomes a [`Refused`] with its own reason code.
//! In particular nothing but Vault's own "never written", on a mount that is positively KV version 2,
//! is taken for an absent root.

mod addresses;
mod answer;
mod args;
mod ca_file;
mod claims;
mod health;
mod inquiry;
mod life;
mod login;
mod own_token;
mod pki;
mod plain;
mod requests;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod transport;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use url::Url;
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretRequest, SetSecretRequestOptions};

use addresses::is_elsewhere_worth_a_try;
use answer::{Read, Times};
pub use args::VaultArgs;
pub use claims::Claims;
use gate_core::ca::Sha256;
use gate_core::plan::Stored;
use gate_core::reason::Held;
pub use gate_core::refused::Refused;
use gate_core::store::{self, Created, Store};
#[cfg(feature = "samples")]
pub use health::is_one_vault;
pub use health::{Health, LAG_MAX, Node};
pub use inquiry::{AuthMount, Granted, Inquiry, Keeping, Record, Silent};
pub use life::{AttestedOver, Life, Written};
pub use login::Token;
use login::{Credentials, Replacing, Session};
use own_token::OwnToken;
use plain::{Plain, Way};
pub use requests::VaultRequests;
use transport::{NoAnswer, Reply, Transport};

/// Where Vault is, and who this service is to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--vault-addr`, in order.
    pub addresses: Vec<Url>,
    /// `--vault-gone`: those of them whose silence an operator answers for.
    pub gone: Vec<Url>,
    /// `--vault-ca-cert`.
    pub ca_file: Option<PathBuf>,
    /// `--vault-namespace`.
    pub namespace: Option<String>,
    /// `--vault-auth-mount`.
    pub auth_mount: String,
    /// `--vault-role`.
    pub role: String,
    /// `--vault-jwt-file` and its fallbacks: the first that exists.
    pub jwt_files: Vec<PathBuf>,
    /// `VAULT_TOKEN`.
    pub token: Option<Token>,
    /// `--vault-mount`.
    pub mount: String,
    /// `--vault-path`.
    pub path: String,
    /// `--vault-pki-mount`.
    pub pki_mount: Option<String>,
    /// `--vault-timeout`, for each request.
    pub timeout: Duration,
}

impl Settings {
    /// `mount/path`, as the `vault kv` commands spell it.
    pub fn record(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }
}

/// The record, as Vault has it.
pub type Found = store::Found<Place>;

/// Where the record was read.
#[derive(Clone, Debug)]
pub struct Place {
    /// What the node there can know.
    pub node: Node,
    /// Which Vault it is, where it tells.
    cluster_id: Option<String>,
    at: usize,
}

/// A client of one Vault at one or more addresses.
pub struct Vault {
    settings: Settings,
    transports: Vec<Transport>,
    /// The CA file's bytes that the transports trust: it may be replaced on disk.
    ca: Option<Vec<u8>>,
    /// Those that did not answer when last looked at: they are not waited for again.
    silent: Vec<bool>,
    /// The Vault that has last agreed with what this cluster trusts.
    agreed: Option<String>,
    /// Where the record was last read: signers are certified by the same Vault.
    read_at: Option<usize>,
    session: Option<Session>,
    own_token: OwnToken,
    replacing: Replacing,
    /// Why the CA file was not taken up when it was looked at last.
    ca_failed: Option<String>,
    /// Where requests are counted, if anywhere.
    counted: Option<VaultRequests>,
}

impl Vault {
    /// A client that has not spoken to Vault yet.
    ///
    /// # Errors
    /// In words, if the CA file cannot be read or used.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let mut vault = Self {
            settings,
            transports: Vec::new(),
            ca: None,
            silent: Vec::new(),
            agreed: None,
            read_at: None,
            session: None,
            own_token: OwnToken::default(),
            replacing: Replacing::default(),
            ca_failed: None,
            counted: None,
        };
        vault.load_ca()?;
        Ok(vault)
    }

    /// The same, whose requests are counted.
    #[must_use]
    pub fn counted_by(mut self, counted: VaultRequests) -> Self {
        self.counted = Some(counted);
        self.count();
        self
    }

    fn count(&mut self) {
        for transport in &mut self.transports {
            transport.counted.clone_from(&self.counted);
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads the record where the active node is, or what stands for it.
    ///
    /// # Errors
    /// Whenever it cannot be told what Vault holds.
    pub async fn read(&mut self, now: Timestamp) -> Result<Found, Refused> {
        self.read_whole(now).await.map(|(found, _)| found)
    }

    /// The same, and the very answer that it was told by.
    async fn read_whole(&mut self, now: Timestamp) -> Result<(Found, Reply), Refused> {
        let mut silent = Vec::new();
        let looked = self.look().await;
        // It may be the Vault that knows better.
        let away = looked.iter().find(|(at, looked)| looked.is_err() && !self.is_gone(*at));
        let away = away.and_then(|(_, looked)| looked.as_ref().err()).map(|refused| refused.held.clone());
        for (at, looked) in looked {
            let told = match looked {
                Ok(health) => self.ask(at).await.map(|reply| (reply, health)),
                Err(refused) => Err(refused),
            };
            match told {
                Ok((reply, health)) => {
                    let is_known = self.is_known(&health.cluster_id);
                    let found = self.found(at, &reply, health, now).await;
                    let doubt = silent.first().map(|(_, refused): &(usize, Refused)| &refused.held).or(away.as_ref());
                    return match (found, doubt.filter(|_| !is_known)) {
                        (Err(said), Some(doubt)) if said.contradiction().is_some() => {
                            Err(answer::alone(self.transports[at].address(), doubt).into())
                        }
                        (found, _) => found.map(|found| (found, reply)),
                    };
                }
                Err(refused) if is_elsewhere_worth_a_try(&refused) => silent.push((at, refused)),
                Err(refused) => return Err(refused),
            }
        }
        silent.sort_by_key(|(at, _)| *at);
        Err(answer::none_answered(silent.into_iter().map(|(_, refused)| refused).collect()))
    }

    /// What an answer to the read of the record tells.
    async fn found(&mut self, at: usize, reply: &Reply, health: Health, now: Timestamp) -> Result<Found, Refused> {
        let stored = match answer::read(reply, &self.settings, now)? {
            Read::Stored(stored) => stored,
            Read::NeverWritten => {
                // That nothing is there has been said, whether or not the mount is told of.
                self.preflight(at).await.map_err(|refused| Refused { is_answer: true, ..refused })?;
                Stored::Absent
            }
        };
        let Health { node, ahead, cluster_id, .. } = health;
        let token_end = self.token_end(at).await;
        let address = self.transports[at].address().to_owned();
        let place = Place { node, cluster_id, at };
        let Times { written_at, deleted_at } = answer::times(reply);
        Ok(Found { stored, written_at, deleted_at, token_end, address, ahead, place })
    }

    /// Holds unless the mount is positively KV version 2, the only one with check-and-set.
    async fn preflight(&mut self, at: usize) -> Result<(), Refused> {
        let token = self.session(at).await?;
        let path = format!("sys/internal/ui/mounts/{}", self.settings.mount);
        let reply = self.transports[at].call(Plain::get(path), &self.middleware(Some(&token))).await;
        let reply = self.told(at, reply)?;
        if reply.status == 403 {
            self.replace_refused(at, &reply, false).await;
        }
        answer::preflight(&reply, &self.settings)
    }

    /// Writes the first version of the record, at the address where its absence was read.
    pub async fn create(&mut self, found: &Found, record: Map<String, Value>) -> Created {
        let at = found.place.at;
        let token = match self.session(at).await {
            Ok(token) => token,
            Err(refused) => return Created::Unclear(refused),
        };
        let request = SetSecretRequest::builder()
            .mount(self.settings.mount.as_str())
            .path(self.settings.path.as_str())
            .data(Value::Object(record))
            .options(SetSecretRequestOptions { cas: 0 })
            .build();
        let reply = match request {
            Ok(request) => self.transports[at].call(request, &self.middleware(Some(&token))).await,
            Err(error) => Err(NoAnswer::of(error)),
        };
        let reply = match self.told(at, reply) {
            Ok(reply) => reply,
            Err(refused) => return Created::Unclear(refused),
        };
        let written = answer::written(&reply, &self.settings);
        if let Created::Forbidden(held) = written {
            let held = self.why_forbidden(at, &token).await.unwrap_or(held);
            self.replace_refused(at, &reply, false).await;
            return Created::Forbidden(held);
        }
        written
    }

    /// The cause of a refused write that is not the policy: it has the right, and Vault wants another one for a path
    /// that is there. `None`: it is the policy, or nothing is told of it.
    async fn why_forbidden(&self, at: usize, token: &Token) -> Option<Held> {
        let path = format!("{}/data/{}", self.settings.mount, self.settings.path);
        let question = Plain::post("sys/capabilities-self", json!({ "paths": [path] }));
        let reply = self.transports[at].call(question, &self.middleware(Some(token))).await.ok()?;
        answer::capabilities(&reply)?
            .get(&path)?
            .iter()
            .any(|capability| capability == "create")
            .then(|| answer::metadata_stands(&self.settings))
    }

    /// Replaces a token that Vault refuses: it may have ended, and it keeps the policies of its login. Each login is a
    /// lease in Vault, so the old one is given up, and one that Vault keeps is replaced seldom.
    async fn replace_refused(&mut self, at: usize, reply: &Reply, has_worked: bool) -> bool {
        let Some(token) = self.session.as_ref().map(Session::token_now) else { return false };
        if !self.replacing.is_due(has_worked) {
            return false;
        }
        let given_up = answer::is_no_token(reply) || {
            let end = Plain::post("auth/token/revoke-self", json!({}));
            let ended = self.transports[at].call(end, &self.middleware(Some(&token))).await;
            ended.is_ok_and(|reply| matches!(reply.status, 200 | 204))
        };
        self.session = None;
        self.replacing.replaced(given_up);
        true
    }

    /// Reads the record.
    async fn ask(&mut self, at: usize) -> Result<Reply, Refused> {
        let record = |settings: &Settings| {
            let (mount, path) = (settings.mount.as_str(), settings.path.as_str());
            ReadSecretRequest::builder().mount(mount).path(path).build().map_err(NoAnswer::of)
        };
        self.with_token(at, Way::Last, record, |vault, reply| vault.told(at, reply)).await
    }

    /// The token to use, after a login at this address where there is none yet.
    async fn session(&mut self, at: usize) -> Result<Token, Refused> {
        if let Some(token) = &self.settings.token {
            return Ok(token.clone());
        }
        if let Some(token) = self.session.as_ref().and_then(Session::token) {
            return Ok(token);
        }
        let credentials = Credentials::read(&self.settings)?;
        let reply = self.transports[at].call(credentials.request()?, &self.middleware(None)).await;
        let session = login::session(&self.told(at, reply)?, &self.settings)?;
        tracing::info!(
            address = self.transports[at].address(),
            mount = self.settings.auth_mount,
            role = self.settings.role,
            lease_seconds = session.lease().as_secs(),
            "logged in to Vault"
        );
        Ok(self.session.insert(session).token_now())
    }

    /// Sorts out what no address may answer: nothing, a redirect, an error of the server's.
    fn told(&self, at: usize, reply: Result<Reply, NoAnswer>) -> Result<Reply, Refused> {
        let address = self.transports[at].address();
        match reply {
            Ok(reply) => answer::told(address, reply),
            Err(NoAnswer { what, .. }) => Err(answer::unreachable(address, &what).into()),
        }
    }

    /// sys/health takes neither token nor namespace.
    fn without_token() -> EndpointMiddleware {
        EndpointMiddleware { token: String::new(), version: "v1".to_owned(), wrap: None, namespace: None }
    }

    fn middleware(&self, token: Option<&Token>) -> EndpointMiddleware {
        EndpointMiddleware {
            token: token.map(|token| token.expose().to_owned()).unwrap_or_default(),
            version: "v1".to_owned(),
            wrap: None,
            namespace: self.settings.namespace.clone(),
        }
    }
}

impl Store for Vault {
    type Place = Place;

    async fn is_there(&self) -> bool {
        self.is_usable().await
    }

    fn begin(&mut self) {
        self.reload_ca();
    }

    async fn read(&mut self, trusted: Option<Sha256>, now: Timestamp) -> Result<Found, Refused> {
        let found = Self::read(self, now).await?;
        let found = match trusted {
            Some(trusted) => self.confirmed(found, trusted, now).await?,
            None => found,
        };
        self.read_at = Some(found.place.at);
        Ok(found)
    }

    async fn is_one(&self, found: &Found) -> Result<(), Refused> {
        Self::is_one(self, found).await
    }

    async fn create(&mut self, found: &Found, record: Map<String, Value>) -> Created {
        Self::create(self, found, record).await
    }
}
