//! HTTP/1.1 over TLS on a port of 127.0.0.1, with faults on demand.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, Response, Uri, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use testbed::{Authority, Port};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::faults::{Fault, Faults};
use crate::journal::Journal;

/// Larger requests are refused, as both real servers do at some size.
const BODY_MAX: usize = 4 << 20;

/// Between two bytes of an answer that comes byte by byte.
const DRIP: Duration = Duration::from_millis(20);

/// How often a port that another program took meanwhile is tried again.
const BIND_PAUSE: Duration = Duration::from_millis(20);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An answer.
pub type Answer = Response<Body>;

/// A request, read to its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// The path's segments, decoded; none is empty.
    pub fn segments(&self) -> Vec<String> {
        let segments = self.uri.path().split('/').filter(|segment| !segment.is_empty());
        segments.map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect()
    }

    /// The decoded value of a query parameter.
    pub fn query(&self, name: &str) -> Option<String> {
        let pairs = self.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
        Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a server of this crate does.
pub trait Service: Send + Sync + 'static {
    /// Acts on a request.
    fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send;

    /// The server's own words for a fault that it only pretends: [`Fault::Status`] or [`Fault::Sealed`].
    fn pretend(&self, request: &Request, fault: Fault) -> Answer;
}

/// A JSON answer.
pub fn json(status: u16, value: &Value) -> Answer {
    text(status, "application/json", value.to_string())
}

/// An answer of text.
pub fn text(status: u16, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status.try_into().unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer without a body.
pub fn empty(status: u16) -> Answer {
    let mut answer = text(status, "application/json", Bytes::new());
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}

/// An answer that goes on until the stream ends.
pub fn stream(content_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let frames = futures::StreamExt::map(chunks, |chunk| Ok(Frame::data(chunk)));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A running server. It and its connections end on drop.
#[derive(Debug)]
pub struct Server {
    url: String,
    ca_pem: String,
    faults: Arc<Faults>,
    journal: Arc<Journal>,
    serving: JoinHandle<()>,
    _port: Port,
}

impl Server {
    /// Starts it on a free port, with a certificate by a CA of its own.
    pub async fn start(name: &str, service: Arc<impl Service>) -> Result<Self> {
        let authority = Authority::new(&format!("CA of {name}"))?;
        let identity = authority.issue(&["127.0.0.1", "localhost"])?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
        let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];

        let port = Port::reserve()?;
        let number = port.number();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).await?;
        let (faults, journal) = (Arc::new(Faults::of_port(number)), Arc::<Journal>::default());
        let shared =
            Shared { tls: Arc::new(tls).into(), service, faults: Arc::clone(&faults), journal: Arc::clone(&journal) };
        // Before anybody can switch anything.
        let refused = faults.refused();
        Ok(Self {
            url: format!("https://127.0.0.1:{number}"),
            ca_pem: authority.certificate_pem().to_owned(),
            faults,
            journal,
            serving: tokio::spawn(serve(listener, number, shared, refused)),
            _port: port,
        })
    }

    /// `https://127.0.0.1:<port>`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What it was asked and did.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Shared<S> {
    tls: TlsAcceptor,
    service: Arc<S>,
    faults: Arc<Faults>,
    journal: Arc<Journal>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            tls: self.tls.clone(),
            service: Arc::clone(&self.service),
            faults: Arc::clone(&self.faults),
            journal: Arc::clone(&self.journal),
        }
    }
}

impl<S: Service> Shared<S> {
    /// Acts on a request, and keeps what the journal wants.
    async fn act(&self, request: Request) -> Answer {
        let kept = self.journal.wants(&request).then(|| request.clone());
        let answer = self.service.answer(request).await;
        let Some(request) = kept else { return answer };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        self.journal.add(request, parts.status.as_u16(), body.clone());
        Response::from_parts(parts, Full::new(body).map_err(|never| match never {}).boxed_unsync())
    }
}

async fn serve<S: Service>(listener: TcpListener, port: u16, shared: Shared<S>, mut refused: watch::Receiver<bool>) {
    let mut listener = Some(listener);
    // Dropped with this task, it ends the connections.
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => if let Ok((stream, _)) = accepted {
                connections.spawn(converse(stream, shared.clone()));
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            changed = refused.changed() => {
                if changed.is_err() {
                    return;
                }
                if *refused.borrow_and_update() {
                    drop(listener.take());
                    connections.shutdown().await;
                    shared.faults.refusing();
                } else if listener.is_none() {
                    listener = Some(match shared.faults.reopened() {
                        Some(listener) => listener,
                        None => bind(port).await,
                    });
                }
            }
        }
    }
}

