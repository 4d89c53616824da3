//! What a read of the record may tell, and what it may not be taken for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::vault::{
    self, GIVE_UP, JWT, LOGIN, PREFLIGHT, READ, asked, errors, mount, never_written, pair, token, version,
};
use standin::scripted::Answer;

#[tokio::test]
async fn never_written_on_kv_version_2_is_absent() -> Result<()> {
    let (server, mut client) = pair().await?;
    client.absent().await?;
    ensure!(asked(&server) == [LOGIN, READ, PREFLIGHT]);
    let login = &server.of(LOGIN)[0];
    ensure!(login.json() == json!({ "role": "istio-ca-bootstrap", "jwt": JWT }));
    ensure!(login.token().is_empty());
    let token = token(&server, 1)?;
    for line in [READ, PREFLIGHT] {
        let request = &server.of(line)[0];
        ensure!(request.token() == token && request.header("x-vault-request") == Some("true"));
        ensure!(request.header("x-vault-namespace").is_none());
    }
    Ok(())
}

#[tokio::test]
async fn never_written_is_absent_on_nothing_but_a_positive_kv_version_2() -> Result<()> {
    use Reason::{VaultMountInvalid, VaultPermissionDenied, VaultSealed, VaultUnreachable};
    let data = |data: Value| Answer::json(200, &json!({ "data": data }));
    for (preflight, reason, says) in [
        (mount("kv", json!({ "version": "1" })), VaultMountInvalid, "KV version 1"),
        (mount("kv", json!(null)), VaultMountInvalid, "KV version 1"),
        (mount("kv", json!({})), VaultMountInvalid, "KV version 1"),
        (mount("kv", json!({ "version": 2 })), VaultMountInvalid, "KV version 1"),
        (mount("cubbyhole", json!({ "version": "2" })), VaultMountInvalid, "type cubbyhole"),
        (data(json!({})), VaultMountInvalid, "does not tell its type"),
        (errors(403, &["preflight capability check returned 403"]), VaultPermissionDenied, "what is mounted at secret"),
        (errors(404, &[]), VaultUnreachable, "status 404"),
        (Answer::html(500), VaultUnreachable, "status 500"),
        (errors(503, &["Vault is sealed"]), VaultSealed, "unseal it"),
        (Answer::html(302).header("location", "/v1/sys/health"), VaultUnreachable, "redirect"),
        (Answer::hang_up(), VaultUnreachable, ""),
    ] {
        let (server, mut client) = pair().await?;
        server.always(PREFLIGHT, preflight);
        let refused = client.refused().await?;
        ensure!(refused.0 == reason && refused.1.contains(says), "{refused:?}");
        ensure!(server.count(PREFLIGHT) == 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_404_that_is_not_vaults_never_written_is_never_absent() -> Result<()> {
    use Reason::{VaultMountInvalid, VaultUnreachable};
    let json = |body: Value| Answer::json(404, &body);
    for (answer, reason) in [
        (Answer::html(404), VaultUnreachable),
        (Answer::new(404, "application/json", ""), VaultUnreachable),
        (json(json!({})), VaultUnreachable),
        (json(json!([])), VaultUnreachable),
        (json(json!(null)), VaultUnreachable),
        (json(json!({ "errors": null })), VaultUnreachable),
        (json(json!({ "errors": {} })), VaultUnreachable),
        (json(json!({ "errors": [null] })), VaultUnreachable),
        (json(json!({ "data": null })), VaultUnreachable),
        (json(json!({ "data": { "metadata": {} } })), VaultUnreachable),
        (errors(404, &["path is not supported"]), VaultUnreachable),
        (errors(404, &["no handler for route \"secret/data/istio/ca\". route entry not found."]), VaultMountInvalid),
    ] {
        let (server, mut client) = pair().await?;
        server.always(READ, answer.clone());
        let refused = client.refused().await?;
        ensure!(refused.0 == reason, "{answer:?}: {refused:?}");
        ensure!(server.count(READ) == 1 && server.count(PREFLIGHT) == 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_is_gone_is_deleted_and_not_absent() -> Result<()> {
    let gone = |metadata: Value| json!({ "data": { "data": null, "metadata": metadata } });
    let deleted = gone(json!({ "version": 3, "deletion_time": "2026-11-24T10:00:00Z", "destroyed": false }));
    let destroyed = gone(json!({ "version": 3, "deletion_time": "", "destroyed": true }));
    for answer in [Answer::json(404, &deleted), Answer::json(404, &destroyed), Answer::json(200, &deleted)] {
        let (server, mut client) = pair().await?;
        server.always(READ, answer);
        let found = client.read().await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        ensure!(matches!(found.stored, Stored::Deleted { version: 3 }), "{found:?}");
        ensure!(asked(&server) == [LOGIN, READ]);
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_read_is_not_absent_and_costs_a_kept_token_one_login() -> Result<()> {
    let (server, mut client) = pair().await?;
    server.always(READ, errors(403, &["permission denied"]));
    server.always(GIVE_UP, errors(403, &["permission denied"]));
    let (reason, sentence) = client.refused().await?;
    ensure!(reason == Reason::VaultPermissionDenied);
    ensure!(sentence.contains("role istio-ca-bootstrap") && sentence.contains("`read` on secret/data/istio/ca"));
    // The token was new: another one would be refused as well.
    ensure!(asked(&server) == [LOGIN, READ]);

    client.refused().await?;
    ensure!(asked(&server) == [LOGIN, READ, READ, GIVE_UP, LOGIN, READ]);
    ensure!(server.of(READ)[2].token() == token(&server, 2)?);

    // Each login is a lease in Vault, and this one does not let a token be given up: there are not more and more of them.
    for _ in 0..10 {
        client.refused().await?;
    }
    ensure!(server.count(LOGIN) == 2, "{} logins", server.count(LOGIN));
    Ok(())
}

#[tokio::test]
async fn each_status_has_its_code() -> Result<()> {
    use Reason::{VaultMountInvalid, VaultRateLimited, VaultSealed, VaultUnreachable};
    let rate_limited = || errors(429, &["request path \"secret/data/istio/ca\": rate limit quota exceeded"]);
    for (answer, reason, retry_after) in [
        (rate_limited().header("retry-after", "7"), VaultRateLimited, Some(Duration::from_secs(7))),
        (rate_limited(), VaultRateLimited, None),
        (rate_limited().header("retry-after", "soon"), VaultRateLimited, None),
        (Answer::html(429).header("retry-after", "-1"), VaultRateLimited, None),
        (Answer::html(500), VaultUnreachable, None),
        (errors(500, &["internal error"]), VaultUnreachable, None),
        (Answer::html(502), VaultUnreachable, None),
        (Answer::html(503), VaultUnreachable, None),
        (Answer::html(504), VaultUnreachable, None),
        (errors(503, &["Vault is sealed"]), VaultSealed, None),
        (errors(501, &["Vault is not initialized"]), VaultSealed, None),
        (
            errors(400, &["Upgrading from non-versioned to versioned data. This backend will be unavailable"]),
            VaultMountInvalid,
            None,
        ),
        (errors(400, &["bad request"]), VaultUnreachable, None),
        (errors(412, &["required index state not present"]), VaultUnreachable, None),
        (Answer::html(301).header("location", "/ui"), VaultUnreachable, None),
        // Without metadata it is not version 2's.
        (Answer::json(200, &json!({ "data": { "key.pem": "x" } })), VaultMountInvalid, None),
    ] {
        let (server, mut client) = pair().await?;
        server.always(READ, answer.clone());
        let refused = client.read().await.err().context("it was read")?;
        ensure!(refused.held.reason == reason && refused.retry_after == retry_after, "{answer:?}: {refused:?}");
        ensure!(asked(&server) == [LOGIN, READ]);
    }
    Ok(())
}

#[tokio::test]
async fn a_200_that_is_not_vaults_is_an_outage_and_not_a_verdict_on_the_mount() -> Result<()> {
    for answer in [Answer::html(200), Answer::new(200, "application/json", "{\"data\":{\"da"), Answer::new(204, "", "")]
    {
        let (server, mut client) = pair().await?;
        server.always(READ, answer.clone());
        let refused = client.refused().await?;
        ensure!(refused.0 == Reason::VaultUnreachable, "{answer:?}: {refused:?}");
        ensure!(server.count(READ) == 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_without_end_is_not_heeded_to_the_end() -> Result<()> {
    let (server, mut client) = pair().await?;
    let for_ever = u64::MAX.to_string();
    server.always(READ, Answer::html(429).header("retry-after", &for_ever));
    let refused = client.read().await.err().context("it was read")?;
    let wait = refused.retry_after.context("it is not heeded at all")?;
    ensure!(tokio::time::Instant::now().checked_add(wait).is_some() && wait <= Duration::from_secs(3600), "{wait:?}");
    ensure!(server.count(READ) == 1);
    Ok(())
}

#[tokio::test]
async fn a_record_is_taken_with_its_version_and_without_its_extra_keys() -> Result<()> {
    let authority = Authority::new("Istio Root CA")?;
    let (server, mut client) = pair().await?;
    let mut record = authority.record();
    record.insert("note".to_owned(), json!({ "by": ["an operator", 1, null] }));
    server.always(READ, version(7, &record));
    let found = client.read().await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    let Stored::Sound { version: 7, sound } = &found.stored else { anyhow::bail!("{found:?}") };
    ensure!(sound.bundle.root_cert == authority.pem().as_bytes() && sound.bundle.ca_cert == sound.bundle.root_cert);
    ensure!(sound.bundle.ca_key.expose() == authority.key_pem().as_bytes());
    ensure!(found.address == server.url());
    ensure!(asked(&server) == [LOGIN, READ]);
    Ok(())
}

#[tokio::test]
async fn a_record_that_is_not_sound_is_neither_absent_nor_sound() -> Result<()> {
    let mib = "x".repeat(1 << 20);
    for (change, flaw) in [
        (json!({ "key.pem": null }), "key.pem is not a string"),
        (json!({ "key.pem": 4711 }), "key.pem is not a string"),
        (json!({ "root-cert.pem": ["x"] }), "root-cert.pem is not a string"),
        (json!({ "root-cert.pem": "" }), "root-cert.pem is empty"),
        (json!({ "cert-chain.pem": "garbage" }), "cert-chain.pem is text without a PEM block"),
        (json!({ "ca-cert.pem": "x" }), "ca-cert.pem is there without ca-key.pem"),
        (json!({ "root-cert.pem": mib }), "together have more than"),
        (json!({ "key.pem": mib }), "private key's file has more than"),
        (json!({ "key.pem": Authority::new("Other")?.key_pem() }), "not that of the signing CA"),
    ] {
        let (server, mut client) = pair().await?;
        let mut record = Authority::new("Istio Root CA")?.record();
        record.extend(change.as_object().cloned().unwrap_or_default());
        server.always(READ, version(1, &record));
        let found = client.read().await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        let Stored::Unsound { version: 1, flaw: found } = found.stored else { anyhow::bail!("{found:?}") };
        ensure!(found.to_string().contains(flaw), "{found}");
    }
    for wrong in [json!({}), json!({ "ca.crt": "x", "ca.key": "y" })] {
        let (server, mut client) = pair().await?;
        server.always(READ, version(1, wrong.as_object().context("an object")?));
        let found = client.read().await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        ensure!(matches!(&found.stored, Stored::Unsound { .. }), "{found:?}");
        ensure!(server.count(PREFLIGHT) == 0);
    }
    Ok(())
}

#[tokio::test]
async fn no_cut_of_an_answer_is_absent_or_sound() -> Result<()> {
    let record = version(1, &Authority::new("Istio Root CA")?.record());
    let slow = |settings: &mut istio_ca_gate::vault::Settings| settings.timeout = Duration::from_secs(10);
    let server = vault::start().await?;
    let mut client = vault::client_but(&[&server.url()], slow)?;
    let mut cuts = 0;
    for (answer, framed) in [
        (never_written(), true),
        (record.clone(), true),
        (never_written().until_close(), false),
        (record.until_close(), false),
    ] {
        // All of the short ones; of the long ones every so many bytes, and the last ones.
        let size = answer.size();
        for at in (0..size).filter(|at| size < 200 || at % 97 == 0 || size - at < 4) {
            let answer = if cuts % 3 == 0 { answer.clone().reset(at) } else { answer.clone().cut(at) };
            server.once(READ, answer);
            cuts += 1;
            let read = client.read().await;
            ensure!(server.count(READ) == cuts, "the fault did not hit, or the read was repeated");
            let refused = read.err().with_context(|| format!("cut at {at} of {size} it was taken for an answer"))?;
            ensure!(refused.held.reason.is_outage() || !framed, "cut at {at} of {size}: {refused:?}");
        }
    }
    ensure!(cuts > 150, "{cuts}");
    client.absent().await?;
    Ok(())
}
