//! Policies, and the tokens that have them.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use testbed::{VaultApi, eventually};

use super::super::SOON;
use super::kv::{record, version, with_cas};
use super::{ANY, Answered, CAS_MISMATCH, Caller, DENIED, UNKNOWN_TOKEN, envelope};

const RECORD: &str = "secret/data/istio/ca";

pub async fn the_bootstrap_policy_creates_and_never_overwrites(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let bootstrap = Caller::who_may(vault, include_str!("../../../../../deploy/vault/istio-ca-bootstrap.hcl")).await?;
    bootstrap.get(RECORD).await?.silent(404)?;
    bootstrap.post(RECORD, with_cas(0)).await?.gives("kv", version(1))?;
    bootstrap.get(RECORD).await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    // Not the 400 of check-and-set: the right to overwrite is asked for first.
    for body in [with_cas(0), with_cas(1), json!({ "data": {} }), json!({})] {
        bootstrap.post(RECORD, body).await?.refuses(403, DENIED)?;
    }
    bootstrap.ask("PATCH", RECORD, Some(json!({ "data": {} }))).await?.refuses(403, DENIED)?;
    for (method, path) in [("DELETE", RECORD), ("GET", "secret/metadata/istio/ca"), ("GET", "secret/data/other")] {
        bootstrap.ask(method, path, None).await?.refuses(403, DENIED)?;
    }
    root.delete(RECORD).await?.done()?;
    bootstrap.post(RECORD, with_cas(0)).await?.refuses(403, DENIED)?;
    root.delete("secret/metadata/istio/ca").await?.done()?;
    bootstrap.post(RECORD, with_cas(0)).await?.gives("kv", version(1))?;
    Ok(())
}

pub async fn of_twenty_with_the_bootstrap_policy_one_creates(vault: &VaultApi) -> Result<()> {
    let bootstrap = Caller::who_may(vault, include_str!("../../../../../deploy/vault/istio-ca-bootstrap.hcl")).await?;
    let body = |writer: u64| json!({ "data": { "writer": writer }, "options": { "cas": 0 } });
    let answers = try_join_all((0..20).map(|writer| bootstrap.post(RECORD, body(writer)))).await?;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.status == 200).collect();
    let [(winner, _)] = winners[..] else { anyhow::bail!("{answers:?}") };
    // Whoever was asked for the right to create before there was something, and wrote after, is told by check-and-set.
    let losses = [(403, json!({ "errors": [DENIED] })), (400, json!({ "errors": [CAS_MISMATCH] }))];
    let lost = answers.iter().filter(|answer| losses.contains(&(answer.status, answer.body.clone())));
    ensure!(lost.count() == 19, "{answers:?}");
    bootstrap.get(RECORD).await?.gives("kv", record(1, &json!({ "writer": winner })))?;
    Ok(())
}

