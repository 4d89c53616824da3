//! `root-cert.pem` of a Secret or a ConfigMap, and what signs beneath it, for who only compares: the key beside them is
//! not even decoded.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Failed, failed, unreachable_api};

/// Largest answer that is read. A Secret or ConfigMap has up to 1 MiB of data, which base64 makes
/// 1.4, and up to 256 KiB of annotations.
const ANSWER_MAX: usize = 2 << 20;

/// What has a `root-cert.pem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// `cacerts`.
    Secret,
    /// `istio-ca-root-cert`, in which istiod tells what it serves.
    ConfigMap,
}

impl Holder {
    /// Its kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

#[derive(Deserialize)]
struct Object<T> {
    data: Option<Data<T>>,
}

#[derive(Deserialize)]
struct Data<T> {
    #[serde(rename = "root-cert.pem")]
    root_cert: Option<T>,
    #[serde(rename = "ca-cert.pem")]
    ca_cert: Option<T>,
}

/// What is public of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFiles {
    /// `root-cert.pem`.
    pub root_cert: Vec<u8>,
    /// `ca-cert.pem`, which only a Secret has.
    pub ca_cert: Option<Vec<u8>>,
}

/// Reads them. `None`: the object has no `root-cert.pem`.
///
/// # Errors
/// The reason, in words that repeat nothing of the object's content.
pub async fn read(client: &Client, holder: Holder, namespace: &str, name: &str) -> Result<Option<PublicFiles>, Failed> {
    let doing = format!("read {} {namespace}/{name}", holder.kind());
    let plural = match holder {
        Holder::Secret => "secrets",
        Holder::ConfigMap => "configmaps",
    };
    let answer = get(client, &format!("/api/v1/namespaces/{namespace}/{plural}/{name}"), &doing).await?;
    match holder {
        Holder::Secret => public_files(&answer, &doing, |bytes: ByteString| bytes.0),
        Holder::ConfigMap => public_files(&answer, &doing, String::into_bytes),
    }
}

fn public_files<T: DeserializeOwned>(
    answer: &[u8],
    doing: &str,
    bytes: impl Fn(T) -> Vec<u8>,
) -> Result<Option<PublicFiles>, Failed> {
    let object: Object<T> =
        serde_json::from_slice(answer).map_err(|error| failed(doing, &kube::Error::SerdeError(error)))?;
    let Some(Data { root_cert: Some(root_cert), ca_cert }) = object.data else { return Ok(None) };
    Ok(Some(PublicFiles { root_cert: bytes(root_cert), ca_cert: ca_cert.map(bytes) }))
}

async fn get(client: &Client, path: &str, doing: &str) -> Result<bytes::Bytes, Failed> {
    let request =
        Request::get(path).body(Body::empty()).map_err(|error| failed(doing, &kube::Error::HttpError(error)))?;
    let answer = client.send(request).await.map_err(|error| failed(doing, &error))?;
    let code = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| match error.downcast::<kube::Error>() {
        Ok(error) => failed(doing, &error),
        Err(error) if error.is::<LengthLimitError>() => {
            Failed::Held(unreachable_api(doing, &format!("its answer is larger than {ANSWER_MAX} bytes")))
        }
        Err(error) => failed(doing, &kube::Error::Service(error)),
    })?;
    let body = body.to_bytes();
    if code == StatusCode::OK {
        return Ok(body);
    }
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    Err(failed(doing, &kube::Error::Api(status.with_code(code.as_u16()).boxed())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn secret(data: &str) -> Result<Option<PublicFiles>, Failed> {
        let answer = format!("{{\"kind\":\"Secret\",\"data\":{data}}}");
        public_files(answer.as_bytes(), "read it", |bytes: ByteString| bytes.0)
    }

    #[test]
    fn only_what_is_public_is_taken_of_a_secret() {
        let root = |ca_cert: Option<&[u8]>| {
            Some(PublicFiles { root_cert: b"abc".to_vec(), ca_cert: ca_cert.map(<[u8]>::to_vec) })
        };
        assert_eq!(secret("{\"root-cert.pem\":\"YWJj\",\"ca-key.pem\":\"a2V5\"}").unwrap(), root(None));
        // Not even decoded: what is not a string would be an error.
        let signer = "{\"ca-key.pem\":4711,\"root-cert.pem\":\"YWJj\",\"ca-cert.pem\":\"ZGVm\"}";
        assert_eq!(secret(signer).unwrap(), root(Some(b"def")));
    }

    #[test]
    fn a_secret_without_a_root_has_none() {
        for data in ["null", "{}", "{\"ca-key.pem\":\"a2V5\"}"] {
            assert_eq!(secret(data).unwrap(), None, "{data}");
        }
    }

    #[test]
    fn a_secret_that_does_not_parse_is_not_shown() {
        for data in ["\"4711\"", "{\"root-cert.pem\":4711}", "{\"ca-key.pem\":\"4711"] {
            let Failed::Held(held) = secret(data).unwrap_err() else { panic!("{data}") };
            assert!(!held.sentence().contains("4711"), "{}", held.sentence());
        }
    }
}
