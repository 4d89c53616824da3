//! `rotate import`, run by run: from the key in every cluster to the key in Vault alone.

use anyhow::{Context, Result, ensure};
use gate_core::samples;
use hyper::Method;
use istio_ca_gate::life::attestation::Attestation;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use standin::faults::{Aim, Fault};
use standin::vault::Vault;

use crate::certificates::Authority;
use crate::rotations::Mesh;

const IMPORT: &[&str] = &["import", "--yes", "--of", "homelab", "--of", "nas"];

/// A mesh whose clusters all have the root's key, by the record of the shared kind.
async fn shared(record: &Map<String, Value>) -> Result<Mesh<Vault>> {
    let vault = Vault::start().await?;
    let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    vault.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
    Mesh::of(vault, record).await
}

/// What an import has left in Vault.
trait Left {
    async fn destroyed(&self) -> Result<Vec<String>>;
    async fn issuers(&self) -> Result<usize>;
    async fn has_no_key(&self, root: &Value) -> Result<()>;
}

impl Left for Mesh<Vault> {
    async fn destroyed(&self) -> Result<Vec<String>> {
        let told = self.vault.ok("GET", "secret/metadata/istio/ca", None).await?;
        let versions = told["data"]["versions"].as_object().context("no versions")?;
        Ok(versions.iter().filter(|(_, it)| it["destroyed"] == true).map(|(number, _)| number.clone()).collect())
    }

    async fn issuers(&self) -> Result<usize> {
        let (_, told) = self.vault.api("LIST", "pki-mesh/issuers", None).await?;
        Ok(told["data"]["keys"].as_array().map_or(0, Vec::len))
    }

