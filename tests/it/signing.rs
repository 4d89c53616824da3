//! A signer for each cluster: two gates, with the rights of deploy/, before a Vault in memory whose PKI engine has the root.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use standin::faults::{Aim, Fault};
use testbed::side::{SOON, Side};
use testbed::{VaultApi, eventually};

use crate::signers::{SHORT_LIFE, allow, are_signed, disallow, enable, event, files, renewed};
use crate::world::{Gate, World};

async fn gate(side: &Side, vault: &VaultApi, folder: &Path, flags: &[&str]) -> Result<Gate> {
    let flags: Vec<&str> = ["--vault-pki-mount", "pki-mesh"].iter().chain(flags).copied().collect();
    Gate::start(side, vault, folder, &flags).await
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
    are_signed(vault, &[homelab, nas]).await?;
    let until = files(nas).await?.signing_ca.valid_until.as_second().to_string();
    let ends = metric(&second, "istio_ca_gate_signer_not_after_timestamp_seconds", "nas").await?;
    ensure!(ends == Some(until), "{ends:?}");
    for gate in [first, second] {
        ensure!(!gate.log().contains("PRIVATE"), "a key is in the log");
        gate.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signer_is_certified_for_a_cluster_that_may_not_attest() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, nas, vault, .. } = &world;
    enable(vault, &[homelab, nas], "2160h").await?;
    let first = gate(homelab, vault, folder.path(), &[]).await?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    // What the policy of signers has but for the attestation.
    let policy = crate::signers::policy(nas, "2160h");
    let (without, _) = policy.split_once("# What it says of itself").context("no attestation in the policy")?;
    vault.policy(&nas.policy(), without).await?;
    let asked = vault.faults().inject(Fault::Slow(std::time::Duration::ZERO), Aim::all().path("sign-intermediate"));
    let second = gate(nas, vault, folder.path(), &[]).await?;
    nas.deploy_istiod().await?;
    let refusal = nas.refusal("istiod", "SigningRefused").await?;
    ensure!(refusal.contains("does not know of") && refusal.contains("istio/clusters/nas"), "{refusal}");
    ensure!(asked.hits() == 0 && nas.cacerts().await?.is_none(), "a signer was certified");
    allow(vault, nas, "2160h").await?;
    nas.pod("istiod").await?;
    ensure!(asked.hits() == 1);
    are_signed(vault, &[homelab, nas]).await?;
    for gate in [first, second] {
        gate.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_renewed_with_its_key_while_the_gate_is_open_and_what_fails_is_told() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, vault, .. } = &world;
    enable(vault, &[homelab], SHORT_LIFE).await?;
    let flags = ["--signer-life", SHORT_LIFE, "--refresh", "1s", "--max-staleness", "1h"];
    let gate = gate(homelab, vault, folder.path(), &flags).await?;
    homelab.deploy_istiod().await?;
    homelab.pod("istiod").await?;
    let first = files(homelab).await?;
    // The right is taken away: what is in use stays so.
    disallow(vault, homelab).await?;
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
    allow(vault, homelab, SHORT_LIFE).await?;
    renewed(homelab, &first).await?;
    event(homelab, "SignerRenewed").await?;
    gate.stands("open", None).await?;
    gate.stop().await
}
