//! `deploy/vault/setup.sh` as an administrator runs it: on real clusters and a real Vault, with the rights of
//! `setup.hcl` and nothing more.

mod desk;
mod signing;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};
use testbed::{Program, Vault, VaultOptions, token_signing_key};
use tokio::process::Command;

use self::desk::{AT_MOST, Desk, Said, shipped};
use crate::gate::{Gate, binary};
use crate::story::decode;
use crate::world::{NAMESPACE, Side, World, place};

const RECORD: &str = "secret/data/istio/ca";

/// All that a set-up of both clusters consists of.
const ALL: [&str; 9] = [
    "secret/:",
    "sys/policies/acl/istio-ca-bootstrap:",
    "sys/policies/acl/istio-ca-sync:",
    "auth/kubernetes:",
    "auth/kubernetes/config:",
    "auth/kubernetes/role/istio-ca-bootstrap:",
    "auth/kubernetes-nas:",
    "auth/kubernetes-nas/config:",
    "auth/kubernetes-nas/role/istio-ca-sync:",
];

/// The flags of a homelab in which this Vault does not run: the address, and what its API server's Secret holds.
async fn flags_of(desk: &Desk, side: &Side) -> Result<Vec<String>> {
    allow_reviews(side).await?;
    let path = "/api/v1/namespaces/kube-system/secrets/vault-token-reviewer";
    let secret = side.object(path).await?.context("no reviewer")?;
    let ca = desk.write("homelab-ca.pem", &decode(&secret["data"]["ca.crt"])?)?;
    let token = desk.write("homelab-token", &decode(&secret["data"]["token"])?)?;
    let flags = ["--homelab-host", side.api.url(), "--homelab-ca", &ca, "--homelab-reviewer-token-file", &token];
    Ok(flags.map(str::to_owned).into())
}

async fn allow_reviews(side: &Side) -> Result<()> {
    let manifest = shipped("token-reviewer.yaml");
    side.cluster.kubectl(&["apply", "--validate=strict", "-f", &manifest.to_string_lossy()]).await?;
    let token = "jsonpath={.data.token}";
    let wait = ["-n", "kube-system", "wait", "secret/vault-token-reviewer", "--timeout=30s", "--for", token];
    side.cluster.kubectl(&wait).await?;
    Ok(())
}

/// All of Vault's own state that a set-up is about.
async fn state(vault: &Vault) -> Result<Vec<Value>> {
    let mut state = Vec::new();
    for path in [
        "sys/mounts",
        "sys/auth",
        "sys/policies/acl/istio-ca-bootstrap",
        "sys/policies/acl/istio-ca-sync",
        "auth/kubernetes/config",
        "auth/kubernetes/role/istio-ca-bootstrap",
        "auth/kubernetes-nas/config",
        "auth/kubernetes-nas/role/istio-ca-sync",
    ] {
        let (status, answer) = vault.api("GET", path, None).await?;
        state.push(json!([path, status, answer["data"]]));
    }
    Ok(state)
}

async fn log_in(vault: &Vault, side: &Side, jwt: &str) -> Result<(u16, Value)> {
    let body = json!({ "role": side.policy(), "jwt": jwt });
    vault.api_with(None, "POST", &format!("auth/{}/login", side.auth_mount), Some(body)).await
}

