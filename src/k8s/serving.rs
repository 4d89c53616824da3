//! The CA of this service's own serving certificates, shared by its replicas through one Secret:
//! created once, adopted by everybody else.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use zeroize::Zeroizing;

use super::{Failed, call, metadata, post};
use crate::reason::{Held, Reason};
use crate::tls::ServingCa;

/// Key of the CA's certificate in its Secret: what `caBundle` has to be.
pub const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Adopts the CA in Secret `name`, or creates it.
///
/// # Errors
/// The reason, if neither could be done.
pub async fn adopt_or_create(client: Client, namespace: &str, name: &str) -> Result<ServingCa, Held> {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let reading = format!("read Secret {namespace}/{name}");
    let creating = format!("create Secret {namespace}/{name}");
    loop {
        match call(&reading, api.get(name)).await {
            Ok(secret) => return adopt(&secret, namespace, name),
            Err(Failed::NotFound) => {}
            Err(error) => return Err(error.into_held(&reading)),
        }
        let made = ServingCa::make().map_err(|error| unusable(namespace, name, &error))?;
        match call(&creating, api.create(&post(), &secret_of(&made, name))).await {
            Ok(_) => return Ok(made),
            // Another replica was faster: adopt its CA.
            Err(Failed::Conflict) => {}
            Err(error) => return Err(error.into_held(&creating)),
        }
    }
}

/// Whether the Secret still has this CA, or none. Where it has another, this replica's leaf is of no use any more.
///
/// # Errors
/// The reason why it cannot be told.
pub async fn is_current(client: &Client, namespace: &str, name: &str, certificate: &[u8]) -> Result<bool, Held> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let reading = format!("read Secret {namespace}/{name}");
    match call(&reading, api.get(name)).await {
        Ok(secret) => Ok(secret.data.is_some_and(|data| data.get(CERTIFICATE).is_some_and(|ca| ca.0 == certificate))),
        Err(Failed::NotFound) => Ok(true),
        Err(error) => Err(error.into_held(&reading)),
    }
}

fn adopt(secret: &Secret, namespace: &str, name: &str) -> Result<ServingCa, Held> {
    let file = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.ok_or_else(|| unusable(namespace, name, &format!("it has no {key}")))?;
        String::from_utf8(bytes.0.clone())
            .map(Zeroizing::new)
            .map_err(|_| unusable(namespace, name, &format!("its {key} is not PEM")))
    };
    ServingCa::from_pem(&file(CERTIFICATE)?, &file(KEY)?).map_err(|error| unusable(namespace, name, &error))
}

fn secret_of(ca: &ServingCa, name: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [(CERTIFICATE.to_owned(), bytes(ca.certificate_pem())), (KEY.to_owned(), bytes(&ca.key_pem()))];
    Secret { metadata: metadata(name), type_: Some("Opaque".to_owned()), data: Some(data.into()), ..Secret::default() }
}

fn unusable(namespace: &str, name: &str, what: &str) -> Held {
    Held::new(
        Reason::KubernetesForbidden,
        format!(
            "Secret {namespace}/{name} cannot be used for this service's own certificate ({what}): delete it to have a new one made"
        ),
    )
}
