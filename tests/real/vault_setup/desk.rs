//! Where an administrator runs what is in `deploy/vault`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use testbed::Vault;
use testbed::binaries::{self, ControlPlane};
use tokio::process::Command;

use crate::world::Side;

/// Some dozen runs of Vault's command line, on a busy machine.
pub const AT_MOST: Duration = Duration::from_secs(120);

const COMMANDS: &str = "bin";

/// A file of deploy/vault.
pub fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/vault").join(file)
}

/// An administrator's desk: commands, kubeconfigs, files, and what Vault is reached with.
pub struct Desk {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// At what each line with this mark looked.
    pub fn marked(&self, mark: &str) -> Vec<&str> {
        let of = |line| str::strip_prefix(line, mark)?.split_whitespace().next();
        self.out.lines().filter_map(of).collect()
    }

    pub fn changed(&self, what: &[&str]) -> Result<()> {
        ensure!(self.code == Some(0) && self.err.is_empty() && self.marked("changed  ") == what, "{self:?}");
        Ok(())
    }

    pub fn changed_nothing_of(&self, count: usize) -> Result<()> {
        self.changed(&[])?;
        let end = format!("nothing changed: {count} as it has to be, 0 wrong\n");
        ensure!(self.out.ends_with(&end) && self.marked("as is    ").len() == count, "{self:?}");
        Ok(())
    }
}

impl Desk {
    pub async fn new(sides: &[&Side]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let commands = folder.path().join(COMMANDS);
        fs::create_dir(&commands)?;
        let (kubernetes, vault) = tokio::task::spawn_blocking(|| (ControlPlane::find(), binaries::vault())).await?;
        kubernetes?.kubectl.install(&commands, "kubectl")?;
        vault?.install(&commands, "vault")?;
        let mut kubeconfigs = Vec::new();
        for side in sides {
            let path = folder.path().join(format!("kubeconfig-{}", side.name));
            fs::write(&path, side.api.kubeconfig(&format!("admin-of-{}", side.name), side.api.admin_token()))?;
            kubeconfigs.push(path.to_string_lossy().into_owned());
        }
        let path = std::env::var("PATH")?;
        let variables = vec![
            ("PATH", format!("{}:{path}", commands.display())),
            ("HOME", folder.path().to_string_lossy().into_owned()),
            ("KUBECONFIG", kubeconfigs.join(":")),
        ];
        Ok(Self { folder, variables })
    }

    /// With a token of the rights that `setup.hcl` says are needed.
    pub async fn at(mut self, vault: &Vault) -> Result<Self> {
        vault.policy("istio-ca-setup", &fs::read_to_string(shipped("setup.hcl"))?).await?;
        let wanted = json!({ "policies": ["istio-ca-setup"], "ttl": "15m" });
        let made = vault.ok("POST", "auth/token/create", Some(wanted)).await?;
        self.variables.push(("VAULT_ADDR", vault.address().to_owned()));
        self.variables.push(("VAULT_CACERT", vault.ca_file().to_string_lossy().into_owned()));
        self.bear(made["auth"]["client_token"].as_str().context("no token")?);
        Ok(self)
    }

    /// With this token for Vault from now on.
    pub fn bear(&mut self, token: &str) {
        self.variables.retain(|(name, _)| *name != "VAULT_TOKEN");
        self.variables.push(("VAULT_TOKEN", token.to_owned()));
    }

    /// The folder of the commands that come first in `PATH`.
    pub fn commands(&self) -> PathBuf {
        self.folder.path().join(COMMANDS)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    pub async fn run(&self, program: &Path, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(AT_MOST, output).await.context("it runs on")??;
        let said = Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        };
        for secret in ["eyJ", "hvs.", "-BEGIN PRIVATE KEY"] {
            ensure!(!said.out.contains(secret) && !said.err.contains(secret), "{secret:?} in {said:?}");
        }
        Ok(said)
    }

    pub async fn set_up(&self, args: &[&str]) -> Result<Said> {
        self.run(&shipped("setup.sh"), args).await
    }
}