/// The gate's own token is let in, with one policy and for an hour; what differs from it in one thing is not.
async fn only_the_gate_is_let_in(vault: &Vault, side: &Side, other: &Side) -> Result<String> {
    let (status, answer) = log_in(vault, side, &side.gate_token("vault").await?).await?;
    ensure!(status == 200, "{answer}");
    let granted = &answer["auth"];
    ensure!(granted["token_policies"] == json!(["default", side.policy()]), "{granted}");
    ensure!(granted["lease_duration"] == 3600, "{granted}");
    // And the Job's, which may have been there before.
    let account = json!({ "metadata": { "name": side.job_account() } });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    side.cluster.request("POST", &path, Some(account)).await?;
    let job = side.cluster.service_account_token(NAMESPACE, &side.job_account(), &["vault"], 3600).await?;
    let (status, answer) = log_in(vault, side, &job).await?;
    ensure!(status == 200, "{answer}");
    for (cluster, namespace) in [(side, "default"), (other, NAMESPACE)] {
        let account = json!({ "metadata": { "name": side.service_account } });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        cluster.cluster.request("POST", &path, Some(account)).await?;
    }
    for (cluster, namespace, account, audience) in [
        (side, NAMESPACE, "default", "vault"),
        (side, "default", side.service_account, "vault"),
        (side, NAMESPACE, side.service_account, side.cluster.issuer()),
        (other, NAMESPACE, side.service_account, "vault"),
    ] {
        let token = cluster.cluster.service_account_token(namespace, account, &[audience], 3600).await?;
        let (status, answer) = log_in(vault, side, &token).await?;
        let who = format!("{namespace}/{account} of {} for {audience} at {}", cluster.name, side.name);
        ensure!(matches!(status, 400 | 403), "{who}: {status}: {answer}");
        println!("refused: {who}: {status} {}", answer["errors"]);
    }
    Ok(granted["client_token"].as_str().context("no token")?.to_owned())
}

/// What doctor says of Vault: that all is well. A right that the policies do not give is a note.
async fn doctor_is_content(desk: &Desk, vault: &Vault, side: &Side) -> Result<()> {
    let jwt = desk.write("jwt", &side.gate_token("vault").await?)?;
    let mut command = Command::new(binary());
    command.args(["doctor", "-o", "json", "--role", side.role, "--vault-auth-mount", side.auth_mount]).env_clear();
    command.env("VAULT_ADDR", vault.address()).env("VAULT_CACERT", vault.ca_file());
    command.env("GATE_VAULT_JWT_FILE", jwt).env("KUBECONFIG", side.cluster.kubeconfig());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(AT_MOST, output).await.context("doctor runs on")??;
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let of_vault: Vec<_> =
        lines.iter().filter(|line| line["id"].as_str().is_some_and(|id| id.starts_with("vault-"))).collect();
    for id in ["vault-auth-mount", "vault-login", "vault-rights", "vault-record"] {
        ensure!(of_vault.iter().any(|line| line["id"] == id && line["outcome"] == "ok"), "no good {id}: {of_vault:?}");
    }
    let bad = of_vault.iter().find(|line| !matches!(line["outcome"].as_str(), Some("ok" | "note")));
    ensure!(bad.is_none(), "{bad:?}");
    Ok(())
}

