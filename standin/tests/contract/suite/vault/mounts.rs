//! KV version 1, mounts, and what is told of them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{VaultApi, eventually};

use super::super::SOON;
use super::kv::{record, version, with_cas};
use super::{ANY, Caller, DENIED, UNKNOWN_TOKEN, envelope};

/// Mounts KV version 1 at `old/`.
async fn mount_version_1(root: &Caller<'_>) -> Result<()> {
    root.post("sys/mounts/old", json!({ "type": "kv" })).await?.done()?;
    Ok(())
}

/// Mounts KV version 2, and waits until it is ready: the real one may be upgrading for a moment.
async fn mount_version_2(root: &Caller<'_>, path: &str) -> Result<()> {
    let body = json!({ "type": "kv", "options": { "version": "2" } });
    root.post(&format!("sys/mounts/{path}"), body).await?.done()?;
    let (config, settings) =
        (format!("{path}/config"), json!({ "cas_required": false, "delete_version_after": "0s", "max_versions": 0 }));
    let ready = || async { root.get(&config).await?.gives("kv", settings.clone()) };
    eventually("a mount that is ready", SOON, ready).await?;
    Ok(())
}

pub async fn version_1_ignores_check_and_set(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    mount_version_1(&root).await?;
    for _ in 0..2 {
        root.post("old/data/istio/ca", with_cas(0)).await?.done()?;
    }
    let mut shown = envelope("kv", with_cas(0));
    shown["lease_duration"] = json!(2_764_800);
    root.get("old/data/istio/ca").await?.is(200, shown)?;
    Ok(())
}

pub async fn a_path_that_was_never_written_is_the_same_in_version_1(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    mount_version_1(&root).await?;
    root.get("old/data/istio/ca").await?.silent(404)?;
    root.get("old/metadata/istio/ca").await?.silent(404)?;
    root.list("old").await?.silent(404)?;
    Ok(())
}

pub async fn version_1_lists_and_deletes(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/mounts/old", json!({ "type": "kv", "options": { "version": "1" } })).await?.done()?;
    root.post("old/a", json!({})).await?.refuses(400, "missing data fields")?;
    root.post("old/a", json!({ "k": 1, "ttl": "5m" })).await?.done()?;
    root.post("old/b/c", json!({ "k": 2 })).await?.done()?;
    let mut shown = envelope("kv", json!({ "k": 1, "ttl": "5m" }));
    shown["lease_duration"] = json!(300);
    root.get("old/a").await?.is(200, shown)?;
    root.list("old").await?.gives("kv", json!({ "keys": ["a", "b/"] }))?;
    root.list("old/b").await?.gives("kv", json!({ "keys": ["c"] }))?;
    root.delete("old/a").await?.done()?;
    root.delete("old/a").await?.done()?;
    root.get("old/a").await?.silent(404)?;
    let refusal = "1 error occurred:\n\t* unsupported operation\n\n";
    root.ask("PATCH", "old/b/c", Some(json!({ "k": 3 }))).await?.refuses(405, refusal)?;
    Ok(())
}

