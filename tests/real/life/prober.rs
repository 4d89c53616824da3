//! Workloads of all clusters that shake hands with each other all the time: every pair, both directions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use testbed::WorkloadCertificate;

use super::openssl;
use super::rig::LONG;
use crate::mesh::{End, Verifier, handshake_by};

/// From one round of all pairs to the next.
const ROUND: Duration = Duration::from_millis(100);

/// So many failures are kept with their circumstances.
const KEPT: usize = 12;

const END: &str = "-----END CERTIFICATE-----\n";

/// Who verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    Rustls(Verifier),
    Openssl,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustls(Verifier::Webpki) => "rustls",
            Self::Rustls(Verifier::Envoy) => "AWS-LC",
            Self::Openssl => "OpenSSL",
        })
    }
}

const ENGINES: [Engine; 3] = [Engine::Rustls(Verifier::Webpki), Engine::Rustls(Verifier::Envoy), Engine::Openssl];

/// A workload, and where its agent puts what it has.
#[derive(Clone, Debug)]
pub struct Party {
    pub cluster: &'static str,
    pub name: &'static str,
    pub files: PathBuf,
}

/// What a workload shows and trusts.
pub struct Credentials {
    pub workload: WorkloadCertificate,
    pub roots: String,
}

impl Credentials {
    /// `None`: there is nothing, or a part of it is just being written.
    fn read(party: &Party) -> Option<Self> {
        let file = |name| std::fs::read_to_string(party.files.join(name)).ok();
        let workload = WorkloadCertificate {
            identity: party.name.to_owned(),
            chain_pem: file("cert-chain.pem")?,
            key_pem: file("key.pem")?,
        };
        let read = Self { workload, roots: file("root-cert.pem")? };
        read.end().fits().ok()?.then_some(read)
    }

    /// Those of a workload that runs, as they are now.
    pub async fn of(party: &Party) -> Result<Self> {
        testbed::eventually("a workload's files", LONG, || async { Self::read(party) }).await
    }

    pub fn end(&self) -> End<'_> {
        End { workload: &self.workload, root: &self.roots }
    }

    /// Its own leaf, and what stands behind another one.
    pub fn behind(&self, other: &Self) -> Self {
        let chain_pem = format!("{}{}", self.leaf(), other.behind_the_leaf());
        let workload =
            WorkloadCertificate { identity: String::new(), chain_pem, key_pem: self.workload.key_pem.clone() };
        Self { workload, roots: self.roots.clone() }
    }

    fn leaf(&self) -> &str {
        self.workload.chain_pem.split_inclusive(END).next().unwrap_or_default()
    }

    pub fn behind_the_leaf(&self) -> &str {
        &self.workload.chain_pem[self.leaf().len()..]
    }
}

/// How many handshakes were made, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub made: u64,
    pub failed: u64,
}

/// What came of the handshakes so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By who verifies, and whether both are in one cluster.
    counts: BTreeMap<(Engine, bool), Count>,
    /// The first ones.
    failures: Vec<String>,
}

impl Tally {
    /// Of all engines: within clusters, between clusters, or both.
    pub fn count(&self, is_within: Option<bool>) -> Count {
        let of = |key: &(Engine, bool)| is_within.is_none_or(|wanted| wanted == key.1);
        let counts = self.counts.iter().filter(|(key, _)| of(key));
        counts.fold(Count::default(), |sum, (_, count)| Count {
            made: sum.made + count.made,
            failed: sum.failed + count.failed,
        })
    }

    /// Of one engine.
    pub fn of(&self, engine: Engine) -> Count {
        let counts = self.counts.iter().filter(|(key, _)| key.0 == engine);
        counts.fold(Count::default(), |sum, (_, count)| Count {
            made: sum.made + count.made,
            failed: sum.failed + count.failed,
        })
    }

