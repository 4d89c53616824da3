//! What tests of a change of the root do with a Vault, embedded or real. What the gates do is done by the test: they
//! attest.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gate_core::samples;
use istio_ca_gate::ca::record::SigningRecord;
use istio_ca_gate::life::attestation::{Attestation, AttestedSigner, Istiods, Namespaces};
use istio_ca_gate::signer::root_common_name;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use testbed::VaultApi;

pub const RECORD: &str = "secret/data/istio/ca";
/// Far above any deadline that a test gives; past it, the command hangs.
const AT_MOST: Duration = Duration::from_secs(120);

const CLUSTERS: [&str; 2] = ["homelab", "nas"];
pub const DAY: SignedDuration = SignedDuration::from_hours(25);

/// A mesh under root-1, at rest, before a Vault that is embedded or real.
pub struct Mesh<V> {
    pub vault: V,
    token: String,
    folder: TempDir,
}

/// What `rotate` said.
#[derive(Debug)]
pub struct Answered {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl<V: Deref<Target = VaultApi>> Mesh<V> {
    pub async fn start(vault: V) -> Result<Self> {
        let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
        vault.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
        let root = json!({
            "issuer_name": "root-1", "common_name": root_common_name("root-1"), "ttl": "87600h", "key_type": "ec",
            "key_bits": "256", "not_before_duration": "1h", "exclude_cn_from_sans": "true",
        });
        let made = vault.ok("POST", "pki-mesh/root/generate/internal", Some(root)).await?;
        let pem = made["data"]["certificate"].as_str().context("no certificate")?;
        let record = SigningRecord::first(&format!("{}\n", pem.trim()), &"root-1".parse()?);
        let mesh = Self::of(vault, &record).await?;
        mesh.all_settled(DAY).await?;
        Ok(mesh)
    }

