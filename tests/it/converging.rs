//! A review, the convergence that it wakes, and what both sides see of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use istio_ca_gate::ca::Sha256;
use istio_ca_gate::reason::Reason;
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use testbed::eventually;

use crate::certificates::Authority;
use crate::gate::{Gate, SOON, review};
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS};
use crate::vault::{self, LOGIN, READ, errors, never_written, version};
use standin::scripted::Answer;

const CREATE: &str = "POST /api/v1/namespaces/istio-system/secrets";

fn sha256(authority: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_gated_pod_is_allowed_once_cacerts_is_published() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    vault.always(READ, version(4, &authority.record()));
    let gate = Gate::converging(&vault).await?;
    let root = sha256(&authority)?;
    let response = gate.review("?timeout=10s", &review("istiod")).await?;
    let uid = &review("istiod")["request"]["uid"];
    ensure!(
        response == json!({ "uid": uid, "allowed": true, "auditAnnotations": { "root-sha256": root } }),
        "{response}"
    );

    let cacerts = gate.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    ensure!(cacerts["data"] == authority.secret_data() && cacerts["type"] == "Opaque");
    ensure!(cacerts["metadata"]["labels"] == json!({ "app.kubernetes.io/managed-by": "istio-ca-gate" }));
    let annotations = json!({ "istio-ca-gate.io/root-sha256": root, "istio-ca-gate.io/vault-version": "4" });
    ensure!(cacerts["metadata"]["annotations"] == annotations, "{cacerts}");
    let pin = gate.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?;
    ensure!(pin["data"]["root-sha256"] == root && pin["data"]["vault-version"] == "4");
    ensure!(pin["data"]["verified-at"].as_str().is_some_and(|at| at.parse::<Timestamp>().is_ok()), "{pin}");

    let report = gate.send("GET", "/fingerprint", b"").await?.json()?;
    ensure!(report["state"] == "open" && report["match"] == true && report["reason"].is_null(), "{report}");
    ensure!(report["vault"]["version"] == 4 && report["vault"]["address"] == vault.url(), "{report}");
    ensure!(report["vault"]["sha256"] == report["cacerts"]["sha256"], "{report}");
    ensure!(report["cacerts"]["resourceVersion"] == cacerts["metadata"]["resourceVersion"], "{report}");
    let printed = report["cacerts"]["sha256"].as_str().context("no sha256")?;
    ensure!(printed.replace(':', "").to_lowercase() == root, "{printed}");
    let text = gate.exchange(b"GET /fingerprint HTTP/1.1\r\nhost: gate\r\naccept: text/plain\r\n\r\n").await?;
    ensure!(text.body.starts_with(&format!("sha256 Fingerprint={printed}\nSHA1 Fingerprint=")), "{text:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hold_is_a_403_of_the_contracts_shape() -> Result<()> {
    let gone = json!({ "data": { "data": null, "metadata": { "version": 2 } } });
    for (answer, reason) in [
        (never_written(), Reason::RootMissing),
        (Answer::json(404, &gone), Reason::RootDeleted),
        (version(1, &Authority::new("x")?.record().into_iter().skip(1).collect()), Reason::RootInvalid),
        (Answer::html(502), Reason::VaultUnreachable),
        (errors(503, &["Vault is sealed"]), Reason::VaultSealed),
        (errors(403, &["permission denied"]), Reason::VaultPermissionDenied),
        (errors(404, &["no handler for route"]), Reason::VaultMountInvalid),
        (errors(429, &["quota"]).header("retry-after", "60"), Reason::VaultRateLimited),
    ] {
        let vault = vault::start().await?;
        vault.always(READ, answer.clone());
        let gate = Gate::converging(&vault).await?;
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        let message = response["status"]["message"].as_str().context("no message")?;
        ensure!(message.starts_with(&format!("{reason}: cluster nas: ")), "{answer:?}: {message}");
        let expected = json!({
            "uid": review("istiod")["request"]["uid"],
            "allowed": false,
            "status": {
                "status": "Failure",
                "code": 403,
                "reason": reason.as_str(),
                "message": message,
                "details": { "causes": [{ "reason": reason.as_str(), "message": message }] },
            },
            "auditAnnotations": { "reason": reason.as_str() },
        });
        ensure!(response == expected, "{response}");
        ensure!(vault.count(READ) >= 1);
        ensure!(
            gate.kubernetes.get(SECRETS, "cacerts").is_none()
                && gate.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").is_none()
        );
        let report = gate.send("GET", "/fingerprint", b"").await?.json()?;
        ensure!(report["reason"] == reason.as_str() && report["message"] == message, "{report}");
    }
    Ok(())
}

/// An API server with a sound `cacerts` that is somebody else's.
async fn with_cacerts(authority: &Authority) -> Result<Kubernetes> {
    let kubernetes = Kubernetes::start().await?;
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() }))?;
    Ok(kubernetes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_tells_the_root_where_it_is_known() -> Result<()> {
    let (ours, theirs) = (Authority::new("Istio Root CA")?, Authority::new("Other")?);
    let vault = vault::start().await?;
    vault.always(READ, version(1, &ours.record()));
    let gate = Gate::converging_on(with_cacerts(&theirs).await?, &vault).await?;
    let response = gate.review("?timeout=10s", &review("istiod")).await?;
    ensure!(response["status"]["reason"] == "RootChanged", "{response}");
    ensure!(response["auditAnnotations"]["root-sha256"] == sha256(&ours)?, "{response}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_verified_before_opens_with_a_warning_while_vault_is_away() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let root = sha256(&authority)?;
    for (root_pinned, verified_at, reason) in [
        (root.clone(), Timestamp::now().to_string(), None),
        (root.clone(), "2020-01-01T00:00:00Z".to_owned(), Some("VaultUnreachable")),
        (root.clone(), "2120-01-01T00:00:00Z".to_owned(), Some("VaultUnreachable")),
        (root.clone(), "lately".to_owned(), Some("VaultUnreachable")),
        ("ab".repeat(32), Timestamp::now().to_string(), Some("VaultUnreachable")),
        ("nonsense".to_owned(), Timestamp::now().to_string(), Some("RootChanged")),
    ] {
        let vault = vault::start().await?;
        vault.always(LOGIN, Answer::html(502));
        let kubernetes = with_cacerts(&authority).await?;
        let data = json!({ "root-sha256": root_pinned, "vault-version": "1", "verified-at": verified_at });
        kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-gate" }, "data": data }))?;
        let gate = Gate::converging_on(kubernetes, &vault).await?;
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["allowed"] == reason.is_none(), "{data}: {response}");
        if let Some(reason) = reason {
            ensure!(response["status"]["reason"] == reason, "{data}: {response}");
            continue;
        }
        ensure!(vault.count(LOGIN) >= 1);
        let annotations = json!({ "reason": "VaultUnreachable", "root-sha256": root });
        ensure!(response["auditAnnotations"] == annotations, "{response}");
        let warning = response["warnings"][0].as_str().context("no warning")?;
        ensure!(warning.contains("VaultUnreachable") && warning.len() <= 120, "{warning}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reviews_at_once_start_one_convergence() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    let record = version(1, &authority.record());
    // Long enough for all of them to wait for the first attempt.
    vault.once(READ, record.clone().after(Duration::from_secs(2)));
    vault.always(READ, record);
    let gate = Gate::converging(&vault).await?;
    let review = review("istiod");
    let responses = try_join_all((0..100).map(|_| gate.review("?timeout=30s", &review))).await?;
    ensure!(responses.iter().all(|response| response["allowed"] == true));
    ensure!(vault.count(LOGIN) == 1 && gate.kubernetes.server.count(CREATE) == 1);
    // Two rounds: publish, open. A consultation that came in late may have woken one more.
    ensure!(vault.count(READ) <= 3, "{}", vault.count(READ));
    let again = gate.review("?timeout=10s", &review).await?;
    ensure!(again == responses[0] && gate.kubernetes.server.count(CREATE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn during_back_off_the_last_reason_is_told_at_once_and_the_next_try_brought_forward() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    vault.always(READ, errors(503, &["Vault is sealed"]));
    let gate = Gate::converging(&vault).await?;
    gate.review("?timeout=10s", &review("istiod")).await?;
    // An attempt may be under way at any one of them, so the fastest tells.
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["status"]["reason"] == "VaultSealed", "{response}");
        fastest = fastest.min(began.elapsed());
    }
    ensure!(fastest < Duration::from_secs(1), "{fastest:?}");

    vault.always(READ, version(1, &authority.record()));
    eventually("the gate to open by itself", SOON, || async {
        let report = gate.send("GET", "/fingerprint", b"").await?.json()?;
        ensure!(report["state"] == "open", "{report}");
        Ok(())
    })
    .await?;
    ensure!(gate.review("", &review("istiod")).await?["allowed"] == true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_brings_forward_what_vault_wants_to_wait_for() -> Result<()> {
    let (vault, authority) = (vault::start().await?, Authority::new("Istio Root CA")?);
    vault.once(READ, errors(429, &["quota"]).header("retry-after", "3"));
    vault.always(READ, version(1, &authority.record()));
    let gate = Gate::converging(&vault).await?;
    let began = Instant::now();
    let response: Value = gate.review("?timeout=2s", &review("istiod")).await?;
    ensure!(response["status"]["reason"] == "VaultRateLimited", "{response}");
    eventually("the gate to open", SOON, || async {
        // Asked again and again.
        let response = gate.review("?timeout=2s", &review("istiod")).await?;
        ensure!(response["allowed"] == true, "{response}");
        Ok(())
    })
    .await?;
    let took = began.elapsed();
    ensure!(took >= Duration::from_secs(3), "{took:?}");
    Ok(())
}
