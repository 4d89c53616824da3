//! The self-test through a real API server: it tells that the gate is called, and why it is not.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::Port;
use testbed::side::{MUTATING_WEBHOOKS, WEBHOOKS};

use crate::gate::{Gate, Options, binary};
use crate::world::{NAMESPACE as ISTIO, SOON, Side, SmallWorld};

const NAMESPACE: &str = "istio-ca-gate-self-test";
const FLAGS: [&str; 4] = ["--self-test", NAMESPACE, "--self-test-interval", "300ms"];

/// A namespace with the strictest Pod Security, and the gate's one right in it.
async fn allow(side: &Side) -> Result<()> {
    let kubectl = async |args: &[&str]| side.cluster.kubectl(args).await;
    kubectl(&["create", "namespace", NAMESPACE]).await?;
    kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"]).await?;
    kubectl(&["-n", NAMESPACE, "create", "role", "self-test", "--verb=create", "--resource=pods"]).await?;
    let account = format!("--serviceaccount={ISTIO}:{}", side.service_account);
    kubectl(&["-n", NAMESPACE, "create", "rolebinding", "self-test", "--role=self-test", &account]).await?;
    Ok(())
}

/// Waits until the metric is this, and the log has newly said that.
async fn is(gate: &Gate, ok: u8, says: &str) -> Result<()> {
    let before = gate.process.log().len();
    let what = format!("the self-test to be {ok} with {says:?}");
    let probe = || async {
        let metrics = reqwest::get(gate.url("metrics")).await?.text().await?;
        let tells = |line: &str| line.starts_with("istio_ca_gate_self_test_ok{") && line.ends_with(&format!("}} {ok}"));
        ensure!(metrics.lines().any(tells), "{metrics}");
        let log = gate.process.log();
        let new = log.get(before..).unwrap_or_default();
        let last = new.lines().rfind(|line| line.contains("self-test: ")).unwrap_or_default();
        ensure!(last.contains(says), "{last}");
        Ok(last.to_owned())
    };
    println!("{}", gate.process.until(&what, SOON, probe).await?);
    Ok(())
}

/// The webhook configuration with a change to each webhook.
async fn change(side: &Side, change: &Value) -> Result<()> {
    let mut configuration = side.object(WEBHOOKS).await?.context("no webhook configuration")?;
    for webhook in configuration["webhooks"].as_array_mut().context("no webhooks")? {
        for (key, value) in change.as_object().into_iter().flatten() {
            webhook[key] = value.clone();
        }
    }
    put(side, configuration).await
}

