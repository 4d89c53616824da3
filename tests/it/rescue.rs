//! Two clusters whose istiods have made roots of their own, and `rotate rescue` over them: embedded or real.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::record::SigningRecord;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use testbed::side::{NAMESPACE, SOON, Side};
use testbed::{Program, VaultApi, eventually};

use crate::istiods::{grant, presents, runs_at};
use crate::signers::{files, record};

const SERVED: &str = "istio-ca-root-cert";

/// A cluster whose mesh runs on a root of its own.
pub struct Alone<'a> {
    pub side: &'a Side,
    pub address: &'static str,
    pub root: String,
}

/// As istiod makes it: the same name in every cluster.
fn own_root() -> Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

impl<'a> Alone<'a> {
    /// istiod has run here before the gate was installed, and its pod runs.
    pub async fn begin(side: &'a Side, address: &'static str) -> Result<Self> {
        let (root, key) = own_root()?;
        let file = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "istio-ca-secret", "namespace": NAMESPACE },
            "type": "istio.io/ca-root", "data": { "ca-cert.pem": file(&root), "ca-key.pem": file(&key) },
        });
        post(side, &format!("/api/v1/namespaces/{NAMESPACE}/secrets"), secret).await?;
        let map =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": SERVED, "namespace": NAMESPACE } });
        post(side, &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), map).await?;
        let alone = Self { side, address, root };
        alone.serves(&alone.root).await?;

        let kinds = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
        let mut kept = Vec::new();
        for kind in kinds {
            let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
            let one = format!("{path}/istio-ca-gate");
            if let Some(mut object) = side.object(&one).await? {
                let own = json!({ "name": "istio-ca-gate", "labels": object["metadata"]["labels"] });
                object["metadata"] = own;
                kept.push((path, object));
                let (status, answer) = side.api.request("DELETE", &one, None).await?;
                ensure!(status == 200, "{answer}");
            }
        }
        side.deploy_istiod().await?;
        side.pod("istiod").await?;
        for (path, object) in kept {
            post(side, &path, object).await?;
        }
        grant(side).await?;
        alone.runs().await?;
        Ok(alone)
    }

    /// As a kubelet would have it.
    async fn runs(&self) -> Result<()> {
        for pod in self.side.pods("istiod").await? {
            runs_at(self.side, &pod, self.address).await?;
        }
        Ok(())
    }

    /// What istiod tells the mesh to trust.
    async fn serves(&self, roots: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{SERVED}");
        let (status, answer) =
            self.side.api.request("PATCH", &path, Some(json!({ "data": { "root-cert.pem": roots } }))).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }

    /// Whether istiod was told to start anew.
    async fn restarts(&self) -> Result<Value> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istiod");
        let istiod = self.side.object(&path).await?.context("no istiod")?;
        Ok(istiod["spec"]["template"]["metadata"]["annotations"]["istio-ca-gate.io/record-state"].clone())
    }
}

async fn post(side: &Side, path: &str, object: Value) -> Result<()> {
    let (status, answer) = side.api.request("POST", path, Some(object)).await?;
    ensure!(status == 201, "{path}: {status}: {answer}");
    Ok(())
}

/// Who may run it: a person with all rights in both clusters, and Vault's policy.
pub struct Rescuer<'a> {
    vault: &'a VaultApi,
    folder: &'a Path,
    token: String,
    binary: std::path::PathBuf,
}

impl<'a> Rescuer<'a> {
    pub async fn new(
        vault: &'a VaultApi,
        sides: [&Side; 2],
        folder: &'a Path,
        binary: std::path::PathBuf,
    ) -> Result<Self> {
        vault.policy("istio-ca-rotate", include_str!("../../deploy/vault/istio-ca-rotate.hcl")).await?;
        let made = vault
            .ok("POST", "auth/token/create", Some(json!({ "policies": ["istio-ca-rotate"], "ttl": "1h" })))
            .await?;
        let token = made["auth"]["client_token"].as_str().context("no token")?.to_owned();
        std::fs::write(folder.join("vault-ca.pem"), vault.ca_pem())?;
        for side in sides {
            let kubeconfig = side.api.kubeconfig(&format!("admin-{}", side.name), side.api.admin_token());
            std::fs::write(folder.join(format!("kubeconfig-{}", side.name)), kubeconfig)?;
        }
        Ok(Self { vault, folder, token, binary })
    }

    /// How it ended, and what it said.
    pub async fn rotate(&self, args: &[&str]) -> Result<(bool, String)> {
        let file = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let log = tempfile::NamedTempFile::new_in(self.folder)?;
        let process = Program::new(self.binary.clone())
            .args(["rotate"])
            .args(args)
            .env("KUBECONFIG", format!("{}:{}", file("kubeconfig-homelab"), file("kubeconfig-nas")))
            .env("VAULT_ADDR", self.vault.address())
            .env("VAULT_CACERT", file("vault-ca.pem"))
            .env("VAULT_TOKEN", &self.token)
            .env("GATE_VAULT_PKI_MOUNT", "pki-mesh")
            .spawn(log.path())?;
        let status = process.exited(SOON * 2).await?;
        let said = process.log();
        ensure!(!said.contains("PRIVATE KEY-") && !said.contains(&self.token), "{said}");
        Ok((status.success(), said))
    }
}

