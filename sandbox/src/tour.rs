//! The guided tour. Each step asserts what it tells; the first that does not hold ends the tour with an error.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::ca::bundle::Bundle;
use istio_ca_gate::ca::issue;
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use testbed::{Port, eventually};

use crate::gates::{Gate, Setting};
use crate::istiods::Istiods;
use crate::signers;
use crate::tell::Teller;
use crate::world::World;
use testbed::side::{NAMESPACE, SOON, Side};

/// The record, below `v1/`.
pub(crate) const RECORD: &str = "secret/data/istio/ca";

/// Whether this machine has the addresses that the istiods of the last chapters need.
pub(crate) const SIGNERS: bool = cfg!(target_os = "linux");

/// The keys of `cacerts`, and the keys of the record that they are copied from.
const FILES: [(&str, &str); 4] = [
    ("root-cert.pem", "root-cert.pem"),
    ("cert-chain.pem", "cert-chain.pem"),
    ("ca-cert.pem", "cert-chain.pem"),
    ("ca-key.pem", "key.pem"),
];

/// What stands at the end, and what may be poked at.
#[derive(Debug)]
pub struct Standing {
    /// The gate of the homelab. Ends before its world.
    pub homelab: Gate,
    /// The gate of the NAS.
    pub nas: Gate,
    /// The rest.
    pub world: World,
}

/// The tour, once all is started. It returns what stays: the istiods as long as they are kept.
///
/// # Errors
/// The first step that did not go as told.
pub async fn go(teller: &Teller, standing: Standing, folder: &Path) -> Result<(Standing, Istiods)> {
    nas_first(teller, &standing).await?;
    homelab_bootstraps(teller, &standing).await?;
    fingerprints_agree(teller, &standing).await?;
    // As if the old Job had run once more.
    let second = tokio::task::spawn_blocking(|| issue::root("Somebody else's root", Timestamp::now())).await??;
    tampered_with(teller, &standing, &second).await?;
    sealed(teller, &standing).await?;
    second_root(teller, &standing, &second).await?;
    let (standing, istiods) = if SIGNERS {
        Box::pin(signers::go(teller, standing, folder)).await?
    } else {
        teller.say("Two more chapters, on signers and on the change of the root, need the addresses of Linux.");
        (standing, Istiods::default())
    };
    as_it_stands(teller, &standing).await?;
    Ok((standing, istiods))
}

/// Starts a world, and its gates, which keep their files in a folder.
///
/// # Errors
/// The first step that did not go as told.
pub async fn start(teller: &Teller, real: bool, folder: &Path) -> Result<Standing> {
    teller.chapter("Two clusters, one Vault, and a gate in each cluster");
    let kind = if real { "real" } else { "embedded" };
    let what = format!("a Vault and two Kubernetes API servers ({kind}), set up as the README says");
    let world = if real {
        Box::pin(teller.step(&what, World::real())).await?
    } else {
        Box::pin(teller.step(&what, World::embedded())).await?
    };
    let (one, other) = (Arc::new(Port::reserve()?), Arc::new(Port::reserve()?));
    let [homelab, nas] = [&one, &other].map(|port| format!("http://127.0.0.1:{}/", port.number()));
    let gate = |side, page, peer| Gate::start(side, Setting { vault: &world.vault, folder, page, peer });
    let homelab_gate = gate(&world.homelab, one, &nas);
    let what = "homelab's gate is ready; its role is bootstrap: it may make the root";
    let homelab_gate = teller.step(what, homelab_gate).await?;
    let nas_gate = gate(&world.nas, other, &homelab);
    let nas = teller.step("nas's gate is ready; its role is sync: it only copies the root", nas_gate).await?;
    let homelab = homelab_gate;
    teller
        .step("both are dormant: nobody has asked, so nothing of the CA was written anywhere", async {
            homelab.stands("dormant", None).await?;
            nas.stands("dormant", None).await?;
            nothing_is_written(&world).await
        })
        .await?;
    Ok(Standing { homelab, nas, world })
}

