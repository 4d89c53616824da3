//! `istio-ca-gate doctor`: every link of the chain from Vault to istiod, in order, stopping at nothing.
//!
//! Each check looks, and makes its lines by all that was seen so far: `check` has the list. Nothing is
//! written: what is posted are access reviews, a pod by dry run, a login, and the giving up of its token.

mod addresses;
mod api;
mod asked;
mod cacerts;
mod check;
mod cluster;
mod gated;
mod line;
mod login;
mod look;
mod neighbours;
mod record;
mod rights;
mod roots;
#[cfg(test)]
mod samples;
mod screen;
mod self_test;
mod settings;
mod vault;
mod webhook;
mod workloads;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;

use crate::args::{ClusterArgs, KubernetesArgs, VaultArgs, dns_label, interval, values};
use crate::ca::signer::SignerTerms;
use crate::gate::{GATE_SELECTORS, Gated};
use crate::k8s::{ApiClock, mesh, pin};
use crate::plan::{Names, Role};
use crate::run::{Failure, parts};
use crate::selector;
use crate::vault::Vault;
use asked::Asked;
use check::{BEFORE, CHECKS, Check, Eyes, Group, Sight};
use look::{Asker, Look};
use screen::Screen;

/// What the report's words mean, and what is not a flag.
const AFTER_HELP: &str = "\
Examples:
  istio-ca-gate doctor --context nas
  istio-ca-gate doctor --pre --role sync --context nas --vault-addr https://vault.homelab.example:8200

Marks: ok, it holds; note, worth knowing, or it may not be looked at; warning, it will break; FAILED; skipped, an earlier
link is broken. `istio-ca-gate explain ID` tells more of a line.
Exit codes: 0 nothing FAILED, 1 something did, 2 what matters most could not be looked at, or wrong use.
What no flag and no variable says is taken from the gate's own Deployment and its ConfigMap: role, addresses, mounts, names.
With VAULT_TOKEN set there is no login: Vault's lines are then about the rights of that token, and not about the gate's.";

/// `istio-ca-gate doctor`.
///
/// Prints one line for each link: its mark, its id, what was looked at, what was seen, and what to do about it.
/// docs/troubleshoot.md has an entry for each id.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Doctor {
    /// The gate's role [default: as its Deployment says]
    #[arg(long, env = "GATE_ROLE", value_parser = values::role())]
    pub role: Option<Role>,
    /// Before anything is installed: whether this cluster and Vault are fit for it
    #[arg(long, env = "GATE_PRE")]
    pub pre: bool,
    /// Which cluster this is, and where its CA is
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Label selector of gated pods; repeated ones are alternatives
    #[arg(long = "gate-selector", env = "GATE_SELECTORS", value_delimiter = ';', value_parser = selector::parse,
          default_values = GATE_SELECTORS)]
    pub gate_selectors: Vec<Selector>,
    /// Validating- and, where it exists, MutatingWebhookConfiguration of the gate
    #[arg(long, env = "GATE_WEBHOOK_CONFIG", default_value = "istio-ca-gate")]
    pub webhook_config: String,
    /// Secret with the CA of the gate's own serving certificates
    #[arg(long, env = "GATE_TLS_SECRET", default_value = "istio-ca-gate-tls", value_parser = dns_label)]
    pub tls_secret: String,
    /// The gate's certificate is from this file: whether caBundle is its CA is not looked at
    #[arg(long, env = "GATE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The gate's service account
    #[arg(long, env = "GATE_SERVICE_ACCOUNT", default_value = "istio-ca-gate", value_parser = dns_label)]
    pub service_account: String,
    /// Namespace in which a gated pod is created by dry run, to see whether the API server calls [default: --namespace]
    #[arg(long, env = "GATE_SELF_TEST", value_name = "NAMESPACE", value_parser = dns_label)]
    pub self_test: Option<String>,
    /// Longest wait for one answer, of Kubernetes or of Vault
    #[arg(long, env = "GATE_TIMEOUT", default_value = "5s", value_parser = interval)]
    pub timeout: Duration,
    /// text for people, or json: a list of {id, outcome, looked, seen, next, reason}
    #[arg(long, short, env = "GATE_OUTPUT", value_enum, default_value = "text")]
    pub output: Output,
    /// How to reach Vault
    #[command(flatten)]
    pub vault: VaultArgs,
    /// Kubeconfig file [default: KUBECONFIG, else ~/.kube/config, else in-cluster]
    #[arg(long, help_heading = "Kubernetes")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in it, repeated: a report of each cluster
    #[arg(
        long = "context",
        env = "GATE_CONTEXT",
        value_name = "CONTEXT",
        value_delimiter = ',',
        help_heading = "Kubernetes"
    )]
    pub contexts: Vec<String>,
}

/// Shapes of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each link, with colours on a terminal.
    Text,
    /// A list of objects.
    Json,
}

