//! Several addresses of one Vault: which is asked, and when the next one is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use istio_ca_gate::ca::Sha256;
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use istio_ca_gate::vault::{Found, Refused, Settings};
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::vault::{
    self, Client, HEALTH, LOGIN, PREFLIGHT, READ, asked, client, client_but, errors, health, never_written, node,
    reading_standby, version,
};
use standin::scripted::{Answer, StandIn};

async fn three() -> Result<([StandIn; 2], Client)> {
    let servers = vault::start_two().await?;
    let client = client(&[&servers[0].url(), &servers[1].url()])?;
    Ok((servers, client))
}

/// An address at which nothing listens.
async fn nobody() -> Result<String> {
    Ok(vault::start().await?.url())
}

#[tokio::test]
async fn the_first_is_asked_alone_as_long_as_it_answers() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    for _ in 0..3 {
        ensure!(client.absent().await?.address == first.url());
    }
    ensure!(asked(&second).is_empty());
    Ok(())
}

#[tokio::test]
async fn the_first_is_asked_again_as_soon_as_it_answers() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    first.once(READ, Answer::html(502));
    ensure!(client.absent().await?.address == second.url());
    ensure!(client.absent().await?.address == first.url());
    ensure!(first.count(READ) == 2 && second.count(READ) == 1);
    // One login: the token is good at all addresses of one Vault.
    ensure!(first.count(LOGIN) == 1 && second.count(LOGIN) == 0);
    // Also where it was silent, and is not waited for.
    first.once(HEALTH, Answer::silence());
    ensure!(client.absent().await?.address == second.url());
    ensure!(client.absent().await?.address == first.url());
    Ok(())
}

#[tokio::test]
async fn an_address_that_stays_silent_costs_its_wait_once() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    first.always(HEALTH, Answer::silence());
    ensure!(client.absent().await?.address == second.url());
    let began = Instant::now();
    for _ in 0..3 {
        ensure!(client.absent().await?.address == second.url());
    }
    // A second each, if it were waited for as for one that has just gone.
    ensure!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    ensure!(first.count(HEALTH) >= 4);
    Ok(())
}

#[tokio::test]
async fn the_active_node_is_asked_before_a_standby_that_answers_by_itself() -> Result<()> {
    let ([standby, active], mut client) = three().await?;
    let lately = json!({ "standby": true, "performance_standby": true, "ha_connection_healthy": true });
    for answer in [reading_standby(), node(473, lately)] {
        standby.always(HEALTH, answer);
        ensure!(client.absent().await?.address == active.url());
    }
    ensure!(standby.count(READ) == 0);
    // Vault's own standbys pass on what they are asked: the order of the configuration holds.
    standby.always(HEALTH, node(429, json!({ "standby": true })));
    ensure!(client.absent().await?.address == standby.url());
    Ok(())
}

#[tokio::test]
async fn what_a_standby_says_that_may_be_behind_or_cut_off_does_not_count() -> Result<()> {
    let cut_off = json!({ "standby": true, "ha_connection_healthy": false });
    let behind = json!({
        "standby": true, "performance_standby": true, "ha_connection_healthy": true,
        "last_request_forwarding_heartbeat_ms": 45_000,
    });
    for (answer, says) in [
        (reading_standby(), "may be old"),
        (node(473, behind), "may be old"),
        (node(474, cut_off), "lost the active node"),
        (node(472, json!({})), "disaster-recovery"),
    ] {
        let (server, mut client) = vault::pair().await?;
        server.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
        server.always(HEALTH, answer);
        let (reason, sentence) = client.refused().await?;
        ensure!(reason == Reason::VaultUnreachable && sentence.contains(says), "{reason}: {sentence}");
        ensure!(server.count(READ) == 0);
    }
    Ok(())
}

#[tokio::test]
async fn behind_one_address_the_active_node_is_looked_for() -> Result<()> {
    let (server, mut client) = vault::pair().await?;
    // Each look is one question to a node, and a second one that ends the connection to it.
    for _ in 0..4 {
        server.once(HEALTH, reading_standby());
    }
    client.absent().await?;
    ensure!(server.waiting() == 0 && server.count(HEALTH) == 5 && server.count(READ) == 1);
    Ok(())
}

