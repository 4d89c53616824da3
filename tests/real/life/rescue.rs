//! Two clusters, each on a root that its istiod has made for itself, are brought under one root.

use anyhow::{Result, ensure};
use testbed::eventually;

use super::prober::Count;
use super::rig::{Beginning, Kind, LEAF, LIVES, LONG, Rig};
use super::rotation::{carry, ended};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test life"]
async fn a_split_mesh_is_brought_under_one_root_and_no_handshake_within_a_cluster_fails() -> Result<()> {
    let rig = Rig::start(Beginning { kind: Kind::Split, lives: LIVES, istiods: 1 }).await?;
    let before = rig.handshakes(async { Ok(()) }).await?;
    println!("life: rescue, before it: {before}");
    ensure!(before.count(Some(true)).failed == 0, "the clusters were not whole");
    let Count { made, failed } = before.count(Some(false));
    ensure!(made > 0 && made == failed, "the mesh was not split");

    let ttl = format!("{}s", LEAF.as_secs());
    let rescue = ["rescue", "--yes", "--context", "homelab", "--context", "nas", "--ttl", &ttl];
    let meanwhile = rig
        .handshakes(async {
            eventually("the rescue", LONG, || async {
                let (done, said) = rig.rotated(&rescue).await?;
                ensure!(done && said.contains("othing"), "{said}");
                Ok(())
            })
            .await?;
            let taken = carry(&rig, "wait").await?;
            ensure!(taken == ["note", "wait"], "{taken:?}");
            Ok(())
        })
        .await?;
    println!("life: rescue, until the split is over: {meanwhile}");
    ensure!(meanwhile.count(Some(true)).failed == 0, "within a cluster: {meanwhile:?}");

    let after = rig
        .handshakes(async {
            carry(&rig, "rest").await?;
            ended(&rig, "root-1").await
        })
        .await?;
    println!("life: rescue, from then on, through switch and drop: {after}");
    after.is_whole()
}
