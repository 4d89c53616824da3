//! `doctor` as a process, between stand-ins: what it asks and what it leaves alone, and answers that the real ones
//! do not give on demand.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::side::Side;
use tokio::process::Command;

use crate::certificates::Authority;
use crate::kubernetes::{CONFIG_MAPS, DEPLOYMENTS, Kubernetes, SECRETS, pods};
use crate::product::{KUBERNETES_TOKEN, binary, kubeconfig};
use crate::quiet::leak;
use crate::vault::{self, HEALTH, JWT, LOGIN, READ, errors, granted, health, token, version};
use crate::world::{Gate, World};
use standin::scripted::{Answer, StandIn};

const AT_MOST: Duration = Duration::from_secs(60);

const CAPABILITIES: &str = "POST /v1/sys/capabilities-self";
const REVOKE: &str = "POST /v1/auth/token/revoke-self";

struct Ward {
    folder: TempDir,
    kubernetes: Kubernetes,
    vault: StandIn,
}

struct Report {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Report {
    fn lines(&self) -> Result<Vec<Value>> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{}{}", self.stdout, self.stderr))
    }

    /// The line of this id; the first, if there are several.
    fn line(&self, id: &str) -> Result<Value> {
        let mut lines = self.lines()?.into_iter();
        lines.find(|line| line["id"] == id).with_context(|| format!("no line {id}: {}", self.stdout))
    }

    fn expect(&self, id: &str, outcome: &str, says: &str) -> Result<()> {
        let line = self.line(id)?;
        let seen = line["seen"].as_str().unwrap_or_default();
        ensure!(line["outcome"] == outcome && seen.contains(says), "not {outcome} with {says:?}: {line}");
        Ok(())
    }
}

impl Ward {
    async fn new(vault: StandIn) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, kubernetes: Kubernetes::start().await?, vault })
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    async fn run(&self, flags: &[&str]) -> Result<Report> {
        let mut command = Command::new(binary());
        command.arg("doctor").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.env("GATE_ROLE", "sync").env("VAULT_ADDR", self.vault.url());
        command.env("GATE_VAULT_JWT_FILE", self.write("jwt", JWT)?);
        command.env("KUBECONFIG", self.write("kubeconfig", &kubeconfig(&self.kubernetes.server.url()))?);
        command.args(flags);
        output(command).await
    }

    async fn json(&self, flags: &[&str]) -> Result<Report> {
        self.run(&[&["-o", "json"], flags].concat()).await
    }
}

