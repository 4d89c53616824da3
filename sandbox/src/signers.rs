//! The last chapters: each cluster gets a signer of its own, and then the root is replaced in front of whoever looks.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::start::NAME;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::side::{Side, shipped_policy};
use testbed::{VaultApi, eventually};
use tokio::process::Command;

use crate::gates::PKI;
use crate::istiods::Istiods;
use crate::tell::Teller;
use crate::tour::{RECORD, Standing};

const SIGNER: &str = include_str!("../../deploy/vault/istio-ca-signer.hcl");
const ROTATE: &str = include_str!("../../deploy/vault/istio-ca-rotate.hcl");

/// Longest wait for both clusters to follow.
const LONG: Duration = Duration::from_secs(120);

/// The life of a workload's certificate, as the rotation is told.
const TTL: &str = "1m";

/// That life, and the ten minutes that a wait has besides, for clocks that differ.
const WAIT: SignedDuration = SignedDuration::from_secs(11 * 60 + 1);

/// Whoever changes the root: with a token of its own, and the program as a person calls it.
struct Conductor<'a> {
    vault: &'a VaultApi,
    folder: &'a Path,
    token: String,
}

impl<'a> Conductor<'a> {
    async fn new(vault: &'a VaultApi, folder: &'a Path) -> Result<Self> {
        vault.policy("istio-ca-rotate", ROTATE).await?;
        let wanted = json!({ "policies": ["istio-ca-rotate"], "ttl": "8h" });
        let made = vault.ok("POST", "auth/token/create", Some(wanted)).await?;
        let token = made["auth"]["client_token"].as_str().context("no token")?.to_owned();
        Ok(Self { vault, folder, token })
    }

    /// What `rotate` says, if it ends well.
    async fn rotate(&self, args: &[&str]) -> Result<String> {
        let ca = self.folder.join("homelab-vault-ca.pem");
        let output = Command::new(std::env::current_exe()?)
            .arg0(NAME)
            .arg("rotate")
            .args(args)
            .env("VAULT_ADDR", self.vault.address())
            .env("VAULT_CACERT", ca)
            .env("VAULT_TOKEN", &self.token)
            .env("GATE_VAULT_PKI_MOUNT", PKI)
            .output()
            .await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (said, error) = (text(output.stdout), text(output.stderr));
        ensure!(output.status.success(), "rotate {}: {said}{error}", args.join(" "));
        Ok(said)
    }

    /// Runs it until it says this.
    async fn until(&self, args: &[&str], says: &str) -> Result<String> {
        eventually(&format!("rotate {} to say {says:?}", args.join(" ")), LONG, || async {
            let said = self.rotate(args).await?;
            ensure!(said.contains(says), "{said}");
            Ok(said)
        })
        .await
    }
}

/// Both chapters. The istiods stay as long as what is returned.
pub(crate) async fn go(teller: &Teller, standing: Standing, folder: &Path) -> Result<(Standing, Istiods)> {
    teller.chapter("Each cluster gets a signer of its own, and the root's key leaves them");
    teller.say(
        "So far every cacerts has had the root's key: whoever steals the NAS is the mesh. Vault's PKI engine can keep it, and \
         certify a key that each gate makes for itself.",
    );
    let what = "Vault gets the engine and the policies, and both gates start anew with --vault-pki-mount";
    let (standing, istiods) = teller.step(what, Box::pin(with_pki(standing, folder))).await?;
    let conductor = Conductor::new(&standing.world.vault, folder).await?;
    signed(teller, &standing, &conductor).await?;
    replaced(teller, &standing, &conductor).await?;
    Ok((standing, istiods))
}

async fn with_pki(standing: Standing, folder: &Path) -> Result<(Standing, Istiods)> {
    let Standing { homelab, nas, world } = standing;
    let mount = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    world.vault.ok("POST", &format!("sys/mounts/{PKI}"), Some(mount)).await?;
    for side in [&world.homelab, &world.nas] {
        let policy = format!("{}\n{}", shipped_policy(side.role), SIGNER.replace("CLUSTER", side.name));
        world.vault.policy(&side.policy(), &policy).await?;
        side.let_witness().await?;
    }
    let istiods = Istiods::start([&world.homelab, &world.nas]).await?;
    let (page, peer) = (homelab.url(""), nas.url(""));
    let homelab = homelab.with_pki(&world.homelab, &world.vault, folder, &peer).await?;
    let nas = nas.with_pki(&world.nas, &world.vault, folder, &page).await?;
    homelab.stands("open", None).await?;
    nas.stands("open", None).await?;
    Ok((Standing { homelab, nas, world }, istiods))
}

