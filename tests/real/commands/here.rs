//! An administrator's machine, and the clusters and the Vault that it looks at.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::binaries::{self, ControlPlane};
use testbed::{Cluster, Port, Program, Storage, Vault, VaultApi, VaultOptions, definition, eventually};
use tokio::process::Command;

use super::blocks::Block;
use crate::cacerts::foreign_ca;
use crate::gate::{Gate, Options, binary};
use crate::manifests::FOREIGN_KINDS;
use crate::rotations::Mesh;
use crate::world::{NAMESPACE, SOON, Side};

/// A block with one of these may leave logins as they are not to be.
const LOGINS: [&str; 3] = ["setup.sh", "vault auth", "vault policy"];

/// A block with one of these may leave objects of the manifests as they are not to be.
const OBJECTS: [&str; 6] = ["delete ", "set env", "scale ", "patch ", "replace ", "rollout "];

/// Longest for a block: some dozen runs of command lines.
const AT_MOST: Duration = Duration::from_secs(180);

/// An administrator's machine, and all that is looked at from there.
pub struct Here {
    homelab: (Side, Gate),
    nas: (Side, Gate),
    vault: Vault,
    /// The four files of the root that is in Vault at first, and the root's key.
    record: Value,
    folder: TempDir,
}

/// What is needed of kubectl without a kubelet: commands in the gate's pod run with what that pod has.
const KUBECTL: &str = r#"#!/bin/bash
context=nas previous=
for word in "$@"; do [ "$previous" = --context ] && context=$word; previous=$word; done
case " $* " in
    *" port-forward "*) exit 0 ;;
    *" exec deploy/istio-ca-gate -- istio-ca-gate "*)
        while [ "$1" != -- ]; do shift; done
        shift
        exec env -i PATH="$PATH" $(cat "$HOME/$context.env") "$@" ;;
esac
exec real-kubectl "$@"
"#;

impl Here {
    pub async fn start() -> Result<Self> {
        let raft = VaultOptions { storage: Storage::Raft };
        let (homelab, nas, vault) =
            tokio::try_join!(Cluster::start("homelab"), Cluster::start("nas"), Vault::start(raft))?;
        let homelab = Side { side: testbed::side::Side::homelab((*homelab).clone()), cluster: homelab };
        let nas = Side { side: testbed::side::Side::nas((*nas).clone()), cluster: nas };
        let folder = tempfile::tempdir()?;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(folder.path().join("bin"))?;
        fs::create_dir_all(folder.path().join("certs"))?;
        Program::new("cp").arg("-r").arg(root.join("deploy")).arg(folder.path()).output(None).await?;
        let (homelab, nas) =
            tokio::try_join!(Self::side(homelab, &vault, folder.path()), Self::side(nas, &vault, folder.path()))?;
        let record = foreign_ca().await?;
        let here = Self { homelab, nas, vault, record, folder };
        here.tools().await?;
        here.files().await?;
        here.set_up().await?;
        here.reset().await?;
        Ok(here)
    }

    fn sides(&self) -> [&(Side, Gate); 2] {
        [&self.homelab, &self.nas]
    }