    /// The record is of the signing kind, with the same root and no key.
    async fn has_no_key(&self, root: &Value) -> Result<()> {
        let data = self.data().await?;
        ensure!(data == json!({ "root-cert.pem": root, "issuer": "root-1" }), "{data}");
        let kept = self.vault.ok("GET", "pki-mesh/issuer/root-1", None).await?;
        let [text, root] = [&kept["data"]["certificate"], root].map(|pem| pem.as_str().unwrap_or_default());
        ensure!(text == root && kept["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{kept}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_root_leaves_the_clusters_and_its_key_is_destroyed_when_all_are_settled() -> Result<()> {
    let record = Authority::new("Istio Root CA")?.record();
    let mesh = shared(&record).await?;
    are_ready(&mesh).await?;
    let said = mesh.rotate(&IMPORT[..1]).await?;
    ensure!(said.code == Some(2) && said.stderr.contains("--of"), "{said:?}");
    let said = mesh.rotate(&["import", "--of", "nas"]).await?;
    ensure!(said.code == Some(2) && said.stderr.contains("pass --yes"), "{said:?}");
    ensure!(mesh.version().await? == 1 && mesh.issuers().await? == 0, "it was begun");

    mesh.is_held(IMPORT, "cluster homelab").await?;
    ensure!(mesh.version().await? == 2 && mesh.destroyed().await?.is_empty());
    mesh.has_no_key(&record["root-cert.pem"]).await?;
    mesh.settled("homelab", SignedDuration::ZERO).await?;
    mesh.is_held(IMPORT, "cluster nas").await?;
    ensure!(mesh.destroyed().await?.is_empty());
    mesh.settled("nas", SignedDuration::ZERO).await?;
    mesh.does(IMPORT, "versions [1] with the shared key are destroyed").await?;
    mesh.does(IMPORT, "all versions with the shared key were destroyed").await?;
    ensure!(mesh.version().await? == 2 && mesh.destroyed().await? == ["1"] && mesh.issuers().await? == 1);
    // What the clusters have now can be replaced.
    mesh.does(&["start", "--yes"], "root-2 is the goal").await
}

/// What a cluster's gate says before there is a record of the signing kind.
async fn says_that_it_is_ready(mesh: &Mesh<Vault>, cluster: &str, why_not: Option<&str>) -> Result<()> {
    let why = why_not.map(str::to_owned);
    mesh.attests(&Attestation { ready: why.is_none(), why, ..samples::attestation(cluster, Timestamp::now()) }).await
}

async fn are_ready(mesh: &Mesh<Vault>) -> Result<()> {
    for cluster in ["homelab", "nas"] {
        says_that_it_is_ready(mesh, cluster, None).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_imported_while_a_cluster_is_not_ready() -> Result<()> {
    let record = Authority::new("Istio Root CA")?.record();
    let mesh = shared(&record).await?;
    let untouched = async |says: &str| {
        let said = mesh.rotate(IMPORT).await?;
        ensure!(
            said.code == Some(1) && said.stderr.contains("RotationHeld: ") && said.stderr.contains(says),
            "{said:?}"
        );
        ensure!(said.stdout.contains("stays as it is"), "the plan is shown first: {said:?}");
        ensure!(mesh.version().await? == 1 && mesh.issuers().await? == 0, "it was begun");
        Ok(said.stdout)
    };
    // Nobody attests, as gates of a version do that cannot go by such a record, or without --vault-pki-mount.
    untouched("cluster nas does not attest: see that its gate runs with --vault-pki-mount").await?;
    says_that_it_is_ready(&mesh, "homelab", None).await?;
    let plan = untouched("cluster nas does not attest").await?;
    ensure!(plan.contains("homelab: ready") && plan.contains("nas: not ready"), "{plan}");
    says_that_it_is_ready(&mesh, "nas", Some("External Secrets manages cacerts")).await?;
    untouched("cluster nas is not ready to have a signer of its own (External Secrets manages cacerts)").await?;
    // One that is not named has the key, too.
    says_that_it_is_ready(&mesh, "nas", None).await?;
    says_that_it_is_ready(&mesh, "attic", Some("no istiod runs")).await?;
    untouched("cluster attic is not ready").await?;
    says_that_it_is_ready(&mesh, "attic", None).await?;
    let said = mesh.rotate(IMPORT).await?;
    ensure!(mesh.version().await? == 2 && mesh.issuers().await? == 1, "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_after_whatever_was_lost() -> Result<()> {
    let record = Authority::new("Istio Root CA")?.record();
    let mesh = shared(&record).await?;
    are_ready(&mesh).await?;
    for (method, part) in [
        (Method::POST, "issuers/import"),
        (Method::PATCH, "pki-mesh/issuer/"),
        (Method::GET, "root-1/json"),
        (Method::POST, "secret/data/istio/ca"),
    ] {
        for fault in [Fault::RequestLost, Fault::AnswerLost] {
            let aim = Aim::all().method(method.clone()).path(part).times(1);
            let lost = mesh.vault.faults().inject(fault, aim);
            let said = mesh.rotate(IMPORT).await?;
            ensure!(said.code == Some(1) && lost.hits() == 1, "{fault:?} of {method} {part}: {said:?}");
        }
    }
    // The answer to the write was lost, and it was written, once.
    ensure!(mesh.version().await? == 2 && mesh.issuers().await? == 1);
    mesh.has_no_key(&record["root-cert.pem"]).await?;
    mesh.all_settled(SignedDuration::ZERO).await?;
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let lost = mesh.vault.faults().inject(fault, Aim::all().path("secret/destroy").times(1));
        ensure!(mesh.rotate(IMPORT).await?.code == Some(1) && lost.hits() == 1);
    }
    mesh.does(IMPORT, "with the shared key were destroyed").await?;
    ensure!(mesh.destroyed().await? == ["1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_of_that_name_is_not_taken_and_the_record_stays() -> Result<()> {
    let record = Authority::new("Istio Root CA")?.record();
    let mesh = shared(&record).await?;
    are_ready(&mesh).await?;
    let other = json!({ "issuer_name": "root-1", "common_name": "another", "key_type": "ec", "ttl": "87600h" });
    mesh.vault.ok("POST", "pki-mesh/root/generate/internal", Some(other)).await?;
    let said = mesh.rotate(IMPORT).await?;
    ensure!(said.code == Some(1) && said.stderr.contains("issuer name already in use"), "{said:?}");
    ensure!(mesh.version().await? == 1 && mesh.data().await? == Value::Object(record));
    Ok(())
}
