//! What becomes of versions in KV version 2: deleted, destroyed, dropped; and the metadata that stay.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::{VaultApi, eventually};

use super::super::SOON;
use super::kv::{record, version, with_cas};
use super::{ANY, CAS_MISMATCH, Caller, envelope};

/// What a read of a version gives that is deleted, or destroyed.
fn gone(number: u64, deletion_time: &str, destroyed: bool) -> Value {
    let mut metadata = version(number);
    metadata["deletion_time"] = json!(deletion_time);
    metadata["destroyed"] = json!(destroyed);
    envelope("", json!({ "data": null, "metadata": metadata }))
}

/// Writes so many versions, `{"k": <number>}` each.
async fn write(vault: &VaultApi, name: &str, versions: u64) -> Result<()> {
    for number in 1..=versions {
        let body = json!({ "data": { "k": number } });
        Caller::root(vault).post(&format!("secret/data/{name}"), body).await?.gives("kv", version(number))?;
    }
    Ok(())
}

pub async fn a_deleted_version_leaves_its_metadata(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 2).await?;
    root.delete("secret/data/a").await?.done()?;
    root.get("secret/data/a").await?.is(404, gone(2, ANY, false))?;
    root.get("secret/data/a?version=1").await?.gives("kv", record(1, &json!({ "k": 1 })))?;
    // Again, and nothing changes.
    let before = root.get("secret/data/a").await?;
    root.delete("secret/data/a").await?.done()?;
    let after = root.get("secret/data/a").await?;
    ensure!(after.body["data"] == before.body["data"], "{before:?} {after:?}");
    Ok(())
}

pub async fn a_destroyed_version_leaves_its_metadata(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 2).await?;
    root.post("secret/destroy/a", json!({ "versions": [2] })).await?.done()?;
    root.get("secret/data/a").await?.is(404, gone(2, "", true))?;
    root.post("secret/undelete/a", json!({ "versions": [2] })).await?.done()?;
    root.get("secret/data/a").await?.is(404, gone(2, "", true))?;
    root.delete("secret/data/a").await?.done()?;
    root.get("secret/data/a").await?.is(404, gone(2, "", true))?;
    root.get("secret/data/a?version=1").await?.gives("kv", record(1, &json!({ "k": 1 })))?;
    Ok(())
}

pub async fn versions_are_deleted_and_undeleted_by_number(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 3).await?;
    // As a list of numbers or texts, and as a text.
    for versions in [json!([1, 3]), json!(["1", "3"]), json!("1,3")] {
        root.post("secret/delete/a", json!({ "versions": versions })).await?.done()?;
        root.get("secret/data/a").await?.is(404, gone(3, ANY, false))?;
        root.get("secret/data/a?version=1").await?.is(404, gone(1, ANY, false))?;
        root.get("secret/data/a?version=2").await?.gives("kv", record(2, &json!({ "k": 2 })))?;
        root.post("secret/undelete/a", json!({ "versions": versions })).await?.done()?;
        root.get("secret/data/a").await?.gives("kv", record(3, &json!({ "k": 3 })))?;
        root.get("secret/data/a?version=1").await?.gives("kv", record(1, &json!({ "k": 1 })))?;
    }
    root.ask("PUT", "secret/destroy/a", Some(json!({ "versions": "1" }))).await?.done()?;
    root.get("secret/data/a?version=1").await?.is(404, gone(1, "", true))?;
    Ok(())
}

pub async fn nothing_happens_to_versions_that_are_not_there(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 1).await?;
    for part in ["delete", "undelete", "destroy"] {
        for (name, versions) in [("never", [1]), ("a", [7])] {
            root.post(&format!("secret/{part}/{name}"), json!({ "versions": versions })).await?.done()?;
        }
        let no = if part == "destroy" { "no" } else { "No" };
        let refusal = format!("{no} version number provided");
        root.post(&format!("secret/{part}/a"), json!({})).await?.refuses(400, &refusal)?;
    }
    root.delete("secret/data/never").await?.done()?;
    root.delete("secret/metadata/never").await?.done()?;
    root.get("secret/data/never").await?.silent(404)?;
    root.get("secret/data/a").await?.gives("kv", record(1, &json!({ "k": 1 })))?;
    Ok(())
}

