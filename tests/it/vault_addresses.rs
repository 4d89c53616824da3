//! Several addresses of one Vault: which is asked, and when the next one is.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use istio_ca_gate::reason::Reason;
use istio_ca_gate::vault::Settings;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::vault::{self, Client, HEALTH, LOGIN, READ, client, client_but, errors, health};
use standin::scripted::{Answer, StandIn};

async fn three() -> Result<([StandIn; 2], Client)> {
    let servers = [vault::start().await?, vault::start().await?];
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
    ensure!(second.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_last_good_one_is_asked_first() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    first.once(READ, Answer::html(502));
    ensure!(client.absent().await?.address == second.url());
    ensure!(client.absent().await?.address == second.url());
    ensure!(first.count(READ) == 1 && second.count(READ) == 2);
    // One login: the token is good at all addresses of one Vault.
    ensure!(first.count(LOGIN) == 1 && second.count(LOGIN) == 0);
    second.once(READ, Answer::html(502));
    ensure!(client.absent().await?.address == first.url());
    ensure!(second.count(READ) == 3 && first.count(READ) == 2);
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
            let servers = [vault::start().await?, vault::start().await?];
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
            ensure!(second.seen().is_empty(), "{line} {answer:?}: the next saw {:?}", second.lines());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_jwt_that_cannot_be_read_is_sent_to_none() -> Result<()> {
    let ([first, second], mut client) = three().await?;
    std::fs::remove_file(&client.jwt_file)?;
    ensure!(client.refused().await?.0 == Reason::VaultLoginDenied);
    ensure!(first.seen().is_empty() && second.seen().is_empty());
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

#[tokio::test]
async fn addresses_with_one_cluster_id_are_one_vault_and_others_are_not() -> Result<()> {
    let held = async |client: &Client| {
        client.vault.is_one().await.err().map(|refused| (refused.held.reason, refused.held.sentence))
    };
    let ([first, second], client) = three().await?;
    ensure!(held(&client).await.is_none());

    second.always(HEALTH, health(json!("two")));
    let (reason, sentence) = held(&client).await.ok_or_else(|| anyhow!("two Vaults were taken for one"))?;
    ensure!(reason == Reason::VaultAmbiguous, "{reason}");
    ensure!(sentence.contains(&first.url()) && sentence.contains(&second.url()), "{sentence}");

    // Any status may carry the id: a standby answers 429.
    let standby = |id: &str| Answer::json(429, &json!({ "sealed": false, "standby": true, "cluster_id": id }));
    second.always(HEALTH, standby("two"));
    ensure!(held(&client).await.is_some_and(|(reason, _)| reason == Reason::VaultAmbiguous));
    second.always(HEALTH, standby("one"));
    ensure!(held(&client).await.is_none());

    // One that is there and cannot tell may be another.
    for (status, initialized) in [(503, true), (501, false)] {
        let silent = json!({ "initialized": initialized, "sealed": true, "standby": true });
        second.always(HEALTH, Answer::json(status, &silent));
        let (reason, sentence) = held(&client).await.ok_or_else(|| anyhow!("a sealed Vault was passed over"))?;
        ensure!(reason == Reason::VaultSealed && sentence.contains(&second.url()), "{reason}: {sentence}");
    }

    // One that is down has no part in it.
    second.always(HEALTH, Answer::hang_up());
    ensure!(held(&client).await.is_none());
    ensure!(second.count(HEALTH) == 7);

    // Where none tells its id, it is not known that they are one.
    for silent in [health(Value::Null), health(json!("")), Answer::html(200), Answer::json(503, &json!({}))] {
        first.always(HEALTH, silent);
        let (reason, sentence) = held(&client).await.ok_or_else(|| anyhow!("an unknown Vault was taken for one"))?;
        ensure!(reason == Reason::VaultUnreachable && sentence.contains("cluster_id"), "{reason}: {sentence}");
    }
    Ok(())
}

#[tokio::test]
async fn one_address_that_is_down_is_no_second_vault() -> Result<()> {
    let server = vault::start().await?;
    let mut two = client(&[&nobody().await?, &server.url()])?;
    ensure!(two.absent().await?.address == server.url());
    ensure!(two.vault.is_one().await.is_ok());
    ensure!(server.count(HEALTH) == 1);
    // But where the absence was read, it has to be known which Vault that is.
    server.always(HEALTH, Answer::hang_up());
    ensure!(two.vault.is_one().await.is_err());
    // A single one has nothing to be compared with.
    ensure!(client(&[&server.url()])?.vault.is_one().await.is_ok());
    Ok(())
}
