//! Reads and writes of KV version 2.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use testbed::VaultApi;

use super::{ANY, CAS_MISMATCH, Caller, envelope};

/// A version as an answer tells of it.
pub fn version(number: u64) -> Value {
    json!({ "created_time": ANY, "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": number })
}

/// What a read of it gives.
pub fn record(number: u64, data: &Value) -> Value {
    json!({ "data": data, "metadata": version(number) })
}

pub fn with_cas(cas: impl Into<Value>) -> Value {
    json!({ "data": { "k": "v" }, "options": { "cas": cas.into() } })
}

pub async fn a_path_that_was_never_written_has_no_errors(vault: &VaultApi) -> Result<()> {
    let answer = vault.raw(Some(vault.root_token()), "GET", "secret/data/never", &[], None).await?;
    ensure!(answer.status() == 404 && answer.headers()["content-type"] == "application/json", "{answer:?}");
    ensure!(answer.headers()["cache-control"] == "no-store", "{answer:?}");
    let text = answer.text().await?;
    ensure!(text == "{\"errors\":[]}\n", "{text:?}");
    Caller::root(vault).get("secret/metadata/never").await?.silent(404)?;
    Ok(())
}

pub async fn a_write_tells_its_version_and_a_read_gives_it_back(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let data = json!({ "k": "v", "list": [1, true, null], "nested": { "a": "ä\n" } });
    root.post("secret/data/istio/ca", json!({ "data": data })).await?.gives("kv", version(1))?;
    root.get("secret/data/istio/ca").await?.gives("kv", record(1, &data))?;
    root.ask("PUT", "secret/data/istio/ca", Some(json!({ "data": {} }))).await?.gives("kv", version(2))?;
    root.get("secret/data/istio/ca").await?.gives("kv", record(2, &json!({})))?;
    // An escaped slash is one.
    root.get("secret/data/istio%2Fca").await?.gives("kv", record(2, &json!({})))?;
    Ok(())
}

pub async fn a_version_is_read_by_its_number(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    for value in ["one", "two"] {
        root.post("secret/data/a", json!({ "data": { "k": value } })).await?;
    }
    root.get("secret/data/a?version=1").await?.gives("kv", record(1, &json!({ "k": "one" })))?;
    for latest in ["2", "0", "-1"] {
        let path = format!("secret/data/a?version={latest}");
        root.get(&path).await?.gives("kv", record(2, &json!({ "k": "two" })))?;
    }
    root.get("secret/data/a?version=3").await?.silent(404)?;
    let error = "Field validation failed: error converting input for field \"version\": cannot parse '' as int: \
        strconv.ParseInt: parsing \"x\": invalid syntax";
    root.get("secret/data/a?version=x").await?.refuses(400, error)?;
    Ok(())
}

pub async fn check_and_set_zero_creates_once(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    root.post("secret/data/a", with_cas(0)).await?.refuses(400, CAS_MISMATCH)?;
    root.get("secret/data/a").await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    Ok(())
}

pub async fn check_and_set_takes_the_current_version_only(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/data/a", with_cas(1)).await?.refuses(400, CAS_MISMATCH)?;
    root.post("secret/data/a", with_cas("0")).await?.gives("kv", version(1))?;
    root.post("secret/data/a", with_cas(1)).await?.gives("kv", version(2))?;
    root.post("secret/data/a", with_cas(1)).await?.refuses(400, CAS_MISMATCH)?;
    root.post("secret/data/a", with_cas(3)).await?.refuses(400, CAS_MISMATCH)?;
    root.post("secret/data/a", with_cas("x")).await?.refuses(400, "error parsing check-and-set parameter")?;
    root.post("secret/data/a", json!({ "data": {}, "options": {} })).await?.gives("kv", version(3))?;
    Ok(())
}

pub async fn of_twenty_that_create_at_once_one_wins(vault: &VaultApi) -> Result<()> {
    let body = |writer: u64| json!({ "data": { "writer": writer }, "options": { "cas": 0 } });
    let writes = (0..20).map(|writer| vault.api("POST", "secret/data/race", Some(body(writer))));
    let answers = try_join_all(writes).await?;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, (status, _))| *status == 200).collect();
    let [(winner, _)] = winners[..] else { anyhow::bail!("{answers:?}") };
    let lost = answers.iter().filter(|answer| **answer == (400, json!({ "errors": [CAS_MISMATCH] }))).count();
    ensure!(lost == 19, "{answers:?}");
    Caller::root(vault).get("secret/data/race").await?.gives("kv", record(1, &json!({ "writer": winner })))?;
    ensure!(vault.versions("secret", "race").await? == [1]);
    Ok(())
}

pub async fn a_write_without_data_is_refused(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    for body in [None, Some(json!({})), Some(json!({ "options": { "cas": 0 } })), Some(json!({ "k": "v" }))] {
        root.ask("POST", "secret/data/a", body).await?.refuses(400, "no data provided")?;
    }
    for (data, kind) in [(json!("x"), "string"), (json!(true), "bool"), (json!(1), "string")] {
        let error = format!("error converting input for field \"data\": '' expected a map, got '{kind}'");
        root.post("secret/data/a", json!({ "data": data })).await?.refuses(400, &error)?;
    }
    root.get("secret/data/a").await?.silent(404)?;
    Ok(())
}

