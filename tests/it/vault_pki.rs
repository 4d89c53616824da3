//! The client of the PKI engine, with the policies that come with the gate, before a Vault in memory that has one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hyper::Method;
use istio_ca_gate::ca::check::Sound;
use istio_ca_gate::ca::file;
use istio_ca_gate::ca::record::SigningRecord;
use istio_ca_gate::ca::signer::{Asked, SignerKey, certified, issuing_root};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use istio_ca_gate::refused::Refused;
use istio_ca_gate::signer::{FIRST_ROOT, Signer, root_common_name};
use istio_ca_gate::vault::Vault;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use standin::faults::{Aim, Fault};
use standin::scripted::Answer;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::vault::{self, client_but};

const LIFE: Duration = Duration::from_secs(2160 * 3600);
const NAME: &str = "Istio Intermediate CA nas";
const SIGN: &str = "POST /v1/pki-mesh/issuer/root-1/sign-intermediate";
const GENERATE: &str = "POST /v1/pki-mesh/root/generate/internal";

/// A Vault in memory, and a client with the rights of the NAS's gate and of the one that makes the root.
struct Signing {
    server: standin::vault::Vault,
    vault: Vault,
    /// Holds the CA file.
    _folder: TempDir,
}

/// A policy for the NAS.
fn policy(text: &str) -> String {
    text.replace("CLUSTER", "nas")
}

async fn signing(max_lease_ttl: &str) -> Result<Signing> {
    signing_as(max_lease_ttl, &["signer", "maker"]).await
}

async fn signing_as(max_lease_ttl: &str, policies: &[&str]) -> Result<Signing> {
    let server = standin::vault::Vault::start().await?;
    if !max_lease_ttl.is_empty() {
        let mount = json!({ "type": "pki", "config": { "max_lease_ttl": max_lease_ttl } });
        server.ok("POST", "sys/mounts/pki-mesh", Some(mount)).await?;
    }
    server.policy("signer", &policy(include_str!("../../deploy/vault/istio-ca-signer.hcl"))).await?;
    server.policy("maker", include_str!("../../deploy/vault/istio-ca-root.hcl")).await?;
    server.policy("conductor", include_str!("../../deploy/vault/istio-ca-rotate.hcl")).await?;
    let token = vault::given(&vault::token_of(&server, policies).await?)?;
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem())?;
    let client = client_but(&[server.address()], |settings| {
        settings.ca_file = Some(ca);
        settings.token = Some(token);
    })?;
    Ok(Signing { server, vault: client.vault, _folder: folder })
}

impl Signing {
    async fn make(&mut self) -> Result<String, Refused> {
        self.vault.make_root(FIRST_ROOT, &root_common_name(FIRST_ROOT)).await
    }

    async fn certify(&mut self, name: &str) -> Result<Result<String, Refused>> {
        let csr = SignerKey::generate()?.request(name)?;
        Ok(self.vault.certify(FIRST_ROOT, &csr, name, LIFE).await)
    }

    async fn issuers(&self) -> Result<usize> {
        let (_, answer) = self.server.api("LIST", "pki-mesh/issuers", None).await?;
        Ok(answer["data"]["keys"].as_array().map_or(0, Vec::len))
    }

    async fn change(&self, change: Value) -> Result<()> {
        let (status, answer) = self.server.api("PATCH", "pki-mesh/issuer/root-1", Some(change)).await?;
        ensure!(status == 200, "{answer}");
        Ok(())
    }
}

fn came<T>(result: Result<T, Refused>) -> Result<T> {
    result.map_err(|refused| anyhow!("{refused:?}"))
}

