//! What Vault has said against a root stays said: over restarts, in every replica, and whatever becomes of a write.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use standin::scripted::{Answer, StandIn};

use crate::certificates::Authority;
use crate::gate::{Gate, review};
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS, status};
use crate::product::{Product, SOON, world};
use crate::vault::{self, LOGIN, READ, errors, version};

const FLAGS: [&str; 4] = ["--role", "sync", "--refresh", "1s"];
const REPLACE: [&str; 6] = ["--role", "sync", "--refresh", "1s", "--on-root-change", "replace"];
const PATCH_CACERTS: &str = "PATCH /api/v1/namespaces/istio-system/secrets/cacerts";
const PATCH_PIN: &str = "PATCH /api/v1/namespaces/istio-system/configmaps/istio-ca-gate";

fn deleted() -> Answer {
    Answer::json(404, &json!({ "data": { "data": null, "metadata": { "version": 2 } } }))
}

fn go_away(vault: &StandIn) {
    for line in [LOGIN, READ] {
        vault.always(line, Answer::html(502));
    }
}

fn come_back(vault: &StandIn, answer: Answer) {
    vault.always(READ, answer);
    vault.forget(LOGIN);
}

fn sha256(authority: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).hex())
}

/// The same as people are told it.
fn shown(authority: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).openssl())
}

/// Both are trusted, and this one signs.
fn both(one: &Authority, other: &Authority, signing: &Authority) -> Map<String, Value> {
    let roots = [one.pem(), other.pem()].concat();
    let files = [
        ("root-cert.pem", roots.as_str()),
        ("cert-chain.pem", signing.pem()),
        ("ca-cert.pem", signing.pem()),
        ("ca-key.pem", &signing.key_pem()),
        // Of before.
        ("key.pem", "not read any more"),
    ];
    files.into_iter().map(|(name, pem)| (name.to_owned(), json!(pem))).collect()
}

/// The same as `cacerts`.
fn data_of(record: &Map<String, Value>) -> Value {
    let files = record.iter().filter(|(name, _)| *name != "key.pem");
    let encoded = |pem: &Value| json!(k8s_openapi::ByteString(pem.as_str().unwrap_or_default().as_bytes().to_vec()));
    files.map(|(name, pem)| (name.clone(), encoded(pem))).collect::<Map<_, _>>().into()
}

/// Waits until `/fingerprint` tells this, and the review of a gated pod gets the same.
async fn stands(product: &Product, state: &str, reason: Option<&str>) -> Result<Value> {
    let told = || async {
        let seen: Value = serde_json::from_str(&product.get("fingerprint").await?)?;
        ensure!(seen["state"] == state && seen["reason"] == json!(reason), "{seen}");
        Ok(())
    };
    product.process.until(&format!("{state} {reason:?}"), SOON, told).await?;
    let (_, text) = product.post(&product.client()?, review("istiod").to_string().into()).await?;
    let response = serde_json::from_str::<Value>(&text)?["response"].clone();
    ensure!(response["allowed"] == (state == "open"), "{response}");
    Ok(response)
}

/// An open gate in a cluster of its own.
async fn open(authority: &Authority, flags: &[&str]) -> Result<Product> {
    let (kubernetes, vault) = world().await?;
    vault.always(READ, version(1, &authority.record()));
    let product = Product::start(kubernetes, vault, flags).await?;
    product.allows(&review("istiod")).await?;
    Ok(product)
}

