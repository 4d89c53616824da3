//! The root is replaced over both clusters while all workloads shake hands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::record::SigningRecord;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::eventually;
use tokio::time::{Instant, sleep};

use super::killer::Killer;
use super::rig::{Beginning, Kind, LEAF, LIVES, LONG, Rig};
use crate::signers::files;

/// Longest time that a rotation may take here.
const WHOLE: Duration = Duration::from_secs(1200);

/// What a wait has beside the life of a certificate, for clocks that differ. All are by one clock here, so that it may
/// pass at once: the leaves' time does not.
const SKEW: SignedDuration = SignedDuration::from_secs(601);

/// Whoever takes the steps: between two.
const PAUSE: Duration = Duration::from_millis(500);

async fn mesh(istiods: usize) -> Result<Rig> {
    Rig::start(Beginning { kind: Kind::Signing, lives: LIVES, istiods }).await
}

async fn start(rig: &Rig) -> Result<()> {
    let ttl = format!("{}s", LEAF.as_secs());
    eventually("a rotation to start", LONG, || async {
        let (done, said) = rig.rotated(&["start", "--yes", "--ttl", &ttl]).await?;
        ensure!(done && said.contains("is the goal"), "{said}");
        Ok(())
    })
    .await
}

/// Takes one step, and says which, or why none is taken.
async fn step(rig: &Rig) -> Result<Result<String, String>> {
    let (done, said) = rig.rotated(&["step"]).await?;
    if !done {
        return Ok(Err(said));
    }
    let name = said.split(':').next().unwrap_or_default().to_owned();
    if said.starts_with("Nothing to do before") {
        leaves_end(rig).await?;
        return Ok(Ok("wait".to_owned()));
    }
    Ok(if said.contains("no root is being replaced") { Ok("rest".to_owned()) } else { Ok(name) })
}

/// Takes steps until this one is taken, and does at each what a person has to.
pub async fn carry(rig: &Rig, until: &str) -> Result<Vec<String>> {
    let (mut taken, deadline) = (Vec::new(), Instant::now() + WHOLE);
    let mut roots = rig.record().await?.root_cert;
    loop {
        let stepped = step(rig).await?;
        // Whoever has taken that step.
        let now = rig.record().await?.root_cert;
        if now != roots {
            roots = now;
            restarted(rig).await?;
        }
        match stepped {
            Ok(name) if name == "rest" => return Ok(taken),
            Ok(name) => {
                println!("    {} {name}", Timestamp::now());
                let is_last = name == until;
                taken.push(name);
                if is_last {
                    return Ok(taken);
                }
            }
            Err(held) => ensure!(Instant::now() < deadline, "held: {held}"),
        }
        sleep(PAUSE).await;
    }
}

/// The NAS's istiods, which have to be restarted for another bundle of roots.
async fn restarted(rig: &Rig) -> Result<()> {
    let record = rig.record().await?;
    let nas = rig.nas();
    eventually("the NAS to have the record's roots", LONG, || async {
        ensure!(files(&nas.side).await?.bundle.root_cert == record.root_cert.as_slice(), "not yet");
        Ok(())
    })
    .await?;
    nas.restart_istiods().await
}

/// Waits as long as certificates of before the note live, and has the rest of the wait pass.
async fn leaves_end(rig: &Rig) -> Result<()> {
    let record = rig.record().await?;
    let seen = record.under_way().context("no rotation")?.seen.clone();
    let last = seen.values().map(|sighting| sighting.at.max(sighting.settled)).max().context("nothing is noted")?;
    let ended = last + SignedDuration::try_from(LEAF)?;
    eventually("certificates of before to end", LONG, || async { (Timestamp::now() > ended).then_some(()) }).await?;
    for name in seen.keys() {
        let path = format!("secret/data/istio/clusters/{name}");
        rig.vault
            .change(&path, |data| {
                data["at"] = json!(Timestamp::now().to_string());
                earlier(&mut data["settled"])
            })
            .await?;
    }
    rig.vault
        .change("secret/data/istio/ca", |data| {
            let seen = data["rotation"]["seen"].as_object_mut().context("nothing is noted")?;
            seen.values_mut().try_for_each(|sighting| {
                earlier(&mut sighting["at"])?;
                earlier(&mut sighting["settled"])
            })
        })
        .await
}

