//! Flags of the service. Every flag has a variable.

pub mod values;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::core::Selector;

use crate::gate::GATE_SELECTORS;
pub use crate::k8s::access::KubernetesArgs;
use crate::k8s::flux::HelmRelease;
use crate::peers::PeerArgs;
use crate::plan::{OnRootChange, Role};
use crate::selector;
use crate::self_test::SelfTestArgs;
use crate::serving::args::TlsArgs;
use crate::snapshot::VaultUnavailable;
pub use crate::vault::VaultArgs;
use values::duration;
pub(crate) use values::{cluster_name, dns_label, interval};

/// `istio-ca-gate serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// bootstrap makes the root where Vault has never had one; sync only mirrors it
    #[arg(long, env = "GATE_ROLE", value_parser = values::role())]
    pub role: Role,
    /// HTTPS address: admission and all other endpoints; [::] is every address of IPv6 and IPv4
    // In brackets is an address, and no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, env = "GATE_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// HTTP address for all but the admission endpoints; off turns it off
    #[arg(long, env = "GATE_ADMIN_LISTEN", default_value = "[::]:8080")]
    pub admin_listen: AdminListen,
    /// Which cluster this is, and where its CA is
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How the CA is brought there
    #[command(flatten)]
    pub converge: ConvergeArgs,
    /// How often Vault's root is compared again
    #[arg(long, env = "GATE_REFRESH", default_value = "60s", value_parser = interval)]
    pub refresh: Duration,
    /// While Vault cannot be asked: allow with a root verified before, or deny
    #[arg(long, env = "GATE_VAULT_UNAVAILABLE", value_parser = values::vault_unavailable(), default_value = "allow-verified")]
    pub vault_unavailable: VaultUnavailable,
    /// How long ago that verification may be
    #[arg(long, env = "GATE_MAX_STALENESS", default_value = "24h", value_parser = duration)]
    pub max_staleness: Duration,
    /// How long to go on serving after SIGTERM, until the API server has stopped calling this replica
    #[arg(long, env = "GATE_SHUTDOWN_DELAY", default_value = "10s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// Whether the API server calls
    #[command(flatten)]
    pub self_test: SelfTestArgs,
    /// Which clusters the page compares this one with
    #[command(flatten)]
    pub peers: PeerArgs,
    /// What to serve with, and whom
    #[command(flatten)]
    pub tls: TlsArgs,
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

/// `istio-ca-gate bootstrap` and `istio-ca-gate sync`.
#[derive(Debug, Args)]
pub struct Once {
    /// How long to go on trying while held back; 0s is one attempt
    #[arg(long, env = "GATE_WAIT", default_value = "0s", value_parser = duration)]
    pub wait: Duration,
    /// Which cluster this is, and where its CA is
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How the CA is brought there
    #[command(flatten)]
    pub converge: ConvergeArgs,
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

/// A cluster's flags.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// This cluster's name in messages [default: the role's name]
    #[arg(long = "cluster", id = "cluster", env = "GATE_CLUSTER", value_parser = cluster_name)]
    pub name: Option<String>,
    /// Namespace of cacerts and of this service
    #[arg(long, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    pub namespace: String,
    /// Name of the Secret that istiod reads its CA from
    #[arg(long, env = "GATE_SECRET", default_value = "cacerts", value_parser = dns_label)]
    pub secret: String,
}

impl ClusterArgs {
    /// This cluster's name.
    pub fn name_in(&self, role: Role) -> String {
        self.name.clone().unwrap_or_else(|| role.as_str().to_owned())
    }
}

/// The convergence's flags.
#[derive(Clone, Debug, Args)]
pub struct ConvergeArgs {
    /// Label selector of gated pods; repeated ones are alternatives
    #[arg(long = "gate-selector", env = "GATE_SELECTORS", value_delimiter = ';', value_parser = selector::parse,
          default_values = GATE_SELECTORS)]
    pub gate_selectors: Vec<Selector>,
    /// Cap of the convergence's back-off
    #[arg(long, env = "GATE_RETRY_MAX", default_value = "2s", value_parser = interval)]
    pub retry_max: Duration,
    /// When Vault's root is not the one that this cluster trusts: halt, or replace
    #[arg(long, env = "GATE_ON_ROOT_CHANGE", value_parser = values::on_root_change(), default_value = "halt")]
    pub on_root_change: OnRootChange,
    /// HelmRelease that Flux is asked to reconcile once the gate opens; repeated
    #[arg(
        long = "reconcile-helmrelease",
        env = "GATE_RECONCILE_HELMRELEASES",
        value_delimiter = ',',
        value_name = "NAMESPACE/NAME"
    )]
    pub reconcile_helmreleases: Vec<HelmRelease>,
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
    pub fn cluster_name(&self) -> String {
        self.cluster.name_in(self.role)
    }
}