async fn nothing_is_written(world: &World) -> Result<()> {
    ensure!(world.vault.versions("secret", "istio/ca").await?.is_empty(), "Vault has a root");
    for side in [&world.homelab, &world.nas] {
        ensure!(side.cacerts().await?.is_none(), "{} has cacerts", side.name);
        ensure!(side.pin().await?.is_none(), "{} has a pin", side.name);
    }
    Ok(())
}

async fn nas_first(teller: &Teller, standing: &Standing) -> Result<()> {
    let World { nas, .. } = &standing.world;
    teller.chapter("The NAS starts first, and there is no root anywhere");
    teller.say(
        "Without the gate, this istiod would now make a root of its own, and the mesh would be split without a word.",
    );
    teller
        .step("nas: istiod, the east-west gateway and a bystander are deployed", async {
            nas.deploy_istiod().await?;
            nas.deploy_gateway().await?;
            nas.deploy("bystander", json!({ "app": "bystander" })).await
        })
        .await?;
    let refused = async {
        let message = nas.refusal("istiod", "RootMissing").await?;
        nas.refusal("istio-eastwestgateway", "RootMissing").await.map(|_| message)
    };
    let message = teller.step("nas: the pods of istiod and of the gateway are refused", refused).await?;
    teller.say("kubectl describe replicaset says why, and what to do:");
    teller.quote(&message);
    teller
        .step("nas: the bystander's pod is in; the gate was not even asked about it", async {
            nas.pod("bystander").await?;
            ensure!(!standing.nas.log()?.contains("bystander"), "the gate was asked");
            Ok(())
        })
        .await?;
    teller.step("still nothing is written: the sync role never makes a root", nothing_is_written(&standing.world)).await
}

async fn homelab_bootstraps(teller: &Teller, standing: &Standing) -> Result<()> {
    let World { homelab, nas, vault, .. } = &standing.world;
    teller.chapter("The homelab's first istiod brings the root about, and the NAS follows");
    let root = async {
        homelab.deploy_istiod().await?;
        eventually("a root in Vault", SOON, || async {
            let versions = vault.versions("secret", "istio/ca").await?;
            ensure!(versions == [1], "versions {versions:?}");
            Ok(Instant::now())
        })
        .await
    };
    let since =
        teller.step("homelab: istiod asks; its gate makes an RSA-4096 root and writes it to Vault", root).await?;
    let seconds = seconds_in(&standing.homelab.log()?, "made a root key")?;
    teller.say(&format!("Of that, {seconds:.2} s were the key. The write says cas=0: it can only ever be the first."));
    teller.step("homelab: cacerts is published, and istiod's pod is in", homelab.pod("istiod")).await?;
    let follow = async {
        nas.pod("istiod").await?;
        nas.pod("istio-eastwestgateway").await
    };
    teller.step("nas: both pods are in, and nobody lifted a finger there", follow).await?;
    teller.say(&format!(
        "{:.2} s after the root was in Vault: the gate tries again every two seconds at the latest, and then touches \
         the ReplicaSets that were refused.",
        since.elapsed().as_secs_f64()
    ));
    teller.step("both cacerts hold Vault's bytes", same_bytes(&standing.world)).await
}

async fn fingerprints_agree(teller: &Teller, standing: &Standing) -> Result<()> {
    teller.chapter("The fingerprints agree");
    let mut seen = Vec::new();
    for (gate, side) in [(&standing.homelab, &standing.world.homelab), (&standing.nas, &standing.world.nas)] {
        let report = gate.stands("open", None).await?;
        ensure!(report["match"] == true, "{report}");
        let told = report["cacerts"]["sha256"].as_str().context("no fingerprint")?.to_owned();
        ensure!(told == fingerprint(side).await?, "{}: /fingerprint and cacerts differ", side.name);
        teller.fingerprint(side.name, &told);
        seen.push(told);
    }
    teller.step("one root in both clusters", async { ensure_one(&seen) }).await
}

fn ensure_one(seen: &[String]) -> Result<()> {
    ensure!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    Ok(())
}

