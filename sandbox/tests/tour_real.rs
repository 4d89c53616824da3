//! The tour on real control planes and a real Vault, and what it prints to try with kubectl and vault, which are built with
//! them.

mod printed;

use anyhow::Result;
use testbed::binaries::{ControlPlane, vault};

use printed::Sandbox;

/// Every program that a printed command begins with.
const ALL: [&str; 5] = ["istio-ca-gate", "curl", "tail", "kubectl", "vault"];

async fn all_ends_well(args: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    ControlPlane::find()?.kubectl.install(folder.path(), "kubectl")?;
    vault()?.install(folder.path(), "vault")?;
    let sandbox = Sandbox::start(args).await?;
    for (command, said) in sandbox.try_all_of(&ALL, folder.path()).await? {
        println!("$ {command}\n{said}");
    }
    sandbox.end().await
}

#[tokio::test]
async fn the_tour_goes_as_told_on_the_real_components_and_what_it_prints_to_try_ends_well() -> Result<()> {
    all_ends_well(&["--real"]).await
}

#[tokio::test]
async fn what_the_embedded_tour_prints_to_try_with_the_real_kubectl_and_vault_ends_well() -> Result<()> {
    all_ends_well(&[]).await
}
