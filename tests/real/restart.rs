//! What outlives a process.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::eventually;

use crate::gate::{Gate, Options};
use crate::world::{SOON, World};

/// After so many refusals the ReplicaSet controller waits for 20 s until the next try: 5 ms, doubled each time.
const DEEP: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_started_again_opens_pods_deep_in_back_off_with_nobody_asking() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let nas_gate = Gate::start(nas, vault).await?;
    let _homelab_gate = Gate::start(homelab, vault).await?;
    nas.deploy_istiod().await?;
    nas.refusal("istiod", "RootMissing").await?;
    eventually("the ReplicaSet to be deep in back-off", Duration::from_secs(60), || async {
        let refused = nas.refused("istiod").await?;
        ensure!(refused >= DEEP, "{refused} refusals");
        Ok(())
    })
    .await?;
    let refused = nas.refused("istiod").await?;

    nas_gate.process.stop()?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    ensure!(nas.cacerts().await?.is_none() && nas.pods("istiod").await?.is_empty());

    let began = Instant::now();
    nas_gate.process.start_again()?;
    nas.pod("istiod").await?;
    println!("gate started again to the blocked pod: {:.3} s", began.elapsed().as_secs_f64());
    // Nobody asked: the controller was not heard of in between.
    let asked = nas_gate.process.log().matches("\"denied\"").count();
    println!("refusals before: {refused}; after: {}; denials logged: {asked}", nas.refused("istiod").await?);
    ensure!(nas.refused("istiod").await? <= refused + 1);
    eventually("the touch to be logged", SOON, || async {
        nas_gate.process.log().contains("touched a blocked owner").then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_cluster_outlives_a_vault_that_is_away() -> Result<()> {
    let world = crate::world::SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;

    // A new process that has never reached Vault goes by the pin.
    vault.stop()?;
    gate.process.stop()?;
    gate.process.start_again()?;
    let report = gate.stands("open", Some("VaultUnreachable")).await?;
    ensure!(report["vault"].is_null() && report["match"] == false, "{report}");
    side.restart("istiod").await?;
    side.pod("istiod").await?;
    ensure!(gate.process.log().contains("allowed_unverified"));

    // But not where the user wants none of it, and not for another root.
    side.delete_cacerts().await?;
    gate.stands("held", Some("VaultUnreachable")).await?;
    side.restart("istiod").await?;
    side.refusal("istiod", "VaultUnreachable").await?;
    vault.start_again().await?;
    side.pod("istiod").await?;
    gate.stands("open", None).await?;
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_starts_long_before_its_api_server_is_open_soon_after_it() -> Result<()> {
    let world = crate::world::SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    gate.process.stop()?;
    side.cluster.stop_api_server()?;
    gate.process.start_again()?;
    let away = Instant::now();
    eventually("its pauses to be at their cap", Duration::from_secs(90), || async {
        (away.elapsed() > Duration::from_secs(40)).then_some(())
    })
    .await?;
    ensure!(gate.process.log().contains("KubernetesUnreachable"), "{}", gate.process.log());

    let back = Instant::now();
    side.cluster.start_api_server().await?;
    println!("API server: {:.1} s", back.elapsed().as_secs_f64());
    gate.ready().await?;
    println!("gate ready: {:.1} s", back.elapsed().as_secs_f64());
    gate.stands("open", None).await?;
    println!("gate open: {:.1} s", back.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_starts_long_before_its_namespace_exists_is_ready_soon_after_it() -> Result<()> {
    let world = crate::world::SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    side.cluster.kubectl(&["create", "namespace", "later"]).await?;
    // Its account has rights in its own namespace alone.
    let admin = side.cluster.kubeconfig().to_string_lossy().into_owned();
    let flags = ["--namespace", "later", "--kubeconfig", admin.as_str()];
    let gate = Gate::launch(side, vault, Options { flags: &flags, ..Options::default() }).await?;
    gate.process.stop()?;
    side.cluster.kubectl(&["delete", "namespace", "later", "--wait"]).await?;
    gate.process.start_again()?;
    let away = Instant::now();
    eventually("its pauses to be at their cap", Duration::from_secs(90), || async {
        (away.elapsed() > Duration::from_secs(30)).then_some(())
    })
    .await?;
    let readyz = || async {
        let answer = reqwest::get(gate.url("readyz")).await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
        Ok(())
    };
    ensure!(readyz().await.is_err(), "it is ready without its namespace");

    let back = Instant::now();
    side.cluster.kubectl(&["create", "namespace", "later"]).await?;
    // A pause of at most two seconds, and what a busy machine takes.
    eventually("the gate to be ready", Duration::from_secs(10), readyz).await?;
    println!("gate ready {:.1} s after its namespace", back.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vault_has_said_against_the_root_outlives_a_gate_that_is_started_while_vault_is_away() -> Result<()> {
    let world = crate::world::SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    // An open gate compares at each refresh, and not at each pod.
    let options = Options { flags: &["--refresh", "1s"], ..Options::default() };
    let gate = Gate::start_with(side, vault, options).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;

    vault.cli(&["kv", "delete", "secret/istio/ca"]).await?;
    side.restart("istiod").await?;
    gate.stands("held", Some("RootDeleted")).await?;
    let pin = side.pin().await?.unwrap_or_default();
    ensure!(pin["data"]["contradicted-by"] == "RootDeleted", "{pin}");

    vault.stop()?;
    gate.stands("held", Some("VaultUnreachable")).await?;
    gate.process.stop()?;
    gate.process.start_again()?;
    gate.stands("held", Some("VaultUnreachable")).await?;
    // A ReplicaSet keeps the first refusal that it met: another one meets this.
    side.restart("istiod").await?;
    side.refusal("istiod", "VaultUnreachable").await?;
    ensure!(!gate.process.log().contains("allowed_unverified"));

    vault.start_again().await?;
    gate.stands("held", Some("RootDeleted")).await?;
    vault.cli(&["kv", "undelete", "-versions=1", "secret/istio/ca"]).await?;
    gate.stands("open", None).await?;
    let pin = side.pin().await?.unwrap_or_default();
    ensure!(pin["data"]["contradicted-by"].is_null(), "{pin}");
    side.pod("istiod").await?;
    Ok(())
}