#[tokio::test]
async fn what_a_node_says_of_itself_holds_for_what_it_says_next_on_the_same_connection() -> Result<()> {
    let (server, mut client) = vault::pair().await?;
    client.absent().await?;
    client.absent().await?;
    let connection = |line: &str| server.of(line).iter().map(|request| request.connection).collect::<Vec<_>>();
    let (health, read) = (connection(HEALTH), connection(READ));
    ensure!(health == read && health[0] != health[1], "{health:?} {read:?}");
    // What holds the key is not kept.
    ensure!(server.of(READ).iter().all(|read| read.header("connection") == Some("close")));
    Ok(())
}

/// A Vault with a root at the first address, another, empty one at the second; and what a pinned cluster makes of it.
async fn two_vaults() -> Result<([StandIn; 2], Client, Sha256)> {
    let ([first, second], mut client) = three().await?;
    let authority = Authority::new("Istio Root CA")?;
    first.always(READ, version(1, &authority.record()));
    second.always(HEALTH, health(json!(vault::TWO)));
    let found = client.read().await.map_err(|refused| anyhow!("{refused:?}"))?;
    let Stored::Sound { sound, .. } = &found.stored else { anyhow::bail!("{found:?}") };
    let root = sound.root;
    Ok(([first, second], client, root))
}

async fn confirmed(client: &mut Client, root: Sha256) -> Result<Found, Refused> {
    let found = client.read().await?;
    client.vault.confirmed(found, root, Timestamp::now()).await
}

