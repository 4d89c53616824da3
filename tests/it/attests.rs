//! What a gate attests to of its mesh.

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::record::SigningRecord;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::side::{SOON, Side};
use testbed::{VaultApi, eventually};

use crate::istiods::{grant, presents, runs_at};
use crate::signers::{enable, event, files, record};
use crate::world::{Gate, World};

/// Waits until the cluster attests to what is looked for.
async fn attests(vault: &VaultApi, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    // It looks every ten seconds.
    eventually(what, SOON * 2, || async {
        let said = vault.ok("GET", "secret/data/istio/clusters/homelab", None).await?["data"]["data"].clone();
        ensure!(is_it(&said), "{said}");
        Ok(said)
    })
    .await
}

/// What istiod writes into a namespace.
async fn serve_roots(side: &Side, namespace: &str, roots: &str) -> Result<()> {
    let map = json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": roots } });
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let (status, answer) = side.api.request("POST", &path, Some(map)).await?;
    ensure!(status == 201, "{answer}");
    Ok(())
}

/// A change of the root begins, and everybody who looks at the gate sees it.
async fn shows_a_rotation(homelab: &Side, vault: &VaultApi, gate: &Gate) -> Result<()> {
    let report = async || anyhow::Ok(serde_json::from_str::<Value>(&gate.get("fingerprint").await?)?);
    let told = report().await?;
    ensure!(told["mesh"]["settled"].is_string() && told["rotation"].is_null(), "{told}");
    let root =
        json!({ "issuer_name": "root-2", "common_name": "Istio Root CA root-2", "ttl": "87600h", "key_type": "ec" });
    vault.ok("POST", "pki-mesh/root/generate/internal", Some(root)).await?;
    let mut data = record(vault).await?;
    data["rotation"] = json!({
        "goal": "root-2", "from": ["root-1"], "clusters": ["homelab", "nas"], "ttl": "24h",
        "started": Timestamp::now().to_string(), "by": "ops@laptop",
    });
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": data }))).await?;
    let told = eventually("the rotation in /fingerprint", SOON * 2, || async {
        let told = report().await?;
        ensure!(told["rotation"]["next"] == "trust", "{told}");
        Ok(told)
    })
    .await?;
    ensure!(told["mesh"]["settled"].is_string() && told["rotation"]["clusters"] == json!(["homelab", "nas"]), "{told}");
    let page = gate.get("").await?;
    ensure!(
        page.contains("The root is being replaced by <strong class=\"wait\">root-2")
            && page.contains("nothing is known")
    );
    let metrics = gate.get("metrics").await?;
    for name in ["rotation_info", "rotation_ttl_seconds", "rotation_step_timestamp_seconds"] {
        let line = metrics.lines().find(|line| line.starts_with(&format!("istio_ca_gate_{name}{{")));
        ensure!(line.is_some_and(|line| line.contains("goal=\"root-2\"")), "{name}: {line:?}");
    }
    ensure!(metrics.contains("step=\"trust\""), "{metrics}");
    event(homelab, "RotationStep").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_attests_to_its_mesh_and_what_it_cannot_see_is_not_settled() -> Result<()> {
    let (world, folder) = (World::embedded().await?, tempfile::tempdir()?);
    let World { homelab, vault, .. } = &world;
    enable(vault, &[homelab], "2160h").await?;
    let gate = Gate::start(homelab, vault, folder.path(), &["--vault-pki-mount", "pki-mesh"]).await?;
    homelab.deploy_istiod().await?;
    let pod = homelab.pod("istiod").await?;
    let said = attests(vault, "an attestation without rights", |said| said["state"].is_string()).await?;
    let why = said["why"].as_str().unwrap_or_default();
    ensure!(said["settled"].is_null() && why.contains("list the pods of istiod"), "{said}");

    grant(homelab).await?;
    let said = attests(vault, "the pod that has no address", |said| said["istiods"]["behind"] == json!([pod])).await?;
    ensure!(said["settled"].is_null(), "{said}");

    let sound = files(homelab).await?;
    let roots = String::from_utf8(sound.bundle.root_cert.clone())?;
    let server = presents("127.0.0.1", &sound.bundle.ca_cert).await?;
    runs_at(homelab, &pod, "127.0.0.1").await?;
    serve_roots(homelab, "istio-system", &roots).await?;
    let said = attests(vault, "a settled mesh", |said| said["settled"].is_string()).await?;
    let record = record(vault).await?;
    let record = SigningRecord::parse(record.as_object().context("no record")?, Timestamp::now())?;
    ensure!(said["state"] == record.state().to_string() && said["istiods"]["settled"] == 1, "{said}");
    ensure!(
        said["signer"]["sha256"] == sound.signing_ca.sha256.to_string() && said["namespaces"]["total"] == 1,
        "{said}"
    );
    let metrics = gate.get("metrics").await?;
    let settled = metrics.lines().find(|line| line.starts_with("istio_ca_gate_settled"));
    ensure!(settled.is_some_and(|line| line.ends_with(" 1")), "{settled:?}");

    shows_a_rotation(homelab, vault, &gate).await?;

    // One namespace has other roots: a bundle that lacks the newest, say.
    serve_roots(homelab, "default", "none yet").await?;
    let said = attests(vault, "a namespace that is behind", |said| said["settled"].is_null()).await?;
    ensure!(said["namespaces"] == json!({ "total": 2, "behind": ["default"] }), "{said}");
    server.abort();
    gate.stop().await
}
