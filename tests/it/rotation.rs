//! The service's own serving certificate, under calls: gates on an embedded API server, whose watches and
//! server-side apply are the real one's, and a client that trusts exactly what `caBundle` says at the time.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use istio_ca_gate::ca::Sha256;
use istio_ca_gate::serving::ServingCa;
use istio_ca_gate::serving::ca::CaCertificate;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use standin::kubernetes::Kubernetes;
use standin::vault::Vault;
use tempfile::TempDir;
use testbed::side::{NAMESPACE, Side, WEBHOOKS};
use testbed::{Paced, eventually, until_shown};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gate::{read_reply, review};
use crate::world::Gate;

/// Longest wait for what a gate does by itself with the lives of these tests.
const IN_TIME: Duration = Duration::from_secs(90);

/// Calls of a kind without which a run says nothing: a score meets every step of a rotation.
const CALLS_NEEDED: usize = 20;

/// Between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(30);

const TLS_SECRET: &str = "/api/v1/namespaces/istio-system/secrets/istio-ca-gate-tls";

/// Gates that share a Secret.
struct Ward {
    gates: Vec<(Gate, TempDir)>,
    side: Side,
    vault: Vault,
    _kubernetes: Kubernetes,
}

impl Ward {
    async fn empty() -> Result<Self> {
        let (kubernetes, vault) = tokio::try_join!(Kubernetes::start("nas"), Vault::start())?;
        let side = Side::nas((*kubernetes).clone());
        side.install().await?;
        Ok(Self { gates: Vec::new(), side, vault, _kubernetes: kubernetes })
    }

    async fn start(gates: usize, ca_life: &str, leaf_life: &str) -> Result<Self> {
        let mut ward = Self::empty().await?;
        for _ in 0..gates {
            ward.add(ca_life, leaf_life).await?;
        }
        Ok(ward)
    }

    async fn add(&mut self, ca_life: &str, leaf_life: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let flags = ["--tls-ca-life", ca_life, "--tls-leaf-life", leaf_life];
        let gate = Gate::start(&self.side, &self.vault, folder.path(), &flags).await?;
        self.gates.push((gate, folder));
        Ok(())
    }

    async fn secret(&self) -> Result<Value> {
        self.side.object(TLS_SECRET).await?.context("no Secret")
    }

    /// The CAs in the Secret, the signing one first.
    async fn cas(&self) -> Result<Vec<Sha256>> {
        let secret = self.secret().await?;
        ids(&serde_json::from_value::<ByteString>(secret["data"]["ca.crt"].clone())?.0)
    }

    /// Changes the Secret as a person does.
    async fn patch(&self, patch: Value) -> Result<()> {
        let (status, answer) = self.side.api.request("PATCH", TLS_SECRET, Some(patch)).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let (status, answer) = self.side.api.request("DELETE", TLS_SECRET, None).await?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// How often any gate logged this.
    fn logged(&self, what: &str) -> Result<Vec<usize>> {
        self.gates.iter().map(|(gate, _)| Ok(gate.log().matches(what).count())).collect()
    }

    /// Waits until every gate has logged this.
    async fn all_log(&self, what: &str) -> Result<()> {
        eventually(what, IN_TIME, || async {
            let logged = self.logged(what)?;
            ensure!(logged.iter().all(|count| *count > 0), "{logged:?}");
            Ok(())
        })
        .await
    }

    /// Waits until this CA signs and no other is trusted.
    async fn alone(&self, other_than: &Sha256) -> Result<Sha256> {
        eventually("another CA alone", IN_TIME, || async {
            match self.cas().await?.as_slice() {
                [one] if one != other_than => Ok(*one),
                several => Err(anyhow::anyhow!("{several:?}")),
            }
        })
        .await
    }
}

fn ids(pem: &[u8]) -> Result<Vec<Sha256>> {
    let all = CaCertificate::all_of(pem).map_err(anyhow::Error::msg)?;
    Ok(all.into_iter().map(|ca| ca.id).collect())
}

fn pair(ca: &ServingCa) -> Value {
    let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    json!({ "ca.crt": bytes(ca.certificate_pem()), "ca.key": bytes(&ca.key_pem()) })
}

fn another_ca() -> Result<ServingCa> {
    ServingCa::make(Timestamp::now(), SignedDuration::from_hours(24 * 365)).map_err(anyhow::Error::msg)
}

/// Reviews of a pod that is not gated, on new and on kept connections to every gate, until it is ended.
struct Load {
    callers: JoinSet<Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    ended: AtomicBool,
    new: AtomicUsize,
    kept: AtomicUsize,
}

impl Load {
    fn start(ward: &Ward) -> Self {
        let (mut callers, counts) = (JoinSet::new(), Arc::<Counts>::default());
        for (gate, _) in &ward.gates {
            callers.spawn(on_new_connections(ward.side.clone(), gate.https(), Arc::clone(&counts)));
            callers.spawn(on_a_kept_connection(ward.side.clone(), gate.https(), Arc::clone(&counts)));
        }
        Self { callers, counts }
    }

