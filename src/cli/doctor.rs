//! `istio-ca-gate doctor`: every link of the chain from Vault to istiod, in order, stopping at nothing.
//!
//! First all is read, by `vault` and `cluster`; then pure functions make a line of each link. Nothing is
//! written: what is posted are access reviews, a pod by dry run, a login, and the giving up of its token.

mod addresses;
mod asked;
mod cacerts;
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
mod self_test;
mod vault;
mod webhook;
mod workloads;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;

use crate::args::{ClusterArgs, GATE_SELECTORS, KubernetesArgs, VaultArgs, dns_label, interval};
use crate::cli::paint;
use crate::gate::Gated;
use crate::k8s::pin;
use crate::plan::{Names, Role};
use crate::run::{Failure, parts};
use crate::selector;
use asked::Asked;
use cluster::Cluster;
use line::{Line, Link};
use look::Look;
use vault::Told;

/// What the report's words mean, and what is not a flag.
const AFTER_HELP: &str = "\
Marks: ok, it holds; note, worth knowing, or it may not be looked at; warning, it will break; FAILED; skipped, an earlier
link is broken.
Exit codes: 0 nothing FAILED, 1 something did, 2 wrong use.
With VAULT_TOKEN set there is no login: Vault's lines are then about the rights of that token, and not about the gate's.";

/// `istio-ca-gate doctor`.
///
/// Prints one line for each link: its mark, its id, what was looked at, what was seen, and what to do about it.
/// docs/troubleshoot.md has an entry for each id.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Doctor {
    /// The gate's role
    #[arg(long, env = "GATE_ROLE", value_enum)]
    pub role: Role,
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
    /// The gate's service account [default: istio-ca-bootstrap or istio-ca-sync, by role]
    #[arg(long, env = "GATE_SERVICE_ACCOUNT", value_parser = dns_label)]
    pub service_account: Option<String>,
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
    /// How to reach Kubernetes
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// Shapes of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each link, with colours on a terminal.
    Text,
    /// A list of objects.
    Json,
}

/// Runs it. The exit code is 0 unless a link failed; warnings are allowed.
///
/// # Errors
/// Wrong use: what cannot even be asked.
pub async fn run(args: Doctor) -> Result<ExitCode, Failure> {
    let mut settings = args.vault.settings(args.role).map_err(Failure::Usage)?;
    settings.timeout = settings.timeout.min(args.timeout);
    let asked = asked(&args, &settings);
    let vault = parts::vault_of(settings)?;
    let asker = cluster::asker(parts::client(&args.kubernetes).await?, args.timeout);

    let cluster = Box::pin(cluster::look(&asker, &asked)).await;
    let reachable = (!matches!(cluster.version, Look::Failed(_))).then_some(&asker);
    let ways = cluster::ways(reachable, &cluster, &vault.settings().addresses).await;
    let told = Box::pin(vault::look(&vault, ways, &asked)).await;

    let lines = report(&told, &cluster, &asked);
    // Whoever closed standard output does not want to know.
    let _ = print(&lines, args.output);
    Ok(if line::holds(&lines) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn asked(args: &Doctor, settings: &crate::vault::Settings) -> Asked {
    let ClusterArgs { namespace, secret, .. } = &args.cluster;
    let account = match args.role {
        Role::Bootstrap => "istio-ca-bootstrap",
        Role::Sync => "istio-ca-sync",
    };
    Asked {
        role: args.role,
        namespace: namespace.clone(),
        secret: secret.clone(),
        tls_secret: args.tls_cert_file.is_none().then(|| args.tls_secret.clone()),
        webhook_config: args.webhook_config.clone(),
        self_test: args.self_test.as_ref().unwrap_or(namespace).clone(),
        gated: Gated(args.gate_selectors.clone()),
        account: args.service_account.clone().unwrap_or_else(|| account.to_owned()),
        names: Names {
            cacerts: format!("{namespace}/{secret}"),
            pin: format!("{namespace}/{}", pin::NAME),
            record: settings.record(),
        },
        own_token: settings.token.is_some(),
        auth_mount: settings.auth_mount.clone(),
        vault_role: settings.role.clone(),
        mount: settings.mount.clone(),
        path: settings.path.clone(),
        now: Timestamp::now(),
    }
}

/// The lines of all links, in their order.
fn report(told: &Told, cluster: &Cluster, asked: &Asked) -> Vec<Line> {
    let stored = told.record.seen().map(|record| &record.stored);
    let pinned = cacerts::pin_in_force(cluster);
    let here = record::Here { published: cacerts::published(cluster), pin: pinned.as_ref() };
    let needed = rights::needed(&rights::Names {
        namespace: &asked.namespace,
        secret: &asked.secret,
        tls_secret: asked.tls_secret.as_deref(),
        webhook_config: &asked.webhook_config,
    });
    let gate = rights::user_of(&asked.namespace, &asked.account);

    let mut lines = addresses::lines(&told.addresses, asked);
    lines.extend(login::lines(told, asked));
    lines.extend([record::engine(told, asked), record::record(told, here, asked)]);
    lines.extend([api(cluster), rights::line(&gate, &cluster.me, &cluster.rights, needed.len())]);
    lines.extend([cacerts::namespace(cluster, asked), cacerts::cacerts(cluster, stored, asked)]);
    lines.extend([
        cacerts::pin(cluster, stored, asked),
        roots::own(cluster, asked),
        roots::served(cluster, stored, asked),
    ]);
    lines.extend(webhook::lines(cluster, asked));
    lines.push(self_test::line(cluster, asked));
    lines.extend(gated::selectors(cluster, asked));
    lines.extend(gated::gate(cluster, asked));
    lines.extend(neighbours::old_way(cluster, &told.addresses, asked));
    lines.extend(neighbours::external_secrets(cluster, asked));
    lines.extend(neighbours::helm_releases(cluster, asked));
    lines.extend(neighbours::blocked(cluster));
    lines
}

fn api(cluster: &Cluster) -> Line {
    let link = Link::new("kubernetes-api", "the API server");
    match cluster.version.or_line(&link) {
        Err(line) => line,
        Ok(version) => {
            let me = cluster.me.seen().map_or("somebody", String::as_str);
            link.ok(format!("version {}, asked as {me}", version.map_or("unknown", String::as_str)))
        }
    }
}

fn print(lines: &[Line], output: Output) -> std::io::Result<()> {
    let mut out = paint::stdout();
    if output == Output::Json {
        return writeln!(out, "{}", serde_json::to_string_pretty(lines)?);
    }
    let widest = lines.iter().map(|line| line.id.len()).max().unwrap_or_default();
    for line in lines {
        writeln!(out, "{}", line.text(widest))?;
    }
    writeln!(out, "\n{}", line::tally(lines))
}