    /// The same with this record, and nobody who attests.
    pub async fn of(vault: V, record: &Map<String, Value>) -> Result<Self> {
        vault.ok("POST", RECORD, Some(json!({ "options": { "cas": 0 }, "data": record }))).await?;
        vault.policy("istio-ca-rotate", include_str!("../../deploy/vault/istio-ca-rotate.hcl")).await?;
        let body = json!({ "policies": ["istio-ca-rotate"], "ttl": "1h" });
        let made = vault.ok("POST", "auth/token/create", Some(body)).await?;
        let token = made["auth"]["client_token"].as_str().context("no token")?.to_owned();
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), vault.ca_pem())?;
        Ok(Self { vault, token, folder })
    }

    /// By which the program reaches Vault.
    pub fn variables(&self) -> Result<[(&'static str, String); 4]> {
        let ca = self.folder.path().join("ca.pem");
        Ok([
            ("VAULT_ADDR", self.vault.address().to_owned()),
            ("VAULT_TOKEN", self.token.clone()),
            ("VAULT_CACERT", ca.to_str().context("no path")?.to_owned()),
            ("GATE_VAULT_PKI_MOUNT", "pki-mesh".to_owned()),
        ])
    }

    pub async fn rotate(&self, args: &[&str]) -> Result<Answered> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_istio-ca-gate"));
        command.arg("rotate").args(args).env_clear().envs(self.variables()?).stdin(Stdio::null()).kill_on_drop(true);
        let output =
            tokio::time::timeout(AT_MOST, command.output()).await.with_context(|| format!("{args:?} hangs"))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answered { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// The same, which has to end well and say this.
    pub async fn does(&self, args: &[&str], says: &str) -> Result<()> {
        let said = self.rotate(args).await?;
        ensure!(said.code == Some(0) && said.stdout.contains(says), "{args:?}: no {says} in {said:?}");
        Ok(())
    }

    /// The same, which has to be held and say this.
    pub async fn is_held(&self, args: &[&str], says: &str) -> Result<()> {
        let said = self.rotate(args).await?;
        let is_held = said.code == Some(1) && said.stderr.contains("RotationHeld: ");
        ensure!(is_held && said.stderr.contains(says), "{args:?}: no {says} in {said:?}");
        Ok(())
    }

    pub async fn data(&self) -> Result<Value> {
        Ok(self.vault.ok("GET", RECORD, None).await?["data"]["data"].clone())
    }

    pub async fn version(&self) -> Result<u64> {
        let read = self.vault.ok("GET", RECORD, None).await?;
        read["data"]["metadata"]["version"].as_u64().context("no version")
    }

    pub async fn record(&self) -> Result<SigningRecord> {
        let data = self.data().await?;
        Ok(SigningRecord::parse(data.as_object().context("no data")?, Timestamp::now())?)
    }

    /// What a cluster's gate says.
    pub async fn attests(&self, attestation: &Attestation) -> Result<()> {
        let path = format!("secret/data/istio/clusters/{}", attestation.cluster);
        self.vault.ok("POST", &path, Some(json!({ "data": attestation.data() }))).await?;
        Ok(())
    }

    /// What this cluster's gate says: it took up the record so long ago.
    pub async fn settled(&self, cluster: &str, ago: SignedDuration) -> Result<()> {
        let (record, now) = (self.record().await?, Timestamp::now());
        let root = *record.roots().first().context("no root")?;
        let attestation = Attestation {
            state: Some(record.state()),
            settled: Some(now - ago),
            signer: Some(AttestedSigner { sha256: root, root, not_after: now + DAY }),
            roots: BTreeSet::clone(record.roots()),
            istiods: Istiods { settled: 1, behind: Vec::new() },
            namespaces: Namespaces { total: 3, behind: Vec::new() },
            ..samples::attestation(cluster, now)
        };
        self.attests(&attestation).await
    }

    pub async fn all_settled(&self, ago: SignedDuration) -> Result<()> {
        for cluster in CLUSTERS {
            self.settled(cluster, ago).await?;
        }
        Ok(())
    }

    /// As if whoever takes the steps had noted a day ago what was noted now.
    pub async fn a_day_passes(&self) -> Result<()> {
        self.all_settled(DAY).await?;
        self.does(&["step"], "note").await?;
        let mut data = self.data().await?;
        for (_, sighting) in data["rotation"]["seen"].as_object_mut().context("nothing is noted")? {
            sighting["at"] = json!((Timestamp::now() - DAY).to_string());
        }
        self.vault.ok("POST", RECORD, Some(json!({ "data": data }))).await?;
        Ok(())
    }

    /// Begun, trusted and switched.
    pub async fn switched(&self) -> Result<()> {
        self.does(&["start", "--yes"], "root-2 is the goal").await?;
        self.does(&["step"], "trust").await?;
        self.all_settled(SignedDuration::ZERO).await?;
        self.does(&["step"], "switch").await
    }

    pub async fn usage(&self, issuer: &str) -> Result<String> {
        let told = self.vault.ok("GET", &format!("pki-mesh/issuer/{issuer}"), None).await?;
        Ok(told["data"]["usage"].as_str().context("no usage")?.to_owned())
    }
}

/// From the first command to the end, and the next one begun.
pub async fn is_replaced_step_by_step<V: Deref<Target = VaultApi>>(mesh: &Mesh<V>) -> Result<()> {
    mesh.does(&["status"], "No rotation. Signers are under root-1.").await?;
    mesh.does(&["step"], "no root is being replaced").await?;
    let before = mesh.record().await?;
    mesh.does(&["start", "--yes", "--ttl", "24h"], "root-2 is the goal").await?;
    ensure!(mesh.record().await?.state() == before.state(), "a start changes nothing");
    mesh.does(&["status"], "homelab").await?;

    mesh.does(&["step"], "trust").await?;
    let trusted = mesh.record().await?;
    ensure!(trusted.roots().len() == 2 && trusted.root_cert.starts_with(&before.root_cert));
    mesh.is_held(&["step"], "cluster homelab has not published what the record says").await?;
    mesh.settled("homelab", SignedDuration::ZERO).await?;
    mesh.is_held(&["step"], "cluster nas has not published what the record says").await?;
    let status: Value = serde_json::from_str(&mesh.rotate(&["status", "-o", "json"]).await?.stdout)?;
    let next = &status["next"];
    ensure!(next["state"] == "held" && next["step"] == "switch" && next["causes"][0]["cluster"] == "nas", "{status}");
    mesh.settled("nas", SignedDuration::ZERO).await?;

    mesh.does(&["step"], "switch").await?;
    let switched = mesh.record().await?;
    ensure!(switched.issuer.as_ref().is_some_and(|issuer| issuer.as_str() == "root-2"));
    ensure!(switched.cross().is_some() && switched.root_cert == trusted.root_cert);

    mesh.all_settled(SignedDuration::ZERO).await?;
    mesh.does(&["step"], "note").await?;
    let version = mesh.version().await?;
    mesh.does(&["step"], "Nothing to do before").await?;
    mesh.does(&["status"], "leads back without loss").await?;
    ensure!(mesh.version().await? == version, "nothing is written while it waits");

    mesh.a_day_passes().await?;
    mesh.does(&["step"], "drop").await?;
    let dropped = mesh.record().await?;
    ensure!(dropped.roots().len() == 1 && dropped.cross().is_none() && dropped.roots() != before.roots());
    ensure!(!mesh.usage("root-1").await?.contains("issuing-certificates"));
    ensure!(mesh.usage("root-2").await?.contains("issuing-certificates"));
    mesh.all_settled(SignedDuration::ZERO).await?;
    mesh.does(&["step"], "done").await?;
    ensure!(mesh.data().await?.get("rotation").is_none());
    mesh.does(&["status"], "No rotation. Signers are under root-2.").await?;
    // And the next one has the next name.
    mesh.does(&["start", "--yes"], "root-3 is the goal").await
}
