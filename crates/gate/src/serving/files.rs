//! A certificate and its key in files that somebody else renews: cert-manager, or a mounted Secret.
//!
//! What a file says is looked at every few seconds. A mounted Secret changes by a symlink, of which file systems tell in
//! ways of their own; the content is the same everywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::ca::moment;
use super::leaf::{Leaf, Serving};
use crate::ca::Sha256;

/// A renewed certificate is there days before the old one ends, a mounted one up to 100 s late.
pub const POLL: Duration = Duration::from_secs(3);

/// More than any chain with its key, or any bundle, and less than anybody's memory.
const SIZE_MAX: u64 = 512 << 10;

/// How often the end of the certificate is told of.
const TELL_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// Files that are read together.
pub struct Files(Vec<PathBuf>);

/// What they say.
pub struct Content {
    /// Of each, in their order.
    pub files: Vec<Zeroizing<Vec<u8>>>,
    digest: Sha256,
}

impl Files {
    /// These.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// Reads them.
    ///
    /// # Errors
    /// In words, with the name of the one that cannot be read.
    pub async fn read(&self) -> Result<Content, String> {
        let mut files = Vec::new();
        for path in &self.0 {
            files.push(read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))?);
        }
        // The lengths keep apart what is of which file.
        let mut all = Zeroizing::new(Vec::new());
        for file in &files {
            all.extend_from_slice(&file.len().to_be_bytes());
            all.extend_from_slice(file);
        }
        let digest = Sha256::of(&all);
        Ok(Content { files, digest })
    }

    /// Looks at them for ever, and has `take` take up what they say whenever it is something else than was taken up last.
    pub async fn follow(
        &self,
        taken: &Content,
        every: Duration,
        mut take: impl FnMut(Option<&Content>) -> Result<(), String>,
    ) {
        let mut attempts = Retries { taken: taken.digest, failed: None };
        loop {
            tokio::time::sleep(every).await;
            let content = self.read().await;
            let digest = content.as_ref().ok().map(|content| content.digest);
            let outcome = match &content {
                Ok(content) if content.digest == attempts.taken => take(None),
                Ok(content) => take(Some(content)),
                Err(what) => Err(what.clone()),
            };
            if let Some(what) = attempts.notice(digest, outcome) {
                tracing::error!("{what}; what was read before stays in use");
            }
        }
    }
}

async fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(std::io::Error::other("it is larger than any certificate"));
    }
    Ok(bytes)
}

/// What became of the looks at some files.
struct Retries {
    taken: Sha256,
    failed: Option<Failed>,
}

struct Failed {
    digest: Option<Sha256>,
    what: String,
    told: bool,
}

impl Retries {
    /// Returns what is to be told. It is told once, and not at first sight: files may be in the middle of a change.
    fn notice(&mut self, digest: Option<Sha256>, outcome: Result<(), String>) -> Option<String> {
        let Err(what) = outcome else {
            self.failed = None;
            self.taken = digest.unwrap_or(self.taken);
            return None;
        };
        match &mut self.failed {
            Some(failed) if failed.digest == digest && failed.what == what => {
                (!std::mem::replace(&mut failed.told, true)).then_some(what)
            }
            _ => {
                self.failed = Some(Failed { digest, what, told: false });
                None
            }
        }
    }
}

/// The files of `--tls-cert-file` and `--tls-key-file`.
pub struct Pair {
    files: Files,
    read: Content,
}

impl Pair {
    /// Reads them, and puts what they say in use.
    ///
    /// # Errors
    /// In words, if they cannot be read, or are not a certificate and its key.
    pub async fn load(certificate: PathBuf, key: PathBuf, serving: &Serving) -> Result<Self, String> {
        let files = Files::new(vec![certificate, key]);
        let read = files.read().await?;
        serving.put(leaf(&read)?);
        Ok(Self { files, read })
    }