    /// A cluster with what the documents speak of, and its gate.
    async fn side(side: Side, vault: &Vault, folder: &std::path::Path) -> Result<(Side, Gate)> {
        let cluster = &side.cluster;
        for (group, version, kind, plural) in FOREIGN_KINDS {
            let made = definition(group, version, kind, plural).to_string();
            cluster.kubectl_stdin(&["create", "-f", "-"], &made).await?;
        }
        cluster.kubectl(&["wait", "--for=condition=established", "--timeout=30s", "crd", "--all"]).await?;
        for namespace in [NAMESPACE, "flux-system", "vault"] {
            cluster.kubectl(&["create", "namespace", namespace]).await?;
        }
        let https = Port::reserve()?;
        point(&folder.join("deploy/kustomize/overlays").join(side.name).join("kustomization.yaml"), https.number())?;
        apply(&side, folder).await?;
        side.introduce_to(vault).await?;
        let options = Options { flags: &["--refresh", "1s"], https: Some(https), ..Options::default() };
        let gate = Gate::launch(&side, vault, options).await?;
        side.is_injected().await?;
        environment(&side, vault, folder).await?;
        side.deploy_istiod().await?;
        side.deploy_gateway().await?;
        let named = |version: &str, kind: &str, namespace: &str, name: &str| {
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace } })
                .to_string()
        };
        for object in [
            named("helm.toolkit.fluxcd.io/v2", "HelmRelease", "flux-system", "istiod"),
            named("external-secrets.io/v1", "ExternalSecret", NAMESPACE, "istio-cacerts"),
        ] {
            eventually("a kind", SOON, || side.cluster.kubectl_stdin(&["apply", "-f", "-"], &object)).await?;
        }
        Ok((side, gate))
    }

    /// The commands of the documents, by their names.
    async fn tools(&self) -> Result<()> {
        let bin = self.folder.path().join("bin");
        let (kubernetes, vault) = tokio::task::spawn_blocking(|| (ControlPlane::find(), binaries::vault())).await?;
        kubernetes?.kubectl.install(&bin, "real-kubectl")?;
        vault?.install(&bin, "vault")?;
        Program::new(binary()).install(&bin, "istio-ca-gate")?;
        fs::write(bin.join("kubectl"), KUBECTL)?;
        fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// The files that a person has at hand.
    pub async fn files(&self) -> Result<()> {
        let write = |name: &str, text: &str| fs::write(self.folder.path().join(name), text);
        for name in ["root-cert.pem", "cert-chain.pem", "ca-cert.pem", "ca-key.pem"] {
            let text = self.record[name].as_str().context(name)?;
            write(name, text)?;
            write(&format!("certs/{name}"), text)?;
        }
        write("root.pem", self.record["root-cert.pem"].as_str().context("no root")?)?;
        write("vault-ca.crt", self.vault.ca_pem())?;
        write("homelab-ca.crt", self.homelab.0.api.ca_pem())?;
        write("nas-sa.pub", self.nas.0.api.service_account_public_key_pem())?;
        let api = &self.homelab.0.api;
        write(
            "homelab-reviewer-token",
            &api.service_account_token("default", "vault-reviewer", &[api.issuer()], 3600).await?,
        )?;
        Ok(())
    }

    /// Version 1 of the record, and both gates open on it.
    pub async fn reset(&self) -> Result<()> {
        let (status, _) = self.vault.api("GET", "sys/mounts/secret", None).await?;
        if status != 200 {
            let engine = json!({ "type": "kv", "options": { "version": "2" } });
            self.vault.ok("POST", "sys/mounts/secret", Some(engine)).await?;
        }
        let files = ["root-cert.pem", "cert-chain.pem", "ca-cert.pem", "ca-key.pem"];
        let data: serde_json::Map<_, _> =
            files.iter().map(|name| ((*name).to_owned(), self.record[*name].clone())).collect();
        eventually("the engine to take a record", SOON, || async {
            self.vault.api("DELETE", "secret/metadata/istio/ca", None).await?;
            self.vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": data, "options": { "cas": 0 } }))).await
        })
        .await?;
        for (side, gate) in self.sides() {
            let forget = ["-n", NAMESPACE, "delete", "secret/cacerts", "configmap/istio-ca-gate", "--ignore-not-found"];
            side.cluster.kubectl(&forget).await?;
            let root = &self.record["root-cert.pem"];
            let served = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": { "root-cert.pem": root },
                "metadata": { "name": "istio-ca-root-cert", "namespace": NAMESPACE },
            });
            let own = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "istio-ca-secret", "namespace": NAMESPACE },
                "stringData": { "ca-cert.pem": root, "ca-key.pem": self.record["ca-key.pem"] },
            });
            let both = format!("{served}\n---\n{own}\n");
            side.cluster.kubectl_stdin(&["apply", "--server-side", "-f", "-"], &both).await?;
            side.restart("istiod").await?;
            gate.process.until("the gate to be open again", SOON, || self.is_well(gate)).await?;
        }
        Ok(())
    }

    /// A record of the signing kind, whose root is in the PKI engine, and two clusters that attest to it. Their gates here
    /// have no engine.
    pub async fn signing(&self) -> Result<()> {
        for gone in ["sys/mounts/pki-mesh", "secret/metadata/istio/ca"] {
            self.vault.api("DELETE", gone, None).await?;
        }
        Mesh::start(Box::new(VaultApi::clone(&self.vault))).await.map(|_| ())
    }

    /// Whether a gate is open on the newest version of the record.
    async fn is_well(&self, gate: &Gate) -> Result<()> {
        let (_, metadata) = self.vault.api("GET", "secret/metadata/istio/ca", None).await?;
        let report = gate.fingerprint().await?;
        let is_newest = report["vault"]["version"] == metadata["data"]["current_version"];
        ensure!(report["state"] == "open" && report["match"] == true && is_newest, "{report}, {metadata}");
        Ok(())
    }

    /// Vault's side, by the script.
    async fn set_up(&self) -> Result<()> {
        let reviewer = "--homelab-ca homelab-ca.crt --homelab-reviewer-token-file homelab-reviewer-token";
        self.run(&format!("deploy/vault/setup.sh --force --homelab-host $HOMELAB {reviewer}")).await?;
        Ok(())
    }

    /// As it is before each block: manifests applied, logins, and both gates open.
    pub async fn heal(&self, after: Option<&Block>) -> Result<()> {
        let has = |words: &[&str]| after.is_some_and(|block| words.iter().any(|word| block.text.contains(word)));
        if has(&LOGINS) {
            self.set_up().await?;
        }
        let mut is_well = true;
        for (side, gate) in self.sides() {
            if has(&OBJECTS) {
                apply(side, self.folder.path()).await?;
            }
            let again = Duration::from_secs(6);
            is_well &= gate.process.until("the gate to follow", again, || self.is_well(gate)).await.is_ok();
        }
        if is_well { Ok(()) } else { self.reset().await }
    }

    /// Runs a script as the administrator, and returns what it says.
    pub async fn run(&self, script: &str) -> Result<String> {
        let home = self.folder.path();
        let kubeconfigs = [self.nas.0.cluster.kubeconfig(), self.homelab.0.cluster.kubeconfig()];
        let kubeconfigs: Vec<_> = kubeconfigs.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let child = Command::new("bash")
            .args(["-c", script])
            .current_dir(home)
            .env_clear()
            .env("PATH", format!("{}:{}", home.join("bin").display(), std::env::var("PATH")?))
            .env("HOME", home)
            .env("KUBECONFIG", kubeconfigs.join(":"))
            .env("VAULT_ADDR", self.vault.address())
            .env("VAULT_CACERT", self.vault.ca_file())
            .env("VAULT_TOKEN", self.vault.root_token())
            // The documents export it in the block before.
            .envs(script.contains("istio-ca-gate rotate").then_some(("GATE_VAULT_PKI_MOUNT", "pki-mesh")))
            // A person says yes.
            .env("GATE_YES", "true")
            .env("VAULT", self.vault.address())
            .env("GATE", self.nas.1.url("").trim_end_matches('/'))
            .env("HOMELAB", self.homelab.0.api.url())
            .env("NAS", self.nas.0.api.url())
            .env("NAS_ISSUER", self.nas.0.api.issuer())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(AT_MOST, child).await.context("it runs on")??;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success(), "{}:\n{script}\n{said}", output.status);
        Ok(said)
    }
}