/// The sentence of a refusal of this code.
fn refused<T>(result: Result<T, Refused>, reason: Reason) -> Result<String> {
    let refused = result.err().context("it was not refused")?;
    ensure!(refused.held.reason == reason, "{refused:?}");
    Ok(refused.held.sentence())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_made_once_and_a_signer_is_certified_under_it() -> Result<()> {
    let mut signing = signing("87600h").await?;
    let root = came(signing.make().await)?;
    // Again, and by an answer that was lost, it is the same one.
    ensure!(came(signing.make().await)? == root && signing.issuers().await? == 1);
    ensure!(came(signing.vault.issuer(FIRST_ROOT).await)? == root);
    let glance = file::roots(root.as_bytes()).map_err(|unreadable| anyhow!(unreadable.of("root-1")))?;
    let now = Timestamp::now();
    ensure!(root.ends_with("-----\n") && glance.subject.contains("Istio Root CA root-1"), "{glance:?}");
    let hours = glance.not_after.duration_since(now).as_hours();
    ensure!((87_598..=87_600).contains(&hours), "{hours}");
    let told = signing.server.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    ensure!(told["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{told}");

    // What comes back is what the strict check asks of a signer.
    let record = SigningRecord::parse(&SigningRecord::first(&root, &FIRST_ROOT.parse()?), now)?;
    let key = SignerKey::generate()?;
    let signer = came(signing.vault.certify(FIRST_ROOT, &key.request(NAME)?, NAME, LIFE).await)?;
    let asked = Asked { key: &key, common_name: NAME, life: LIFE, at: Timestamp::now() };
    let sound = certified(&record, issuing_root(&record, &root)?, &signer, &asked)?;
    ensure!(sound.bundle.ca_cert == signer.into_bytes() && sound.bundle.cert_chain == sound.bundle.ca_cert);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_whose_answer_was_lost_is_found_by_its_name() -> Result<()> {
    let mut signing = signing("87600h").await?;
    let aim = Aim::all().path("root/generate").times(1);
    let lost = signing.server.faults().inject(Fault::AnswerLost, aim);
    refused(signing.make().await, Reason::VaultUnreachable)?;
    ensure!(lost.hits() == 1);
    let root = came(signing.make().await)?;
    ensure!(signing.issuers().await? == 1 && came(signing.vault.issuer(FIRST_ROOT).await)? == root);
    // Neither is one that is killed between making it and saying that no signer outlives it.
    signing.change(json!({ "leaf_not_after_behavior": "err" })).await?;
    ensure!(came(signing.make().await)? == root);
    let told = signing.server.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    ensure!(told["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_of_another_name_is_not_certified() -> Result<()> {
    let mut signing = signing("87600h").await?;
    came(signing.make().await)?;
    let sentence = refused(signing.certify("Istio Intermediate CA homelab").await?, Reason::SigningRefused)?;
    ensure!(
        sentence.contains("does not let role istio-ca-bootstrap certify Istio Intermediate CA homelab"),
        "{sentence}"
    );
    let csr = SignerKey::generate()?.request(NAME)?;
    let shorter = signing.vault.certify(FIRST_ROOT, &csr, NAME, LIFE / 2).await;
    ensure!(refused(shorter, Reason::SigningRefused)?.contains("for 1080h"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_the_engine_has_its_cause() -> Result<()> {
    let mut signing = signing("").await?;
    let sentence = refused(signing.certify(NAME).await?, Reason::SigningRefused)?;
    ensure!(sentence.contains("nothing is mounted there") && sentence.contains("--vault-pki-mount"), "{sentence}");
    let sentence = refused(signing.vault.issuer(FIRST_ROOT).await, Reason::SigningRefused)?;
    ensure!(sentence.contains("no PKI engine is mounted there"), "{sentence}");
    let sentence = refused(signing.make().await, Reason::SigningRefused)?;
    ensure!(sentence.contains("what is mounted at pki-mesh"), "{sentence}");

    // A mount that nobody has tuned.
    signing.server.ok("POST", "sys/mounts/pki-mesh", Some(json!({ "type": "pki" }))).await?;
    let sentence = refused(signing.make().await, Reason::SigningRefused)?;
    ensure!(sentence.contains("vault secrets tune -max-lease-ttl=87600h pki-mesh"), "{sentence}");
    ensure!(signing.issuers().await? == 0, "a root was made");
    let sentence = refused(signing.certify(NAME).await?, Reason::SigningRefused)?;
    ensure!(sentence.contains("has no issuer root-1"), "{sentence}");

    let longer = json!({ "max_lease_ttl": "87600h" });
    signing.server.ok("POST", "sys/mounts/pki-mesh/tune", Some(longer)).await?;
    came(signing.make().await)?;
    signing.change(json!({ "usage": "read-only" })).await?;
    let sentence = refused(signing.certify(NAME).await?, Reason::SigningRefused)?;
    ensure!(sentence.contains("root-1 of pki-mesh/ in Vault may not issue any more"), "{sentence}");
    signing.change(json!({ "usage": "read-only,issuing-certificates" })).await?;
    came(signing.certify(NAME).await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_ends_too_soon_is_neither_taken_nor_signed_under() -> Result<()> {
    let mut signing = signing("87600h").await?;
    // As somebody makes it by hand who leaves the life out.
    let brief =
        json!({ "issuer_name": "root-1", "common_name": "a root", "key_type": "ec", "not_before_duration": "1h" });
    signing.server.ok("POST", "pki-mesh/root/generate/internal", Some(brief)).await?;
    // Vault itself would cut the signer's life, and say so in a warning alone.
    let sentence = refused(signing.certify(NAME).await?, Reason::SigningRefused)?;
    ensure!(sentence.contains("root-1 of pki-mesh/ in Vault ends before a signer of 2160h would"), "{sentence}");
    let sentence = refused(signing.make().await, Reason::SigningRefused)?;
    ensure!(
        sentence.contains("ends within a year") && sentence.contains("vault delete pki-mesh/issuer/root-1"),
        "{sentence}"
    );
    let sentence = refused(signing.certify(NAME).await?, Reason::SigningRefused)?;
    ensure!(
        sentence.contains("ends before a signer of 2160h would") && sentence.contains("Vault says: "),
        "{sentence}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_vault_from_answering_is_an_outage_and_no_refusal() -> Result<()> {
    let mut signing = signing("87600h").await?;
    came(signing.make().await)?;
    for (fault, reason) in [
        (Fault::Refused, Reason::VaultUnreachable),
        (Fault::Sealed, Reason::VaultSealed),
        (Fault::Status(500), Reason::VaultUnreachable),
        (Fault::Status(503), Reason::VaultUnreachable),
        (Fault::Status(429), Reason::VaultRateLimited),
        (Fault::Cut, Reason::VaultUnreachable),
    ] {
        let switch = signing.server.faults().inject(fault, Aim::all());
        refused(signing.certify(NAME).await?, reason)?;
        refused(signing.vault.issuer(FIRST_ROOT).await, reason)?;
        refused(signing.make().await, reason)?;
        ensure!(fault == Fault::Refused || switch.hits() >= 3, "{fault:?} did not happen");
        signing.server.faults().heal();
    }
    came(signing.certify(NAME).await?)?;
    Ok(())
}

#[tokio::test]
async fn what_is_sent_is_what_the_policies_pin_and_all_in_texts() -> Result<()> {
    let server = vault::start().await?;
    server.always(SIGN, vault::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]));
    let mut client = client_but(&[&server.url()], |_| ())?;
    let csr = SignerKey::generate()?.request(NAME)?;
    refused(client.vault.certify(FIRST_ROOT, &csr, NAME, LIFE).await, Reason::SigningRefused)?;
    let sent = server.of(SIGN);
    ensure!(
        sent[0].json()
            == json!({
                "csr": csr, "common_name": NAME, "organization": "Istio", "ttl": "2160h", "max_path_length": "0",
                "not_before_duration": "1h", "format": "pem",
            })
    );
    let mount = json!({ "data": { "type": "pki", "path": "pki-mesh/", "config": { "max_lease_ttl": 315_360_000 } } });
    server.always("GET /v1/sys/internal/ui/mounts/pki-mesh", Answer::json(200, &mount));
    server.always(GENERATE, vault::errors(400, &["unknown key type x"]));
    refused(client.vault.make_root(FIRST_ROOT, "Istio Root CA root-1").await, Reason::SigningRefused)?;
    ensure!(
        server.of(GENERATE)[0].json()
            == json!({
                "issuer_name": "root-1", "common_name": "Istio Root CA root-1", "organization": "Istio",
                "ttl": "87600h", "key_type": "rsa", "key_bits": "4096", "not_before_duration": "1h",
                "exclude_cn_from_sans": "true", "format": "pem",
            })
    );
    Ok(())
}

#[tokio::test]
async fn without_the_flag_nothing_is_asked() -> Result<()> {
    let server = vault::start().await?;
    let mut client = client_but(&[&server.url()], |settings| settings.pki_mount = None)?;
    for sentence in [
        refused(client.vault.issuer(FIRST_ROOT).await, Reason::SigningRefused)?,
        refused(client.vault.certify(FIRST_ROOT, "", NAME, LIFE).await, Reason::SigningRefused)?,
        refused(client.vault.make_root(FIRST_ROOT, "").await, Reason::SigningRefused)?,
    ] {
        ensure!(sentence.contains("--vault-pki-mount (GATE_VAULT_PKI_MOUNT)"), "{sentence}");
    }
    ensure!(server.lines().is_empty(), "{:?}", server.lines());
    Ok(())
}

/// A record of the shared kind, as it was read.
async fn shared(signing: &mut Signing) -> Result<Arc<Sound>> {
    let record = Authority::new("Istio Root CA")?.record();
    let body = json!({ "options": { "cas": 0 }, "data": record });
    signing.server.ok("POST", "secret/data/istio/ca", Some(body)).await?;
    let found = came(signing.vault.read(Timestamp::now()).await)?;
    let Stored::Sound { sound, .. } = found.stored else { bail!("{found:?}") };
    Ok(sound)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_root_is_brought_into_the_engine_and_again_after_any_failure() -> Result<()> {
    let mut signing = signing_as("87600h", &["conductor"]).await?;
    let sound = shared(&mut signing).await?;
    // Whatever is lost on the way, the next run goes on: after each request that changes something.
    for (method, part) in
        [(Method::POST, "issuers/import"), (Method::PATCH, "issuer/"), (Method::GET, "issuer/root-1/json")]
    {
        for fault in [Fault::AnswerLost, Fault::RequestLost] {
            let switch = signing.server.faults().inject(fault, Aim::all().method(method.clone()).path(part).times(1));
            refused(signing.vault.import_root(FIRST_ROOT, &sound).await, Reason::VaultUnreachable)?;
            ensure!(switch.hits() == 1, "{fault:?} of {part}");
        }
    }
    ensure!(came(signing.vault.import_root(FIRST_ROOT, &sound).await)? == FIRST_ROOT);
    ensure!(signing.issuers().await? == 1);
    ensure!(came(signing.vault.issuer(FIRST_ROOT).await)?.as_bytes() == sound.bundle.root_cert);
    let told = signing.server.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    ensure!(told["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{told}");
    // It keeps the name that it has.
    ensure!(came(signing.vault.import_root("root-5", &sound).await)? == FIRST_ROOT);

    // And a signer is certified under it.
    let token = signing_as_signer(&signing).await?;
    let certified = certify_with(&signing, &token).await?;
    ensure!(certified["data"]["issuing_ca"].as_str().is_some_and(|root| root.trim().as_bytes() == trimmed(&sound)));
    Ok(())
}

fn trimmed(sound: &Sound) -> &[u8] {
    sound.bundle.root_cert.trim_ascii()
}

async fn signing_as_signer(signing: &Signing) -> Result<String> {
    let body = json!({ "policies": ["signer"], "ttl": "1h" });
    let made = signing.server.ok("POST", "auth/token/create", Some(body)).await?;
    Ok(made["auth"]["client_token"].as_str().context("no token")?.to_owned())
}

async fn certify_with(signing: &Signing, token: &str) -> Result<Value> {
    let body = json!({
        "csr": SignerKey::generate()?.request(NAME)?, "common_name": NAME, "organization": "Istio", "ttl": "2160h",
        "max_path_length": "0", "not_before_duration": "1h", "format": "pem",
    });
    let path = "pki-mesh/issuer/root-1/sign-intermediate";
    let (status, answer) = signing.server.api_with(Some(token), "POST", path, Some(body)).await?;
    ensure!(status == 200, "{answer}");
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_of_that_name_is_not_taken_for_the_shared_one() -> Result<()> {
    let mut signing = signing_as("87600h", &["conductor"]).await?;
    let sound = shared(&mut signing).await?;
    let other = json!({ "issuer_name": "root-1", "common_name": "another", "key_type": "ec" });
    signing.server.ok("POST", "pki-mesh/root/generate/internal", Some(other)).await?;
    let sentence = refused(signing.vault.import_root(FIRST_ROOT, &sound).await, Reason::SigningRefused)?;
    ensure!(sentence.contains("issuer name already in use"), "{sentence}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_with_the_shared_key_are_destroyed_and_the_one_that_stays_is_not() -> Result<()> {
    let mut signing = signing_as("87600h", &["conductor"]).await?;
    shared(&mut signing).await?;
    refused(signing.vault.destroy_before(2).await, Reason::VaultUnreachable)?;
    ensure!(came(signing.vault.destroy_before(1).await)?.is_empty());
    for cas in 1..4 {
        let body = json!({ "options": { "cas": cas }, "data": { "root-cert.pem": "x", "issuer": "root-1" } });
        signing.server.ok("POST", "secret/data/istio/ca", Some(body)).await?;
    }
    let lost = signing.server.faults().inject(Fault::AnswerLost, Aim::all().path("destroy").times(1));
    refused(signing.vault.destroy_before(4).await, Reason::VaultUnreachable)?;
    ensure!(lost.hits() == 1 && came(signing.vault.destroy_before(4).await)?.is_empty());
    let told = signing.server.ok("GET", "secret/metadata/istio/ca", None).await?;
    let destroyed = |version: &str| told["data"]["versions"][version]["destroyed"] == true;
    ensure!(["1", "2", "3"].into_iter().all(destroyed) && !destroyed("4"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_destroys_and_brings_along_nothing() -> Result<()> {
    let mut conductor = signing_as("87600h", &["conductor"]).await?;
    let sound = shared(&mut conductor).await?;
    let mut gate = signing("87600h").await?;
    let sentence = refused(gate.vault.import_root(FIRST_ROOT, &sound).await, Reason::SigningRefused)?;
    ensure!(sentence.contains("bring root-1 along at pki-mesh/issuers/import/bundle"), "{sentence}");
    let sentence = refused(gate.vault.destroy_before(1).await, Reason::VaultPermissionDenied)?;
    ensure!(sentence.contains("`read` on secret/metadata/istio/ca"), "{sentence}");
    Ok(())
}
