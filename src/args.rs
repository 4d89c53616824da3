//! The command line. Every flag has a variable; a wrong one is one line that names both.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use kube::core::Selector;
use url::Url;
use zeroize::Zeroizing;

use crate::plan::{OnRootChange, Role};
use crate::selector;
use crate::snapshot::VaultUnavailable;
use crate::vault;

/// Where the deployment mounts a token for Vault, and the pod's own.
const JWT_FILES: [&str; 2] =
    ["/var/run/secrets/istio-ca-gate/token", "/var/run/secrets/kubernetes.io/serviceaccount/token"];

/// Keeps istiod and the east-west gateway out until the shared Istio root CA from Vault is in place.
#[derive(Debug, Parser)]
#[command(version, name = "istio-ca-gate", arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the admission service
    Serve(Box<Serve>),
}

/// `istio-ca-gate serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// bootstrap makes the root where Vault has never had one; sync only mirrors it
    #[arg(long, env = "GATE_ROLE", value_enum)]
    pub role: Role,
    /// This cluster's name in messages [default: the role's name]
    #[arg(long, env = "GATE_CLUSTER", value_parser = cluster_name)]
    pub cluster: Option<String>,
    /// HTTPS address: admission and all other endpoints
    #[arg(long, env = "GATE_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// HTTP address for all but the admission endpoints; off turns it off
    #[arg(long, env = "GATE_ADMIN_LISTEN", default_value = "0.0.0.0:8080")]
    pub admin_listen: AdminListen,
    /// Namespace of cacerts and of this service
    #[arg(long, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    pub namespace: String,
    /// Name of the Secret that istiod reads its CA from
    #[arg(long, env = "GATE_SECRET", default_value = "cacerts", value_parser = dns_label)]
    pub secret: String,
    /// Label selector of gated pods; repeated ones are alternatives
    #[arg(long = "gate-selector", env = "GATE_SELECTORS", value_delimiter = ';', value_parser = selector::parse,
          default_values = [
              "app in (istiod,istio-eastwestgateway)",
              "istio in (pilot,istiod,eastwestgateway)",
              "gateway.networking.k8s.io/gateway-class-name=istio-east-west",
          ])]
    pub gate_selectors: Vec<Selector>,
    /// How often Vault's root is compared again
    #[arg(long, env = "GATE_REFRESH", default_value = "60s", value_parser = interval)]
    pub refresh: Duration,
    /// Cap of the convergence's back-off
    #[arg(long, env = "GATE_RETRY_MAX", default_value = "2s", value_parser = interval)]
    pub retry_max: Duration,
    /// While Vault cannot be asked: allow with a root verified before, or deny
    #[arg(long, env = "GATE_VAULT_UNAVAILABLE", value_enum, default_value = "allow-verified")]
    pub vault_unavailable: VaultUnavailable,
    /// How long ago that verification may be
    #[arg(long, env = "GATE_MAX_STALENESS", default_value = "24h", value_parser = duration)]
    pub max_staleness: Duration,
    /// When Vault's root is not the one that this cluster trusts: halt, or replace
    #[arg(long, env = "GATE_ON_ROOT_CHANGE", value_enum, default_value = "halt")]
    pub on_root_change: OnRootChange,
    /// Secret with the CA of this service's own serving certificates, shared by its replicas
    #[arg(long, env = "GATE_TLS_SECRET", default_value = "istio-ca-gate-tls", value_parser = dns_label)]
    pub tls_secret: String,
    /// Name or IP address in the serving certificate, repeated [default: istio-ca-gate.NAMESPACE.svc]
    #[arg(long = "dns-name", env = "GATE_DNS_NAMES", value_delimiter = ',', value_parser = certificate_name)]
    pub dns_names: Vec<String>,
    /// Validating- and, where it exists, MutatingWebhookConfiguration whose caBundle is kept injected
    #[arg(long, env = "GATE_WEBHOOK_CONFIG", default_value = "istio-ca-gate")]
    pub webhook_config: String,
    /// How long to go on serving after SIGTERM, until the API server has stopped calling this replica
    #[arg(long, env = "GATE_SHUTDOWN_DELAY", default_value = "10s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// How to reach Vault
    #[command(flatten)]
    pub vault: VaultArgs,
    /// How to reach Kubernetes
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
    /// How to log
    #[command(flatten)]
    pub log: LogArgs,
}