    /// Ends it. The first failed call is the error; too few of them show nothing.
    async fn end(mut self, what: &str) -> Result<Paced> {
        self.counts.ended.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller??;
        }
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (new, kept) = (count(&self.counts.new), count(&self.counts.kept));
        println!("{what}: {new} calls on new connections, {kept} on kept ones, none failed");
        let least = new.min(kept);
        Ok(if least < CALLS_NEEDED {
            Paced::TooSlow(format!("{least} calls of one kind, of {CALLS_NEEDED} that are needed"))
        } else {
            Paced::Shown
        })
    }
}

async fn on_new_connections(side: Side, gate: SocketAddr, counts: Arc<Counts>) -> Result<()> {
    while !counts.ended.load(Ordering::Relaxed) {
        let mut stream = connect(&side, gate).await?;
        call(&mut stream).await?;
        counts.new.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn on_a_kept_connection(side: Side, gate: SocketAddr, counts: Arc<Counts>) -> Result<()> {
    let mut stream = connect(&side, gate).await?;
    while !counts.ended.load(Ordering::Relaxed) {
        call(&mut stream).await?;
        counts.kept.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The `caBundle` of now, of all webhooks.
async fn ca_bundle(side: &Side) -> Result<Vec<u8>> {
    let configuration = side.object(WEBHOOKS).await?.context("no webhook configuration")?;
    let webhooks = configuration["webhooks"].as_array().context("no webhooks")?;
    let bundles: BTreeSet<_> =
        webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default()).collect();
    ensure!(bundles.len() == 1, "{} different bundles", bundles.len());
    Ok(serde_json::from_value::<ByteString>(json!(bundles.first()))?.0)
}

async fn connect(side: &Side, gate: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let bundle = ca_bundle(side).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bundle) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Each handshake shows whether the certificate is trusted.
    config.resumption = rustls::client::Resumption::disabled();
    let stream = TcpStream::connect(gate).await?;
    let name = ServerName::try_from("127.0.0.1")?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.with_context(|| format!("a handshake that trusts {:?}", ids(&bundle)))
}

async fn call(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let body = review("not-gated").to_string();
    let length = body.len();
    let head = format!("POST /validate?timeout=10s HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
    stream.flush().await?;
    let reply = read_reply(stream).await?;
    ensure!(reply.status == 200 && reply.json()?["response"]["allowed"] == true, "{reply:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_rotate_leaves_and_ca_under_calls_and_none_fails() -> Result<()> {
    until_shown("two rotations of the CA", two_rotations).await
}

async fn two_rotations() -> Result<Paced> {
    let ward = Ward::start(2, "18s", "6s").await?;
    let first = ward.cas().await?[0];
    let load = Load::start(&ward);
    let second = ward.alone(&first).await?;
    // And once more, so that it is no matter of the first one.
    let third = ward.alone(&second).await?;
    ensure!(third != first);
    ward.all_log(&format!("\"ca\":\"{third}\"")).await?;
    let pace = load.end("two rotations of the CA").await?;
    let leaves = ward.logged("issued a serving certificate")?;
    println!("leaves issued: {leaves:?}");
    ensure!(leaves.iter().all(|leaves| *leaves >= 6), "{leaves:?}");
    let switches = ward.logged("\"step\":\"Switch\"")?;
    ensure!(switches.iter().sum::<usize>() == 2, "each step is taken once: {switches:?}");
    Ok(pace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_is_made_anew_with_a_new_ca_and_no_call_fails() -> Result<()> {
    until_shown("a deleted Secret", deleted).await
}

async fn deleted() -> Result<Paced> {
    let ward = Ward::start(2, "3650d", "6s").await?;
    let first = ward.cas().await?[0];
    let load = Load::start(&ward);
    ward.delete().await?;
    let second = ward.alone(&first).await?;
    ward.all_log(&format!("\"ca\":\"{second}\"")).await?;
    let pace = load.end("a deleted Secret").await?;
    ensure!(ward.logged("made a serving CA")?.iter().sum::<usize>() == 2, "at start, and after");
    Ok(pace)
}

/// What is to be done about a leaked key.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_deleted_after_all_gates_have_ended_leaves_nothing_of_the_old_ca() -> Result<()> {
    let mut ward = Ward::start(2, "3650d", "30d").await?;
    let first = ward.cas().await?[0];
    for (gate, _) in ward.gates.drain(..) {
        gate.stop().await?;
    }
    ward.delete().await?;
    ward.add("3650d", "30d").await?;
    let trusted = ward.cas().await?;
    ensure!(trusted.len() == 1 && trusted[0] != first, "{first} in {trusted:?}");
    ensure!(ids(&ca_bundle(&ward.side).await?)? == trusted);
    call(&mut connect(&ward.side, ward.gates[0].0.https()).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_replaced_by_hand_is_followed_and_no_call_fails() -> Result<()> {
    until_shown("a replaced Secret", replaced).await
}

async fn replaced() -> Result<Paced> {
    let ward = Ward::start(2, "3650d", "6s").await?;
    let (first, other) = (ward.cas().await?[0], another_ca()?);
    let load = Load::start(&ward);
    ward.patch(json!({ "data": pair(&other) })).await?;
    let second = ward.alone(&first).await?;
    ensure!(second == other.certificate().id, "it is not the one that was put there");
    ward.all_log(&format!("\"ca\":\"{second}\"")).await?;
    load.end("a replaced Secret").await
}

/// As one has it whose node's clock was two months ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_from_the_future_is_followed_by_another_whether_a_gate_runs_or_starts() -> Result<()> {
    until_shown("a CA from the future", from_the_future).await
}

async fn from_the_future() -> Result<Paced> {
    let early = || {
        let made = Timestamp::now() + SignedDuration::from_hours(24 * 61);
        ServingCa::make(made, SignedDuration::from_hours(24 * 365)).map_err(anyhow::Error::msg)
    };
    let signs_instead_of = async |ward: &Ward, others: &[Sha256]| {
        eventually("another CA to sign", IN_TIME, || async {
            let signing = ward.cas().await?[0];
            ensure!(!others.contains(&signing), "{signing}");
            Ok(signing)
        })
        .await
    };
    let mut ward = Ward::start(2, "3650d", "12s").await?;
    let (first, future) = (ward.cas().await?[0], early()?);
    let load = Load::start(&ward);
    ward.patch(json!({ "data": pair(&future) })).await?;
    let second = signs_instead_of(&ward, &[first, future.certificate().id]).await?;
    ward.all_log(&format!("\"ca\":\"{second}\"")).await?;
    let pace = load.end("a CA from the future").await?;
    ward.all_log("its CA is not valid yet").await?;

    for (gate, _) in ward.gates.drain(..) {
        gate.stop().await?;
    }
    let future = early()?;
    ward.patch(json!({ "data": pair(&future) })).await?;
    // It waits until the gate is ready.
    ward.add("3650d", "12s").await?;
    signs_instead_of(&ward, &[future.certificate().id]).await?;
    call(&mut connect(&ward.side, ward.gates[0].0.https()).await?).await?;
    Ok(pace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_secret_is_told_of_once_and_changes_nothing() -> Result<()> {
    until_shown("a half-written Secret", half_written).await
}

async fn half_written() -> Result<Paced> {
    let ward = Ward::start(1, "3650d", "6s").await?;
    let (whole, bundle) = (ward.secret().await?["data"].clone(), ca_bundle(&ward.side).await?);
    let load = Load::start(&ward);
    ward.patch(json!({ "data": { "ca.key": null } })).await?;
    let told = "it has no ca.key: mend it, or delete it to have a new one made";
    ward.all_log(told).await?;
    let renewed = ward.logged("issued a serving certificate")?[0];
    eventually("a leaf by the last good CA", IN_TIME, || async {
        (ward.logged("issued a serving certificate").ok()?[0] > renewed + 1).then_some(())
    })
    .await?;
    ensure!(ca_bundle(&ward.side).await? == bundle && ward.logged(told)? == [1]);
    ward.patch(json!({ "data": whole })).await?;
    ward.all_log("can be used again").await?;
    load.end("a half-written Secret").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_an_older_version_is_adopted_as_it_is() -> Result<()> {
    let mut ward = Ward::empty().await?;
    let ca = another_ca()?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": "istio-ca-gate-tls", "namespace": NAMESPACE }, "data": pair(&ca),
    });
    let path = TLS_SECRET.rsplit_once('/').context("a path")?.0;
    let (status, answer) = ward.side.api.request("POST", path, Some(secret)).await?;
    ensure!(status == 201, "{answer}");
    let before = ward.secret().await?;
    ward.add("3650d", "30d").await?;
    call(&mut connect(&ward.side, ward.gates[0].0.https()).await?).await?;
    ensure!(ca_bundle(&ward.side).await? == ca.certificate_pem().as_bytes());
    ensure!(ward.secret().await? == before, "it was written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_bundle_is_repaired_without_a_storm_of_writes_and_holds_no_rotation_up() -> Result<()> {
    let ward = Ward::start(1, "18s", "6s").await?;
    let first = ward.cas().await?[0];
    let began = Instant::now();
    let mut stripped = 0;
    // Until the next CA signs: by then it was stripped some dozen times.
    while ward.cas().await?[0] == first {
        ensure!(began.elapsed() < IN_TIME, "no rotation");
        ward.side.point_webhooks_at(&[ward.gates[0].0.https().port()]).await?;
        stripped += 1;
        ward.side.is_injected().await?;
    }
    let seconds = began.elapsed().as_secs() as usize;
    let written = ward.logged("injected caBundle")?[0];
    println!("stripped {stripped} times in {seconds} s, repaired {written} times");
    // At most one a second in each of the two configurations. The last repair may not be logged yet.
    ensure!(stripped >= 3 && written + 1 >= stripped && written <= 2 * (seconds + 3));
    call(&mut connect(&ward.side, ward.gates[0].0.https()).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rights_to_follow_and_to_write_a_gate_serves_and_tells_of_them() -> Result<()> {
    let mut ward = Ward::empty().await?;
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/istio-system/roles/istio-ca-gate";
    let mut rules = ward.side.object(role).await?.context("no Role")?["rules"].clone();
    for rule in rules.as_array_mut().context("no rules")? {
        if rule["resourceNames"] == json!(["istio-ca-gate-tls"]) {
            rule["verbs"] = json!(["get"]);
        }
    }
    let (status, answer) = ward.side.api.request("PATCH", role, Some(json!({ "rules": rules }))).await?;
    ensure!(status == 200, "{answer}");
    ward.add("12s", "4s").await?;
    // The rotation is due, and cannot be announced; leaves are renewed.
    ward.all_log("refuses to write Secret istio-system/istio-ca-gate-tls").await?;
    ensure!(ward.logged("refuses to watch Secret istio-ca-gate-tls")?[0] > 0);
    ensure!(ward.logged("issued a serving certificate")?[0] >= 2);
    call(&mut connect(&ward.side, ward.gates[0].0.https()).await?).await
}
