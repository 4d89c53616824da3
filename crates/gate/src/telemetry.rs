//! Logs, and what is kept out of them.

mod queue;

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use clap::{Args, ValueEnum};
use https::Rarely;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use queue::LineQueue;

/// The events of this program's crates, at any level that the user asks for.
const OURS: &str = "istio_ca_gate";

/// Libraries whose warnings say something and repeat no content. All others stay closed, even under
/// `RUST_LOG=trace`: kube-client prints answers that do not parse, vaultrs and rustify what they send.
const HEARD: [&str; 3] = ["hyper", "rustls", "tokio"];

/// Lines of libraries in so long: callers can cause them, by alerts of TLS for one.
const HEARD_MAX: (u32, Duration) = (10, Duration::from_secs(10));

/// Longest wait for the last words, where nobody may read them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The queue of this process' log.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// Logging's flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Log format [default: text on a terminal, else json]
    #[arg(long, env = "GATE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Log filter; other crates' targets stay closed, since they may print keys
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_filter: String,
}

/// Shapes of a log line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Logging that goes on. When this is dropped, what waits is written, as far as that can be done in a second.
#[must_use]
pub struct Logging(LineQueue);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging to standard error. Nobody waits for it to be read.
///
/// # Errors
/// One line, if the filter cannot be read.
pub fn init(args: &LogArgs) -> Result<Logging, String> {
    let text = match args.log_format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => std::io::stderr().is_terminal(),
    };
    let queue = LineQueue::to(std::io::stderr()).map_err(|error| format!("cannot start to log: {error}"))?;
    subscriber(&args.log_filter, text, queue.clone())?.try_init().map_err(|error| error.to_string())?;
    Ok(Logging(QUEUE.get_or_init(|| queue).clone()))
}

/// How many lines of the log were dropped so far, since nobody read them or a library had too many.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, LineQueue::dropped)
}

/// Says why the process ends, as long as it can.
pub fn last_words(line: String) {
    let (said, wait) = sync_channel(1);
    let saying = std::thread::Builder::new().spawn(move || {
        // It may be closed.
        let _ = writeln!(std::io::stderr(), "{line}");
        let _ = said.send(());
    });
    if saying.is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS);
    }
}

/// Logs to a writer, as text or JSON, what the filter lets through and nothing that could repeat a secret.
///
/// # Errors
/// One line, if the filter cannot be read.
pub fn subscriber<W>(filter: &str, text: bool, writer: W) -> Result<impl Subscriber + Send + Sync, String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log-filter (variable RUST_LOG): {error}"))?;
    // A closed standard error must not end the gate.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = if text { lines.boxed() } else { lines.json().flatten_event(true).with_target(false).boxed() };
    let heard = Rarely::at_most(HEARD_MAX.0, HEARD_MAX.1);
    let is_heard = dynamic_filter_fn(move |metadata, _| match speaker(metadata) {
        Speaker::Us => true,
        Speaker::Library => {
            let mut passes = false;
            heard.tell(|_| passes = true);
            if !passes && let Some(queue) = QUEUE.get() {
                queue.drop_line();
            }
            passes
        }
        Speaker::Nobody => false,
    });
    Ok(tracing_subscriber::registry().with(lines.with_filter(is_heard)).with(filter))
}

/// Whose line it is.
enum Speaker {
    Us,
    Library,
    Nobody,
}

fn speaker(metadata: &Metadata<'_>) -> Speaker {
    let root = metadata.target().split("::").next().unwrap_or_default();
    if root.starts_with(OURS) {
        Speaker::Us
    } else if HEARD.contains(&root) && *metadata.level() <= tracing::Level::WARN {
        Speaker::Library
    } else {
        Speaker::Nobody
    }
}