async fn tampered_with(teller: &Teller, standing: &Standing, second: &Bundle) -> Result<()> {
    let World { nas, .. } = &standing.world;
    teller.chapter("Somebody tampers with cacerts");
    let foreign = STANDARD.encode(&second.root_cert);
    teller
        .step("nas: root-cert.pem is replaced by another root", async {
            let patch = json!({ "data": { "root-cert.pem": foreign } });
            let (status, answer) = nas.api.request("PATCH", &Side::cacerts_path(), Some(patch)).await?;
            ensure!(status == 200 && answer["data"]["root-cert.pem"] == foreign.as_str(), "{status}: {answer}");
            Ok(())
        })
        .await?;
    let mended = eventually("Vault's bytes in cacerts", SOON, || same_bytes(&standing.world));
    teller.step("nas: the gate saw it by its watch, and has published Vault's bytes again", mended).await?;
    standing.nas.stands("open", None).await.map(|_| ())
}

async fn sealed(teller: &Teller, standing: &Standing) -> Result<()> {
    let World { homelab, nas, vault, .. } = &standing.world;
    teller.chapter("Vault is sealed, and unsealed");
    let sealed = async {
        vault.seal().await?;
        standing.homelab.stands("open", Some("VaultSealed")).await
    };
    teller.step("Vault is sealed, and the gates know", sealed).await?;
    let restarted = async {
        homelab.restart("istiod").await?;
        homelab.pod("istiod").await?;
        warning(homelab).await
    };
    let warning = teller.step("homelab: istiod restarts, and its pod is let in with a warning", restarted).await?;
    teller.quote(&warning);
    teller.say("An outage of Vault must not stop a healthy mesh: this cacerts was compared with Vault seconds ago.");
    let lost = async {
        nas.delete_cacerts().await?;
        standing.nas.stands("held", Some("VaultSealed")).await?;
        nas.restart("istiod").await?;
        nas.refusal("istiod", "VaultSealed").await
    };
    let message = teller.step("nas: its cacerts is deleted meanwhile, so istiod is refused", lost).await?;
    teller.quote(&message);
    let healed = async {
        vault.unseal().await?;
        nas.pod("istiod").await?;
        same_bytes(&standing.world).await
    };
    teller.step("Vault is unsealed: cacerts is there again, and istiod's pod is in", healed).await
}

/// What `kubectl` shows of a gated pod that is let in though Vault cannot be asked. A dry run makes no pod.
async fn warning(side: &Side) -> Result<String> {
    let pod = sample_pod("warned-");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let json = [("content-type", "application/json")];
    let answer = side.api.raw(Some(side.api.admin_token()), "POST", &path, &json, Some(pod.to_string())).await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let warning = answer.headers().get("warning").context("no warning")?.to_str()?;
    Ok(warning.trim_start_matches("299 - ").trim_matches('"').to_owned())
}

async fn second_root(teller: &Teller, standing: &Standing, second: &Bundle) -> Result<()> {
    let World { homelab, nas, vault, .. } = &standing.world;
    teller.chapter("A second root is attempted");
    let record = Value::Object(second.to_record());
    let refused = async {
        let jwt = homelab.gate_token("vault").await?;
        let login = json!({ "role": homelab.policy(), "jwt": jwt });
        let (_, login) = vault.api_with(None, "POST", "auth/kubernetes/login", Some(login)).await?;
        let token = login["auth"]["client_token"].as_str().context("no token")?;
        let (status, answer) = vault.api_with(Some(token), "POST", RECORD, Some(json!({ "data": record }))).await?;
        ensure!(status == 403, "{status}: {answer}");
        ensure!(vault.versions("secret", "istio/ca").await? == [1]);
        Ok(answer)
    };
    let answer = teller.step("with all rights of homelab's gate: Vault refuses to overwrite the root", refused).await?;
    teller.quote(&answer["errors"].to_string());
    let overwritten = async {
        vault.ok("POST", RECORD, Some(json!({ "data": record }))).await?;
        standing.homelab.stands("held", Some("RootChanged")).await?;
        standing.nas.stands("held", Some("RootChanged")).await
    };
    let report = teller.step("an administrator overwrites it: both gates hold, and follow nobody", overwritten).await?;
    teller.quote(report["message"].as_str().unwrap_or_default());
    let before = nas.cacerts().await?.context("no cacerts")?;
    let closed = async {
        nas.restart("istiod").await?;
        nas.refusal("istiod", "RootChanged").await?;
        let after = nas.cacerts().await?.context("no cacerts")?;
        ensure!(before["data"] == after["data"], "cacerts was changed");
        Ok(())
    };
    teller.step("nas: no istiod may start now, and the cacerts of the running ones is not touched", closed).await?;
    let rolled_back = async {
        let first = vault.ok("GET", &format!("{RECORD}?version=1"), None).await?;
        vault.ok("POST", RECORD, Some(json!({ "data": first["data"]["data"] }))).await?;
        nas.pod("istiod").await?;
        standing.homelab.stands("open", None).await?;
        same_bytes(&standing.world).await
    };
    teller
        .step("the first version is restored (vault kv rollback -version=1): both open by themselves", rolled_back)
        .await
}

