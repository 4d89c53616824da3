//! What may happen to `cacerts`, and what is done about it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Program, eventually};

use crate::gate::{Gate, Options};
use crate::world::{NAMESPACE, SOON, Side, SmallWorld};

const SECRET: &str = "/api/v1/namespaces/istio-system/secrets/cacerts";

/// An open homelab.
async fn open(flags: &[&str]) -> Result<(SmallWorld, Gate)> {
    let world = SmallWorld::homelab().await?;
    let gate = Gate::start_with(&world.side, &world.vault, Options { flags, ..Options::default() }).await?;
    world.side.deploy_istiod().await?;
    world.side.pod("istiod").await?;
    gate.stands("open", None).await?;
    Ok((world, gate))
}

/// Waits until `cacerts` has this data again.
async fn mended(side: &Side, data: &Value) -> Result<()> {
    eventually("cacerts to be mended", SOON, || async {
        let cacerts = side.cacerts().await?.context("no cacerts")?;
        ensure!(cacerts["data"] == *data, "it is still another");
        Ok(())
    })
    .await
}

/// A self-signed CA, made by openssl, as the data of a Secret.
pub async fn foreign_ca() -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (key, certificate) = (file("key.pem"), file("cert.pem"));
    Program::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/O=Other/CN=Other"])
        .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", &key, "-out", &certificate])
        .output(None)
        .await?;
    let (key, certificate) = (std::fs::read_to_string(key)?, std::fs::read_to_string(certificate)?);
    Ok(json!({
        "root-cert.pem": certificate, "cert-chain.pem": certificate, "ca-cert.pem": certificate, "ca-key.pem": key,
    }))
}

