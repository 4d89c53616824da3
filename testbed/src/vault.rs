//! A Vault server, initialised, unsealed, with KV v2 at `secret/`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::binaries;
use crate::cluster::Cluster;
use crate::ports::{Port, retry_if_taken};
use crate::process::{Process, Program};
use crate::temporary_folder;
use crate::tls::write_serving_files;

/// A start takes a few seconds at most on idle cores; others may be busy on them.
const START: Duration = Duration::from_secs(90);

/// Where Vault keeps its data. Both survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// Files. The faster start.
    #[default]
    File,
    /// Raft with one node, as in production.
    Raft,
}

/// What may differ between Vaults.
#[derive(Clone, Debug, Default)]
pub struct VaultOptions {
    /// Where it keeps its data.
    pub storage: Storage,
}

/// A running Vault of its own. Its process ends, and its data goes, on drop.
#[derive(Debug)]
pub struct Vault {
    api: Api,
    ca_pem: String,
    unseal_key: String,
    root_token: String,
    cli: Program,
    // Before the folder with its data.
    process: Process,
    folder: TempDir,
    _ports: [Port; 2],
}

impl Vault {
    /// Starts a Vault and waits until it serves `secret/`.
    pub async fn start(options: VaultOptions) -> Result<Self> {
        let program = tokio::task::spawn_blocking(binaries::vault).await??;
        let start = || async {
            let mut vault = Self::launch(&options, &program)?;
            vault.initialise().await?;
            Ok(vault)
        };
        retry_if_taken(start).await.context("start of Vault")
    }

    fn launch(options: &VaultOptions, program: &Program) -> Result<Self> {
        let folder = temporary_folder("vault")?;
        let home = folder.path();
        let ports = [Port::reserve()?, Port::reserve()?];
        let [port, peer_port] = ports.each_ref().map(Port::number);
        let url = format!("https://127.0.0.1:{port}");

        let authority = write_serving_files(home, "CA of test Vault")?;
        fs::create_dir(home.join("data"))?;
        let config = config(options.storage, port, peer_port);
        fs::write(home.join("config.json"), config.to_string())?;

        let program = program.clone().env("HOME", home);
        let server = program.clone().current_dir(home).args(["server", "-config=config.json"]);
        Ok(Self {
            api: Api::new(url.clone(), authority.certificate_pem())?,
            ca_pem: authority.certificate_pem().to_owned(),
            unseal_key: String::new(),
            root_token: String::new(),
            cli: program.env("VAULT_ADDR", url).env("VAULT_CACERT", home.join("ca.pem")),
            process: server.spawn(home.join("vault.log"))?,
            folder,
            _ports: ports,
        })
    }

    async fn initialise(&mut self) -> Result<()> {
        self.health(501).await?;
        let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let answer = self.ok("PUT", "sys/init", Some(init)).await?;
        self.unseal_key = answer["keys"][0].as_str().context("no unseal key")?.to_owned();
        self.root_token = answer["root_token"].as_str().context("no root token")?.to_owned();
        self.unseal().await?;
        let mount = json!({ "type": "kv", "options": { "version": "2" } });
        self.ok("POST", "sys/mounts/secret", Some(mount)).await?;
        // The mount refuses all until it has been upgraded from version 1, in the background.
        self.process.until("secret/", START, || self.ok("GET", "secret/config", None)).await?;
        Ok(())
    }

    async fn health(&self, wanted: u16) -> Result<()> {
        let probe = || async {
            let (status, body) = self.api("GET", "sys/health", None).await?;
            ensure!(status == wanted, "{status}: {body}");
            Ok(())
        };
        self.process.until(&format!("status {wanted} of sys/health"), START, probe).await
    }