async fn put(side: &Side, configuration: Value) -> Result<()> {
    let (status, answer) = side.cluster.request("PUT", WEBHOOKS, Some(configuration)).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// As it was, whatever it is now.
async fn restore(side: &Side, before: &Value) -> Result<()> {
    let mut configuration = before.clone();
    let meta = configuration["metadata"].as_object_mut().context("no metadata")?;
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"] {
        meta.remove(field);
    }
    if let Some(now) = side.object(WEBHOOKS).await? {
        configuration["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        return put(side, configuration).await;
    }
    let (collection, _) = WEBHOOKS.rsplit_once('/').context("no name")?;
    let (status, answer) = side.cluster.request("POST", collection, Some(configuration)).await?;
    ensure!(status == 201, "{answer}");
    Ok(())
}

const CALLED: &str = "the API server calls a gate";

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_finds_out_by_itself_that_it_is_not_called_any_more() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let (side, vault) = (&world.side, &world.vault);
    let gate = Gate::start_with(side, vault, Options { flags: &FLAGS, ..Options::default() }).await?;
    is(&gate, 0, "there is no right to create pods in namespace istio-ca-gate-self-test").await?;
    allow(side).await?;
    is(&gate, 1, CALLED).await?;
    gate.stands("dormant", None).await?;

    // The gate that is asked by one of the two is asked.
    let (status, answer) = side.cluster.request("DELETE", MUTATING_WEBHOOKS, None).await?;
    ensure!(status == 200, "{answer}");
    let before = side.object(WEBHOOKS).await?.context("no webhook configuration")?;
    let (status, answer) = side.cluster.request("DELETE", WEBHOOKS, None).await?;
    ensure!(status == 200, "{answer}");
    is(&gate, 0, "there is no webhook configuration istio-ca-gate").await?;
    restore(side, &before).await?;
    is(&gate, 1, CALLED).await?;

    let nobody = json!({ "url": format!("https://127.0.0.1:{}/validate", Port::reserve()?.number()) });
    change(side, &json!({ "clientConfig": nobody, "failurePolicy": "Ignore" })).await?;
    is(&gate, 0, "is Ignore, so that a call that failed was passed over").await?;
    change(side, &json!({ "failurePolicy": "Fail" })).await?;
    is(&gate, 0, "the API server cannot call a gate").await?;
    restore(side, &before).await?;
    is(&gate, 1, CALLED).await?;

    change(side, &json!({ "objectSelector": { "matchLabels": { "app": "other" } } })).await?;
    is(&gate, 0, "selects a pod that matches the first --gate-selector").await?;
    restore(side, &before).await?;
    is(&gate, 1, CALLED).await?;

    // A caBundle that is cert-manager's to inject is left as it is.
    let mut foreign = side.object(WEBHOOKS).await?.context("no webhook configuration")?;
    foreign["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] = json!("x/y");
    put(side, foreign).await?;
    let mut config = before["webhooks"][0]["clientConfig"].clone();
    config["caBundle"] = crate::cacerts::foreign_ca().await?["root-cert.pem"]
        .as_str()
        .map(|pem| json!(k8s_openapi::ByteString(pem.as_bytes().to_vec())))
        .context("no PEM")?;
    change(side, &json!({ "clientConfig": config })).await?;
    is(&gate, 0, "wrong caBundle").await?;

    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pods = side.object(&path).await?.context("no list")?;
    ensure!(pods["items"] == json!([]), "{pods}");
    gate.stands("dormant", None).await?;
    Ok(())
}

/// The line of doctor about it, with this kubeconfig.
async fn doctors(world: &SmallWorld, kubeconfig: &std::path::Path, flags: &[&str]) -> Result<Value> {
    let mut command = tokio::process::Command::new(binary());
    command.args(["doctor", "-o", "json", "--role", world.side.role]).args(flags).env_clear();
    command.env("VAULT_ADDR", world.vault.address()).env("VAULT_CACERT", world.vault.ca_file());
    command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SOON * 2, command.output()).await.context("doctor runs on")??;
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    lines.into_iter().find(|line| line["id"] == "self-test").context("no line self-test")
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_it_with_the_rights_of_whoever_asks() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let side = &world.side;
    let gate = Gate::start(side, &world.vault).await?;
    let admin = side.cluster.kubeconfig();
    let line = doctors(&world, &admin, &[]).await?;
    ensure!(line["outcome"] == "ok", "{line}");
    let line = doctors(&world, &admin, &["--self-test", "nowhere"]).await?;
    ensure!(
        line["outcome"] == "note"
            && line["seen"] == "could not tell: there is no namespace nowhere: create it, or choose another one",
        "{line}"
    );

    let token = side.cluster.service_account_token(ISTIO, side.service_account, &[side.cluster.issuer()], 600).await?;
    let own = side.cluster.kubeconfig_for(side.service_account, &token)?;
    let line = doctors(&world, &own, &[]).await?;
    let seen = line["seen"].as_str().unwrap_or_default();
    ensure!(line["outcome"] == "note" && seen.contains("no right to create pods in namespace istio-system"), "{line}");

    // Where nothing answers, pods do not start; where nothing is asked, they do.
    drop(gate);
    let line = doctors(&world, &admin, &[]).await?;
    ensure!(line["outcome"] == "failed" && line["next"].is_string(), "{line}");
    ensure!(line["seen"].as_str().is_some_and(|seen| seen.contains("cannot call a gate")), "{line}");
    for webhooks in [WEBHOOKS, MUTATING_WEBHOOKS] {
        let (status, answer) = side.cluster.request("DELETE", webhooks, None).await?;
        ensure!(status == 200, "{answer}");
    }
    let line = doctors(&world, &admin, &[]).await?;
    ensure!(line["seen"].as_str().is_some_and(|seen| seen.contains("there is no webhook configuration")), "{line}");
    Ok(())
}
