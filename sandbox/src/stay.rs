//! After the tour: all stays up, to be looked at and poked at.

use std::fs;
use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::gates::Gate;
use crate::tell::Teller;
use crate::tour::{Standing, sample_pod};
use standin::faults::Fault;
use testbed::side::{NAMESPACE, Side};

/// Prints what to try, and does what is typed, for ever.
///
/// # Errors
/// If the files that the commands need cannot be written.
pub async fn open(teller: &Teller, standing: &Standing, folder: &Path) -> Result<()> {
    commands(teller, standing, folder).await?;
    let faults = standing.world.faults();
    if !faults.is_empty() {
        teller.say("Or type a server and a fault, and see what the gates make of it, as: vault sealed");
        teller.quote(&format!("servers: vault, homelab, nas; faults: {}", Fault::NAMES.join(", ")));
        teller.quote("heal: ends all faults; status: how the gates stand");
    }
    teller.line("\nCtrl-C ends it.");
    let mut lines = typed();
    while let Some(line) = lines.recv().await {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["heal"] => faults.iter().for_each(|(_, faults)| faults.heal()),
            ["status"] => status(teller, standing).await,
            [server, fault] => match standing.world.inject(server, fault) {
                Ok(()) => teller.say("on; heal ends it"),
                Err(error) => teller.say(&error.to_string()),
            },
            _ => teller.say("not understood: heal, status, or a server and a fault"),
        }
    }
    // Standard input is at its end, and all stays up.
    std::future::pending().await
}

async fn status(teller: &Teller, standing: &Standing) {
    for gate in [&standing.homelab, &standing.nas] {
        let text = match gate.fingerprint().await {
            Ok(report) => {
                let message = report["message"].as_str().unwrap_or("no reason to hold");
                format!("{}: {}: {message}", gate.name(), report["state"].as_str().unwrap_or_default())
            }
            Err(error) => format!("{}: {error:#}", gate.name()),
        };
        teller.say(&text);
    }
    for (server, faults) in standing.world.faults() {
        for switch in faults.active() {
            teller.say(&format!("{server}: {} has hit {} times", switch.fault(), switch.hits()));
        }
    }
}

/// The lines of standard input. From a thread: a read cannot be given up.
fn typed() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn commands(teller: &Teller, standing: &Standing, folder: &Path) -> Result<()> {
    let (homelab, nas, vault) = (&standing.world.homelab, &standing.world.nas, &standing.world.vault);
    let write = |name: &str, text: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string()).map(|()| path.display().to_string())
    };
    let kubeconfig = write("kubeconfig", kubeconfig(&[homelab, nas])?.as_bytes())?;
    let review = write("review.json", review().to_string().as_bytes())?;
    let gate_ca = write("homelab-gate-ca.pem", &serving_ca(homelab).await?)?;
    let vault_ca = folder.join("homelab-vault-ca.pem").display().to_string();

    teller.chapter("All of it stays up. Try, in another terminal:");
    let gate = |gate: &Gate, path| format!("curl -s {}", gate.url(path));
    teller.line(&format!("   {}", gate(&standing.nas, "fingerprint")));
    teller.line(&format!("   {}", gate(&standing.homelab, "healthz")));
    teller.line(&format!(
        "   curl -s --cacert {gate_ca} -H 'content-type: application/json' -d @{review} 'https://{}/validate?timeout=10s'",
        standing.homelab.https()
    ));
    teller.line(&format!("\n   export KUBECONFIG={kubeconfig}"));
    teller.line(&format!("   kubectl --context nas -n {NAMESPACE} get secret cacerts"));
    teller.line(&format!("   kubectl --context nas -n {NAMESPACE} delete secret cacerts    # and get it again"));
    teller.line(&format!(
        "\n   export VAULT_ADDR={} VAULT_CACERT={vault_ca} VAULT_TOKEN={}",
        vault.address(),
        vault.root_token()
    ));
    teller.line("   vault kv metadata get secret/istio/ca");
    teller.line(&format!("   vault operator seal    # and: vault operator unseal {}", vault.unseal_key()));
    teller.line("\n   cargo run -q -- verify --context homelab --context nas --vault");
    teller.line("   cargo run -q -- fingerprint --context nas");
    teller.line("   cargo run -q -- doctor --role bootstrap --cluster homelab --context homelab");
    teller.line(&format!("\n   tail -f {}/*-gate.log", folder.display()));
    Ok(())
}

/// One kubeconfig with a context for each cluster, and all rights.
fn kubeconfig(sides: &[&Side]) -> Result<String> {
    let mut merged = Value::Null;
    for side in sides {
        let mut one: Value = serde_json::from_str(&side.api.kubeconfig("admin", side.api.admin_token()))?;
        // A user of each cluster's own.
        one["users"][0]["name"] = json!(side.name);
        one["contexts"][0]["context"]["user"] = json!(side.name);
        if merged.is_null() {
            merged = one;
            continue;
        }
        for key in ["clusters", "users", "contexts"] {
            if let (Some(all), Some(more)) = (merged[key].as_array_mut(), one[key].as_array()) {
                all.extend(more.iter().cloned());
            }
        }
    }
    Ok(merged.to_string())
}

/// What the API server trusts the gate by.
async fn serving_ca(side: &Side) -> Result<Vec<u8>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istio-ca-gate-tls");
    let secret = side.object(&path).await?.context("no serving CA")?;
    Ok(STANDARD.decode(secret["data"]["ca.crt"].as_str().context("no ca.crt")?)?)
}

/// The question that the API server asks about a pod of istiod.
fn review() -> Value {
    let pods = json!({ "group": "", "version": "v1", "resource": "pods" });
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": pods,
            "requestKind": kind,
            "requestResource": pods,
            "namespace": NAMESPACE,
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": sample_pod("istiod-"),
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
}
