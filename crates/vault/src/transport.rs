//! The HTTP client under vaultrs' endpoints, with what its own client leaves out: a cap on answers,
//! no redirects (reqwest drops Authorization on a foreign host, but not `X-Vault-Token`), the status
//! and `Retry-After` of refusals, and no copy of an answer in an error.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header::{CONNECTION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use jiff::Timestamp;
use reqwest::tls::TlsInfo;
use rustify::Endpoint;
use rustify::errors::ClientError;
use vaultrs::api::EndpointMiddleware;
use zeroize::Zeroizing;

use super::VaultRequests;
use gate_core::reason::innermost;
use gate_core::skew;

/// Connecting may take so long, then the next address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest that Vault's `Retry-After` is heeded: whatever it says, a healed Vault is noticed within this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Largest answer that is read. A record holds at most 330 kB of PEM.
const ANSWER_MAX: usize = 2 << 20;

/// A connection on which a node has told how it is rests so long, until that node is asked more.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// One address of Vault.
pub(super) struct Transport {
    address: String,
    /// A connection for each request.
    http: reqwest::Client,
    /// Keeps one connection: behind one address there may be several nodes, and what one says of itself holds for
    /// what the same one says next.
    kept: reqwest::Client,
    /// Where requests are counted, if anywhere.
    pub(super) counted: Option<VaultRequests>,
}

/// An answer of Vault's, whatever its status.
pub(super) struct Reply {
    /// Who answered.
    pub(super) address: String,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The time there, where it tells.
    pub(super) date: Option<Timestamp>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The DER of the certificate that it showed, where there is TLS.
    pub(super) certificate: Option<Vec<u8>>,
}

/// No answer, in words that name no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer {
    pub(super) what: String,
    /// No connection came about, or no TLS on it.
    pub(super) connecting: bool,
}

impl NoAnswer {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self { what: error.to_string(), connecting: false }
    }
}

impl Transport {
    /// A client for one address that trusts the given PEM bundle, or else the system's roots.
    pub(super) fn new(address: &url::Url, ca: Option<&[u8]>, timeout: Duration) -> Result<Self, String> {
        let http = Self::client(address, ca, timeout, 0)?;
        let kept = Self::client(address, ca, timeout, 1)?;
        Ok(Self { address: address.as_str().trim_end_matches('/').to_owned(), http, kept, counted: None })
    }

    fn client(
        address: &url::Url,
        ca: Option<&[u8]>,
        timeout: Duration,
        resting: usize,
    ) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment would see what goes to an http:// address.
            .no_proxy()
            .tls_info(true)
            // The buffers of a connection that is kept keep what came over it: never the CA's key.
            .pool_max_idle_per_host(resting)
            .pool_idle_timeout(KEPT_FOR)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout);
        if let Some(pem) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| innermost(&e))?;
            if certificates.is_empty() {
                return Err("no certificate in it".to_owned());
            }
            builder = builder.tls_certs_only(certificates);
        } else if address.scheme() == "http" {
            // Without it the system's roots are loaded, and their absence is an error.
            builder = builder.tls_certs_only(Vec::new());
        }
        builder.build().map_err(|e| innermost(&e))
    }

    /// The address, as configured.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one request on a connection of its own.
    pub(super) async fn call<E: Endpoint>(
        &self,
        endpoint: E,
        middleware: &EndpointMiddleware,
    ) -> Result<Reply, NoAnswer> {
        self.on(Line::new(self, &self.http), endpoint, middleware).await
    }

    /// The same for what takes Vault longer than others are waited for.
    pub(super) async fn call_within<E: Endpoint>(
        &self,
        patience: Duration,
        endpoint: E,
        middleware: &EndpointMiddleware,
    ) -> Result<Reply, NoAnswer> {
        let line = Line { patience: Some(patience), ..Line::new(self, &self.http) };
        self.on(line, endpoint, middleware).await
    }

    /// Sends one request that tells nothing secret, and keeps its connection for the next of these.
    pub(super) async fn call_first<E: Endpoint>(
        &self,
        endpoint: E,
        middleware: &EndpointMiddleware,
    ) -> Result<Reply, NoAnswer> {
        self.on(Line::new(self, &self.kept), endpoint, middleware).await
    }

    /// Sends one request on the connection of the first, which ends with its answer.
    pub(super) async fn call_last<E: Endpoint>(
        &self,
        endpoint: E,
        middleware: &EndpointMiddleware,
    ) -> Result<Reply, NoAnswer> {
        self.on(Line { last: true, ..Line::new(self, &self.kept) }, endpoint, middleware).await
    }

    async fn on<E: Endpoint>(
        &self,
        line: Line<'_>,
        endpoint: E,
        middleware: &EndpointMiddleware,
    ) -> Result<Reply, NoAnswer> {
        let result = endpoint.with_middleware(middleware).exec(&line).await.map_err(no_answer)?;
        let (parts, body) = result.response.into_parts();
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        let certificate = parts.extensions.get::<TlsInfo>().and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        Ok(Reply {
            certificate,
            address: self.address.clone(),
            status: parts.status.as_u16(),
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
            date: header(DATE).and_then(skew::http_date),
            body: Zeroizing::new(body),
        })
    }
}