pub const RESCUE: [&str; 6] = ["rescue", "--yes", "--context", "homelab", "--context", "nas"];

/// Every gate is up, and both clusters are on roots of their own, until both work with all roots and the first wait is
/// noted.
pub async fn are_rescued(vault: &VaultApi, clusters: [&Alone<'_>; 2], rescuer: &Rescuer<'_>) -> Result<()> {
    let mut istiods = Vec::new();
    for alone in clusters {
        istiods.push(presents(alone.address, alone.root.as_bytes()).await?);
    }
    let said = eventually("both clusters to be ready and brought", SOON * 3, || async {
        let (done, said) = rescuer.rotate(&RESCUE).await?;
        ensure!(done && said.contains("a signer under its own root"), "{said}");
        Ok(said)
    })
    .await?;
    ensure!(
        said.contains("root-1 is made in Vault") && said.contains("1 Deployment(s) of istiod are restarted"),
        "{said}"
    );
    let data = record(vault).await?;
    ensure!(data.get("issuer").is_none() && data["rotation"]["goal"] == "root-1", "{data}");
    ensure!(data["rotation"]["from"] == json!([]) && !data.to_string().contains("PRIVATE"), "{data}");
    let first = SigningRecord::parse(data.as_object().context("no record")?, Timestamp::now())?;
    ensure!(first.roots().len() == 3, "{data}");
    let mut keys = Vec::new();
    for alone in clusters {
        let sound = files(alone.side).await?;
        ensure!(first.root_cert == sound.bundle.root_cert && sound.bundle.ca_cert != alone.root.as_bytes());
        let own = istio_ca_gate::ca::file::first(alone.root.as_bytes()).map_err(|_| anyhow::anyhow!("no root"))?;
        ensure!(sound.root == own.sha256 && !sound.signs_with_the_root(), "trust has changed in {}", alone.side.name);
        ensure!(alone.restarts().await? == first.state().to_string());
        keys.push(sound.bundle.ca_key.clone());
    }
    ensure!(keys[0] != keys[1], "a key is in two clusters");

    // Run again before istiod has come back: it changes nothing.
    let (done, said) = rescuer.rotate(&RESCUE).await?;
    ensure!(done && said.contains("has its signer, and its istiod is restarted"), "{said}");
    ensure!(record(vault).await? == data && files(clusters[0].side).await?.bundle.ca_key == keys[0]);

    // istiod comes back, through the gate, with what it has found.
    istiods.drain(..).for_each(|istiod| istiod.abort());
    let roots = data["root-cert.pem"].as_str().context("no roots")?;
    for alone in clusters {
        let sound = files(alone.side).await?;
        eventually("the port", SOON, || presents(alone.address, &sound.bundle.ca_cert)).await?;
        alone.serves(roots).await?;
        eventually("a pod of the restarted istiod", SOON * 2, || async {
            let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
            let pods = alone.side.object(&pods).await?.context("no pods")?;
            let is_new = |pod: &Value| pod["metadata"]["annotations"]["istio-ca-gate.io/record-state"].is_string();
            ensure!(pods["items"].as_array().is_some_and(|pods| pods.iter().any(is_new)), "{pods}");
            Ok(())
        })
        .await?;
        alone.runs().await?;
    }
    let (done, said) = rescuer.rotate(&RESCUE).await?;
    ensure!(done && said.contains("Nothing to do: all clusters work with all roots"), "{said}");
    let json: Value = serde_json::from_str(&rescuer.rotate(&[&RESCUE[..], &["-o", "json"]].concat()).await?.1)?;
    ensure!(json["clusters"] == json!({ "homelab": "done", "nas": "done" }), "{json}");

    // From here on it is a rotation like any other. Each gate says what it sees.
    eventually("the first wait", SOON * 3, || async {
        for alone in clusters {
            alone.runs().await?;
        }
        let (done, said) = rescuer.rotate(&["step"]).await?;
        ensure!(done && said.contains("note"), "{said}");
        Ok(())
    })
    .await?;
    let (done, said) = rescuer.rotate(&["step"]).await?;
    ensure!(done && said.contains("Nothing to do before") && said.contains("then comes switch"), "{said}");
    let (done, said) = rescuer.rotate(&["abort", "--yes"]).await?;
    ensure!(!done && said.contains("no single root to go back to"), "{said}");
    ensure!(files(clusters[1].side).await?.bundle.ca_key == keys[1]);
    Ok(())
}
