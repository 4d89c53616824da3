//! Flags of the service. Every flag has a variable.

pub mod values;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::converge::args::{ClusterArgs, ConvergeArgs};
pub use crate::k8s::access::KubernetesArgs;
use crate::peers::PeerArgs;
use crate::plan::Role;
use crate::self_test::SelfTestArgs;
use crate::serving::args::TlsArgs;
use crate::snapshot::VaultUnavailable;
use crate::telemetry::LogArgs;
pub use crate::vault::VaultArgs;
use values::duration;
pub(crate) use values::{dns_label, interval};

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
