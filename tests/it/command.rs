//! A command for people, run to its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::product::{KUBERNETES_TOKEN, binary};

/// Far above any deadline that a test gives; past it, the command hangs.
const AT_MOST: Duration = Duration::from_secs(60);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// All that it printed, anywhere.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{self:?}"))
    }

    /// Expects exit code 2, nothing on standard output, and one line with all of `says`.
    pub fn is_refused(&self, says: &[&str]) -> Result<()> {
        let one_line = self.stderr.lines().count() == 1 && self.stderr.starts_with("istio-ca-gate: ");
        ensure!(self.code == Some(2) && self.stdout.is_empty() && one_line, "{self:?}");
        ensure!(says.iter().all(|says| self.stderr.contains(says)), "not all of {says:?}: {self:?}");
        Ok(())
    }
}

/// Runs it with these variables and no others.
pub async fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<Said> {
    run_with(args, variables, "").await
}

/// The same with something on its standard input.
pub async fn run_with(args: &[&str], variables: &[(&str, &str)], input: &str) -> Result<Said> {
    let mut child = tokio::process::Command::new(binary())
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = async {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(AT_MOST, both).await.with_context(|| format!("{args:?} hangs"))??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Writes a kubeconfig with a context for each of these API servers, the first of them current.
pub fn kubeconfig(file: &Path, servers: &[(&str, String)]) -> Result<()> {
    let servers: BTreeMap<_, _> = servers.iter().map(|(name, server)| (*name, server)).collect();
    let of = |make: &dyn Fn(&str, &str) -> Value| -> Vec<Value> {
        servers.iter().map(|(name, server)| make(name, server)).collect()
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": of(&|name, server| json!({ "name": name, "cluster": { "server": server } })),
        "users": of(&|name, _| json!({ "name": name, "user": { "token": KUBERNETES_TOKEN } })),
        "contexts": of(&|name, _| json!({ "name": name, "context": { "cluster": name, "user": name } })),
        "current-context": servers.keys().next(),
    });
    Ok(std::fs::write(file, config.to_string())?)
}
