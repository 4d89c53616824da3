//! The service's own server on a real socket, in front of stand-ins.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use https::{Bound, Limits, Room};
use istio_ca_gate::ca::signer::SignerTerms;
use istio_ca_gate::clock::Clocks;
use istio_ca_gate::converge::{Attempts, Converger, Parts, Schedule, make_root};
use istio_ca_gate::endpoints::{self, State};
use istio_ca_gate::gate::Gated;
use istio_ca_gate::k8s::flux::Releases;
use istio_ca_gate::k8s::pin::Pins;
use istio_ca_gate::k8s::{Clients, Site};
use istio_ca_gate::metrics::{Labels, Metrics};
use istio_ca_gate::plan::{Names, OnRootChange, Role};
use istio_ca_gate::readiness::Readiness;
use istio_ca_gate::selector;
use istio_ca_gate::serving::{self, Serving, ServingCa};
use istio_ca_gate::snapshot::{Policy, VaultUnavailable};
use istio_ca_gate::webhook::{WAITING_MAX, Webhook};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::trust;
use crate::kubernetes::Kubernetes;
use crate::vault::{Client, client};
use standin::scripted::StandIn;

/// The name in the serving certificate, beside 127.0.0.1.
pub const NAME: &str = "istio-ca-gate.istio-system.svc";

/// Longest wait for any answer: past it, the server hangs.
pub const SOON: Duration = Duration::from_secs(30);

