//! `verify` on places that are equal, differ, lie, are silent or are a thousand.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use istio_ca_gate::ca::Sha256;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Program, Signal, eventually};

use crate::certificates::Authority;
use crate::command::{Said, kubeconfig, run};
use crate::gate::review;
use crate::kubernetes::{CONFIG_MAPS, Kubernetes, SECRETS, status};
use crate::product::{KUBERNETES_TOKEN, Product, SOON, binary};
use crate::vault::{self, JWT, READ, errors, version};
use standin::scripted::{Answer, StandIn};

const FINGERPRINT: &str = "GET /fingerprint";
const CACERTS: &str = "GET /api/v1/namespaces/istio-system/secrets/cacerts";
const SERVED: &str = "GET /api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert";

/// Two clusters, a gate, a Vault and a file.
struct World {
    folder: TempDir,
    nas: Kubernetes,
    homelab: Kubernetes,
    gate: StandIn,
    vault: StandIn,
}

impl World {
    /// All with the root of this CA.
    async fn with(ca: &Authority) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (nas, homelab) = (cluster(ca).await?, cluster(ca).await?);
        let servers = [("nas", nas.server.url()), ("homelab", homelab.server.url())];
        kubeconfig(&folder.path().join("kubeconfig"), &servers)?;
        std::fs::write(folder.path().join("token"), JWT)?;
        std::fs::write(folder.path().join("root.pem"), ca.pem())?;
        let vault = vault::start().await?;
        vault.always(READ, version(1, &ca.record()));
        Ok(Self { gate: gate(report(ca)?).await?, folder, nas, homelab, vault })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn url(&self) -> String {
        format!("{}/fingerprint", self.gate.url())
    }

    async fn verify(&self, args: &[&str]) -> Result<Said> {
        self.verify_with(args, &[]).await
    }

    async fn verify_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<Said> {
        let (kubeconfig, token, vault) = (self.path("kubeconfig"), self.path("token"), self.vault.url());
        let known =
            [("KUBECONFIG", kubeconfig.as_str()), ("GATE_VAULT_JWT_FILE", &token), ("VAULT_ADDR", vault.as_str())];
        run(&[&["verify"], args].concat(), &[&known, variables].concat()).await
    }

    /// All places of this world.
    async fn verify_all(&self, args: &[&str]) -> Result<Said> {
        let (url, file) = (self.url(), self.path("root.pem"));
        let all = ["--context", "nas", "--context", "homelab", "--url", &url, "--vault", "--file", &file];
        self.verify(&[&all, args].concat()).await
    }
}

async fn cluster(ca: &Authority) -> Result<Kubernetes> {
    let kubernetes = Kubernetes::start().await?;
    put(&kubernetes, ca)?;
    Ok(kubernetes)
}

