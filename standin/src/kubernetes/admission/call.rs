//! Posts a review to a webhook, and says in the words of Go's HTTP client and client-go what went wrong.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::kubernetes::object::meta;

/// `maxRetries` in `k8s.io/client-go/rest/request.go`.
const RETRIES_MAX: usize = 10;

/// `maxUnstructuredResponseTextBytes` there.
const TEXT_MAX: usize = 2048;

/// Where a webhook is, and whom it has to be.
struct Endpoint {
    /// As errors show it.
    url: String,
    target: String,
    host: String,
    port: u16,
    tls: TlsConnector,
}

/// An answer, read to its end.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Posts a review, and again as long as the webhook asks for it, until the time is over.
///
/// # Errors
/// The reason why the call failed.
pub(super) async fn post(
    client_config: &Value,
    services: &[Value],
    seconds: u64,
    review: &Value,
) -> Result<Bytes, String> {
    let endpoint = Endpoint::of(client_config, services, seconds)?;
    let body = Bytes::from(review.to_string());
    let failed = |why: String| format!("failed to call webhook: Post {:?}: {why}", endpoint.url);
    let tries = async {
        let mut tries = 0;
        loop {
            let answered = endpoint.post(body.clone()).await?;
            match retry_after(&answered).filter(|_| tries < RETRIES_MAX) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(answered),
            }
            tries += 1;
        }
    };
    match tokio::time::timeout(Duration::from_secs(seconds), tries).await {
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
        Ok(Err(Failure::Transport(why))) => Err(failed(why)),
        Ok(Err(Failure::Body)) => {
            let why = "unexpected error when reading response body. Please retry. Original error: unexpected EOF";
            Err(format!("failed to call webhook: {why}"))
        }
        Ok(Ok(answered)) => body_of(answered).map_err(|why| format!("failed to call webhook: {why}")),
    }
}

/// How a connection fails.
enum Failure {
    Transport(String),
    /// In the midst of the answer's body.
    Body,
}

