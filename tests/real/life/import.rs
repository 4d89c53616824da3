//! The root and key that two running clusters share are brought into Vault's PKI engine, and the key leaves them.

use anyhow::{Result, ensure};
use testbed::eventually;

use super::prober::Tally;
use super::rig::{Beginning, Kind, LIVES, LONG, Rig};
use crate::signers::{are_signed, files};

const IMPORT: [&str; 4] = ["import", "--yes", "--of", "homelab,nas"];

/// A mesh as it was before, whose gates can be asked for signers.
async fn shared() -> Result<Rig> {
    let mut rig = Rig::start(Beginning { kind: Kind::Shared, lives: LIVES, istiods: 1 }).await?;
    let Rig { members, vault, .. } = &mut rig;
    let keys = [files(&members[0].side).await?, files(&members[1].side).await?];
    ensure!(keys[0].signs_with_the_root() && keys[0].bundle.ca_key == keys[1].bundle.ca_key, "no shared key");
    for member in members.iter_mut() {
        member.take_over(vault, None).await?;
        member.gate.stands("open", None).await?;
    }
    Ok(rig)
}

/// Runs it again until it says that all is done. Whoever is killed on the way is run again, too.
async fn imported(rig: &Rig, is_deadly: bool) -> Result<String> {
    eventually("the import", LONG, || async {
        let command = rig.rotate(&IMPORT)?;
        rig.killer.aim_at(command.id().filter(|_| is_deadly));
        let output = command.wait_with_output().await?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok(said)
    })
    .await
}

async fn run(is_deadly: bool) -> Result<(Rig, Tally)> {
    let rig = shared().await?;
    let root = files(&rig.homelab().side).await?.root;
    let before = [rig.homelab().node.pids().await, rig.nas().node.pids().await];
    let tally = rig
        .handshakes(async {
            let said = imported(&rig, is_deadly).await?;
            ensure!(said.contains("destroyed in Vault"), "{said}");
            Ok(())
        })
        .await?;
    are_signed(&rig.vault, &[&rig.homelab().side, &rig.nas().side]).await?;
    ensure!(files(&rig.nas().side).await?.root == root, "another root");
    ensure!(before == [rig.homelab().node.pids().await, rig.nas().node.pids().await], "an istiod was restarted");
    let (status, first) = rig.vault.api("GET", "secret/data/istio/ca?version=1", None).await?;
    ensure!(status == 404 && first["data"]["metadata"]["destroyed"] == true, "the key is still in Vault: {first}");
    Ok((rig, tally))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn the_shared_key_of_a_running_mesh_is_taken_away_and_no_handshake_fails() -> Result<()> {
    let (_rig, tally) = run(false).await?;
    println!("life: import: {tally}");
    tally.is_whole()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn an_import_that_is_killed_at_each_of_its_writes_is_ended_by_running_it_again() -> Result<()> {
    let (rig, tally) = run(true).await?;
    let kills = rig.killer.forgive();
    println!("life: import, killed before and after each write ({} times): {tally}", kills.values().sum::<usize>());
    kills.iter().for_each(|(write, times)| println!("    {times} times at {write}"));
    ensure!(kills.len() >= 3, "it was hardly killed: {kills:?}");
    tally.is_whole()
}
