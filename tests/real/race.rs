//! Several replicas at once, and addresses that are not one Vault.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use testbed::{Vault, VaultOptions, eventually};

use crate::gate::{Gate, Options};
use crate::story::decode;
use crate::world::{SOON, SmallWorld};

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

    // Down, it may still be the one that has the root.
    other.stop()?;
    eventually("the gate to name the flag", SOON, || async {
        let report = gate.stands("held", Some("VaultAmbiguous")).await?;
        ensure!(report["message"].as_str().is_some_and(|text| text.contains("--vault-gone")), "{report}");
        Ok(())
    })
    .await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    drop(gate);

    // Mended: somebody says that it is gone for good.
    let flags = ["--vault-gone", other.address()];
    let options = Options { vaults: &[vault, &other], flags: &flags, ..Options::default() };
    let _gate = Gate::start_with(side, vault, options).await?;
    side.pod("istiod").await?;
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_mesh_on_a_root_of_its_own_nothing_is_made_until_what_it_left_is_gone() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let left = rcgen::generate_simple_self_signed(["istiod".to_owned()])?.cert.pem();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": left } });
    let path = "/api/v1/namespaces/istio-system/configmaps";
    let (status, made) = side.cluster.request("POST", path, Some(map)).await?;
    ensure!(status == 201, "{status} {made}");
    let _gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.refusal("istiod", "MeshOnOtherRoot").await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    ensure!(side.cacerts().await?.is_none() && side.pin().await?.is_none());
    let (status, gone) = side.cluster.request("DELETE", &format!("{path}/istio-ca-root-cert"), None).await?;
    ensure!(status == 200, "{status} {gone}");
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
    let flags = ["--vault-gone", down.address()];
    let options = Options { vaults: &[&down, vault], flags: &flags, ..Options::default() };
    let gate = Gate::launch(side, vault, options).await?;
    side.point_webhooks_at(&[gate.port()]).await?;
    side.is_injected().await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let report = gate.stands("open", None).await?;
    ensure!(report["vault"]["address"] == vault.address(), "{report}");
    Ok(())
}
