//! What `serve` and a single convergence are both made of, from their flags.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use kube::Client;

use super::Failure;
use crate::args::{ClusterArgs, ConvergeArgs, KubernetesArgs, VaultArgs};
use crate::converge::{Attempts, Parts};
use crate::gate::Gated;
use crate::k8s::ApiClock;
use crate::k8s::access::{self, Access};
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::{self, Events};
use crate::k8s::external_secrets::ExternalSecrets;
use crate::k8s::flux::Reconciles;
use crate::k8s::mesh::{self, Served};
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::metrics::Metrics;
use crate::plan::{Names, Role};
use crate::vault::{Settings, Vault};

/// The convergence of one cluster, and what others need of its parts.
pub(super) struct Made {
    pub(super) gated: Gated,
    pub(super) cacerts: Arc<Cacerts>,
    pub(super) owners: Arc<Owners>,
    pub(super) attempts: Attempts,
    pub(super) reconciles: Arc<Reconciles>,
    pub(super) events: Events,
    pub(super) writer: events::Writer,
}

pub(super) fn assemble(
    role: Role,
    cluster: &ClusterArgs,
    converge: &ConvergeArgs,
    client: Client,
    vault: Vault,
    pin_age_max: SignedDuration,
    metrics: &Metrics,
) -> Made {
    let ClusterArgs { namespace, secret, .. } = cluster;
    let name = cluster.name_in(role);
    let clock = ApiClock::default();
    let client = clock.of(&client);
    let gated = Gated(converge.gate_selectors.clone());
    let cacerts = Arc::new(Cacerts::new(client.clone(), namespace, secret));
    let owners = Arc::new(Owners::new(client.clone(), namespace, gated.clone()));
    let reconciles = Arc::new(Reconciles::new(client.clone(), converge.reconcile_helmreleases.clone()));
    let (events, writer) = Events::new(client.clone(), &name, namespace, secret, &instance());
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
        vault: vault.counted_by(metrics.vault.clone()),
        cacerts: Arc::clone(&cacerts),
        pins: Pins::new(client.clone(), namespace),
        served: Served::new(client.clone(), namespace),
        clock,
        owners: Arc::clone(&owners),
        external_secrets: ExternalSecrets::new(client, namespace, secret),
        reconciles: Arc::clone(&reconciles),
        events: events.clone(),
        counted: metrics.convergences.clone(),
    });
    Made { gated, cacerts, owners, attempts, reconciles, events, writer }
}

/// Which replica this is, for Events: in a pod, its name.
fn instance() -> String {
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