async fn as_it_stands(teller: &Teller, standing: &Standing) -> Result<()> {
    teller.chapter("As it stands");
    let row = |cells: [&str; 7]| {
        let [cluster, role, state, vault, equal, until, root] = cells;
        teller.line(&format!("   {cluster:9}{role:11}{state:7}{vault:11}{equal:7}{until:12}{root}"));
    };
    row(["cluster", "role", "state", "Vault's", "equal", "until", "root"]);
    let mut seen = Vec::new();
    for gate in [&standing.homelab, &standing.nas] {
        let report = gate.stands("open", None).await?;
        let (root, vault) = (&report["cacerts"], &report["vault"]);
        let sha256 = root["sha256"].as_str().context("no fingerprint")?.to_owned();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        row([
            &text(&report["cluster"]),
            &text(&report["role"]),
            &text(&report["state"]),
            &format!("version {}", vault["version"]),
            if report["match"] == true { "yes" } else { "no" },
            text(&root["notAfter"]).get(..10).unwrap_or_default(),
            &format!("{}…", sha256.get(..11).unwrap_or_default()),
        ]);
        seen.push(sha256);
    }
    ensure_one(&seen)?;
    let quiet = async {
        for gate in [&standing.homelab, &standing.nas] {
            let log = gate.log()?;
            ensure!(!log.is_empty(), "{} logged nothing", gate.name());
            ensure!(!log.contains("PRIVATE KEY") && !log.contains("LS0tLS1CRUdJTiB"), "a key in {}'s log", gate.name());
        }
        Ok(())
    };
    teller.step("no key in any log", quiet).await
}

/// Both `cacerts` hold what Vault holds, byte for byte.
async fn same_bytes(world: &World) -> Result<()> {
    let record = world.vault.ok("GET", RECORD, None).await?;
    for side in [&world.homelab, &world.nas] {
        let cacerts = side.cacerts().await?.with_context(|| format!("{} has no cacerts", side.name))?;
        for (file, key) in FILES {
            let published = STANDARD.decode(cacerts["data"][file].as_str().context("no file")?)?;
            let stored = record["data"]["data"][key].as_str().with_context(|| format!("no {key} in Vault"))?;
            ensure!(published == stored.as_bytes(), "{file} in {} is not Vault's", side.name);
        }
    }
    Ok(())
}

/// As openssl prints it, and not by the product's own code.
async fn fingerprint(side: &Side) -> Result<String> {
    let cacerts = side.cacerts().await?.context("no cacerts")?;
    let pem = STANDARD.decode(cacerts["data"]["root-cert.pem"].as_str().context("no root-cert.pem")?)?;
    let der = CertificateDer::from_pem_slice(&pem)?;
    let bytes: Vec<_> = digest(&SHA256, &der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(bytes.join(":"))
}

/// The `seconds` of the log line with this message.
fn seconds_in(log: &str, message: &str) -> Result<f64> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = lines.filter(|line| line["message"] == message);
    found.next().and_then(|line| line["seconds"].as_f64()).with_context(|| format!("no {message:?} in the log"))
}

/// A pod of istiod's, as its ReplicaSet would ask for it.
pub(crate) fn sample_pod(generate_name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": generate_name,
            "namespace": NAMESPACE,
            "labels": { "app": "istiod", "istio": "pilot" },
        },
        "spec": { "containers": [{ "name": "discovery", "image": "registry.example/istio" }] },
    })
}