async fn patch(side: &Side, patch: &Value) -> Result<()> {
    let text = patch.to_string();
    side.cluster.kubectl(&["-n", NAMESPACE, "patch", "secret", "cacerts", "--type=merge", "-p", &text]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_or_tampered_with_it_is_mended_to_the_byte() -> Result<()> {
    let (world, gate) = open(&[]).await?;
    let side = &world.side;
    let data = side.cacerts().await?.context("no cacerts")?["data"].clone();

    side.delete_cacerts().await?;
    mended(side, &data).await?;
    for file in ["root-cert.pem", "ca-key.pem", "cert-chain.pem", "ca-cert.pem"] {
        patch(side, &json!({ "stringData": { file: "tampered with" } })).await?;
        mended(side, &data).await?;
    }
    let other = foreign_ca().await?;
    patch(side, &json!({ "stringData": other })).await?;
    mended(side, &data).await?;

    // With the certificates of Vault in other bytes it is open, and left alone.
    let root = crate::story::decode(&data["root-cert.pem"])?;
    patch(side, &json!({ "stringData": { "root-cert.pem": format!("{root}\n") } })).await?;
    side.restart("istiod").await?;
    side.pod("istiod").await?;
    eventually("the warning about other bytes", SOON, || async {
        gate.process.log().contains("in other bytes").then_some(())
    })
    .await?;

    ensure!(world.vault.versions("secret", "istio/ca").await? == [1]);
    gate.stands("open", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_istiod_after_a_deletion_is_kept_out_until_it_is_back() -> Result<()> {
    let (world, gate) = open(&[]).await?;
    let (side, vault) = (&world.side, &world.vault);
    // Vault cannot help, so that what the gate does meanwhile can be seen.
    vault.stop()?;
    side.delete_cacerts().await?;
    gate.stands("held", Some("VaultUnreachable")).await?;
    side.restart("istiod").await?;
    side.refusal("istiod", "VaultUnreachable").await?;
    side.deploy("bystander", json!({ "app": "bystander" })).await?;
    side.pod("bystander").await?;
    ensure!(!gate.process.log().contains("bystander"), "an unrelated pod was brought before the gate");
    vault.start_again().await?;
    side.pod("istiod").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_what_istiod_reads_keep_it_out() -> Result<()> {
    let (world, gate) = open(&[]).await?;
    let side = &world.side;
    for key in ["tls.crt", "istio-generated"] {
        patch(side, &json!({ "stringData": { key: "x" } })).await?;
        let report = gate.stands("held", Some("CacertsInvalid")).await?;
        ensure!(report["message"].as_str().is_some_and(|message| message.contains(key)), "{report}");
        side.restart("istiod").await?;
        side.refusal("istiod", "CacertsInvalid").await?;
        patch(side, &json!({ "data": { key: null } })).await?;
        side.pod("istiod").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_sound_root_is_never_overwritten() -> Result<()> {
    let (world, gate) = open(&[]).await?;
    let side = &world.side;
    side.delete_cacerts().await.ok();
    let other = foreign_ca().await?;
    // The gate may be faster with a new one: replace whatever is there by one that is not ours.
    eventually("the foreign Secret to be in place", SOON, || async {
        side.cluster.request("DELETE", SECRET, None).await?;
        let secret = json!({ "metadata": { "name": "cacerts" }, "stringData": other });
        let (status, answer) =
            side.cluster.request("POST", "/api/v1/namespaces/istio-system/secrets", Some(secret)).await?;
        ensure!(status == 201, "{answer}");
        Ok(())
    })
    .await?;
    let report = gate.stands("held", Some("RootChanged")).await?;
    ensure!(report["match"] == false && report["cacerts"]["sha256"] != report["vault"]["sha256"], "{report}");
    side.restart("istiod").await?;
    side.refusal("istiod", "RootChanged").await?;
    let data = side.cacerts().await?.context("no cacerts")?["data"].clone();
    for (file, pem) in other.as_object().context("an object")? {
        ensure!(crate::story::decode(&data[file])? == pem.as_str().unwrap_or_default(), "{file} was written");
    }
    // A person decides.
    side.delete_cacerts().await?;
    side.pod("istiod").await?;
    ensure!(world.vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vault_never_had_is_not_replaced() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let secret = json!({ "metadata": { "name": "cacerts" }, "stringData": foreign_ca().await? });
    let (status, answer) =
        side.cluster.request("POST", "/api/v1/namespaces/istio-system/secrets", Some(secret)).await?;
    ensure!(status == 201, "{answer}");
    let before = side.cacerts().await?;
    let _gate = Gate::start(side, vault).await?;
    side.deploy_istiod().await?;
    side.refusal("istiod", "CacertsUnknown").await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    ensure!(side.cacerts().await? == before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_lost_by_vault_is_not_made_again() -> Result<()> {
    let (world, gate) = open(&["--refresh", "1s"]).await?;
    let (side, vault) = (&world.side, &world.vault);
    let (_, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
    gate.stands("held", Some("RootDeleted")).await?;
    side.delete_cacerts().await?;
    side.restart("istiod").await?;
    let message = side.refusal("istiod", "RootDeleted").await?;
    ensure!(message.contains("ConfigMap istio-system/istio-ca-gate"), "{message}");
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty() && side.cacerts().await?.is_none());
    // Restored from a backup, it goes on as if nothing had been.
    let data = json!({ "data": record["data"]["data"] });
    vault.api("POST", "secret/data/istio/ca", Some(data)).await?;
    side.pod("istiod").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_side_dry_run_changes_nothing() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let gate = Gate::start(side, vault).await?;
    let pod = json!({
        "metadata": { "name": "istiod-dry", "labels": { "app": "istiod" } },
        "spec": { "containers": [{ "name": "c", "image": "registry.example/istio" }] },
    });
    let path = "/api/v1/namespaces/istio-system/pods?dryRun=All";
    let (status, answer) = side.cluster.request("POST", path, Some(pod.clone())).await?;
    ensure!(
        status == 403 && answer["message"].as_str().is_some_and(|m| m.contains("DryRun: cluster homelab")),
        "{answer}"
    );
    ensure!(gate.fingerprint().await?["state"] == "dormant");
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    ensure!(side.cacerts().await?.is_none() && side.pin().await?.is_none());
    ensure!(!gate.process.log().contains("logged in to Vault"));
    // Once open, a dry run is told so.
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let (status, answer) = side.cluster.request("POST", path, Some(pod)).await?;
    ensure!(status == 201, "{answer}");
    Ok(())
}
