//! `rotate rescue`: clusters on roots of their own, their gates, and what becomes of the record.

use anyhow::{Context, Result, ensure};
use hyper::Method;
use istio_ca_gate::ca::record::Rotation;
use istio_ca_gate::life::change::rescuing;
use istio_ca_gate::signer::root_common_name;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use standin::faults::{Aim, Fault};
use standin::vault::Vault;

use crate::certificates::Authority;
use crate::product::binary;
use crate::rescue::{Alone, RESCUE, Rescuer, are_rescued};
use crate::rotations::Mesh;
use crate::signers::enable;
use crate::world::{Gate, World};

async fn gates(world: &World, folder: &std::path::Path) -> Result<[Gate; 2]> {
    let flags = ["--vault-pki-mount", "pki-mesh", "--refresh", "2s"];
    let World { homelab, nas, vault, .. } = world;
    Ok([Gate::start(homelab, vault, folder, &flags).await?, Gate::start(nas, vault, folder, &flags).await?])
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_on_roots_of_their_own_work_with_one_another_after_one_wait() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, nas, vault, .. } = &world;
    let (first, second) = (Alone::begin(homelab, "127.0.0.4").await?, Alone::begin(nas, "127.0.0.5").await?);
    enable(vault, &[homelab, nas], "2160h").await?;
    let rescuer = Rescuer::new(vault, [homelab, nas], folder.path(), binary()).await?;

    // Nothing is begun where no gate could go on with it.
    let (done, said) = rescuer.rotate(&RESCUE).await?;
    ensure!(!done && said.contains("RotationHeld: cluster homelab does not attest"), "{said}");
    let gates = gates(&world, folder.path()).await?;
    // Nor of one cluster of two.
    let (done, said) = rescuer.rotate(&["rescue", "--yes", "--context", "nas"]).await?;
    ensure!(!done && said.contains("RotationHeld: "), "{said}");
    let (status, _) = vault.api("GET", "secret/data/istio/ca", None).await?;
    ensure!(status == 404 && homelab.cacerts().await?.is_none(), "it was begun");

    // The answer to the one write is lost; what was written is what the next run goes on with.
    let aim = Aim::all().method(Method::POST).path("secret/data/istio/ca").times(1);
    let lost = vault.faults().inject(Fault::AnswerLost, aim);
    are_rescued(vault, [&first, &second], &rescuer).await?;
    ensure!(lost.hits() == 1);
    for gate in gates {
        gate.stands("open", None).await?;
        ensure!(!gate.log().contains("PRIVATE"), "a key is in the log");
        gate.stop().await?;
    }
    Ok(())
}

/// A mesh of two whose record trusts both clusters' own roots, and the goal.
async fn begun() -> Result<Mesh<Vault>> {
    let vault = Vault::start().await?;
    let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    vault.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
    let root = json!({
        "issuer_name": "root-1", "common_name": root_common_name("root-1"), "ttl": "87600h", "key_type": "ec",
    });
    let made = vault.ok("POST", "pki-mesh/root/generate/internal", Some(root)).await?;
    let goal = made["data"]["certificate"].as_str().context("no certificate")?;
    let own = [Authority::new("Own 1")?, Authority::new("Own 2")?];
    let rotation = Rotation {
        goal: "root-1".parse()?,
        from: Vec::new(),
        clusters: ["homelab", "nas"].map(str::to_owned).into(),
        ttl: std::time::Duration::from_secs(24 * 3600),
        paused: false,
        started: Timestamp::now(),
        by: "ops@laptop".to_owned(),
        seen: Default::default(),
    };
    Mesh::of(vault, &rescuing(own.iter().map(Authority::pem), &rotation, goal)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_goes_to_its_end_by_the_steps_of_every_change() -> Result<()> {
    let mesh = begun().await?;
    mesh.is_held(&["step"], "cluster homelab has never attested").await?;
    mesh.settled("homelab", SignedDuration::ZERO).await?;
    mesh.is_held(&["step"], "cluster nas has never attested").await?;
    mesh.is_held(&["start", "--yes"], "the record names no issuer").await?;
    mesh.a_day_passes().await?;
    let before = mesh.record().await?;
    mesh.does(&["step"], "switch").await?;
    let switched = mesh.record().await?;
    ensure!(switched.issuer.as_ref().is_some_and(|issuer| issuer.as_str() == "root-1") && switched.cross().is_none());
    ensure!(switched.root_cert == before.root_cert, "the bytes that istiods run with");
    mesh.is_held(&["step"], "has not published what the record says").await?;
    mesh.a_day_passes().await?;
    mesh.does(&["step"], "drop").await?;
    ensure!(mesh.record().await?.roots().len() == 1);
    mesh.all_settled(SignedDuration::ZERO).await?;
    mesh.does(&["step"], "done").await?;
    mesh.does(&["status"], "No rotation. Signers are under root-1.").await?;
    // And it can be replaced as any other.
    mesh.does(&["start", "--yes"], "root-2 is the goal").await
}