async fn signed(teller: &Teller, standing: &Standing, conductor: &Conductor<'_>) -> Result<()> {
    let before = record(&standing.world.vault).await?;
    let import = ["import", "--yes", "--of", "homelab", "--of", "nas"];
    let what = "rotate import: the same root goes into the engine, each cluster follows, and no old version is left";
    teller.step(what, conductor.until(&import, "destroyed in Vault")).await?;
    let own = async {
        let after = record(&standing.world.vault).await?;
        ensure!(after["root-cert.pem"] == before["root-cert.pem"], "another root");
        ensure!(after["issuer"] == "root-1" && !after.to_string().contains("PRIVATE"), "{:?}", after["issuer"]);
        let keys = [key(&standing.world.homelab).await?, key(&standing.world.nas).await?, text(&before["key.pem"])?];
        ensure!(BTreeSet::from(keys).len() == 3, "a key is in two places");
        are_open(standing).await
    };
    teller.step("the same root as ever, a key of its own in each cluster, and the root's in none", own).await?;
    for (gate, side) in [(&standing.homelab, &standing.world.homelab), (&standing.nas, &standing.world.nas)] {
        let report = gate.stands("open", None).await?;
        let signer = &report["cacerts"]["signer"];
        teller.fingerprint(side.name, signer["sha256"].as_str().context("no signer")?);
    }
    teller
        .say("These two sign in their own cluster alone, for 90 days; the gates have them renewed while istiod runs.");
    Ok(())
}

async fn replaced(teller: &Teller, standing: &Standing, conductor: &Conductor<'_>) -> Result<()> {
    teller.chapter("The root is replaced, and no workload notices");
    let old = standing.homelab.fingerprint().await?["cacerts"]["sha256"].clone();
    let begun = conductor.until(&["start", "--yes", "--ttl", TTL], "root-2 is the goal");
    teller.step("rotate start: Vault makes root-2; nothing else has changed", begun).await?;
    teller
        .step("rotate step, trust: both clusters trust it beside root-1", taken(standing, conductor, "trust: "))
        .await?;
    let switched = taken(standing, conductor, "switch: ");
    teller.step("rotate step, switch: root-2 certifies both signers; a cross stands behind them", switched).await?;
    teller.step("rotate step, note: both are seen to work with it", taken(standing, conductor, "note: ")).await?;
    teller.say("rotate status says who is where, and until when it waits:");
    for line in conductor.rotate(&["status"]).await?.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("Next: ") {
            Some(_) => teller.say(line),
            None => teller.line(&format!("   {}", line.trim_end())),
        }
    }
    let told = eventually("the gate to tell until when it waits", LONG, || async {
        let report = standing.nas.fingerprint().await?;
        ensure!(report["rotation"]["next"] == "drop" && report["rotation"]["notBefore"].is_string(), "{report}");
        Ok(())
    });
    teller.step("each gate's page and /fingerprint tell the same", told).await?;
    teller.say(
        "So long certificates from before are about, a minute here, and ten more for clocks that differ. A mesh has to wait. The \
         sandbox has no workloads, and sets the notes in Vault back by as much.",
    );
    teller.step("eleven minutes pass, as it were", pass(&standing.world.vault)).await?;
    teller
        .step(
            "rotate step, drop: root-1 may certify no more, and nobody trusts it",
            taken(standing, conductor, "drop: "),
        )
        .await?;
    teller.step("rotate step, done: both work with root-2 alone", taken(standing, conductor, "done: ")).await?;
    let one = async {
        for gate in [&standing.homelab, &standing.nas] {
            let cacerts = gate.stands("open", None).await?["cacerts"].take();
            ensure!(cacerts["roots"].as_array().is_some_and(|roots| roots.len() == 1), "{cacerts}");
            ensure!(cacerts["sha256"] != old && cacerts["signer"]["root"] == cacerts["sha256"], "{cacerts}");
        }
        Ok(())
    };
    teller.step("one root in both clusters, another one than before, and both gates open", one).await
}

/// A step that is taken as soon as both clusters are ready for it. Both gates are open then.
async fn taken(standing: &Standing, conductor: &Conductor<'_>, step: &str) -> Result<String> {
    let said = conductor.until(&["step"], step).await?;
    are_open(standing).await?;
    Ok(said)
}

async fn are_open(standing: &Standing) -> Result<()> {
    for gate in [&standing.homelab, &standing.nas] {
        // Not at once: at the moment of a look a gate lets pods wait for its end.
        gate.stands("open", None).await?;
    }
    Ok(())
}

/// As if whoever takes the steps had noted so long ago what was noted now, and the clusters had settled by then.
async fn pass(vault: &VaultApi) -> Result<()> {
    for name in ["homelab", "nas"] {
        vault
            .change(&format!("secret/data/istio/clusters/{name}"), |data| {
                // Later than any look of the gate, which goes by what it saw last.
                data["at"] = json!((Timestamp::now() + SignedDuration::from_secs(30)).to_string());
                earlier(&mut data["settled"])
            })
            .await?;
    }
    vault
        .change(RECORD, |data| {
            let seen = data["rotation"]["seen"].as_object_mut().context("nothing is noted")?;
            seen.values_mut().try_for_each(|sighting| {
                earlier(&mut sighting["at"])?;
                earlier(&mut sighting["settled"])
            })
        })
        .await
}

fn earlier(time: &mut Value) -> Result<()> {
    let at: Timestamp = time.as_str().context("no time")?.parse()?;
    *time = json!((at - WAIT).to_string());
    Ok(())
}

async fn record(vault: &VaultApi) -> Result<Value> {
    Ok(vault.ok("GET", RECORD, None).await?["data"]["data"].take())
}

/// The key that a cluster signs with.
async fn key(side: &Side) -> Result<String> {
    let cacerts = side.cacerts().await?.context("no cacerts")?;
    let bytes = STANDARD.decode(text(&cacerts["data"]["ca-key.pem"])?)?;
    Ok(String::from_utf8(bytes)?)
}

fn text(value: &Value) -> Result<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("it is no text"),
    }
}