pub async fn check_and_set_zero_is_refused_after_a_soft_delete_and_a_destroy(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 1).await?;
    root.delete("secret/data/a").await?.done()?;
    root.post("secret/data/a", with_cas(0)).await?.refuses(400, CAS_MISMATCH)?;
    root.get("secret/data/a").await?.is(404, gone(1, ANY, false))?;
    root.post("secret/data/a", with_cas(1)).await?.gives("kv", version(2))?;
    root.post("secret/destroy/a", json!({ "versions": [2] })).await?.done()?;
    root.post("secret/data/a", with_cas(0)).await?.refuses(400, CAS_MISMATCH)?;
    root.get("secret/data/a").await?.is(404, gone(2, "", true))?;
    root.post("secret/data/a", with_cas(2)).await?.gives("kv", version(3))?;
    Ok(())
}

pub async fn a_secret_without_metadata_was_never_written(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 2).await?;
    root.delete("secret/metadata/a").await?.done()?;
    root.get("secret/data/a").await?.silent(404)?;
    root.get("secret/data/a?version=1").await?.silent(404)?;
    root.get("secret/metadata/a").await?.silent(404)?;
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    Ok(())
}

pub async fn metadata_tell_of_every_version(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    write(vault, "a", 3).await?;
    root.post("secret/delete/a", json!({ "versions": [2] })).await?.done()?;
    root.post("secret/destroy/a", json!({ "versions": [3] })).await?.done()?;
    let custom = json!({ "owner": "mesh" });
    root.post("secret/metadata/a", json!({ "custom_metadata": custom })).await?.done()?;
    let by = |operation: &str| json!({ "actor": "root", "client_id": ANY, "operation": operation });
    let version = |made: &str, deleted: Value, deletion_time: &str, destroyed: bool| {
        json!({
            "created_by": by(made), "created_time": ANY, "deleted_by": deleted, "deletion_time": deletion_time,
            "destroyed": destroyed,
        })
    };
    let metadata = json!({
        "cas_required": false, "created_time": ANY, "current_version": 3, "custom_metadata": custom,
        "delete_version_after": "0s", "last_updated_by": by("update"), "max_versions": 0, "oldest_version": 0,
        "updated_time": ANY,
        "versions": {
            "1": version("create", Value::Null, "", false),
            "2": version("update", by("update"), ANY, false),
            "3": version("update", Value::Null, "", true),
        },
    });
    root.get("secret/metadata/a").await?.gives("kv", metadata)?;
    let mut shown = record(1, &json!({ "k": 1 }));
    shown["metadata"]["custom_metadata"] = custom;
    root.get("secret/data/a?version=1").await?.gives("kv", shown)?;
    Ok(())
}

pub async fn metadata_alone_make_no_version(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/metadata/a", json!({ "max_versions": 3, "delete_version_after": "1h30m" })).await?.done()?;
    let metadata = json!({
        "cas_required": false, "created_time": ANY, "current_version": 0, "custom_metadata": null,
        "delete_version_after": "1h30m0s", "last_updated_by": null, "max_versions": 3, "oldest_version": 0,
        "updated_time": ANY, "versions": {},
    });
    root.get("secret/metadata/a").await?.gives("kv", metadata)?;
    root.get("secret/data/a").await?.silent(404)?;
    let mut first = version(1);
    first["deletion_time"] = json!(ANY);
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", first)?;
    // Without a setting nothing is written.
    root.post("secret/metadata/b", json!({})).await?.done()?;
    root.get("secret/metadata/b").await?.silent(404)?;
    let error = "error converting input for field \"max_versions\": cannot parse '' as int: strconv.ParseInt: parsing \
        \"x\": invalid syntax";
    root.post("secret/metadata/b", json!({ "max_versions": "x" })).await?.refuses(400, error)?;
    Ok(())
}

pub async fn secrets_are_listed_by_folder(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.list("secret/metadata").await?.silent(404)?;
    for name in ["istio/ca", "istio", "b/c/d"] {
        write(vault, name, 1).await?;
    }
    let keys = |keys: &[&str]| json!({ "keys": keys });
    for path in ["secret/metadata", "secret/metadata/"] {
        root.list(path).await?.gives("kv", keys(&["b/", "istio", "istio/"]))?;
    }
    root.get("secret/metadata?list=true").await?.gives("kv", keys(&["b/", "istio", "istio/"]))?;
    root.list("secret/metadata/b").await?.gives("kv", keys(&["c/"]))?;
    root.list("secret/metadata/istio").await?.gives("kv", keys(&["ca"]))?;
    root.list("secret/metadata/never").await?.silent(404)?;
    // A deleted one is listed, one without metadata is not.
    root.delete("secret/data/istio/ca").await?.done()?;
    root.list("secret/metadata/istio").await?.gives("kv", keys(&["ca"]))?;
    root.delete("secret/metadata/istio/ca").await?.done()?;
    root.list("secret/metadata/istio").await?.silent(404)?;
    Ok(())
}

