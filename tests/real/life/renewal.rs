//! Signers that are renewed while the mesh runs.

use anyhow::{Result, ensure};
use istio_ca_gate::ca::check::Sound;
use istio_ca_gate::ca::signer::renewal_due;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use testbed::eventually;

use super::prober::Credentials;
use super::rig::{Beginning, Kind, LONG, Member, Rig, SHORT_LIVES};
use crate::mesh::{Verifier, handshake_by};
use crate::signers::{disallow, files};
use crate::signing::{fails, patch};

const BEGINNING: Beginning = Beginning { kind: Kind::Signing, lives: SHORT_LIVES, istiods: 1 };

async fn signers(rig: &Rig) -> Result<[Sound; 2]> {
    Ok([files(&rig.homelab().side).await?, files(&rig.nas().side).await?])
}

/// Waits until a cluster has another signer than this one, of the same key.
async fn renewed(member: &Member, before: &Sound) -> Result<()> {
    let now = eventually("another signer", LONG, || async {
        let now = files(&member.side).await?;
        ensure!(now.signing_ca != before.signing_ca, "still the same");
        Ok(now)
    })
    .await?;
    ensure!(now.bundle.ca_key == before.bundle.ca_key && now.bundle.root_cert == before.bundle.root_cert);
    Ok(())
}

async fn both_renewed(rig: &Rig) -> Result<()> {
    let before = signers(rig).await?;
    for (member, before) in rig.members.iter().zip(&before) {
        renewed(member, before).await?;
    }
    Ok(())
}

async fn pids(rig: &Rig) -> [Vec<u32>; 2] {
    [rig.homelab().node.pids().await, rig.nas().node.pids().await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_renewed_under_running_istiods_and_no_handshake_fails() -> Result<()> {
    let rig = Rig::start(BEGINNING).await?;
    let before = pids(&rig).await;
    let [shop, .., archive] = rig.prober.parties() else { anyhow::bail!("no workloads") };
    let old = Credentials::of(shop).await?;
    let tally = rig.handshakes(both_renewed(&rig)).await?;
    println!("life: a signer renewed in each cluster: {tally}");
    ensure!(before == pids(&rig).await, "an istiod was restarted");
    tally.is_whole()?;
    // In the moment of a renewal istiod may answer with a new leaf and the old chain: the key is the same.
    let (new, peer) = (Credentials::of(shop).await?, Credentials::of(archive).await?);
    ensure!(new.behind_the_leaf() != old.behind_the_leaf(), "by the old signer still");
    for verifier in [Verifier::Webpki, Verifier::Envoy] {
        handshake_by(verifier, &new.behind(&old).end(), &peer.end())??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn whatever_keeps_a_signer_from_being_renewed_no_handshake_fails() -> Result<()> {
    let rig = Rig::start(BEGINNING).await?;
    let before = pids(&rig).await;
    let tally = rig.handshakes(away(&rig)).await?;
    println!("life: Vault away while signers were due: {tally}");
    tally.is_whole()?;
    let tally = rig.handshakes(right_taken_away(&rig)).await?;
    println!("life: the issuer's right, and a cluster's, taken away and given back: {tally}");
    tally.is_whole()?;
    let tally = rig.handshakes(mount_gone(&rig)).await?;
    println!("life: the PKI mount gone: {tally}");
    tally.is_whole()?;
    ensure!(before == pids(&rig).await, "an istiod was restarted");
    Ok(())
}

/// Waits until a cluster's signer is to be renewed.
async fn is_due(member: &Member) -> Result<()> {
    let due = renewal_due(&files(&member.side).await?.signing_ca, member.side.name);
    eventually("a renewal to be due", LONG, || async { (Timestamp::now() > due).then_some(()) }).await
}

/// Waits until renewals in a cluster are refused.
async fn refused(member: &Member) -> Result<()> {
    is_due(member).await?;
    fails(&member.gate, "SigningRefused").await
}

async fn away(rig: &Rig) -> Result<()> {
    rig.vault.stop()?;
    let before = signers(rig).await?;
    for member in &rig.members {
        is_due(member).await?;
    }
    rig.prober.all_renewed(LONG).await?;
    for (before, now) in before.iter().zip(signers(rig).await?) {
        ensure!(before.signing_ca == now.signing_ca, "it was renewed without Vault");
    }
    rig.vault.start_again().await?;
    for (member, before) in rig.members.iter().zip(&before) {
        renewed(member, before).await?;
    }
    Ok(())
}

async fn right_taken_away(rig: &Rig) -> Result<()> {
    patch(&rig.vault, json!({ "usage": "read-only,crl-signing" })).await?;
    for member in &rig.members {
        refused(member).await?;
    }
    rig.prober.all_renewed(LONG).await?;
    patch(&rig.vault, json!({ "usage": "read-only,issuing-certificates,crl-signing" })).await?;
    both_renewed(rig).await?;
    disallow(&rig.vault, &rig.nas().side).await?;
    refused(rig.nas()).await?;
    rig.prober.all_renewed(LONG).await?;
    crate::signers::allow(&rig.vault, &rig.nas().side, SHORT_LIVES[1]).await?;
    both_renewed(rig).await
}

async fn mount_gone(rig: &Rig) -> Result<()> {
    rig.vault.ok("DELETE", "sys/mounts/pki-mesh", None).await?;
    for member in &rig.members {
        refused(member).await?;
    }
    rig.prober.all_renewed(LONG).await
}
