//! `adopt` against real clusters and a real Vault, with an administrator's rights.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Process, Program, Vault};

use crate::cacerts::foreign_ca;
use crate::gate::{Gate, Options, binary};
use crate::once::Run;
use crate::world::{NAMESPACE, SOON, Side, SmallWorld, World};

/// A run with `--yes`, and what it said.
async fn adopt(side: &Side, vault: &Vault, args: &[&str]) -> Result<(bool, String)> {
    adopt_as(side, vault, vault.root_token(), args).await
}

async fn adopt_as(side: &Side, vault: &Vault, token: &str, args: &[&str]) -> Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    let process = start(side, vault, token, args, folder.path())?;
    let status = process.exited(SOON).await?;
    let said = process.log();
    ensure!(!said.contains("PRIVATE KEY-") && !said.contains(token), "{said}");
    Ok((status.success(), said))
}

fn start(side: &Side, vault: &Vault, token: &str, args: &[&str], folder: &Path) -> Result<Process> {
    Program::new(binary())
        .args(["adopt", "--yes"])
        .args(args)
        .env("KUBECONFIG", side.cluster.kubeconfig())
        .env("VAULT_ADDR", vault.address())
        .env("VAULT_CACERT", vault.ca_file())
        .env("VAULT_TOKEN", token)
        .spawn(folder.join("log"))
}

/// Expects a refusal with this code, and a Vault with as many versions as before.
async fn refused(side: &Side, vault: &Vault, path: &str, code: &str) -> Result<()> {
    let before = vault.versions("secret", path).await?;
    let (success, said) = adopt(side, vault, &["--vault-path", path]).await?;
    ensure!(!success && said.contains(&format!("istio-ca-gate: {code}: cluster {}: ", side.name)), "{code}: {said}");
    ensure!(vault.versions("secret", path).await? == before, "{code}: it was written");
    Ok(())
}

/// Makes `cacerts` as an administrator does.
async fn make_cacerts(side: &Side, files: &Value) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let metadata = json!({ "name": "cacerts" });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files });
    let (status, made) = side.cluster.request("POST", &path, Some(secret)).await?;
    ensure!(status == 201, "{made}");
    Ok(made)
}

