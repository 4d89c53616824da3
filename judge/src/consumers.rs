//! Those who read the files, each by its own code.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use istio_ca_gate::ca::bundle::Bundle;
use istio_ca_gate::ca::check::{Flaw, Note, check};
use k8s_openapi::jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use webpki::{EndEntityCert, KeyUsage};

use crate::boring::{self, Purpose};

type Files = BTreeMap<String, Vec<u8>>;

/// The product's own verdict, with what it remarks.
pub fn product(files: &Files, now: Timestamp) -> Result<Vec<Note>, Flaw> {
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    check(Bundle::from_secret(files)?, now).map(|sound| sound.notes.clone())
}

/// istiod's loading and signing, and Go's peers, in a process of their own.
pub struct Go(Lines);

/// A process that answers each line of JSON by one.
struct Lines {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// BoringSSL itself, as Python's gRPC has it, in a process of its own.
pub struct BoringSsl(Lines);

/// A review as the API server's own types have it.
#[derive(Debug, Deserialize)]
pub struct Reviewed {
    /// Why it is none. Empty: it is one.
    pub refused: String,
    /// It creates a pod.
    pub creates: bool,
    /// One of the selectors matches the pod.
    pub matches: bool,
    /// Of the request.
    #[serde(rename = "dryRun")]
    pub dry_run: bool,
    /// Of the request.
    pub uid: String,
    /// Of the pod.
    pub labels: Option<BTreeMap<String, String>>,
    /// What the pod's volumes are filled from.
    pub secrets: Option<Vec<ReviewedSecret>>,
}

/// A Secret that a volume is filled from.
#[derive(Debug, Deserialize)]
pub struct ReviewedSecret {
    /// Which volume.
    pub volume: usize,
    /// Which source of it; negative: the volume itself.
    pub source: i64,
    /// The Secret's name.
    pub name: String,
    /// The pod may start without it.
    pub optional: bool,
}

/// A selector as kubectl has it.
#[derive(Debug, Deserialize)]
pub struct Selected {
    /// Why it is none. Empty: it is one.
    pub refused: String,
    /// It matches every pod.
    pub all: bool,
    /// It matches this one.
    pub matches: bool,
}

/// What they made of a Secret.
#[derive(Debug, Deserialize)]
pub struct Istiod {
    /// Why istiod would not start. Empty: it starts.
    #[serde(rename = "istiod")]
    pub refusal: String,
    /// Why a Go peer would refuse what it signed, or nothing.
    pub peer: String,
    /// What a workload shows: its certificate, and the chain.
    pub workload: String,
    /// What istiod shows.
    pub serving: String,
    /// The trust bundle that it hands out.
    pub roots: String,
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, input, output })
    }

    fn ask<T: DeserializeOwned>(&mut self, question: &serde_json::Value) -> Result<T> {
        writeln!(self.input, "{question}")?;
        self.input.flush()?;
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the process has ended");
        Ok(serde_json::from_str(&line)?)
    }
}

impl BoringSsl {
    /// Starts it, with the gRPC of `boringssl/requirements.txt`, which is put into this folder once.
    pub fn start(folder: &Path) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("boringssl");
        let requirements = here.join("requirements.txt");
        let python = folder.join("bin/python");
        if !folder.join("whole").exists() {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
            let pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"];
            run(Command::new(&python).args(pip).arg(requirements))?;
            fs::write(folder.join("whole"), "")?;
        }
        let mut command = Command::new(python);
        command.arg(here.join("handshake.py")).env("GRPC_VERBOSITY", "NONE");
        Lines::start(command).map(Self)
    }

    /// Whether two peers that both show this, and both trust these roots, come together.
    pub fn verify(&mut self, key: &str, shown: &str, roots: &str, name: &str) -> Result<()> {
        let refusal: Option<String> =
            self.0.ask(&json!({ "key": key, "chain": shown, "roots": roots, "name": name }))?;
        refusal.map_or(Ok(()), |refusal| Err(anyhow!(refusal)))
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

impl Go {
    /// Starts it: the one beside this program, where it was brought along, else the one that is built from what is here.
    pub fn start() -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("judge");
        let program = if beside.is_file() { beside } else { testbed::binaries::judge()? };
        Lines::start(Command::new(program)).map(Self)
    }

    /// Asks about one Secret.
    pub fn ask(&mut self, files: &Files) -> Result<Istiod> {
        let encoded: BTreeMap<&String, String> =
            files.iter().map(|(name, bytes)| (name, STANDARD.encode(bytes))).collect();
        self.0.ask(&json!({ "files": encoded }))
    }

    /// The API server's reading of an AdmissionReview, and whether one of these selectors matches the pod.
    pub fn review(&mut self, body: &[u8], selectors: &[&str]) -> Result<Reviewed> {
        self.0.ask(&json!({ "review": STANDARD.encode(body), "selectors": selectors }))
    }

    /// kubectl's reading of a selector, and whether it matches these labels.
    pub fn selects(&mut self, selector: &str, labels: &BTreeMap<String, String>) -> Result<Selected> {
        self.0.ask(&json!({ "selector": selector, "labels": labels }))
    }

    /// The certificates that Go finds in a file.
    pub fn certificates(&mut self, pem: &[u8]) -> Result<Vec<Vec<u8>>> {
        let found: Option<Vec<String>> = self.0.ask(&json!({ "pem": STANDARD.encode(pem) }))?;
        found.unwrap_or_default().iter().map(|der| Ok(STANDARD.decode(der)?)).collect()
    }

    /// What a Go peer says of a chain that it is shown.
    pub fn verify(&mut self, shown: &str, roots: &str) -> Result<()> {
        let Istiod { peer, .. } = self.0.ask(&json!({ "chain": shown, "roots": roots }))?;
        ensure!(peer.is_empty(), "{peer}");
        Ok(())
    }
}

