//! The components start, work together, keep their data over a restart, and leave nothing behind.
#![allow(clippy::unwrap_used)] // `unwrap_err`, where a refusal is what is tested

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{Cluster, Port, Process, Program, Signal, Storage, Vault, VaultOptions, eventually};

const SOON: Duration = Duration::from_secs(30);

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: default }
spec:
  replicas: 1
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: web, image: example.test/web }] }
"#;

#[tokio::test]
async fn a_deployment_gets_a_pending_pod() -> Result<()> {
    let cluster = Cluster::start("homelab").await?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], DEPLOYMENT).await?;

    let phase = eventually("the pod", SOON, || async {
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "json"]).await?;
        let pods: serde_json::Value = serde_json::from_str(&pods)?;
        let pod = pods["items"].get(0).context("no pod")?;
        ensure!(pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet", "{pod}");
        Ok(pod["status"]["phase"].clone())
    });
    assert_eq!(phase.await?, "Pending");

    let refused = cluster.kubectl(&["get", "pod", "none"]).await.unwrap_err();
    assert!(refused.to_string().contains("NotFound"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn the_api_server_and_etcd_keep_their_data_over_a_restart() -> Result<()> {
    let cluster = Cluster::start("homelab").await?;
    let namespace = json!({ "metadata": { "name": "kept" } });
    let (created, _) = cluster.request("POST", "/api/v1/namespaces", Some(namespace)).await?;
    assert_eq!(created, 201);

    cluster.stop_api_server()?;
    assert!(cluster.request("GET", "/readyz", None).await.is_err());
    cluster.start_api_server().await?;
    cluster.stop_etcd()?;
    cluster.start_etcd().await?;

    let (status, _) = cluster.request("GET", "/api/v1/namespaces/kept", None).await?;
    assert_eq!(status, 200);
    let (anonymous, _) = cluster.request_with(None, "GET", "/api/v1/namespaces/kept", None).await?;
    assert_eq!(anonymous, 403);
    Ok(())
}

#[tokio::test]
async fn service_accounts_log_in_to_vault_through_both_kinds_of_mount() -> Result<()> {
    let (cluster, vault) = tokio::try_join!(Cluster::start("nas"), Vault::start(VaultOptions::default()))?;
    for (kind, name) in [("serviceaccount", "client"), ("serviceaccount", "reviewer")] {
        cluster.kubectl(&["create", kind, name]).await?;
    }
    let binding = "create clusterrolebinding reviewer --clusterrole=system:auth-delegator \
        --serviceaccount=default:reviewer";
    cluster.kubectl(&binding.split_whitespace().collect::<Vec<_>>()).await?;
    let reviewer = cluster.service_account_token("default", "reviewer", &[cluster.issuer()], 3600).await?;
    let client = cluster.service_account_token("default", "client", &["vault"], 600).await?;

    vault.policy("reads", r#"path "secret/data/*" { capabilities = ["read"] }"#).await?;
    vault.kubernetes_auth("kubernetes", &cluster, &reviewer).await?;
    let role = json!({
        "bound_service_account_names": "client",
        "bound_service_account_namespaces": "default",
        "audience": "vault",
        "token_policies": "reads",
    });
    vault.role("kubernetes", "client", role).await?;
    vault.jwt_auth("kubernetes-nas", &cluster).await?;
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": "vault",
        "bound_subject": "system:serviceaccount:default:client",
        "token_policies": "reads",
    });
    vault.role("kubernetes-nas", "client", role).await?;

    for mount in ["kubernetes", "kubernetes-nas"] {
        let path = format!("auth/{mount}/login");
        let login = |jwt: String| json!({ "role": "client", "jwt": jwt });
        let (status, answer) = vault.api_with(None, "POST", &path, Some(login(client.clone()))).await?;
        assert_eq!(status, 200, "{mount}: {answer}");
        let token = answer["auth"]["client_token"].as_str();
        let (read, _) = vault.api_with(token, "GET", "secret/data/never-written", None).await?;
        assert_eq!(read, 404);
        let (refused, _) = vault.api_with(None, "POST", &path, Some(login(reviewer.clone()))).await?;
        assert!((400..404).contains(&refused), "{mount}: {refused}");
    }
    Ok(())
}

async fn vault_keeps_its_data(storage: Storage) -> Result<()> {
    let vault = Vault::start(VaultOptions { storage }).await?;
    assert!(vault.versions("secret", "istio/ca").await?.is_empty());
    vault.cli(&["kv", "put", "-cas=0", "secret/istio/ca", "root=1"]).await?;
    let refused = vault.cli(&["kv", "put", "-cas=0", "secret/istio/ca", "root=2"]).await.unwrap_err();
    assert!(refused.to_string().contains("check-and-set"), "{refused}");

    vault.seal().await?;
    let (status, _) = vault.api("GET", "secret/data/istio/ca", None).await?;
    assert_eq!(status, 503);
    vault.unseal().await?;
    vault.stop()?;
    assert!(vault.api("GET", "sys/health", None).await.is_err());
    vault.start_again().await?;

    assert_eq!(vault.versions("secret", "istio/ca").await?, [1]);
    let (_, answer) = vault.api("GET", "secret/data/istio/ca", None).await?;
    assert_eq!(answer["data"]["data"], json!({ "root": "1" }));
    Ok(())
}

#[tokio::test]
async fn vault_on_files_keeps_its_data() -> Result<()> {
    vault_keeps_its_data(Storage::File).await
}

#[tokio::test]
async fn vault_on_raft_keeps_its_data() -> Result<()> {
    vault_keeps_its_data(Storage::Raft).await
}

#[tokio::test]
async fn nothing_is_left_after_drop() -> Result<()> {
    let (cluster, vault) = tokio::try_join!(Cluster::start("gone"), Vault::start(VaultOptions::default()))?;
    let pids = [cluster.api_server(), cluster.controller_manager(), cluster.etcd(), vault.process()].map(Process::pid);
    let (ca, vault_ca) = (cluster.ca_file(), vault.ca_file());
    assert!(pids.iter().all(|pid| lives(*pid)) && ca.exists() && vault_ca.exists());
    drop((cluster, vault));
    assert!(!pids.iter().any(|pid| lives(*pid)) && !ca.exists() && !vault_ca.exists());
    Ok(())
}

#[tokio::test]
async fn children_die_with_a_killed_owner_but_not_with_the_thread_that_started_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("child.log");
    let owner = Program::new(env!("CARGO_BIN_EXE_testbed")).arg("hold").arg(&log).args(["sleep", "1000"]);
    let owner = owner.spawn(folder.path().join("owner.log"))?;
    let child: u32 = owner.until("the child's pid", SOON, || async { owner.log().trim().parse() }).await?;
    assert!(lives(child));
    // The child is in a group of its own: only the kernel ends it.
    owner.stop()?;
    eventually("the end of the child", SOON, || async { (!lives(child)).then_some(()) }).await
}

