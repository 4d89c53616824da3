//! The self-test: the gate's word in a warning, what each answer of the API server comes to, and that it leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::gate::Gated;
use istio_ca_gate::readiness::{Part, Readiness};
use istio_ca_gate::selector;
use istio_ca_gate::self_test::{LastTest, Probe, SelfTest};
use serde_json::{Value, json};
use testbed::eventually;
use testbed::side::Side;

use crate::gate::{Gate, review, review_but};
use crate::kubernetes::{Kubernetes, status};
use crate::product::{Product, SOON, world};
use crate::world::{self, World};
use standin::scripted::Answer;

const LABEL: &str = "istio-ca-gate.io/self-test";
const NONCE: &str = "0123456789abcdef0123456789abcdef";
const POST: &str = "POST /api/v1/namespaces/tests/pods";
const NAMESPACE: &str = "istio-ca-gate-self-test";

/// The review of a pod with this number.
fn labelled(app: &str, nonce: &str, fields: Value) -> Value {
    let mut review = review_but(app, fields);
    review["request"]["object"]["metadata"]["labels"][LABEL] = json!(nonce);
    review
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_with_a_number_gets_it_back_and_is_decided_as_any_other() -> Result<()> {
    let gate = Gate::start().await?;
    let dry_run = json!({ "dryRun": true });
    for app in ["istiod", "not-gated"] {
        let plain = gate.review("", &review_but(app, dry_run.clone())).await?;
        for path in ["/validate", "/mutate"] {
            let review = labelled(app, NONCE, dry_run.clone());
            let reply = gate.send("POST", path, review.to_string().as_bytes()).await?;
            let mut said = reply.json()?["response"].clone();
            ensure!(said["warnings"] == json!([format!("istio-ca-gate: self-test {NONCE}")]), "{said}");
            said.as_object_mut().context("no response")?.remove("warnings");
            ensure!(said == plain, "{said} instead of {plain}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_number_of_its_own_in_a_dry_run_of_a_creation_is_repeated() -> Result<()> {
    let gate = Gate::start().await?;
    let dry_run = || json!({ "dryRun": true });
    let upper = NONCE.to_uppercase();
    for review in [
        review("not-gated"),
        labelled("not-gated", NONCE, json!({ "dryRun": false })),
        labelled("istiod", NONCE, json!({ "dryRun": false })),
        labelled("not-gated", NONCE, json!({ "dryRun": true, "operation": "UPDATE" })),
        labelled("not-gated", NONCE, json!({ "dryRun": true, "subResource": "ephemeralcontainers" })),
        labelled("not-gated", "", dry_run()),
        labelled("not-gated", &upper, dry_run()),
        labelled("not-gated", &format!("{NONCE}0"), dry_run()),
        labelled("not-gated", "x\"\r\nset-cookie: a=b", dry_run()),
    ] {
        let said = gate.review("?timeout=1s", &review).await?;
        ensure!(said["warnings"].is_null(), "{said} to {review}");
    }
    Ok(())
}

/// The program, which tests itself by a stand-in.
async fn product(kubernetes: Kubernetes) -> Result<Product> {
    let (_, vault) = world().await?;
    let flags = ["--role", "sync", "--self-test", "tests", "--self-test-interval", "200ms"];
    Product::start(kubernetes, vault, &flags).await
}

/// Waits until the metric is this, and the log says that.
async fn is(product: &Product, ok: u8, says: &str) -> Result<()> {
    let probe = || async {
        let metrics = product.get("metrics").await?;
        let tells = |line: &str| line.starts_with("istio_ca_gate_self_test_ok{") && line.ends_with(&format!("}} {ok}"));
        ensure!(metrics.lines().any(tells), "{metrics}");
        ensure!(metrics.contains("\nistio_ca_gate_self_test_timestamp_seconds{"), "{metrics}");
        ensure!(product.process.log().contains(says), "{says:?} is not in the log");
        Ok(())
    };
    product.process.until(&format!("the self-test to be {ok} with {says:?}"), SOON, probe).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_the_api_server_is_told_apart_at_error_level() -> Result<()> {
    let message = |code: u16, reason: &str, message: &str| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message });
        Answer::json(code, &status)
    };
    let kubernetes = Kubernetes::start().await?;
    kubernetes.put("/api/v1/namespaces", json!({ "metadata": { "name": "tests" } }))?;
    let product = product(kubernetes).await?;
    // No webhook is there to be asked.
    is(&product, 0, "there is no webhook configuration istio-ca-gate").await?;
    let refused =
        "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\" in the namespace \"tests\"";
    let trust =
        "Internal error occurred: failed calling webhook \"w\": failed to call webhook: x509: unknown authority";
    for (answer, says) in [
        (message(403, "Forbidden", refused), "there is no right to create pods in namespace tests"),
        (message(404, "NotFound", "namespaces \"tests\" not found"), "there is no namespace tests"),
        (message(500, "InternalError", trust), "another webhook cannot be called"),
        (status(429, "TooManyRequests"), "status 429"),
        (Answer::new(201, "application/json", "x".repeat(1 << 20)), "there is no webhook configuration"),
        (Answer::html(502), "status 502"),
        (Answer::hang_up(), "cannot create a pod by dry run in namespace tests"),
    ] {
        product.kubernetes.server.always(POST, answer);
        is(&product, 0, says).await?;
    }
    let log = product.process.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("self-test: ")).collect();
    ensure!(told.iter().all(|line| line.contains("\"ERROR\"") && line.contains("\"expected\"")), "{told:?}");

    let asked = product.kubernetes.server.of(POST);
    ensure!(asked.iter().all(|request| request.target.contains("dryRun=All")), "{}", asked[0].target);
    let pod = asked[0].json();
    let nonces: Vec<_> = asked.iter().map(|request| request.json()["metadata"]["labels"][LABEL].clone()).collect();
    ensure!(nonces[0].as_str().is_some_and(|nonce| nonce.len() == 32) && nonces[0] != nonces[1], "{nonces:?}");
    ensure!(pod["metadata"]["labels"]["app"] == "istio-eastwestgateway", "{pod}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_until_the_replica_is_ready() -> Result<()> {
    let kubernetes = Kubernetes::start().await?;
    let gated = Gated(vec![selector::parse("app=istiod").map_err(anyhow::Error::msg)?]);
    let probe = Probe::new(kubernetes.client()?, "tests", &gated, "istio-ca-gate").map_err(anyhow::Error::msg)?;
    let (readiness, metrics) = (Arc::new(Readiness::default()), LastTest::default());
    let testing = SelfTest::new(probe, Duration::from_millis(100), Arc::clone(&readiness), metrics);
    let mut testing = Box::pin(testing.run());
    let early = tokio::time::timeout(Duration::from_secs(2), &mut testing).await;
    ensure!(early.is_err() && kubernetes.server.count(POST) == 0);
    for part in [Part::Tls, Part::ValidatingCaBundle, Part::MutatingCaBundle, Part::Cacerts, Part::Consulted] {
        readiness.done(part);
    }
    let asked = eventually("a try", SOON, || async { Some(()).filter(|()| kubernetes.server.count(POST) > 0) });
    tokio::select! {
        asked = asked => asked,
        () = testing => Err(anyhow::anyhow!("it ended")),
    }
}

/// The namespace, and a right of the gate's in it.
pub async fn allow(side: &Side, verbs: &[&str]) -> Result<()> {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    let meta = json!({ "name": NAMESPACE });
    let subject = json!({ "kind": "ServiceAccount", "name": side.service_account, "namespace": "istio-system" });
    let role = json!({ "kind": "Role", "name": NAMESPACE, "apiGroup": "rbac.authorization.k8s.io" });
    let rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": verbs });
    for (path, object) in [
        ("/api/v1/namespaces".to_owned(), json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": meta })),
        (
            format!("{rbac}/roles"),
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": [rule] }),
        ),
        (
            format!("{rbac}/rolebindings"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
                "subjects": [subject], "roleRef": role,
            }),
        ),
    ] {
        let (status, answer) = side.api.request("POST", &path, Some(object)).await?;
        ensure!(status == 201, "{path}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_called_hears_of_itself_and_stays_dormant() -> Result<()> {
    let world = World::embedded().await?;
    let folder = tempfile::tempdir()?;
    let flags = ["--self-test", NAMESPACE, "--self-test-interval", "200ms"];
    let gate = world::Gate::start(&world.nas, &world.vault, folder.path(), &flags).await?;
    let is = async |ok: u8, says: &str| {
        eventually(&format!("the self-test to be {ok} with {says:?}"), SOON, || async {
            let metrics = gate.get("metrics").await?;
            let tells =
                |line: &str| line.starts_with("istio_ca_gate_self_test_ok{") && line.ends_with(&format!("}} {ok}"));
            ensure!(metrics.lines().any(tells), "{metrics}");
            ensure!(gate.log().contains(says), "{says:?} is not in the log");
            Ok(())
        })
        .await
    };
    is(0, "self-test: there is no right to create pods in namespace").await?;
    allow(&world.nas, &["create"]).await?;
    is(1, "self-test: the API server calls a gate").await?;
    let pods = world.nas.object(&format!("/api/v1/namespaces/{NAMESPACE}/pods")).await?.context("no list")?;
    ensure!(pods["items"] == json!([]), "{pods}");
    gate.stands("dormant", None).await?;
    ensure!(!gate.log().contains("\"admission\""), "its own questions are in the log");
    Ok(())
}
