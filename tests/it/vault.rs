//! The embedded Vault behind a script, a client of it, and what tests script.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use istio_ca_gate::vault::{Found, Refused, Settings, Token, Vault};
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use zeroize::Zeroizing;

use standin::scripted::{Answer, StandIn};

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

/// The tokens of all logins that were granted.
pub fn tokens(server: &StandIn) -> Vec<String> {
    let answers = server.answers(LOGIN);
    let tokens = answers.iter().filter_map(|answer| answer["auth"]["client_token"].as_str());
    tokens.map(str::to_owned).collect()
}

/// The token of the n-th of them, counting from one.
pub fn token(server: &StandIn, login: usize) -> Result<String> {
    tokens(server).into_iter().nth(login - 1).with_context(|| format!("no login {login}"))
}

const AUTH_MOUNT: &str = "kubernetes";

const POLICIES: [(&str, &str); 2] = [
    ("istio-ca-bootstrap", include_str!("../../deploy/vault/istio-ca-bootstrap.hcl")),
    ("istio-ca-sync", include_str!("../../deploy/vault/istio-ca-sync.hcl")),
];

/// An empty Vault with KV version 2 at `secret/`, where [`JWT`] logs in as each role.
pub async fn known() -> Result<standin::vault::Vault> {
    let vault = standin::vault::Vault::start_as(ONE).await?;
    vault.ok("POST", &format!("sys/auth/{AUTH_MOUNT}"), Some(json!({ "type": "jwt" }))).await?;
    let config = json!({ "jwt_validation_pubkeys": [JWT_KEY] });
    vault.ok("POST", &format!("auth/{AUTH_MOUNT}/config"), Some(config)).await?;
    for (name, policy) in POLICIES {
        vault.policy(name, policy).await?;
        grant(&vault, name, json!({})).await?;
    }
    Ok(vault)
}

/// Writes a role, with its policy, but for these fields.
pub async fn grant(vault: &standin::vault::Vault, role: &str, but: Value) -> Result<()> {
    let mut body = json!({
        "role_type": "jwt", "bound_audiences": "vault", "user_claim": "sub", "token_policies": role, "token_ttl": "1h",
    });
    for (key, value) in but.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    vault.role(AUTH_MOUNT, role, body).await
}

/// A token with these policies.
pub async fn token_of(vault: &standin::vault::Vault, policies: &[&str]) -> Result<String> {
    let body = json!({ "policies": policies, "ttl": "1h" });
    let made = vault.ok("POST", "auth/token/create", Some(body)).await?;
    Ok(made["auth"]["client_token"].as_str().context("no token")?.to_owned())
}

/// It, as the client is given it.
pub fn given(token: &str) -> Result<Token> {
    Token::new(Zeroizing::new(token.to_owned())).map_err(anyhow::Error::msg)
}

/// [`known`] behind a script.
pub async fn start() -> Result<StandIn> {
    StandIn::before(known().await?.embedded()).await
}

/// The same over HTTPS.
pub async fn start_tls(tls: Arc<ServerConfig>) -> Result<StandIn> {
    StandIn::before_tls(tls, known().await?.embedded()).await
}

/// Two addresses of one Vault, each with a script of its own.
pub async fn start_two() -> Result<[StandIn; 2]> {
    let server = start().await?;
    let other = server.beside().await?;
    Ok([server, other])
}

/// The product's client, and the file that it logs in with.
pub struct Client {
    pub vault: Vault,
    pub jwt_file: PathBuf,
    /// Holds the file.
    pub folder: TempDir,
}

/// The gate's, good until 2100. Their private key is kept nowhere.
pub const JWT: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.\
    eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMubmFzLnRlc3QiLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6aXN0aW8tc3lzdGVtOmlzdGlvLW\
    NhLWdhdGUiLCJhdWQiOlsidmF1bHQiXSwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQxMDI0NDQ4MDAsImp0aSI6Im9uZSJ9.\
    b1FFDxkbxPrmUBs6QykzDh6Hvn9GETdRaLaiay-th3Yaykz736yAYLTrrwyOsc-ciBEQC5_D_kx2H8YKuGeW6g";

/// The one that comes in its place.
pub const NEXT_JWT: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.\
    eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMubmFzLnRlc3QiLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6aXN0aW8tc3lzdGVtOmlzdGlvLW\
    NhLWdhdGUiLCJhdWQiOlsidmF1bHQiXSwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQxMDI0NDQ4MDAsImp0aSI6InR3byJ9.\
    Zqg1jERL0fcKwcEeQoWWCU2o4shaw3VE9cTlKpFD5DYhKhLAQk-G4LIekSzjXBxBWfxV8p2e4dOmkHwG4eypBQ";

pub const JWT_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkxf+LMmxEfZrj9G+Vm4Co4GOVF/3
L1FwjoJe0rICmc+SPLRx0lG9lGLW7l8UiPNq9iIHCtx7lwuRpKycviDd7w==
-----END PUBLIC KEY-----
";

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
        auth_mount: AUTH_MOUNT.to_owned(),
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
