//! The root is changed as docs/operate.md says, by three versions of the record.

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use crate::certificates::Authority;
use crate::gate::{SOON, review};
use crate::kubernetes::{CONFIG_MAPS, SECRETS};
use crate::product::{Product, world};
use crate::vault::{READ, version};

const FLAGS: [&str; 4] = ["--role", "sync", "--refresh", "1s"];

fn sha256(authority: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).hex())
}

/// Both are trusted, and this one signs.
fn both(old: &Authority, new: &Authority, signing: &Authority) -> Map<String, Value> {
    record(&[old.pem(), new.pem()].concat(), signing)
}

fn record(roots: &str, signing: &Authority) -> Map<String, Value> {
    let files = [
        ("root-cert.pem", roots),
        ("cert-chain.pem", signing.pem()),
        ("ca-cert.pem", signing.pem()),
        ("ca-key.pem", &signing.key_pem()),
        // The old one's, which a patch leaves.
        ("key.pem", "not read any more"),
    ];
    files.into_iter().map(|(name, pem)| (name.to_owned(), json!(pem))).collect()
}

/// Waits until the gate stands so with this version of the record, and tells the pin.
async fn pin_at(product: &Product, number: u64, state: &str, reason: &Value) -> Result<Value> {
    let what = format!("version {number} {state}");
    product
        .process
        .until(&what, SOON, || async {
            let seen: Value = serde_json::from_str(&product.get("fingerprint").await?)?;
            let stands = seen["state"] == state && seen["reason"] == *reason && seen["vault"]["version"] == number;
            ensure!(stands, "{seen}");
            Ok(())
        })
        .await?;
    let pin = product.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?;
    Ok(pin["data"]["root-sha256"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_versions_are_followed_without_replace_and_the_pin_moves_with_the_signing_ca() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let (kubernetes, vault) = world().await?;
    vault.always(READ, version(1, &old.record()));
    let product = Product::start(kubernetes, vault, &FLAGS).await?;
    product.allows(&review("istiod")).await?;
    ensure!(pin_at(&product, 1, "open", &Value::Null).await? == sha256(&old)?);
    for (number, record, pinned) in
        [(2, both(&old, &new, &old), &old), (3, both(&old, &new, &new), &new), (4, record(new.pem(), &new), &new)]
    {
        product.vault.always(READ, version(number, &record));
        let pin = pin_at(&product, number, "open", &Value::Null).await?;
        ensure!(pin == sha256(pinned)?, "version {number}: {pin}");
        product.allows(&review("istiod")).await?;
        let cacerts = product.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
        let (annotations, wanted) = (&cacerts["metadata"]["annotations"], number.to_string());
        ensure!(annotations["istio-ca-gate.io/vault-version"] == wanted, "{annotations}");
    }
    let log = product.process.log();
    ensure!(!log.contains("RootChanged"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_old_root_before_the_new_one_signs_holds_the_cluster_until_it_is_taken_back() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let (kubernetes, vault) = world().await?;
    vault.always(READ, version(1, &both(&old, &new, &old)));
    let product = Product::start(kubernetes, vault, &FLAGS).await?;
    product.allows(&review("istiod")).await?;
    let before = product.kubernetes.get(SECRETS, "cacerts").context("no cacerts")?;
    product.vault.always(READ, version(2, &new.record()));
    ensure!(pin_at(&product, 2, "held", &json!("RootChanged")).await? == sha256(&old)?);
    ensure!(product.kubernetes.get(SECRETS, "cacerts") == Some(before), "it is left alone");
    product.vault.always(READ, version(3, &both(&old, &new, &old)));
    pin_at(&product, 3, "open", &Value::Null).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cacerts_that_is_not_the_gates_holds_at_the_first_version() -> Result<()> {
    let (old, new) = (Authority::new("Old")?, Authority::new("New")?);
    let (kubernetes, vault) = world().await?;
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": old.secret_data() }))?;
    vault.always(READ, version(1, &old.record()));
    let product = Product::start(kubernetes, vault, &FLAGS).await?;
    product.allows(&review("istiod")).await?;
    product.vault.always(READ, version(2, &both(&old, &new, &old)));
    pin_at(&product, 2, "held", &json!("RootChanged")).await?;
    Ok(())
}
