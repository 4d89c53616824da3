//! Several replicas at once, and addresses that are not one Vault.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use testbed::{Vault, VaultOptions};

use crate::gate::{Gate, Options};
use crate::story::decode;
use crate::world::SmallWorld;

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_consulted_at_once_make_one_root() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let gates = try_join_all((0..5).map(|_| Gate::launch(side, vault, Options::default()))).await?;
    // The API server asks all webhooks of one pod at the same moment.
    let ports: Vec<_> = gates.iter().map(Gate::port).collect();
    side.point_webhooks_at(&ports).await?;
    side.is_injected().await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;

    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    let mut roots = Vec::new();
    for gate in &gates {
        let report = gate.stands("open", None).await?;
        ensure!(report["match"] == true && report["vault"]["version"] == 1, "{report}");
        roots.push(report["cacerts"]["sha256"].clone());
    }
    ensure!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:?}");
    let (_, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    let cacerts = side.cacerts().await?.ok_or_else(|| anyhow::anyhow!("no cacerts"))?;
    ensure!(
        decode(&cacerts["data"]["root-cert.pem"])?
            == record["data"]["data"]["root-cert.pem"].as_str().unwrap_or_default()
    );
    // The fault hit: more than one of them made a key.
    let made = gates.iter().filter(|gate| gate.process.log().contains("made a root key")).count();
    let written = gates.iter().filter(|gate| gate.process.log().contains("wrote it to")).count();
    ensure!(made >= 2, "only {made} of them raced");
    ensure!(written == 1, "{written} of them say that they wrote it");
    println!("{made} of 5 replicas made a key, 1 wrote it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_addresses_that_are_two_vaults_make_no_root() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let other = Vault::start(VaultOptions::default()).await?;
    let gate = Gate::launch(side, vault, Options { vaults: &[vault, &other], ..Options::default() }).await?;
    side.point_webhooks_at(&[gate.port()]).await?;
    side.is_injected().await?;
    side.deploy_istiod().await?;
    let message = side.refusal("istiod", "VaultAmbiguous").await?;
    ensure!(message.contains(vault.address()) && message.contains(other.address()), "{message}");
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    ensure!(other.versions("secret", "istio/ca").await?.is_empty());
    ensure!(side.cacerts().await?.is_none() && side.pin().await?.is_none());

    // Mended: the second address is gone.
    other.stop()?;
    side.pod("istiod").await?;
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_address_takes_over_when_the_first_is_down() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let down = Vault::start(VaultOptions::default()).await?;
    down.stop()?;
    let gate = Gate::launch(side, vault, Options { vaults: &[&down, vault], ..Options::default() }).await?;
    side.point_webhooks_at(&[gate.port()]).await?;
    side.is_injected().await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let report = gate.stands("open", None).await?;
    ensure!(report["vault"]["address"] == vault.address(), "{report}");
    Ok(())
}