fn earlier(time: &mut Value) -> Result<()> {
    let at: Timestamp = time.as_str().context("no time")?.parse()?;
    *time = json!((at - SKEW).to_string());
    Ok(())
}

/// The mesh is under this one root alone.
pub async fn ended(rig: &Rig, issuer: &str) -> Result<()> {
    let record: SigningRecord = rig.record().await?;
    ensure!(record.rotation.is_none() && record.roots().len() == 1 && record.cross().is_none(), "not at its end");
    ensure!(record.issuer.as_ref().is_some_and(|name| name.as_str() == issuer), "under {:?}", record.issuer);
    for member in &rig.members {
        let sound = files(&member.side).await?;
        ensure!(sound.roots() == record.roots() && BTreeSet::from([sound.root]) == *record.roots());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn the_root_is_replaced_over_both_clusters_and_no_handshake_fails() -> Result<()> {
    let rig = mesh(2).await?;
    let tally = rig
        .handshakes(async {
            start(&rig).await?;
            let taken = carry(&rig, "rest").await?;
            ensure!(taken == ["trust", "switch", "note", "wait", "drop", "done"], "{taken:?}");
            ended(&rig, "root-2").await
        })
        .await?;
    println!("life: a whole rotation: {tally}");
    tally.is_whole()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn two_who_take_the_steps_at_once_break_no_handshake() -> Result<()> {
    let rig = mesh(2).await?;
    let tally = rig
        .handshakes(async {
            start(&rig).await?;
            // The second one restarts nothing, and is told what the first one has done.
            let second = async {
                let mut calls = 0;
                while rig.record().await?.rotation.is_some() {
                    let _ = rig.rotated(&["step"]).await?;
                    calls += 1;
                }
                ensure!(calls > 10, "it hardly ran: {calls} times");
                anyhow::Ok(calls)
            };
            let (_, calls) = tokio::try_join!(carry(&rig, "rest"), second)?;
            println!("    the second one ran {calls} times");
            ended(&rig, "root-2").await
        })
        .await?;
    println!("life: two conductors in a loop: {tally}");
    tally.is_whole()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn conductor_and_gates_that_are_killed_at_each_write_break_no_handshake() -> Result<()> {
    let mut rig = mesh(2).await?;
    let ways = [Killer::start(&rig.vault).await?, Killer::start(&rig.vault).await?];
    let Rig { members, vault, .. } = &mut rig;
    for (member, way) in members.iter_mut().zip(&ways) {
        member.take_over(vault, Some(way)).await?;
    }
    let (mut killed, mut gates) = (BTreeMap::new(), BTreeMap::new());
    let tally = rig
        .handshakes(async {
            start(&rig).await?;
            let replaced = async {
                let end = Instant::now() + WHOLE;
                while rig.record().await?.rotation.is_some() {
                    ensure!(Instant::now() < end, "it does not end");
                    if deadly_step(&rig, &mut killed).await? {
                        ways.iter().for_each(|way| count(&mut gates, way));
                        restarted(&rig).await?;
                    }
                }
                ended(&rig, "root-2").await
            };
            tokio::select! {
                replaced = replaced => replaced,
                kept = keep_alive(&rig, &ways) => kept,
            }
        })
        .await?;
    ways.iter().for_each(|way| count(&mut gates, way));
    let sum = |kills: &BTreeMap<String, usize>| kills.values().sum::<usize>();
    println!("life: killed at each write, conductor {} times, gates {}: {tally}", sum(&killed), sum(&gates));
    killed.iter().chain(&gates).for_each(|(write, times)| println!("    {times} times at {write}"));
    ensure!(sum(&killed) >= 8 && sum(&gates) >= 8, "hardly anybody was killed");
    tally.is_whole()
}

/// Starts gates that were killed again, to be killed at their next write that was not deadly yet.
async fn keep_alive(rig: &Rig, ways: &[Killer; 2]) -> Result<()> {
    loop {
        for (member, way) in rig.members.iter().zip(ways) {
            if !member.gate.process.is_running() {
                member.gate.process.start_again()?;
            }
            way.aim_at(Some(member.gate.process.pid()));
        }
        sleep(PAUSE).await;
    }
}

/// Adds how often somebody was killed on this way, and lets each write be deadly again.
fn count(kills: &mut BTreeMap<String, usize>, way: &Killer) {
    for (write, times) in way.forgive() {
        *kills.entry(write).or_default() += times;
    }
}

/// A call of `rotate step` that dies at its first write, before it or after, until each has. Whether the bundle of roots is
/// another one now.
async fn deadly_step(rig: &Rig, killed: &mut BTreeMap<String, usize>) -> Result<bool> {
    let before = rig.record().await?;
    let command = rig.rotate(&["step"])?;
    rig.killer.aim_at(command.id());
    let output = tokio::time::timeout(LONG, command.wait_with_output()).await??;
    rig.killer.aim_at(None);
    if String::from_utf8_lossy(&output.stdout).starts_with("Nothing to do before") {
        leaves_end(rig).await?;
    }
    let after = rig.record().await?;
    if after.state() != before.state() {
        count(killed, &rig.killer);
    }
    Ok(after.root_cert != before.root_cert)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_cluster_that_is_away_is_waited_for_and_finds_its_way_back() -> Result<()> {
    let rig = mesh(2).await?;
    let tally = rig
        .handshakes(async {
            start(&rig).await?;
            rig.nas().node.turn_off().await?;
            rig.nas().gate.process.stop()?;
            // It has just been heard of.
            ensure!(step(&rig).await? == Ok("trust".to_owned()));
            // All certificates of before end, and the other cluster settles.
            for _ in 0..4 {
                rig.prober.all_renewed(LONG).await?;
            }
            let held = step(&rig).await?;
            ensure!(held.as_ref().is_err_and(|said| said.contains("cluster nas")), "{held:?}");
            rig.nas().gate.process.start_again()?;
            rig.nas().node.turn_on().await?;
            rig.nas().istiods_are(2).await?;
            // They may have begun on what the cluster had when it went.
            restarted(&rig).await?;
            let taken = carry(&rig, "rest").await?;
            ensure!(taken == ["switch", "note", "wait", "drop", "done"], "{taken:?}");
            ended(&rig, "root-2").await
        })
        .await?;
    println!("life: a cluster away from before trust until all its certificates had ended: {tally}");
    tally.is_whole()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn an_abort_at_each_step_leads_back_and_breaks_no_handshake() -> Result<()> {
    let rig = mesh(1).await?;
    for at in ["start", "trust", "switch", "note", "wait"] {
        let tally = rig
            .handshakes(async {
                start(&rig).await?;
                if at != "start" {
                    carry(&rig, at).await?;
                }
                let (done, said) = rig.rotated(&["abort", "--yes"]).await?;
                ensure!(done, "{said}");
                carry(&rig, "rest").await?;
                ended(&rig, "root-1").await
            })
            .await?;
        println!("life: an abort after {at}: {tally}");
        tally.is_whole()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn an_istiod_that_refuses_another_bundle_holds_the_rotation_and_is_named() -> Result<()> {
    let rig = mesh(2).await?;
    let tally = rig
        .handshakes(async {
            start(&rig).await?;
            ensure!(step(&rig).await? == Ok("trust".to_owned()));
            let pods = rig.nas().side.pods("istiod").await?;
            let named = || async {
                let said = step(&rig).await?.err().context("a step was taken")?;
                ensure!(pods.iter().all(|pod| said.contains(pod.as_str())) && said.contains("nas"), "{said}");
                anyhow::Ok(said)
            };
            println!("    held: {}", eventually("the istiods to be named", LONG, named).await?);
            for _ in 0..4 {
                rig.prober.all_renewed(LONG).await?;
                named().await?;
            }
            restarted(&rig).await?;
            carry(&rig, "switch").await?;
            Ok(())
        })
        .await?;
    println!("life: istiods that refuse another bundle: {tally}");
    tally.is_whole()
}
