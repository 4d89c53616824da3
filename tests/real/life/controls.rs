//! What must break. A mesh in which these do not would prove nothing by the handshakes that succeed.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use testbed::{Vault, eventually};

use super::prober::{Credentials, Engine, Tally};
use super::rig::{Beginning, Kind, LIVES, LONG, Member, Rig, ungate};
use crate::mesh::{Verifier, handshake_by};

/// A CA that istiod may be given, and its key.
struct Signer {
    certificate: String,
    key: String,
}

/// A root of this name, in the engine of the mesh's own.
async fn root(vault: &Vault, name: &str) -> Result<String> {
    let wanted = json!({
        "issuer_name": name, "common_name": format!("Istio Root CA {name}"), "ttl": "87600h", "key_type": "ec",
        "key_bits": "256", "not_before_duration": "1h", "exclude_cn_from_sans": "true",
    });
    let made = vault.ok("POST", "pki-mesh/root/generate/internal", Some(wanted)).await?;
    pem(&made["data"]["certificate"])
}

/// A signer under this root, with a key of its own.
async fn signer(vault: &Vault, issuer: &str) -> Result<Signer> {
    let wanted = json!({ "common_name": "Istio Intermediate CA control", "key_type": "ec", "key_bits": "256" });
    let made = vault.ok("POST", "pki-mesh/intermediate/generate/exported", Some(wanted)).await?;
    let request = json!({
        "csr": made["data"]["csr"], "common_name": "Istio Intermediate CA control", "ttl": "2160h",
        "max_path_length": "0", "not_before_duration": "1h", "format": "pem",
    });
    let signed = vault.ok("POST", &format!("pki-mesh/issuer/{issuer}/sign-intermediate"), Some(request)).await?;
    Ok(Signer { certificate: pem(&signed["data"]["certificate"])?, key: pem(&made["data"]["private_key"])? })
}

/// A root, certified by another one.
async fn cross(vault: &Vault, by: &str, root: &str) -> Result<String> {
    let path = format!("pki-mesh/issuer/{by}/sign-self-issued");
    let made = vault.ok("POST", &path, Some(json!({ "certificate": root }))).await?;
    pem(&made["data"]["certificate"])
}

fn pem(text: &serde_json::Value) -> Result<String> {
    Ok(format!("{}\n", text.as_str().context("no PEM")?.trim()))
}

/// Writes a cluster's `cacerts` by hand.
async fn publish(member: &Member, signer: &Signer, behind: &str, roots: &str) -> Result<()> {
    let encoded = |text: &str| STANDARD.encode(text);
    let data = json!({
        "ca-cert.pem": encoded(&signer.certificate), "ca-key.pem": encoded(&signer.key),
        "cert-chain.pem": encoded(&format!("{}{behind}", signer.certificate)), "root-cert.pem": encoded(roots),
    });
    let path = testbed::side::Side::cacerts_path();
    let (status, answer) = member.side.api.request("PATCH", &path, Some(json!({ "data": data }))).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

async fn roots_of(member: &Member) -> Result<String> {
    let secret = member.side.cacerts().await?.context("no cacerts")?;
    let roots = STANDARD.decode(secret["data"]["root-cert.pem"].as_str().context("no roots")?)?;
    Ok(String::from_utf8(roots)?)
}

/// A mesh whose gates are gone, so that nobody mends what is done to it.
async fn ungated() -> Result<Rig> {
    let rig = Rig::start(Beginning { kind: Kind::Signing, lives: LIVES, istiods: 1 }).await?;
    for member in &rig.members {
        member.gate.process.stop()?;
        ungate(&member.side).await?;
    }
    Ok(rig)
}

/// Shakes hands until a handshake fails, or all workloads have renewed twice.
async fn broken(rig: &Rig, before: &Tally, what: &str) -> Result<()> {
    rig.prober.all_renewed(LONG).await?;
    rig.prober.all_renewed(LONG).await?;
    let tally = rig.prober.since(before);
    println!("life: control: {what}: {tally}");
    tally.is_broken()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_switch_without_a_cross_and_without_a_wait_breaks_handshakes() -> Result<()> {
    let rig = ungated().await?;
    let (old, new) = (roots_of(rig.homelab()).await?, root(&rig.vault, "control").await?);
    let before = rig.prober.so_far();
    // The NAS does not trust the new root yet.
    publish(rig.homelab(), &signer(&rig.vault, "control").await?, "", &format!("{old}{new}")).await?;
    broken(&rig, &before, "a switch with no cross and no wait").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_drop_without_a_wait_breaks_handshakes() -> Result<()> {
    let rig = ungated().await?;
    let (old, new) = (roots_of(rig.homelab()).await?, root(&rig.vault, "control").await?);
    let (signer, cross) = (signer(&rig.vault, "control").await?, cross(&rig.vault, "root-1", &new).await?);
    // With the cross, the switch itself breaks nothing.
    let tally = rig.handshakes(publish(rig.homelab(), &signer, &cross, &format!("{old}{new}"))).await?;
    tally.is_whole()?;
    println!("life: control: the same switch with a cross: {tally}");
    let before = rig.prober.so_far();
    publish(rig.homelab(), &signer, "", &new).await?;
    broken(&rig, &before, "a drop while certificates under the old root are valid").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_cacerts_of_another_root_breaks_handshakes() -> Result<()> {
    let rig = ungated().await?;
    let other = root(&rig.vault, "control").await?;
    let before = rig.prober.so_far();
    publish(rig.nas(), &signer(&rig.vault, "control").await?, "", &other).await?;
    rig.nas().restart_istiods().await?;
    broken(&rig, &before, "one cluster's cacerts of another root").await
}

/// The chain race: at a switch, istiod may answer with a leaf by the new signer and the chain of the old one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_signer_of_another_key_under_the_old_chain_breaks_a_handshake() -> Result<()> {
    let rig = ungated().await?;
    let [shop, .., archive] = rig.prober.parties() else { anyhow::bail!("no workloads") };
    let old = Credentials::of(shop).await?;
    publish(rig.homelab(), &signer(&rig.vault, "root-1").await?, "", &roots_of(rig.homelab()).await?).await?;
    let new = eventually("a certificate by the new signer", LONG, || async {
        let new = Credentials::of(shop).await?;
        ensure!(new.behind_the_leaf() != old.behind_the_leaf(), "by the old one");
        Ok(new)
    })
    .await?;
    let peer = Credentials::of(archive).await?;
    for verifier in [Verifier::Webpki, Verifier::Envoy] {
        handshake_by(verifier, &new.end(), &peer.end())??;
        let outcome = handshake_by(verifier, &new.behind(&old).end(), &peer.end())?;
        let by = Engine::Rustls(verifier);
        println!("life: control: a leaf by a new key behind the chain of the old one: {by}: {outcome:?}");
        ensure!(outcome.is_err(), "it was taken");
    }
    Ok(())
}
