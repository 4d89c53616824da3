//! Vault's flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use url::Url;
use zeroize::Zeroizing;

use super::{Settings, Token};
use gate_core::durations::interval;
use gate_core::plan::Role;

/// Where the deployment mounts a token for Vault, and the pod's own.
const JWT_FILES: [&str; 2] =
    ["/var/run/secrets/istio-ca-gate/token", "/var/run/secrets/kubernetes.io/serviceaccount/token"];

/// How to reach Vault.
#[derive(Debug, Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultArgs {
    /// Address, repeated; the next is only tried where one does not answer [else: VAULT_ADDR]
    #[arg(long, env = "GATE_VAULT_ADDRS", value_delimiter = ',', value_parser = address)]
    vault_addr: Vec<Url>,
    /// Address, repeated, that is gone for good: its silence no longer keeps a root from being made
    #[arg(long, env = "GATE_VAULT_GONE", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    vault_gone: Vec<Url>,
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
    /// Mount of the PKI engine that has the root's key and certifies signers [default: none, the key is in the record]
    #[arg(long, env = "GATE_VAULT_PKI_MOUNT", value_parser = vault_path)]
    vault_pki_mount: Option<String>,
    /// Longest wait for one answer
    #[arg(long, env = "GATE_VAULT_TIMEOUT", default_value = "3s", value_parser = interval)]
    vault_timeout: Duration,
}

impl VaultArgs {
    /// Settings of a gate in this role.
    ///
    /// # Errors
    /// One line that names flag and variable.
    pub fn settings(&self, role: Role) -> Result<Settings, String> {
        self.settings_as(match role {
            Role::Bootstrap => "istio-ca-bootstrap",
            Role::Sync => "istio-ca-sync",
        })
    }

    /// Settings of whoever logs in as this, unless told otherwise.
    ///
    /// # Errors
    /// One line that names flag and variable.
    pub fn settings_as(&self, default_role: &str) -> Result<Settings, String> {
        let mut addresses = self.vault_addr.clone();
        if addresses.is_empty() {
            let variable = variable("VAULT_ADDR")
                .ok_or("no address of Vault: set --vault-addr (GATE_VAULT_ADDRS, or VAULT_ADDR)")?;
            addresses.push(address(&variable).map_err(|error| format!("VAULT_ADDR: {error}"))?);
        }
        if let Some(other) = self.vault_gone.iter().find(|gone| !addresses.contains(gone)) {
            return Err(format!("--vault-gone (variable GATE_VAULT_GONE): {other} is none of --vault-addr"));
        }
        let token = variable("VAULT_TOKEN")
            .map(|text| Token::new(Zeroizing::new(text)).map_err(|error| format!("VAULT_TOKEN: {error}")))
            .transpose()?;
        let jwt_files = match &self.vault_jwt_file {
            Some(file) => vec![file.clone()],
            None => JWT_FILES.map(PathBuf::from).to_vec(),
        };
        Ok(Settings {
            addresses,
            gone: self.vault_gone.clone(),
            ca_file: self.vault_ca_cert.clone().filter(|file| !file.as_os_str().is_empty()),
            namespace: self.vault_namespace.clone().filter(|namespace| !namespace.is_empty()),
            auth_mount: self.vault_auth_mount.clone(),
            role: self.vault_role.clone().unwrap_or_else(|| default_role.to_owned()),
            jwt_files,
            token,
            mount: self.vault_mount.clone(),
            path: self.vault_path.clone(),
            pki_mount: self.vault_pki_mount.clone(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
}
