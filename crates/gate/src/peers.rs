//! The gates of other clusters, asked in the background for what they tell of theirs: a view of the page asks nobody.

#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod served;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use futures::stream::{self, StreamExt};
use k8s_openapi::jiff::Timestamp;
use url::Url;

use crate::ca::Sha256;
use crate::run::Failure;
use served::{Client, Told, address};

/// Between two rounds. People compare roots after a change, and wait no longer than this for it to show.
const PAUSE: Duration = Duration::from_secs(15);

/// Longest wait for one answer; the gate beside it is not kept waiting.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Peers that are asked at a time: a connection each.
const AT_ONCE: usize = 8;

/// The flags about other clusters.
#[derive(Clone, Debug, Default, Args)]
pub struct PeerArgs {
    /// Gate of another cluster, repeated: its address, or that of its /fingerprint. The page for people compares them
    #[arg(long = "peer", env = "GATE_PEERS", value_name = "URL", value_delimiter = ',', value_parser = address)]
    pub peers: Vec<Url>,
    /// PEM file with the CAs that the certificates of --peer may be from [default: the system's]
    #[arg(long, env = "GATE_PEER_CA_CERT", value_name = "FILE")]
    pub peer_ca_cert: Option<PathBuf>,
}

/// All of them, and what they told last.
#[derive(Debug, Default)]
pub struct Peers {
    /// `None`: there are no peers.
    client: Option<Client>,
    urls: Vec<Url>,
    heard: Mutex<Vec<Heard>>,
}

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) url: String,
    /// When it answered last.
    pub(crate) reached: Option<Timestamp>,
    /// Its last answer, or why there is none. `None`: it was not asked yet.
    pub(crate) told: Option<Result<Told, String>>,
}

impl Heard {
    /// The roots of its cluster, as far as they are known now.
    pub(crate) fn roots(&self) -> Option<&BTreeSet<Sha256>> {
        let told = self.told.as_ref()?.as_ref().ok()?;
        Some(&told.cacerts.as_ref()?.roots)
    }
}

/// Whether all clusters have one root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same roots everywhere.
    One,
    /// Two clusters differ, whatever else is not known.
    Differs,
    /// Those that are known are the same, and some are not known.
    Unknown,
}

/// Compares the roots of all clusters; `None` where they are not known.
pub(crate) fn verdict<'a>(all: impl IntoIterator<Item = Option<&'a BTreeSet<Sha256>>>) -> Verdict {
    let all: Vec<_> = all.into_iter().collect();
    let different: BTreeSet<_> = all.iter().flatten().collect();
    match different.len() {
        2.. => Verdict::Differs,
        _ if all.contains(&None) => Verdict::Unknown,
        _ => Verdict::One,
    }
}

impl Peers {
    /// Takes up the configuration, and asks nobody yet.
    ///
    /// # Errors
    /// A file of CAs that cannot be used.
    pub fn new(args: &PeerArgs) -> Result<Self, Failure> {
        let PeerArgs { peers: urls, peer_ca_cert } = args;
        if urls.is_empty() {
            return Ok(Self::default());
        }
        let any_https = urls.iter().any(|url| url.scheme() == "https");
        let client = Client::new(peer_ca_cert.as_deref(), any_https, "--peer-ca-cert (variable GATE_PEER_CA_CERT)")
            .map_err(|error| Failure::Usage(format!("--peer-ca-cert (variable GATE_PEER_CA_CERT): {error}")))?;
        let unheard = |url: &Url| Heard { url: url.to_string(), reached: None, told: None };
        let heard = Mutex::new(urls.iter().map(unheard).collect());
        Ok(Self { client: Some(client), urls: urls.clone(), heard })
    }

    /// Asks all of them again and again, for ever.
    pub async fn run(&self) {
        let Some(client) = &self.client else { return std::future::pending().await };
        loop {
            stream::iter(self.urls.iter().enumerate())
                .for_each_concurrent(AT_ONCE, |(index, url)| self.ask(client, index, url))
                .await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, client: &Client, index: usize, url: &Url) {
        let told = tokio::time::timeout(TIMEOUT, client.ask(url)).await.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(TIMEOUT);
            Err(format!("no answer within {timeout}: check the address and the network"))
        });
        if let Some(heard) = self.lock().get_mut(index) {
            if told.is_ok() {
                heard.reached = Some(Timestamp::now());
            }
            heard.told = Some(told);
        }
    }

    /// What each told last, in the order of the configuration.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::sha256;
    use super::*;

    fn roots(bytes: &[u8]) -> BTreeSet<Sha256> {
        bytes.iter().map(|byte| sha256(*byte)).collect()
    }

    #[test]
    fn one_root_is_a_verdict_only_if_every_cluster_is_known() {
        let (one, two, both) = (roots(&[1]), roots(&[2]), roots(&[1, 2]));
        for (all, wanted) in [
            (&[Some(&one), Some(&one)][..], Verdict::One),
            (&[Some(&one), None], Verdict::Unknown),
            (&[None, None], Verdict::Unknown),
            (&[Some(&one), Some(&two)], Verdict::Differs),
            (&[Some(&one), Some(&both)], Verdict::Differs),
            (&[Some(&one), None, Some(&two)], Verdict::Differs),
        ] {
            assert_eq!(verdict(all.iter().copied()), wanted, "{all:?}");
        }
    }
}
