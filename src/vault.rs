//! Vault, as far as a root CA needs it: log in, read with version metadata, create with `cas=0`, and
//! the two questions that must be answered before a root is made.
//!
//! Every answer that is not plainly the one hoped for becomes a [`Refused`] with its own reason code.
//! In particular nothing but Vault's own "never written", on a mount that is positively KV version 2,
//! is taken for an absent root.

mod answer;
mod claims;
mod inquiry;
mod login;
#[cfg(test)]
mod samples;
mod transport;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8s_openapi::jiff::Timestamp;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde_json::{Map, Value};
use url::Url;
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretRequest, SetSecretRequestOptions};

use crate::metrics::VaultRequests;
use crate::plan::Stored;
use crate::reason::{Held, Reason};
use answer::Read;
pub use claims::Claims;
pub use inquiry::{AuthMount, Granted, Health, Inquiry, Keeping, Record, Silent};
pub use login::Token;
use login::{Credentials, Session};
use transport::{NoAnswer, Reply, Transport};

/// A refused token is replaced at most once in so long.
const REPLACE_PAUSE: Duration = Duration::from_secs(30);

/// Where Vault is, and who this service is to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--vault-addr`, in order.
    pub addresses: Vec<Url>,
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
    /// `--vault-timeout`, for each request.
    pub timeout: Duration,
}

impl Settings {
    /// `mount/path`, as the `vault kv` commands spell it.
    pub fn record(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }
}

/// Why Vault could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Code and sentence.
    pub held: Held,
    /// Vault's own wish for when to ask again.
    pub retry_after: Option<Duration>,
    /// Vault was asked and did answer: no outage to be bridged, whatever the code.
    pub is_answer: bool,
}

impl Refused {
    /// What this says against a root that was seen before: that it was never there, or that there is no place for it.
    /// `None`: nothing about the root.
    pub fn contradiction(&self) -> Option<Reason> {
        let reason = self.held.reason;
        match reason {
            _ if self.is_answer => Some(Reason::RootDeleted),
            Reason::VaultMountInvalid => Some(reason),
            _ => None,
        }
    }
}

impl From<Held> for Refused {
    fn from(held: Held) -> Self {
        Self { held, retry_after: None, is_answer: false }
    }
}

/// The record, and where it was read: writes go there and nowhere else.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is there.
    pub stored: Stored,
    /// When `delete_version_after` takes that version away.
    pub deleted_at: Option<Timestamp>,
    /// The address that answered.
    pub address: String,
    at: usize,
}

/// How a `cas=0` write ended. After any of them the record is read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Vault says that it wrote version 1.
    Applied,
    /// Vault says that there already was a version.
    Lost,
    /// Vault refuses: for want of a right, or, with a policy of `create` and `read`, since there already is a version.
    Forbidden(Held),
    /// No word on whether it was applied.
    Unclear(Refused),
}

/// A client of one Vault at one or more addresses.
pub struct Vault {
    settings: Settings,
    transports: Vec<Transport>,
    /// The CA file's bytes that the transports trust: it may be replaced on disk.
    ca: Option<Vec<u8>>,
    /// Tried first.
    last_good: usize,
    session: Option<Session>,
    /// When a login last replaced a token that Vault refused.
    replaced: Option<Instant>,
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
            last_good: 0,
            session: None,
            replaced: None,
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

    /// Takes up a CA file that was replaced on disk. A broken one changes nothing.
    pub fn reload_ca(&mut self) {
        if let Err(error) = self.load_ca() {
            tracing::warn!(%error, "still using the previous Vault CA");
        }
    }

