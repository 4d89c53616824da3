//! `rotate` with the policy that comes with it, before the real Vault.

use anyhow::Result;
use testbed::{Vault, VaultOptions};

use crate::rotations::{Mesh, is_replaced_step_by_step};

#[tokio::test(flavor = "multi_thread")]
async fn the_real_vault_gives_the_cross_takes_the_old_roots_right_and_keeps_each_version() -> Result<()> {
    let vault = Vault::start(VaultOptions::default()).await?;
    is_replaced_step_by_step(&Mesh::start(vault).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_vault_lets_an_abort_lead_back() -> Result<()> {
    let mesh = Mesh::start(Vault::start(VaultOptions::default()).await?).await?;
    mesh.switched().await?;
    mesh.does(&["abort", "--yes"], "turned round").await?;
    mesh.does(&["step"], "return").await
}