/// The port is reserved, but only among programs that know of it.
async fn bind(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(BIND_PAUSE).await,
        }
    }
}

/// How a client leaves is its own affair, so no error of a connection is kept.
async fn converse<S: Service>(stream: TcpStream, shared: Shared<S>) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = shared.tls.accept(stream).await else { return };
    let answer = service_fn(|request| answer(request, &shared));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

/// An error here ends the connection without an answer.
async fn answer<S: Service>(request: http::Request<hyper::body::Incoming>, shared: &Shared<S>) -> Result<Answer> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        return Ok(text(413, "text/plain", "request body too large"));
    };
    let request = Request { method: parts.method, uri: parts.uri, headers: parts.headers, body: body.to_bytes() };
    match shared.faults.of(&request) {
        None => Ok(shared.act(request).await),
        Some(fault @ (Fault::Status(_) | Fault::Sealed)) => Ok(shared.service.pretend(&request, fault)),
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Refused | Fault::RequestLost) => anyhow::bail!("lost"),
        Some(Fault::AnswerLost) => {
            shared.act(request).await;
            anyhow::bail!("lost")
        }
        Some(Fault::Late(by)) => {
            let shared = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                shared.act(request).await;
            });
            anyhow::bail!("lost")
        }
        Some(Fault::Html(status)) => Ok(text(status, "text/html", format!("<html><h1>{status}</h1></html>"))),
        Some(Fault::Slow(by)) => {
            let answer = shared.act(request).await;
            tokio::time::sleep(by).await;
            Ok(answer)
        }
        Some(Fault::ByteByByte) => Ok(shared.act(request).await.map(|body| mangled(body, Mangle::Drip))),
        Some(Fault::Endless) => Ok(shared.act(request).await.map(|body| mangled(body, Mangle::Repeat))),
        Some(Fault::Cut) => Ok(shared.act(request).await.map(|body| mangled(body, Mangle::Cut))),
    }
}

#[derive(Clone, Copy)]
enum Mangle {
    Drip,
    Cut,
    Repeat,
}

/// Keeps the length that the whole body would have had, so that a cut shows.
fn mangled(body: Body, mangle: Mangle) -> Body {
    let length = http_body::Body::size_hint(&body).exact().filter(|_| !matches!(mangle, Mangle::Repeat));
    let pieces = body.into_data_stream().map_ok(move |chunk| -> Pieces {
        match mangle {
            Mangle::Drip => {
                let bytes = (0..chunk.len()).map(move |at| chunk.slice(at..=at));
                Box::pin(futures::stream::unfold(bytes, |mut bytes| async {
                    let byte = bytes.next()?;
                    tokio::time::sleep(DRIP).await;
                    Some((Ok(byte), bytes))
                }))
            }
            Mangle::Repeat => Box::pin(futures::stream::repeat_with(move || Ok(chunk.clone()))),
            Mangle::Cut => {
                let half = chunk.slice(..chunk.len() / 2);
                Box::pin(futures::stream::iter([Ok(half), Err(BoxError::from("cut"))]))
            }
        }
    });
    Framed { inner: StreamBody::new(pieces.try_flatten().map_ok(Frame::data)).boxed_unsync(), length }.boxed_unsync()
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// A body with the length that it claims to have.
struct Framed {
    inner: Body,
    length: Option<u64>,
}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length.map(http_body::SizeHint::with_exact).unwrap_or_default()
    }
}

/// A number of bytes as random as the crypto library makes them, in hex.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut random).ok().context("no randomness")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::faults::Aim;

    struct Hello;

    impl Service for Hello {
        async fn answer(&self, _request: Request) -> Answer {
            text(200, "text/plain", "hello")
        }

        fn pretend(&self, _request: &Request, _fault: Fault) -> Answer {
            text(500, "text/plain", "")
        }
    }

    #[tokio::test]
    async fn from_the_moment_on_at_which_refused_ends_somebody_listens() {
        let server = Server::start("hello", Arc::new(Hello)).await.unwrap();
        let address = server.url().trim_start_matches("https://").to_owned();
        for _ in 0..20 {
            let switch = server.faults().inject(Fault::Refused, Aim::all());
            while switch.hits() == 0 {
                tokio::task::yield_now().await;
            }
            assert!(std::net::TcpStream::connect(&address).is_err());
            server.faults().heal();
            // The server has not run since.
            std::net::TcpStream::connect(&address).unwrap();
        }
    }
}