    /// What came since another moment.
    fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().map(|(key, count)| {
            let before = before.counts.get(key).copied().unwrap_or_default();
            (*key, Count { made: count.made - before.made, failed: count.failed - before.failed })
        });
        let failures = self.failures.iter().skip(before.failures.len()).take(KEPT).cloned().collect();
        Self { counts: counts.collect(), failures }
    }

    /// Every engine has shaken hands in a cluster and between clusters, and nothing failed.
    pub fn is_whole(&self) -> Result<()> {
        for engine in ENGINES {
            for is_within in [true, false] {
                let made = self.counts.get(&(engine, is_within)).map_or(0, |count| count.made);
                ensure!(made > 0, "{engine} was not asked: nothing is proven");
            }
        }
        let failed = self.count(None).failed;
        ensure!(failed == 0, "{failed} handshakes failed, first:\n{}", self.failures.join("\n"));
        Ok(())
    }

    /// Handshakes failed: what had to break has broken.
    pub fn is_broken(&self) -> Result<()> {
        ensure!(self.count(None).failed > 0, "no handshake failed where some had to: the run proves nothing: {self}");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { made, failed } = self.count(None);
        write!(f, "{made} handshakes, {failed} failed")?;
        let spans = [(true, "within a cluster"), (false, "between clusters")];
        let spans = spans.map(|(is_within, words)| (words.to_owned(), self.count(Some(is_within))));
        let engines = ENGINES.map(|engine| (engine.to_string(), self.of(engine)));
        for (words, Count { made, failed }) in spans.into_iter().chain(engines) {
            write!(f, "; {words} {made}")?;
            if failed > 0 {
                write!(f, ", {failed} failed")?;
            }
        }
        Ok(())
    }
}

/// Shakes hands as long as it is kept.
pub struct Prober {
    parties: Vec<Party>,
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Prober {
    pub fn start(parties: &[Party]) -> Self {
        let (tally, ended) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let threads = ENGINES.map(|engine| {
            let probe =
                Probe { engine, parties: parties.to_vec(), tally: Arc::clone(&tally), ended: Arc::clone(&ended) };
            thread::spawn(move || probe.run())
        });
        Self { parties: parties.to_vec(), tally, ended, threads: threads.into() }
    }

    pub fn parties(&self) -> &[Party] {
        &self.parties
    }

    pub fn so_far(&self) -> Tally {
        lock(&self.tally).clone()
    }

    pub fn since(&self, before: &Tally) -> Tally {
        self.so_far().since(before)
    }

    /// Waits until every workload that runs has another certificate than now.
    pub async fn all_renewed(&self, timeout: Duration) -> Result<()> {
        let shown = |party: &Party| std::fs::read_to_string(party.files.join("cert-chain.pem")).ok();
        let before: Vec<_> = self.parties.iter().map(shown).collect();
        testbed::eventually("all workloads to renew", timeout, || async {
            let pairs = self.parties.iter().zip(&before);
            let late = pairs.into_iter().find(|(party, before)| before.is_some() && shown(party) == **before);
            late.map_or(Ok(()), |(party, _)| Err(anyhow::anyhow!("{} has not", party.name)))
        })
        .await
    }

    /// Waits until each engine has shaken hands so often from now on, in every pair.
    pub async fn rounds(&self, rounds: u64) {
        let before = self.so_far();
        loop {
            let now = self.since(&before);
            // Twelve pairs of four.
            if ENGINES.iter().all(|engine| now.of(*engine).made >= rounds * 12) {
                return;
            }
            tokio::time::sleep(ROUND).await;
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One engine's part.
struct Probe {
    engine: Engine,
    parties: Vec<Party>,
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
}

impl Probe {
    fn run(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.round();
            thread::sleep(ROUND.saturating_sub(began.elapsed()));
        }
    }

    /// Each pair, both directions. A workload that is off, or whose files are just being written, is left out.
    fn round(&self) {
        let all = self.parties.iter().filter_map(|party| Some((party, Credentials::read(party)?)));
        let all: Vec<_> = all.collect();
        for (client, shown) in &all {
            for (server, met) in &all {
                if client.name == server.name {
                    continue;
                }
                if self.ended.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = self.shake(shown, met);
                let mut tally = lock(&self.tally);
                let count = tally.counts.entry((self.engine, client.cluster == server.cluster)).or_default();
                count.made += 1;
                if let Err(why) = outcome {
                    count.failed += 1;
                    let line = self.told(client, server, &why);
                    tally.failures.push(line);
                }
            }
        }
    }

    fn shake(&self, client: &Credentials, server: &Credentials) -> Result<()> {
        match self.engine {
            Engine::Rustls(verifier) => Ok(handshake_by(verifier, &client.end(), &server.end())??),
            Engine::Openssl => openssl::handshake(client, server),
        }
    }

    fn told(&self, client: &Party, server: &Party, why: &anyhow::Error) -> String {
        let Self { engine, .. } = self;
        let (from, to) = (format!("{}/{}", client.cluster, client.name), format!("{}/{}", server.cluster, server.name));
        format!("{} {engine}: {from} to {to}: {why:#}", Timestamp::now())
    }
}
