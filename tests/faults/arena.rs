//! Two embedded clusters with two gates each, the Vault that they share, and all that is recorded of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use faults::files::Files;
use faults::history::{History, Line, Promises, Said};
use faults::scan::{Scanner, Secret};
use faults::{kubernetes_audit, vault_audit};
use serde_json::{Value, json};
use standin::faults::{Faults, Switch};
use standin::kubernetes::Kubernetes;
use standin::vault::Vault;
use tempfile::TempDir;
use testbed::side::{Login, NAMESPACE, Side};
use testbed::{Port, Process, Program, eventually};
use tokio::task::AbortHandle;

use crate::balancer::Balancer;
use crate::journal;
use crate::schedule::Server;

/// Longest wait for anything that a gate does by itself, on a machine that has more to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Gates of a cluster.
pub const REPLICAS: usize = 2;

/// A cluster and its gates.
pub struct Site {
    pub side: Side,
    pub kubernetes: Kubernetes,
    pub gates: Vec<Gate>,
    balancer: Balancer,
}

/// One gate: the built program. On drop it is killed.
pub struct Gate {
    pub name: String,
    pub process: Process,
    http: Port,
    https: Port,
    client: reqwest::Client,
}

impl Gate {
    fn launch(side: &Side, vault: &Vault, number: usize, files: &GateFiles) -> Result<Self> {
        let name = format!("{}-{number}", side.name);
        let (http, https) = (Port::reserve()?, Port::reserve()?);
        let process = Program::new(env!("CARGO_BIN_EXE_istio-ca-gate"))
            .args(["serve", "--role", side.role, "--cluster", side.name, "--dns-name", "127.0.0.1"])
            .args(["--shutdown-delay", "0s", "--vault-addr", vault.address(), "--vault-auth-mount", side.auth_mount])
            .args(["--listen", &format!("127.0.0.1:{}", https.number())])
            .args(["--admin-listen", &format!("127.0.0.1:{}", http.number())])
            .args(["--refresh", "1s", "--retry-max", "500ms"])
            .env("RUST_LOG", "trace")
            .env("GATE_LOG_FORMAT", "json")
            .env("KUBECONFIG", &files.kubeconfig)
            .env("GATE_VAULT_JWT_FILE", &files.jwt)
            .env("VAULT_CACERT", &files.ca)
            .spawn(files.folder.join(format!("{name}.log")))?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { name, process, http, https, client })
    }

    /// The text at a path of its HTTP endpoints, whatever its status.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = self.client.get(format!("http://127.0.0.1:{}/{path}", self.http.number())).send().await?;
        Ok(answer.text().await?)
    }

    /// Its state and its reason.
    pub async fn stands(&self) -> Result<(String, String)> {
        let report: Value = serde_json::from_str(&self.get("fingerprint").await?)?;
        let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("reason")))
    }

    /// What it holds of the machine, as the kernel says.
    fn used(&self) -> Option<Said> {
        let folder = format!("/proc/{}", self.process.pid());
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let resident = peak.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10;
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).ok()?.count() as u64;
        Some(Said::Used { process: self.name.clone(), resident, descriptors })
    }
}

/// What a cluster's gates are given.
struct GateFiles {
    folder: PathBuf,
    kubeconfig: PathBuf,
    jwt: PathBuf,
    ca: PathBuf,
    tokens: [String; 2],
}

impl GateFiles {
    async fn write(side: &Side, vault: &Vault, folder: &Path) -> Result<Self> {
        let write = |name: &str, text: &str| {
            let path = folder.join(format!("{}-{name}", side.name));
            std::fs::write(&path, text).map(|()| path)
        };
        let tokens = [side.gate_token(side.api.issuer()).await?, side.gate_token("vault").await?];
        let kubeconfig = side.api.kubeconfig(side.service_account, &tokens[0]);
        Ok(Self {
            folder: folder.to_owned(),
            kubeconfig: write("kubeconfig", &kubeconfig)?,
            jwt: write("token", &tokens[1])?,
            ca: write("ca.pem", vault.ca_pem())?,
            tokens,
        })
    }
}

/// All of it, and the lines that no server records.
pub struct Arena {
    pub vault: Vault,
    pub sites: [Site; 2],
    began: SystemTime,
    lines: Arc<Mutex<Vec<Line>>>,
    injected: Mutex<Vec<(String, Server, Arc<Switch>)>>,
    tokens: Vec<String>,
    heartbeat: AbortHandle,
    folder: TempDir,
}