    async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.api(method, path, body).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        Ok(answer)
    }

    /// `https://127.0.0.1:<port>`
    pub fn address(&self) -> &str {
        self.api.url()
    }

    /// The file with the CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The CA of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A token with all rights.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends one API request with all rights; the path is that below `/v1/`.
    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let token = Some(self.root_token.as_str()).filter(|token| !token.is_empty());
        self.api_with(token, method, path, body).await
    }

    /// Sends one API request with another token, or none.
    pub async fn api_with(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        self.api.send(method, &format!("v1/{path}"), token, body).await
    }

    /// Runs Vault's command line with all rights, and returns what it prints.
    pub async fn cli(&self, args: &[&str]) -> Result<String> {
        self.cli.clone().env("VAULT_TOKEN", &self.root_token).args(args).output(None).await
    }

    /// Seals it.
    pub async fn seal(&self) -> Result<()> {
        self.ok("PUT", "sys/seal", None).await?;
        self.health(503).await
    }

    /// Unseals it, and waits until it is active.
    pub async fn unseal(&self) -> Result<()> {
        self.ok("PUT", "sys/unseal", Some(json!({ "key": self.unseal_key }))).await?;
        self.health(200).await
    }

    /// Kills it.
    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    /// Starts it again, sealed, with the same port and data.
    pub async fn start_sealed(&self) -> Result<()> {
        self.process.start_again()?;
        self.health(503).await
    }

    /// Starts it again, with the same port and data, and unseals it.
    pub async fn start_again(&self) -> Result<()> {
        self.start_sealed().await?;
        self.unseal().await
    }

    /// Writes a policy.
    pub async fn policy(&self, name: &str, hcl: &str) -> Result<()> {
        self.ok("PUT", &format!("sys/policies/acl/{name}"), Some(json!({ "policy": hcl }))).await?;
        Ok(())
    }

    /// Enables an auth method of kind `kubernetes` for the service accounts of a cluster, whose API server is asked to
    /// review each token with `reviewer_jwt`.
    pub async fn kubernetes_auth(&self, mount_path: &str, cluster: &Cluster, reviewer_jwt: &str) -> Result<()> {
        let config = json!({
            "kubernetes_host": cluster.url(),
            "kubernetes_ca_cert": cluster.ca_pem(),
            "token_reviewer_jwt": reviewer_jwt,
            "disable_local_ca_jwt": true,
        });
        self.auth("kubernetes", mount_path, config).await
    }

    /// Enables an auth method of kind `jwt` for the service accounts of a cluster, whose API server is never asked.
    pub async fn jwt_auth(&self, mount_path: &str, cluster: &Cluster) -> Result<()> {
        let config = json!({
            "jwt_validation_pubkeys": [cluster.service_account_public_key_pem()],
            "bound_issuer": cluster.issuer(),
        });
        self.auth("jwt", mount_path, config).await
    }

    async fn auth(&self, kind: &str, mount_path: &str, config: Value) -> Result<()> {
        self.ok("POST", &format!("sys/auth/{mount_path}"), Some(json!({ "type": kind }))).await?;
        self.ok("POST", &format!("auth/{mount_path}/config"), Some(config)).await?;
        Ok(())
    }

    /// Writes a role of an auth method.
    pub async fn role(&self, mount_path: &str, role: &str, body: Value) -> Result<()> {
        self.ok("POST", &format!("auth/{mount_path}/role/{role}"), Some(body)).await?;
        Ok(())
    }

    /// The versions that a path of a KV v2 mount has or had, deleted ones included; none if it was never written.
    pub async fn versions(&self, mount: &str, path: &str) -> Result<Vec<u64>> {
        let (status, answer) = self.api("GET", &format!("{mount}/metadata/{path}"), None).await?;
        if status == 404 && answer["errors"].as_array().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        ensure!(status == 200, "versions of {mount}/{path}: {status}: {answer}");
        let versions = answer["data"]["versions"].as_object().context("no versions")?;
        let mut versions = versions.keys().map(|version| version.parse()).collect::<Result<Vec<u64>, _>>()?;
        versions.sort_unstable();
        Ok(versions)
    }
}

fn config(storage: Storage, port: u16, peer_port: u16) -> Value {
    json!({
        "storage": match storage {
            Storage::File => json!({ "file": { "path": "data" } }),
            // The least patience: one node waits for nobody in an election.
            Storage::Raft => json!({ "raft": { "path": "data", "node_id": "only", "performance_multiplier": "1" } }),
        },
        "listener": { "tcp": {
            "address": format!("127.0.0.1:{port}"),
            "cluster_address": format!("127.0.0.1:{peer_port}"),
            "tls_cert_file": "serving.pem",
            "tls_key_file": "serving-key.pem",
        } },
        "api_addr": format!("https://127.0.0.1:{port}"),
        "cluster_addr": format!("https://127.0.0.1:{peer_port}"),
        "disable_mlock": true,
    })
}