/// The overlay's webhooks call a port of this machine: there is no kube-proxy.
fn point(kustomization: &PathBuf, port: u16) -> Result<()> {
    let patch = |path: &str| {
        let url = json!({ "url": format!("https://127.0.0.1:{port}/{path}") });
        let operations = [0, 1, 2]
            .map(|entry| json!({ "op": "replace", "path": format!("/webhooks/{entry}/clientConfig"), "value": url }));
        json!(operations).to_string()
    };
    let patches = json!([
        { "target": { "kind": "ValidatingWebhookConfiguration" }, "patch": patch("validate") },
        { "target": { "kind": "MutatingWebhookConfiguration" }, "patch": patch("mutate") },
    ]);
    let text = fs::read_to_string(kustomization)?;
    fs::write(kustomization, format!("{text}\npatches: {patches}\n"))?;
    Ok(())
}

/// As the documents apply it, over whatever a person has changed by hand.
async fn apply(side: &Side, folder: &std::path::Path) -> Result<()> {
    let overlay = folder.join("deploy/kustomize/overlays").join(side.name);
    let overlay = overlay.to_str().context("the folder's name is not UTF-8")?;
    side.cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", overlay]).await?;
    Ok(())
}

/// What a command in the gate's pod has for its environment.
async fn environment(side: &Side, vault: &Vault, folder: &std::path::Path) -> Result<()> {
    let file = |name: &str| folder.join(format!("{}.{name}", side.name));
    fs::write(file("token"), side.gate_token("vault").await?)?;
    fs::write(
        file("kubeconfig"),
        side.api.kubeconfig(side.service_account, &side.gate_token(side.api.issuer()).await?),
    )?;
    let variables = [
        ("GATE_ROLE", side.role.to_owned()),
        ("GATE_CLUSTER", side.name.to_owned()),
        ("GATE_VAULT_ADDRS", vault.address().to_owned()),
        ("GATE_VAULT_AUTH_MOUNT", side.auth_mount.to_owned()),
        ("GATE_VAULT_JWT_FILE", file("token").display().to_string()),
        ("VAULT_CACERT", vault.ca_file().display().to_string()),
        ("KUBECONFIG", file("kubeconfig").display().to_string()),
    ];
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fs::write(file("env"), lines.join("\n"))?;
    Ok(())
}
