//! Flags of the serving certificate, and of who may call.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use k8s_openapi::jiff::SignedDuration;

use super::rotation::Lives;
use crate::args::values::{certificate_name, dns_label, life};

/// The serving certificate's flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving certificate")]
pub struct TlsArgs {
    /// Secret with the CAs of this service's own serving certificates, shared by its replicas
    #[arg(long, env = "GATE_TLS_SECRET", default_value = "istio-ca-gate-tls", value_parser = dns_label)]
    pub tls_secret: String,
    /// Name or IP address in the serving certificate, repeated [default: istio-ca-gate.NAMESPACE.svc]
    #[arg(long = "dns-name", env = "GATE_DNS_NAMES", value_delimiter = ',', value_parser = certificate_name)]
    pub dns_names: Vec<String>,
    /// Validating- and, where it exists, MutatingWebhookConfiguration whose caBundle is kept injected
    #[arg(long, env = "GATE_WEBHOOK_CONFIG", default_value = "istio-ca-gate")]
    pub webhook_config: String,
    /// Life of a serving CA; the next one is made at two thirds of it
    #[arg(long, env = "GATE_TLS_CA_LIFE", default_value = "3650d", value_parser = life)]
    pub tls_ca_life: Duration,
    /// Life of a serving certificate, at most a third of its CA's; it is renewed at two thirds of it
    #[arg(long, env = "GATE_TLS_LEAF_LIFE", default_value = "30d", value_parser = life)]
    pub tls_leaf_life: Duration,
    /// Serving certificate with its chain, in place of one of the service's own; then caBundle is yours to fill
    #[arg(long, env = "GATE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "GATE_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// CAs of which callers of the admission endpoints must show a certificate
    #[arg(long, env = "GATE_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,
}

impl TlsArgs {
    /// Names in the serving certificate.
    pub fn dns_names(&self, namespace: &str) -> Vec<String> {
        if self.dns_names.is_empty() {
            return vec![format!("istio-ca-gate.{namespace}.svc")];
        }
        self.dns_names.clone()
    }

    /// The files of certificate and key.
    ///
    /// # Errors
    /// One line, if there is one without the other.
    pub fn pair(&self) -> Result<Option<(PathBuf, PathBuf)>, String> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            (None, None) => Ok(None),
            _ => Err(format!("{PAIR}: give both or neither")),
        }
    }

    /// How long what is made lives.
    ///
    /// # Errors
    /// One line, if a leaf were to live for longer than its CA's rotation takes.
    pub fn lives(&self) -> Result<Lives, String> {
        if self.tls_leaf_life > self.tls_ca_life / 3 {
            return Err("--tls-leaf-life (variable GATE_TLS_LEAF_LIFE): it is longer than a third of --tls-ca-life (variable GATE_TLS_CA_LIFE)".to_owned());
        }
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Ok(Lives { ca: signed(self.tls_ca_life), leaf: signed(self.tls_leaf_life) })
    }
}

/// What an error of the two files names.
pub const PAIR: &str = "--tls-cert-file and --tls-key-file (variables GATE_TLS_CERT_FILE, GATE_TLS_KEY_FILE)";
