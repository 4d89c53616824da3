//! Connections to Vault that fail, and answers that are too large, too slow or from elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::reason::Reason;
use istio_ca_gate::vault::Settings;
use testbed::eventually;

use crate::certificates::Authority;
use crate::vault::{self, Client, LOGIN, PREFLIGHT, READ, asked, client, client_but, never_written, pair};
use standin::scripted::{Answer, StandIn};

const TIMEOUT: Duration = Duration::from_millis(600);

/// The timeout, a connect timeout, and what a busy machine adds.
const AT_MOST: Duration = Duration::from_secs(4);

fn hurried(settings: &mut Settings) {
    settings.timeout = TIMEOUT;
}

async fn unreachable(client: &mut Client) -> Result<String> {
    let (reason, sentence) = client.refused().await?;
    ensure!(reason == Reason::VaultUnreachable, "{reason}: {sentence}");
    Ok(sentence)
}

#[tokio::test]
async fn a_redirect_takes_no_token_to_a_foreign_server() -> Result<()> {
    let foreign = StandIn::start(|_| async { Answer::html(200) }).await?;
    for status in [301, 302, 303, 307, 308] {
        for line in [LOGIN, READ, PREFLIGHT] {
            let (server, mut client) = pair().await?;
            let location = format!("{}/v1/secret/data/istio/ca", foreign.url());
            server.always(line, Answer::new(status, "text/plain", "").header("location", &location));
            let sentence = unreachable(&mut client).await?;
            ensure!(sentence.contains("a redirect is not followed"), "{sentence}");
            ensure!(server.count(line) == 1);
        }
    }
    ensure!(foreign.seen().is_empty(), "{:?}", foreign.lines());
    Ok(())
}

#[tokio::test]
async fn an_answer_of_3_mib_is_not_read_to_its_end() -> Result<()> {
    let (server, mut client) = pair().await?;
    let large = Answer::new(404, "application/json", format!("{}{{\"errors\":[]}}", " ".repeat(3 << 20)));
    server.once(READ, large.clone());
    server.once(READ, large.until_close());
    for _ in 0..2 {
        let sentence = unreachable(&mut client).await?;
        ensure!(sentence.contains("its answer is larger than"), "{sentence}");
    }
    ensure!(server.count(READ) == 2 && server.count(PREFLIGHT) == 0);
    Ok(())
}

