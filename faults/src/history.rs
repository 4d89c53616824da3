//! What happened in a run, a line each, as the servers recorded it: kept as a file, so that it can be judged again.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// What is promised of a run: its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// How long a change of `cacerts` may stay unseen by a gate, in milliseconds.
    pub unseen: u64,
    /// How soon all is open once faults have ended.
    pub heals: u64,
    /// Resident memory of a gate, in bytes.
    pub resident: u64,
    /// Open descriptors of a gate.
    pub descriptors: u64,
    /// Whether each fault has to hit; otherwise one of them.
    pub each_hits: bool,
}

/// A moment, and what happened then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the run began.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub said: Said,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The product.
    Gate,
    /// A person, a controller, or anybody else.
    Other,
}

/// What was done to Vault's record or to `cacerts`, and was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// It was not there before, or a version was added.
    Write,
    /// It is gone; of a record: the version is.
    Delete,
    /// A version is back.
    Undelete,
    /// All of a record's versions are gone, as if there had never been any.
    Forget,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Said {
    /// The first line.
    Run {
        /// Of a random one.
        seed: Option<u64>,
        /// What is promised of it.
        promises: Promises,
    },
    /// A fault was switched on.
    Fault {
        /// Its name, once in a run.
        name: String,
        /// The cluster or Vault that it is of.
        on: String,
    },
    /// A fault was switched off, after so many hits.
    Fired {
        /// Its name.
        name: String,
        /// How often it hit.
        hits: u64,
    },
    /// Something that a person did.
    Act {
        /// In words.
        act: String,
    },
    /// The machine gave the run itself no time, so that deadlines say nothing.
    Stalled {
        /// For so many milliseconds.
        by: u64,
    },
    /// Something became of a gate's process.
    Process {
        /// Which.
        name: String,
        /// In a word.
        event: String,
        /// By the run, or by itself.
        by_run: bool,
    },
    /// The record at `secret/istio/ca` was written, deleted or brought back.
    Record {
        /// In which Vault.
        vault: String,
        /// By whom.
        by: By,
        /// What.
        deed: Deed,
        /// The version that a writer wanted to replace.
        cas: Option<u64>,
        /// The version that came of it.
        version: Option<u64>,
        /// What the record stands for since then.
        files: Option<Files>,
    },
    /// `cacerts` was written or deleted.
    Cacerts {
        /// Of which cluster.
        cluster: String,
        /// By whom.
        by: By,
        /// What.
        deed: Deed,
        /// The `resourceVersion` that came of it.
        revision: u64,
        /// Whether the writer named the version that it had read, or that there was none.
        checked: bool,
        /// Whether it has the gate's label since then.
        ours: bool,
        /// What is in it since then.
        files: Option<Files>,
    },
    /// A pod was let in.
    Pod {
        /// Where.
        cluster: String,
        /// Its name.
        name: String,
        /// Whether it is one that is asked about.
        gated: bool,
        /// The `resourceVersion` of its creation.
        revision: u64,
    },
    /// A pod was refused by admission.
    Denied {
        /// Where.
        cluster: String,
        /// Whether it is one that is asked about.
        gated: bool,
        /// In the API server's words.
        message: String,
    },
    /// A pod was let in although a webhook failed that had to be asked.
    FailedOpen {
        /// Where.
        cluster: String,
        /// Which webhook.
        webhook: String,
    },
    /// From here on no gated pod may come in: each gate was heard to say why.
    Shut {
        /// Where.
        cluster: String,
        /// Why.
        why: String,
    },
    /// The end of that.
    MayOpen {
        /// Where.
        cluster: String,
    },
    /// An output was searched for keys and tokens.
    Scanned {
        /// Which.
        output: String,
        /// How much there was.
        bytes: u64,
        /// Whose, in which spelling.
        found: Vec<String>,
    },
    /// What a gate held of the machine at most.
    Used {
        /// Which process.
        process: String,
        /// Bytes of resident memory.
        resident: u64,
        /// Descriptors.
        descriptors: u64,
    },
    /// How a cluster stood when faults had ended.
    End {
        /// Which.
        cluster: String,
        /// How long that took, in milliseconds; none if it did not come to that.
        after: Option<u64>,
        /// What was seen last.
        seen: String,
        /// Gated pods that were there.
        pods: u64,
        /// `cacerts`.
        files: Option<Files>,
    },
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(pub Vec<Line>);

impl History {
    /// Reads a file of JSON lines.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let line = |(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1));
        let lines = text.lines().enumerate().map(line).collect::<Result<_>>();
        Ok(Self(lines.with_context(|| path.display().to_string())?))
    }

    /// Writes that file.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_string()).with_context(|| path.display().to_string())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(f, "{}", serde_json::to_string(line).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}
