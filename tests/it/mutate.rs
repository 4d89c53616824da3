//! `/mutate`: it decides as `/validate` does, and patches what it lets in.

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::gate::{Gate, review, review_but};
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS};
use crate::vault::{self, LOGIN, READ, version};
use standin::scripted::Answer;

/// The review of a pod as istiod's chart makes it.
fn istiod() -> Value {
    serde_json::from_str(include_str!("../../crates/gate/src/webhook/review/istiod.json")).unwrap_or_default()
}

async fn mutate(gate: &Gate, review: &Value) -> Result<Value> {
    let reply = gate.send("POST", "/mutate?timeout=10s", review.to_string().as_bytes()).await?;
    ensure!(reply.status == 200, "{reply:?}");
    let response = reply.json()?["response"].clone();
    ensure!(response["uid"] == review["request"]["uid"], "{response}");
    Ok(response)
}

/// The pod of a review, patched as the API server does it.
fn patched(review: &Value, response: &Value) -> Result<Value> {
    ensure!(response["allowed"] == true && response["patchType"] == "JSONPatch", "{response}");
    let patch: ByteString = serde_json::from_value(response["patch"].clone())?;
    let patch: json_patch::Patch = serde_json::from_slice(&patch.0)?;
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch)?;
    Ok(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_let_in_tells_its_root_and_waits_for_cacerts_from_then_on() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    vault.always(READ, version(4, &authority.record()));
    let gate = Gate::converging(&vault).await?;
    let review = istiod();
    let pod = patched(&review, &mutate(&gate, &review).await?)?;

    let mut wanted = review["request"]["object"].clone();
    let root = Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).hex();
    wanted["metadata"]["annotations"]["istio-ca-gate.io/root-sha256"] = json!(root);
    wanted["metadata"]["annotations"]["istio-ca-gate.io/vault-version"] = json!("4");
    wanted["spec"]["volumes"][0]["secret"]["optional"] = json!(false);
    ensure!(review["request"]["object"]["spec"]["volumes"][0]["secret"]["optional"] == true);
    ensure!(pod == wanted, "{pod}");

    // A replay gets the same, and /validate has no patch.
    ensure!(patched(&review, &mutate(&gate, &review).await?)? == wanted);
    let validated = gate.review("", &review).await?;
    ensure!(validated["allowed"] == true && validated["patch"].is_null(), "{validated}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_gated_or_not_let_in_is_not_patched() -> Result<()> {
    let vault = vault::start().await?;
    let gate = Gate::converging(&vault).await?;
    for not_gated in [review("other"), review_but("istiod", json!({ "operation": "UPDATE" }))] {
        let response = mutate(&gate, &not_gated).await?;
        ensure!(response["allowed"] == true && response["patch"].is_null(), "{response}");
    }
    let response = mutate(&gate, &istiod()).await?;
    ensure!(response["allowed"] == false && response["status"]["reason"] == "RootMissing", "{response}");
    ensure!(response["patch"].is_null() && response["patchType"].is_null(), "{response}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_vault_is_away_the_pinned_root_is_told_without_a_version() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let root = Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).hex();
    let vault = vault::start().await?;
    vault.always(LOGIN, Answer::html(502));
    let kubernetes = Kubernetes::start().await?;
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() }))?;
    let data = json!({ "root-sha256": root, "vault-version": "1", "verified-at": Timestamp::now().to_string() });
    kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-gate" }, "data": data }))?;
    let gate = Gate::converging_on(kubernetes, &vault).await?;
    let review = istiod();
    let response = mutate(&gate, &review).await?;
    ensure!(response["warnings"][0].as_str().is_some_and(|warning| warning.contains("VaultUnreachable")), "{response}");
    let pod = patched(&review, &response)?;
    let annotations = pod["metadata"]["annotations"].as_object().context("no annotations")?;
    ensure!(annotations["istio-ca-gate.io/root-sha256"] == root.as_str(), "{annotations:?}");
    ensure!(!annotations.contains_key("istio-ca-gate.io/vault-version"), "{annotations:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_are_no_pods_are_malformed() -> Result<()> {
    let gate = Gate::start().await?;
    let volumes = |volumes: Value| {
        let mut review = review("istiod");
        review["request"]["object"]["spec"]["volumes"] = volumes;
        review.to_string()
    };
    let many: Vec<_> = (0..1001).map(|_| json!({ "secret": { "secretName": "cacerts" } })).collect();
    for wrong in
        [json!("x"), json!([1]), json!([{ "secret": [] }]), json!([{ "secret": { "optional": 1 } }]), json!(many)]
    {
        let reply = gate.send("POST", "/mutate", volumes(wrong).as_bytes()).await?;
        ensure!(reply.status == 400 && reply.body.contains("volumes of request.object"), "{reply:?}");
    }
    // What patches nothing looks into nothing.
    let mut not_gated = review("other");
    not_gated["request"]["object"]["spec"]["volumes"] = json!("one");
    let answers = [
        gate.send("POST", "/validate?timeout=1s", volumes(json!("x")).as_bytes()).await?,
        gate.send("POST", "/mutate", not_gated.to_string().as_bytes()).await?,
    ];
    ensure!(answers.iter().all(|reply| reply.status == 200), "{answers:?}");
    // Nor is anything of other objects.
    let mut other = review("istiod");
    other["request"]["resource"] = json!({ "group": "example.io", "version": "v1", "resource": "things" });
    other["request"]["object"]["spec"]["volumes"] = json!("one");
    ensure!(gate.post(other.to_string()).await?.status == 200);
    Ok(())
}