/// A root and a CA beneath it, made by openssl: the root's key stays where it was.
async fn intermediate_ca() -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let openssl = |args: &[&str]| Program::new("openssl").args(args.to_vec()).output(None);
    let subject = "/O=Own/CN=Own Root CA";
    let usage = "keyUsage=critical,keyCertSign,cRLSign";
    let (root_key, root, key, request, certificate, extensions) =
        (file("root.key"), file("root.pem"), file("ca.key"), file("ca.csr"), file("ca.pem"), file("ca.cnf"));
    let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"];
    let args = [&new[..], &[subject, "-x509", "-days", "300", "-addext", usage, "-keyout", &root_key, "-out", &root]];
    openssl(&args.concat()).await?;
    openssl(&[&new[..], &["/O=Own/CN=Own CA", "-keyout", &key, "-out", &request]].concat()).await?;
    std::fs::write(&extensions, format!("basicConstraints=critical,CA:TRUE\n{usage}\n"))?;
    let issue = ["x509", "-req", "-days", "200", "-in", &request, "-CA", &root, "-CAkey", &root_key, "-CAcreateserial"];
    openssl(&[&issue[..], &["-extfile", &extensions, "-out", &certificate]].concat()).await?;
    let read = |name: &str| std::fs::read_to_string(name);
    let (root, certificate) = (read(&root)?, read(&certificate)?);
    Ok(json!({
        "root-cert.pem": root, "ca-cert.pem": certificate, "cert-chain.pem": format!("{certificate}{root}"),
        "ca-key.pem": read(&key)?,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_ca_of_one_cluster_becomes_the_root_of_both() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    let own = intermediate_ca().await?;
    let made = make_cacerts(homelab, &own).await?;
    let (homelab_gate, nas_gate) = tokio::try_join!(Gate::start(homelab, vault), Gate::start(nas, vault))?;
    homelab.deploy_istiod().await?;
    nas.deploy_istiod().await?;
    let refusal = homelab.refusal("istiod", "CacertsUnknown").await?;
    ensure!(refusal.contains("`istio-ca-gate adopt`"), "{refusal}");
    nas.refusal("istiod", "RootMissing").await?;

    let (success, said) = adopt(homelab, vault, &[]).await?;
    ensure!(success && said.contains("Adopted: secret/istio/ca"), "{said}");
    ensure!(said.contains(&format!("homelab ({})", homelab.cluster.url())), "{said}");
    ensure!(said.contains("an intermediate beneath the root") && said.contains("CN=Own Root CA"), "{said}");
    println!("{said}");

    // Both gates open by themselves: the one beside the Secret that is not its own, the other with a copy.
    homelab.pod("istiod").await?;
    nas.pod("istiod").await?;
    for gate in [&homelab_gate, &nas_gate] {
        let report = gate.stands("open", None).await?;
        ensure!(report["match"] == true && report["vault"]["version"] == 1, "{report}");
    }
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    let kept = homelab.cacerts().await?.context("no cacerts")?;
    ensure!(kept["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "it was written");
    let copied = nas.cacerts().await?.context("no cacerts")?;
    ensure!(copied["data"] == kept["data"] && copied["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string());

    // From then on there is nothing to do, from either cluster.
    for side in [homelab, nas] {
        let (success, said) = adopt(side, vault, &[]).await?;
        ensure!(success && said.starts_with("Nothing to do: secret/istio/ca"), "{said}");
    }
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_vault_has_had_a_root_or_cannot_tell_nothing_is_written() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    refused(side, vault, "istio/ca", "CacertsInvalid").await?;
    make_cacerts(side, &foreign_ca().await?).await?;
    let other = foreign_ca().await?;
    let record = json!({
        "root-cert.pem": other["root-cert.pem"], "cert-chain.pem": other["cert-chain.pem"], "key.pem": other["ca-key.pem"],
    });
    for path in ["other", "deleted", "destroyed"] {
        vault.ok("POST", &format!("secret/data/{path}"), Some(json!({ "data": record }))).await?;
    }
    refused(side, vault, "other", "RootChanged").await?;
    vault.ok("DELETE", "secret/data/deleted", None).await?;
    refused(side, vault, "deleted", "RootDeleted").await?;
    vault.ok("PUT", "secret/destroy/destroyed", Some(json!({ "versions": [1] }))).await?;
    refused(side, vault, "destroyed", "RootDeleted").await?;
    vault.ok("POST", "secret/data/broken", Some(json!({ "data": { "root-cert.pem": "x" } }))).await?;
    refused(side, vault, "broken", "RootInvalid").await?;

    vault.ok("POST", "sys/mounts/old", Some(json!({ "type": "kv", "options": { "version": "1" } }))).await?;
    for (mount, code) in [("old", "VaultMountInvalid"), ("nowhere", "VaultMountInvalid")] {
        let (success, said) = adopt(side, vault, &["--vault-mount", mount]).await?;
        ensure!(!success && said.contains(&format!("istio-ca-gate: {code}: ")), "{mount}: {said}");
    }
    let (status, _) = vault.api("GET", "old/istio/ca", None).await?;
    ensure!(status == 404, "it was written to a mount without check-and-set");

    // Whoever may only read is told so; the policy of the bootstrap role is enough.
    vault.policy("reads", testbed::side::shipped_policy("sync")).await?;
    let token = async |policy: &str| -> Result<String> {
        let answer = vault.ok("POST", "auth/token/create", Some(json!({ "policies": [policy] }))).await?;
        Ok(answer["auth"]["client_token"].as_str().context("no token")?.to_owned())
    };
    let (success, said) = adopt_as(side, vault, &token("reads").await?, &[]).await?;
    ensure!(!success && said.contains("istio-ca-gate: VaultPermissionDenied: "), "{said}");
    let (success, said) = adopt_as(side, vault, "hvs.no-token-of-this-vault", &[]).await?;
    ensure!(!success && said.contains("istio-ca-gate: VaultPermissionDenied: "), "{said}");
    vault.seal().await?;
    let (success, said) = adopt(side, vault, &[]).await?;
    ensure!(!success && said.contains("istio-ca-gate: VaultSealed: "), "{said}");
    vault.unseal().await?;
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());
    let (success, said) = adopt_as(side, vault, &token(&side.policy()).await?, &[]).await?;
    ensure!(success && said.contains("Adopted"), "{said}");
    ensure!(vault.versions("secret", "istio/ca").await? == [1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clusters_that_adopt_at_once_one_is_refused() -> Result<()> {
    let world = World::start().await?;
    let World { homelab, nas, vault, .. } = &world;
    make_cacerts(homelab, &foreign_ca().await?).await?;
    make_cacerts(nas, &foreign_ca().await?).await?;
    for round in 0..5 {
        let path = format!("round/{round}");
        let args = ["--vault-path", &path];
        let both = tokio::try_join!(adopt(homelab, vault, &args), adopt(nas, vault, &args))?;
        let (won, lost) = if both.0.0 { (both.0, both.1) } else { (both.1, both.0) };
        ensure!(won.0 && won.1.contains("Adopted"), "{} {}", won.1, lost.1);
        ensure!(!lost.0 && lost.1.contains("istio-ca-gate: RootChanged: "), "{} {}", won.1, lost.1);
        ensure!(vault.versions("secret", &path).await? == [1]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_vault_has_lost_is_put_back_from_a_cluster() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let gate = Gate::start_with(side, vault, Options { flags: &["--refresh", "1s"], ..Default::default() }).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    let (_, before) = vault.api("GET", "secret/data/istio/ca", None).await?;
    vault.ok("DELETE", "secret/metadata/istio/ca", None).await?;
    let report = gate.stands("held", Some("RootDeleted")).await?;
    ensure!(report["message"].as_str().is_some_and(|text| text.contains("`istio-ca-gate adopt`")), "{report}");
    ensure!(vault.versions("secret", "istio/ca").await?.is_empty());

    // In the gate's own pod its rights are enough: nobody needs an administrator's token.
    let run = Run::by_hand(side, vault, &["adopt", "--yes"]).await?;
    let status = run.process.exited(SOON).await?;
    let said = run.process.log();
    ensure!(status.success() && said.contains("Adopted") && said.contains("homelab ("), "{said}");
    ensure!(said.contains("this cluster has verified this root before"), "{said}");
    gate.stands("open", None).await?;
    let (_, after) = vault.api("GET", "secret/data/istio/ca", None).await?;
    ensure!(after["data"]["data"] == before["data"]["data"], "it is another record");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cacerts_restored_from_a_backup_is_handed_back_and_mended_again() -> Result<()> {
    let world = SmallWorld::homelab().await?;
    let SmallWorld { side, vault, .. } = &world;
    let gate = Gate::start_with(side, vault, Options { flags: &["--refresh", "1s"], ..Default::default() }).await?;
    side.deploy_istiod().await?;
    side.pod("istiod").await?;
    gate.process.stop()?;
    let published = side.cacerts().await?.context("no cacerts")?;
    side.delete_cacerts().await?;
    let (path, meta) = (format!("/api/v1/namespaces/{NAMESPACE}/secrets"), &published["metadata"]);
    let metadata = json!({ "name": "cacerts", "labels": meta["labels"], "annotations": meta["annotations"] });
    let backup = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": published["data"] });
    let (status, restored) = side.cluster.request("POST", &format!("{path}?fieldManager=velero"), Some(backup)).await?;
    ensure!(status == 201, "{restored}");

    // It opens the gate, and is said to be somebody else's.
    gate.process.start_again()?;
    gate.stands("open", None).await?;
    ensure!(gate.process.log().contains("hand it back by istio-ca-gate adopt --own"), "{}", gate.process.log());
    let (success, said) = adopt(side, vault, &["--own"]).await?;
    ensure!(success && said.contains("Handed back: ") && said.contains("the one that Vault holds"), "{said}");
    println!("{said}");
    let owned = side.cacerts().await?.context("no cacerts")?;
    ensure!(owned["data"] == published["data"] && owned["metadata"]["uid"] == restored["metadata"]["uid"]);
    ensure!(owned["metadata"]["annotations"] == *meta.get("annotations").context("no annotations")?);
    ensure!(vault.versions("secret", "istio/ca").await? == [1], "it was written to Vault");
    gate.stands("open", None).await?;
    let (success, said) = adopt(side, vault, &["--own"]).await?;
    ensure!(success && said.starts_with("Nothing to do"), "{said}");

    // From now on it is mended.
    side.cluster
        .kubectl(&["-n", NAMESPACE, "patch", "secret", "cacerts", "-p", r#"{"data":{"ca-key.pem":null}}"#])
        .await?;
    testbed::eventually("cacerts to be mended", SOON, || async {
        let now = side.cacerts().await?.context("no cacerts")?;
        ensure!(now["data"] == published["data"], "it lacks its key");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}
