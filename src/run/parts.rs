//! What `serve` and a single convergence are both made of, from their flags.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use kube::config::Kubeconfig;

use super::Failure;
use crate::args::{ClusterArgs, ConvergeArgs, KubernetesArgs, VaultArgs};
use crate::converge::{Attempts, Parts};
use crate::gate::Gated;
use crate::k8s::ApiClock;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::client;
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
pub(crate) fn vault(args: &VaultArgs, role: Role) -> Result<Vault, Failure> {
    vault_of(args.settings(role).map_err(Failure::Usage)?)
}

/// The same, of settings.
pub(crate) fn vault_of(settings: Settings) -> Result<Vault, Failure> {
    Vault::new(settings).map_err(|error| Failure::Usage(format!("--vault-ca-cert (variable VAULT_CACERT): {error}")))
}

/// A client of Kubernetes that has not spoken to it yet.
pub(crate) async fn client(args: &KubernetesArgs) -> Result<Client, Failure> {
    access(args).await.map(|access| access.client)
}

/// A client, and which cluster it is of.
pub(crate) struct Access {
    pub(crate) client: Client,
    /// The address of the API server.
    pub(crate) server: String,
    /// The kubeconfig's context, if it is from one.
    pub(crate) context: Option<String>,
}

/// A client of Kubernetes that has not spoken to it yet.
pub(crate) async fn access(args: &KubernetesArgs) -> Result<Access, Failure> {
    let wrong = |error: String| {
        Failure::Usage(format!(
            "--kubeconfig (variable KUBECONFIG), --context (variable GATE_CONTEXT): no access to Kubernetes: {error}"
        ))
    };
    let kubeconfig = match &args.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = kubeconfig.map_err(|error| client::told(&error));
    let context = args.context.clone().or(kubeconfig.as_ref().ok().and_then(|file| file.current_context.clone()));
    let by_kubeconfig = match kubeconfig {
        Ok(kubeconfig) => client::config_of(kubeconfig, args.context.as_deref()).await,
        Err(error) => Err(error),
    };
    let is_named = args.kubeconfig.is_some() || args.context.is_some();
    let (config, context) = match by_kubeconfig {
        Ok(config) => (config, context),
        Err(error) if is_named => return Err(wrong(error)),
        Err(error) => match client::config_of_pod() {
            Ok(config) => (config, None),
            Err(pod) => return Err(wrong(format!("{error}; and this is no pod: {pod}"))),
        },
    };
    let server = config.cluster_url.to_string();
    let client = client::client_of(config).map_err(wrong)?;
    Ok(Access { client, server, context })
}