/// A Vault with a root.
async fn with_root() -> Result<(StandIn, Authority)> {
    let (vault, root) = (vault::start().await?, Authority::new("Root")?);
    vault.always(READ, version(1, &root.record()));
    Ok((vault, root))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_nothing_gives_its_token_back_and_repeats_no_secret() -> Result<()> {
    let (vault, root) = with_root().await?;
    vault.always(CAPABILITIES, Answer::json(200, &json!({ "data": { "secret/data/istio/ca": ["read"] } })));
    let ward = Ward::new(vault).await?;
    let cacerts = json!({ "metadata": { "name": "cacerts" }, "data": root.secret_data() });
    ward.kubernetes.put(SECRETS, cacerts.clone())?;
    // istiod's own CA has a key, too; and an answer with one that does not parse.
    ward.kubernetes.put(SECRETS, json!({ "metadata": { "name": "istio-ca-secret" }, "data": root.secret_data() }))?;
    let odd = json!({ "data": { "ca.key": root.key_pem() }, "metadata": {} });
    ward.kubernetes.server.once(&format!("GET {SECRETS}/istio-ca-gate-tls"), Answer::json(200, &odd));
    ward.kubernetes.put(
        CONFIG_MAPS,
        json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": root.pem() } }),
    )?;

    let report = ward.json(&[]).await?;
    report.expect("vault-record", "ok", "version 1")?;
    report.expect("vault-rights", "ok", "no more")?;
    report.expect("cacerts", "ok", "managed by somebody else (somebody)")?;
    report.expect("istio-ca-secret", "failed", "split")?;
    ensure!(report.code == Some(1));

    for request in ward.kubernetes.server.seen() {
        let harmless = request.target.contains("reviews") || request.target.contains("dryRun=All");
        ensure!(request.method == "GET" || (request.method == "POST" && harmless), "{}", request.line());
    }
    report.expect("self-test", "failed", "there is no webhook configuration")?;
    let mut posted: Vec<_> = ward.vault.lines().into_iter().filter(|line| !line.starts_with("GET ")).collect();
    posted.sort_unstable();
    ensure!(posted == [LOGIN, LOGIN, REVOKE, CAPABILITIES], "{posted:?}");
    let token = token(&ward.vault, 1)?;
    ensure!(ward.vault.of(REVOKE)[0].token() == token);
    ensure!(ward.vault.lines().last().map(String::as_str) == Some(REVOKE));
    let mut secrets = vec![root.key_pem().into_bytes(), token.into_bytes(), JWT.as_bytes().to_vec()];
    secrets.push(KUBERNETES_TOKEN.as_bytes().to_vec());
    for secret in secrets {
        ensure!(leak(&format!("{}{}", report.stdout, report.stderr), &secret)?.is_none(), "{}", report.stdout);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_line_each_and_a_tally_without_colours_where_there_is_no_terminal() -> Result<()> {
    let (vault, _root) = with_root().await?;
    let ward = Ward::new(vault).await?;
    let report = ward.run(&[]).await?;
    let json = ward.json(&[]).await?.lines()?;
    ensure!(!report.stdout.contains('\u{1b}'), "{:?}", report.stdout);
    let lines: Vec<_> = report.stdout.lines().collect();
    let (last, lines) = lines.split_last().context("nothing")?;
    ensure!(last.contains(" ok, ") && last.contains(" FAILED"), "{last}");
    ensure!(lines.len() == json.len() + 1, "{}", report.stdout);
    let vault_tls = lines.iter().find(|line| line.contains(" vault-tls ")).context("no vault-tls")?;
    ensure!(
        vault_tls.starts_with("warning vault-tls ") && vault_tls.contains(". Next: give Vault a certificate"),
        "{vault_tls}"
    );
    let webhook = lines.iter().find(|line| line.contains(" webhook ")).context("no webhook")?;
    ensure!(webhook.starts_with("FAILED  webhook "), "{webhook}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_exit_code_2_and_a_line_that_names_it() -> Result<()> {
    let ward = Ward::new(vault::start().await?).await?;
    let bad = ward.write("bad.pem", "not a certificate")?;
    for (flags, says) in [
        (&["--role", "x"][..], "GATE_ROLE"),
        (&["-o", "yaml"], "GATE_OUTPUT"),
        (&["--timeout", "0s"], "GATE_TIMEOUT"),
        (&["--service-account", "A b"], "GATE_SERVICE_ACCOUNT"),
        (&["--vault-ca-cert", &bad], "VAULT_CACERT"),
        (&["--kubeconfig", "/nowhere"], "--kubeconfig"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let report = ward.run(flags).await?;
        ensure!(report.code == Some(2) && report.stdout.is_empty(), "{flags:?}: {:?}", report.code);
        ensure!(report.stderr.lines().count() == 1 && report.stderr.contains(says), "{flags:?}: {}", report.stderr);
    }
    ensure!(ward.vault.seen().is_empty() && ward.kubernetes.server.seen().is_empty());
    Ok(())
}

/// A Vault with this certificate, whose CA is trusted; the line about its TLS.
async fn tls_line(server: Arc<ServerConfig>, authority: &Authority) -> Result<Report> {
    let ward = Ward::new(vault::start_tls(server).await?).await?;
    let trust = ward.write("ca.pem", authority.pem())?;
    ward.json(&["--vault-ca-cert", &trust]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flaw_of_vaults_certificate_is_named() -> Result<()> {
    let authority = Authority::new("Vault's CA")?;
    let report = tls_line(authority.server("127.0.0.1")?, &authority).await?;
    report.expect("vault-tls", "ok", "trusted, the name fits, until 4096")?;
    report.expect("vault-state", "ok", "active")?;
    let report = tls_line(authority.server_for(Duration::from_secs(3 * 24 * 3600))?, &authority).await?;
    report.expect("vault-tls", "warning", "ends in 2 days")?;
    report.expect("vault-state", "ok", "active")?;
    for (server, says) in [
        (authority.server("vault.example")?, "another name"),
        (authority.expired_server("127.0.0.1")?, "has expired"),
        (Authority::new("Somebody's CA")?.server("127.0.0.1")?, "unknown CA"),
    ] {
        let report = tls_line(server, &authority).await?;
        report.expect("vault-tls", "failed", says)?;
        report.expect("vault-state", "skipped", "vault-tls failed")?;
        report.expect("vault-record", "skipped", "no address of Vault is usable")?;
        ensure!(report.code == Some(1));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_that_are_of_no_use_are_told_apart() -> Result<()> {
    let body =
        |initialized: bool, sealed: bool| json!({ "initialized": initialized, "sealed": sealed, "version": "1.21.1" });
    for (answer, says) in [
        (Answer::json(501, &body(false, true)), "not initialised"),
        (Answer::json(503, &body(true, true)), "sealed"),
        (Answer::json(472, &body(true, false)), "disaster-recovery"),
        (Answer::html(200), "not Vault's"),
        (Answer::html(502), "status 502"),
        (Answer::hang_up(), "does not answer as Vault does"),
    ] {
        let ward = Ward::new(vault::start().await?).await?;
        ward.vault.always(HEALTH, answer);
        let report = ward.json(&[]).await?;
        report.expect("vault-state", "failed", says)?;
        report.expect("vault-login", "skipped", "no address of Vault is usable")?;
        ensure!(ward.vault.count(LOGIN) == 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_left_after_the_timeout() -> Result<()> {
    let ward = Ward::new(vault::start().await?).await?;
    ward.vault.always(HEALTH, Answer::silence());
    ward.kubernetes.server.always("GET /version", Answer::silence());
    let began = Instant::now();
    let report = ward.json(&["--timeout", "500ms"]).await?;
    report.expect("vault-state", "failed", "its answer took too long")?;
    report.expect("kubernetes-api", "failed", "cannot get /version (its answer took too long)")?;
    report.expect("cacerts", "skipped", "kubernetes-api failed")?;
    ensure!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_vault_does_not_take_back_is_told_of() -> Result<()> {
    let ward = Ward::new(vault::start().await?).await?;
    ward.vault.always(REVOKE, errors(403, &["permission denied"]));
    let report = ward.json(&[]).await?;
    report.expect("vault-logout", "warning", "status 403")?;
    ensure!(ward.vault.count(REVOKE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_two_vaults_and_one_that_does_not_tell() -> Result<()> {
    let ward = Ward::new(vault::start().await?).await?;
    let other = ward.vault.beside().await?;
    other.always(HEALTH, health(json!(vault::TWO)));
    let both = ["--vault-addr", &ward.vault.url(), "--vault-addr", &other.url()];
    let report = ward.json(&both).await?;
    ensure!(report.line("vault-one")?["reason"] == "VaultAmbiguous", "{}", report.stdout);
    other.always(HEALTH, Answer::json(503, &json!({ "initialized": true, "sealed": true })));
    ward.json(&both).await?.expect("vault-one", "warning", "may be another one")?;
    ensure!(other.count(LOGIN) == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_asker_may_not_look_at_is_a_note_with_the_right_that_is_missing() -> Result<()> {
    let (vault, _root) = with_root().await?;
    vault.once(LOGIN, granted("hvs.first", 60));
    let ward = Ward::new(vault).await?;
    let forbidden = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no" });
    for line in [
        "GET /version".to_owned(),
        format!("GET {SECRETS}/cacerts"),
        format!("GET {CONFIG_MAPS}/istio-ca-gate"),
        "GET /apis/apps/v1/deployments".to_owned(),
        "GET /apis/apps/v1/namespaces/istio-system/deployments".to_owned(),
        "GET /apis/apps/v1/replicasets".to_owned(),
        "GET /apis/apps/v1/namespaces/istio-system/replicasets".to_owned(),
        "POST /apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
    ] {
        ward.kubernetes.server.always(&line, Answer::json(403, &forbidden));
    }
    let report = ward.json(&[]).await?;
    for (id, right) in [
        ("kubernetes-api", "get /version"),
        ("cacerts", "get secrets cacerts in istio-system"),
        ("pin", "get configmaps istio-ca-gate in istio-system"),
        ("kubernetes-rights", "create selfsubjectaccessreviews"),
        ("gate", "list deployments.apps in istio-system"),
        ("blocked", "list replicasets.apps in istio-system"),
    ] {
        report.expect(id, "note", &format!("may not be looked at: no right to {right}"))?;
    }
    Ok(())
}

/// The gate's Deployment and the ConfigMap of its settings.
fn deployed(kubernetes: &Kubernetes, settings: Value) -> Result<()> {
    kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-gate-settings" }, "data": settings }))?;
    let mut gate = json!({ "metadata": { "name": "istio-ca-gate" }, "spec": pods("istio-ca-gate", 1) });
    let pod = &mut gate["spec"]["template"]["spec"];
    pod["serviceAccountName"] = json!("istio-ca-gate");
    pod["containers"][0]["args"] = json!(["serve"]);
    pod["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "istio-ca-gate-settings" } }]);
    kubernetes.put(DEPLOYMENTS, gate).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn role_address_and_mount_are_the_clusters_own_where_nothing_says_otherwise() -> Result<()> {
    let (vault, _root) = with_root().await?;
    let ward = Ward::new(vault).await?;
    let settings = json!({ "GATE_ROLE": "sync", "GATE_VAULT_ADDRS": ward.vault.url(), "GATE_VAULT_AUTH_MOUNT": "kubernetes-nas",
                           "VAULT_CACERT": "/etc/istio-ca-gate/ca.crt" });
    let bare = async |flags: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["doctor", "-o", "json"]).args(flags).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.env("GATE_VAULT_JWT_FILE", ward.write("jwt", JWT)?);
        command.env("KUBECONFIG", ward.write("kubeconfig", &kubeconfig(&ward.kubernetes.server.url()))?);
        output(command).await
    };
    let report = bare(&[]).await?;
    ensure!(report.code == Some(2) && report.stdout.is_empty(), "{}", report.stdout);
    ensure!(
        report.stderr.contains("GATE_ROLE") && report.stderr.contains("istio-system/istio-ca-gate"),
        "{}",
        report.stderr
    );
    ensure!(ward.vault.seen().is_empty());

    deployed(&ward.kubernetes, settings)?;
    let report = bare(&[]).await?;
    report.expect("settings", "ok", "--role=sync --service-account=istio-ca-gate")?;
    report.expect("vault-state", "ok", "active")?;
    ensure!(report.line("vault-auth-mount")?["looked"] == "auth/kubernetes-nas", "{}", report.stdout);
    let report = bare(&["--vault-auth-mount", "mine"]).await?;
    ensure!(report.line("vault-auth-mount")?["looked"] == "auth/mine", "{}", report.stdout);
    ensure!(!report.line("settings")?["seen"].as_str().is_some_and(|seen| seen.contains("auth-mount")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_contexts_are_several_reports_of_one_call() -> Result<()> {
    let (vault, _root) = with_root().await?;
    let ward = Ward::new(vault).await?;
    let other = Ward::new(vault::start().await?).await?;
    other.kubernetes.server.always("GET /version", Answer::silence());
    let file = ward.folder.path().join("both");
    let servers = [("homelab", ward.kubernetes.server.url()), ("nas", other.kubernetes.server.url())];
    crate::command::kubeconfig(&file, &servers)?;
    let file = file.to_string_lossy();
    let flags = ["--kubeconfig", &file, "--context", "homelab", "--context", "nas", "--timeout", "500ms"];
    let report = ward.json(&flags).await?;
    let reports = report.lines()?;
    ensure!(
        reports.len() == 2 && reports[0]["context"] == "homelab" && reports[1]["context"] == "nas",
        "{}",
        report.stdout
    );
    let api = |at: usize| {
        let lines = reports[at]["lines"].as_array().into_iter().flatten();
        lines.into_iter().find(|line| line["id"] == "kubernetes-api").map(|line| line["outcome"].clone())
    };
    ensure!(api(0) == Some(json!("ok")) && api(1) == Some(json!("failed")), "{}", report.stdout);
    let text = ward.run(&flags).await?.stdout;
    let at = |what: &str| text.find(what).with_context(|| format!("no {what}: {text}"));
    ensure!(at("Context homelab")? < at("Context nas")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn before_an_installation_a_mesh_on_another_root_is_found_and_what_could_not_be_seen_is_no_success() -> Result<()>
{
    let (vault, _root) = with_root().await?;
    let ward = Ward::new(vault).await?;
    let served = |pem: &str| json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": pem } });
    ward.kubernetes.put(CONFIG_MAPS, served(Authority::new("The mesh's own")?.pem()))?;
    let pre = async |token: Option<&str>| {
        let mut command = Command::new(binary());
        command
            .args(["doctor", "--pre", "-o", "json", "--role", "sync"])
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.env("VAULT_ADDR", ward.vault.url());
        command.env("KUBECONFIG", ward.write("kubeconfig", &kubeconfig(&ward.kubernetes.server.url()))?);
        command.envs(token.map(|token| ("VAULT_TOKEN", token)));
        output(command).await
    };
    let found = pre(Some("hvs.mine")).await?;
    found.expect("istio-ca-root-cert", "failed", "not that of Vault: another one would split it")?;
    ensure!(found.code == Some(1), "{}", found.stdout);
    for absent in ["gate", "webhook", "kubernetes-rights", "self-test", "blocked"] {
        ensure!(found.line(absent).is_err(), "{absent} before anything is installed: {}", found.stdout);
    }
    let blind = pre(None).await?;
    blind.expect("vault-jwt", "note", "VAULT_TOKEN")?;
    blind.expect("vault-record", "skipped", "vault-jwt failed")?;
    ensure!(blind.code == Some(2), "{:?} {}", blind.code, blind.stdout);
    for request in ward.kubernetes.server.seen() {
        let harmless = request.target.contains("reviews");
        ensure!(request.method == "GET" || harmless, "{}", request.line());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_sandbox_only_the_deployment_that_it_does_not_have_is_missing() -> Result<()> {
    let world = World::embedded().await?;
    let folder = tempfile::tempdir()?;
    let gates = [&world.homelab, &world.nas].map(|side| Gate::start(side, &world.vault, folder.path(), &[]));
    let gates = futures::future::try_join_all(gates).await?;
    world.nas.deploy_istiod().await?;
    world.nas.refusal("istiod", "RootMissing").await?;
    let before = sandboxed(&world, &world.nas, folder.path()).await?;
    ensure!(before.line("vault-record")?["reason"] == "RootMissing", "{}", before.stdout);
    ensure!(before.line("blocked")?["reason"] == "RootMissing", "{}", before.stdout);

    world.homelab.deploy_istiod().await?;
    for (side, gate) in [(&world.homelab, &gates[0]), (&world.nas, &gates[1])] {
        side.pod("istiod").await?;
        gate.stands("open", None).await?;
        let report = sandboxed(&world, side, folder.path()).await?;
        let lines = report.lines()?;
        let bad = lines.iter().filter(|line| !matches!(line["outcome"].as_str(), Some("ok" | "note")));
        let bad: Vec<_> = bad.filter_map(|line| line["id"].as_str()).collect();
        ensure!(bad == ["gate"], "{}", report.stdout);
        report.expect("gate", "failed", "no Deployment of it")?;
        report.expect("cacerts", "ok", "managed by the gate; the root that Vault holds")?;
        report.expect("kubernetes-rights", "ok", "all 34")?;
        report.expect("self-test", "ok", "calls a gate")?;
    }
    world.vault.seal().await?;
    let sealed = sandboxed(&world, &world.nas, folder.path()).await?;
    ensure!(sealed.line("vault-state")?["reason"] == "VaultSealed", "{}", sealed.stdout);
    Ok(())
}

/// Doctor on a side of the sandbox, as an administrator of its cluster runs it.
async fn sandboxed(world: &World, side: &Side, folder: &Path) -> Result<Report> {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).map(|()| folder.join(name));
    let mut command = Command::new(binary());
    command.args(["doctor", "-o", "json", "--role", side.role]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.args(["--vault-addr", world.vault.address(), "--vault-auth-mount", side.auth_mount]);
    command.env("VAULT_CACERT", write("ca.pem", world.vault.ca_pem())?);
    command.env("GATE_VAULT_JWT_FILE", write("jwt", &side.gate_token("vault").await?)?);
    command.env("KUBECONFIG", write("kubeconfig", &side.api.kubeconfig("admin", side.api.admin_token()))?);
    output(command).await
}

async fn output(mut command: Command) -> Result<Report> {
    let output = tokio::time::timeout(AT_MOST, command.output()).await.context("doctor runs on")??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Report { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
}