pub async fn a_body_that_is_no_json_object_is_refused(vault: &VaultApi) -> Result<()> {
    let post = async |body: &str| {
        let answer = vault.raw(Some(vault.root_token()), "POST", "secret/data/a", &[], Some(body.to_owned())).await?;
        let status = answer.status().as_u16();
        anyhow::Ok((status, serde_json::from_str::<Value>(&answer.text().await?)?))
    };
    for body in ["not json", "[1]", "\"text\""] {
        let (status, answer) = post(body).await?;
        let error = answer["errors"][0].as_str().unwrap_or_default();
        // What follows is the JSON parser's.
        ensure!(status == 400, "{body}: {answer}");
        ensure!(error.starts_with("error parsing JSON: failed to parse JSON input: "), "{body}: {answer}");
    }
    for body in ["{", "{\"data\":{\"k\":\"v\"}", "["] {
        let cut = json!({ "errors": ["malformed JSON, unclosed containers"] });
        ensure!(post(body).await? == (500, cut), "{body}");
    }
    Ok(())
}

pub async fn a_patch_changes_what_it_names(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post("secret/data/a", json!({ "data": { "keep": "1", "change": "2", "drop": "3" } })).await?;
    let patch = json!({ "data": { "change": "4", "drop": null, "new": { "a": 1 } }, "options": { "cas": 1 } });
    root.ask("PATCH", "secret/data/a", Some(patch.clone())).await?.gives("kv", version(2))?;
    let patched = json!({ "keep": "1", "change": "4", "new": { "a": 1 } });
    root.get("secret/data/a").await?.gives("kv", record(2, &patched))?;
    root.ask("PATCH", "secret/data/a", Some(patch)).await?.refuses(400, CAS_MISMATCH)?;
    root.get("secret/data/a?version=1")
        .await?
        .gives("kv", record(1, &json!({ "keep": "1", "change": "2", "drop": "3" })))?;
    Ok(())
}

pub async fn a_patch_needs_something_to_change(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let patch = || Some(json!({ "data": { "k": "v" } }));
    root.ask("PATCH", "secret/data/a", patch()).await?.is(404, Value::Null)?;
    root.post("secret/data/null", json!({ "data": null })).await?.gives("kv", version(1))?;
    root.get("secret/data/null").await?.gives("kv", record(1, &Value::Null))?;
    let nothing = "1 error occurred:\n\t* resource does not exist\n\n";
    root.ask("PATCH", "secret/data/null", patch()).await?.refuses(500, nothing)?;
    root.post("secret/data/a", json!({ "data": {} })).await?;
    root.ask("PATCH", "secret/data/a", Some(json!({}))).await?.refuses(400, "no data provided")?;
    root.delete("secret/data/a").await?;
    let mut gone = envelope("", version(1));
    gone["data"]["deletion_time"] = json!(ANY);
    root.ask("PATCH", "secret/data/a", patch()).await?.is(404, gone)?;

    let json = [("content-type", "application/json")];
    let body = Some("{\"data\":{}}".to_owned());
    let answer = vault.raw(Some(vault.root_token()), "PATCH", "secret/data/a", &json, body).await?;
    ensure!(answer.status() == 415, "{answer:?}");
    let error = "PATCH requires Content-Type of application/merge-patch+json, provided application/json";
    let answer: Value = serde_json::from_str(&answer.text().await?)?;
    ensure!(answer == json!({ "errors": [error] }), "{answer}");
    Ok(())
}

pub async fn paths_that_version_2_does_not_have_are_astray(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let warning = |command: &str| {
        format!(
            "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to \
             use. If using the Vault CLI, use 'vault kv {command}' for this operation."
        )
    };
    for path in ["secret/istio/ca", "secret/data/", "secret/data/a/"] {
        root.get(path).await?.warns(404, "", &warning("get"))?;
    }
    for path in ["secret/data/a/", "secret/", "none/"] {
        root.post(path, json!({ "data": {} })).await?.refuses(400, "cannot write to a path ending in '/'")?;
    }
    root.post("secret/istio/ca", json!({ "k": "v" })).await?.warns(404, "", &warning("put"))?;
    root.list("secret/data/a").await?.warns(404, "", &warning("list"))?;
    root.delete("secret/a").await?.warns(404, "", &warning("delete"))?;
    for path in ["secret/data", "secret/metadata"] {
        let warning = "Non-listing operations on the root of a K/V v2 mount are not supported.";
        root.get(path).await?.warns(404, "", warning)?;
        root.post(path, json!({})).await?.warns(404, "", warning)?;
    }
    Ok(())
}

pub async fn methods_that_a_path_does_not_have_are_refused(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    for (method, path) in [("DELETE", "secret/config"), ("GET", "secret/delete/a"), ("GET", "secret/destroy/a")] {
        let refusal = "1 error occurred:\n\t* unsupported operation\n\n";
        root.ask(method, path, None).await?.refuses(405, refusal)?;
    }
    root.ask("TRACE", "secret/data/a", None).await?.silent(405)?;
    Ok(())
}
