//! Health, and the seal.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::VaultApi;

use super::kv::{record, version, with_cas};
use super::{ANY, Answered, Caller, DENIED, UNKNOWN_TOKEN};

fn health(sealed: bool) -> Value {
    let mode = if sealed { "unknown" } else { "disabled" };
    let mut body = json!({
        "clock_skew_ms": 0, "echo_duration_ms": 0, "enterprise": false, "initialized": true,
        "performance_standby": false, "replication_dr_mode": mode, "replication_performance_mode": mode,
        "replication_primary_canary_age_ms": 0, "sealed": sealed, "server_time_utc": 0, "standby": sealed,
        "version": "1.21.1",
    });
    if !sealed {
        body["cluster_id"] = json!(ANY);
        body["cluster_name"] = json!(ANY);
    }
    body
}

fn status(sealed: bool) -> Value {
    let mut body = json!({
        "build_date": ANY, "initialized": true, "migration": false, "n": 1, "nonce": "", "progress": 0,
        "recovery_seal": false, "sealed": sealed, "storage_type": ANY, "t": 1, "type": "shamir", "version": "1.21.1",
    });
    if !sealed {
        body["cluster_id"] = json!(ANY);
        body["cluster_name"] = json!(ANY);
    }
    body
}

/// Asks for its health, and leaves out the time.
async fn ask_health(vault: &VaultApi) -> Result<Answered> {
    let mut answer = Caller::nobody(vault).get("sys/health").await?;
    ensure!(answer.body["server_time_utc"].as_i64().is_some_and(|time| time > 1_700_000_000), "{answer:?}");
    answer.body["server_time_utc"] = json!(0);
    Ok(answer)
}

pub async fn health_tells_which_vault_it_is(vault: &VaultApi) -> Result<()> {
    let first = ask_health(vault).await?.is(200, health(false))?;
    let second = ask_health(vault).await?.is(200, health(false))?;
    ensure!(first.body == second.body, "{first:?} {second:?}");
    let id = first.body["cluster_id"].as_str().unwrap_or_default();
    ensure!(id.len() == 36 && id.matches('-').count() == 4, "{id}");
    let told = Caller::nobody(vault).get("sys/seal-status").await?.is(200, status(false))?;
    ensure!(told.body["cluster_id"] == first.body["cluster_id"], "{told:?}");
    let head = vault.raw(None, "HEAD", "sys/health", &[], None).await?;
    ensure!(head.status() == 200, "{head:?}");
    Caller::nobody(vault).post("sys/health", json!({})).await?.silent(405)?;
    Ok(())
}

/// `vault operator unseal` asks for it.
pub async fn one_server_has_no_leader(vault: &VaultApi) -> Result<()> {
    let leader = json!({
        "active_time": "0001-01-01T00:00:00Z", "ha_enabled": false, "is_self": false, "leader_address": "", "leader_cluster_address": "",
        "performance_standby": false, "performance_standby_last_remote_wal": 0,
    });
    let nobody = Caller::nobody(vault);
    nobody.get("sys/leader").await?.is(200, leader.clone())?;
    nobody.post("sys/leader", json!({})).await?.silent(405)?;
    vault.seal().await?;
    nobody.get("sys/leader").await?.is(200, leader)?;
    Ok(())
}

pub async fn a_sealed_vault_answers_nothing_else(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("sys/auth/kubernetes", json!({ "type": "kubernetes" })).await?.done()?;
    vault.seal().await?;
    ask_health(vault).await?.is(503, health(true))?;
    Caller::nobody(vault).get("sys/seal-status").await?.is(200, status(true))?;
    let sealed = |answer: Answered| answer.refuses(503, "Vault is sealed");
    for path in ["secret/data/istio/ca", "none/data/a", "sys/mounts", "sys/internal/ui/mounts/secret", "sys/none"] {
        for caller in [&root, &Caller::nobody(vault), &Caller::with(vault, "hvs.unknown")] {
            sealed(caller.get(path).await?)?;
        }
    }
    sealed(root.post("secret/data/istio/ca", with_cas(0)).await?)?;
    let login = json!({ "role": "r", "jwt": "j" });
    for mount in ["kubernetes", "none"] {
        sealed(Caller::nobody(vault).post(&format!("auth/{mount}/login"), login.clone()).await?)?;
    }
    // Again, by whoever it may be.
    Caller::nobody(vault).ask("PUT", "sys/seal", None).await?.done()?;
    Ok(())
}

pub async fn what_was_written_outlives_a_seal(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let before = ask_health(vault).await?;
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    let reader = Caller::who_may(vault, "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    vault.seal().await?;
    vault.unseal().await?;
    reader.get("secret/data/a").await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    root.post("secret/data/a", with_cas(1)).await?.gives("kv", version(2))?;
    ensure!(ask_health(vault).await?.body == before.body);
    Ok(())
}

pub async fn a_seal_between_read_and_write_writes_nothing(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.get("secret/data/a").await?.silent(404)?;
    vault.seal().await?;
    root.post("secret/data/a", with_cas(0)).await?.refuses(503, "Vault is sealed")?;
    vault.unseal().await?;
    root.get("secret/data/a").await?.silent(404)?;
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    Ok(())
}

pub async fn a_wrong_key_does_not_unseal(vault: &VaultApi) -> Result<()> {
    let nobody = Caller::nobody(vault);
    let path = "sys/unseal";
    // It need not be sealed for that.
    nobody.post(path, json!({ "key": "0".repeat(64) })).await?.is(200, status(false))?;
    vault.seal().await?;
    let wrong = "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: error decrypting \
        seal wrapped value\nerror decrypting using seal shamir: cipher: message authentication failed";
    let missing = "'key' must be specified in request body as JSON, or 'reset' set to true";
    for (body, error) in [
        (json!({ "key": "0".repeat(64) }), wrong),
        (json!({ "key": "0".repeat(20) }), "invalid key: key is shorter than minimum 16 bytes"),
        (json!({ "key": "zz" }), "'key' must be a valid hex or base64 string"),
        (json!({ "key": "" }), missing),
        (json!({}), missing),
    ] {
        nobody.post(path, body).await?.refuses(400, error)?;
    }
    nobody.get(path).await?.silent(405)?;
    ask_health(vault).await?.is(503, health(true))?;
    nobody.ask("PUT", path, Some(json!({ "key": vault.unseal_key() }))).await?.is(200, status(false))?;
    Ok(())
}

pub async fn sealing_needs_a_right(vault: &VaultApi) -> Result<()> {
    let path = "sys/seal";
    let seal = async |caller: Caller<'_>| caller.ask("PUT", path, None).await;
    seal(Caller::nobody(vault)).await?.refuses(403, "permission denied")?;
    seal(Caller::with(vault, "hvs.unknown")).await?.refuses(403, UNKNOWN_TOKEN)?;
    seal(Caller::of(vault, &["none"]).await?).await?.refuses(403, DENIED)?;
    let update = "path \"sys/seal\" { capabilities = [\"update\"] }";
    seal(Caller::who_may(vault, update).await?).await?.refuses(403, DENIED)?;
    Caller::root(vault).get(path).await?.silent(405)?;
    ask_health(vault).await?.is(200, health(false))?;
    let sudo = "path \"sys/seal\" { capabilities = [\"update\", \"sudo\"] }";
    seal(Caller::who_may(vault, sudo).await?).await?.done()?;
    ask_health(vault).await?.is(503, health(true))?;
    Ok(())
}
