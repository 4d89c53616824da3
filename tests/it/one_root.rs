//! Before the one write that cannot be taken back, and before a root is published: nothing is there that another root
//! would be a second one to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::kubernetes::{CONFIG_MAPS, SECRETS, status};
use crate::once::{World, ended};
use crate::vault::{self, HEALTH, READ, WRITE, health, never_written, node, version};
use standin::scripted::{Answer, http_date};

const SERVED: &str = "GET /api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert";

/// What istiod leaves in the namespace of a mesh that it serves.
fn served(root: &str) -> Value {
    json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": root } })
}

fn sha256(authority: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?).openssl())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cacerts_that_comes_while_the_key_is_made_keeps_the_root_from_being_made() -> Result<()> {
    let (world, own) = (World::start().await?, Authority::new("The operator's")?);
    // The last read of Vault before the write: all else has been read by then.
    world.vault.once(READ, never_written());
    world.vault.once(READ, never_written().after(Duration::from_secs(2)));
    let running = world.spawn(&["bootstrap"])?;
    world.reads(2).await?;
    world.kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": own.secret_data() }))?;
    let held = ended(running).await?;
    ensure!(held.code == Some(1) && held.last().contains("CacertsUnknown: "), "{}", held.stderr);
    ensure!(world.vault.count(WRITE) == 0, "a second root was made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_mesh_on_a_root_of_its_own_none_is_made() -> Result<()> {
    let (world, own) = (World::start().await?, Authority::new("istiod's own")?);
    for root in [own.pem(), "no certificate"] {
        world.kubernetes.put(CONFIG_MAPS, served(root))?;
        let held = world.run(&["bootstrap", "--cluster", "homelab"]).await?;
        ensure!(held.code == Some(1) && held.last().contains("MeshOnOtherRoot: cluster homelab: "), "{}", held.stderr);
        ensure!(root != own.pem() || held.last().contains(&sha256(&own)?), "{}", held.last());
        for says in ["istio-system/istio-ca-root-cert", "adopt", "--on-root-change replace"] {
            ensure!(held.last().contains(says), "{}", held.last());
        }
        world.has_nothing()?;
    }
    // Not even looked at: there is no right to it.
    let lines = world.kubernetes.server.lines();
    ensure!(!lines.iter().any(|line| line.contains("istio-ca-secret")), "{lines:?}");

    let done = world.run(&["bootstrap", "--on-root-change", "replace"]).await?;
    ensure!(done.code == Some(0) && world.vault.count(WRITE) == 1, "{}", done.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_starts_while_the_key_is_made_keeps_the_root_from_being_made() -> Result<()> {
    let (world, own) = (World::start().await?, Authority::new("istiod's own")?);
    world.vault.once(READ, never_written());
    world.vault.once(READ, never_written().after(Duration::from_secs(2)));
    let running = world.spawn(&["bootstrap"])?;
    world.reads(2).await?;
    world.kubernetes.put(CONFIG_MAPS, served(own.pem()))?;
    let held = ended(running).await?;
    ensure!(held.code == Some(1) && held.last().contains("MeshOnOtherRoot: "), "{}", held.stderr);
    world.has_nothing()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_mesh_on_another_root_vaults_is_not_published() -> Result<()> {
    let (world, own, vaults) =
        (World::start().await?, Authority::new("istiod's own")?, Authority::new("Istio Root CA")?);
    world.vault.always(READ, version(1, &vaults.record()));
    world.kubernetes.put(CONFIG_MAPS, served(own.pem()))?;
    for command in ["sync", "bootstrap"] {
        let held = world.run(&[command]).await?;
        ensure!(held.code == Some(1) && held.last().contains("MeshOnOtherRoot: "), "{command}: {}", held.stderr);
        world.has_nothing()?;
    }
    // What it shares with Vault, it may go on with.
    world.kubernetes.put(CONFIG_MAPS, served(&[own.pem(), vaults.pem()].concat()))?;
    let done = world.run(&["sync"]).await?;
    ensure!(done.code == Some(0), "{}", done.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_on_the_root_of_the_pin_is_not_disturbed() -> Result<()> {
    let (world, vaults) = (World::start().await?, Authority::new("Istio Root CA")?);
    world.vault.always(READ, version(1, &vaults.record()));
    ensure!(world.run(&["sync"]).await?.code == Some(0));
    world.kubernetes.put(CONFIG_MAPS, served(vaults.pem()))?;
    // As if it had been deleted.
    let cacerts = format!("{SECRETS}/cacerts");
    world.kubernetes.server.once(&format!("GET {cacerts}"), status(404, "NotFound"));
    let again = world.run(&["sync"]).await?;
    ensure!(again.code == Some(0), "{}", again.stderr);
    let creations = world.kubernetes.server.of(&format!("POST {SECRETS}"));
    ensure!(creations.len() == 2 && world.kubernetes.server.waiting() == 0, "it was not published again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mesh_has_is_never_taken_for_nothing_where_it_cannot_be_read() -> Result<()> {
    let vaults = Authority::new("Istio Root CA")?;
    for (answer, reason) in [
        (status(403, "Forbidden"), "KubernetesForbidden: "),
        (status(500, "InternalError"), "KubernetesUnreachable: "),
        (Answer::hang_up(), "KubernetesUnreachable: "),
    ] {
        for (command, stored) in [("bootstrap", never_written()), ("sync", version(1, &vaults.record()))] {
            let world = World::start().await?;
            world.vault.always(READ, stored);
            world.kubernetes.server.always(SERVED, answer.clone());
            let held = world.run(&[command]).await?;
            ensure!(held.code == Some(1) && held.last().contains(reason), "{command}: {}", held.stderr);
            ensure!(held.last().contains("istio-ca-root-cert"), "{}", held.last());
            world.has_nothing()?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_cluster_needs_no_look_at_what_its_mesh_has() -> Result<()> {
    let (world, vaults) = (World::start().await?, Authority::new("Istio Root CA")?);
    world.vault.always(READ, version(1, &vaults.record()));
    ensure!(world.run(&["sync"]).await?.code == Some(0));
    // As with the manifests of an older version.
    world.kubernetes.server.always(SERVED, status(403, "Forbidden"));
    let looks = world.kubernetes.server.count(SERVED);
    ensure!(world.run(&["sync"]).await?.code == Some(0) && world.kubernetes.server.count(SERVED) == looks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_address_is_away_that_may_have_the_root_none_is_made() -> Result<()> {
    let world = World::start().await?;
    let with_root = world.vault.beside().await?;
    with_root.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    with_root.always(HEALTH, Answer::hang_up());
    let addresses = [with_root.url(), world.vault.url()].join(",");
    let flags = ["bootstrap", "--vault-addr", &addresses];
    let held = world.run(&flags).await?;
    ensure!(held.code == Some(1) && held.last().contains("VaultAmbiguous: "), "{}", held.stderr);
    ensure!(held.last().contains(&format!("--vault-gone {}", with_root.url())), "{}", held.last());
    world.has_nothing()?;
    // It is back, and is another Vault.
    with_root.always(HEALTH, health(json!(vault::TWO)));
    with_root.always(READ, never_written());
    let held = world.run(&flags).await?;
    ensure!(held.code == Some(1) && held.last().contains("two different Vaults"), "{}", held.stderr);
    world.has_nothing()?;
    // Somebody says that it is gone for good, and it is.
    with_root.always(HEALTH, Answer::hang_up());
    let gone = with_root.url();
    let done = world.run(&["bootstrap", "--vault-addr", &addresses, "--vault-gone", &gone]).await?;
    ensure!(done.code == Some(0) && world.vault.count(WRITE) == 1, "{}", done.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_said_to_be_gone_is_one_of_the_addresses() -> Result<()> {
    let world = World::start().await?;
    let wrong = world.run(&["bootstrap", "--vault-gone", "https://other.example:8200"]).await?;
    ensure!(wrong.code == Some(2) && wrong.stderr.contains("GATE_VAULT_GONE"), "{}", wrong.stderr);
    ensure!(world.vault.seen().is_empty());
    Ok(())
}

/// Vault's time, so many hours from now.
fn at_vault(hours: i64) -> Answer {
    let time = Timestamp::now() + SignedDuration::from_hours(hours);
    node(200, json!({ "server_time_utc": time.as_second() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_clock_that_is_wrong_nothing_is_made_and_nothing_is_judged() -> Result<()> {
    let vaults = Authority::new("Istio Root CA")?;
    for (command, stored) in [("bootstrap", never_written()), ("sync", version(1, &vaults.record()))] {
        for hours in [-48, 48] {
            let world = World::start().await?;
            world.vault.always(READ, stored.clone());
            world.vault.always(HEALTH, at_vault(hours));
            let held = world.run(&[command]).await?;
            ensure!(held.code == Some(1) && held.last().contains("ClockWrong: "), "{command}: {}", held.stderr);
            // The API server's is this one.
            ensure!(held.last().contains("Vault's clock is"), "{}", held.last());
            world.has_nothing()?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_the_api_server_counts_as_well() -> Result<()> {
    let world = World::start().await?;
    let date = http_date(Timestamp::now() - SignedDuration::from_hours(48));
    let cacerts = format!("GET {SECRETS}/cacerts");
    let pin = format!("GET {CONFIG_MAPS}/istio-ca-gate");
    for line in [&*cacerts, &*pin, SERVED] {
        world.kubernetes.server.always(line, status(404, "NotFound").header("date", &date));
    }
    let held = world.run(&["bootstrap"]).await?;
    ensure!(held.code == Some(1) && held.last().contains("the API server's clock is behind"), "{}", held.stderr);
    world.has_nothing()?;
    // Both against this one.
    world.vault.always(HEALTH, at_vault(-48));
    let held = world.run(&["bootstrap"]).await?;
    ensure!(
        held.last().contains("ClockWrong: ") && held.last().contains("mend the clock of this node"),
        "{}",
        held.stderr
    );
    world.has_nothing()
}

/// A cluster that trusts the root of the first address, and another, empty Vault at the second.
async fn pinned() -> Result<(World, standin::scripted::StandIn, String)> {
    let world = World::start().await?;
    let empty = world.vault.beside().await?;
    world.vault.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
    empty.always(HEALTH, health(json!(vault::TWO)));
    ensure!(world.run(&["sync"]).await?.code == Some(0));
    let addresses = [world.vault.url(), empty.url()].join(",");
    Ok((world, empty, addresses))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_trusts_a_root_is_not_told_by_another_vault_that_it_is_lost() -> Result<()> {
    let (world, empty, addresses) = pinned().await?;
    world.vault.once(READ, Answer::html(502));
    let done = world.run(&["sync", "--vault-addr", &addresses]).await?;
    ensure!(done.code == Some(0) && empty.count(READ) == 1, "{}", done.stderr);
    // While it is away, nobody knows.
    world.vault.always(HEALTH, Answer::hang_up());
    let held = world.run(&["sync", "--vault-addr", &addresses]).await?;
    ensure!(held.code == Some(1) && held.last().contains("VaultUnreachable: "), "{}", held.stderr);
    ensure!(held.last().contains("is not believed alone"), "{}", held.last());
    let pin = world.kubernetes.get(CONFIG_MAPS, "istio-ca-gate").context("no pin")?;
    ensure!(pin["data"]["root-sha256"].is_string());
    Ok(())
}
