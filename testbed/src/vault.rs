//! A Vault server, initialised, unsealed, with KV v2 at `secret/`.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binaries;
use crate::evidence;
use crate::ports::{Port, retry_if_taken};
use crate::process::{Process, Program};
use crate::temporary_folder;
use crate::tls::write_serving_files;
use crate::vault_api::VaultApi;

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
    api: VaultApi,
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
            api: VaultApi::new(url.clone(), authority.certificate_pem())?,
            cli: program.env("VAULT_ADDR", url).env("VAULT_CACERT", home.join("ca.pem")),
            process: server.spawn(home.join("vault.log"))?,
            folder,
            _ports: ports,
        })
    }

    async fn initialise(&mut self) -> Result<()> {
        self.process.until("status 501 of sys/health", START, || self.api.answers_health(501)).await?;
        let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let answer = self.api.ok("PUT", "sys/init", Some(init)).await?;
        let key = answer["keys"][0].as_str().context("no unseal key")?;
        let token = answer["root_token"].as_str().context("no root token")?;
        self.api = std::mem::replace(&mut self.api, VaultApi::new(String::new(), "")?).initialised(key, token);
        self.unseal().await?;
        let mount = json!({ "type": "kv", "options": { "version": "2" } });
        self.api.ok("POST", "sys/mounts/secret", Some(mount)).await?;
        // The mount refuses all until it has been upgraded from version 1, in the background.
        self.process.until("secret/", START, || self.api.ok("GET", "secret/config", None)).await?;
        if let Some(log) = evidence::file("vault", "vault-audit") {
            let options = json!({ "file_path": log, "log_raw": "true" });
            self.api.ok("PUT", "sys/audit/evidence", Some(json!({ "type": "file", "options": options }))).await?;
        }
        Ok(())
    }

    /// The file with the CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs Vault's command line with all rights, and returns what it prints.
    pub async fn cli(&self, args: &[&str]) -> Result<String> {
        self.cli.clone().env("VAULT_TOKEN", self.api.root_token()).args(args).output(None).await
    }

    /// Kills it.
    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    /// Starts it again, sealed, with the same port and data.
    pub async fn start_sealed(&self) -> Result<()> {
        self.process.start_again()?;
        self.process.until("a sealed Vault", START, || self.api.answers_health(503)).await
    }

    /// Starts it again, with the same port and data, and unseals it.
    pub async fn start_again(&self) -> Result<()> {
        self.start_sealed().await?;
        self.unseal().await
    }
}

/// All that can be asked of any Vault can be asked of this one.
impl Deref for Vault {
    type Target = VaultApi;

    fn deref(&self) -> &VaultApi {
        &self.api
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
