//! The pin: the root that this cluster last verified, in a ConfigMap. It outlives Vault's data and
//! `cacerts`, and so keeps a lost root from being replaced by a second one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};

use super::{FIELD_MANAGER, Failed, MANAGED_BY, ROOT_SHA256, Write, call, metadata, patch, post};
use crate::plan::{Owner, Pin, Published};
use crate::reason::{Held, Reason};

/// Name of the ConfigMap.
pub const NAME: &str = "istio-ca-gate";

const ROOT: &str = "root-sha256";
const VERSION: &str = "vault-version";
const VERIFIED: &str = "verified-at";

/// The ConfigMap of one cluster.
pub struct Pins {
    api: Api<ConfigMap>,
    full_name: String,
}

/// The pin as read, and the version token that a write needs.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// What the ConfigMap says.
    pub pin: Option<Pin>,
    resource_version: Option<String>,
}

impl Pins {
    /// The pin in this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), full_name: format!("{namespace}/{NAME}") }
    }

    /// Reads it. A pin that cannot be read is an error, never "no pin".
    ///
    /// # Errors
    /// The reason.
    pub async fn read(&self) -> Result<Read, Held> {
        let doing = format!("read ConfigMap {}", self.full_name);
        match call(&doing, self.api.get(NAME)).await {
            Ok(map) => Ok(Read { pin: self.parse(&map)?, resource_version: map.resource_version() }),
            Err(Failed::NotFound) => Ok(Read::default()),
            Err(error) => Err(error.into_held(&doing)),
        }
    }

    fn parse(&self, map: &ConfigMap) -> Result<Option<Pin>, Held> {
        let data = map.data.as_ref();
        let value = |key| data.and_then(|data| data.get(key)).map(String::as_str);
        // One of ours without a root was tampered with; one that somebody else made says nothing.
        let ours = map.labels().get(MANAGED_BY).is_some_and(|value| value == FIELD_MANAGER);
        let Some(root) = value(ROOT).or(ours.then_some("")) else {
            return Ok(None);
        };
        let root = root.parse().map_err(|_| {
            Held::new(
                Reason::RootChanged,
                format!("{ROOT} in ConfigMap {} is not a SHA-256 in hex, so it is not known which root this cluster trusts: restore it, or delete the ConfigMap to trust Vault's", self.full_name),
            )
        })?;
        Ok(Some(Pin {
            root,
            vault_version: value(VERSION).and_then(|text| text.parse().ok()),
            verified_at: value(VERIFIED).and_then(|text| text.parse().ok()),
        }))
    }

    /// Writes it over exactly what was read.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn write(&self, read: &Read, pin: &Pin) -> Result<Write, Held> {
        let doing = format!("write ConfigMap {}", self.full_name);
        let stamp = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut data = BTreeMap::from([(ROOT.to_owned(), pin.root.to_string())]);
        data.extend(pin.vault_version.map(|version| (VERSION.to_owned(), version.to_string())));
        data.extend(pin.verified_at.map(|at| (VERIFIED.to_owned(), stamp(at))));
        let mut map = ConfigMap { metadata: metadata(NAME), data: Some(data), ..ConfigMap::default() };
        let written = match &read.resource_version {
            None => call(&doing, self.api.create(&post(), &map)).await,
            Some(version) => {
                map.metadata.resource_version = Some(version.clone());
                call(&doing, self.api.patch(NAME, &patch(), &Patch::Merge(&map))).await
            }
        };
        Write::of(written)
    }
}

/// The pin in force: the ConfigMap's, else what a `cacerts` of ours says of itself.
///
/// # Errors
/// If that cannot be read: never "no pin".
pub fn in_force(read: &Read, published: &Published) -> Result<Option<Pin>, Held> {
    let pin = |root| Pin { root, vault_version: None, verified_at: None };
    match published {
        _ if read.pin.is_some() => Ok(read.pin.clone()),
        Published::Present(copy) if copy.owner == Owner::Ours => {
            copy.annotated_root.transpose().map(|root| root.map(pin)).map_err(|error| {
                Held::new(
                    Reason::RootChanged,
                    format!("annotation {ROOT_SHA256} of cacerts does not tell which root this cluster trusts ({error}): restore it, or delete the Secret to trust Vault's"),
                )
            })
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
impl Read {
    /// As if it had been read.
    pub(crate) fn of(pin: Pin) -> Self {
        Self { pin: Some(pin), resource_version: None }
    }
}

#[cfg(test)]
mod tests;