#[tokio::test]
async fn an_address_that_contradicts_is_not_believed_alone_while_the_other_is_silent() -> Result<()> {
    let ([first, second], mut client, root) = two_vaults().await?;
    for broken in [Answer::html(502), errors(503, &["Vault is sealed"]), Answer::hang_up()] {
        first.always(LOGIN, broken.clone());
        first.always(HEALTH, broken);
        let refused = confirmed(&mut client, root).await.err().context("the empty one was believed")?;
        ensure!(refused.held.reason.is_outage() && !refused.is_answer, "{refused:?}");
        ensure!(refused.held.sentence().contains(&second.url()), "{refused:?}");
        ensure!(refused.held.sentence().contains(&first.url()), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn that_there_is_no_place_for_the_root_is_not_believed_alone_either() -> Result<()> {
    let ([first, second], mut client, root) = two_vaults().await?;
    first.always(HEALTH, Answer::hang_up());
    for (line, answer) in [
        (READ, errors(404, &["no handler for route"])),
        (READ, Answer::json(200, &json!({ "data": { "key.pem": "x" } }))),
        (PREFLIGHT, errors(403, &["permission denied"])),
        (PREFLIGHT, vault::mount("kv", json!({ "version": "1" }))),
    ] {
        second.once(line, answer);
        let refused = confirmed(&mut client, root).await.err().context("it was read")?;
        ensure!(refused.held.reason == Reason::VaultUnreachable && refused.contradiction().is_none(), "{refused:?}");
    }
    ensure!(second.waiting() == 0);
    Ok(())
}

#[tokio::test]
async fn one_refusal_of_the_first_does_not_make_the_second_the_truth() -> Result<()> {
    let ([first, second], mut client, root) = two_vaults().await?;
    first.once(READ, Answer::html(502));
    let found = confirmed(&mut client, root).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(found.address == first.url() && second.count(READ) == 1);
    Ok(())
}

#[tokio::test]
async fn where_all_say_so_or_the_one_that_agreed_does_a_contradiction_is_believed() -> Result<()> {
    let ([first, second], mut client, root) = two_vaults().await?;
    let absent = |found: Found| ensure_absent(&found);
    // All.
    first.always(READ, never_written());
    absent(confirmed(&mut client, root).await.map_err(|refused| anyhow!("{refused:?}"))?)?;
    // The very Vault that had agreed, by another address of it.
    let ([first, second], mut client, root) = {
        second.always(HEALTH, health(json!(vault::ONE)));
        first.always(READ, version(1, &Authority::new("Istio Root CA")?.record()));
        ([first, second], client, root)
    };
    let other = client.read().await.map_err(|refused| anyhow!("{refused:?}"))?;
    let Stored::Sound { sound, .. } = &other.stored else { anyhow::bail!("{other:?}") };
    let trusted = sound.root;
    ensure!(trusted != root);
    confirmed(&mut client, trusted).await.map_err(|refused| anyhow!("{refused:?}"))?;
    first.always(HEALTH, Answer::hang_up());
    let found = confirmed(&mut client, trusted).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(found.address == second.url());
    ensure_absent(&found)
}

fn ensure_absent(found: &Found) -> Result<()> {
    ensure!(matches!(found.stored, Stored::Absent), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn never_written_by_a_standby_that_lags_is_read_once_more_from_the_active_node() -> Result<()> {
    let ([standby, active], mut client) = three().await?;
    let authority = Authority::new("Istio Root CA")?;
    active.always(READ, version(1, &authority.record()));
    let found = client.read().await.map_err(|refused| anyhow!("{refused:?}"));
    ensure!(found.is_ok_and(|found| matches!(found.stored, Stored::Absent)), "the first is asked first");
    // It is in touch, but has not applied the write yet; and the active node is late to say how it is.
    standby.always(
        HEALTH,
        node(473, json!({ "standby": true, "performance_standby": true, "ha_connection_healthy": true })),
    );
    let root = Sha256::of(&CertificateDer::from_pem_slice(authority.pem().as_bytes())?);
    active.once(HEALTH, Answer::html(502));
    let found = confirmed(&mut client, root).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(found.address == active.url() && standby.count(READ) == 2, "{found:?}");
    // Without an active node it is not known.
    active.always(HEALTH, Answer::html(502));
    let refused = confirmed(&mut client, root).await.err().context("a lagging node was believed")?;
    ensure!(refused.held.reason == Reason::VaultUnreachable, "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_next_is_asked_after_a_5xx_a_seal_a_cut_or_a_timeout() -> Result<()> {
    for line in [LOGIN, READ] {
        for answer in [
            Answer::html(500),
            Answer::html(502),
            Answer::html(503),
            Answer::html(504),
            errors(503, &["Vault is sealed"]),
            Answer::hang_up(),
            errors(404, &[]).reset(10),
            Answer::silence(),
        ] {
            let servers = vault::start_two().await?;
            let hurried = |settings: &mut Settings| settings.timeout = Duration::from_secs(2);
            let mut client = client_but(&[&servers[0].url(), &servers[1].url()], hurried)?;
            servers[0].always(line, answer.clone());
            ensure!(client.absent().await?.address == servers[1].url(), "{line} {answer:?}");
            ensure!(servers[0].count(line) == 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_next_is_asked_where_connecting_tls_or_the_name_fails() -> Result<()> {
    let (authority, other) = (Authority::new("CA of Vault")?, Authority::new("Other")?);
    let good = vault::start_tls(authority.server("127.0.0.1")?).await?;
    let untrusted = vault::start_tls(other.server("127.0.0.1")?).await?;
    let named = vault::start_tls(authority.server("vault.example")?).await?;
    let nowhere = "https://no-such-name.invalid:8200".to_owned();
    for failing in [nobody().await?, untrusted.url(), named.url(), nowhere] {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), authority.pem())?;
        let mut client =
            client_but(&[&failing, &good.url()], |settings| settings.ca_file = Some(file.path().to_owned()))?;
        ensure!(client.absent().await?.address == good.url(), "{failing}");
    }
    ensure!(untrusted.seen().is_empty() && named.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn what_vault_itself_says_is_final() -> Result<()> {
    for line in [LOGIN, READ] {
        for answer in [
            errors(400, &["invalid role name"]),
            errors(403, &["permission denied"]),
            errors(404, &["no handler for route"]),
            errors(429, &["rate limit quota exceeded"]),
        ] {
            let ([first, second], mut client) = three().await?;
            first.always(line, answer.clone());
            client.refused().await?;
            ensure!(first.count(line) == 1);
            ensure!(asked(&second).is_empty(), "{line} {answer:?}: the next saw {:?}", second.lines());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_jwt_that_cannot_be_read_is_sent_to_none() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    std::fs::remove_file(&client.jwt_file)?;
    ensure!(client.refused().await?.0 == Reason::VaultLoginDenied);
    ensure!(asked(&first).is_empty() && asked(&second).is_empty());
    Ok(())
}

#[tokio::test]
async fn where_none_answers_all_are_named_and_a_sealed_one_tells_most() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    first.always(LOGIN, Answer::html(502));
    second.always(LOGIN, errors(503, &["Vault is sealed"]));
    let (reason, sentence) = client.refused().await?;
    ensure!(reason == Reason::VaultSealed, "{reason}: {sentence}");
    ensure!(sentence.contains(&first.url()) && sentence.contains(&second.url()), "{sentence}");
    ensure!(first.count(LOGIN) == 1 && second.count(LOGIN) == 1);
    Ok(())
}

/// Why a root is not made there, if it is not.
async fn held(client: &Client, found: &Found) -> Option<(Reason, String)> {
    client.vault.is_one(found).await.err().map(|refused| (refused.held.reason, refused.held.sentence()))
}

#[tokio::test]
async fn addresses_with_one_cluster_id_are_one_vault_and_others_are_not() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    let found = client.absent().await?;
    ensure!(held(&client, &found).await.is_none());

    second.always(HEALTH, health(json!(vault::TWO)));
    let (reason, sentence) = held(&client, &found).await.context("two Vaults were taken for one")?;
    ensure!(reason == Reason::VaultAmbiguous, "{reason}");
    ensure!(sentence.contains(&first.url()) && sentence.contains(&second.url()), "{sentence}");

    // Any status may carry the id: a standby answers 429.
    let standby = |id: &str| node(429, json!({ "standby": true, "cluster_id": id }));
    second.always(HEALTH, standby(vault::TWO));
    ensure!(held(&client, &found).await.is_some_and(|(reason, _)| reason == Reason::VaultAmbiguous));
    second.always(HEALTH, standby(vault::ONE));
    ensure!(held(&client, &found).await.is_none());

    // One that is there and cannot tell may be another.
    for (status, initialized) in [(503, true), (501, false)] {
        let silent = json!({ "initialized": initialized, "sealed": true, "standby": true });
        second.always(HEALTH, Answer::json(status, &silent));
        let (reason, sentence) = held(&client, &found).await.context("a sealed Vault was passed over")?;
        ensure!(reason == Reason::VaultSealed && sentence.contains(&second.url()), "{reason}: {sentence}");
    }

    // Where the absence was read, it has to be known which Vault that is.
    for silent in [health(Value::Null), health(json!("")), Answer::html(200), Answer::json(503, &json!({}))] {
        first.always(HEALTH, silent);
        let (reason, sentence) = held(&client, &found).await.context("an unknown Vault was taken for one")?;
        ensure!(reason == Reason::VaultUnreachable && sentence.contains("cluster_id"), "{reason}: {sentence}");
    }
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_down_may_be_the_vault_that_has_the_root() -> Result<()> {
    let (server, down) = (vault::start().await?, nobody().await?);
    let mut client = client(&[&down, &server.url()])?;
    let found = client.absent().await?;
    ensure!(found.address == server.url());
    let (reason, sentence) = held(&client, &found).await.context("a Vault that is away was passed over")?;
    ensure!(reason == Reason::VaultAmbiguous && sentence.contains(&format!("--vault-gone {down}")), "{sentence}");

    // Unless somebody says that it is gone for good.
    let gone = |settings: &mut Settings| settings.gone = vec![settings.addresses[0].clone()];
    let mut client = client_but(&[&down, &server.url()], gone)?;
    let found = client.absent().await?;
    ensure!(held(&client, &found).await.is_none());

    // A single one has nothing to be compared with.
    let mut alone = vault::client(&[&server.url()])?;
    let found = alone.absent().await?;
    server.always(HEALTH, Answer::hang_up());
    ensure!(held(&alone, &found).await.is_none());
    Ok(())
}
