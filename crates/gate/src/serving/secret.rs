//! The CAs of this service's own serving certificates, shared by its replicas through one Secret.
//!
//! `ca.crt` has all that are trusted, the signing one first, and is what `caBundle` has to be; `ca.key` is the signing
//! one's key; `next.key`, while one is announced, the next one's.

pub mod keep;

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::k8s::{Failed, Write, call, metadata, patch, post, written};
use crate::reason::Held;
use crate::serving::ServingCa;
use crate::serving::ca::CaCertificate;
use crate::serving::rotation::{Authorities, TRUSTED_MAX};

/// Key of the CAs' certificates in their Secret: what `caBundle` has to be.
pub const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_KEY: &str = "next.key";

/// Annotation: when a CA that does not sign came to the trusted ones last.
const CHANGED: &str = "istio-ca-gate.io/trusted-since";

/// What is there.
#[derive(Clone)]
pub enum Stored {
    /// No Secret.
    Absent,
    /// CAs.
    Usable(Arc<Usable>),
    /// Something else, in words.
    Broken(String),
}

impl Stored {
    /// Whether both are of the same version of the Secret.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Usable(one), Self::Usable(other)) => one.resource_version == other.resource_version,
            (Self::Broken(one), Self::Broken(other)) => one == other,
            _ => false,
        }
    }
}

/// CAs, and the version token that a write over them needs.
pub struct Usable {
    /// Them.
    pub authorities: Authorities,
    /// `ca.crt` as it is.
    pub bundle: String,
    resource_version: String,
}

/// The Secret.
#[derive(Clone)]
pub struct ServingSecret {
    api: Api<Secret>,
    name: String,
    /// `namespace/name`, for sentences.
    full_name: String,
}

impl ServingSecret {
    /// The Secret `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            full_name: format!("{namespace}/{name}"),
        }
    }

    /// Reads it from the API server, with its version, which is empty where there is nothing.
    ///
    /// # Errors
    /// The reason why it cannot be told what is there.
    pub async fn read(&self) -> Result<(String, Stored), Held> {
        let doing = format!("read Secret {}", self.full_name);
        match call(&doing, self.api.get(&self.name)).await {
            Ok(secret) => Ok((secret.resource_version().unwrap_or_default(), stored(&secret))),
            Err(Failed::NotFound) => Ok((String::new(), Stored::Absent)),
            Err(error) => Err(error.into_held(&doing)),
        }
    }

    /// Creates it, where there is none.
    ///
    /// # Errors
    /// The reason why it cannot be created, or not be told whether it was.
    pub async fn create(&self, authorities: &Authorities) -> Result<Write, Held> {
        let doing = format!("create Secret {}", self.full_name);
        let data: Value = data(authorities);
        let secret = Secret {
            metadata: metadata(&self.name),
            type_: Some("Opaque".to_owned()),
            data: serde_json::from_value(data).ok(),
            ..Secret::default()
        };
        written(call(&doing, self.api.create(&post(), &secret)).await)
    }

    /// Writes over exactly what was read.
    ///
    /// # Errors
    /// The reason why it cannot be written, or not be told whether it was.
    pub async fn write(&self, over: &Usable, authorities: &Authorities) -> Result<Write, Held> {
        let doing = format!("write Secret {}", self.full_name);
        let mut data = data(authorities);
        // Of a merge patch, null removes.
        if authorities.next.is_none() {
            data[NEXT_KEY] = Value::Null;
        }
        let body = json!({
            "metadata": {
                "resourceVersion": over.resource_version,
                "annotations": { CHANGED: authorities.changed.map(|at| at.to_string()) },
            },
            "data": data,
        });
        written(call(&doing, self.api.patch(&self.name, &patch(), &Patch::Merge(&body))).await)
    }
}

fn data(authorities: &Authorities) -> Value {
    let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let mut data = json!({
        CERTIFICATE: bytes(&authorities.bundle()),
        KEY: bytes(&authorities.signing.key_pem()),
    });
    if let Some(next) = &authorities.next {
        data[NEXT_KEY] = bytes(&next.key_pem());
    }
    data
}

/// What a Secret is to this service.
pub fn stored(secret: &Secret) -> Stored {
    match usable(secret) {
        Ok(usable) => Stored::Usable(Arc::new(usable)),
        Err(what) => Stored::Broken(what),
    }
}

fn usable(secret: &Secret) -> Result<Usable, String> {
    let file = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| format!("it has no {key}"))?;
        String::from_utf8(bytes.0.clone()).map(Zeroizing::new).map_err(|_| format!("its {key} is not PEM"))
    };
    let bundle = file(CERTIFICATE)?;
    let mut certificates = CaCertificate::all_of(bundle.as_bytes())?;
    if certificates.is_empty() || certificates.len() > TRUSTED_MAX {
        return Err(format!("its {CERTIFICATE} has {} certificates, and not 1 to {TRUSTED_MAX}", certificates.len()));
    }
    let signing = ServingCa::with_key(&certificates[..1], &file(KEY)?)?;
    certificates.remove(0);
    // One that cannot be read was not announced: it is made anew when it is due.
    let next = file(NEXT_KEY).ok().and_then(|key| ServingCa::with_key(&certificates, &key).ok());
    certificates.retain(|ca| next.as_ref().is_none_or(|next| next.certificate() != ca));
    let changed = secret.annotations().get(CHANGED).and_then(|text| text.parse::<Timestamp>().ok());
    let authorities =
        Authorities { signing: Arc::new(signing), next: next.map(Arc::new), others: certificates, changed };
    let resource_version = secret.resource_version().unwrap_or_default();
    Ok(Usable { authorities, bundle: bundle.to_string(), resource_version })
}

#[cfg(test)]
mod tests;
