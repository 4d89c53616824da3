//! A pod's volumes, as a kubelet mounts them.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{Cluster, Mounting, mount_volumes};

/// A pod with a volume of each kind that counts.
fn pod(required: &str) -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "containers": [{ "name": "web", "volumeMounts": [
                { "name": "keys", "mountPath": "/etc/keys" },
                { "name": "later", "mountPath": "/etc/later" },
                { "name": "settings", "mountPath": "/etc/settings" },
                { "name": "scratch", "mountPath": "/scratch" },
            ] }],
            "volumes": [
                { "name": "keys", "secret": { "secretName": required } },
                { "name": "later", "secret": { "secretName": "not-there", "optional": true } },
                { "name": "settings", "configMap": { "name": "settings", "optional": true } },
                { "name": "scratch", "emptyDir": {} },
            ],
        },
    })
}

#[tokio::test]
async fn what_is_there_is_mounted_what_is_optional_may_be_missing_and_what_is_required_is_waited_for() -> Result<()> {
    let cluster = Cluster::start("mounts").await?;
    let folder = tempfile::tempdir()?;
    let pod = pod("keys");
    let mount = || mount_volumes(&cluster, &pod, folder.path());
    ensure!(mount().await? == Mounting::Waits("secrets default/keys not found".into()));

    let keys =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "data": { "key": "AP8K" } });
    let settings =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "a": "b\n" } });
    for object in [keys, settings] {
        cluster.kubectl_stdin(&["apply", "-f", "-"], &object.to_string()).await?;
    }
    ensure!(mount().await? == Mounting::Done);
    ensure!(fs::read(folder.path().join("etc/keys/key"))? == [0x00, 0xff, b'\n']);
    ensure!(fs::read(folder.path().join("etc/settings/a"))? == b"b\n");
    for empty in ["etc/later", "scratch"] {
        ensure!(fs::read_dir(folder.path().join(empty))?.count() == 0, "{empty} is not empty");
    }

    // What changes is swapped as a whole, and what is gone goes.
    let keys = folder.path().join("etc/keys");
    let before = fs::read_link(keys.join("..data"))?;
    ensure!(mount().await? == Mounting::Done && fs::read_link(keys.join("..data"))? == before, "nothing had changed");
    let other =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" }, "data": { "other": "AQ==" } });
    cluster.kubectl_stdin(&["replace", "-f", "-"], &other.to_string()).await?;
    ensure!(mount().await? == Mounting::Done && fs::read_link(keys.join("..data"))? != before, "it was not swapped");
    let mut names: Vec<_> = fs::read_dir(&keys)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| !name.starts_with(".."));
    ensure!(names == ["other"] && fs::read(keys.join("other"))? == [1], "{names:?}");
    Ok(())
}