#[tokio::test]
async fn an_endless_answer_is_left_at_the_cap() -> Result<()> {
    let (server, mut client) = pair().await?;
    for line in [LOGIN, READ, PREFLIGHT] {
        server.once(line, Answer::new(200, "application/json", " ".repeat(64 << 10)).endless());
        let sentence = unreachable(&mut client).await?;
        ensure!(sentence.contains("its answer is larger than"), "{sentence}");
        ensure!(server.count(line) > 0);
    }
    client.absent().await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_slower_than_the_timeout_is_left_in_time() -> Result<()> {
    let slow = never_written().byte_by_byte(Duration::from_millis(100));
    for (answer, says) in [
        (slow.clone(), "its answer took too long"),
        (slow.until_close(), "its answer took too long"),
        (never_written().after(Duration::from_secs(60)), "its answer took too long"),
        (Answer::silence(), "its answer took too long"),
    ] {
        let server = vault::start().await?;
        let mut client = client_but(&[&server.url()], hurried)?;
        client.absent().await?;
        server.once(READ, answer.clone());
        let began = Instant::now();
        let sentence = unreachable(&mut client).await?;
        let took = began.elapsed();
        ensure!(sentence.contains(says), "{sentence}");
        ensure!(took >= TIMEOUT && took < AT_MOST, "{took:?}");
        ensure!(server.count(READ) == 2);
        client.absent().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_or_reset_connection_says_so_and_heals() -> Result<()> {
    let nobody = StandIn::start(|_| async { Answer::html(200) }).await?;
    let address = nobody.url();
    drop(nobody);
    let mut refused = client(&[&address])?;
    let sentence = eventually("the port to be closed", AT_MOST, || unreachable_at_once(&address)).await?;
    ensure!(sentence == unreachable(&mut refused).await?, "not constant: {sentence}");
    ensure!(sentence.contains(&address) && sentence.contains("Connection refused"), "{sentence}");

    let (server, mut client) = pair().await?;
    for answer in [never_written().reset(0), Answer::hang_up(), never_written().reset(60), never_written().cut(60)] {
        server.once(READ, answer);
        unreachable(&mut client).await?;
    }
    ensure!(server.count(READ) == 4);
    client.absent().await?;
    ensure!(server.count(LOGIN) == 1);
    Ok(())
}

async fn unreachable_at_once(address: &str) -> Result<String> {
    let sentence = unreachable(&mut client(&[address])?).await?;
    ensure!(sentence.contains("refused"), "{sentence}");
    Ok(sentence)
}

#[tokio::test]
async fn what_speaks_no_http_is_not_vault() -> Result<()> {
    let authority = Authority::new("CA of Vault")?;
    let tls = vault::start_tls(authority.server("127.0.0.1")?).await?;
    let plain = vault::start().await?;
    for address in [tls.url().replace("https", "http"), plain.url().replace("http", "https")] {
        let mut client = client_but(&[&address], hurried)?;
        unreachable(&mut client).await?;
    }
    ensure!(tls.seen().is_empty() && plain.count(LOGIN) == 0);
    Ok(())
}

/// A Vault with this certificate, and a client that trusts `ca`.
async fn over_tls(
    tls: std::sync::Arc<rustls::ServerConfig>,
    ca: &str,
) -> Result<(StandIn, Client, tempfile::NamedTempFile)> {
    let server = vault::start_tls(tls).await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), ca)?;
    let client = client_but(&[&server.url()], |settings| settings.ca_file = Some(file.path().to_owned()))?;
    Ok((server, client, file))
}

#[tokio::test]
async fn over_tls_it_reads_what_is_there() -> Result<()> {
    let authority = Authority::new("CA of Vault")?;
    let (server, mut client, _file) = over_tls(authority.server("127.0.0.1")?, authority.pem()).await?;
    client.absent().await?;
    ensure!(asked(&server) == [LOGIN, READ, PREFLIGHT]);
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_named_and_sees_no_token() -> Result<()> {
    let (authority, other) = (Authority::new("CA of Vault")?, Authority::new("Other")?);
    for (tls, says) in [
        (other.server("127.0.0.1")?, "UnknownIssuer"),
        (authority.server("vault.example")?, "name"),
        (authority.expired_server("127.0.0.1")?, "expired"),
    ] {
        let (server, mut client, _file) = over_tls(tls, authority.pem()).await?;
        let sentence = unreachable(&mut client).await?;
        ensure!(sentence.contains("certificate") && sentence.contains(says), "{sentence}");
        ensure!(sentence.contains(&server.url()) && server.seen().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_sentence_for_an_expired_certificate_is_the_same_at_any_time() -> Result<()> {
    let authority = Authority::new("CA of Vault")?;
    let (_server, mut client, _file) = over_tls(authority.expired_server("127.0.0.1")?, authority.pem()).await?;
    let first = unreachable(&mut client).await?;
    let began = k8s_openapi::jiff::Timestamp::now().as_second();
    eventually("the next second", AT_MOST, || async {
        (k8s_openapi::jiff::Timestamp::now().as_second() > began).then_some(())
    })
    .await?;
    let second = unreachable(&mut client).await?;
    ensure!(first == second, "{first}\n{second}");
    Ok(())
}

#[tokio::test]
async fn a_ca_replaced_on_disk_is_taken_up_and_a_broken_one_changes_nothing() -> Result<()> {
    let (old, new) = (Authority::new("CA of old")?, Authority::new("CA of new")?);
    let (server, mut client, file) = over_tls(new.server("127.0.0.1")?, old.pem()).await?;
    unreachable(&mut client).await?;
    std::fs::write(file.path(), new.pem())?;
    unreachable(&mut client).await?;
    ensure!(server.seen().is_empty());
    client.vault.reload_ca();
    client.absent().await?;

    for broken in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(file.path(), broken)?;
        client.vault.reload_ca();
        client.absent().await.with_context(|| format!("with {broken:?}"))?;
    }
    std::fs::remove_file(file.path())?;
    client.vault.reload_ca();
    client.absent().await?;
    Ok(())
}