pub async fn the_sync_policy_only_reads(vault: &VaultApi) -> Result<()> {
    let sync = Caller::who_may(vault, include_str!("../../../../../deploy/vault/istio-ca-sync.hcl")).await?;
    sync.get(RECORD).await?.silent(404)?;
    sync.post(RECORD, with_cas(0)).await?.refuses(403, DENIED)?;
    Caller::root(vault).post(RECORD, with_cas(0)).await?.gives("kv", version(1))?;
    sync.get(RECORD).await?.gives("kv", record(1, &json!({ "k": "v" })))?;
    sync.post(RECORD, with_cas(1)).await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn two_stanzas_for_one_path_add_up(vault: &VaultApi) -> Result<()> {
    // One file for both roles.
    let seed = "path \"secret/data/istio/ca\" {\n  capabilities = [\"create\", \"update\", \"patch\"]\n}\n\
        path \"secret/data/istio/ca\" {\n  capabilities = [\"read\"]\n}\n";
    let both = Caller::who_may(vault, seed).await?;
    let told = both.post("sys/capabilities-self", json!({ "paths": [RECORD] })).await?;
    ensure!(told.body["data"][RECORD] == json!(["create", "patch", "read", "update"]), "{told:?}");
    both.post(RECORD, with_cas(0)).await?.gives("kv", version(1))?;
    both.post(RECORD, with_cas(0)).await?.refuses(400, CAS_MISMATCH)?;
    both.post(RECORD, with_cas(1)).await?.gives("kv", version(2))?;
    both.ask("PATCH", RECORD, Some(json!({ "data": { "n": 1 } }))).await?.gives("kv", version(3))?;
    both.get(RECORD).await?.gives("kv", record(3, &json!({ "k": "v", "n": 1 })))?;
    Ok(())
}

pub async fn without_a_token_nothing_is_told(vault: &VaultApi) -> Result<()> {
    let nobody = Caller::nobody(vault);
    for path in [RECORD, "none/data/istio/ca", "sys/mounts", "auth/token/lookup-self", "auth/none/config"] {
        nobody.get(path).await?.refuses(403, "permission denied")?;
    }
    nobody.post(RECORD, with_cas(0)).await?.refuses(403, "permission denied")?;
    nobody.post("auth/none/login", json!({ "role": "r", "jwt": "j" })).await?.refuses(403, "permission denied")?;
    Ok(())
}

pub async fn an_unknown_token_is_told_apart_from_a_missing_right(vault: &VaultApi) -> Result<()> {
    let unknown = Caller::with(vault, "hvs.unknown");
    for path in [RECORD, "none/data/istio/ca", "sys/mounts", "auth/token/lookup-self"] {
        unknown.get(path).await?.refuses(403, UNKNOWN_TOKEN)?;
    }
    unknown.post(RECORD, with_cas(0)).await?.refuses(403, UNKNOWN_TOKEN)?;
    let none = Caller::of(vault, &["none"]).await?;
    for path in [RECORD, "none/data/istio/ca", "sys/mounts"] {
        none.get(path).await?.refuses(403, DENIED)?;
    }
    // The header of Vault's own clients.
    let header = [("x-vault-token", vault.root_token())];
    let answer = vault.raw(None, "GET", RECORD, &header, None).await?;
    ensure!(answer.status() == 404, "{answer:?}");
    let answer = vault.raw(None, "GET", RECORD, &[("x-vault-token", "hvs.unknown")], None).await?;
    ensure!(answer.status() == 403, "{answer:?}");
    Ok(())
}

pub async fn whether_a_write_creates_is_asked_of_the_metadata(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let creator = Caller::who_may(vault, "path \"secret/data/*\" { capabilities = [\"create\"] }").await?;
    root.post("secret/metadata/a", json!({ "max_versions": 3 })).await?.done()?;
    creator.post("secret/data/a", with_cas(0)).await?.refuses(403, DENIED)?;
    creator.post("secret/data/b", with_cas(0)).await?.gives("kv", version(1))?;
    let updater = Caller::who_may(vault, "path \"secret/data/*\" { capabilities = [\"update\"] }").await?;
    updater.post("secret/data/a", with_cas(0)).await?.gives("kv", version(1))?;
    updater.post("secret/data/c", with_cas(0)).await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn a_list_needs_its_own_right(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    root.post(RECORD, with_cas(0)).await?.gives("kv", version(1))?;
    let keys = json!({ "keys": ["istio/"] });
    for path in ["secret/metadata", "secret/metadata/", "secret/metadata/*"] {
        let lister = Caller::who_may(vault, &format!("path {path:?} {{ capabilities = [\"list\"] }}")).await?;
        lister.list("secret/metadata").await?.gives("kv", keys.clone())?;
        let reader = Caller::who_may(vault, &format!("path {path:?} {{ capabilities = [\"read\"] }}")).await?;
        reader.list("secret/metadata").await?.refuses(403, DENIED)?;
    }
    Ok(())
}

pub async fn the_most_specific_rule_decides(vault: &VaultApi) -> Result<()> {
    let policy = "path \"secret/*\" { capabilities = [\"read\", \"list\"] }
        path \"secret/data/*\" { capabilities = [\"update\"] }
        path \"secret/data/istio/ca\" { capabilities = [\"create\"] }
        path \"secret/+/istio/*\" { capabilities = [\"delete\"] }
        path \"secret/data/+/plus\" { capabilities = [\"patch\"] }
        path \"secret/data/a/b/*\" { capabilities = [\"sudo\"] }
        path \"secret/data/a/b/+\" { capabilities = [\"deny\"] }";
    let caller = Caller::who_may(vault, policy).await?;
    let expected = json!({
        "secret/other": ["list", "read"],
        "secret/data/x": ["update"],
        "secret/data/istio/ca": ["create"],
        // Of two whose first wildcard is at the same place, the one with fewer of them.
        "secret/metadata/istio/ca": ["list", "read"],
        "secret/data/istio/other": ["update"],
        "secret/data/a/plus": ["patch"],
        "secret/data/a/plus/more": ["update"],
        "secret/data/a/b/c": ["deny"],
        "secret/data/a/b/c/d": ["sudo"],
        "other": ["deny"],
    });
    let paths: Vec<_> = expected.as_object().into_iter().flatten().map(|(path, _)| path.clone()).collect();
    let told = caller.post("sys/capabilities-self", json!({ "paths": paths })).await?;
    ensure!(told.body["data"] == expected, "{told:?}");
    Ok(())
}

pub async fn a_denial_outweighs_every_other_policy(vault: &VaultApi) -> Result<()> {
    vault.policy("may", "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    vault.policy("must-not", "path \"secret/data/a\" { capabilities = [\"deny\"] }").await?;
    vault.policy("all", "path \"secret/*\" { capabilities = [\"read\"] }").await?;
    Caller::of(vault, &["may", "all"]).await?.get("secret/data/a").await?.silent(404)?;
    let denied = Caller::of(vault, &["may", "must-not", "all"]).await?;
    denied.get("secret/data/a").await?.refuses(403, DENIED)?;
    denied.get("secret/data/b").await?.silent(404)?;
    Ok(())
}

pub async fn a_policy_is_kept_as_it_was_written(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let text = "# why\npath \"secret/data/a\" {\n  capabilities = [\"read\"]\n}\n";
    root.list("sys/policies/acl").await?.gives("system", json!({ "keys": ["default", "root"] }))?;
    root.post("sys/policies/acl/zoo", json!({ "policy": text })).await?.done()?;
    let caller = Caller::of(vault, &["zoo"]).await?;
    root.get("sys/policies/acl/zoo").await?.gives("system", json!({ "name": "zoo", "policy": text }))?;
    root.list("sys/policies/acl").await?.gives("system", json!({ "keys": ["default", "zoo", "root"] }))?;
    caller.get("secret/data/a").await?.silent(404)?;
    // A token has what its policies say now.
    let other = "path \"secret/data/b\" {\n  capabilities = [\"read\"]\n}\n";
    root.ask("PUT", "sys/policies/acl/zoo", Some(json!({ "policy": other }))).await?.done()?;
    caller.get("secret/data/a").await?.refuses(403, DENIED)?;
    caller.get("secret/data/b").await?.silent(404)?;
    root.delete("sys/policies/acl/zoo").await?.done()?;
    root.delete("sys/policies/acl/zoo").await?.done()?;
    root.get("sys/policies/acl/zoo").await?.silent(404)?;
    caller.get("secret/data/b").await?.refuses(403, DENIED)?;
    let converted = "policy name was converted to big";
    root.post("sys/policies/acl/BIG", json!({ "policy": text })).await?.warns(200, "system", converted)?;
    root.get("sys/policies/acl/big").await?.gives("system", json!({ "name": "big", "policy": text }))?;
    Ok(())
}

pub async fn a_policy_in_json_is_one_too(vault: &VaultApi) -> Result<()> {
    let policy =
        json!({ "path": { "secret/data/a": { "capabilities": ["read"] }, "x": { "capabilities": ["list"] } } });
    let caller = Caller::who_may(vault, &policy.to_string()).await?;
    caller.get("secret/data/a").await?.silent(404)?;
    caller.get("secret/data/b").await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn what_is_no_policy_is_refused(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    for (policy, error) in [
        ("", "'policy' parameter not supplied or empty"),
        ("path \"a\" { capabilities=[\"fly\"] }", "failed to parse policy: path \"a\": invalid capability \"fly\""),
        (
            "path \"a/+*\" { capabilities=[\"read\"] }",
            "failed to parse policy: path \"a/+*\": invalid use of wildcards ('+*' is forbidden)",
        ),
    ] {
        root.post("sys/policies/acl/bad", json!({ "policy": policy })).await?.refuses(400, error)?;
    }
    // What follows is the parser's.
    for (policy, start) in [
        ("path \"a\" {", "failed to parse policy: "),
        (
            "road \"a\" { capabilities=[\"read\"] }",
            "failed to parse policy: 1 error occurred:\n\t* invalid key \"road\"",
        ),
        (
            "path \"a\" { wings=[\"read\"] }",
            "failed to parse policy: 1 error occurred:\n\t* path \"a\": invalid key \"wings\"",
        ),
    ] {
        let answer = root.post("sys/policies/acl/bad", json!({ "policy": policy })).await?;
        let error = answer.body["errors"][0].as_str().unwrap_or_default();
        ensure!(answer.status == 400 && error.starts_with(start), "{answer:?}");
    }
    root.get("sys/policies/acl/bad").await?.silent(404)?;
    let any = || json!({ "policy": "path \"a\" { capabilities=[\"read\"] }" });
    root.post("sys/policies/acl/root", any()).await?.refuses(400, "cannot update \"root\" policy")?;
    root.delete("sys/policies/acl/root").await?.refuses(400, "cannot delete \"root\" policy")?;
    root.delete("sys/policies/acl/default").await?.refuses(400, "cannot delete default policy")?;
    Ok(())
}

/// What the making of a token gives.
fn made(policies: &[&str], lease_duration: u64) -> Value {
    let mut pattern = envelope("token", Value::Null);
    pattern["auth"] = json!({
        "accessor": ANY, "client_token": ANY, "entity_id": "", "lease_duration": lease_duration, "metadata": null,
        "mfa_requirement": null, "num_uses": 0, "orphan": false, "policies": policies,
        "renewable": lease_duration > 0, "token_policies": policies, "token_type": "service",
    });
    pattern
}

pub async fn a_token_tells_of_itself(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    let about_root = json!({
        "accessor": ANY, "creation_time": 0, "creation_ttl": 0, "display_name": "root", "entity_id": "",
        "expire_time": null, "explicit_max_ttl": 0, "id": vault.root_token(), "meta": null, "num_uses": 0,
        "orphan": true, "path": "auth/token/root", "policies": ["root"], "ttl": 0, "type": "service",
    });
    let mut answer = root.get("auth/token/lookup-self").await?;
    answer.body["data"]["creation_time"] = json!(0);
    answer.gives("token", about_root)?;

    vault.policy("p", "path \"a\" { capabilities = [\"read\"] }").await?;
    let answer = root.post("auth/token/create", json!({ "policies": ["p"], "ttl": "1h" })).await?;
    let answer = answer.is(200, made(&["default", "p"], 3600))?;
    let token = answer.body["auth"]["client_token"].as_str().context("no token")?;
    ensure!(token.starts_with("hvs."), "{token}");
    let about = json!({
        "accessor": answer.body["auth"]["accessor"], "creation_time": 0, "creation_ttl": 3600,
        "display_name": "token", "entity_id": "", "expire_time": ANY, "explicit_max_ttl": 0, "id": token,
        "issue_time": ANY, "meta": null, "num_uses": 0, "orphan": false, "path": "auth/token/create",
        "policies": ["default", "p"], "renewable": true, "ttl": 3600, "type": "service",
    });
    let mut answer = Caller::with(vault, token).get("auth/token/lookup-self").await?;
    answer.body["data"]["creation_time"] = json!(0);
    rounded(&mut answer, 3600);
    answer.gives("token", about)?;
    Ok(())
}

/// Takes what is left of a token's time for all of it, on a machine that may be busy.
pub fn rounded(answer: &mut Answered, ttl: u64) {
    let left = answer.body["data"]["ttl"].as_u64();
    if left.is_some_and(|left| left <= ttl && left + 60 > ttl) {
        answer.body["data"]["ttl"] = json!(ttl);
    }
}

pub async fn a_token_ends_with_its_time(vault: &VaultApi) -> Result<()> {
    let root = Caller::root(vault);
    vault.policy("p", "path \"secret/data/a\" { capabilities = [\"read\"] }").await?;
    let body = json!({ "policies": ["p"], "ttl": "3s" });
    let answer = root.post("auth/token/create", body).await?.is(200, made(&["default", "p"], 3))?;
    let brief = Caller::with(vault, answer.body["auth"]["client_token"].as_str().context("no token")?);
    brief.get("secret/data/a").await?.silent(404)?;
    let ended = || async { brief.get("secret/data/a").await?.refuses(403, UNKNOWN_TOKEN) };
    eventually("a token that has ended", SOON, ended).await?;

    let mut capped = made(&["default", "p"], 2_764_800);
    root.post("auth/token/create", json!({ "policies": "p" })).await?.is(200, capped.clone())?;
    let warning = "TTL of \"1000h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly";
    capped["warnings"] = json!([warning]);
    root.post("auth/token/create", json!({ "policies": ["p"], "ttl": "1000h" })).await?.is(200, capped)?;
    let body = json!({ "policies": ["p"], "ttl": "x" });
    root.post("auth/token/create", body).await?.refuses(400, "time: invalid duration \"x\"")?;
    Ok(())
}

pub async fn a_token_can_end_itself(vault: &VaultApi) -> Result<()> {
    let caller = Caller::of(vault, &["none"]).await?;
    caller.post("auth/token/lookup-self", json!({})).await?.refuses(403, DENIED)?;
    caller.get("auth/token/revoke-self").await?.refuses(403, DENIED)?;
    caller.post("auth/token/revoke-self", json!({})).await?.done()?;
    caller.get("auth/token/lookup-self").await?.refuses(403, UNKNOWN_TOKEN)?;
    caller.post("auth/token/revoke-self", json!({})).await?.refuses(403, UNKNOWN_TOKEN)?;
    Ok(())
}

pub async fn a_token_ends_with_its_parent(vault: &VaultApi) -> Result<()> {
    let parent = Caller::who_may(vault, "path \"auth/token/create\" { capabilities = [\"update\"] }").await?;
    let answer = parent.post("auth/token/create", json!({})).await?;
    let child = Caller::with(vault, answer.body["auth"]["client_token"].as_str().context("no token")?);
    child.get("auth/token/lookup-self").await?;
    parent.post("auth/token/revoke-self", json!({})).await?.done()?;
    let ended = || async { child.get("auth/token/lookup-self").await?.refuses(403, UNKNOWN_TOKEN) };
    eventually("a child that has ended", SOON, ended).await?;
    Ok(())
}

pub async fn a_token_makes_none_that_may_more(vault: &VaultApi) -> Result<()> {
    let caller = Caller::who_may(vault, "path \"auth/token/create\" { capabilities = [\"update\"] }").await?;
    for policies in ["root", "other"] {
        let answer = caller.post("auth/token/create", json!({ "policies": [policies] })).await?;
        answer.refuses(400, "child policies must be subset of parent")?;
    }
    let body = json!({ "policies": ["case"], "ttl": 60, "no_default_policy": true });
    caller.post("auth/token/create", body).await?.is(200, made(&["case"], 60))?;
    let mut pattern = made(&["default", "none"], 60);
    pattern["warnings"] = json!(["Policy \"none\" does not exist"]);
    let body = json!({ "policies": ["none"], "ttl": 60 });
    Caller::root(vault).post("auth/token/create", body).await?.is(200, pattern)?;
    Caller::root(vault).post("auth/token/create", json!({})).await?.is(200, made(&["root"], 0))?;
    Caller::of(vault, &["none"]).await?.post("auth/token/create", json!({})).await?.refuses(403, DENIED)?;
    Ok(())
}

pub async fn capabilities_are_told_by_path(vault: &VaultApi) -> Result<()> {
    let told = |capabilities: Value| {
        let mut pattern = envelope("system", capabilities.clone());
        for (path, names) in capabilities.as_object().into_iter().flatten() {
            pattern[path] = names.clone();
        }
        pattern
    };
    let path = "sys/capabilities-self";
    let caller = Caller::who_may(vault, include_str!("../../../../../deploy/vault/istio-ca-bootstrap.hcl")).await?;
    let two = json!({ RECORD: ["create", "read"], "sys/mounts": ["deny"] });
    caller.post(path, json!({ "paths": [RECORD, "sys/mounts"] })).await?.is(200, told(two))?;
    let one = json!({ RECORD: ["create", "read"], "capabilities": ["create", "read"] });
    caller.post(path, json!({ "paths": [RECORD] })).await?.is(200, told(one.clone()))?;
    caller.post(path, json!({ "path": RECORD })).await?.is(200, told(one))?;
    let root = json!({ "x": ["root"], "capabilities": ["root"] });
    Caller::root(vault).post(path, json!({ "paths": "x" })).await?.is(200, told(root))?;
    caller.post(path, json!({})).await?.refuses(400, "paths must be supplied")?;
    Caller::nobody(vault).post(path, json!({ "paths": ["x"] })).await?.refuses(403, "permission denied")?;
    Ok(())
}
