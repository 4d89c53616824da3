//! Logs, and what is kept out of them.

use std::io::IsTerminal;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::args::{LogArgs, LogFormat};

/// The events of this program's crates, at any level that the user asks for.
const OURS: &str = "istio_ca_gate";

/// Libraries whose warnings say something and repeat no content. All others stay closed, even under
/// `RUST_LOG=trace`: kube-client prints answers that do not parse, vaultrs and rustify what they send.
const HEARD: [&str; 3] = ["hyper", "rustls", "tokio"];

/// Starts logging to standard error.
///
/// # Errors
/// One line, if the filter cannot be read.
pub fn init(args: &LogArgs) -> Result<(), String> {
    let text = match args.log_format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => std::io::stderr().is_terminal(),
    };
    subscriber(&args.log_filter, text, std::io::stderr)?.try_init().map_err(|error| error.to_string())
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
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter_fn(is_heard))).with(filter))
}

fn is_heard(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    root.starts_with(OURS) || (HEARD.contains(&root) && *metadata.level() <= tracing::Level::WARN)
}