/// Vault's flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultArgs {
    /// Address, repeated; the next is only tried where one does not answer [else: VAULT_ADDR]
    #[arg(long, env = "GATE_VAULT_ADDRS", value_delimiter = ',', value_parser = address)]
    vault_addr: Vec<Url>,
    /// PEM file with the CAs that Vault's certificate may be from [default: the system's]
    #[arg(long, env = "VAULT_CACERT")]
    vault_ca_cert: Option<PathBuf>,
    /// Vault namespace
    #[arg(long, env = "VAULT_NAMESPACE", value_parser = vault_namespace)]
    vault_namespace: Option<String>,
    /// Mount of the kubernetes or jwt auth method for this cluster
    #[arg(long, env = "GATE_VAULT_AUTH_MOUNT", default_value = "kubernetes", value_parser = vault_path)]
    vault_auth_mount: String,
    /// Role to log in as [default: istio-ca-bootstrap or istio-ca-sync, by role]
    #[arg(long, env = "GATE_VAULT_ROLE")]
    vault_role: Option<String>,
    /// Service-account token to log in with [default: /var/run/secrets/istio-ca-gate/token, else the pod's own]
    #[arg(long, env = "GATE_VAULT_JWT_FILE")]
    vault_jwt_file: Option<PathBuf>,
    /// Mount of the KV version 2 engine
    #[arg(long, env = "GATE_VAULT_MOUNT", default_value = "secret", value_parser = vault_path)]
    vault_mount: String,
    /// Path of the record in it
    #[arg(long, env = "GATE_VAULT_PATH", default_value = "istio/ca", value_parser = vault_path)]
    vault_path: String,
    /// Longest wait for one answer
    #[arg(long, env = "GATE_VAULT_TIMEOUT", default_value = "3s", value_parser = interval)]
    vault_timeout: Duration,
}

/// Kubernetes' flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// Kubeconfig file [default: KUBECONFIG, else ~/.kube/config, else in-cluster]
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Context in it
    #[arg(long, env = "GATE_CONTEXT")]
    pub context: Option<String>,
}

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

/// Where the HTTP endpoints are, if anywhere.
#[derive(Clone, Copy, Debug)]
pub struct AdminListen(pub Option<SocketAddr>);

impl std::str::FromStr for AdminListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| "it is neither ADDRESS:PORT nor off".to_owned())
    }
}

impl Serve {
    /// This cluster's name.
    pub fn cluster(&self) -> String {
        self.cluster.clone().unwrap_or_else(|| self.role.as_str().to_owned())
    }

    /// Names in the serving certificate.
    pub fn dns_names(&self) -> Vec<String> {
        if self.dns_names.is_empty() {
            return vec![format!("istio-ca-gate.{}.svc", self.namespace)];
        }
        self.dns_names.clone()
    }
}

impl VaultArgs {
    /// Settings for this role.
    ///
    /// # Errors
    /// One line that names flag and variable.
    pub fn settings(&self, role: Role) -> Result<vault::Settings, String> {
        let mut addresses = self.vault_addr.clone();
        if addresses.is_empty() {
            let variable = variable("VAULT_ADDR")
                .ok_or("no address of Vault: set --vault-addr (GATE_VAULT_ADDRS, or VAULT_ADDR)")?;
            addresses.push(address(&variable).map_err(|error| format!("VAULT_ADDR: {error}"))?);
        }
        let token = variable("VAULT_TOKEN")
            .map(|text| vault::Token::new(Zeroizing::new(text)).map_err(|error| format!("VAULT_TOKEN: {error}")))
            .transpose()?;
        let default_role = match role {
            Role::Bootstrap => "istio-ca-bootstrap",
            Role::Sync => "istio-ca-sync",
        };
        let jwt_files = match &self.vault_jwt_file {
            Some(file) => vec![file.clone()],
            None => JWT_FILES.map(PathBuf::from).to_vec(),
        };
        Ok(vault::Settings {
            addresses,
            ca_file: self.vault_ca_cert.clone().filter(|file| !file.as_os_str().is_empty()),
            namespace: self.vault_namespace.clone().filter(|namespace| !namespace.is_empty()),
            auth_mount: self.vault_auth_mount.clone(),
            role: self.vault_role.clone().unwrap_or_else(|| default_role.to_owned()),
            jwt_files,
            token,
            mount: self.vault_mount.clone(),
            path: self.vault_path.clone(),
            timeout: self.vault_timeout,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A base address: vaultrs puts `/v1` behind the host, so a path would end up in the wrong place.
fn address(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("it is not a URL ({error})"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err("it is not an https:// or http:// address".to_owned());
    }
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err("it must be scheme, host and port only".to_owned());
    }
    Ok(url)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write 3s, 1m or 24h"))?;
    if duration > Duration::from_secs(10 * 365 * 24 * 3600) {
        return Err("it is longer than ten years".to_owned());
    }
    Ok(duration)
}

/// A duration that something is repeated or given up after: none at all would spin, or never succeed.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) { Err("it is shorter than 100ms".to_owned()) } else { Ok(interval) }
}

/// A name or address that can stand in a certificate.
fn certificate_name(text: &str) -> Result<String, String> {
    match rcgen::CertificateParams::new(vec![text.to_owned()]) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("it cannot stand in a certificate".to_owned()),
    }
}

fn dns_label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let sound = !text.is_empty() && text.len() <= 253 && text.chars().all(allowed);
    sound.then(|| text.to_owned()).ok_or_else(|| "it is not a Kubernetes name".to_owned())
}

