//! What a user compares by hand, in one command: real clusters, a real Vault, gates, and openssl's word for it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{KubernetesApi, Program};

use crate::gate::Gate;
use crate::story::decode;
use crate::world::{NAMESPACE, Side, World};

const SERVED: &str = "/api/v1/namespaces/istio-system/configmaps";

/// A user's environment: one kubeconfig for both clusters, and a token for Vault.
struct User {
    _folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl User {
    fn new(world: &World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [homelab, nas] = [&world.homelab, &world.nas].map(|side| admin(&side.cluster));
        let (mut both, nas) = (homelab?, nas?);
        for list in ["clusters", "users", "contexts"] {
            let more = nas[list].as_array().context("no list")?.clone();
            both[list].as_array_mut().context("no list")?.extend(more);
        }
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, both.to_string())?;
        let variables = vec![
            ("KUBECONFIG", kubeconfig.to_string_lossy().into_owned()),
            ("VAULT_ADDR", world.vault.address().to_owned()),
            ("VAULT_CACERT", world.vault.ca_file().to_string_lossy().into_owned()),
            ("VAULT_TOKEN", world.vault.root_token().to_owned()),
        ];
        Ok(Self { _folder: folder, variables })
    }

    async fn run(&self, args: &[&str]) -> Result<Said> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_istio-ca-gate"));
        command.args(args).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
    }
}

/// An administrator's kubeconfig, whose names are the cluster's own.
fn admin(api: &KubernetesApi) -> Result<Value> {
    Ok(serde_json::from_str(&api.kubeconfig(&format!("admin-of-{}", api.name()), api.admin_token()))?)
}

/// Tells what it serves, as istiod does.
async fn serve(side: &Side, root: &str) -> Result<()> {
    let name = "istio-ca-root-cert";
    side.cluster.request("DELETE", &format!("{SERVED}/{name}"), None).await?;
    let served = json!({ "metadata": { "name": name }, "data": { "root-cert.pem": root } });
    let (status, answer) = side.cluster.request("POST", SERVED, Some(served)).await?;
    ensure!(status == 201, "{answer}");
    Ok(())
}

/// The procedure of old: `cacerts`' root through openssl.
async fn by_hand(side: &Side, flag: &str) -> Result<String> {
    let cacerts = side.cacerts().await?.context("no cacerts")?;
    let pem = decode(&cacerts["data"]["root-cert.pem"])?;
    Program::new("openssl").args(["x509", "-fingerprint", flag, "-noout"]).output(Some(&pem)).await
}

fn verdicts(said: &Said) -> Result<Vec<(String, String, Value)>> {
    let document: Value = serde_json::from_str(&said.stdout).with_context(|| format!("{said:?}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let places = document["places"].as_array().context("no places")?;
    Ok(places.iter().map(|row| (text(&row["place"]), text(&row["verdict"]), row["reason"].clone())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clusters_their_gates_and_vault_are_compared_and_each_fault_is_told() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let (homelab_gate, nas_gate) = (Gate::start(homelab, vault).await?, Gate::start(nas, vault).await?);
    for side in [homelab, nas] {
        side.deploy_istiod().await?;
        side.pod("istiod").await?;
        let cacerts = side.cacerts().await?.context("no cacerts")?;
        serve(side, &decode(&cacerts["data"]["root-cert.pem"])?).await?;
    }
    let user = User::new(&world)?;
    let gates = [homelab_gate.url("fingerprint"), nas_gate.url("fingerprint")];
    let places = ["verify", "--context", "homelab", "--context", "nas", "--url", &gates[0], "--url", &gates[1]];
    let all = [&places[..], &["--vault"]].concat();
    let with_json = [&all[..], &["-o", "json"]].concat();

    let said = user.run(&[&all[..], &["-o", "wide"]].concat()).await?;
    ensure!(said.code == Some(0) && said.stderr.is_empty(), "{said:?}");
    ensure!(said.stdout.contains("Equal: all 7 places have the same roots."), "{said:?}");
    ensure!(said.stdout.matches("O=Istio, CN=Istio Root CA homelab").count() == 7, "{said:?}");

    // The fingerprint that a user gets by hand.
    let lines = [(&["--openssl"][..], "-sha256"), (&["--openssl", "--sha1"], "-sha1")];
    for (flags, digest) in lines {
        for place in [&["--context", "homelab"][..], &["--context", "nas"], &["--vault"], &[]] {
            let said = user.run(&[&["fingerprint"], place, flags].concat()).await?;
            // Its default digest in capitals, others as they were asked for.
            let wanted = by_hand(nas, digest).await?.replace("sha1 ", "SHA1 ");
            ensure!(said.code == Some(0) && said.stdout == wanted, "{place:?}: {said:?}, by hand {wanted}");
        }
    }

    // What istiod serves is not what cacerts has: a restart is due.
    let other = crate::cacerts::foreign_ca().await?;
    serve(nas, other["root-cert.pem"].as_str().context("no PEM")?).await?;
    let said = user.run(&with_json).await?;
    let differing: Vec<_> = verdicts(&said)?.into_iter().filter(|(_, verdict, _)| verdict != "equal").collect();
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(differing == [("nas istio-ca-root-cert".to_owned(), "differs".to_owned(), Value::Null)], "{differing:?}");

    // With rights to nothing, and a Vault that is sealed.
    nas.cluster.kubectl(&["-n", NAMESPACE, "create", "serviceaccount", "nobody"]).await?;
    let token = nas.cluster.service_account_token(NAMESPACE, "nobody", &[nas.cluster.issuer()], 600).await?;
    let powerless = nas.cluster.kubeconfig_for("nobody", &token)?;
    vault.seal().await?;
    let file = powerless.to_string_lossy();
    let said = user.run(&["verify", "--kubeconfig", &file, "--context", "nas", "--vault", "-o", "json"]).await?;
    let reasons: Vec<_> = verdicts(&said)?.into_iter().map(|(_, _, reason)| reason).collect();
    ensure!(said.code == Some(2), "{said:?}");
    ensure!(reasons == ["VaultSealed", "KubernetesForbidden", "KubernetesForbidden"], "{reasons:?}");

    // Nor is a cluster there any more whose roots differed.
    nas.cluster.stop_api_server()?;
    let said = user.run(&with_json).await?;
    let reasons: Vec<_> = verdicts(&said)?.into_iter().map(|(place, _, reason)| (place, reason)).collect();
    ensure!(said.code == Some(2), "{said:?}");
    for place in ["nas cacerts", "nas istio-ca-root-cert"] {
        ensure!(reasons.contains(&(place.to_owned(), json!("KubernetesUnreachable"))), "{reasons:?}");
    }
    ensure!(!said.stdout.contains(vault.root_token()) && !said.stdout.contains("PRIVATE"), "{said:?}");
    Ok(())
}