pub async fn the_oldest_version_goes_when_there_are_too_many(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/metadata/a", json!({ "max_versions": 2 })).await?.done()?;
    write(vault, "a", 4).await?;
    ensure!(vault.versions("secret", "a").await? == [3, 4]);
    root.get("secret/data/a?version=2").await?.silent(404)?;
    root.get("secret/data/a?version=3").await?.gives("kv", record(3, &json!({ "k": 3 })))?;
    let metadata = root.get("secret/metadata/a").await?;
    ensure!(metadata.body["data"]["oldest_version"] == 3, "{metadata:?}");
    root.post("secret/config", json!({ "max_versions": 1 })).await?.done()?;
    // The larger of both holds.
    root.post("secret/data/a", with_cas(4)).await?.gives("kv", version(5))?;
    ensure!(vault.versions("secret", "a").await? == [4, 5]);
    Ok(())
}

pub async fn ten_versions_are_kept_by_default(vault: &VaultApi) -> Result<()> {
    write(vault, "a", 12).await?;
    ensure!(vault.versions("secret", "a").await? == (3..=12).collect::<Vec<_>>());
    Ok(())
}

pub async fn a_version_is_deleted_by_itself_after_its_time(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/metadata/a", json!({ "delete_version_after": "3s" })).await?.done()?;
    let written = root.post("secret/data/a", with_cas(0)).await?;
    let time = |field: &str| written.body["data"][field].as_str().unwrap_or_default().parse::<Timestamp>();
    let after = time("deletion_time")?.duration_since(time("created_time")?);
    ensure!(after.as_millis() == 3000, "{written:?}");
    let mut shown = record(1, &json!({ "k": "v" }));
    shown["metadata"]["deletion_time"] = json!(ANY);
    root.get("secret/data/a").await?.gives("kv", shown)?;
    let deleted = || async { root.get("secret/data/a").await?.is(404, gone(1, ANY, false)) };
    eventually("a version that is deleted by itself", SOON, deleted).await?;
    root.post("secret/data/a", with_cas(0)).await?.refuses(400, CAS_MISMATCH)?;
    Ok(())
}

pub async fn check_and_set_can_be_required_of_a_secret_and_of_a_mount(vault: &VaultApi) -> Result<()> {
    const REQUIRED: &str = "check-and-set parameter required for this call";
    let root = Caller::root(vault);
    let without = || json!({ "data": {} });
    root.post("secret/metadata/a", json!({ "cas_required": true })).await?.done()?;
    root.post("secret/data/a", without()).await?.refuses(400, REQUIRED)?;
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    root.post("secret/data/b", without()).await?.gives("kv", version(1))?;
    root.post("secret/config", json!({ "cas_required": true })).await?.done()?;
    root.post("secret/data/b", without()).await?.refuses(400, REQUIRED)?;
    root.post("secret/data/c", without()).await?.refuses(400, REQUIRED)?;
    let warning = "\"cas_required\" set to false, but is mandated by backend config. This value will be ignored.";
    root.post("secret/metadata/b", json!({ "cas_required": false })).await?.warns(200, "kv", warning)?;
    root.post("secret/data/b", without()).await?.refuses(400, REQUIRED)?;
    Ok(())
}

pub async fn the_settings_of_a_mount_are_kept(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let settings = |cas_required: bool, delete_version_after: &str, max_versions: u64| {
        json!({
            "cas_required": cas_required, "delete_version_after": delete_version_after, "max_versions": max_versions,
        })
    };
    root.get("secret/config").await?.gives("kv", settings(false, "0s", 0))?;
    let body = json!({ "max_versions": 5, "cas_required": "true", "delete_version_after": 90 });
    root.post("secret/config", body).await?.done()?;
    root.get("secret/config").await?.gives("kv", settings(true, "1m30s", 5))?;
    // One below zero means never, also for secrets that say otherwise.
    root.post("secret/config", json!({ "delete_version_after": "-5s", "cas_required": false })).await?.done()?;
    root.get("secret/config").await?.gives("kv", settings(false, "-1s", 5))?;
    root.post("secret/metadata/a", json!({ "delete_version_after": "1s" })).await?.done()?;
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    root.get("secret/data/a").await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    Ok(())
}