    /// Keeps what they say in use, for ever.
    pub async fn keep(self, serving: Arc<Serving>, every: Duration) {
        let mut told = None;
        let take = |content: Option<&Content>| {
            if let Some(content) = content {
                let leaf = leaf(content)?;
                tracing::info!(not_after = %leaf.not_after, "took up a new serving certificate");
                serving.put(leaf);
                told = None;
            }
            let now = Timestamp::now();
            if told.is_none_or(|told| now >= told + TELL_EVERY)
                && let Some(what) = serving.look(|leaf| worry(leaf, now)).flatten()
            {
                let not_after = serving.not_after().map(|at| at.to_string());
                tracing::warn!(not_after, "the certificate of --tls-cert-file {what}: renew it");
                told = Some(now);
            }
            Ok(())
        };
        self.files.follow(&self.read, every, take).await;
    }
}

/// What is wrong with the dates, by the wall clock.
fn worry(leaf: &Leaf, now: Timestamp) -> Option<&'static str> {
    let life = leaf.not_after.duration_since(leaf.not_before);
    if now < leaf.not_before {
        Some("is not valid yet")
    } else if now >= leaf.not_after {
        Some("has ended")
    } else if leaf.not_after.duration_since(now) < life / 10 {
        Some("ends soon")
    } else {
        None
    }
}

fn leaf(content: &Content) -> Result<Leaf, String> {
    let [certificate, key] = content.files.as_slice() else { return Err("two files were expected".to_owned()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|_| "--tls-cert-file is not PEM")?;
    let first = chain.first().ok_or("--tls-cert-file has no certificate")?;
    let (_, x509) = x509_parser::certificate::X509Certificate::from_der(first)
        .map_err(|_| "the first certificate of --tls-cert-file is not X.509")?;
    let not_before = moment(x509.validity().not_before.timestamp());
    let not_after = moment(x509.validity().not_after.timestamp());
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "--tls-key-file has no private key in PEM")?;
    let provider: Arc<CryptoProvider> = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let certified = CertifiedKey::from_der(chain.clone(), key, &provider)
        .map_err(|error| format!("--tls-cert-file and --tls-key-file do not fit together: {error}"))?;
    Ok(Leaf { certified: Arc::new(certified), not_before, not_after, made: not_before })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ServingCa;
    use super::*;

    fn digest(of: &str) -> Option<Sha256> {
        Some(Sha256::of(of.as_bytes()))
    }

    #[test]
    fn a_failure_is_told_once_a_change_and_only_if_it_stays() {
        let mut attempts = Retries { taken: Sha256::of(b"a"), failed: None };
        let fails = |what: &str| Err(what.to_owned());
        assert_eq!(attempts.notice(digest("half"), fails("x")), None);
        assert_eq!(attempts.notice(digest("half"), fails("x")).as_deref(), Some("x"));
        assert_eq!(attempts.notice(digest("half"), fails("x")), None);
        assert_eq!(attempts.notice(digest("other half"), fails("x")), None);
        assert_eq!(attempts.notice(digest("other half"), fails("x")).as_deref(), Some("x"));
        assert_eq!(attempts.notice(None, fails("gone")), None);
        assert_eq!(attempts.notice(digest("whole"), Ok(())), None);
        assert_eq!(attempts.taken, Sha256::of(b"whole"));
        assert_eq!(attempts.notice(digest("half"), fails("x")), None);
        assert_eq!(attempts.notice(digest("half"), fails("x")).as_deref(), Some("x"));
    }

    #[test]
    fn the_end_of_a_certificate_is_told_of_before_it_comes() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let hours = SignedDuration::from_hours;
        let ca = ServingCa::make(now, hours(1000)).unwrap();
        // Dated back by an hour.
        let leaf = ca.leaf(&["gate.test".to_owned()], now, hours(99)).unwrap();
        for (at, expected) in [
            (-2, Some("is not valid yet")),
            (0, None),
            (89, None),
            (90, Some("ends soon")),
            (99, Some("has ended")),
            (99_999, Some("has ended")),
        ] {
            assert_eq!(worry(&leaf, now + hours(at)), expected, "{at}");
        }
    }
}
