//! A Vault with one record, and a client of it. What a test does not script it answers as Vault 1.21 does.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use istio_ca_gate::vault::{Found, Refused, Settings, Vault};
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use standin::scripted::{Answer, Request, StandIn};

/// Which Vault a stand-in is, and which another one is: as long as real ones, which are random.
pub const ONE: &str = "b21be4c0-d7bf-d0e1-cda2-aeafd151dce4";
pub const TWO: &str = "916f86cc-bbc9-cbe9-c847-a0167af4a44d";

pub const LOGIN: &str = "POST /v1/auth/kubernetes/login";
pub const LOOKUP: &str = "GET /v1/auth/token/lookup-self";
pub const GIVE_UP: &str = "POST /v1/auth/token/revoke-self";
pub const READ: &str = "GET /v1/secret/data/istio/ca";
pub const WRITE: &str = "POST /v1/secret/data/istio/ca";
pub const PREFLIGHT: &str = "GET /v1/sys/internal/ui/mounts/secret";
pub const HEALTH: &str = "GET /v1/sys/health";

/// Far above what loopback takes, on a machine that is busy with other things.
const PATIENT: Duration = Duration::from_secs(20);

/// Vault's words for a path that never had a version.
pub fn never_written() -> Answer {
    errors(404, &[])
}

pub fn errors(status: u16, errors: &[&str]) -> Answer {
    Answer::json(status, &json!({ "errors": errors }))
}

/// A version of the record.
pub fn version(version: u64, record: &Map<String, Value>) -> Answer {
    Answer::json(200, &json!({ "data": { "data": record, "metadata": { "version": version } } }))
}

pub fn granted(token: &str, lease: u64) -> Answer {
    Answer::json(200, &json!({ "auth": { "client_token": token, "lease_duration": lease } }))
}

pub fn mount(kind: &str, options: Value) -> Answer {
    Answer::json(200, &json!({ "data": { "type": kind, "options": options } }))
}

/// How Vault 1.21 says that it is there.
pub fn health(cluster_id: Value) -> Answer {
    node(200, json!({ "cluster_id": cluster_id }))
}

/// The same, but for these, which say what kind of a node it is.
pub fn node(status: u16, but: Value) -> Answer {
    let mut body = json!({
        "initialized": true, "sealed": false, "standby": false, "performance_standby": false, "enterprise": false,
        "version": "1.21.1", "cluster_id": ONE, "server_time_utc": Timestamp::now().as_second(),
    });
    for (key, value) in but.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Answer::json(status, &body)
}

/// A standby of OpenBao's, which answers reads by itself and does not tell how far it is behind.
pub fn reading_standby() -> Answer {
    node(429, json!({ "standby": true, "version": "2.5.0", "enterprise": null }))
}

/// The lines of all requests, without the question how it is that goes before each read.
pub fn asked(server: &StandIn) -> Vec<String> {
    server.lines().into_iter().filter(|line| line != HEALTH).collect()
}

/// The token of the n-th login, counting from one.
pub fn token(login: usize) -> String {
    format!("hvs.scripted-token-{login}")
}

/// An empty Vault with KV version 2 at `secret/`.
pub async fn start() -> Result<StandIn> {
    StandIn::start(answerer()).await
}

/// The same over HTTPS.
pub async fn start_tls(tls: Arc<ServerConfig>) -> Result<StandIn> {
    StandIn::start_tls(tls, answerer()).await
}

fn answerer() -> impl Fn(Request) -> std::future::Ready<Answer> + Send + Sync {
    let (logins, record) = (AtomicUsize::new(0), Mutex::new(None::<Map<String, Value>>));
    move |request: Request| {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        std::future::ready(match request.line().as_str() {
            LOGIN => granted(&token(logins.fetch_add(1, Ordering::Relaxed) + 1), 3600),
            PREFLIGHT => mount("kv", json!({ "version": "2" })),
            HEALTH => health(json!(ONE)),
            READ => record.as_ref().map_or_else(never_written, |record| version(1, record)),
            WRITE if record.is_some() => errors(400, &["check-and-set parameter did not match the current version"]),
            WRITE => {
                *record = request.json()["data"].as_object().cloned();
                Answer::json(200, &json!({ "data": { "version": 1 } }))
            }
            _ => errors(404, &["no handler for route"]),
        })
    }
}

/// The product's client, and the file that it logs in with.
pub struct Client {
    pub vault: Vault,
    pub jwt_file: PathBuf,
    /// Holds the file.
    pub folder: TempDir,
}

pub const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJnYXRlIn0.c2lnbmF0dXJl";

/// A client of these addresses.
pub fn client(addresses: &[&str]) -> Result<Client> {
    client_but(addresses, |_| ())
}

/// The same with other settings.
pub fn client_but(addresses: &[&str], change: impl FnOnce(&mut Settings)) -> Result<Client> {
    let folder = tempfile::tempdir()?;
    let jwt_file = folder.path().join("token");
    std::fs::write(&jwt_file, format!("{JWT}\n"))?;
    let mut settings = Settings {
        addresses: addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?,
        gone: Vec::new(),
        ca_file: None,
        namespace: None,
        auth_mount: "kubernetes".to_owned(),
        role: "istio-ca-bootstrap".to_owned(),
        jwt_files: vec![jwt_file.clone()],
        token: None,
        mount: "secret".to_owned(),
        path: "istio/ca".to_owned(),
        pki_mount: Some("pki-mesh".to_owned()),
        timeout: PATIENT,
    };
    change(&mut settings);
    let vault = Vault::new(settings).map_err(anyhow::Error::msg)?;
    Ok(Client { vault, jwt_file, folder })
}

/// A Vault, and a client of it.
pub async fn pair() -> Result<(StandIn, Client)> {
    let server = start().await?;
    let client = client(&[&server.url()])?;
    Ok((server, client))
}

impl Client {
    pub async fn read(&mut self) -> Result<Found, Refused> {
        self.vault.read(Timestamp::now()).await
    }

    /// Reads, and expects to find nothing.
    pub async fn absent(&mut self) -> Result<Found> {
        match self.read().await {
            Ok(found) if matches!(found.stored, Stored::Absent) => Ok(found),
            other => bail!("{other:?}"),
        }
    }

    /// Reads, and expects a refusal: its code and sentence.
    pub async fn refused(&mut self) -> Result<(Reason, String)> {
        let refused = self.read().await.err().context("it was read")?;
        Ok((refused.held.reason, refused.held.sentence()))
    }
}