pub async fn a_missing_mount_is_told_by_its_route(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let no_route = |path: &str| format!("no handler for route {path:?}. route entry not found.");
    let path = "none/data/istio/ca";
    root.get(path).await?.refuses(404, &no_route(path))?;
    root.post(path, with_cas(0)).await?.refuses(404, &no_route(path))?;
    root.delete(path).await?.refuses(404, &no_route(path))?;
    root.list("none/metadata").await?.refuses(404, &no_route("none/metadata/"))?;
    root.get("secre").await?.refuses(404, &no_route("secre"))?;
    // It takes the right to the path to be told.
    let reader = Caller::who_may(vault, "path \"none/data/istio/ca\" { capabilities = [\"read\"] }").await?;
    reader.get(path).await?.refuses(404, &no_route(path))?;
    reader.post(path, with_cas(0)).await?.refuses(403, DENIED)?;
    reader.get("none/data/other").await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn what_was_mounted_is_gone_when_it_is_unmounted(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    mount_version_2(&root, "team/kv").await?;
    root.post("team/kv/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    root.get("team/kv/data/a").await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    root.delete("sys/mounts/team/kv").await?.done()?;
    let no_route = "no handler for route \"team/kv/data/a\". route entry not found.";
    root.get("team/kv/data/a").await?.refuses(404, no_route)?;
    root.delete("sys/mounts/team/kv").await?.done()?;
    root.get("sys/mounts/team/kv").await?.refuses(400, "No secret engine mount at team/kv/")?;
    mount_version_2(&root, "team/kv").await?;
    root.get("team/kv/data/a").await?.silent(404)?;
    Ok(())
}

pub async fn a_mount_needs_a_free_path_and_a_known_kind(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    for path in ["secret", "secret/below"] {
        root.post(&format!("sys/mounts/{path}"), json!({ "type": "kv" }))
            .await?
            .refuses(400, "path is already in use at secret/")?;
    }
    root.post("sys/mounts/sys/x", json!({ "type": "kv" })).await?.refuses(400, "cannot mount \"sys/x/\"")?;
    root.post("sys/mounts/x", json!({})).await?.refuses(400, "backend type must be specified as a string")?;
    root.post("sys/mounts/x", json!({ "type": "none" }))
        .await?
        .refuses(400, "plugin not found in the catalog: none")?;
    let version_3 = json!({ "type": "kv", "options": { "version": "3" } });
    root.post("sys/mounts/x", version_3).await?.refuses(400, "nil backend of type \"kv\" returned from factory")?;
    Ok(())
}

/// A mount as it is listed.
fn mount(kind: &str, options: Value, ttl: u64, description: &str) -> Value {
    json!({
        "accessor": ANY, "config": { "default_lease_ttl": ttl, "force_no_cache": false, "max_lease_ttl": ttl },
        "deprecation_status": "supported", "description": description, "external_entropy_access": false,
        "local": false, "options": options, "plugin_version": "", "running_plugin_version": "v0.25.0+builtin",
        "running_sha256": "", "seal_wrap": false, "type": kind, "uuid": ANY,
    })
}

/// The same with its path, as the preflight tells of it.
fn told(path: &str, options: Value) -> Value {
    let mut mount = mount("kv", options, 2_764_800, "");
    mount["path"] = json!(path);
    mount
}

pub async fn mounts_are_listed_with_kind_and_options(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/mounts/new", json!({ "type": "kv-v2", "description": "team" })).await?.done()?;
    mount_version_1(&root).await?;
    let listed = root.get("sys/mounts").await?.body;
    for (path, options, description) in [
        ("secret/", json!({ "version": "2" }), ""),
        ("new/", json!({ "version": "2" }), "team"),
        ("old/", json!({}), ""),
    ] {
        let expected = mount("kv", options, 0, description);
        let difference = super::difference(&expected, &listed["data"][path], path);
        ensure!(difference.is_none(), "{difference:?}: {listed}");
        // Beside the envelope, too.
        ensure!(listed[path] == listed["data"][path], "{listed}");
        let one = root.get(&format!("sys/mounts/{path}")).await?.body;
        ensure!(one["data"] == listed["data"][path] && one["uuid"] == one["data"]["uuid"], "{one}");
    }
    let builtin: Vec<_> =
        listed["data"].as_object().into_iter().flatten().map(|(path, it)| (path, &it["type"])).collect();
    let expected = json!([
        ["cubbyhole/", "cubbyhole"],
        ["identity/", "identity"],
        ["new/", "kv"],
        ["old/", "kv"],
        ["secret/", "kv"],
        ["sys/", "system"],
    ]);
    ensure!(json!(builtin) == expected, "{listed}");
    Ok(())
}

pub async fn the_preflight_tells_the_version_of_a_mount(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    mount_version_1(&root).await?;
    root.get("sys/internal/ui/mounts/secret").await?.gives("", told("secret/", json!({ "version": "2" })))?;
    root.get("sys/internal/ui/mounts/secret/").await?.gives("", told("secret/", json!({ "version": "2" })))?;
    root.get("sys/internal/ui/mounts/old").await?.gives("", told("old/", json!({})))?;
    root.post("sys/mounts/one", json!({ "type": "kv", "options": { "version": "1" } })).await?.done()?;
    root.get("sys/internal/ui/mounts/one").await?.gives("", told("one/", json!({ "version": "1" })))?;
    Ok(())
}

pub async fn the_preflight_of_a_path_in_a_mount_tells_of_that_mount(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let secret = || told("secret/", json!({ "version": "2" }));
    root.get("sys/internal/ui/mounts/secret/istio/ca").await?.gives("", secret())?;
    let reader = Caller::who_may(vault, include_str!("../../../../../deploy/vault/istio-ca-sync.hcl")).await?;
    reader.get("sys/internal/ui/mounts/secret/some/where").await?.gives("", secret())?;
    Ok(())
}

pub async fn the_preflight_tells_whoever_has_a_right_below_the_mount(vault: &VaultApi) -> Result<()> {
    for (path, capability, sees) in [
        ("secret/data/istio/ca", "read", true),
        ("secret/data/istio/ca", "create", true),
        ("secret/metadata/*", "list", true),
        ("secret/*", "read", true),
        ("sec*", "read", true),
        ("secret/+/istio/ca", "read", true),
        ("+/data/istio/ca", "read", true),
        ("secret", "read", true),
        ("secre", "read", false),
        ("+", "read", true),
        ("secret/+", "read", true),
        ("secret/data/istio/ca", "deny", false),
        ("secret/*", "deny", false),
        ("secrets/*", "read", false),
        ("other/+/istio/ca", "read", false),
    ] {
        let policy = format!("path {path:?} {{ capabilities = [{capability:?}] }}");
        let status = Caller::who_may(vault, &policy).await?.get("sys/internal/ui/mounts/secret").await?.status;
        ensure!((status == 200) == sees && [200, 403].contains(&status), "{policy}: {status}");
    }
    Ok(())
}

pub async fn the_preflight_refuses_without_a_right_and_without_a_mount_alike(vault: &VaultApi) -> Result<()> {
    let refusal = |path: &str| {
        format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
        )
    };
    let root = Caller::root(vault);
    for path in ["none", "secre", "none/below"] {
        root.get(&format!("sys/internal/ui/mounts/{path}")).await?.refuses(403, &refusal(path))?;
    }
    let other = Caller::who_may(vault, "path \"other/*\" { capabilities = [\"read\"] }").await?;
    for path in ["secret", "other", "none"] {
        other.get(&format!("sys/internal/ui/mounts/{path}")).await?.refuses(403, &refusal(path))?;
    }
    let path = "sys/internal/ui/mounts/secret";
    Caller::nobody(vault).get(path).await?.refuses(403, "permission denied")?;
    Caller::with(vault, "hvs.unknown").get(path).await?.refuses(403, UNKNOWN_TOKEN)?;
    Ok(())
}

pub async fn mounts_are_shown_to_whoever_has_a_right_in_them(vault: &VaultApi) -> Result<()> {
    let names = |body: &Value, table: &str| -> Vec<String> {
        body["data"][table].as_object().map(|mounts| mounts.keys().cloned().collect()).unwrap_or_default()
    };
    let path = "sys/internal/ui/mounts";
    let all = Caller::root(vault).get(path).await?.body;
    ensure!(names(&all, "secret") == ["cubbyhole/", "identity/", "secret/", "sys/"], "{all}");
    ensure!(names(&all, "auth") == ["token/"], "{all}");
    let secret = mount("kv", json!({ "version": "2" }), 2_764_800, "");
    let difference = super::difference(&secret, &all["data"]["secret"]["secret/"], "");
    ensure!(difference.is_none(), "{difference:?}: {all}");
    Caller::nobody(vault).get(path).await?.gives("", json!({ "auth": {}, "secret": {} }))?;
    Caller::with(vault, "hvs.unknown").get(path).await?.refuses(403, UNKNOWN_TOKEN)?;

    let reader = Caller::who_may(vault, "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    ensure!(names(&reader.get(path).await?.body, "secret").contains(&"secret/".to_owned()));
    let other = Caller::who_may(vault, "path \"other/data/a\" { capabilities = [\"read\"] }").await?;
    ensure!(!names(&other.get(path).await?.body, "secret").contains(&"secret/".to_owned()));
    Ok(())
}
