//! `rotate import` on real clusters and a real Vault: one root throughout, a key for each cluster at the end, the gates open
//! all the time.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{Program, Vault, eventually};

use crate::gate::{Gate, Options, binary};
use crate::istiods::{grant, presents, runs_at};
use crate::signers::{are_signed, enable, files, record};
use crate::world::{SOON, World};

/// What `rotate import` says, and how it ends.
async fn import(vault: &Vault, token: &str) -> Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    let process = Program::new(binary())
        .args(["rotate", "import", "--yes", "--of", "homelab,nas"])
        .env("VAULT_ADDR", vault.address())
        .env("VAULT_CACERT", vault.ca_file())
        .env("VAULT_TOKEN", token)
        .env("GATE_VAULT_PKI_MOUNT", "pki-mesh")
        .spawn(folder.path().join("log"))?;
    let status = process.exited(SOON).await?;
    let said = process.log();
    ensure!(!said.contains("PRIVATE KEY-") && !said.contains(token), "{said}");
    Ok((status.success(), said))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_running_mesh_leaves_its_clusters_and_the_root_stays() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let sides: [&testbed::side::Side; 2] = [homelab, nas];
    enable(vault, &sides, "2160h").await?;
    vault.policy("istio-ca-rotate", include_str!("../../deploy/vault/istio-ca-rotate.hcl")).await?;
    let wanted = json!({ "policies": ["istio-ca-rotate"], "ttl": "1h" });
    let made = vault.ok("POST", "auth/token/create", Some(wanted)).await?;
    let token = made["auth"]["client_token"].as_str().context("no token")?;

    // As it was: one key in both clusters.
    for side in [homelab, nas] {
        let gate = Gate::start(side, vault).await?;
        side.deploy_istiod().await?;
        gate.stands("open", None).await?;
    }
    let shared = files(homelab).await?;
    ensure!(shared.signs_with_the_root() && files(nas).await?.bundle.ca_key == shared.bundle.ca_key);
    let options = || Options { flags: &["--vault-pki-mount", "pki-mesh", "--refresh", "1s"], ..Options::default() };
    let gates = [Gate::start_with(homelab, vault, options()).await?, Gate::start_with(nas, vault, options()).await?];
    for (side, gate) in [homelab, nas].into_iter().zip(&gates) {
        side.restart("istiod").await?;
        side.pod("istiod").await?;
        gate.stands("open", None).await?;
        ensure!(files(side).await?.bundle.ca_key == shared.bundle.ca_key, "it was changed before the import");
    }

    // Nobody has said that these clusters could have signers of their own.
    let (done, said) = import(vault, token).await?;
    ensure!(!done && said.contains("nas: not ready") && said.contains("cluster nas is not ready"), "{said}");
    ensure!(record(vault).await?["key.pem"].is_string(), "it was begun");
    let mut istiods = Vec::new();
    for (side, address) in [(homelab, "127.0.0.1"), (nas, "127.0.0.2")] {
        grant(side).await?;
        istiods.push(presents(address, &shared.bundle.ca_cert).await?);
        runs_at(side, &side.pod("istiod").await?, address).await?;
    }
    // The gates look every ten seconds.
    let said = eventually("both clusters to be ready", SOON * 2, || async {
        let (_, said) = import(vault, token).await?;
        ensure!(said.contains("Run this again"), "{said}");
        Ok(said)
    })
    .await?;
    ensure!(said.contains("nas: ready") && said.contains("RotationHeld: "), "{said}");
    ensure!(record(vault).await?["root-cert.pem"].as_str().map(str::as_bytes) == Some(&shared.bundle.root_cert[..]));
    eventually("a signer for each cluster", SOON, || are_signed(vault, &sides)).await?;
    for (side, gate) in [homelab, nas].into_iter().zip(&gates) {
        let signer = files(side).await?;
        ensure!(signer.root == shared.root && signer.bundle.root_cert == shared.bundle.root_cert, "another root");
        ensure!(signer.bundle.ca_key != shared.bundle.ca_key, "the shared key still signs");
        gate.stands("open", None).await?;
        side.restart("istiod").await?;
        side.pod("istiod").await?;
    }
    // Without a kubelet no istiod settles: the way back stays open.
    let (done, said) = import(vault, token).await?;
    ensure!(!done && said.contains("RotationHeld: ") && !said.contains("destroyed in Vault"), "{said}");
    let (status, first) = vault.api("GET", "secret/data/istio/ca?version=1", None).await?;
    ensure!(status == 200 && first["data"]["metadata"]["destroyed"] == false);
    println!(
        "root {} throughout; {} and {} sign now",
        shared.root,
        files(homelab).await?.signing_ca.sha256,
        files(nas).await?.signing_ca.sha256
    );
    Ok(())
}
