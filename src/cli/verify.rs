//! `istio-ca-gate verify`: whether several places have the same roots.

mod ask;
mod compare;
mod life;
mod served;
mod show;
mod signed;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use url::Url;

use super::paint;
use crate::args::VaultArgs;
use crate::args::values::{dns_label, interval};
use crate::peers::served::address;
use crate::run::Failure;
use crate::shutdown::Signals;
use ask::Places;
use compare::{Agreement, Comparison, compare};
use show::Width;

/// Where it is no terminal.
const COLUMNS: usize = 80;

/// A column has to have room for a word.
const NARROWEST: usize = 40;

/// `istio-ca-gate verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  istio-ca-gate verify --context homelab --context nas --vault
  istio-ca-gate verify --context nas --file root-cert.pem -o wide

Exit codes: 0 all equal, 1 not equal, 2 some place could not be read, or wrong use.")]
pub struct Verify {
    /// Context in the kubeconfig, repeated: its cacerts, and the root that its istiod really serves
    #[arg(long = "context", env = "GATE_VERIFY_CONTEXTS", value_name = "NAME", value_delimiter = ',')]
    contexts: Vec<String>,
    /// `/fingerprint` of a gate, repeated
    #[arg(long = "url", env = "GATE_VERIFY_URLS", value_name = "URL", value_delimiter = ',', value_parser = address)]
    urls: Vec<Url>,
    /// Vault's record; the others are compared with it then, else with what most of them have
    #[arg(long = "vault", env = "GATE_VERIFY_VAULT")]
    vault: bool,
    /// PEM file, repeated
    #[arg(long = "file", env = "GATE_VERIFY_FILE", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Longest wait for a place
    #[arg(long, env = "GATE_VERIFY_TIMEOUT", default_value = "5s", value_parser = interval)]
    timeout: Duration,
    /// Compare again and again, until Ctrl-C; after 10s, if no interval is given
    #[arg(long, env = "GATE_VERIFY_WATCH", value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "10s",
          value_parser = interval)]
    watch: Option<Duration>,
    /// What is printed
    #[arg(short, long, env = "GATE_VERIFY_OUTPUT", value_enum, default_value = "table")]
    output: Output,
    /// PEM file with the CAs that the certificates of --url may be from [default: the system's]
    #[arg(long, env = "GATE_VERIFY_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Kubeconfig file [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of cacerts and of istio-ca-root-cert
    #[arg(long, short, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    namespace: String,
    /// Name of the Secret that istiod reads its CA from
    #[arg(long, env = "GATE_SECRET", default_value = "cacerts", value_parser = dns_label)]
    secret: String,
    /// How to reach Vault
    #[command(flatten)]
    vault_args: VaultArgs,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people, in 80 columns.
    Table,
    /// The same with whole fingerprints, and subjects.
    Wide,
    /// For programs; with --watch one line each time.
    Json,
    /// The same in YAML, each time a document.
    Yaml,
}

/// Runs it.
///
/// # Errors
/// A wrong configuration. What is wrong with a place is told with the place.
pub async fn run(args: Verify) -> Result<ExitCode, Failure> {
    let mut places = Places::new(&args)?;
    if let Some(interval) = args.watch {
        return watch(places, args.output, interval).await;
    }
    let (asked, life) = places.ask().await;
    let comparison = compare(asked).with(life);
    let text = match args.output {
        Output::Json => show::json(&comparison, Timestamp::now(), true),
        Output::Yaml => show::yaml(&comparison, Timestamp::now()),
        output => show::table(&comparison, Timestamp::now(), width(output)),
    };
    // Whoever closed standard output still gets the exit code.
    let _ = paint::stdout().write_all(text.as_bytes());
    Ok(code(&comparison))
}

/// Until a signal, or until nobody reads any more. The exit code is the last comparison's.
async fn watch(mut places: Places, output: Output, interval: Duration) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::Broken(error.to_string()))?;
    let mut last = ExitCode::from(2);
    loop {
        let comparison = tokio::select! {
            (asked, life) = places.ask() => compare(asked).with(life),
            () = signals.next() => return Ok(last),
        };
        last = code(&comparison);
        if print_again(&comparison, output).is_err() {
            return Ok(last);
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = signals.next() => return Ok(last),
        }
    }
}

fn print_again(comparison: &Comparison, output: Output) -> io::Result<()> {
    let now = Timestamp::now();
    let text = match output {
        Output::Json => show::json(comparison, now, false),
        Output::Yaml => show::yaml(comparison, now),
        output => format!("{}{}", show::separator(now), show::table(comparison, now, width(output))),
    };
    let mut out = paint::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn width(output: Output) -> Width {
    match output {
        Output::Wide => Width::Wide,
        _ => Width::Columns(paint::columns().unwrap_or(COLUMNS).max(NARROWEST)),
    }
}

fn code(comparison: &Comparison) -> ExitCode {
    match comparison.outcome() {
        Agreement::Equal => ExitCode::SUCCESS,
        Agreement::Differs => ExitCode::FAILURE,
        Agreement::Unknown => ExitCode::from(2),
    }
}