/// A server in the role of the cluster `nas`, whose gated pods have `app=istiod`.
pub struct Gate {
    pub address: SocketAddr,
    pub kubernetes: Arc<Kubernetes>,
    pub state: State,
    ca: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
    converging: Option<(JoinHandle<()>, TempDir)>,
    beside: JoinSet<()>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Gate {
    /// The admission endpoints over TLS. No convergence runs.
    pub async fn start() -> Result<Self> {
        Self::launch(Kubernetes::start().await?.into(), None, &[]).await
    }

    /// The same with a convergence in the sync role.
    pub async fn converging(vault: &StandIn) -> Result<Self> {
        Self::converging_on(Kubernetes::start().await?, vault).await
    }

    /// The same with an API server that has objects already.
    pub async fn converging_on(kubernetes: impl Into<Arc<Kubernetes>>, vault: &StandIn) -> Result<Self> {
        Self::launch(kubernetes.into(), Some(client(&[&vault.url()])?), &[]).await
    }

    /// The same, which follows `cacerts`.
    pub async fn watching(kubernetes: Kubernetes, vault: &StandIn) -> Result<Self> {
        let mut gate = Self::converging_on(kubernetes, vault).await?;
        let cacerts = Arc::clone(&gate.state.webhook.cacerts);
        gate.beside.spawn(async move { cacerts.watch(|| ()).await });
        Ok(gate)
    }

    /// The same, which has these HelmReleases reconciled.
    pub async fn reconciling(kubernetes: Kubernetes, vault: &StandIn, releases: &[&str]) -> Result<Self> {
        Self::launch(kubernetes.into(), Some(client(&[&vault.url()])?), releases).await
    }

    /// The admission endpoints under other limits, the last of them for reviews that wait.
    pub async fn limited(limits: Limits, waiting: usize) -> Result<Self> {
        Self::launch_limited(Kubernetes::start().await?.into(), None, &[], limits, waiting).await
    }

    async fn launch(kubernetes: Arc<Kubernetes>, vault: Option<Client>, releases: &[&str]) -> Result<Self> {
        // A busy machine takes its time for 7 MiB: what a test says of deadlines it sets itself.
        let limits = Limits { body: SOON, large_body: SOON, ..Limits::default() };
        Self::launch_limited(kubernetes, vault, releases, limits, WAITING_MAX).await
    }

    async fn launch_limited(
        kubernetes: Arc<Kubernetes>,
        vault: Option<Client>,
        releases: &[&str],
        limits: Limits,
        waiting: usize,
    ) -> Result<Self> {
        let client = kubernetes.client()?;
        let releases = releases.iter().map(|release| release.parse()).collect::<Result<_, _>>();
        let gated = Gated(vec![selector::parse("app=istiod").map_err(anyhow::Error::msg)?]);
        let site = Site { cluster: "nas", namespace: "istio-system", secret: "cacerts", instance: "replica-1" };
        let releases = releases.map_err(anyhow::Error::msg)?;
        let (clients, writer) = Clients::new(&client, site, gated.clone(), releases);
        let mut beside = JoinSet::new();
        beside.spawn(writer.run());
        let asking = Arc::clone(&clients.reconciles);
        beside.spawn(async move { asking.run().await });
        let converger = Converger::new(clients.cacerts.watched(), Clocks::now);
        let webhook = Webhook {
            cluster: "nas".to_owned(),
            gated: gated.clone(),
            policy: Policy {
                refresh: SignedDuration::from_secs(60),
                vault_unavailable: VaultUnavailable::AllowVerified,
                max_staleness: SignedDuration::from_hours(24),
            },
            converger: converger.clone(),
            cacerts: Arc::clone(&clients.cacerts),
            pins: Pins::new(client.clone(), "istio-system"),
            releases: Releases::new(client.clone()),
            events: clients.events.clone(),
            waiting: Semaphore::new(waiting),
            kept_out: Mutex::default(),
        };
        let policy = webhook.policy;
        let (now, life) = (Timestamp::now(), SignedDuration::from_hours(1));
        let ca = ServingCa::make(now, life).map_err(anyhow::Error::msg)?;
        let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
        let serving = Serving::issue(&ca, &names, now, life).map_err(anyhow::Error::msg)?;
        let metrics =
            Metrics::new(Labels { cluster: "nas".to_owned(), role: Role::Sync, version: istio_ca_gate::VERSION })
                .map_err(anyhow::Error::msg)?;
        let counted = metrics.convergences.clone();
        let requests = metrics.vault.clone();
        let state = State {
            webhook: Arc::new(webhook),
            metrics,
            serving: Arc::clone(&serving),
            role: Role::Sync,
            peers: Arc::default(),
            last_look: Default::default(),
            has_self_test: false,
            readiness: Arc::new(Readiness::default()),
            lines: endpoints::lines(),
            room: Room::new(limits, Arc::default()),
            shown: Arc::default(),
        };
        let converging = vault.map(|Client { vault, folder, .. }| {
            let attempts = Attempts::new(Parts {
                role: Role::Sync,
                on_root_change: OnRootChange::Halt,
                pin_age_max: SignedDuration::from_hours(1),
                names: Names {
                    cacerts: "istio-system/cacerts".to_owned(),
                    pin: "istio-system/istio-ca-gate".to_owned(),
                    mesh: "istio-system/istio-ca-root-cert".to_owned(),
                    record: vault.settings().record(),
                },
                common_name: "Istio Root CA nas".to_owned(),
                signer: vault
                    .settings()
                    .pki_mount
                    .as_ref()
                    .map(|_| SignerTerms { cluster: "nas".to_owned(), life: Duration::from_hours(90 * 24) }),
                store: vault.counted_by(requests),
                cluster: clients,
                make_root,
                now: Clocks::now,
                counted,
            });
            let schedule = Schedule { retry_max: Duration::from_secs(2), refresh: Duration::from_secs(60) };
            (tokio::spawn(async move { converger.run(attempts, schedule, policy).await }), folder)
        });

        let tls = serving::server_config(serving, None);
        let bound = Bound::bind("127.0.0.1:0".parse()?).await?;
        let address = bound.address();
        let (stop, stopping) = oneshot::channel::<()>();
        let router = endpoints::admission(state.clone());
        let room = Arc::clone(&state.room);
        let serving = tokio::spawn(bound.serve(router, Some(tls), room, async { drop(stopping.await) }));
        let ca = ca.certificate_pem().to_owned();
        Ok(Self { address, kubernetes, state, ca, stop: Some(stop), serving, converging, beside })
    }

    /// Asks the server to end.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has.
    pub async fn ended(&mut self) -> Result<()> {
        Ok(tokio::time::timeout(SOON, &mut self.serving).await.context("the server does not end")??)
    }

    pub fn tls(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Result<TlsConnector> {
        let builder = ClientConfig::builder_with_protocol_versions(versions);
        let mut config = builder.with_root_certificates(trust(&self.ca)?).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// A TLS connection as the API server makes it.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        self.connect_with(&self.tls(rustls::ALL_VERSIONS, &["http/1.1"])?, NAME).await
    }

    pub async fn connect_with(&self, tls: &TlsConnector, name: &str) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        Ok(tls.connect(ServerName::try_from(name.to_owned())?, stream).await?)
    }

    /// Sends a request on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Reply> {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n", body.len());
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    /// Posts a body to `/validate`.
    pub async fn post(&self, body: impl AsRef<[u8]>) -> Result<Reply> {
        self.send("POST", "/validate", body.as_ref()).await
    }

    /// Posts a review, and returns its answer's `response`.
    pub async fn review(&self, query: &str, review: &Value) -> Result<Value> {
        let reply = self.send("POST", &format!("/validate{query}"), review.to_string().as_bytes()).await?;
        ensure!(reply.status == 200, "{reply:?}");
        let answer = reply.json()?;
        ensure!(answer["apiVersion"] == "admission.k8s.io/v1" && answer["kind"] == "AdmissionReview", "{answer}");
        ensure!(answer["response"]["uid"] == review["request"]["uid"], "{answer}");
        Ok(answer["response"].clone())
    }

    /// Writes these bytes, while reading the one answer to them.
    pub async fn exchange(&self, bytes: &[u8]) -> Result<Reply> {
        let (mut reader, mut writer) = tokio::io::split(self.connect().await?);
        let write = async {
            // The server may answer, and close, before it has read everything.
            let _ = writer.write_all(bytes).await;
            let _ = writer.flush().await;
        };
        let answered = async { tokio::join!(write, read_reply(&mut reader)).1 };
        tokio::time::timeout(SOON, answered).await.context("no answer")?
    }

    /// Whether it still answers as it should.
    pub async fn serves(&self) -> Result<()> {
        let response = self.review("", &review("not-gated")).await?;
        ensure!(response["allowed"] == true, "{response}");
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some((converging, _)) = &self.converging {
            converging.abort();
        }
    }
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        ensure!(self.content_type == "application/json", "{self:?}");
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }
}

