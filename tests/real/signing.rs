//! A signer for each cluster, certified by the real Vault's PKI engine and read by the real istiod's rules.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::check::Sound;
use serde_json::json;
use testbed::eventually;

use crate::gate::{Gate, Options};
use crate::signers::{SHORT_LIFE, allow, are_signed, disallow, enable, event, files, renewed};
use crate::world::{SOON, SmallWorld, World};

const ENGINE: [&str; 2] = ["--vault-pki-mount", "pki-mesh"];

/// openssl, as Envoy's family verifies: a signer by what its cluster trusts.
async fn openssl_agrees(sound: &Sound) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [root, ca] = ["root", "ca"].map(|name| folder.path().join(name));
    std::fs::write(&root, &sound.bundle.root_cert)?;
    std::fs::write(&ca, &sound.bundle.ca_cert)?;
    let verified = tokio::process::Command::new("openssl")
        .args(["verify", "-partial_chain", "-x509_strict", "-CAfile"])
        .args([&root, &ca])
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_vault_makes_the_root_and_each_cluster_gets_a_signer_of_its_own() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    enable(vault, &[homelab, nas], "2160h").await?;
    let options = || Options { flags: &ENGINE, ..Options::default() };
    let gates = [Gate::start_with(nas, vault, options()).await?, Gate::start_with(homelab, vault, options()).await?];
    nas.deploy_istiod().await?;
    nas.refusal("istiod", "RootMissing").await?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    nas.pod("istiod").await?;
    are_signed(vault, &[homelab, nas]).await?;
    for side in [homelab, nas] {
        let sound = files(side).await?;
        openssl_agrees(&sound).await?;
        let life = sound.signing_ca.valid_until.duration_since(sound.signing_ca.valid_from);
        ensure!((90 * 24..=90 * 24 + 1).contains(&life.as_hours()), "{life:?}");
        println!("{}: signer {} under root {}", side.name, sound.signing_ca.sha256, sound.root);
    }
    let issuers = vault.api("LIST", "pki-mesh/issuers", None).await?.1;
    ensure!(issuers["data"]["keys"].as_array().map(Vec::len) == Some(1), "{issuers}");
    // At debug, too.
    for gate in gates {
        ensure!(!gate.process.log().contains("PRIVATE"), "a key is in the log");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_renewed_live_whatever_kept_it_from_being_so() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    enable(vault, &[side], SHORT_LIFE).await?;
    let flags = [&ENGINE[..], &["--signer-life", SHORT_LIFE, "--refresh", "1s", "--max-staleness", "1h"]].concat();
    let gate = Gate::start_with(side, vault, Options { flags: &flags, ..Options::default() }).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let first = files(side).await?;
    let second = renewed(side, &first).await?;
    openssl_agrees(&second).await?;
    event(side, "SignerRenewed").await?;

    // The policy lacks the path.
    disallow(vault, side).await?;
    fails(&gate, "SigningRefused").await?;
    event(side, "SignerRenewalFailed").await?;
    let before = files(side).await?;
    allow(vault, side, SHORT_LIFE).await?;
    let third = renewed(side, &before).await?;

    // The issuer may not issue any more.
    let usage = |usage: &str| json!({ "usage": usage });
    patch(vault, usage("read-only,crl-signing")).await?;
    let before = settled(&gate, side, &third).await?;
    patch(vault, usage("read-only,issuing-certificates,crl-signing")).await?;
    let fourth = renewed(side, &before).await?;

    // Vault is away.
    vault.stop()?;
    side.restart("istiod").await?;
    side.pod("istiod").await?;
    let before = files(side).await?;
    ensure!(before.bundle.ca_key == fourth.bundle.ca_key);
    vault.start_again().await?;
    let fifth = renewed(side, &before).await?;

    // The engine is gone, and its root's key with it: the mesh goes on with what it has.
    vault.ok("DELETE", "sys/mounts/pki-mesh", None).await?;
    let last = settled(&gate, side, &fifth).await?;
    gate.stands("open", None).await?;
    side.restart("istiod").await?;
    side.pod("istiod").await?;
    println!(
        "renewed from {} to {}, one key, the gate open all the time",
        first.signing_ca.sha256, last.signing_ca.sha256
    );
    Ok(())
}

pub async fn patch(vault: &testbed::Vault, change: serde_json::Value) -> Result<()> {
    let (status, answer) = vault.api("PATCH", "pki-mesh/issuer/root-1", Some(change)).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// How many renewals have failed for this reason.
async fn failures(gate: &Gate, reason: &str) -> Result<f64> {
    let text = reqwest::get(gate.url("metrics")).await?.text().await?;
    let name = "istio_ca_gate_signer_renewals_total";
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(&format!("outcome=\"{reason}\"")));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default())
}

/// Waits until renewals fail for this reason. The gate is open.
pub async fn fails(gate: &Gate, reason: &str) -> Result<()> {
    let before = failures(gate, reason).await?;
    let what = format!("renewals to fail with {reason}");
    eventually(&what, SOON, || async {
        let now = failures(gate, reason).await?;
        ensure!(now >= before + 2.0, "{now}");
        Ok(())
    })
    .await?;
    gate.stands("open", None).await?;
    Ok(())
}

/// The signer that is left once renewals fail: one more may have come before.
async fn settled(gate: &Gate, side: &testbed::side::Side, before: &Sound) -> Result<Sound> {
    fails(gate, "SigningRefused").await?;
    let sound = files(side).await.context("cacerts")?;
    ensure!(sound.bundle.ca_key == before.bundle.ca_key, "another key");
    Ok(sound)
}