#[tokio::test]
async fn a_process_is_stopped_continued_and_terminated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.01; done";
    let process = Program::new("sh").args(["-c", script]).spawn(folder.path().join("log"))?;
    process.until("hello", SOON, || async { process.log().contains("hello").then_some(()) }).await?;
    process.signal(Signal::STOP)?;
    eventually("a stopped process", SOON, || async { (state(process.pid()) == Some('T')).then_some(()) }).await?;
    assert!(process.is_running());
    process.signal(Signal::CONT)?;
    assert_eq!(process.terminate().await?.code(), Some(7));
    assert!(!process.is_running());
    assert_eq!(process.log(), "hello\nbye\n");
    process.start_again()?;
    assert!(process.is_running());
    Ok(())
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_the_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "seq 100; echo no such thing >&2; exit 3";
    let process = Program::new("sh").args(["-c", script]).spawn(folder.path().join("log"))?;
    let error = process.until("a miracle", SOON, || async { None::<()> }).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("no such thing") && error.contains("a miracle") && error.contains("status: 3"), "{error}");
    assert!(error.contains("72") && !error.contains("71"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_wait_in_vain_says_what_it_saw() {
    let probe = || async { Err::<(), _>(anyhow::anyhow!("cause").context("effect")) };
    let error = eventually("a miracle", Duration::from_millis(80), probe).await.unwrap_err();
    assert_eq!(error.to_string(), "waited 80ms for a miracle; last seen: effect: cause");
}

#[test]
fn reserved_ports_differ_and_are_free() -> Result<()> {
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    for port in &ports {
        std::net::TcpListener::bind(("127.0.0.1", port.number()))?;
        assert_eq!(ports.iter().filter(|other| other.number() == port.number()).count(), 1);
    }
    Ok(())
}

/// Whether a process runs: a dead one that nobody has reaped yet does not.
fn lives(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
