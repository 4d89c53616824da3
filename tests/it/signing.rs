//! A signer for each cluster: two gates, with the rights of deploy/, before a Vault in memory whose PKI engine has the root.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::ca::bundle::Bundle;
use istio_ca_gate::ca::check::{Sound, check};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::side::{SOON, Side};
use testbed::{VaultApi, eventually};

use crate::world::{Gate, World};

const SIGNER: &str = include_str!("../../deploy/vault/istio-ca-signer.hcl");
const ROOT: &str = include_str!("../../deploy/vault/istio-ca-root.hcl");

/// The PKI engine, and what each side may ask of it. Tests of renewals have other lives.
async fn enable(vault: &VaultApi, sides: &[&Side], life: &str) -> Result<()> {
    let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    vault.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
    for side in sides {
        let shipped = testbed::side::shipped_policy(side.role);
        let signer = SIGNER.replace("CLUSTER", side.name).replace("2160h", life);
        let root = if side.role == "bootstrap" { ROOT } else { "" };
        vault.policy(&side.policy(), &format!("{shipped}\n{signer}\n{root}")).await?;
    }
    Ok(())
}

async fn gate(side: &Side, vault: &VaultApi, folder: &Path, flags: &[&str]) -> Result<Gate> {
    let flags: Vec<&str> = ["--vault-pki-mount", "pki-mesh"].iter().chain(flags).copied().collect();
    Gate::start(side, vault, folder, &flags).await
}

/// What istiod reads, once it is there and sound.
async fn files(side: &Side) -> Result<Sound> {
    let secret = side.cacerts().await?.context("no cacerts")?;
    let data = secret["data"].as_object().context("no data")?;
    let data: Vec<(&str, Vec<u8>)> = data
        .iter()
        .map(|(name, text)| Ok((name.as_str(), STANDARD.decode(text.as_str().context("no text")?)?)))
        .collect::<Result<_>>()?;
    let bundle = Bundle::from_secret(data.iter().map(|(name, bytes)| (*name, bytes.as_slice())))?;
    Ok(check(bundle, Timestamp::now())?)
}

async fn record(vault: &VaultApi) -> Result<Value> {
    Ok(vault.ok("GET", "secret/data/istio/ca", None).await?["data"]["data"].clone())
}

/// The value of a metric with this label, whose labels come in any order.
async fn metric(gate: &Gate, name: &str, label: &str) -> Result<Option<String>> {
    let text = gate.get("metrics").await?;
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
    Ok(line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_each_cluster_gets_a_signer_of_its_own_and_no_cluster_the_roots_key() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, nas, vault, .. } = &world;
    enable(vault, &[homelab, nas], "2160h").await?;
    let first = gate(homelab, vault, folder.path(), &[]).await?;
    let second = gate(nas, vault, folder.path(), &[]).await?;
    nas.deploy_istiod().await?;
    nas.refusal("istiod", "RootMissing").await?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    nas.pod("istiod").await?;

    let record = record(vault).await?;
    let keys: Vec<_> = record.as_object().context("no record")?.keys().cloned().collect();
    ensure!(keys == ["issuer", "root-cert.pem"], "{keys:?}");
    ensure!(!record.to_string().contains("PRIVATE"), "a key is in the record");
    let (one, other) = (files(homelab).await?, files(nas).await?);
    ensure!(one.root == other.root && !one.signs_with_the_root() && !other.signs_with_the_root());
    ensure!(one.bundle.ca_key.expose() != other.bundle.ca_key.expose(), "a key is in two clusters");
    ensure!(one.bundle.root_cert == record["root-cert.pem"].as_str().context("no root")?.as_bytes());
    for (side, sound) in [(homelab, &one), (nas, &other)] {
        let pin = side.pin().await?.context("no pin")?;
        ensure!(pin["data"]["signers"] == sound.signing_ca.sha256.to_string(), "{pin}");
        let secret = side.cacerts().await?.context("no cacerts")?;
        let state = &secret["metadata"]["annotations"]["istio-ca-gate.io/record-state"];
        ensure!(*state == pin["data"]["record-state"] && state.is_string(), "{state}");
    }
    let ends = metric(&second, "istio_ca_gate_signer_not_after_timestamp_seconds", "nas").await?;
    ensure!(ends == Some(other.signing_ca.valid_until.as_second().to_string()), "{ends:?}");
    for gate in [first, second] {
        ensure!(!gate.log().contains("PRIVATE"), "a key is in the log");
        gate.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_renewed_with_its_key_while_the_gate_is_open_and_what_fails_is_told() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, vault, .. } = &world;
    // Begun an hour before it is made, so that two thirds of its life are over within seconds.
    enable(vault, &[homelab], "1400s").await?;
    let flags = ["--signer-life", "1400s", "--refresh", "1s", "--max-staleness", "1h"];
    let gate = gate(homelab, vault, folder.path(), &flags).await?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    let first = files(homelab).await?;
    // The right is taken away: what is in use stays so.
    let shipped = testbed::side::shipped_policy("bootstrap");
    vault.policy(&homelab.policy(), shipped).await?;
    eventually("a renewal that fails", SOON, || async {
        let failed = metric(&gate, "istio_ca_gate_signer_renewals_total", r#"outcome="SigningRefused""#);
        failed.await?.context("none yet").map(|_| ())
    })
    .await?;
    let report = gate.stands("open", None).await?;
    ensure!(report["match"] == true, "{report}");
    event(homelab, "SignerRenewalFailed").await?;
    ensure!(files(homelab).await?.signing_ca == first.signing_ca);
    // And given back.
    let signer = SIGNER.replace("CLUSTER", homelab.name).replace("2160h", "1400s");
    vault.policy(&homelab.policy(), &format!("{shipped}\n{signer}")).await?;
    let second = eventually("the renewal", SOON, || async {
        let sound = files(homelab).await?;
        ensure!(sound.signing_ca != first.signing_ca);
        Ok(sound)
    })
    .await?;
    ensure!(second.bundle.ca_key.expose() == first.bundle.ca_key.expose(), "another key");
    ensure!(second.bundle.root_cert == first.bundle.root_cert && second.root == first.root);
    event(homelab, "SignerRenewed").await?;
    gate.stands("open", None).await?;
    gate.stop().await
}

async fn event(side: &Side, reason: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/events", testbed::side::NAMESPACE);
    eventually(reason, SOON, || async {
        let events = side.object(&path).await?.context("no events")?;
        let told = events["items"].as_array().into_iter().flatten().any(|event| event["reason"] == reason);
        ensure!(told, "{events}");
        Ok(())
    })
    .await
}
