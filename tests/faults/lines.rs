//! The lines of a history that no server records.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use faults::api_metrics::WebhookCounts;
use faults::evidence;
use faults::files::Files;
use faults::history::{Line, Promises, Said};
use faults::judge::judge;

use crate::arena::PATIENCE;
use crate::kept;
use crate::world::Side;

/// What is promised of runs on real components: every fault hits.
pub const PROMISES: Promises = Promises {
    // A watch that is silent for 90 s is not trusted.
    unseen: 100_000,
    heals: PATIENCE.as_millis() as u64,
    // A debug build with glibc's allocator, at trace.
    resident: 160 << 20,
    descriptors: 400,
    each_hits: true,
};

/// They are in their order.
#[derive(Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    pub fn new() -> Self {
        let mut lines = Self::default();
        lines.say(Said::Run { seed: None, promises: PROMISES });
        lines
    }

    pub fn say(&mut self, said: Said) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        self.0.push(Line { at, said });
    }

    /// A fault that hit so often.
    pub fn fault(&mut self, name: &str, hits: u64) {
        self.say(Said::Fault { name: name.to_owned(), on: "real components".to_owned() });
        self.say(Said::Fired { name: name.to_owned(), hits });
    }

    /// How a cluster stands after a fault, which was over at `began`.
    pub async fn end(&mut self, side: &Side, fault: &str, began: Instant, open: Result<()>) -> Result<()> {
        let after = open.is_ok().then(|| began.elapsed().as_millis() as u64);
        let (cacerts, pods) = (side.cacerts().await?, side.pods("istiod").await?.len() as u64);
        self.say(Said::End {
            cluster: side.name.to_owned(),
            after,
            seen: open.err().map_or_else(|| "open".to_owned(), |error| format!("{fault}: {error:#}")),
            pods,
            files: cacerts.map(|cacerts| Files::of_secret(&cacerts["data"])),
        });
        Ok(())
    }

    /// Judges them together with what the servers recorded, and keeps all of it.
    pub fn judged(self, name: &str, folder: &Path) -> Result<()> {
        let history = evidence::history(folder, self.0)?;
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
        history.write(&path)?;
        kept(&judge(&history)).with_context(|| path.display().to_string())
    }
}

/// What the API server itself counts of its webhooks has to be without a flaw.
pub async fn webhook_counts(side: &Side) -> Result<()> {
    let (status, metrics) = side.cluster.request("GET", "/metrics", None).await?;
    ensure!(status == 200, "{status}");
    let counts = WebhookCounts::of(metrics.as_str().context("metrics are text")?);
    ensure!(counts.flaw().is_none() && !counts.refusals.is_empty(), "{counts:?}");
    Ok(())
}
