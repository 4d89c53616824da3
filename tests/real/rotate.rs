//! `rotate` with the policy that comes with it, before the real Vault.

use anyhow::{Result, ensure};
use testbed::{Vault, VaultOptions};

use crate::gate::{Gate, Options, binary};
use crate::rescue::{Alone, Rescuer, are_rescued};
use crate::rotations::{Mesh, is_replaced_step_by_step};
use crate::signers::enable;
use crate::world::World;

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

#[tokio::test(flavor = "multi_thread")]
async fn two_real_clusters_on_roots_of_their_own_are_brought_under_one() -> Result<()> {
    let (world, folder) = (World::start().await?, tempfile::tempdir()?);
    let World { homelab, nas, vault, .. } = &world;
    let (first, second) = (Alone::begin(homelab, "127.0.0.6").await?, Alone::begin(nas, "127.0.0.7").await?);
    enable(vault, &[homelab, nas], "2160h").await?;
    let flags = ["--vault-pki-mount", "pki-mesh", "--refresh", "2s"];
    let options = || Options { flags: &flags, ..Options::default() };
    let gates = [Gate::start_with(homelab, vault, options()).await?, Gate::start_with(nas, vault, options()).await?];
    let rescuer = Rescuer::new(vault, [homelab, nas], folder.path(), binary()).await?;
    are_rescued(vault, [&first, &second], &rescuer).await?;
    for gate in gates {
        gate.stands("open", None).await?;
        ensure!(!gate.process.log().contains("PRIVATE"), "a key is in the log");
    }
    Ok(())
}