/// ztunnel: what it reads of istiod's answer, and webpki's verdict on its peers.
pub fn ztunnel(istiod: &Istiod, now: Timestamp) -> Result<()> {
    let roots = read(&istiod.roots).context("roots")?;
    let workload = read(&istiod.workload).context("chain")?;
    let serving = CertificateDer::pem_slice_iter(istiod.serving.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let mut store = RootCertStore::empty();
    // It goes on without those that it cannot read, but then trusts fewer than the others do.
    let (_, lost) = store.add_parsable_certificates(roots);
    ensure!(lost == 0, "{lost} roots cannot be read");
    let name = ServerName::try_from("istiod.istio-system.svc")?;
    verify(&workload, &store, now, KeyUsage::client_auth(), None)?;
    verify(&workload, &store, now, KeyUsage::server_auth(), None)?;
    verify(&serving, &store, now, KeyUsage::server_auth(), Some(&name)).context("istiod")
}

/// webpki's verdict on a chain that it is shown, as a server's and as a client's.
pub fn webpki(shown: &str, roots: &str, now: Timestamp) -> Result<()> {
    let (shown, mut store) = (read(shown)?, RootCertStore::empty());
    let (_, lost) = store.add_parsable_certificates(read(roots)?);
    ensure!(lost == 0, "{lost} roots cannot be read");
    [KeyUsage::client_auth(), KeyUsage::server_auth()]
        .into_iter()
        .try_for_each(|usage| verify(&shown, &store, now, usage, None))
}

/// Nothing but certificates, each as x509-parser reads it.
fn read(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let mut ders = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        let (kind, der) = section?;
        ensure!(kind == SectionKind::Certificate, "no certificate");
        x509_parser::parse_x509_certificate(&der)?;
        ders.push(der.into());
    }
    Ok(ders)
}

fn verify(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: Timestamp,
    usage: KeyUsage,
    name: Option<&ServerName<'_>>,
) -> Result<()> {
    let (leaf, intermediates) = chain.split_first().context("no leaf")?;
    let leaf = EndEntityCert::try_from(leaf)?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
    leaf.verify_for_usage(algorithms, &roots.roots, intermediates, now, usage, None, None)?;
    name.map_or(Ok(()), |name| leaf.verify_is_valid_for_subject_name(name)).map_err(Into::into)
}

/// Envoy, by the family of its verifier.
pub fn envoy(istiod: &Istiod, crl: Option<&[u8]>) -> Result<()> {
    let shown = format!("{}{}", istiod.workload, istiod.roots);
    for purpose in [Purpose::Client, Purpose::Server] {
        boring::verify(istiod.roots.as_bytes(), crl, shown.as_bytes(), purpose)?;
    }
    boring::verify(istiod.roots.as_bytes(), crl, istiod.serving.as_bytes(), Purpose::Server).context("istiod")
}

/// openssl, with partial chains.
pub fn openssl(istiod: &Istiod, crl: Option<&[u8]>, folder: &Path) -> Result<()> {
    fs::write(folder.join("roots"), &istiod.roots)?;
    fs::write(folder.join("workload"), &istiod.workload)?;
    fs::write(folder.join("serving"), &istiod.serving)?;
    let crl = crl.filter(|crl| !crl.is_empty());
    fs::write(folder.join("crl"), crl.unwrap_or_default())?;
    openssl_verify(
        folder,
        crl.is_some(),
        &[("sslclient", "workload"), ("sslserver", "workload"), ("sslserver", "serving")],
    )
}

/// openssl's verdict on a chain that it is shown, as a server's and as a client's.
pub fn openssl_alone(shown: &str, roots: &str, folder: &Path) -> Result<()> {
    fs::write(folder.join("roots"), roots)?;
    fs::write(folder.join("shown"), shown)?;
    openssl_verify(folder, false, &[("sslclient", "shown"), ("sslserver", "shown")])
}

fn openssl_verify(folder: &Path, has_crl: bool, asked: &[(&str, &str)]) -> Result<()> {
    for (purpose, shown) in asked {
        let mut command = Command::new("openssl");
        command.args(["verify", "-partial_chain", "-no-CApath", "-no-CAstore", "-purpose", purpose]);
        command.args(["-CAfile", "roots", "-untrusted", shown]);
        if has_crl {
            command.args(["-crl_check_all", "-CRLfile", "crl"]);
        }
        let output = command.arg(shown).current_dir(folder).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let cause = said.lines().find(|line| line.contains("error")).unwrap_or(&said).to_owned();
            bail!("{shown} as {purpose}: {cause}");
        }
    }
    Ok(())
}

/// Why one refuses, in a line.
pub fn line(verdict: Result<()>) -> Option<String> {
    verdict.err().map(|error: anyhow::Error| anyhow!("{error:#}").to_string().replace('\n', " "))
}