    fn load_ca(&mut self) -> Result<(), String> {
        let ca = match &self.settings.ca_file {
            Some(file) => Some(std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?),
            None => None,
        };
        if !self.transports.is_empty() && ca == self.ca {
            return Ok(());
        }
        let transport = |address| Transport::new(address, ca.as_deref(), self.settings.timeout);
        let transports = self.settings.addresses.iter().map(transport).collect::<Result<_, _>>().map_err(|e| {
            let file = self.settings.ca_file.as_deref().unwrap_or("the system's roots".as_ref());
            format!("cannot use {} for TLS to Vault: {e}", file.display())
        })?;
        self.transports = transports;
        self.count();
        self.ca = ca;
        Ok(())
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Whenever it cannot be told what Vault holds.
    pub async fn read(&mut self, now: Timestamp) -> Result<Found, Refused> {
        let (mount, path) = (self.settings.mount.clone(), self.settings.path.clone());
        let endpoint =
            || ReadSecretRequest::builder().mount(mount.as_str()).path(path.as_str()).build().map_err(NoAnswer::of);
        let (reply, at) = self.with_session(endpoint).await?;
        let address = self.transports[at].address().to_owned();
        let deleted_at = answer::deletion_time(&reply);
        let stored = match answer::read(&reply, &self.settings, now)? {
            Read::Stored(stored) => stored,
            Read::NeverWritten => {
                // That nothing is there has been said, whether or not the mount is told of.
                self.preflight(at).await.map_err(|refused| Refused { is_answer: true, ..refused })?;
                Stored::Absent
            }
        };
        Ok(Found { stored, deleted_at, address, at })
    }

    /// Holds unless the mount is positively KV version 2, the only one with check-and-set.
    async fn preflight(&mut self, at: usize) -> Result<(), Refused> {
        let token = self.session(at).await?;
        let path = format!("sys/internal/ui/mounts/{}", self.settings.mount);
        let reply = self.transports[at].call(Plain::get(path), &self.middleware(Some(&token))).await;
        let reply = self.told(at, reply)?;
        self.forget_refused(&reply);
        answer::preflight(&reply, &self.settings)
    }

    /// Holds if the configured addresses that answer are more than one Vault.
    ///
    /// # Errors
    /// `VaultAmbiguous`, or that none said which Vault it is.
    pub async fn is_one(&self) -> Result<(), Refused> {
        if self.transports.len() == 1 {
            return Ok(());
        }
        let middleware = Self::without_token();
        let asked = self.transports.iter().map(|transport| async {
            let reply = transport.call(Plain::get("sys/health"), &middleware).await.ok()?;
            Some((transport.address(), answer::identity(&reply)?))
        });
        let answered: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        // Where the absence was read, and the root would be written.
        let here = self.transports[self.last_good].address();
        if !answered.iter().any(|(address, _)| *address == here) {
            return Err(answer::unreachable(here, "its sys/health names no cluster_id").into());
        }
        answer::one_vault(&answered).map_err(Refused::from)
    }

    /// Writes the first version of the record, at the address where its absence was read.
    pub async fn create(&mut self, found: &Found, record: Map<String, Value>) -> Write {
        let token = match self.session(found.at).await {
            Ok(token) => token,
            Err(refused) => return Write::Unclear(refused),
        };
        let request = SetSecretRequest::builder()
            .mount(self.settings.mount.as_str())
            .path(self.settings.path.as_str())
            .data(Value::Object(record))
            .options(SetSecretRequestOptions { cas: 0 })
            .build();
        let reply = match request {
            Ok(request) => self.transports[found.at].call(request, &self.middleware(Some(&token))).await,
            Err(error) => Err(NoAnswer::of(error)),
        };
        match self.told(found.at, reply) {
            Ok(reply) => {
                self.forget_refused(&reply);
                answer::written(&reply, &self.settings)
            }
            Err(refused) => Write::Unclear(refused),
        }
    }

    /// Gives up a token that Vault refuses: it may have ended, and it keeps the policies of its login.
    /// Not all the time: each login is a lease in Vault.
    fn forget_refused(&mut self, reply: &Reply) -> bool {
        let lately = self.replaced.is_some_and(|replaced| replaced.elapsed() < REPLACE_PAUSE);
        let forget = reply.status == 403 && self.session.is_some() && !lately;
        if forget {
            self.session = None;
            self.replaced = Some(Instant::now());
        }
        forget
    }

    /// Asks the addresses in turn with a token. One that Vault no longer takes is replaced, once.
    async fn with_session<E: Endpoint>(
        &mut self,
        endpoint: impl Fn() -> Result<E, NoAnswer>,
    ) -> Result<(Reply, usize), Refused> {
        let mut silent = Vec::new();
        for at in self.order() {
            let kept = self.session.is_some();
            let mut told = self.ask(at, &endpoint).await;
            if let Ok(reply) = &told
                && kept
                && self.forget_refused(reply)
            {
                told = self.ask(at, &endpoint).await;
            }
            match told {
                Ok(reply) => {
                    self.last_good = at;
                    return Ok((reply, at));
                }
                Err(refused) if is_elsewhere_worth_a_try(&refused) => silent.push((at, refused)),
                Err(refused) => return Err(refused),
            }
        }
        silent.sort_by_key(|(at, _)| *at);
        Err(answer::none_answered(silent.into_iter().map(|(_, refused)| refused).collect()))
    }

    async fn ask<E: Endpoint>(
        &mut self,
        at: usize,
        endpoint: &impl Fn() -> Result<E, NoAnswer>,
    ) -> Result<Reply, Refused> {
        let token = self.session(at).await?;
        let reply = match endpoint() {
            Ok(endpoint) => self.transports[at].call(endpoint, &self.middleware(Some(&token))).await,
            Err(error) => Err(error),
        };
        self.told(at, reply)
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

    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.transports.len()).collect();
        order.sort_by_key(|at| *at != self.last_good);
        order
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

/// 400, 403, 404 and 429 are Vault's answer; what is left says nothing about another address.
fn is_elsewhere_worth_a_try(refused: &Refused) -> bool {
    matches!(refused.held.reason, Reason::VaultUnreachable | Reason::VaultSealed)
}

/// A request of plain JSON, for the paths that vaultrs has no endpoint for.
struct Plain {
    method: RequestMethod,
    path: String,
    body: Option<Value>,
}

impl Plain {
    fn get(path: impl Into<String>) -> Self {
        Self { method: RequestMethod::GET, path: path.into(), body: None }
    }

    fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: RequestMethod::POST, path: path.into(), body: Some(body) }
    }
}

#[async_trait]
impl Endpoint for Plain {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.body.as_ref().map(|body| body.to_string().into_bytes()))
    }
}