impl Endpoint {
    fn of(client_config: &Value, services: &[Value], seconds: u64) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let query = format!("?timeout={seconds}s");
        if client_config["service"].is_object() {
            return Err(unserved(&client_config["service"], services, &query));
        }
        let url = text(&client_config["url"]);
        let uri: Uri = url.parse().map_err(|error| format!("could not get REST client: {error}"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = trusting(client_config["caBundle"].as_str().unwrap_or_default())
            .map_err(|why| format!("could not get REST client: {why}"))?;
        let path = uri.path();
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        Ok(Self {
            url: format!("https://{authority}{path}{query}"),
            target: format!("{path}{query}"),
            host,
            port: uri.port_u16().unwrap_or(443),
            tls,
        })
    }

    async fn post(&self, body: Bytes) -> Result<Answered, Failure> {
        let stream = self.connect().await.map_err(Failure::Transport)?;
        let broken = |error: hyper::Error| Failure::Transport(broken(&error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the sender.
        tokio::spawn(connection);
        let request = Request::post(&self.target)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::Transport(error.to_string()))?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Body)?.to_bytes();
        Ok(Answered { status: parts.status, headers: parts.headers, body })
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let lost = || format!("dial tcp: lookup {}: no such host", self.host);
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await.map_err(|_| lost())?.collect();
        let first = addresses.first().ok_or_else(lost)?;
        let refused = |error: io::Error| format!("dial tcp {first}: connect: {}", go_text(&error));
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(refused)?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        self.tls.connect(name, stream).await.map_err(|error| untrusted(&error))
    }
}

/// Why a webhook behind a Service cannot be called: there are no nodes here, so no Service has endpoints.
/// `k8s.io/kube-aggregator/pkg/apiserver/resolvers.go`
fn unserved(behind: &Value, services: &[Value], query: &str) -> String {
    let text = |field: &str| behind[field].as_str().unwrap_or_default();
    let (name, namespace) = (text("name"), text("namespace"));
    let path = if text("path").is_empty() { "/" } else { text("path") };
    let port = behind["port"].as_u64().unwrap_or(443);
    let named = |service: &&Value| meta(service, "name") == name && meta(service, "namespace") == namespace;
    let has_port = |service: &Value| {
        service["spec"]["ports"].as_array().into_iter().flatten().any(|served| served["port"] == port)
    };
    let why = match services.iter().find(named) {
        None => format!("service {name:?} not found"),
        Some(service) if !has_port(service) => format!("no service port {port} found for service {name:?}"),
        Some(_) => format!("no endpoints available for service {name:?}"),
    };
    format!("failed to call webhook: Post \"https://{name}.{namespace}.svc:{port}{path}{query}\": {why}")
}

/// TLS that trusts these CAs only. Without any, the real one trusts those of its system, which know no webhook.
fn trusting(ca_bundle: &str) -> Result<TlsConnector, String> {
    let unread = || "unable to load root certificates: unable to parse bytes as PEM block".to_owned();
    let mut roots = RootCertStore::empty();
    if !ca_bundle.is_empty() {
        let pem = STANDARD.decode(ca_bundle).map_err(|_| unread())?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        roots.add_parsable_certificates(certificates.map_err(|_| unread())?);
        if roots.is_empty() {
            return Err(unread());
        }
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn retry_after(answered: &Answered) -> Option<Duration> {
    if answered.status != StatusCode::TOO_MANY_REQUESTS && !answered.status.is_server_error() {
        return None;
    }
    let seconds = answered.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The body of an answer of success; of another, the error that client-go makes of it.
fn body_of(answered: Answered) -> Result<Bytes, String> {
    let Answered { status, headers, body } = answered;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !(200..=206).contains(&status.as_u16()) {
        let told = serde_json::from_slice::<Value>(&body).ok().filter(|told| told["kind"] == "Status");
        return Err(match told.as_ref().and_then(|told| told["message"].as_str()) {
            Some(message) => message.to_owned(),
            None => unstructured(status.as_u16(), content_type, &body),
        });
    }
    if body.is_empty() {
        let content_type = content_type.unwrap_or_default();
        return Err(format!(
            "0-length response with status code: {} and content type: {content_type}",
            status.as_u16()
        ));
    }
    Ok(body)
}

/// `NewGenericServerResponse` in `k8s.io/apimachinery/pkg/api/errors`.
fn unstructured(status: u16, content_type: Option<&str>, body: &[u8]) -> String {
    let told = String::from_utf8_lossy(&body[..body.len().min(TEXT_MAX)]);
    let is_text = content_type.is_none_or(|content_type| content_type.starts_with("text/"));
    let told = if is_text { told.trim() } else { "unknown" };
    let text = match status {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 | 415 => told,
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 if told.is_empty() || told == "unknown" => {
            "the server was unable to respond with a content type that the client supports"
        }
        406 => told,
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => concat!(
            "the server was unable to return a response in the time allotted, ",
            "but may still be processing the request"
        ),
        500.. => return format!("an error on the server ({}) has prevented the request from succeeding", quoted(told)),
        _ => return format!("the server responded with the status code {status} but did not return more information"),
    };
    text.to_owned()
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(quoted, "\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn broken(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match cause {
        Some(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => format!("read: {}", go_text(cause)),
        _ => "EOF".to_owned(),
    }
}

fn go_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

/// What Go's `crypto/x509` says where rustls does not trust a server.
fn untrusted(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = cause else { return go_text(error) };
    let why = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().filter_map(|name| name.split('"').nth(1)).collect();
            format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str())
        }
        CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
            "certificate has expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_status_object_is_told_by_its_code() {
        assert_eq!(unstructured(403, Some("text/plain"), b" no \n"), "no");
        assert_eq!(unstructured(403, Some("application/json"), b"{}"), "unknown");
        let text = "an error on the server (\"a \\\"b\\\"\\nc\") has prevented the request from succeeding";
        assert_eq!(unstructured(502, None, b"a \"b\"\nc"), text);
        assert!(unstructured(302, None, b"").contains("status code 302"));
    }

    #[test]
    fn a_bundle_without_certificates_is_told() {
        let bundle = STANDARD.encode("no certificate");
        assert!(trusting(&bundle).is_err_and(|why| why.contains("unable to parse bytes as PEM block")));
    }
}
