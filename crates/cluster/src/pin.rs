//! The pin: the root that this cluster last verified, in a ConfigMap. It outlives Vault's data and
//! `cacerts`, and so keeps a lost root from being replaced by a second one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{FIELD_MANAGER, Failed, MANAGED_BY, call, metadata, patch, post, written};
use gate_core::ca::Sha256;
use gate_core::cluster::Write;
use gate_core::plan::{Contradiction, Pin, PublishedSigners, ReadPin};
use gate_core::reason::{ByItself, Held, Reason};

/// Name of the ConfigMap.
pub const NAME: &str = "istio-ca-gate";

const ROOT: &str = "root-sha256";
const ROOTS: &str = "roots";
const VERSION: &str = "vault-version";
const VERIFIED: &str = "verified-at";
const STATE: &str = "record-state";
const SIGNERS: &str = "signers";
const CONTRADICTED_AT: &str = "contradicted-at";
const CONTRADICTED_BY: &str = "contradicted-by";

/// The ConfigMap of one cluster.
pub struct Pins {
    api: Api<ConfigMap>,
    full_name: String,
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
    pub async fn read(&self) -> Result<ReadPin, Held> {
        let doing = format!("read ConfigMap {}", self.full_name);
        match call(&doing, self.api.get(NAME)).await {
            Ok(map) => Ok(ReadPin { pin: pin(&map, &self.full_name)?, resource_version: map.resource_version() }),
            Err(Failed::NotFound) => Ok(ReadPin::default()),
            Err(error) => Err(error.into_held(&doing)),
        }
    }

    /// Writes an agreement with Vault over exactly what was read: with it ends what contradicted the last one.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn write(&self, read: &ReadPin, pin: &Pin) -> Result<Write, Held> {
        let doing = self.doing_write();
        let mut map = ConfigMap { metadata: metadata(NAME), data: Some(data(pin)), ..ConfigMap::default() };
        if read.resource_version.is_none() {
            return written(call(&doing, self.api.create(&post(), &map)).await);
        }
        map.metadata.resource_version.clone_from(&read.resource_version);
        let mut body = json!(map);
        let is_shared = pin.signers.is_none();
        for ended in
            [CONTRADICTED_AT, CONTRADICTED_BY].into_iter().chain([STATE, SIGNERS].into_iter().filter(|_| is_shared))
        {
            body["data"][ended] = Value::Null;
        }
        written(call(&doing, self.api.patch(NAME, &patch(), &Patch::Merge(&body))).await)
    }

    /// Takes note of what Vault says against the pin, over exactly what was read: other replicas and the next start
    /// read it.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn contradict(&self, read: &ReadPin, contradiction: Contradiction) -> Result<Write, Held> {
        let body = json!({
            "metadata": { "resourceVersion": read.resource_version },
            "data": {
                CONTRADICTED_AT: stamp(contradiction.at),
                CONTRADICTED_BY: contradiction.by.as_str(),
            },
        });
        let doing = self.doing_write();
        written(call(&doing, self.api.patch(NAME, &patch(), &Patch::Merge(&body))).await)
    }

    fn doing_write(&self) -> String {
        format!("write ConfigMap {}", self.full_name)
    }
}

/// What a ConfigMap of this name says. `None`: it is no pin.
///
/// # Errors
/// A pin that cannot be read is never "no pin".
pub fn pin(map: &ConfigMap, full_name: &str) -> Result<Option<Pin>, Held> {
    let data = map.data.as_ref();
    let value = |key| data.and_then(|data| data.get(key)).map(String::as_str);
    // One of ours without a root was tampered with; one that somebody else made says nothing.
    let ours = map.labels().get(MANAGED_BY).is_some_and(|value| value == FIELD_MANAGER);
    let Some(root) = value(ROOT).or(ours.then_some("")) else {
        return Ok(None);
    };
    let root: Sha256 = root.parse().map_err(|_| {
        Held::new(
            Reason::RootChanged,
            format!(
                "{ROOT} in ConfigMap {full_name} is not a SHA-256 in hex, so it is not known which root this cluster trusts"
            ),
            "restore it, or delete the ConfigMap to trust Vault's",
            ByItself::Unsaid,
        )
    })?;
    Ok(Some(Pin {
        roots: value(ROOTS).and_then(|text| roots(text, root)).unwrap_or_else(|| [root].into()),
        vault_version: value(VERSION).and_then(|text| text.parse().ok()),
        verified_at: value(VERIFIED).and_then(|text| text.parse().ok()),
        contradicted: contradiction(value(CONTRADICTED_AT), value(CONTRADICTED_BY)),
        signers: value(STATE).zip(value(SIGNERS)).and_then(|(state, signers)| published_signers(state, signers)),
        ..Pin::of(root)
    }))
}

/// An agreement, as it is written.
pub fn data(pin: &Pin) -> BTreeMap<String, String> {
    let mut data = BTreeMap::from([(ROOT.to_owned(), pin.root.hex()), (ROOTS.to_owned(), lines(&pin.roots))]);
    data.extend(pin.vault_version.map(|version| (VERSION.to_owned(), version.to_string())));
    data.extend(pin.verified_at.map(|at| (VERIFIED.to_owned(), stamp(at))));
    if let Some(PublishedSigners { state, sha256 }) = &pin.signers {
        data.insert(STATE.to_owned(), state.to_string());
        data.insert(SIGNERS.to_owned(), lines(sha256));
    }
    data
}

fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn lines<'a>(prints: impl IntoIterator<Item = &'a Sha256>) -> String {
    prints.into_iter().map(Sha256::to_string).collect::<Vec<_>>().join("\n")
}

/// None, where they cannot be read: then each is published anew.
fn published_signers(state: &str, signers: &str) -> Option<PublishedSigners> {
    let sha256 = signers.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(PublishedSigners { state: state.parse().ok()?, sha256 })
}

/// The set of roots, if it is one that has the pinned root in it. An older version of this program leaves another's.
fn roots(text: &str, root: Sha256) -> Option<BTreeSet<Sha256>> {
    let roots: BTreeSet<_> = text.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
    roots.contains(&root).then_some(roots)
}

/// Half of one, or one that cannot be read, is one, too.
fn contradiction(at: Option<&str>, by: Option<&str>) -> Option<Contradiction> {
    if at.is_none() && by.is_none() {
        return None;
    }
    let by = by.and_then(|by| Reason::ALL.iter().copied().find(|reason| reason.as_str() == by));
    let at = at.and_then(|at| at.parse().ok());
    Some(Contradiction { by: by.unwrap_or(Reason::RootChanged), at: at.unwrap_or(Timestamp::UNIX_EPOCH) })
}

#[cfg(test)]
mod tests;