fn pin(kubernetes: &Kubernetes) -> Result<Value> {
    Ok(kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?["data"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vault_has_said_against_the_root_outlives_a_restart_until_vault_agrees_again() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let product = open(&authority, &FLAGS).await?;
    ensure!(pin(&product.kubernetes)?["roots"] == sha256(&authority)?);

    product.vault.always(READ, deleted());
    stands(&product, "held", Some("RootDeleted")).await?;
    let contradicted = pin(&product.kubernetes)?;
    ensure!(contradicted["contradicted-by"] == "RootDeleted" && contradicted["contradicted-at"].is_string());
    go_away(&product.vault);
    stands(&product, "held", Some("VaultUnreachable")).await?;

    product.process.stop()?;
    product.process.start_again()?;
    let response = stands(&product, "held", Some("VaultUnreachable")).await?;
    let message = response["status"]["message"].as_str().context("no message")?;
    ensure!(message.contains("Vault then said RootDeleted"), "{message}");
    ensure!(pin(&product.kubernetes)? == contradicted, "nobody has agreed");

    come_back(&product.vault, version(1, &authority.record()));
    stands(&product, "open", None).await?;
    let agreed = pin(&product.kubernetes)?;
    ensure!(agreed["contradicted-by"].is_null() && agreed["contradicted-at"].is_null(), "{agreed}");
    // From here on an outage is one like any other.
    go_away(&product.vault);
    stands(&product, "open", Some("VaultUnreachable")).await?;
    product.process.stop()?;
    product.process.start_again()?;
    stands(&product, "open", Some("VaultUnreachable")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_did_not_look_in_those_seconds_heeds_what_another_has_heard() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let one = open(&authority, &FLAGS).await?;
    // Its own way to Vault breaks before Vault says anything.
    let way = vault::start().await?;
    way.always(READ, version(1, &authority.record()));
    let other = Product::start(Arc::clone(&one.kubernetes), way, &FLAGS).await?;
    other.allows(&review("istiod")).await?;
    go_away(&other.vault);
    stands(&other, "open", Some("VaultUnreachable")).await?;

    one.vault.always(READ, deleted());
    stands(&one, "held", Some("RootDeleted")).await?;
    // The one has denied, so the other denies from its next look at the pin on, whatever it knew.
    stands(&other, "held", Some("VaultUnreachable")).await?;
    go_away(&one.vault);
    stands(&one, "held", Some("VaultUnreachable")).await?;

    // And an agreement of the one is one for the other.
    come_back(&one.vault, version(1, &authority.record()));
    stands(&one, "open", None).await?;
    stands(&other, "open", Some("VaultUnreachable")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_asks_the_pin_itself_before_it_goes_by_it() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let kubernetes = Kubernetes::start().await?;
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() }))?;
    let pinned = |contradicted: Value| {
        let mut data = json!({
            "root-sha256": sha256(&authority)?, "roots": sha256(&authority)?, "vault-version": "1",
            "verified-at": k8s_openapi::jiff::Timestamp::now().to_string(),
        });
        if let Value::String(by) = contradicted {
            data["contradicted-by"] = json!(by);
        }
        kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-gate" }, "data": data }))?;
        anyhow::Ok(())
    };
    pinned(Value::Null)?;
    let vault = vault::start().await?;
    // So long that no attempt begins again within this test.
    vault.always(LOGIN, errors(429, &["quota"]).header("retry-after", "600"));
    let kubernetes_shared = Arc::new(kubernetes);
    let gate = {
        let kubernetes = Arc::clone(&kubernetes_shared);
        Gate::converging_on(kubernetes, &vault).await?
    };
    let response = gate.review("?timeout=10s", &review("istiod")).await?;
    ensure!(response["allowed"] == true, "{response}");
    let logins = vault.count(LOGIN);
    // Another replica hears of it.
    let mut map = gate.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?;
    map["data"]["contradicted-by"] = json!("RootChanged");
    gate.kubernetes.put(CONFIG_MAPS, map)?;
    testbed::eventually("the review to be denied", SOON, || async {
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["status"]["reason"] == "VaultRateLimited", "{response}");
        Ok(())
    })
    .await?;
    ensure!(vault.count(LOGIN) == logins, "no attempt was made in between");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_of_cacerts_does_not_undo_what_vault_has_said() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    for (flags, record) in
        [(&REPLACE[..], new.record()), (&REPLACE[..], both(&old, &new, &old)), (&FLAGS[..], both(&old, &new, &old))]
    {
        let product = open(&old, flags).await?;
        product.kubernetes.server.always(PATCH_CACERTS, status(403, "Forbidden"));
        product.vault.always(READ, version(2, &record));
        stands(&product, "held", Some("KubernetesForbidden")).await?;
        ensure!(product.kubernetes.server.count(PATCH_CACERTS) >= 1);
        ensure!(pin(&product.kubernetes)?["contradicted-by"] == "RootChanged");
        go_away(&product.vault);
        stands(&product, "held", Some("VaultUnreachable")).await?;
        product.process.stop()?;
        product.process.start_again()?;
        stands(&product, "held", Some("VaultUnreachable")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_cannot_be_written_keeps_this_process_closed_and_the_denial_says_so() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let product = open(&authority, &FLAGS).await?;
    product.kubernetes.server.always(PATCH_PIN, status(403, "Forbidden"));
    product.vault.always(READ, deleted());
    let response = stands(&product, "held", Some("RootDeleted")).await?;
    let message = response["status"]["message"].as_str().context("no message")?;
    ensure!(message.contains("ConfigMap istio-system/istio-ca-gate cannot take note of this"), "{message}");
    go_away(&product.vault);
    stands(&product, "held", Some("VaultUnreachable")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_is_gone_speaks_against_the_root_too() -> Result<()> {
    let product = open(&Authority::new("Istio Root CA")?, &FLAGS).await?;
    product.vault.always(READ, errors(404, &["no handler for route \"secret/data/istio/ca\""]));
    stands(&product, "held", Some("VaultMountInvalid")).await?;
    ensure!(pin(&product.kubernetes)?["contradicted-by"] == "VaultMountInvalid");
    go_away(&product.vault);
    stands(&product, "held", Some("VaultUnreachable")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_of_the_same_roots_speaks_against_nothing() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let product = open(&authority, &FLAGS).await?;
    // The same certificates in another version: only the pin follows.
    product.kubernetes.server.always(PATCH_PIN, status(403, "Forbidden"));
    product.vault.always(READ, version(2, &authority.record()));
    stands(&product, "open", Some("KubernetesForbidden")).await?;
    go_away(&product.vault);
    stands(&product, "open", Some("VaultUnreachable")).await?;
    ensure!(pin(&product.kubernetes)?["contradicted-by"].is_null());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_for_the_very_set_of_roots_that_was_verified() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let (alone, two) = (old.secret_data(), data_of(&both(&old, &new, &old)));
    let (one_line, two_lines) = (sha256(&old)?, format!("{}\n{}", sha256(&old)?, sha256(&new)?));
    for (cacerts, roots, allowed) in [
        (&alone, Some(&one_line), true),
        (&two, Some(&two_lines), true),
        (&two, Some(&one_line), false),
        (&alone, Some(&two_lines), false),
        // Of a version that did not write it: the one root, and nothing else.
        (&alone, None, true),
        (&two, None, false),
    ] {
        let vault = vault::start().await?;
        vault.always(LOGIN, Answer::html(502));
        let kubernetes = Kubernetes::start().await?;
        kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": cacerts }))?;
        let verified_at = k8s_openapi::jiff::Timestamp::now().to_string();
        let mut data = json!({ "root-sha256": sha256(&old)?, "vault-version": "1", "verified-at": verified_at });
        if let Some(roots) = roots {
            data["roots"] = json!(roots);
        }
        kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-gate" }, "data": data }))?;
        let gate = Gate::converging_on(kubernetes, &vault).await?;
        let response = gate.review("?timeout=10s", &review("istiod")).await?;
        ensure!(response["allowed"] == allowed, "{data}: {response}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_added_and_signs_in_one_version_holds_until_the_old_one_signs_first() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let product = open(&old, &FLAGS).await?;
    let before = product.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    product.vault.always(READ, version(2, &both(&old, &new, &new)));
    let response = stands(&product, "held", Some("RootChanged")).await?;
    let message = response["status"]["message"].as_str().context("no message")?;
    ensure!(message.contains("do not trust yet") && message.contains(&shown(&new)?), "{message}");
    ensure!(product.kubernetes.get(SECRETS, "cacerts") == Some(before), "it is left alone");
    ensure!(pin(&product.kubernetes)?["root-sha256"] == sha256(&old)?);

    // The set is pinned with the old one signing, and with that the new one may.
    for (number, record) in [(3, both(&old, &new, &old)), (4, both(&old, &new, &new)), (5, new.record())] {
        product.vault.always(READ, version(number, &record));
        let wanted = json!(number.to_string());
        let follows = || async {
            let data = pin(&product.kubernetes)?;
            ensure!(data["vault-version"] == wanted, "{data}");
            Ok(())
        };
        product.process.until(&format!("version {number}"), SOON, follows).await?;
    }
    stands(&product, "open", None).await?;
    ensure!(pin(&product.kubernetes)?["roots"] == sha256(&new)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_follows_a_root_that_is_added_and_signs_in_one_version() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let product = open(&old, &REPLACE).await?;
    product.vault.always(READ, version(2, &both(&old, &new, &new)));
    let follows = || async {
        let data = pin(&product.kubernetes)?;
        ensure!(data["root-sha256"] == sha256(&new)? && data["contradicted-by"].is_null(), "{data}");
        Ok(())
    };
    product.process.until("the new root to be pinned", SOON, follows).await?;
    stands(&product, "open", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_is_not_tried_at_each_attempt() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let product = open(&old, &REPLACE).await?;
    product.kubernetes.server.always(PATCH_CACERTS, status(403, "Forbidden"));
    product.vault.always(READ, version(2, &new.record()));
    stands(&product, "held", Some("KubernetesForbidden")).await?;
    let (before, began, first) =
        (product.vault.count(READ), std::time::Instant::now(), product.kubernetes.server.count(PATCH_CACERTS));
    // Attempts follow each other after a second on average; two writes are never nearer than two, but for the first ones.
    let goes_on = || async {
        let attempts = product.vault.count(READ) - before;
        ensure!(attempts >= 15, "{attempts} attempts");
        Ok(())
    };
    product.process.until("many attempts", SOON, goes_on).await?;
    let writes = product.kubernetes.server.count(PATCH_CACERTS) - first;
    let most = 2 + began.elapsed().as_secs() as usize / 2;
    ensure!(writes <= most, "{writes} writes in the time of {most}");
    // Whoever changes the object has changed the case.
    product.kubernetes.server.always(PATCH_CACERTS, status(500, "InternalError"));
    let mut touched = product.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    touched["metadata"]["annotations"]["example.org/touched"] = json!("now");
    product.kubernetes.put(SECRETS, touched)?;
    stands(&product, "held", Some("KubernetesUnreachable")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_cacerts_is_named_and_never_written_in_vain() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let (kubernetes, vault) = world().await?;
    let secret = json!({ "metadata": { "name": "cacerts" }, "data": old.secret_data(), "immutable": true });
    kubernetes.put(SECRETS, secret)?;
    vault.always(READ, version(1, &new.record()));
    let product = Product::start(kubernetes, vault, &REPLACE).await?;
    let (_, text) = product.post(&product.client()?, review("istiod").to_string().into()).await?;
    ensure!(
        text.contains("KubernetesForbidden: ") && text.contains("is immutable") && text.contains("delete it"),
        "{text}"
    );
    let before = product.vault.count(READ);
    let goes_on = || async {
        ensure!(product.vault.count(READ) >= before + 3);
        Ok(())
    };
    product.process.until("more attempts", SOON, goes_on).await?;
    ensure!(product.kubernetes.server.count(PATCH_CACERTS) == 0);
    Ok(())
}
