//! After the tour: all stays up, to be looked at and poked at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::start::{NAME, PLUGIN};
use serde_json::{Value, json};

use crate::gates::PKI;
use crate::tell::Teller;
use crate::tour::{SIGNERS, Standing, sample_pod};
use crate::typed;
use testbed::side::{NAMESPACE, Side};

/// Prints what to try, and does what is typed, until that is to quit.
///
/// # Errors
/// If the files that the commands need cannot be written.
pub async fn open(teller: &Teller, standing: &Standing, folder: &Path) -> Result<()> {
    let env = files(standing, folder).await?;
    commands(teller, standing, &env);
    typed::obey(teller, standing).await;
    Ok(())
}

/// Writes what the printed commands need, and returns the path of what a shell has to read first.
async fn files(standing: &Standing, folder: &Path) -> Result<String> {
    let (homelab, nas, vault) = (&standing.world.homelab, &standing.world.nas, &standing.world.vault);
    let path = |name: &str| folder.join(name).display().to_string();
    let write =
        |name: &str, text: &[u8]| fs::write(folder.join(name), text).with_context(|| path(name)).map(|()| path(name));
    let kubeconfig = write("kubeconfig", kubeconfig(&[homelab, nas])?.as_bytes())?;
    // This very program by the other's name: nothing is built for it.
    let own = std::env::current_exe()?;
    fs::create_dir(folder.join("bin"))?;
    for name in [NAME, PLUGIN] {
        symlink(&own, folder.join("bin").join(name)).with_context(|| name.to_owned())?;
    }
    write("review.json", review().to_string().as_bytes())?;
    write("gate-ca.pem", &serving_ca(homelab).await?)?;
    let variables = [
        ("SANDBOX", folder.display().to_string()),
        ("PATH", format!("{}:$PATH", path("bin"))),
        ("KUBECONFIG", kubeconfig),
        ("VAULT_ADDR", vault.address().to_owned()),
        ("VAULT_CACERT", path("homelab-vault-ca.pem")),
        ("VAULT_TOKEN", vault.root_token().to_owned()),
        ("GATE_VAULT_PKI_MOUNT", PKI.to_owned()),
    ];
    let lines: String = variables.iter().map(|(name, value)| format!("export {name}=\"{value}\"\n")).collect();
    write("env", lines.as_bytes())
}

fn commands(teller: &Teller, standing: &Standing, env: &str) {
    let Standing { homelab, nas, world } = standing;
    let line = |command: &str| teller.line(&format!("     {command}"));
    teller.chapter("All of it stays up");
    teller.say("In a browser, how both clusters stand, as each gate sees it:");
    line(&homelab.url(""));
    line(&nas.url(""));
    teller.line("");
    teller.say("In another terminal, first:");
    line(&format!(". {env}"));
    teller.say("Then the program:");
    line(&format!("{NAME} verify --context homelab --context nas --vault"));
    line(&format!("{NAME} doctor --context homelab --context nas"));
    line(&format!("{NAME} explain RootMissing"));
    if SIGNERS {
        line(&format!("{NAME} rotate status"));
    }
    teller.say("What a gate says, and what the API server asks it:");
    line(&format!("curl -s {}", nas.url("fingerprint")));
    line("curl -s --cacert $SANDBOX/gate-ca.pem -d @$SANDBOX/review.json \\");
    line(&format!("  -H content-type:application/json 'https://{}/validate?timeout=10s'", homelab.https()));
    line("tail -n 5 $SANDBOX/*-gate.log");
    teller.say("With kubectl (the second deletes cacerts, and the gate publishes it again):");
    let kubectl = format!("kubectl --context nas -n {NAMESPACE}");
    line(&format!("{kubectl} get pods"));
    line(&format!("{kubectl} delete secret cacerts"));
    line(&format!("{kubectl} get secret cacerts"));
    line(&format!("{kubectl} get events --field-selector source={NAME} --sort-by=.lastTimestamp"));
    teller.say("With vault:");
    line("vault kv metadata get secret/istio/ca");
    line("vault operator seal");
    line(&format!("vault operator unseal {}", world.vault.unseal_key()));
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