/// Runs it.
///
/// # Errors
/// Wrong use: what cannot even be asked.
pub async fn run(args: Doctor) -> Result<ExitCode, Failure> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let mut screen = Screen::new(args.output);
    let checks = if args.pre { BEFORE } else { CHECKS };
    for context in contexts(&args) {
        let kubernetes = KubernetesArgs { kubeconfig: args.kubeconfig.clone(), context: context.clone() };
        let about = Box::pin(about(&args, &line, &kubernetes))
            .await
            .map_err(|failure| in_context(failure, &args, context.as_deref()))?;
        screen.begin(context.as_deref().filter(|_| args.contexts.len() > 1));
        Box::pin(look(checks, about, &mut screen)).await;
        screen.end();
    }
    Ok(ExitCode::from(line::exit_code(&screen.finish(), args.pre)))
}

/// `None`: the current one.
fn contexts(args: &Doctor) -> Vec<Option<String>> {
    match args.contexts.as_slice() {
        [] => vec![None],
        contexts => contexts.iter().cloned().map(Some).collect(),
    }
}

fn in_context(failure: Failure, args: &Doctor, context: Option<&str>) -> Failure {
    match (failure, context) {
        (Failure::Usage(what), Some(context)) if args.contexts.len() > 1 => {
            Failure::Usage(format!("context {context}: {what}"))
        }
        (failure, _) => failure,
    }
}

/// What one report is about.
struct About {
    asked: Asked,
    asker: Asker,
    vault: Vault,
    taken: Vec<String>,
}

/// By the flags, and where these are silent by the settings of the cluster's gate.
async fn about(args: &Doctor, line: &[OsString], kubernetes: &KubernetesArgs) -> Result<About, Failure> {
    // What is wrong with the flags is told before anything is asked.
    if let Some(settings) = args.role.and_then(|role| args.vault.settings(role).ok()) {
        parts::vault_of(settings)?;
    }
    let clock = ApiClock::default();
    let client = clock.of(&parts::client(kubernetes).await?);
    let asker = Asker { client, clock, timeout: args.timeout };
    let found = settings::look(&asker, &args.cluster.namespace).await;
    let own_address = std::env::var_os("VAULT_ADDR").is_some_and(|address| !address.is_empty());
    let known = found.seen().cloned().unwrap_or_default();
    let (args, taken) = settings::filled(line, &known, own_address).map_err(Failure::Usage)?;
    let role = args.role.ok_or_else(|| Failure::Usage(no_role(&found, &args.cluster.namespace)))?;
    let mut settings = args.vault.settings(role).map_err(Failure::Usage)?;
    settings.timeout = settings.timeout.min(args.timeout);
    let asked = asked(&args, role, &settings);
    Ok(About { asked, asker, vault: parts::vault_of(settings)?, taken })
}

fn no_role(found: &Look<settings::GateSettings>, namespace: &str) -> String {
    let why = match found {
        Look::Seen(_) => "names none",
        Look::Absent => "is not there",
        Look::Forbidden(_) => "may not be looked at",
        Look::Failed(_) | Look::Skipped(_) => "cannot be read: the API server does not answer",
    };
    format!(
        "--role (variable GATE_ROLE): not given, and Deployment {namespace}/istio-ca-gate, which would name it, {why}"
    )
}

/// Check after check, each told as soon as it is seen.
async fn look(checks: &[(Group, &dyn Check)], about: About, screen: &mut Screen) {
    let About { asked, asker, vault, taken } = &about;
    let eyes = Eyes { vault, asker, asked };
    let mut seen = Sight { taken: taken.clone(), ..Sight::default() };
    for (group, check) in checks {
        screen.looking(*group);
        check.look(&eyes, &mut seen).await;
        screen.tell(*group, check.lines(&seen, asked));
    }
}

fn asked(args: &Doctor, role: Role, settings: &crate::vault::Settings) -> Asked {
    let ClusterArgs { namespace, secret, .. } = &args.cluster;
    Asked {
        role,
        pre: args.pre,
        namespace: namespace.clone(),
        secret: secret.clone(),
        tls_secret: args.tls_cert_file.is_none().then(|| args.tls_secret.clone()),
        webhook_config: args.webhook_config.clone(),
        self_test: args.self_test.as_ref().unwrap_or(namespace).clone(),
        gated: Gated(args.gate_selectors.clone()),
        account: args.service_account.clone(),
        names: Names {
            cacerts: format!("{namespace}/{secret}"),
            pin: format!("{namespace}/{}", pin::NAME),
            mesh: format!("{namespace}/{}", mesh::NAME),
            record: settings.record(),
        },
        // How long it lives, no line asks.
        signer: settings
            .pki_mount
            .as_ref()
            .map(|_| SignerTerms { cluster: args.cluster.name_in(role), life: Duration::ZERO }),
        own_token: settings.token.is_some(),
        auth_mount: settings.auth_mount.clone(),
        vault_role: settings.role.clone(),
        mount: settings.mount.clone(),
        path: settings.path.clone(),
        now: Timestamp::now(),
    }
}
