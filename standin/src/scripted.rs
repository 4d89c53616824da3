//! An HTTP/1.1 server on loopback that does as it is told, also what no sound server would: answers that
//! are cut, slow, endless or missing. It records all that it is sent, so that a test can show what hit.
//! It may stand before an embedded server, which then answers what is not scripted.

mod answer;
mod behind;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use answer::Stream;
pub use answer::{Answer, http_date};
pub use behind::Embedded;
use behind::Said;

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Which connection it came on, counted from one.
    pub connection: usize,
}

impl Request {
    /// Method and path, without the query: what answers are scripted by.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap_or_default())
    }

    /// The same of a watch: `WATCH` and the path.
    fn watch(&self) -> Option<String> {
        let (path, query) = self.target.split_once('?')?;
        query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1").then(|| format!("WATCH {path}"))
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Vault's token, or nothing.
    pub fn token(&self) -> &str {
        self.header("x-vault-token").unwrap_or_default()
    }

    /// Its body, or null if that is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Answerer = Arc<dyn Fn(Request) -> BoxFuture<'static, Said> + Send + Sync>;

/// The server. It and its connections end on drop.
pub struct StandIn {
    address: SocketAddr,
    tls: bool,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

struct Inner {
    seen: Mutex<Vec<Request>>,
    /// The bodies of the answers so far, with the lines of their requests.
    said: Mutex<Vec<(String, Vec<u8>)>>,
    /// Answers in place of the answerer's, by request line: the last one stays if it is kept.
    scripted: Mutex<HashMap<String, Scripted>>,
    answerer: Answerer,
}

#[derive(Default)]
struct Scripted {
    once: VecDeque<Answer>,
    always: Option<Answer>,
}

impl Scripted {
    fn next(&mut self) -> Option<Answer> {
        self.once.pop_front().or_else(|| self.always.clone())
    }
}

impl StandIn {
    /// Serves plain HTTP.
    pub async fn start<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Result<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::launch(None, scripted(answer)).await
    }

    /// Serves HTTPS.
    pub async fn start_tls<F>(
        tls: Arc<ServerConfig>,
        answer: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::launch(Some(tls.into()), scripted(answer)).await
    }

    /// Serves plain HTTP before an embedded server.
    pub async fn before(embedded: Embedded) -> Result<Self> {
        Self::launch(None, embedded.answerer()).await
    }

    /// Serves HTTPS before an embedded server.
    pub async fn before_tls(tls: Arc<ServerConfig>, embedded: Embedded) -> Result<Self> {
        Self::launch(Some(tls.into()), embedded.answerer()).await
    }

    /// Another address, by plain HTTP, of what answers at this one, with a script of its own.
    pub async fn beside(&self) -> Result<Self> {
        Self::launch(None, Arc::clone(&self.inner.answerer)).await
    }

    async fn launch(acceptor: Option<TlsAcceptor>, answerer: Answerer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = acceptor.is_some();
        let inner =
            Arc::new(Inner { answerer, seen: Mutex::default(), said: Mutex::default(), scripted: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&inner)));
        Ok(Self { address, tls, inner, accepting })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The next request of this line gets this answer; several queue up. A watch has a line of its own as well, `WATCH`
    /// and the path, which is looked at first.
    pub fn once(&self, line: &str, answer: Answer) {
        lock(&self.inner.scripted).entry(line.to_owned()).or_default().once.push_back(answer);
    }

    /// Every request of this line gets this answer.
    pub fn always(&self, line: &str, answer: Answer) {
        lock(&self.inner.scripted).entry(line.to_owned()).or_default().always = Some(answer);
    }

    /// Nothing is scripted for this line any more.
    pub fn forget(&self, line: &str) {
        lock(&self.inner.scripted).remove(line);
    }

    /// How many answers of `once` wait for their request.
    pub fn waiting(&self) -> usize {
        lock(&self.inner.scripted).values().map(|scripted| scripted.once.len()).sum()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.inner.seen).clone()
    }

    /// The lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    /// The requests of this line.
    pub fn of(&self, line: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.line() == line).collect()
    }

    /// The bodies of all answers to requests of this line; null for one that is no JSON. One that goes on and on is none.
    pub fn answers(&self, line: &str) -> Vec<Value> {
        let said = lock(&self.inner.said);
        let of = said.iter().filter(|(other, _)| other == line);
        of.map(|(_, body)| serde_json::from_slice(body).unwrap_or_default()).collect()
    }

    /// How many requests of this line there were.
    pub fn count(&self, line: &str) -> usize {
        self.of(line).len()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Inner {
    async fn answer(&self, request: Request) -> Said {
        let line = request.line();
        lock(&self.seen).push(request.clone());
        let scripted = {
            let mut scripted = lock(&self.scripted);
            let mut next = |line: &str| scripted.get_mut(line).and_then(Scripted::next);
            request.watch().and_then(|watch| next(&watch)).or_else(|| next(&line))
        };
        let said = match scripted {
            Some(answer) => Said::Whole(answer),
            None => (self.answerer)(request).await,
        };
        if let Said::Whole(answer) = &said {
            lock(&self.said).push((line, answer.body().to_vec()));
        }
        said
    }
}

fn scripted<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Answerer
where
    F: Future<Output = Answer> + Send + 'static,
{
    Arc::new(move |request| {
        let answer = answer(request);
        Box::pin(async move { Said::Whole(answer.await) })
    })
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, inner: Arc<Inner>) {
    // Dropped with this task, it ends the connections.
    let mut connections = JoinSet::new();
    let mut count = 0;
    while let Ok((stream, _)) = listener.accept().await {
        count += 1;
        let (acceptor, inner) = (acceptor.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            // How a client leaves is its own affair; what it asked is recorded.
            let _ = match acceptor {
                None => converse(stream, count, &inner).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => converse(stream, count, &inner).await,
                    Err(error) => Err(error.into()),
                },
            };
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: impl Stream, connection: usize, inner: &Inner) -> Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, connection).await? {
        let answer = inner.answer(request).await;
        if !answer.write(stream.get_mut()).await? {
            break;
        }
    }
    Ok(())
}

/// Reads a request, as far as the clients of these tests vary it.
async fn read(stream: &mut BufReader<impl Stream>, connection: usize) -> Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().context("no method")?, words.next().context("no target")?);
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.append(name.parse::<HeaderName>()?, value.trim().parse::<HeaderValue>()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { method, target, headers, body, connection }))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
