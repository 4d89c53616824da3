#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::attests::AttestedAt;
use crate::ca::fixtures::{Ca, now};
use crate::ca::record::SigningRecord;
use crate::k8s::samples::{answered_by, refusal};
use crate::reason::Reason;
use crate::refused::Refused;
use crate::samples;
use crate::store::{Created, Found};

fn attestation(at: Timestamp) -> Attestation {
    samples::attestation("nas", at)
}

#[test]
fn what_changed_is_attested_at_once_and_what_did_not_every_minute_of_a_rotation_and_every_hour_of_peace() {
    let after = |seconds| attestation(now() + SignedDuration::from_secs(seconds));
    let first = attestation(now());
    assert!(is_due(None, &first, false));
    let changed = Attestation { why: Some("no istiod runs".to_owned()), ..after(1) };
    assert!(is_due(Some(&first), &changed, false));
    assert!(!is_due(Some(&first), &after(59), true) && is_due(Some(&first), &after(60), true));
    assert!(!is_due(Some(&first), &after(3599), false) && is_due(Some(&first), &after(3600), false));
}

/// Vault, which counts what it is asked.
#[derive(Clone)]
struct Counting(Arc<Mutex<Inner>>);

struct Inner {
    stored: Stored,
    attested: Option<Attestation>,
    reads: usize,
    attested_reads: usize,
    writes: usize,
    reaches: usize,
}

