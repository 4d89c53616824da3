//! The whole story, in the order in which the old set-up went wrong: the NAS first.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Program, eventually};

use crate::gate::Gate;
use crate::world::{NAMESPACE, SOON, Side, World};

const FILES: [(&str, &str); 4] = [
    ("root-cert.pem", "root-cert.pem"),
    ("cert-chain.pem", "cert-chain.pem"),
    ("ca-cert.pem", "cert-chain.pem"),
    ("ca-key.pem", "key.pem"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nas_waits_homelab_bootstraps_nas_follows_by_itself() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let nas_gate = Gate::start(nas, vault).await?;
    let homelab_gate = Gate::start(homelab, vault).await?;

    // The NAS first: refused, told why, and nothing is written.
    nas.deploy_istiod().await?;
    nas.deploy_gateway().await?;
    nas.deploy("bystander", json!({ "app": "bystander" })).await?;
    let refusal = nas.refusal("istiod", "RootMissing").await?;
    nas.refusal("istio-eastwestgateway", "RootMissing").await?;
    println!("NAS first: kubectl describe replicaset says");
    println!("    {refusal}");
    nas.pod("bystander").await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    ensure!(nas.cacerts().await?.is_none() && nas.pin().await?.is_none());
    ensure!(homelab.cacerts().await?.is_none() && homelab.pin().await?.is_none());
    ensure!(homelab_gate.fingerprint().await?["state"] == "dormant");
    ensure!(nas_gate.stands("held", Some("RootMissing")).await?["vault"].is_null());

    // Then the homelab: its first pod brings the root about.
    let consulted = Instant::now();
    homelab.deploy_istiod().await?;
    let vault_has_it = eventually("a root in Vault", SOON, || async {
        (!vault.versions("secret", "istio/ca").await.ok()?.is_empty()).then(Instant::now)
    })
    .await?;
    // And the NAS, without anyone's help.
    let (homelab_pod, nas_pod) =
        tokio::join!(async { homelab.pod("istiod").await.map(|_| consulted.elapsed()) }, async {
            nas.pod("istiod").await.map(|_| vault_has_it.elapsed())
        });
    let (homelab_took, nas_took) = (homelab_pod?, nas_pod?);
    nas.pod("istio-eastwestgateway").await?;
    ensure!(homelab.refusals("istiod").await?.iter().all(|message| message.contains("Converging")));

    same_everywhere(&world, &homelab_gate, &nas_gate).await?;
    openssl_agrees(homelab).await?;
    println!("homelab: istiod's first pod made the root; Vault holds version 1; openssl agrees with its profile");
    println!("NAS: the blocked pods came by themselves; cacerts is Vault's to the byte in both clusters:");
    for (side, gate) in [(homelab, &homelab_gate), (nas, &nas_gate)] {
        let report = gate.fingerprint().await?;
        println!("    {:8} {} {}", side.name, report["state"], report["cacerts"]["sha256"]);
    }

    let generation = seconds_in(&homelab_gate.process.log(), "made a root key")?;
    println!("times:");
    println!(
        "    cold start to ready: {:.3} s (nas), {:.3} s (homelab)",
        nas_gate.ready_after.as_secs_f64(),
        homelab_gate.ready_after.as_secs_f64()
    );
    println!(
        "    first consultation to istiod's pod: {:.3} s, of which RSA generation {generation:.3} s",
        homelab_took.as_secs_f64()
    );
    println!("    root in Vault to the NAS's pod: {:.3} s", nas_took.as_secs_f64());

    // SIGTERM ends them orderly.
    ensure!(nas_gate.process.terminate().await?.success());
    ensure!(homelab_gate.process.terminate().await?.success());
    for gate in [&nas_gate, &homelab_gate] {
        let log = gate.process.log();
        ensure!(!log.contains("PRIVATE KEY") && !log.contains("LS0tLS1CRUdJTiB"), "key material in a log");
    }
    Ok(())
}

/// Vault has version 1 and no other; both Secrets have its bytes; both gates say so.
async fn same_everywhere(world: &World, homelab_gate: &Gate, nas_gate: &Gate) -> Result<()> {
    let World { homelab, nas, vault, .. } = world;
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    let (status, record) = vault.api("GET", "secret/data/istio/ca", None).await?;
    ensure!(status == 200);
    for side in [homelab, nas] {
        let cacerts = side.cacerts().await?.context("no cacerts")?;
        for (file, key) in FILES {
            let published = decode(&cacerts["data"][file])?;
            ensure!(published == record["data"]["data"][key].as_str().context("no key")?, "{} {file}", side.name);
        }
        ensure!(cacerts["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "istio-ca-gate");
    }
    let ours = homelab_gate.stands("open", None).await?;
    let theirs = nas_gate.stands("open", None).await?;
    ensure!(ours["match"] == true && theirs["match"] == true);
    ensure!(ours["cacerts"]["sha256"] == theirs["cacerts"]["sha256"] && ours["vault"]["version"] == 1);
    // The seed's own commands print the same.
    for (side, report) in [(homelab, &ours), (nas, &theirs)] {
        let sha1 = seed_fingerprint(side).await?;
        ensure!(
            sha1 == format!("SHA1 Fingerprint={}", report["cacerts"]["sha1"].as_str().context("no sha1")?),
            "{sha1}"
        );
    }
    let pins = (homelab.pin().await?.context("no pin")?, nas.pin().await?.context("no pin")?);
    ensure!(pins.0["data"]["root-sha256"] == pins.1["data"]["root-sha256"] && pins.0["data"]["vault-version"] == "1");
    Ok(())
}

/// `kubectl get secret … -o jsonpath | base64 -d | openssl x509 -fingerprint -noout`
async fn seed_fingerprint(side: &Side) -> Result<String> {
    let path = "jsonpath={.data.root-cert\\.pem}";
    let encoded = side.cluster.kubectl(&["-n", NAMESPACE, "get", "secret", "cacerts", "-o", path]).await?;
    let pem = Program::new("base64").arg("-d").output(Some(&encoded)).await?;
    let line = Program::new("openssl").args(["x509", "-fingerprint", "-noout"]).output(Some(&pem)).await?;
    Ok(line.trim().to_owned())
}

/// An independent reader confirms the profile of the root.
async fn openssl_agrees(side: &Side) -> Result<()> {
    let cacerts = side.cacerts().await?.context("no cacerts")?;
    let pem = decode(&cacerts["data"]["root-cert.pem"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("root.pem");
    std::fs::write(&file, &pem)?;
    let file = file.to_str().context("path")?;
    let verified = Program::new("openssl").args(["verify", "-x509_strict", "-CAfile", file, file]).output(None).await?;
    ensure!(verified.trim().ends_with("OK"), "{verified}");
    let text = Program::new("openssl").args(["x509", "-noout", "-text"]).output(Some(&pem)).await?;
    let line = |wanted: &str| ensure_contains(&text, wanted);
    line("Signature Algorithm: sha256WithRSAEncryption")?;
    line("Public-Key: (4096 bit)")?;
    line("Issuer: O = Istio, CN = Istio Root CA homelab")?;
    line("Subject: O = Istio, CN = Istio Root CA homelab")?;
    line("X509v3 Basic Constraints: critical\n                CA:TRUE\n")?;
    line("X509v3 Key Usage: critical\n                Digital Signature, Certificate Sign, CRL Sign\n")?;
    line("X509v3 Subject Key Identifier:")?;
    ensure!(!text.contains("Extended Key Usage"), "{text}");
    // Ten years, less the hour that lies behind.
    let day = 24 * 3600;
    let ends_after = |seconds: u64| {
        let program = Program::new("openssl").args(["x509", "-noout", "-checkend", &seconds.to_string()]);
        async { program.output(Some(&pem)).await.is_ok() }
    };
    ensure!(ends_after(3650 * day - 3600).await && !ends_after(3650 * day + 60).await);
    // The key is the certificate's.
    let key = decode(&cacerts["data"]["ca-key.pem"])?;
    let of_key = Program::new("openssl").args(["pkey", "-pubout"]).output(Some(&key)).await?;
    let of_certificate = Program::new("openssl").args(["x509", "-noout", "-pubkey"]).output(Some(&pem)).await?;
    ensure!(of_key == of_certificate);
    Ok(())
}

fn ensure_contains(text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "no {wanted:?} in {text}");
    Ok(())
}

pub fn decode(value: &Value) -> Result<String> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone())?;
    Ok(String::from_utf8(bytes.0)?)
}

/// The `seconds` of the log line with this message.
fn seconds_in(log: &str, message: &str) -> Result<f64> {
    let line = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = line.filter(|line| line["message"] == message);
    found.next().and_then(|line| line["seconds"].as_f64()).with_context(|| format!("no {message:?} in the log"))
}
