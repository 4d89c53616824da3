//! What tests of signers ask of a Vault and read of a cluster, embedded or real.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::ca::bundle::Bundle;
use istio_ca_gate::ca::check::{Sound, check};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::side::{NAMESPACE, SOON, Side, shipped_policy};
use testbed::{VaultApi, eventually};

const SIGNER: &str = include_str!("../../deploy/vault/istio-ca-signer.hcl");
const ROOT: &str = include_str!("../../deploy/vault/istio-ca-root.hcl");

/// Begun an hour before it is made, two thirds of such a life are over within seconds, in the homelab.
pub const SHORT_LIFE: &str = "1400s";

/// The PKI engine, and what each side may ask of it. Tests of renewals have other lives.
pub async fn enable(vault: &VaultApi, sides: &[&Side], life: &str) -> Result<()> {
    let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    vault.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
    for side in sides {
        allow(vault, side, life).await?;
    }
    Ok(())
}

/// Gives a side its rights, with signers of this life.
pub async fn allow(vault: &VaultApi, side: &Side, life: &str) -> Result<()> {
    vault.policy(&side.policy(), &policy(side, life)).await
}

/// What a side may do, with signers of this life.
pub fn policy(side: &Side, life: &str) -> String {
    let shipped = shipped_policy(side.role);
    let signer = SIGNER.replace("CLUSTER", side.name).replace("2160h", life);
    let root = if side.role == "bootstrap" { ROOT } else { "" };
    format!("{shipped}\n{root}\n{signer}")
}

/// Takes those of signing away again.
pub async fn disallow(vault: &VaultApi, side: &Side) -> Result<()> {
    vault.policy(&side.policy(), shipped_policy(side.role)).await
}

/// What must hold of clusters under one root: each has a signer of its own, and none the root's key.
pub async fn are_signed(vault: &VaultApi, sides: &[&Side]) -> Result<()> {
    let record = record(vault).await?;
    let keys: Vec<_> = record.as_object().context("no record")?.keys().cloned().collect();
    ensure!(keys == ["issuer", "root-cert.pem"] && !record.to_string().contains("PRIVATE"), "{keys:?}");
    let mut seen = Vec::new();
    for side in sides {
        let sound = files(side).await?;
        ensure!(sound.bundle.root_cert == record["root-cert.pem"].as_str().context("no root")?.as_bytes());
        ensure!(!sound.signs_with_the_root() && !seen.contains(&sound.bundle.ca_key), "a key is in two places");
        let pin = side.pin().await?.context("no pin")?;
        ensure!(pin["data"]["root-sha256"] == sound.root.to_string(), "{pin}");
        let last = pin["data"]["signers"].as_str().and_then(|signers| signers.lines().last());
        ensure!(last == Some(sound.signing_ca.sha256.to_string().as_str()), "{pin}");
        let secret = side.cacerts().await?.context("no cacerts")?;
        let state = &secret["metadata"]["annotations"]["istio-ca-gate.io/record-state"];
        ensure!(*state == pin["data"]["record-state"] && state.is_string(), "{state}");
        seen.push(sound.bundle.ca_key.clone());
    }
    Ok(())
}

/// Waits until a cluster has another signer than this one, of the same key and under the same root, and returns it.
pub async fn renewed(side: &Side, before: &Sound) -> Result<Sound> {
    let sound = eventually("the renewal", SOON, || async {
        let sound = files(side).await?;
        ensure!(sound.signing_ca != before.signing_ca);
        Ok(sound)
    })
    .await?;
    ensure!(sound.bundle.ca_key == before.bundle.ca_key, "another key");
    ensure!(sound.bundle.root_cert == before.bundle.root_cert && sound.root == before.root, "another root");
    Ok(sound)
}

/// Waits for an Event.
pub async fn event(side: &Side, reason: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
    eventually(reason, SOON, || async {
        let events = side.object(&path).await?.context("no events")?;
        let told = events["items"].as_array().into_iter().flatten().any(|event| event["reason"] == reason);
        ensure!(told, "{events}");
        Ok(())
    })
    .await
}

/// What istiod reads, once it is there and sound.
pub async fn files(side: &Side) -> Result<Sound> {
    let secret = side.cacerts().await?.context("no cacerts")?;
    let data = secret["data"].as_object().context("no data")?;
    let data: Vec<(&str, Vec<u8>)> = data
        .iter()
        .map(|(name, text)| Ok((name.as_str(), STANDARD.decode(text.as_str().context("no text")?)?)))
        .collect::<Result<_>>()?;
    let bundle = Bundle::from_secret(data.iter().map(|(name, bytes)| (*name, bytes.as_slice())))?;
    Ok(check(bundle, Timestamp::now())?)
}

pub async fn record(vault: &VaultApi) -> Result<Value> {
    Ok(vault.ok("GET", "secret/data/istio/ca", None).await?["data"]["data"].clone())
}
