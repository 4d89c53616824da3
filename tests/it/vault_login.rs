//! Logins: as few as needed, anew in time, and refusals that say what to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::reason::Reason;
use serde_json::json;
use testbed::eventually;

use crate::vault::{
    self, GIVE_UP, HEALTH, JWT, LOGIN, LOOKUP, NEXT_JWT, PREFLIGHT, READ, WRITE, asked, client_but, errors, granted,
    pair, token, token_of,
};
use standin::scripted::{Answer, StandIn};

#[tokio::test]
async fn one_login_serves_many_reads() -> Result<()> {
    let (server, mut client) = pair().await?;
    for _ in 0..20 {
        client.absent().await?;
    }
    ensure!(server.count(LOGIN) == 1 && server.count(READ) == 20);
    let token = token(&server, 1)?;
    ensure!(server.of(READ).iter().all(|read| read.token() == token));
    Ok(())
}

#[tokio::test]
async fn a_new_login_is_due_after_two_thirds_of_the_lease() -> Result<()> {
    let vault = vault::known().await?;
    vault::grant(&vault, "istio-ca-bootstrap", json!({ "token_ttl": "3s" })).await?;
    let server = StandIn::before(vault.embedded()).await?;
    let client = vault::client(&[&server.url()])?;
    let began = Instant::now();
    let client = tokio::sync::Mutex::new(client);
    eventually("a second login", Duration::from_secs(10), || async {
        client.lock().await.absent().await?;
        ensure!(server.count(LOGIN) == 2, "{} logins", server.count(LOGIN));
        Ok(())
    })
    .await?;
    let after = began.elapsed();
    ensure!(after >= Duration::from_secs(2), "{after:?}");
    // It may have come between a read and its preflight.
    client.lock().await.absent().await?;
    let reads = server.of(READ);
    let (last, before) = reads.split_last().context("no reads")?;
    let (first, second) = (token(&server, 1)?, token(&server, 2)?);
    ensure!(first != second && last.token() == second);
    ensure!(before.len() > 1 && before[..before.len() - 1].iter().all(|read| read.token() == first));
    Ok(())
}

#[tokio::test]
async fn a_lease_of_zero_is_a_token_without_end() -> Result<()> {
    kept(0).await
}

#[tokio::test]
async fn a_lease_of_any_length_is_kept() -> Result<()> {
    kept(u64::MAX).await
}

async fn kept(lease: u64) -> Result<()> {
    let vault = vault::known().await?;
    let server = StandIn::before(vault.embedded()).await?;
    let mut client = vault::client(&[&server.url()])?;
    server.once(LOGIN, granted(&token_of(&vault, &["istio-ca-bootstrap"]).await?, lease));
    client.absent().await?;
    client.absent().await?;
    ensure!(server.count(LOGIN) == 1);
    Ok(())
}

/// A Vault, and a client with a token that was made for it.
async fn with_token() -> Result<(StandIn, vault::Client, String)> {
    let vault = vault::known().await?;
    let token = token_of(&vault, &["istio-ca-bootstrap"]).await?;
    let server = StandIn::before(vault.embedded()).await?;
    let given = vault::given(&token)?;
    let client = client_but(&[&server.url()], |settings| settings.token = Some(given))?;
    Ok((server, client, token))
}

#[tokio::test]
async fn the_end_of_a_given_token_is_told_and_asked_for_once_in_many_reads() -> Result<()> {
    let (server, mut client, _) = with_token().await?;
    let end = "2026-12-30T07:13:21.123456789Z";
    server.once(LOOKUP, Answer::json(200, &json!({ "data": { "expire_time": end, "ttl": 3600 } })));
    for _ in 0..3 {
        let found = client.absent().await?;
        ensure!(found.token_end.map(|end| end.to_string()).as_deref() == Some(end), "{:?}", found.token_end);
    }
    ensure!(server.count(LOOKUP) == 1);
    Ok(())
}