impl Counting {
    fn with(stored: Stored) -> Self {
        Self(Arc::new(Mutex::new(Inner { stored, attested: None, reads: 0, attested_reads: 0, writes: 0, reaches: 0 })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Store for Counting {
    type Place = ();

    fn begin(&mut self) {}

    async fn read(&mut self, _: Option<Sha256>, _: Timestamp) -> Result<Found<()>, Refused> {
        let mut inner = self.lock();
        inner.reads += 1;
        let (stored, ahead) = (inner.stored.clone(), Some(SignedDuration::ZERO));
        Ok(Found {
            stored,
            written_at: None,
            deleted_at: None,
            token_end: None,
            address: String::new(),
            ahead,
            place: (),
        })
    }

    async fn is_one(&self, _: &Found<()>) -> Result<(), Refused> {
        Ok(())
    }

    async fn create(&mut self, _: &Found<()>, _: serde_json::Map<String, serde_json::Value>) -> Created {
        Created::Lost
    }
}

impl Signer for Counting {
    async fn issuer(&mut self, _: &str) -> Result<String, Refused> {
        Err(samples::held(Reason::SigningRefused).into())
    }

    async fn certify(&mut self, _: &str, _: &str, _: &str, _: Duration) -> Result<String, Refused> {
        Err(samples::held(Reason::SigningRefused).into())
    }

    async fn make_root(&mut self, _: &str, _: &str) -> Result<String, Refused> {
        Err(samples::held(Reason::SigningRefused).into())
    }
}

impl Engine for Counting {
    async fn reach(&mut self) -> Result<(), Refused> {
        self.lock().reaches += 1;
        Ok(())
    }
}

impl Attests for Counting {
    type Over = ();

    async fn attested(&mut self, _: &str) -> Result<AttestedAt<()>, Refused> {
        let mut inner = self.lock();
        inner.attested_reads += 1;
        Ok(AttestedAt { read: inner.attested.clone().map(Ok), over: () })
    }

    async fn attest(&mut self, (): &(), attestation: &Attestation) -> Result<Write, Refused> {
        let mut inner = self.lock();
        inner.writes += 1;
        inner.attested = Some(attestation.clone());
        Ok(Write::Done)
    }
}

/// A cluster in which all is as it should be by this record.
struct Calm(SigningRecord);

impl Lookout for Calm {
    async fn see(&self) -> Result<Sight, Held> {
        let [sha256, root] = [Sha256([1; 32]), *self.0.roots().first().unwrap()];
        let signer = AttestedSigner { sha256, root, not_after: now() };
        let roots = self.0.roots().clone();
        Ok(Sight {
            published: Some(PublishedSigner { state: Some(self.0.state()), signer, roots: roots.clone() }),
            not_ours: None,
            istiods: Ok(vec![("istiod-1".to_owned(), Ok(vec![sha256]))]),
            namespaces: Ok(vec![("default".to_owned(), Some(roots))]),
            ttl: None,
        })
    }
}

/// A record of the signing kind.
fn record(is_rotating: bool) -> SigningRecord {
    let mut data = SigningRecord::first(&Ca::root("Root 1").certificate.pem(), &"root-1".parse().unwrap());
    if is_rotating {
        data.insert("rotation".to_owned(), serde_json::json!({}));
    }
    SigningRecord::parse(&data, now()).unwrap()
}

fn signing(record: &SigningRecord) -> Stored {
    Stored::Signing { version: 1, record: Arc::new(record.clone()) }
}

/// A witness for so long of tokio's time.
async fn witness(vault: &Counting, record: &SigningRecord, during: Duration) {
    let registry = prometheus::Registry::new();
    let counted = Witnessed::new(&registry).unwrap();
    let task = WitnessTask {
        cluster: "nas".to_owned(),
        version: "0",
        pause: LOOK,
        vault: vault.clone(),
        lookout: Calm(record.clone()),
        now: crate::converge::time_of_tests,
        counted,
        last_look: LastLook::default(),
        events: Events::new(answered_by(|_| refusal(404, "NotFound")), "nas", "istio-system", "cacerts", "nas-0").0,
    };
    let _ = tokio::time::timeout(during, task.run()).await;
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn at_rest_vault_is_asked_once_a_minute_and_told_once_an_hour() {
    let record = record(false);
    let vault = Counting::with(signing(&record));
    witness(&vault, &record, HOUR * 6).await;
    let inner = vault.lock();
    // Sixty in the ten minutes after the first one, then between 50 and 70 seconds.
    assert!((60 + 350 * 60 / 70..=61 + 350 * 60 / 50).contains(&inner.reads), "{} reads", inner.reads);
    assert_eq!((inner.writes, inner.attested_reads, inner.reaches), (6, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn while_a_root_is_replaced_it_looks_every_ten_seconds_and_attests_each_minute() {
    let record = record(true);
    let vault = Counting::with(signing(&record));
    witness(&vault, &record, HOUR).await;
    let inner = vault.lock();
    let counts = [inner.reads, inner.attested_reads, inner.writes * 6];
    assert!(counts.iter().all(|count| (360..=366).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_begins_at_rest_is_seen_and_attested_to_within_70_seconds() {
    let (peace, rotating) = (record(false), record(true));
    let vault = Counting::with(signing(&peace));
    let begins = async {
        tokio::time::sleep(HOUR * 2 + Duration::from_secs(1234)).await;
        let before = {
            let mut inner = vault.lock();
            inner.stored = signing(&rotating);
            inner.writes
        };
        tokio::time::sleep(LOOK_AT_REST + JITTER + Duration::from_secs(1)).await;
        assert!(vault.lock().writes > before);
    };
    tokio::join!(witness(&vault, &peace, HOUR * 3), begins);
}

#[tokio::test(start_paused = true)]
async fn by_a_record_with_the_key_it_attests_whether_the_cluster_is_ready_for_one_without() {
    let record = record(false);
    let shared = Arc::clone(&samples::R1);
    let vault = Counting::with(Stored::Sound { version: 4, sound: shared });
    witness(&vault, &record, Duration::from_secs(1)).await;
    let said = vault.lock().attested.clone().unwrap();
    assert_eq!((said.record_version, said.ready, said.state), (4, false, None));
    assert_eq!(said.why.as_deref(), Some("cacerts does not hold Vault's root"));
    let nothing = Counting::with(Stored::Absent);
    witness(&nothing, &record, Duration::from_secs(1)).await;
    assert!(nothing.lock().attested.clone().unwrap().ready);
    for none in [Stored::Deleted { version: 1 }, Stored::Unsound { version: 1, flaw: samples::UNSOUND }] {
        let vault = Counting::with(none);
        witness(&vault, &record, Duration::from_secs(1)).await;
        assert!(vault.lock().attested.is_none());
    }
}

#[test]
fn what_is_not_the_gates_to_write_is_not_ready() {
    assert_eq!(not_ours(&Published::Absent), None);
    assert_eq!(not_ours(&samples::published(Owner::Ours, &samples::R1)), None);
    for owner in [Owner::Other, samples::external_secrets()] {
        assert!(not_ours(&samples::published(owner, &samples::R1)).is_some());
    }
}

#[test]
fn a_replica_goes_by_what_another_attested_to_unless_it_has_looked_later() {
    let [old, new] = [0, 60].map(|seconds| attestation(now() + SignedDuration::from_secs(seconds)));
    let other = Attestation { record_version: 2, ..new.clone() };
    assert_eq!(later(Some(&old), Some(&other)), Some(&other));
    assert_eq!(later(Some(&new), Some(&old)), Some(&new));
    assert_eq!(later(None, Some(&old)), Some(&old));
    assert_eq!(later(Some(&old), None), Some(&old));
}

/// An istiod that presents a leaf and what stands behind it.
async fn istiod(chain: &[&Ca], leaf: &Ca) -> SocketAddr {
    let certificates = chain.iter().map(|ca| ca.certificate.der().clone()).collect();
    let key = leaf.key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn what_stands_behind_the_leaf_is_told_and_the_leaf_is_not() {
    let root = Ca::root("Root 1");
    let signer = root.issue("Signer");
    let leaf = signer.issue("istiod");
    let address = istiod(&[&leaf, &signer, &root], &leaf).await;
    let expected = [&signer, &root].map(|ca| Sha256::of(ca.certificate.der()));
    assert_eq!(Handshake::new().with(address).await, Ok(expected.to_vec()));
}

#[tokio::test]
async fn who_does_not_listen_or_speaks_no_tls_has_presented_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handshake = Handshake::new();
    let (told, _) = tokio::join!(handshake.with(address), async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    });
    assert!(told.unwrap_err().contains("does not speak TLS"));
    drop(listener);
    assert!(handshake.with(address).await.unwrap_err().contains("takes no connection"));
    let none = IstiodPod { name: "istiod-1".to_owned(), ..IstiodPod::default() };
    assert!(presented(&handshake, &none).await.is_err());
}
