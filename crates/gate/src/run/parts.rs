//! What `serve` and a single convergence are both made of, from their flags.

use k8s_openapi::jiff::SignedDuration;
use kube::Client;

use super::Failure;
use crate::args::{KubernetesArgs, VaultArgs};
use crate::clock::Clocks;
use crate::converge::args::{ClusterArgs, ConvergeArgs};
use crate::converge::{Attempts, Parts, make_root};
use crate::gate::Gated;
use crate::k8s::access::{self, Access};
use crate::k8s::{Clients, Site, events, mesh, pin};
use crate::metrics::Metrics;
use crate::plan::{Names, Role};
use crate::vault::{Settings, Vault};

/// The convergence of one cluster, and what others need of its parts.
pub(super) struct Made {
    pub(super) gated: Gated,
    pub(super) clients: Clients,
    pub(super) attempts: Attempts<Vault, Clients>,
    pub(super) writer: events::Writer,
}

pub(super) fn assemble(
    role: Role,
    cluster: &ClusterArgs,
    converge: &ConvergeArgs,
    client: &Client,
    vault: Vault,
    pin_age_max: SignedDuration,
    metrics: &Metrics,
) -> Result<Made, Failure> {
    let ClusterArgs { namespace, secret, .. } = cluster;
    let name = cluster.name_in(role);
    let signer = converge.signer(&name, vault.settings()).map_err(Failure::Usage)?;
    let gated = Gated(converge.gate_selectors.clone());
    let site = Site { cluster: &name, namespace, secret, instance: &instance() };
    let (clients, writer) = Clients::new(client, site, gated.clone(), converge.reconcile_helmreleases.clone());
    let attempts = Attempts::new(Parts {
        role,
        on_root_change: converge.on_root_change,
        pin_age_max,
        names: Names {
            cacerts: format!("{namespace}/{secret}"),
            pin: format!("{namespace}/{}", pin::NAME),
            mesh: format!("{namespace}/{}", mesh::NAME),
            record: vault.settings().record(),
        },
        common_name: format!("Istio Root CA {name}"),
        signer,
        store: vault.counted_by(metrics.vault.clone()),
        cluster: clients.clone(),
        make_root,
        now: Clocks::now,
        counted: metrics.convergences.clone(),
    });
    Ok(Made { gated, clients, attempts, writer })
}

/// The name of this machine: in a pod, that of the replica.
pub fn instance() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// A client of Vault that has not spoken to it yet.
pub fn vault(args: &VaultArgs, role: Role) -> Result<Vault, Failure> {
    vault_of(args.settings(role).map_err(Failure::Usage)?)
}

/// The same, of settings.
pub fn vault_of(settings: Settings) -> Result<Vault, Failure> {
    Vault::new(settings).map_err(|error| Failure::Usage(format!("--vault-ca-cert (variable VAULT_CACERT): {error}")))
}

/// A client of Kubernetes that has not spoken to it yet.
pub async fn client(args: &KubernetesArgs) -> Result<Client, Failure> {
    access(args).await.map(|access| access.client)
}

/// A client of Kubernetes that has not spoken to it yet, and which cluster it is of.
pub async fn access(args: &KubernetesArgs) -> Result<Access, Failure> {
    access::access(args).await.map_err(Failure::Usage)
}
