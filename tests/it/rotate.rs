//! `rotate` as a process, with the policy that comes with it, before a Vault in memory that has a PKI engine.

mod import;
mod rescue;

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use standin::faults::{Aim, Fault};
use standin::vault::Vault;

use crate::command::run;
use crate::rotations::{DAY, Mesh, is_replaced_step_by_step};

async fn mesh() -> Result<Mesh<Vault>> {
    Mesh::start(Vault::start().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_step_by_step_and_each_waits_for_every_cluster() -> Result<()> {
    is_replaced_step_by_step(&mesh().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leads_back_at_once_whoever_is_off() -> Result<()> {
    let mesh = mesh().await?;
    mesh.switched().await?;
    mesh.is_held(&["step"], "cluster homelab").await?;
    mesh.does(&["abort", "--yes"], "turned round").await?;
    mesh.does(&["step"], "return").await?;
    let back = mesh.record().await?;
    ensure!(back.issuer.as_ref().is_some_and(|issuer| issuer.as_str() == "root-1") && back.cross().is_none());
    mesh.a_day_passes().await?;
    mesh.does(&["step"], "drop").await?;
    ensure!(!mesh.usage("root-2").await?.contains("issuing-certificates"));
    mesh.all_settled(SignedDuration::ZERO).await?;
    mesh.does(&["step"], "done").await?;
    mesh.does(&["status"], "No rotation. Signers are under root-1.").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_of_a_drop_whose_write_was_lost_gives_the_old_root_its_right_back() -> Result<()> {
    let mesh = mesh().await?;
    mesh.switched().await?;
    mesh.a_day_passes().await?;
    let version = mesh.version().await?;
    let aim = Aim::all().path("secret/data/istio/ca").method(Method::POST).times(1);
    let lost = mesh.vault.faults().inject(Fault::RequestLost, aim);
    ensure!(mesh.rotate(&["step"]).await?.code == Some(1) && lost.hits() == 1);
    ensure!(mesh.version().await? == version && !mesh.usage("root-1").await?.contains("issuing-certificates"));
    mesh.does(&["abort", "--yes"], "turned round").await?;
    mesh.does(&["step"], "return").await?;
    ensure!(mesh.usage("root-1").await?.contains("issuing-certificates"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_found_done() -> Result<()> {
    let mesh = mesh().await?;
    mesh.does(&["start", "--yes"], "root-2 is the goal").await?;
    let version = mesh.version().await?;
    let aim = Aim::all().path("secret/data/istio/ca").method(Method::POST).times(1);
    let lost = mesh.vault.faults().inject(Fault::AnswerLost, aim);
    ensure!(mesh.rotate(&["step"]).await?.code == Some(1) && lost.hits() == 1);
    ensure!(mesh.version().await? == version + 1 && mesh.record().await?.roots().len() == 2);
    mesh.is_held(&["step"], "has not published what the record says").await?;
    ensure!(mesh.version().await? == version + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_who_take_a_step_at_once_one_writes() -> Result<()> {
    let mesh = mesh().await?;
    mesh.does(&["start", "--yes"], "root-2 is the goal").await?;
    let version = mesh.version().await?;
    let all = futures::future::try_join_all((0..4).map(|_| mesh.rotate(&["step"]))).await?;
    let took = all.iter().filter(|said| said.code == Some(0) && said.stdout.contains("trust")).count();
    ensure!(took == 1, "{all:?}");
    ensure!(mesh.version().await? == version + 1 && mesh.record().await?.roots().len() == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_rotation_rests_and_a_second_start_is_told_of_the_first() -> Result<()> {
    let mesh = mesh().await?;
    mesh.is_held(&["pause", "--yes"], "no root is being replaced").await?;
    mesh.does(&["start", "--yes"], "root-2 is the goal").await?;
    mesh.is_held(&["start", "--yes"], "has begun a rotation to root-2 already").await?;
    mesh.does(&["pause", "--yes"], "paused").await?;
    let version = mesh.version().await?;
    mesh.does(&["step"], "is paused").await?;
    ensure!(mesh.version().await? == version);
    mesh.does(&["resume", "--yes"], "resumed").await?;
    mesh.does(&["step"], "trust").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_cluster_that_is_gone_is_forgotten() -> Result<()> {
    let mesh = mesh().await?;
    mesh.does(&["start", "--yes"], "root-2 is the goal").await?;
    mesh.is_held(&["forget", "nas", "--yes"], "cluster nas attests").await?;
    mesh.is_held(&["forget", "attic", "--yes"], "nobody knows cluster attic").await?;
    // It was last heard of yesterday.
    let path = "secret/data/istio/clusters/nas";
    let mut old = mesh.vault.ok("GET", path, None).await?["data"]["data"].clone();
    old["at"] = json!((Timestamp::now() - DAY).to_string());
    mesh.vault.ok("POST", path, Some(json!({ "data": old }))).await?;
    mesh.is_held(&["step"], "cluster nas has not attested for 5 min").await?;
    mesh.does(&["forget", "nas", "--yes"], "Nobody waits for nas any more").await?;
    ensure!(mesh.data().await?["rotation"]["clusters"] == json!(["homelab"]));
    mesh.does(&["step"], "trust").await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_while_a_cluster_is_not_settled_or_its_certificates_live_longer() -> Result<()> {
    let mesh = mesh().await?;
    let path = "secret/data/istio/clusters/nas";
    let settled = mesh.vault.ok("GET", path, None).await?["data"]["data"].clone();
    for (key, value, says) in [
        ("settled", json!(null), "cluster nas does not work with what the record says yet"),
        ("ttlSeen", json!("48h"), "have certificates that live for 2days"),
        ("at", json!((Timestamp::now() - DAY).to_string()), "cluster nas has not attested"),
    ] {
        let mut other = settled.clone();
        other[key] = value;
        mesh.vault.ok("POST", path, Some(json!({ "data": other }))).await?;
        mesh.is_held(&["start", "--yes"], says).await?;
    }
    ensure!(mesh.version().await? == 1);
    let (_, issuers) = mesh.vault.api("LIST", "pki-mesh/issuers", None).await?;
    ensure!(issuers["data"]["keys"].as_array().map(Vec::len) == Some(1), "a root was made: {issuers}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_or_a_pki_mount_it_is_wrong_use() -> Result<()> {
    let mesh = mesh().await?;
    let said = mesh.rotate(&["start"]).await?;
    ensure!(said.code == Some(2) && said.stderr.contains("--yes (variable GATE_YES)"), "{said:?}");
    ensure!(said.stdout.contains("root-2 is made in Vault"), "the plan is shown first: {said:?}");
    run(&["rotate", "status"], &[("VAULT_ADDR", mesh.vault.address())]).await?.is_refused(&["--vault-pki-mount"])?;
    run(&["rotate", "rotate"], &[]).await?.is_refused(&["rotate"])
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_steps_and_the_roots_and_says_how_long_it_waits() -> Result<()> {
    let mesh = mesh().await?;
    mesh.switched().await?;
    let held = mesh.rotate(&["status"]).await?.stdout;
    ensure!(held.contains("Steps: trust done, switch done, drop next, done later"), "{held}");
    ensure!(held.contains("Next: drop, which is held:") && held.contains("cluster homelab"), "{held}");
    mesh.all_settled(SignedDuration::ZERO).await?;
    mesh.does(&["step"], "note").await?;
    let waits = mesh.rotate(&["status"]).await?.stdout;
    // A life of a day, and ten minutes for clocks.
    ensure!(waits.contains(", 24h ") && waits.contains(" from now: then drop"), "{waits}");
    let row = waits.lines().find(|line| line.starts_with("nas")).unwrap_or_default();
    ensure!(row.contains("root-1 root-2") || row.contains("root-2 root-1"), "{waits}");
    ensure!(!row.contains("ns") && row.ends_with('s'), "seconds are enough: {row:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_of_an_outage_and_sees_how_it_goes_on() -> Result<()> {
    let mesh = mesh().await?;
    let sealed = mesh.vault.faults().inject(Fault::RequestLost, Aim::all().path("secret/data/istio/ca").times(1));
    let folder = tempfile::tempdir()?;
    let watch = testbed::Program::new(env!("CARGO_BIN_EXE_istio-ca-gate"));
    let watch = watch.args(["rotate", "status", "--watch", "-o", "json"]);
    let watch = mesh.variables()?.into_iter().fold(watch, |watch, (name, value)| watch.env(name, value));
    let watch = watch.spawn(folder.path().join("log"))?;
    let goes_on = || async { watch.log().contains("\"state\":\"rest\"").then_some(()) };
    watch.until("a line after the outage", testbed::side::SOON * 2, goes_on).await?;
    let log = watch.log();
    ensure!(sealed.hits() == 1 && log.contains("istio-ca-gate: VaultUnreachable: "), "{log}");
    ensure!(
        log.lines()
            .any(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|it| it["issuer"] == "root-1"))
    );
    Ok(())
}
