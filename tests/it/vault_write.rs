//! The `cas=0` write: how it may end, and that it is sent once, to one address.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::reason::Reason;
use istio_ca_gate::store::Created;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::vault::{self, LOGIN, WRITE, client, client_but, errors, pair, token};
use standin::scripted::{Answer, StandIn};

const CAPABILITIES: &str = "POST /v1/sys/capabilities-self";

#[tokio::test]
async fn a_write_is_a_check_and_set_of_zero_with_the_record_verbatim() -> Result<()> {
    let known = vault::known().await?;
    let server = StandIn::before(known.embedded()).await?;
    let mut client = client(&[&server.url()])?;
    let record = Authority::new("Istio Root CA")?.record();
    let found = client.absent().await?;
    ensure!(client.vault.create(&found, record.clone()).await == Created::Applied);
    let writes = server.of(WRITE);
    ensure!(writes.len() == 1 && writes[0].json() == json!({ "data": record, "options": { "cas": 0 } }));
    ensure!(writes[0].token() == token(&server, 1)? && server.count(LOGIN) == 1);
    // It is there now, and a second one is lost, even with the right to write over it.
    let now = client.read().await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(matches!(now.stored, Stored::Sound { version: 1, .. }), "{now:?}");
    let root = vault::given(known.root_token())?;
    let mut administrator = client_but(&[&server.url()], |settings| settings.token = Some(root))?;
    ensure!(administrator.vault.create(&found, record).await == Created::Lost && server.count(WRITE) == 2);
    ensure!(known.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test]
async fn each_end_of_a_write_is_told_apart_and_none_is_sent_twice() -> Result<()> {
    #[derive(Debug, PartialEq)]
    enum End {
        Applied,
        Lost,
        Forbidden,
        Unclear(Reason),
    }
    let applied = || Answer::json(200, &json!({ "data": { "version": 1 } }));
    let unreachable = || End::Unclear(Reason::VaultUnreachable);
    for (answer, end) in [
        (applied(), End::Applied),
        (Answer::json(204, &Value::Null), End::Applied),
        (errors(400, &["check-and-set parameter did not match the current version"]), End::Lost),
        (errors(403, &["1 error occurred:\n\t* permission denied\n\n"]), End::Forbidden),
        (errors(400, &["missing client token"]), unreachable()),
        (errors(404, &[]), unreachable()),
        (errors(500, &["no space left on device"]), unreachable()),
        (Answer::html(502), unreachable()),
        (Answer::html(503), unreachable()),
        (errors(503, &["Vault is sealed"]), End::Unclear(Reason::VaultSealed)),
        (errors(429, &["rate limit quota exceeded"]), End::Unclear(Reason::VaultRateLimited)),
        (Answer::html(307).header("location", "/v1/secret/data/istio/ca"), unreachable()),
        (Answer::hang_up(), unreachable()),
        (applied().reset(0), unreachable()),
        (applied().cut(20), unreachable()),
        (applied().cut(applied().size() - 1), unreachable()),
        (Answer::silence(), unreachable()),
    ] {
        let server = vault::start().await?;
        let hurried = |settings: &mut istio_ca_gate::vault::Settings| settings.timeout = Duration::from_secs(2);
        let mut client = client_but(&[&server.url()], hurried)?;
        let found = client.absent().await?;
        server.always(WRITE, answer.clone());
        server.always(CAPABILITIES, errors(403, &["permission denied"]));
        let written = client.vault.create(&found, Authority::new("Istio Root CA")?.record()).await;
        let ended = match &written {
            Created::Applied => End::Applied,
            Created::Lost => End::Lost,
            Created::Forbidden(held) => {
                ensure!(held.reason == Reason::VaultPermissionDenied, "{held:?}");
                ensure!(held.sentence().contains("`create` and `read` on secret/data/istio/ca"), "{held:?}");
                End::Forbidden
            }
            Created::Unclear(refused) => End::Unclear(refused.held.reason),
        };
        ensure!(ended == end, "{answer:?}: {written:?}");
        // On a connection that was used before, a library may try again by itself.
        ensure!(server.count(WRITE) == 1, "{answer:?}: sent {} times", server.count(WRITE));
    }
    Ok(())
}

#[tokio::test]
async fn a_write_goes_only_where_the_absence_was_read() -> Result<()> {
    let [first, second] = vault::start_two().await?;
    let mut client = client(&[&first.url(), &second.url()])?;
    first.once(vault::READ, Answer::html(500));
    let found = client.absent().await?;
    ensure!(found.address == second.url());
    // Even if that address fails now and the other one would take it.
    second.always(WRITE, Answer::html(500));
    let written = client.vault.create(&found, serde_json::Map::new()).await;
    ensure!(matches!(written, Created::Unclear(_)), "{written:?}");
    ensure!(second.count(WRITE) == 1 && first.count(WRITE) == 0);
    Ok(())
}

#[tokio::test]
async fn a_denial_of_what_the_policy_has_names_the_metadata_that_stands() -> Result<()> {
    let (server, mut client) = pair().await?;
    let found = client.absent().await?;
    server.always(WRITE, errors(403, &["1 error occurred:\n\t* permission denied\n\n"]));
    let rights = json!({ "data": { "secret/data/istio/ca": ["create", "read"] } });
    server.always(CAPABILITIES, Answer::json(200, &rights));
    let Created::Forbidden(held) = client.vault.create(&found, serde_json::Map::new()).await else {
        anyhow::bail!("not forbidden")
    };
    ensure!(
        held.sentence().contains("metadata stands there") && !held.sentence().contains("give its policy"),
        "{held:?}"
    );
    Ok(())
}
