//! Which API server, and how to get there.

use std::path::PathBuf;

use clap::Args;
use kube::Client;
use kube::config::Kubeconfig;

use crate::client;

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

/// A client, and which cluster it is of.
pub struct Access {
    /// The client.
    pub client: Client,
    /// The address of the API server.
    pub server: String,
    /// The kubeconfig's context, if it is from one.
    pub context: Option<String>,
}

/// A client of Kubernetes that has not spoken to it yet.
///
/// # Errors
/// One line that names flags and variables.
pub async fn access(args: &KubernetesArgs) -> Result<Access, String> {
    let wrong = |error: String| {
        format!(
            "--kubeconfig (variable KUBECONFIG), --context (variable GATE_CONTEXT): no access to Kubernetes: {error}"
        )
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