fn put(kubernetes: &Kubernetes, ca: &Authority) -> Result<()> {
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": ca.secret_data() }))?;
    let served = json!({ "root-cert.pem": ca.pem() });
    kubernetes.put(CONFIG_MAPS, json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": served })).map(drop)
}

fn sha256(ca: &Authority) -> Result<String> {
    Ok(Sha256::of(&CertificateDer::from_pem_slice(ca.pem().as_bytes())?).openssl())
}

/// What a gate tells that is open with this root.
fn report(ca: &Authority) -> Result<Value> {
    let sha256 = sha256(ca)?;
    let root = json!({ "sha256": sha256, "roots": [sha256], "subject": "CN=Root", "notAfter": "2096-11-21T10:00:00Z" });
    Ok(json!({ "cluster": "c", "state": "open", "reason": null, "message": null, "vault": root, "cacerts": root }))
}

async fn gate(report: Value) -> Result<StandIn> {
    let text = report.to_string();
    StandIn::start(move |_| std::future::ready(Answer::new(200, "application/json", text.clone()))).await
}

/// The rows of a JSON answer: kind, verdict and reason.
fn rows(said: &Said) -> Result<Vec<(String, String, Value)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let document = said.json()?;
    let places = document["places"].as_array().context("no places")?;
    Ok(places.iter().map(|row| (text(&row["kind"]), text(&row["verdict"]), row["reason"].clone())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn places_of_all_kinds_with_one_root_are_equal() -> Result<()> {
    let ca = Authority::new("Root")?;
    let world = World::with(&ca).await?;
    let narrow = world.verify_all(&[]).await?;
    let rows: Vec<_> = narrow.stdout.lines().collect();
    ensure!(rows[0].split_whitespace().eq(["PLACE", "VERDICT", "EXPIRES", "SHA-256"]), "{narrow:?}");
    ensure!(rows.iter().all(|row| row.chars().count() <= 80), "{narrow:?}");
    let short = format!("{}…", &sha256(&ca)?[..11]);
    ensure!(narrow.code == Some(0) && narrow.stdout.matches(&short).count() == 7, "{narrow:?}");

    let said = world.verify_all(&["-o", "wide"]).await?;
    ensure!(said.code == Some(0) && said.stderr.is_empty(), "{said:?}");
    let sha256 = sha256(&ca)?;
    let rows: Vec<_> = said.stdout.lines().collect();
    ensure!(rows[0].split_whitespace().eq(["PLACE", "VERDICT", "EXPIRES", "SUBJECT", "SHA-256"]), "{said:?}");
    let names = [
        "Vault secret/istio/ca",
        "nas cacerts",
        "nas istio-ca-root-cert",
        "homelab cacerts",
        "homelab istio-ca-root-cert",
        &world.url(),
        &world.path("root.pem"),
    ];
    for (row, name) in rows[1..].iter().zip(names) {
        ensure!(row.starts_with(&format!("{name} ")) && row.contains(" equal ") && row.ends_with(&sha256), "{row}");
        ensure!(row.contains("CN=Root"), "{row}");
    }
    ensure!(rows[8..] == ["", "Equal: all 7 places have the same roots."], "{said:?}");
    // No colours where it is no terminal.
    ensure!(!said.stdout.contains('\u{1b}'), "{said:?}");

    let said = world.verify_all(&["-o", "json"]).await?;
    let document = said.json()?;
    ensure!(said.code == Some(0) && document["verdict"] == "equal", "{said:?}");
    ensure!(document["reference"] == json!({ "by": "vault", "roots": [sha256] }), "{said:?}");
    let kinds: Vec<_> = self::rows(&said)?.into_iter().map(|(kind, _, _)| kind).collect();
    ensure!(kinds == ["vault", "cacerts", "served", "cacerts", "served", "gate", "file"], "{kinds:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_anywhere_is_not_equal() -> Result<()> {
    let (ca, other) = (Authority::new("Root")?, Authority::new("Other")?);
    for at in 0..6 {
        let world = World::with(&ca).await?;
        let secret = json!({ "metadata": { "name": "cacerts" }, "data": other.secret_data() });
        match at {
            0 => world.vault.always(READ, version(2, &other.record())),
            1 => drop(world.homelab.put(SECRETS, secret)?),
            2 => put(&world.nas, &other)?,
            3 => world.gate.always(FINGERPRINT, Answer::json(200, &report(&other)?)),
            4 => std::fs::write(world.path("root.pem"), format!("{}{}", ca.pem(), other.pem()))?,
            // The gate has seen another root in Vault than the one of its cluster.
            _ => {
                let mut told = report(&ca)?;
                told["vault"] = report(&other)?["vault"].clone();
                world.gate.always(FINGERPRINT, Answer::json(200, &told));
            }
        }
        let said = world.verify_all(&["-o", "json"]).await?;
        let differing = rows(&said)?.iter().filter(|(_, verdict, _)| verdict.starts_with("differs")).count();
        let wanted = [6, 1, 2, 1, 1, 1][at];
        ensure!(said.code == Some(1) && differing == wanted, "{at}: {said:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_vault_most_places_are_the_reference() -> Result<()> {
    let (ca, other) = (Authority::new("Root")?, Authority::new("Other")?);
    let world = World::with(&ca).await?;
    put(&world.nas, &other)?;
    let (url, file) = (world.url(), world.path("root.pem"));
    let args = ["--context", "nas,homelab", "--url", &url, "--file", &file];
    let said = world.verify(&args).await?;
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(said.stdout.ends_with("Not equal: 2 of 6 places have other roots than most (4 of 6).\n"), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_read_shows_its_code_and_leaves_it_open() -> Result<()> {
    let ca = Authority::new("Root")?;
    let world = World::with(&ca).await?;
    world.vault.always(READ, errors(503, &["Vault is sealed"]));
    world.nas.server.always(CACERTS, status(403, "Forbidden"));
    world.nas.server.always(SERVED, Answer::silence());
    world.homelab.server.always(CACERTS, status(404, "NotFound"));
    world.homelab.server.always(SERVED, Answer::html(200));
    std::fs::write(world.path("root.pem"), "nothing")?;
    let mut held = report(&ca)?;
    held["cacerts"] = Value::Null;
    held["reason"] = json!("RootMissing");
    held["message"] = json!("RootMissing: cluster c: Vault has no root: start the other cluster");
    world.gate.always(FINGERPRINT, Answer::json(200, &held));
    let began = Instant::now();
    let (said, shown) =
        tokio::try_join!(world.verify_all(&["-o", "json", "--timeout", "2s"]), world.verify_all(&["--timeout", "2s"]))?;
    ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let reasons = [
        json!("VaultSealed"),
        json!("KubernetesForbidden"),
        Value::Null,
        Value::Null,
        json!("KubernetesUnreachable"),
        json!("RootMissing"),
        Value::Null,
    ];
    ensure!(said.code == Some(2), "{said:?}");
    for ((kind, verdict, reason), wanted) in rows(&said)?.iter().zip(&reasons) {
        ensure!(verdict == "unread" && reason == wanted, "{kind}: {said:?}");
    }
    let lines = [
        "Vault secret/istio/ca: VaultSealed: Vault at ",
        "nas cacerts: KubernetesForbidden: the API server refuses to read Secret istio-system/cacerts",
        "nas istio-ca-root-cert: no answer within 2s: ",
        "homelab cacerts: there is no Secret istio-system/cacerts: ",
        "homelab istio-ca-root-cert: KubernetesUnreachable: cannot read ConfigMap",
        &format!("{}: RootMissing: cluster c: Vault has no root", world.url()),
        &format!("{}: no CERTIFICATE block in {}", world.path("root.pem"), world.path("root.pem")),
        "Could not tell: none of 7 places could be read.",
    ];
    let below: Vec<_> = shown.stdout.lines().skip(9).collect();
    ensure!(shown.code == Some(2) && below.len() == lines.len(), "{shown:?}");
    for (line, wanted) in below.iter().zip(lines) {
        ensure!(line.starts_with(wanted), "{line}: {wanted}");
    }
    ensure!(!shown.stdout.contains("tried again"), "{shown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_not_equal_although_others_cannot_be_read() -> Result<()> {
    let (ca, other) = (Authority::new("Root")?, Authority::new("Other")?);
    let world = World::with(&ca).await?;
    put(&world.nas, &other)?;
    world.vault.always(READ, Answer::hang_up());
    let said = world.verify_all(&[]).await?;
    ensure!(said.code == Some(1), "{said:?}");
    ensure!(said.stdout.ends_with("than most (4 of 6). 1 could not be read.\n"), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_lies_stalls_or_floods_is_not_believed() -> Result<()> {
    let ca = Authority::new("Root")?;
    let world = World::with(&ca).await?;
    let elsewhere = gate(report(&ca)?).await?;
    let large = json!({ "padding": "x".repeat(64 << 10) });
    let slow = Answer::json(200, &report(&ca)?).byte_by_byte(Duration::from_millis(100));
    for (answer, says) in [
        (
            Answer::html(302).header("location", &format!("{}/fingerprint", elsewhere.url())),
            "a redirect is not followed",
        ),
        (Answer::html(503), "status 503"),
        (Answer::html(200), "not that of a gate's /fingerprint"),
        (Answer::json(200, &large), "larger than 64 KiB"),
        (Answer::new(200, "application/json", vec![b' '; 1 << 16]).endless(), "larger than 64 KiB"),
        (Answer::json(200, &report(&ca)?).cut(200), "it does not answer ("),
        (Answer::hang_up(), "it does not answer ("),
        (Answer::silence(), "no answer within 2s"),
        (slow, "no answer within 2s"),
    ] {
        world.gate.once(FINGERPRINT, answer);
        let said = world.verify(&["--url", &world.url(), "--vault", "--timeout", "2s"]).await?;
        ensure!(world.gate.waiting() == 0, "it was not asked");
        ensure!(said.code == Some(2) && said.stdout.contains(says), "{says}: {said:?}");
    }
    ensure!(elsewhere.seen().is_empty(), "the redirect was followed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_a_url_is_checked_against_the_given_ca() -> Result<()> {
    let (ca, tls, foreign) = (Authority::new("Root")?, Authority::new("TLS")?, Authority::new("Foreign")?);
    let world = World::with(&ca).await?;
    let file = |name: &str, pem: &str| std::fs::write(world.path(name), pem).map(|()| world.path(name));
    let (trusted, other) = (file("tls.pem", tls.pem())?, file("foreign.pem", foreign.pem())?);
    let text = report(&ca)?.to_string();
    let answer = move |_| std::future::ready(Answer::new(200, "application/json", text.clone()));
    let sound = StandIn::start_tls(tls.server("127.0.0.1")?, answer.clone()).await?;
    let expired = StandIn::start_tls(tls.expired_server("127.0.0.1")?, answer).await?;
    for (url, ca_file, code, says) in [
        (sound.url(), &trusted, 0, "Equal: all 2 places"),
        (sound.url(), &other, 2, "unknown CA"),
        (expired.url(), &trusted, 2, "has expired"),
    ] {
        let said = world.verify(&["--vault", "--url", &url, "--ca-cert", ca_file]).await?;
        ensure!(said.code == Some(code) && said.stdout.contains(says), "{says}: {said:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_key_or_token_is_printed_whatever_goes_wrong() -> Result<()> {
    let ca = Authority::new("Root")?;
    let world = World::with(&ca).await?;
    let key_file = format!("{}{}", ca.pem(), ca.key_pem());
    std::fs::write(world.path("root.pem"), &key_file)?;
    let secret = json!({ "kind": "Secret", "metadata": { "name": "cacerts" }, "data": ca.secret_data() });
    let whole = Answer::json(200, &secret);
    let cut = Answer::new(200, "application/json", secret.to_string()[..secret.to_string().len() - 9].to_owned());
    let swapped = json!({ "kind": "Secret", "data": { "root-cert.pem": secret["data"]["ca-key.pem"] } });
    let size = whole.size();
    let told = json!({ "state": ca.key_pem(), "reason": "RootMissing", "message": ca.key_pem() });
    world.gate.always(FINGERPRINT, Answer::json(200, &told));
    let base64 = secret["data"]["ca-key.pem"].as_str().context("no key")?.to_owned();
    let mut secrets: Vec<_> = ca.key_pem().lines().map(str::to_owned).filter(|line| !line.contains("----")).collect();
    secrets.extend([base64[40..80].to_owned(), JWT.to_owned(), KUBERNETES_TOKEN.to_owned()]);
    for answer in [whole.clone(), whole.cut(size - 20), cut, Answer::json(200, &swapped), Answer::json(500, &secret)] {
        world.nas.server.always(CACERTS, answer);
        for output in ["table", "wide", "json", "yaml"] {
            let (url, file) = (world.url(), world.path("root.pem"));
            let args = ["--context", "nas", "--url", &url, "--vault", "--file", &file, "-o", output];
            let said = world.verify_with(&args, &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")]).await?;
            ensure!(said.code == Some(2), "{said:?}");
            let tokens = vault::tokens(&world.vault);
            ensure!(!tokens.is_empty());
            let leak = secrets.iter().chain(&tokens).find(|secret| said.all().contains(secret.as_str()));
            ensure!(leak.is_none(), "{leak:?} in {said:?}");
        }
    }
    ensure!(world.nas.server.count(CACERTS) == 20, "the Secret was not read");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_told_with_flag_and_variable_before_anybody_is_asked() -> Result<()> {
    let world = World::with(&Authority::new("Root")?).await?;
    let url = world.url();
    world.verify(&[]).await?.is_refused(&["nothing to compare", "--context", "GATE_VERIFY_URLS"])?;
    for (args, says) in [
        (&["--url", "gate.example"][..], ["--url", "GATE_VERIFY_URLS"]),
        (&["--url", "https://u:p@gate.example/fingerprint"], ["--url", "GATE_VERIFY_URLS"]),
        (&["--url", &url, "--timeout", "0s"], ["--timeout", "GATE_VERIFY_TIMEOUT"]),
        (&["--url", &url, "--watch", "often"], ["--watch", "GATE_VERIFY_WATCH"]),
        (&["--url", &url, "-o", "xml"], ["--output", "GATE_VERIFY_OUTPUT"]),
        (&["--url", &url, "--ca-cert", "/nowhere/ca.pem"], ["--ca-cert", "GATE_VERIFY_CA_CERT"]),
        (&["--url", &url, "--ca-cert", "/dev/null"], ["--ca-cert", "GATE_VERIFY_CA_CERT"]),
        (&["--context"], ["--context", "GATE_VERIFY_CONTEXTS"]),
        (&["--context", "nas", "--kubeconfig", "/nowhere/config"], ["--kubeconfig", "KUBECONFIG"]),
        (&["--context", "nas", "--namespace", "Istio_System"], ["--namespace", "GATE_NAMESPACE"]),
    ] {
        let said = world.verify(args).await?;
        said.is_refused(&says)?;
        ensure!(!said.stderr.contains("u:p"), "{said:?}");
    }
    let args = ["--vault", "--url", &url];
    world.verify_with(&args, &[("VAULT_ADDR", "")]).await?.is_refused(&["--vault-addr", "GATE_VAULT_ADDRS"])?;
    ensure!(world.gate.seen().is_empty() && world.nas.server.seen().is_empty(), "somebody was asked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flag_has_a_variable_which_says_the_same() -> Result<()> {
    let world = World::with(&Authority::new("Root")?).await?;
    for command in ["verify", "fingerprint"] {
        // A line of help is wrapped otherwise.
        let help = run(&[command, "--help"], &[("COLUMNS", "1000")]).await?;
        ensure!(help.code == Some(0), "{help:?}");
        let starts = |line: &&str| line.trim_start().starts_with("--") || line.starts_with("  -");
        let mut flags = 0;
        for line in help.stdout.lines().filter(starts).filter(|line| !line.contains("--help")) {
            let after = help.stdout.split(line).nth(1).unwrap_or_default();
            let block = format!("{line}{}", after.split("\n      --").next().unwrap_or_default());
            let named = ["[env: ", "KUBECONFIG", "GATE_CONTEXT"].iter().any(|name| block.contains(name));
            ensure!(named, "no variable: {block}");
            flags += 1;
        }
        ensure!(flags > 15, "{flags}: {help:?}");
    }
    let (url, file) = (world.url(), world.path("root.pem"));
    let variables = [
        ("GATE_VERIFY_CONTEXTS", "nas,homelab"),
        ("GATE_VERIFY_URLS", &url),
        ("GATE_VERIFY_VAULT", "true"),
        ("GATE_VERIFY_FILE", &file),
        ("GATE_VERIFY_OUTPUT", "json"),
    ];
    let said = world.verify_with(&[], &variables).await?;
    ensure!(said.code == Some(0) && rows(&said)?.len() == 7, "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_is_not_there_or_not_usable_is_a_place_like_others() -> Result<()> {
    let world = World::with(&Authority::new("Root")?).await?;
    let said = world.verify(&["--context", "elsewhere", "--context", "nas"]).await?;
    ensure!(said.code == Some(2) && said.stdout.contains("elsewhere cacerts: there is no such context"), "{said:?}");
    let config = json!({
        "clusters": [{ "name": "c", "cluster": { "server": world.nas.server.url() } }],
        "users": [{ "name": "u", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["15"], "interactiveMode": "Never",
        } } }],
        "contexts": [{ "name": "hangs", "context": { "cluster": "c", "user": "u" } }],
    });
    std::fs::write(world.path("other"), config.to_string())?;
    let args = ["--context", "hangs", "--kubeconfig", &world.path("other"), "--vault", "--timeout", "1s"];
    let said = world.verify_with(&args, &[("PATH", "/usr/bin:/bin")]).await?;
    ensure!(said.code == Some(2) && said.stdout.contains("hangs cacerts: no answer within 1s"), "{said:?}");
    ensure!(said.stdout.contains("equal"), "{said:?}");
    Ok(())
}

/// A command that goes on until it is told to end.
struct Watching {
    process: testbed::Process,
    _folder: TempDir,
}

impl Watching {
    fn start(args: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // As many descriptors as a shell gives.
        let program = Program::new("sh").args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""]);
        let process = program.arg(binary()).arg("verify").args(args).spawn(folder.path().join("out"))?;
        Ok(Self { process, _folder: folder })
    }

    async fn prints(&self, what: &str) -> Result<String> {
        let probe = || async { Some(self.process.log()).filter(|log| log.contains(what)) };
        self.process.until(what, SOON, probe).await
    }

    fn peak(&self) -> Result<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
    }

    /// Ctrl-C; its exit code.
    async fn interrupt(&self) -> Result<Option<i32>> {
        self.process.signal(Signal::INT)?;
        Ok(self.process.exited(SOON).await?.code())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_until_ctrl_c_and_ends_with_the_last_verdict() -> Result<()> {
    let (ca, other) = (Authority::new("Root")?, Authority::new("Other")?);
    let world = World::with(&ca).await?;
    let (url, file) = (world.url(), world.path("root.pem"));
    let watching = Watching::start(&["--url", &url, "--file", &file, "--watch", "100ms"])?;
    let log = watching.prints("Equal: all 2 places").await?;
    ensure!(log.starts_with("--- 20") && !log.contains('\u{1b}'), "{log}");
    world.gate.always(FINGERPRINT, Answer::json(200, &report(&other)?));
    watching.prints("Not equal: 1 of 2 places has other roots than the first").await?;
    ensure!(watching.interrupt().await? == Some(1));

    let watching = Watching::start(&["--url", &url, "--file", &file, "--watch", "100ms", "-o", "json"])?;
    let lines = || async {
        let log = watching.process.log();
        (log.lines().count() > 3).then_some(log)
    };
    for line in watching.process.until("three comparisons", SOON, lines).await?.lines().take(3) {
        ensure!(serde_json::from_str::<Value>(line)?["verdict"] == "differs", "{line}");
    }
    ensure!(watching.interrupt().await? == Some(1));

    // Ctrl-C before the first verdict.
    world.gate.always(FINGERPRINT, Answer::silence());
    let asked = world.gate.count(FINGERPRINT);
    let watching = Watching::start(&["--url", &url, "--watch", "--timeout", "1h"])?;
    eventually("the gate to be asked", SOON, || async { (world.gate.count(FINGERPRINT) > asked).then_some(()) })
        .await?;
    ensure!(watching.interrupt().await? == Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_ends_when_nobody_reads_any_more() -> Result<()> {
    let world = World::with(&Authority::new("Root")?).await?;
    let script = "\"$0\" verify --file \"$1\" --watch 100ms | head -n 1";
    let program = Program::new("sh").args(["-c", script]).arg(binary()).arg(PathBuf::from(world.path("root.pem")));
    // It ends by itself, or this fails after two minutes.
    let said = program.output(None).await?;
    ensure!(said.starts_with("--- 20"), "{said}");
    Ok(())
}

/// As many descriptors as this process may have.
fn raise_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_gates_are_compared_in_seconds_on_bounded_memory() -> Result<()> {
    raise_limit()?;
    let ca = Authority::new("Root")?;
    let mut told = report(&ca)?;
    // Almost as much as is read.
    told["padding"] = json!("x".repeat(60 << 10));
    let gates = try_join_all((0..1000).map(|_| gate(told.clone()))).await?;
    let flags: Vec<_> = gates.iter().flat_map(|gate| ["--url".to_owned(), gate.url()]).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--watch", "1h"]).collect();
    let began = Instant::now();
    let watching = Watching::start(&flags)?;
    watching.prints("Equal: all 1000 places have the same roots.").await?;
    let (took, peak) = (began.elapsed(), watching.peak()?);
    eprintln!("1,000 gates compared in {:.2} s, peak of resident memory {} MiB", took.as_secs_f64(), peak >> 20);
    ensure!(gates.iter().all(|gate| gate.count(FINGERPRINT) == 1), "not all were asked once");
    ensure!(took < Duration::from_secs(20), "{took:?}");
    ensure!(peak < 128 << 20, "{} MiB", peak >> 20);
    ensure!(watching.interrupt().await? == Some(0));

    // One that differs is found among them.
    gates[711].always(FINGERPRINT, Answer::json(200, &report(&Authority::new("Other")?)?));
    let flags = &flags[..flags.len() - 2];
    let said = run(&[&["verify"], flags].concat(), &[]).await?;
    ensure!(
        said.code == Some(1) && said.stdout.ends_with("1 of 1000 places has other roots than most (999 of 1000).\n")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_places_hold_up_no_other_and_cost_few_deadlines() -> Result<()> {
    raise_limit()?;
    let ca = Authority::new("Root")?;
    let world = World::with(&ca).await?;
    let silent = StandIn::start(|_| std::future::ready(Answer::silence())).await?;
    let urls: Vec<_> = (0..600).map(|index| format!("{}/fingerprint?{index}", silent.url())).collect();
    let began = Instant::now();
    let all = [urls.join(","), world.url()].join(",");
    let said = world.verify_with(&["--timeout", "1s", "--vault"], &[("GATE_VERIFY_URLS", &all)]).await?;
    let took = began.elapsed();
    ensure!(silent.seen().len() == 600, "{}", silent.seen().len());
    ensure!(said.code == Some(2) && said.stdout.contains("600 of 602 places could not be read"), "{said:?}");
    // Three rounds of a second.
    ensure!(took > Duration::from_secs(2) && took < Duration::from_secs(20), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_of_this_version_tells_its_root_with_its_subject() -> Result<()> {
    let ca = Authority::new("Root")?;
    let kubernetes = Kubernetes::start().await?;
    let vault = vault::start().await?;
    vault.always(READ, version(1, &ca.record()));
    let product = Product::start(kubernetes, vault, &["--role", "sync"]).await?;
    let dormant = run(&["verify", "--url", &product.url("fingerprint")], &[]).await?;
    ensure!(dormant.code == Some(2) && dormant.stdout.contains("(state dormant)"), "{dormant:?}");
    product.allows(&review("istiod")).await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), ca.pem())?;
    let path = file.path().to_string_lossy();
    let said = run(&["verify", "--url", &product.url(""), "--file", &path, "-o", "json"], &[]).await?;
    let document = said.json()?;
    ensure!(said.code == Some(0) && document["places"][0]["kind"] == "gate", "{said:?}");
    ensure!(document["places"][0]["subject"] == document["places"][1]["subject"], "{said:?}");
    ensure!(document["places"][0]["notAfter"] == document["places"][1]["notAfter"], "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_vault_is_told_by_what_it_holds() -> Result<()> {
    let ca = Authority::new("Root")?;
    let vault = standin::vault::Vault::start().await?;
    let folder = tempfile::tempdir()?;
    let ca_file = folder.path().join("vault-ca.pem");
    std::fs::write(&ca_file, vault.ca_pem())?;
    let ca_file = ca_file.to_string_lossy();
    let variables = [("VAULT_ADDR", vault.address()), ("VAULT_CACERT", &ca_file), ("VAULT_TOKEN", vault.root_token())];
    let says = async |code: i32, reason: &str| -> Result<()> {
        let (verify, fingerprint) = tokio::try_join!(
            run(&["verify", "--vault", "-o", "wide"], &variables),
            run(&["fingerprint", "--vault"], &variables)
        )?;
        ensure!(verify.code == Some(code) && verify.stdout.contains(reason), "{verify:?}");
        let code = if code == 2 { 1 } else { code };
        ensure!(fingerprint.code == Some(code) && fingerprint.all().contains(reason), "{fingerprint:?}");
        Ok(())
    };
    says(2, "RootMissing").await?;
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": ca.record() }))).await?;
    says(0, &sha256(&ca)?).await?;
    vault.ok("DELETE", "secret/data/istio/ca", None).await?;
    says(2, "RootDeleted").await?;
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": { "root-cert.pem": ca.pem() } }))).await?;
    says(2, "RootInvalid").await?;
    vault.seal().await?;
    says(2, "VaultSealed").await
}
