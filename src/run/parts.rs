//! What `serve` and a single convergence are both made of, from their flags.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Failure;
use crate::args::{ClusterArgs, ConvergeArgs, KubernetesArgs, VaultArgs};
use crate::converge::{Attempts, Parts};
use crate::gate::Gated;
use crate::k8s::cacerts::Cacerts;
use crate::k8s::events::{self, Events};
use crate::k8s::external_secrets::ExternalSecrets;
use crate::k8s::flux::Reconciles;
use crate::k8s::owners::Owners;
use crate::k8s::pin::{self, Pins};
use crate::metrics::Metrics;
use crate::plan::{Names, Role};
use crate::reason::foreign_text;
use crate::vault::{Settings, Vault};

/// Connecting to an API server that is there takes milliseconds.
const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

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
            record: vault.settings().record(),
        },
        common_name: format!("Istio Root CA {name}"),
        vault: vault.counted_by(metrics.vault.clone()),
        cacerts: Arc::clone(&cacerts),
        pins: Pins::new(client.clone(), namespace),
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
    let wrong = |error: &dyn std::fmt::Display| {
        let error = outermost(error);
        Failure::Usage(format!(
            "--kubeconfig (variable KUBECONFIG), --context (variable GATE_CONTEXT): no access to Kubernetes: {error}"
        ))
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let of = |kubeconfig: Kubeconfig| args.context.clone().or(kubeconfig.current_context);
    let (config, context) = match (&args.kubeconfig, &args.context) {
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
            let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await;
            (config.map_err(|error| wrong(&error))?, of(kubeconfig))
        }
        (None, Some(context)) => {
            let config = Config::from_kubeconfig(&options).await;
            (config.map_err(|error| wrong(&error))?, Some(context.clone()))
        }
        (None, None) => match Config::from_kubeconfig(&options).await {
            Ok(config) => (config, Kubeconfig::read().ok().and_then(of)),
            Err(_) => (Config::infer().await.map_err(|error| wrong(&error))?, None),
        },
    };
    let server = config.cluster_url.to_string();
    let client = client_of(config).map_err(|error| wrong(&error))?;
    Ok(Access { client, server, context })
}

/// A client by this configuration that has not spoken yet.
pub(crate) fn client_of(mut config: Config) -> kube::Result<Client> {
    config.connect_timeout = Some(API_CONNECT_TIMEOUT);
    // Whoever asks retries, and knows why.
    config.default_retry = false;
    Client::try_from(config)
}

/// The outermost text of an error about a kubeconfig: the others repeat what is in the file.
pub(crate) fn outermost(error: &dyn std::fmt::Display) -> String {
    foreign_text(error.to_string().split([':', '\n']).next().unwrap_or_default())
}
