//! Flags of the convergence, and of the cluster that it is for.

use std::time::Duration;

use clap::Args;
use kube::core::Selector;

use crate::args::values::{self, cluster_name, dns_label, interval, signing_cluster_name};
use crate::ca::signer::SignerTerms;
use crate::gate::GATE_SELECTORS;
use crate::k8s::flux::HelmRelease;
use crate::plan::{OnRootChange, Role};
use crate::selector;
use crate::vault::Settings;

/// A cluster's flags.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// This cluster's name in messages [default: the role's name]
    #[arg(long = "cluster", id = "cluster", env = "GATE_CLUSTER", value_parser = cluster_name)]
    pub name: Option<String>,
    /// Namespace of cacerts and of this service
    #[arg(long, short, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
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
    /// How long this cluster's signer lives, where --vault-pki-mount has it certified; renewed at two thirds
    #[arg(long, env = "GATE_SIGNER_LIFE", default_value = "2160h", value_parser = values::life)]
    pub signer_life: Duration,
    /// HelmRelease that Flux is asked to reconcile once the gate opens; repeated
    #[arg(
        long = "reconcile-helmrelease",
        env = "GATE_RECONCILE_HELMRELEASES",
        value_delimiter = ',',
        value_name = "NAMESPACE/NAME"
    )]
    pub reconcile_helmreleases: Vec<HelmRelease>,
}

impl ConvergeArgs {
    /// How this cluster's signer is made, if there is a PKI engine to certify it.
    ///
    /// # Errors
    /// In words, if no signer could have this cluster's name.
    pub fn signer(&self, cluster: &str, vault: &Settings) -> Result<Option<SignerTerms>, String> {
        if vault.pki_mount.is_none() {
            return Ok(None);
        }
        let cluster = signing_cluster_name(cluster)
            .map_err(|error| format!("--cluster (variable GATE_CLUSTER), with --vault-pki-mount: {error}"))?;
        Ok(Some(SignerTerms { cluster, life: self.signer_life }))
    }
}