/// Reads one answer, whose body has a length.
pub async fn read_reply(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.with_context(|| String::from_utf8_lossy(&head).into_owned())?);
    }
    let head = String::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let headers = || head.lines().filter_map(|line| line.split_once(": "));
    let header = |name: &str| headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut body = vec![0; header("content-length").unwrap_or("0").parse()?];
    stream.read_exact(&mut body).await?;
    let content_type = header("content-type").unwrap_or_default().to_owned();
    let retry_after = header("retry-after").map(str::to_owned);
    Ok(Reply { status, content_type, retry_after, body: String::from_utf8(body)? })
}

/// A review of the creation of a pod of this `app`.
pub fn review(app: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "requestKind": { "group": "", "version": "v1", "kind": "Pod" },
            "requestResource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "istio-system",
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {
                    "generateName": "istiod-7d4b9c-",
                    "labels": { "app": app },
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "istiod-7d4b9c", "controller": true,
                    }],
                },
                "spec": { "containers": [{ "name": "discovery", "image": "registry.example/pilot" }] },
            },
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
}

/// The same with other fields in its request.
pub fn review_but(app: &str, fields: Value) -> Value {
    let mut review = review(app);
    for (key, value) in fields.as_object().into_iter().flatten() {
        review["request"][key] = value.clone();
    }
    review
}