async fn put(vault: &Vault, token: &str, cas: u64) -> Result<u16> {
    let body = json!({ "options": { "cas": cas }, "data": { "root-cert.pem": "another" } });
    Ok(vault.api_with(Some(token), "POST", RECORD, Some(body)).await?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_of_which_nothing_is_set_up_is_ready_for_both_gates_by_either_way_and_once() -> Result<()> {
    let world = World::not_introduced().await?;
    let World { homelab, nas, vault, .. } = &world;
    vault.ok("DELETE", "sys/mounts/secret", None).await?;
    let desk = Desk::new(&[homelab, nas]).await?.at(vault).await?;
    let flags = flags_of(&desk, homelab).await?;
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    desk.set_up(&flags).await?.changed(&ALL)?;
    let before = state(vault).await?;
    desk.set_up(&flags).await?.changed_nothing_of(ALL.len())?;
    ensure!(state(vault).await? == before);

    let bootstrap = only_the_gate_is_let_in(vault, homelab, nas).await?;
    let sync = only_the_gate_is_let_in(vault, nas, homelab).await?;
    ensure!(put(vault, &sync, 0).await? == 403, "the sync role wrote");
    let gates = both_gates_open(vault, homelab, nas).await?;
    for token in [&bootstrap, &sync] {
        ensure!(vault.api_with(Some(token), "GET", RECORD, None).await?.0 == 200);
        ensure!(put(vault, token, 1).await? == 403, "the root was written over");
        ensure!(vault.api_with(Some(token), "DELETE", RECORD, None).await?.0 == 403, "the root was deleted");
    }
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    doctor_is_content(&desk, vault, homelab).await?;
    doctor_is_content(&desk, vault, nas).await?;
    drop(gates);

    allow_reviews(nas).await?;
    by_review(&desk, vault, homelab, nas).await
}

async fn both_gates_open(vault: &Vault, homelab: &Side, nas: &Side) -> Result<Vec<Gate>> {
    let mut gates = Vec::new();
    for side in [homelab, nas] {
        let gate = Gate::start(side, vault).await?;
        side.deploy_istiod().await?;
        side.pod("istiod").await?;
        gate.stands("open", None).await?;
        gates.push(gate);
    }
    Ok(gates)
}

/// The other way for the NAS, in place of the one that is there.
async fn by_review(desk: &Desk, vault: &Vault, homelab: &Side, nas: &Side) -> Result<()> {
    let before = state(vault).await?;
    let flags = ["nas", "--nas-by", "review", "--nas-host", nas.api.url()];
    let said = desk.set_up(&flags).await?;
    ensure!(said.code == Some(1) && said.out.contains("auth/kubernetes-nas is of type jwt"), "{said:?}");
    ensure!(state(vault).await? == before, "it was touched");
    let forced = [&flags[..], &["--force"]].concat();
    desk.set_up(&forced).await?.changed(&ALL[6..])?;
    let switched = state(vault).await?;
    desk.set_up(&flags).await?.changed_nothing_of(3)?;
    ensure!(state(vault).await? == switched);
    // What cannot be compared: the reviewer's token.
    desk.set_up(&forced).await?.changed(&ALL[7..8])?;
    ensure!(state(vault).await? == switched);

    // By what is printed, the same: kubectl brings the token when it is run.
    let printed = desk.set_up(&[&flags[..], &["--print"]].concat()).await?;
    ensure!(printed.code == Some(0) && printed.out.contains("$(kubectl --context 'nas' "), "{printed:?}");
    vault.ok("DELETE", "sys/auth/kubernetes-nas", None).await?;
    let ran = desk.run(Path::new("sh"), &["-e", &desk.write("printed.sh", &printed.out)?]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    desk.set_up(&flags).await?.changed_nothing_of(3)?;

    only_the_gate_is_let_in(vault, nas, homelab).await?;
    let gate = Gate::start(nas, vault).await?;
    nas.restart("istiod").await?;
    let report = gate.stands("open", None).await?;
    ensure!(report["vault"]["version"] == 1, "{report}");
    doctor_is_content(desk, vault, nas).await
}

/// A state that is not as it has to be, what is said of it, and whether `--force` mends it.
struct Wrong {
    path: &'static str,
    body: Value,
    says: &'static str,
    mended: bool,
}

fn wrong(path: &'static str, body: Value, says: &'static str) -> Wrong {
    Wrong { path, body, says, mended: true }
}

/// The step that sees to what is at a path.
fn step_of(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("sys/policies/") => "vault",
        _ if path.starts_with("auth/kubernetes-nas/") => "nas",
        _ => "homelab",
    }
}

fn wrongs(ca: &str) -> Result<[Wrong; 11]> {
    let policy = json!({ "policy": "path \"secret/data/istio/ca\" { capabilities = [\"create\", \"update\"] }" });
    let keys = json!({ "jwt_validation_pubkeys": [token_signing_key()?.1], "bound_issuer": "https://nas.test" });
    let host =
        json!({ "kubernetes_host": "https://other.test", "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true });
    let (homelab, nas) = ("auth/kubernetes/role/istio-ca-bootstrap", "auth/kubernetes-nas/role/istio-ca-sync");
    let says = "bound_service_account_names is [\"*\"], not [\"istio-ca-gate\",\"istio-ca-bootstrap\"]";
    Ok([
        wrong("sys/policies/acl/istio-ca-sync", policy, "policy istio-ca-sync is not that of istio-ca-sync.hcl"),
        wrong(homelab, json!({ "bound_service_account_names": "*" }), says),
        wrong(
            homelab,
            json!({ "bound_service_account_namespace_selector": "{\"matchLabels\":{\"a\":\"b\"}}" }),
            "bound_service_account_namespace_selector is ",
        ),
        wrong(homelab, json!({ "audience": "" }), "audience is null, not \"vault\""),
        wrong(homelab, json!({ "token_period": "1h" }), "token_period is 3600, not 0"),
        wrong(homelab, json!({ "token_policies": "root-of-all" }), "token_policies is [\"root-of-all\"]"),
        wrong(
            nas,
            json!({ "role_type": "jwt", "bound_audiences": "vault,other" }),
            "bound_audiences is [\"vault\",\"other\"]",
        ),
        wrong(
            nas,
            json!({ "role_type": "jwt", "bound_subject": "somebody", "bound_claims": {} }),
            "bound_subject is \"somebody\", not \"\"",
        ),
        wrong(nas, json!({ "role_type": "jwt", "token_ttl": "12h" }), "token_ttl is 43200, not 3600"),
        wrong("auth/kubernetes-nas/config", keys, "jwt_validation_pubkeys is another"),
        Wrong {
            mended: false,
            ..wrong("auth/kubernetes/config", host, "kubernetes_host is https://other.test, not https://homelab.test")
        },
    ])
}

/// Both clusters from files, so that none has to be there.
fn by_files(desk: &Desk, vault: &Vault) -> Result<Vec<String>> {
    let ca = vault.ca_file().to_string_lossy().into_owned();
    let token = desk.write("reviewer-token", "no token of any cluster\n")?;
    let key = desk.write("nas.pub", &token_signing_key()?.1)?;
    let homelab = ["--homelab-host", "https://homelab.test", "--homelab-ca", &ca];
    let reviewer = ["--homelab-reviewer-token-file", &token];
    let nas = ["--nas-issuer", "https://nas.test", "--nas-public-key", &key];
    Ok([&homelab[..], &reviewer, &nas].concat().into_iter().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_otherwise_is_told_and_left_alone_and_written_over_by_force_alone() -> Result<()> {
    let _permit = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    let flags = by_files(&desk, &vault)?;
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    from_the_job_of_old(&desk, &vault, &flags).await?;
    for Wrong { path, body, says, mended } in wrongs(vault.ca_pem())? {
        vault.ok("POST", path, Some(body)).await?;
        let before = state(&vault).await?;
        let step = [&flags[..], &[step_of(path)]].concat();
        let force = [&step[..], &["--force"]].concat();
        is_left_alone(&desk.set_up(&step).await?, says)?;
        ensure!(state(&vault).await? == before, "{path} was touched");
        let said = desk.set_up(&force).await?;
        if mended {
            ensure!(said.code == Some(0) && said.marked("changed  ") == [format!("{path}:")], "{said:?}");
            desk.set_up(&step).await?.changed_nothing_of(3)?;
        } else {
            is_left_alone(&said, says)?;
            ensure!(state(&vault).await? == before, "{path} was touched");
        }
    }
    engines(&desk, &vault).await
}

/// The set-up of the Job that the gate comes after: one file with both policies, and a role without audience.
async fn from_the_job_of_old(desk: &Desk, vault: &Vault, flags: &[&str]) -> Result<()> {
    let both = "path \"secret/data/istio/ca\" { capabilities = [\"create\", \"read\", \"update\", \"patch\"] }\n\
        path \"secret/data/istio/ca\" { capabilities = [\"read\"] }";
    vault.policy("istio-ca-bootstrap", both).await?;
    vault.policy("istio-ca-sync", both).await?;
    vault.ok("POST", "sys/auth/kubernetes", Some(json!({ "type": "kubernetes" }))).await?;
    let config = json!({
        "kubernetes_host": "https://homelab.test", "kubernetes_ca_cert": vault.ca_pem(), "disable_local_ca_jwt": true,
    });
    vault.ok("POST", "auth/kubernetes/config", Some(config)).await?;
    let role = json!({
        "bound_service_account_names": "istio-ca-bootstrap", "bound_service_account_namespaces": "istio-system",
        "policies": "istio-ca-bootstrap", "ttl": "1h",
    });
    vault.role("kubernetes", "istio-ca-bootstrap", role).await?;
    let said = desk.set_up(flags).await?;
    let wrong = ["policy", "policy", "auth/kubernetes/role/istio-ca-bootstrap:"];
    ensure!(said.code == Some(1) && said.marked("WRONG    ") == wrong, "{said:?}");
    ensure!(said.marked("changed  ") == ALL[6..], "{said:?}");
    let forced = desk.set_up(&[flags, &["--force"]].concat()).await?;
    forced.changed(&[ALL[1], ALL[2], ALL[5]])?;
    desk.set_up(flags).await?.changed_nothing_of(ALL.len())
}

fn is_left_alone(said: &Said, says: &str) -> Result<()> {
    let told = said.out.lines().filter(|line| line.starts_with("WRONG ")).collect::<Vec<_>>();
    ensure!(said.code == Some(1) && told.len() == 1 && told[0].contains(says), "not {says:?}: {said:?}");
    ensure!(said.out.contains("nothing changed: "), "{said:?}");
    println!("told: {}", told[0]);
    Ok(())
}

/// An engine is never touched, by force neither.
async fn engines(desk: &Desk, vault: &Vault) -> Result<()> {
    let expiring = json!({ "delete_version_after": "1h" });
    vault.ok("POST", "secret/config", Some(expiring)).await?;
    is_left_alone(&desk.set_up(&["vault", "--force"]).await?, "deletes each version after 1h0m0s")?;
    for (engine, says) in [("kv", "is KV version 1"), ("transit", "is no KV engine")] {
        vault.ok("DELETE", "sys/mounts/secret", None).await?;
        vault.ok("POST", "sys/mounts/secret", Some(json!({ "type": engine }))).await?;
        let before = state(vault).await?;
        is_left_alone(&desk.set_up(&["vault", "--force"]).await?, says)?;
        ensure!(state(vault).await? == before);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_vault_the_script_takes_bao() -> Result<()> {
    let _place = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    ensure!(Program::new("sh").args(["-c", "command -v vault"]).output(None).await.is_err(), "there is another vault");
    fs::rename(desk.commands().join("vault"), desk.commands().join("bao"))?;
    let said = desk.set_up(&["vault"]).await?;
    ensure!(said.code == Some(0) && said.marked("changed  ").len() == 2, "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_print_prints_sets_a_vault_up_and_wrong_use_is_told() -> Result<()> {
    let _permit = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    vault.ok("DELETE", "sys/mounts/secret", None).await?;
    let nowhere = Desk::new(&[]).await?;
    let flags = by_files(&nowhere, &vault)?;
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    // No Vault is known there.
    let printed = nowhere.set_up(&[&flags[..], &["--print"]].concat()).await?;
    ensure!(printed.code == Some(0) && printed.err.is_empty(), "{printed:?}");
    ensure!(!printed.out.contains("no token of any cluster"), "{printed:?}");
    wrong_use(&nowhere).await?;

    let script = nowhere.write("printed.sh", &printed.out)?;
    let mut desk = nowhere.at(&vault).await?;
    let ran = desk.run(Path::new("sh"), &["-e", &script]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    desk.set_up(&flags).await?.changed_nothing_of(ALL.len())?;

    let anybody = vault.ok("POST", "auth/token/create", Some(json!({ "policies": ["default"] }))).await?;
    desk.bear(anybody["auth"]["client_token"].as_str().context("no token")?);
    let said = desk.set_up(&flags).await?;
    ensure!(said.code == Some(1) && said.out.is_empty() && said.err.contains("permission denied"), "{said:?}");
    Ok(())
}

async fn wrong_use(desk: &Desk) -> Result<()> {
    let ca = desk.write("ca.pem", "text")?;
    for (args, says) in [
        (&["--unknown", "x"][..], "--unknown"),
        (&["--nas-by"], "--nas-by"),
        (&["--nas-by", "guess"], "--nas-by"),
        (&["elsewhere"], "elsewhere"),
        (&["--nas-mount", "kubernetes"], "an auth mount of its own"),
        (&["--nas-mount", "a b"], "other characters"),
        (&["--homelab-ca", &ca], "go together"),
        (&["--nas-ca", "/nowhere"], "/nowhere"),
        (&["--nas-by", "review"], "--nas-host"),
        (&["--nas-by", "review", "--nas-host", "https://nas.test", "--nas-issuer", "x"], "--nas-issuer"),
        (&["--nas-host", "https://nas.test"], "--nas-host"),
    ] {
        let said = desk.set_up(args).await?;
        ensure!(said.code == Some(2) && said.out.is_empty() && said.err.contains(says), "{args:?}: {said:?}");
    }
    let help = desk.set_up(&["--help"]).await?;
    ensure!(help.code == Some(0) && help.err.is_empty(), "{help:?}");
    let script = fs::read_to_string(shipped("setup.sh"))?;
    let options = script.lines().filter_map(|line| line.trim().strip_prefix("--")?.split([' ', ')']).next());
    for option in options.filter(|option| !option.starts_with('*')) {
        ensure!(help.out.contains(&format!("--{option}")), "{option:?} is not in --help");
    }
    let key = desk.write("private.pem", &token_signing_key()?.0)?;
    let said = desk.set_up(&["--print", "nas", "--nas-issuer", "x", "--nas-public-key", &key]).await?;
    ensure!(said.code == Some(1) && said.err.contains("has a private key in it"), "{said:?}");
    Ok(())
}

/// What an API server that signs with other keys than those of the testbed answers.
#[tokio::test(flavor = "multi_thread")]
async fn keys_on_elliptic_curves_are_told_in_pem_and_others_refused() -> Result<()> {
    let desk = Desk::new(&[]).await?;
    let base64url = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (mut keys, mut pem) = (Vec::new(), String::new());
    for (algorithm, curve) in [(&PKCS_ECDSA_P256_SHA256, "P-256"), (&PKCS_ECDSA_P384_SHA384, "P-384")] {
        let key = KeyPair::generate_for(algorithm)?;
        // RFC 5480: 4, and both coordinates.
        let (x, y) = key.public_key_raw()[1..].split_at(key.public_key_raw().len() / 2);
        keys.push(json!({ "use": "sig", "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) }));
        pem += &key.public_key_pem();
    }
    let answer = desk.write("jwks", &json!({ "keys": keys }).to_string())?;
    Program::new("sh").args(["-c", &format!("cat {answer}")]).install(&desk.commands(), "kubectl")?;
    let said = desk.run(&shipped("public-keys.sh"), &[]).await?;
    ensure!(said.code == Some(0) && said.out == pem.replace("\r\n", "\n"), "{said:?}\n{pem}");
    for other in [json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AA" }] }), json!({ "keys": [] }), json!("")]
    {
        desk.write("jwks", &other.to_string())?;
        let said = desk.run(&shipped("public-keys.sh"), &[]).await?;
        ensure!(said.code == Some(1) && said.out.is_empty() && !said.err.is_empty(), "{other}: {said:?}");
    }
    Ok(())
}