/// One request's way to an address.
struct Line<'a> {
    transport: &'a Transport,
    http: &'a reqwest::Client,
    /// The connection ends with the answer.
    last: bool,
    /// Longest wait for it, if it is not that of all others.
    patience: Option<Duration>,
}

impl<'a> Line<'a> {
    fn new(transport: &'a Transport, http: &'a reqwest::Client) -> Self {
        Self { transport, http, last: false, patience: None }
    }
}

#[async_trait]
impl rustify::client::Client for Line<'_> {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let operation = operation(request.method(), request.uri().path());
        let began = Instant::now();
        let answer = self.answer(request).await;
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        tracing::debug!(operation, status, seconds = began.elapsed().as_secs_f64(), "asked Vault");
        if let Some(counted) = &self.transport.counted {
            counted.ended(operation, status);
        }
        answer
    }

    fn base(&self) -> &str {
        &self.transport.address
    }

    /// Unlike the provided method, a refusal is an answer here, and stays whole.
    async fn execute(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        self.send(request).await
    }
}

/// What a request asks for, for metrics: paths would be too many.
fn operation(method: &Method, path: &str) -> &'static str {
    match path.strip_prefix("/v1/").unwrap_or_default() {
        path if path.starts_with("auth/token/revoke") => "logout",
        path if path.starts_with("auth/") => "login",
        path if path.starts_with("sys/health") => "health",
        path if path.starts_with("sys/") => "mount",
        path if path.ends_with("/sign-intermediate") => "sign",
        _ if method == Method::GET => "read",
        _ => "write",
    }
}

impl Line<'_> {
    async fn answer(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let mut request =
            reqwest::Request::try_from(request).map_err(|source| ClientError::ReqwestBuildError { source })?;
        if let Some(patience) = self.patience {
            *request.timeout_mut() = Some(patience);
        }
        if request.method() == Method::PATCH {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
        }
        if self.last {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let failed = |e: &reqwest::Error| ClientError::ResponseError {
            source: Failed(NoAnswer { what: without_url(e), connecting: e.is_connect() }).into(),
        };
        let mut answer = self.http.execute(request).await.map_err(|e| failed(&e))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| failed(&e))? {
            if body.len() + chunk.len() > ANSWER_MAX {
                let too_large = Failed(NoAnswer::of(format_args!("its answer is larger than {ANSWER_MAX} bytes")));
                return Err(ClientError::ResponseError { source: too_large.into() });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        if let Some(tls) = answer.extensions_mut().remove::<TlsInfo>() {
            response.extensions_mut().insert(tls);
        }
        Ok(response)
    }
}

/// Carries words through rustify's error.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.what)]
struct Failed(NoAnswer);

fn no_answer(error: ClientError) -> NoAnswer {
    match error {
        ClientError::ResponseError { source } => match source.downcast::<Failed>() {
            Ok(Failed(no_answer)) => no_answer,
            Err(other) => NoAnswer::of(other),
        },
        // Everything else is about building the request; its Display names no content.
        other => NoAnswer::of(other),
    }
}

/// What happened, without the URL that reqwest puts in front.
fn without_url(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        let what = if error.is_connect() { "connecting" } else { "its answer" };
        return format!("{what} took too long");
    }
    innermost(error)
}
