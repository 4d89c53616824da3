//! A Vault that is not as it should be: each fault has its own code, and heals without help.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{Vault, eventually};

use crate::gate::{Gate, Options};
use testbed::side::shipped_policy;

use crate::world::{SOON, Side, SmallWorld, World};

/// From the end of a fault to the waiting pod: the cap of the back-off, and the controllers' share.
const HEALED: Duration = Duration::from_secs(10);

/// A Deployment made during the fault is refused with `code`; after `mend`, its pod comes by itself.
async fn refused_then_healed(
    side: &Side,
    name: &str,
    code: &str,
    mend: impl Future<Output = Result<()>>,
) -> Result<String> {
    side.deploy(name, json!({ "app": "istiod", "test": name })).await?;
    let message = side.refusal(name, code).await?;
    mend.await?;
    let began = Instant::now();
    side.pod(name).await?;
    let took = began.elapsed();
    println!("{code}: pod {:.2} s after it was mended", took.as_secs_f64());
    ensure!(took < HEALED, "{code} healed only after {took:?}");
    Ok(message)
}

/// Vault's tokens end, so that the gate has to log in anew.
async fn revoke_tokens(vault: &Vault, mount: &str) -> Result<()> {
    let path = format!("sys/leases/revoke-prefix/auth/{mount}/login");
    let (status, answer) = vault.api("PUT", &path, Some(json!({}))).await?;
    ensure!(status == 204, "{status} {answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_an_open_clusters_vault_has_its_code_and_heals() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let flags = ["--vault-unavailable", "deny", "--refresh", "1s"];
    let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    gate.stands("open", None).await?;

    vault.stop()?;
    gate.stands("held", Some("VaultUnreachable")).await?;
    let message = refused_then_healed(side, "down", "VaultUnreachable", vault.start_again()).await?;
    ensure!(message.contains(vault.address()) && message.contains("Connection refused"), "{message}");

    vault.seal().await?;
    gate.stands("held", Some("VaultSealed")).await?;
    refused_then_healed(side, "sealed", "VaultSealed", vault.unseal()).await?;

    let role = format!("auth/{}/role/istio-ca-bootstrap", side.auth_mount);
    vault.api("DELETE", &role, None).await?;
    revoke_tokens(vault, side.auth_mount).await?;
    gate.stands("held", Some("VaultLoginDenied")).await?;
    let message = refused_then_healed(side, "norole", "VaultLoginDenied", side.grant(vault)).await?;
    ensure!(message.contains("create role istio-ca-bootstrap at auth/kubernetes"), "{message}");

    vault.policy("istio-ca-bootstrap", "path \"secret/data/elsewhere\" { capabilities = [\"read\"] }").await?;
    gate.stands("held", Some("VaultPermissionDenied")).await?;
    let mend = vault.policy("istio-ca-bootstrap", shipped_policy("bootstrap"));
    refused_then_healed(side, "nopolicy", "VaultPermissionDenied", mend).await?;

    vault.cli(&["kv", "delete", "secret/istio/ca"]).await?;
    gate.stands("held", Some("RootDeleted")).await?;
    let undelete = async {
        vault.cli(&["kv", "undelete", "-versions=1", "secret/istio/ca"]).await?;
        Ok(())
    };
    refused_then_healed(side, "deleted", "RootDeleted", undelete).await?;

    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    gate.stands("open", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_each_fault_has_its_code_until_the_root_is_made() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    // The right to read, as the sync role has it: it may not create.
    vault.policy("istio-ca-bootstrap", shipped_policy("sync")).await?;
    vault.stop()?;
    let gate = Gate::start(side, vault).await?;

    let fault = |name: &'static str, code: &'static str| async move {
        side.deploy(name, json!({ "app": "istiod", "test": name })).await?;
        side.refusal(name, code).await
    };
    fault("down", "VaultUnreachable").await?;
    vault.start_sealed().await?;
    gate.stands("held", Some("VaultSealed")).await?;
    fault("sealed", "VaultSealed").await?;
    vault.unseal().await?;
    gate.stands("held", Some("VaultPermissionDenied")).await?;
    let message = fault("readonly", "VaultPermissionDenied").await?;
    ensure!(message.contains("`create` and `read` on secret/data/istio/ca"), "{message}");
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());

    vault.policy("istio-ca-bootstrap", shipped_policy("bootstrap")).await?;
    for name in ["down", "sealed", "readonly"] {
        side.pod(name).await?;
    }
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    ensure!(gate.process.log().matches("made a root key").count() == 1, "the candidate was not kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_that_cannot_hold_a_root_are_told_apart() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let policy = |mount: &str| format!("path \"{mount}/*\" {{ capabilities = [\"create\", \"read\"] }}\n");
    let both = format!("{}{}", policy("one"), policy("none"));
    vault.policy("istio-ca-bootstrap", &both).await?;
    vault.cli(&["secrets", "enable", "-path=one", "-version=1", "kv"]).await?;
    for (mount, says) in [("one", "KV version 1"), ("none", "nothing is mounted there")] {
        let flags = ["--vault-mount", mount];
        let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
        side.deploy(mount, json!({ "app": "istiod", "test": mount })).await?;
        let message = side.refusal(mount, "VaultMountInvalid").await?;
        ensure!(message.contains(says), "{message}");
        drop(gate);
    }
    let (status, answer) = vault.api("GET", "one/data/istio/ca", None).await?;
    ensure!(status == 404, "{answer}");
    ensure!(side.cacerts().await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nas_token_at_the_homelabs_mount_is_told_what_to_do() -> Result<()> {
    let mut world = World::start().await?;
    world.nas.side.auth_mount = world.homelab.auth_mount;
    let World { homelab, nas, vault, .. } = &world;
    // A role that would fit the NAS by name, at the mount that asks the homelab's API server.
    let role = json!({
        "bound_service_account_names": nas.service_account,
        "bound_service_account_namespaces": "istio-system",
        "audience": "vault",
        "policies": "istio-ca-sync",
    });
    vault.role(homelab.auth_mount, "istio-ca-sync", role).await?;
    let gate = Gate::start(nas, vault).await?;
    nas.deploy_istiod().await?;
    let message = nas.refusal("istiod", "VaultLoginDenied").await?;
    ensure!(message.contains("auth/kubernetes") && message.contains("--vault-auth-mount"), "{message}");
    println!("{message}");
    ensure!(gate.fingerprint().await?["vault"].is_null());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_one_policy_file_gave_the_nas_write_rights_and_the_two_files_do_not() -> Result<()> {
    let world = SmallWorld::nas().await?;
    let (side, vault) = (&world.side, &world.vault);
    let seed = "path \"secret/data/istio/ca\" { capabilities = [\"create\", \"read\", \"update\", \"patch\"] }\n\
                path \"secret/data/istio/ca\" { capabilities = [\"read\"] }\n";
    vault.policy("istio-ca-sync", seed).await?;
    let jwt = side.cluster.service_account_token("istio-system", side.service_account, &["vault"], 3600).await?;
    let login = json!({ "role": "istio-ca-sync", "jwt": jwt });
    let (_, answer) = vault.api_with(None, "POST", "auth/kubernetes-nas/login", Some(login)).await?;
    let token = answer["auth"]["client_token"].as_str().unwrap_or_default().to_owned();
    let capabilities = || async {
        let body = json!({ "paths": ["secret/data/istio/ca"] });
        let (_, answer) = vault.api_with(Some(&token), "POST", "sys/capabilities-self", Some(body)).await?;
        anyhow::Ok(answer["data"]["secret/data/istio/ca"].to_string())
    };
    let mistaken = capabilities().await?;
    ensure!(mistaken.contains("create") && mistaken.contains("update"), "{mistaken}");

    // Even with these rights, and an empty Vault, the sync role writes nothing.
    let gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.refusal("istiod", "RootMissing").await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());

    vault.policy("istio-ca-sync", shipped_policy("sync")).await?;
    let mended = capabilities().await?;
    ensure!(mended == "[\"read\"]", "{mended}");
    eventually("the gate to go on with less", SOON, || async {
        (gate.fingerprint().await.ok()?["reason"] == "RootMissing").then_some(())
    })
    .await?;
    Ok(())
}