/// How often it is looked whether the machine stands still.
const BEAT: Duration = Duration::from_millis(200);

/// A delay of that which is no matter of scheduling any more.
const STALL: Duration = Duration::from_secs(1);

impl Drop for Arena {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

async fn beat(lines: Arc<Mutex<Vec<Line>>>) {
    loop {
        let began = std::time::Instant::now();
        tokio::time::sleep(BEAT).await;
        let by = began.elapsed();
        if by > STALL {
            let line = Line { at: milliseconds(SystemTime::now()), said: Said::Stalled { by: by.as_millis() as u64 } };
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

impl Arena {
    /// Set up as the README says, with all gates ready.
    pub async fn start(seed: u64, promises: Promises) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (homelab, nas, vault) =
            tokio::try_join!(Kubernetes::start("homelab"), Kubernetes::start("nas"), Vault::start())?;
        vault.journal().keep(journal::of_vault);
        let homelab = (Side::homelab((*homelab).clone()), homelab, Login::TokenReview);
        let nas = (Side::nas((*nas).clone()), nas, Login::Signature);
        let (mut sites, mut tokens) = (Vec::new(), Vec::new());
        for (side, kubernetes, login) in [homelab, nas] {
            kubernetes.journal().keep(journal::of_kubernetes);
            side.install().await?;
            side.introduce_to(&vault, login).await?;
            let files = GateFiles::write(&side, &vault, folder.path()).await?;
            tokens.extend(files.tokens.clone());
            let gates = (0..REPLICAS).map(|number| Gate::launch(&side, &vault, number, &files));
            let gates = gates.collect::<Result<Vec<_>>>()?;
            let balancer = Balancer::start(gates.iter().map(|gate| gate.https.number()).collect()).await?;
            sites.push(Site { side, kubernetes, gates, balancer });
        }
        let sites = sites.try_into().ok().context("two clusters")?;
        let began = SystemTime::now();
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let heartbeat = tokio::spawn(beat(Arc::clone(&lines))).abort_handle();
        let arena = Self { vault, sites, began, lines, injected: Mutex::default(), tokens, heartbeat, folder };
        arena.say(Said::Run { seed: Some(seed), promises });
        arena.ready().await?;
        Ok(arena)
    }

    async fn ready(&self) -> Result<()> {
        for site in &self.sites {
            for gate in &site.gates {
                let what = format!("{} to be ready", gate.name);
                let probe = || async {
                    let text = gate.get("readyz").await?;
                    ensure!(text.starts_with("ok"), "{text}");
                    Ok(())
                };
                gate.process.until(&what, PATIENCE, probe).await?;
            }
            site.side.point_webhooks_at(&[site.balancer.port]).await?;
            eventually("caBundle", PATIENCE, || site.side.is_injected()).await?;
        }
        Ok(())
    }

    /// Keeps a line of this moment.
    pub fn say(&self, said: Said) {
        let line = Line { at: milliseconds(SystemTime::now()), said };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The switches of a server, and its administrator's token.
    pub fn faults(&self, server: Server) -> (&Faults, &str) {
        match server {
            Server::Vault => (self.vault.faults(), self.vault.root_token()),
            Server::Cluster(number) => {
                let site = &self.sites[number];
                (site.kubernetes.faults(), site.side.api.admin_token())
            }
        }
    }

    /// Remembers a fault that was switched on.
    pub fn injected(&self, name: String, server: Server, switch: Arc<Switch>) {
        self.say(Said::Fault { name: name.clone(), on: format!("{server:?}") });
        self.injected.lock().unwrap_or_else(PoisonError::into_inner).push((name, server, switch));
    }

    /// Ends all faults of a server, and tells how often they hit.
    pub fn heal(&self, server: Server) {
        self.faults(server).0.heal();
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<_> = injected.extract_if(.., |(_, of, _)| *of == server).collect();
        drop(injected);
        for (name, _, switch) in ended {
            self.say(Said::Fired { name, hits: switch.hits() as u64 });
        }
    }

    /// Tells what each gate holds, and which ended by itself.
    pub fn look_at_processes(&self) {
        for gate in self.sites.iter().flat_map(|site| &site.gates) {
            if gate.process.is_running() {
                gate.used().into_iter().for_each(|said| self.say(said));
            } else {
                let event = "ended by itself".to_owned();
                self.say(Said::Process { name: gate.name.clone(), event, by_run: false });
            }
        }
    }

    /// The record as it is, and what it stands for.
    pub async fn record(&self) -> Result<Option<Value>> {
        let (status, answer) = self.vault.api("GET", "secret/data/istio/ca", None).await?;
        Ok((status == 200).then(|| answer["data"]["data"].clone()))
    }

    /// Tells how a cluster stands now.
    pub async fn end(&self, site: &Site, after: Option<Duration>, seen: String) -> Result<()> {
        let cacerts = site.side.cacerts().await?;
        self.say(Said::End {
            cluster: site.side.name.to_owned(),
            after: after.map(|after| after.as_millis() as u64),
            seen,
            pods: site.side.pods("istiod").await?.len() as u64,
            files: cacerts.map(|cacerts| Files::of_secret(&cacerts["data"])),
        });
        Ok(())
    }

    /// Searches all that the gates say for keys and tokens.
    pub async fn scan(&self) -> Result<()> {
        let scanner = self.scanner().await?;
        for site in &self.sites {
            for gate in &site.gates {
                for path in ["fingerprint", "metrics", "", "readyz"] {
                    let text = gate.get(path).await?;
                    self.scanned(&format!("/{path} of {}", gate.name), text.len() as u64, scanner.text(&text));
                }
                let (bytes, found) = scanner.file(&self.folder.path().join(format!("{}.log", gate.name)))?;
                self.scanned(&format!("the log of {}", gate.name), bytes, found);
            }
            let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
            let (_, events) = site.side.api.request("GET", &path, None).await?;
            let events = events.to_string();
            self.scanned(&format!("Events of {}", site.side.name), events.len() as u64, scanner.text(&events));
        }
        Ok(())
    }

    fn scanned(&self, output: &str, bytes: u64, found: BTreeSet<String>) {
        self.say(Said::Scanned { output: output.to_owned(), bytes, found: found.into_iter().collect() });
    }

    async fn scanner(&self) -> Result<Scanner> {
        let (mut secrets, mut public) = (Vec::new(), Vec::new());
        if let Some(record) = self.record().await? {
            secrets.push(Secret::key("the root's key", record["key.pem"].as_str().unwrap_or_default()));
            public.push(record["root-cert.pem"].as_str().unwrap_or_default().to_owned());
        }
        for site in &self.sites {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/istio-ca-gate-tls");
            let secret = site.side.object(&path).await?.context("no serving CA")?;
            let file = |name: &str| {
                let bytes = BASE64_STANDARD.decode(secret["data"][name].as_str().unwrap_or_default());
                bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            secrets.push(Secret::key("the serving CA's key", &file("ca.key")?));
            public.push(file("ca.crt")?);
        }
        let tokens = journal::tokens(&self.vault.journal().entries());
        secrets.extend(tokens.iter().map(|token| Secret::text("a token of Vault", token)));
        // Their heads and claims are not secret; the signature is.
        let signatures = self.tokens.iter().filter_map(|token| token.rsplit('.').next());
        secrets.extend(signatures.map(|signature| Secret::text("a token of Kubernetes", signature)));
        Scanner::new(&secrets, &public)
    }

    /// All that is known of the run, in its order.
    pub fn history(&self) -> History {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let log = journal::vault_log(&self.vault.journal().entries(), self.vault.root_token());
        lines.extend(vault_audit::read("vault", &log));
        for site in &self.sites {
            let log = journal::kubernetes_log(&site.kubernetes.journal().entries());
            lines.extend(kubernetes_audit::read(site.side.name, &log, &[site.side.service_account]));
        }
        let began = milliseconds(self.began);
        lines.iter_mut().for_each(|line| line.at = line.at.saturating_sub(began));
        lines.sort_by_key(|line| line.at);
        History(lines)
    }

    /// What the gates logged, for a run that failed.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A sound CA that nobody knows, as the data of a Secret.
pub fn foreign() -> Result<Value> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Somebody else's CA");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate()?;
    let certificate = BASE64_STANDARD.encode(params.self_signed(&key)?.pem());
    Ok(json!({
        "root-cert.pem": certificate, "cert-chain.pem": certificate, "ca-cert.pem": certificate,
        "ca-key.pem": BASE64_STANDARD.encode(key.serialize_pem()),
    }))
}
