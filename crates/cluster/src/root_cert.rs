//! `root-cert.pem` of a Secret or a ConfigMap, for who only compares: the key beside it is not even decoded.

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
}

/// Reads it. `None`: the object has no such key.
///
/// # Errors
/// The reason, in words that repeat nothing of the object's content.
pub async fn read(client: &Client, holder: Holder, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, Failed> {
    let doing = format!("read {} {namespace}/{name}", holder.kind());
    let plural = match holder {
        Holder::Secret => "secrets",
        Holder::ConfigMap => "configmaps",
    };
    let answer = get(client, &format!("/api/v1/namespaces/{namespace}/{plural}/{name}"), &doing).await?;
    match holder {
        Holder::Secret => root_cert::<ByteString>(&answer, &doing).map(|file| file.map(|bytes| bytes.0)),
        Holder::ConfigMap => root_cert::<String>(&answer, &doing).map(|file| file.map(String::into_bytes)),
    }
}

fn root_cert<T: DeserializeOwned>(answer: &[u8], doing: &str) -> Result<Option<T>, Failed> {
    let object: Object<T> =
        serde_json::from_slice(answer).map_err(|error| failed(doing, &kube::Error::SerdeError(error)))?;
    Ok(object.data.and_then(|data| data.root_cert))
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

    fn secret(data: &str) -> Result<Option<Vec<u8>>, Failed> {
        root_cert::<ByteString>(format!("{{\"kind\":\"Secret\",\"data\":{data}}}").as_bytes(), "read it")
            .map(|file| file.map(|bytes| bytes.0))
    }

    #[test]
    fn only_the_root_is_taken_of_a_secret() {
        assert_eq!(secret("{\"root-cert.pem\":\"YWJj\",\"ca-key.pem\":\"a2V5\"}").unwrap(), Some(b"abc".to_vec()));
        // Not even decoded: what is not a string would be an error.
        assert_eq!(secret("{\"ca-key.pem\":4711,\"root-cert.pem\":\"YWJj\"}").unwrap(), Some(b"abc".to_vec()));
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
