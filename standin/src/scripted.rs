//! An HTTP/1.1 server on loopback that does as it is told, also what no sound server would: answers that
//! are cut, slow, endless or missing. It records all that it is sent, so that a test can show what hit.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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

/// How an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Whole,
    /// So many bytes of it, then the connection ends.
    Cut(usize),
    /// So many bytes of it, then the connection is reset.
    Reset(usize),
    /// One byte in each of these intervals.
    ByteByByte(Duration),
    /// Whole, after so long.
    After(Duration),
    /// The head, and the body over and over.
    Endless,
    /// The head, and then nothing.
    Head,
    /// Nothing, and the connection stays.
    Silence,
}

/// An answer, and how it leaves.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framed: bool,
    how: How,
}

impl Answer {
    /// With this body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into(), framed: true, how: How::Whole }
    }

    /// With JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// What a proxy in between says.
    pub fn html(status: u16) -> Self {
        Self::new(status, "text/html", format!("<html><h1>{status}</h1></html>"))
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a length: the end of the connection is the end of the body.
    #[must_use]
    pub fn until_close(mut self) -> Self {
        self.framed = false;
        self
    }

    /// So many bytes of it, then the connection ends.
    #[must_use]
    pub fn cut(self, at: usize) -> Self {
        Self { how: How::Cut(at), ..self }
    }

    /// So many bytes of it, then the connection is reset.
    #[must_use]
    pub fn reset(self, at: usize) -> Self {
        Self { how: How::Reset(at), ..self }
    }

    /// A byte in each of these intervals.
    #[must_use]
    pub fn byte_by_byte(self, interval: Duration) -> Self {
        Self { how: How::ByteByByte(interval), ..self }
    }

    /// Whole, after so long.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { how: How::After(delay), ..self }
    }

    /// Its body over and over.
    #[must_use]
    pub fn endless(self) -> Self {
        Self { how: How::Endless, framed: false, ..self }
    }

    /// No answer, and the connection stays.
    pub fn silence() -> Self {
        Self { how: How::Silence, ..Self::html(200) }
    }

    /// A stream of which nothing comes.
    pub fn watch() -> Self {
        Self { how: How::Head, framed: false, ..Self::new(200, "application/json", "") }
    }

    /// The connection ends without an answer.
    pub fn hang_up() -> Self {
        Self::html(200).cut(0)
    }

    /// Its size on the wire.
    pub fn size(&self) -> usize {
        self.head().len() + self.body.len()
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name == "date") {
            head += &format!("date: {}\r\n", http_date(Timestamp::now()));
        }
        if self.framed {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// Writes it. `false`: the connection is at its end.
    async fn write(&self, stream: &mut impl Stream) -> io::Result<bool> {
        let head = self.head();
        let wire = [&head[..], &self.body].concat();
        let cut = |at: usize| &wire[..at.min(wire.len())];
        match self.how {
            How::Whole => stream.write_all(&wire).await?,
            How::Cut(at) => stream.write_all(cut(at)).await?,
            How::Reset(at) => {
                stream.write_all(cut(at)).await?;
                stream.reset()?;
            }
            How::ByteByByte(interval) => {
                let mut interval = tokio::time::interval(interval);
                for byte in &wire {
                    interval.tick().await;
                    stream.write_all(&[*byte]).await?;
                    stream.flush().await?;
                }
            }
            How::After(delay) => {
                tokio::time::sleep(delay).await;
                stream.write_all(&wire).await?;
            }
            How::Endless => {
                stream.write_all(&head).await?;
                loop {
                    stream.write_all(&self.body).await?;
                }
            }
            How::Head => {
                stream.write_all(&head).await?;
                stream.flush().await?;
                std::future::pending().await
            }
            How::Silence => std::future::pending().await,
        }
        stream.flush().await?;
        Ok(self.framed && !matches!(self.how, How::Cut(_) | How::Reset(_)))
    }
}

/// A connection that can be reset.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    fn reset(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn reset(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Stream for TlsStream<TcpStream> {
    fn reset(&self) -> io::Result<()> {
        self.get_ref().0.reset()
    }
}

type Answerer = Box<dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The server. It and its connections end on drop.
pub struct StandIn {
    address: SocketAddr,
    tls: bool,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

struct Inner {
    seen: Mutex<Vec<Request>>,
    /// Answers in place of the answerer's, by request line: the last one stays if it is kept.
    scripted: Mutex<HashMap<String, Scripted>>,
    answerer: Answerer,
}

#[derive(Default)]
struct Scripted {
    once: VecDeque<Answer>,
    always: Option<Answer>,
    /// For requests with this value of this header.
    with: Vec<(String, String, Answer)>,
}

impl Scripted {
    fn next(&mut self, request: &Request) -> Option<Answer> {
        let fits = |(name, value, _): &&(String, String, Answer)| request.header(name) == Some(value);
        let with = || self.with.iter().find(fits).map(|(_, _, answer)| answer.clone());
        self.once.pop_front().or_else(with).or_else(|| self.always.clone())
    }
}

impl StandIn {
    /// Serves plain HTTP.
    pub async fn start<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Result<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::launch(None, Box::new(move |request| Box::pin(answer(request)))).await
    }

    /// Serves HTTPS.
    pub async fn start_tls<F>(
        tls: Arc<ServerConfig>,
        answer: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::launch(Some(tls.into()), Box::new(move |request| Box::pin(answer(request)))).await
    }

    async fn launch(acceptor: Option<TlsAcceptor>, answerer: Answerer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = acceptor.is_some();
        let inner = Arc::new(Inner { seen: Mutex::default(), scripted: Mutex::default(), answerer });
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&inner)));
        Ok(Self { address, tls, inner, accepting })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The next request of this line gets this answer; several queue up.
    pub fn once(&self, line: &str, answer: Answer) {
        lock(&self.inner.scripted).entry(line.to_owned()).or_default().once.push_back(answer);
    }

    /// Every request of this line gets this answer.
    pub fn always(&self, line: &str, answer: Answer) {
        lock(&self.inner.scripted).entry(line.to_owned()).or_default().always = Some(answer);
    }

    /// Every request of this line that has this value of this header gets this answer.
    pub fn until_header(&self, line: &str, name: &str, value: &str, answer: Answer) {
        let with = (name.to_owned(), value.to_owned(), answer);
        lock(&self.inner.scripted).entry(line.to_owned()).or_default().with.push(with);
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
    async fn answer(&self, request: Request) -> Answer {
        let line = request.line();
        lock(&self.seen).push(request.clone());
        let scripted = {
            let mut scripted = lock(&self.scripted);
            scripted.get_mut(&line).and_then(|scripted| scripted.next(&request))
        };
        match scripted {
            Some(answer) => answer,
            None => (self.answerer)(request).await,
        }
    }
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

/// As servers tell the time.
pub fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