#[tokio::test]
async fn a_given_token_without_an_end_or_without_the_right_to_know_it_tells_none() -> Result<()> {
    for answer in [
        Answer::json(200, &json!({ "data": { "expire_time": null, "ttl": 0 } })),
        errors(403, &["permission denied"]),
        errors(503, &["Vault is sealed"]),
    ] {
        let (server, mut client, _) = with_token().await?;
        server.always(LOOKUP, answer);
        ensure!(client.absent().await?.token_end.is_none());
        ensure!(server.count(LOOKUP) == 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_given_token_is_used_in_place_of_a_login() -> Result<()> {
    let (server, mut client, token) = with_token().await?;
    std::fs::remove_file(&client.jwt_file)?;
    client.absent().await?;
    server.always(READ, errors(403, &["permission denied"]));
    ensure!(client.refused().await?.0 == Reason::VaultPermissionDenied);
    // Another login would give no other token: it is not tried.
    ensure!(asked(&server) == [READ, PREFLIGHT, LOOKUP, READ]);
    for request in server.seen() {
        ensure!(request.token() == if request.line() == HEALTH { "" } else { &*token }, "{}", request.line());
    }
    Ok(())
}

#[tokio::test]
async fn a_replaced_jwt_file_is_read_at_the_next_login() -> Result<()> {
    let (server, mut client) = pair().await?;
    client.absent().await?;
    std::fs::write(&client.jwt_file, format!("  {NEXT_JWT}\n\n"))?;
    client.absent().await?;
    server.once(READ, errors(403, &["permission denied"]));
    client.absent().await?;
    let jwts: Vec<_> = server.of(LOGIN).iter().map(|login| login.json()["jwt"].clone()).collect();
    ensure!(jwts == [JWT, NEXT_JWT], "{jwts:?}");
    let token = token(&server, 2)?;
    ensure!(server.of(READ).last().is_some_and(|read| read.token() == token));
    Ok(())
}

#[tokio::test]
async fn the_first_jwt_file_that_exists_is_taken() -> Result<()> {
    let server = vault::start().await?;
    let mut client = client_but(&[&server.url()], |settings| {
        settings.jwt_files.insert(0, "/nowhere/token".into());
    })?;
    client.absent().await?;
    ensure!(server.of(LOGIN)[0].json()["jwt"] == JWT);
    Ok(())
}

#[tokio::test]
async fn a_jwt_file_that_cannot_be_used_is_named_and_nothing_is_sent() -> Result<()> {
    let (server, mut client) = pair().await?;
    let file = client.jwt_file.clone();
    let write = |bytes: &[u8]| std::fs::write(&file, bytes);
    let mut refused = async |says: &str| {
        let (reason, sentence) = client.refused().await?;
        ensure!(reason == Reason::VaultLoginDenied, "{reason}: {sentence}");
        ensure!(sentence.contains(&file.display().to_string()) && sentence.contains(says), "{sentence}");
        ensure!(sentence.contains("--vault-jwt-file"), "{sentence}");
        anyhow::Ok(())
    };
    std::fs::remove_file(&file)?;
    refused("No such file").await?;
    write(b"")?;
    refused("it is empty").await?;
    write(b" \n")?;
    refused("it is empty").await?;
    write(&[b'x'; 128 << 10])?;
    refused("too large").await?;
    write(b"\xff\xfe")?;
    refused("UTF-8").await?;
    ensure!(asked(&server).is_empty());
    write(JWT.as_bytes())?;
    client.absent().await?;
    Ok(())
}

#[tokio::test]
async fn each_refused_login_says_what_to_do_next() -> Result<()> {
    use Reason::{VaultLoginDenied, VaultRateLimited, VaultSealed, VaultUnreachable};
    let role = "create role istio-ca-bootstrap at auth/kubernetes, or set --vault-role";
    let bound = "compare role istio-ca-bootstrap at auth/kubernetes with this pod's service account";
    for (answer, reason, next) in [
        (errors(400, &["invalid role name \"istio-ca-bootstrap\""]), VaultLoginDenied, role),
        (errors(400, &["role \"istio-ca-bootstrap\" could not be found"]), VaultLoginDenied, role),
        (errors(403, &["permission denied"]), VaultLoginDenied, "see --vault-auth-mount"),
        (errors(403, &["service account name not authorized"]), VaultLoginDenied, bound),
        (errors(403, &["namespace not authorized"]), VaultLoginDenied, bound),
        (
            errors(403, &["invalid audience (aud) claim: audience claim does not match any expected audience"]),
            VaultLoginDenied,
            bound,
        ),
        (
            errors(404, &["no handler for route \"auth/kubernetes/login\""]),
            VaultLoginDenied,
            "enable an auth method at auth/kubernetes",
        ),
        (errors(500, &["could not load configuration"]), VaultUnreachable, "status 500"),
        (errors(503, &["Vault is sealed"]), VaultSealed, "unseal it"),
        (errors(429, &["rate limit quota exceeded"]), VaultRateLimited, "rate limit quota"),
        (Answer::html(403), VaultLoginDenied, "status 403"),
        (Answer::json(200, &json!({})), VaultLoginDenied, "no token that can be used"),
        (Answer::json(200, &json!({ "auth": null })), VaultLoginDenied, "no token that can be used"),
        (granted("", 1), VaultLoginDenied, "no token that can be used"),
        (granted("with\r\nline: break", 1), VaultLoginDenied, "no token that can be used"),
    ] {
        let (server, mut client) = pair().await?;
        server.always(LOGIN, answer.clone());
        let (said, sentence) = client.refused().await?;
        ensure!(said == reason && sentence.contains(next), "{answer:?}: {said}: {sentence}");
        ensure!(asked(&server) == [LOGIN]);
    }
    Ok(())
}

#[tokio::test]
async fn the_namespace_goes_with_every_request_but_health() -> Result<()> {
    let server = vault::start().await?;
    let addresses = [&*server.url(), &*server.url()];
    let mut client = client_but(&addresses, |settings| settings.namespace = Some("team/mesh".to_owned()))?;
    let found = client.absent().await?;
    ensure!(client.vault.is_one(&found).await.is_ok());
    client.vault.create(&found, serde_json::Map::new()).await;
    ensure!(asked(&server) == [LOGIN, READ, PREFLIGHT, WRITE] && server.count(HEALTH) == 4);
    for request in server.seen() {
        let namespace = request.header("x-vault-namespace");
        ensure!(namespace == (request.line() != HEALTH).then_some("team/mesh"), "{}", request.line());
    }
    let health = &server.of(HEALTH)[0];
    ensure!(health.token().is_empty());
    Ok(())
}

/// Reads until it succeeds, as an attempt after the other does. How many were refused.
async fn refusals_until_read(client: &mut vault::Client) -> Result<usize> {
    for refusals in 0..20 {
        if client.read().await.is_ok() {
            return Ok(refusals);
        }
        // The longest back-off.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("it is refused for ever")
}

#[tokio::test]
async fn a_token_that_had_worked_is_replaced_soon_however_often_it_is_revoked() -> Result<()> {
    let vault = vault::known().await?;
    let server = StandIn::before(vault.embedded()).await?;
    let mut client = vault::client(&[&server.url()])?;
    client.absent().await?;
    for revoked in 1..=3 {
        vault.api_with(Some(&token(&server, revoked)?), "POST", "auth/token/revoke-self", None).await?;
        let refusals = refusals_until_read(&mut client).await?;
        ensure!(refusals <= 3, "the token after revocation {revoked} took {refusals} refusals");
    }
    // What Vault does not know need not be given up.
    ensure!(server.count(LOGIN) == 4 && server.count(GIVE_UP) == 0, "{:?}", asked(&server));
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_refused_is_given_up_and_then_replaced_soon() -> Result<()> {
    let vault = vault::known().await?;
    let server = StandIn::before(vault.embedded()).await?;
    let mut client = vault::client(&[&server.url()])?;
    // The role lacks its policy, and gets it after three logins.
    for _ in 1..=3 {
        server.once(LOGIN, granted(&token_of(&vault, &["default"]).await?, 3600));
    }
    let refusals = refusals_until_read(&mut client).await?;
    ensure!(refusals <= 8, "{refusals}");
    ensure!(server.count(LOGIN) == 4 && server.count(GIVE_UP) == 3, "{:?}", asked(&server));
    Ok(())
}
