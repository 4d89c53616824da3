//! Helm, with a home of its own.

use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::binaries;
use crate::cluster::Cluster;
use crate::process::Program;
use crate::temporary_folder;

/// Helm without plugins, repositories or anything else of this machine's user.
#[derive(Debug)]
pub struct Helm {
    program: Program,
    home: TempDir,
}

impl Helm {
    /// Finds out about the program, or builds it.
    pub async fn new() -> Result<Self> {
        Ok(Self { program: tokio::task::spawn_blocking(binaries::helm).await??, home: temporary_folder("helm")? })
    }

    /// Installs a chart from its folder, and waits for nothing that it brings about. `settings` are those of `--set`.
    pub async fn install(
        &self,
        cluster: &Cluster,
        namespace: &str,
        release: &str,
        chart: &Path,
        settings: &[&str],
    ) -> Result<String> {
        let program = self.program("install", namespace, release, chart, settings);
        let told = program.env("KUBECONFIG", cluster.kubeconfig()).output(None).await;
        told.with_context(|| format!("helm install {release} in {}", cluster.name()))
    }

    /// The manifests of a chart in its folder, as YAML. No cluster is asked.
    pub async fn template(&self, namespace: &str, release: &str, chart: &Path, settings: &[&str]) -> Result<String> {
        self.program("template", namespace, release, chart, settings).output(None).await
    }

    fn program(&self, command: &str, namespace: &str, release: &str, chart: &Path, settings: &[&str]) -> Program {
        let home = self.home.path();
        let program = self.program.clone().args([command, "--namespace", namespace, release]).arg(chart);
        settings
            .iter()
            .fold(program, |program, setting| program.args(["--set", setting]))
            .env("HOME", home)
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
    }
}