/// It stands in every message, and in the common name of a root made here, which ends at 64.
fn cluster_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let sound = !text.is_empty() && text.len() <= 50 && text.chars().all(allowed);
    sound.then(|| text.to_owned()).ok_or_else(|| "1 to 50 letters, digits, dashes, dots, underscores".to_owned())
}

fn vault_path(text: &str) -> Result<String, String> {
    let path = text.trim_matches('/');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let sound =
        !path.is_empty() && path.chars().all(allowed) && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    sound.then(|| path.to_owned()).ok_or_else(|| "it is not a path in Vault".to_owned())
}

/// It is sent in a header.
fn vault_namespace(text: &str) -> Result<String, String> {
    let sound = text.bytes().all(|b| b.is_ascii_graphic());
    sound.then(|| text.to_owned()).ok_or_else(|| "it is not a namespace of Vault's".to_owned())
}

/// An error of clap's as one line that names flag and variable. `None`: help or version, to be printed as it is.
pub fn one_line(error: &clap::Error) -> Option<String> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return None;
    }
    let rendered = error.render().to_string();
    let text = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // An address may have a password in it.
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue).filter(|_| line.contains('@')) {
        line = line.replace(value.as_str(), "(withheld)");
    }
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => vec![arg.clone()],
        Some(ContextValue::Strings(args)) => args.clone(),
        _ => Vec::new(),
    };
    let variables: Vec<String> = named.iter().filter_map(|arg| variable_of(arg)).collect();
    Some(match variables.as_slice() {
        [] => line,
        variables => format!("{line} (variable {})", variables.join(", ")),
    })
}

/// The variable of a flag that clap names as `--flag <VALUE>`.
fn variable_of(arg: &str) -> Option<String> {
    let long = arg.split([' ', '=']).next()?.strip_prefix("--")?;
    let command = Cli::command();
    let mut args = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let variable = args.find(|arg| arg.get_long() == Some(long))?.get_env()?;
    Some(variable.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(args: &[&str]) -> String {
        one_line(&Cli::try_parse_from(["istio-ca-gate"].iter().chain(args)).unwrap_err()).unwrap()
    }

    #[test]
    fn a_wrong_value_is_one_line_with_flag_and_variable() {
        assert_eq!(
            error(&["serve", "--role", "x"]),
            "invalid value 'x' for '--role <ROLE>' [possible values: bootstrap, sync] (variable GATE_ROLE)"
        );
        let refresh = error(&["serve", "--role", "sync", "--refresh", "soon"]);
        assert!(refresh.contains("--refresh") && refresh.contains("(variable GATE_REFRESH)"), "{refresh}");
        assert!(!refresh.contains('\n'));
    }

    #[test]
    fn a_missing_role_and_an_unknown_flag_are_named() {
        assert!(error(&["serve"]).contains("--role <ROLE> (variable GATE_ROLE)"));
        assert!(error(&["serve", "--rolle", "sync"]).contains("'--rolle'"));
    }

    #[test]
    fn a_vault_address_is_scheme_host_and_port() {
        assert!(address("https://vault.example:8200").is_ok());
        assert!(address("http://127.0.0.1:8200/").is_ok());
        for wrong in ["vault:8200", "ftp://x", "https://x/v1", "https://u:p@x", "https://x?a=b", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_in_vault_lose_their_slashes_and_cannot_climb() {
        assert_eq!(vault_path("/secret/").unwrap(), "secret");
        for wrong in ["", "/", "a/../b", "a//b", "a b", "a?b"] {
            assert!(vault_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
