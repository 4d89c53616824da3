//! A network before a server that knows what passes it, and ends the process that asks before or after a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use reqwest::{Certificate, Client};
use tokio::task::AbortHandle;

/// More than any body here.
const BODY_MAX: usize = 8 << 20;

/// Where the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Server, method and path.
    pub line: String,
    /// The how-manieth of these.
    pub nth: usize,
    /// Whether the server has done it by then.
    pub after: bool,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, nth, after } = self;
        write!(f, "{} {line}, {nth}", if *after { "after" } else { "before" })
    }
}

type End = Box<dyn FnOnce() + Send>;

/// What has passed, and what is to happen.
#[derive(Default)]
pub struct Tap(Mutex<Tapped>);

#[derive(Default)]
struct Tapped {
    seen: Vec<String>,
    armed: Option<(Point, End)>,
    fired: usize,
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, Tapped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what has passed. The next one at this point ends the process.
    pub fn arm(&self, point: Point, end: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        state.seen.clear();
        state.armed = Some((point, Box::new(end)));
    }

    /// Forgets what has passed, and ends nothing.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.seen.clear();
        state.armed = None;
    }

    /// What has passed.
    pub fn seen(&self) -> Vec<String> {
        self.state().seen.clone()
    }

    /// How often a process was ended.
    pub fn fired(&self) -> usize {
        self.state().fired
    }

    /// What ends the process, if it is at this request.
    fn pass(&self, line: &str) -> Option<(bool, End)> {
        let mut state = self.state();
        state.seen.push(line.to_owned());
        let times = state.seen.iter().filter(|seen| *seen == line).count();
        let is_here = |(point, _): &mut (Point, End)| point.line == line && point.nth == times;
        let (point, end) = state.armed.take_if(is_here)?;
        state.fired += 1;
        Some((point.after, end))
    }
}

/// One server behind it. It ends on drop.
pub struct Bridge {
    pub address: SocketAddr,
    serving: AbortHandle,
}

struct Way {
    name: &'static str,
    to: String,
    client: Client,
    tap: Arc<Tap>,
}

impl Bridge {
    /// Plain HTTP to a server with this CA.
    pub async fn start(name: &'static str, to: &str, ca_pem: &str, tap: &Arc<Tap>) -> Result<Self> {
        let client =
            Client::builder().tls_certs_only([Certificate::from_pem(ca_pem.as_bytes())?]).no_proxy().build()?;
        let way = Arc::new(Way { name, to: to.to_owned(), client, tap: Arc::clone(tap) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = Router::new().fallback(cross).with_state(way);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, serving: serving.abort_handle() })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn cross(State(way): State<Arc<Way>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
    let method = if watches { "WATCH".to_owned() } else { request.method().to_string() };
    let end = way.tap.pass(&format!("{} {method} {path}", way.name));
    let Some((after, end)) = end else { return way.forward(request).await };
    if after {
        let answer = way.forward(request).await;
        // Whole, so that the server has done all of it.
        let _ = to_bytes(answer.into_body(), BODY_MAX).await;
    }
    // It reaps the process, which takes a moment.
    let _ = tokio::task::spawn_blocking(end).await;
    StatusCode::BAD_GATEWAY.into_response()
}

impl Way {
    async fn forward(&self, request: Request) -> Response {
        self.ask(request).await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response())
    }

    async fn ask(&self, request: Request) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut headers = parts.headers;
        for own in ["host", "content-length", "connection"] {
            headers.remove(own);
        }
        let body = to_bytes(body, BODY_MAX).await?;
        let onward = self.client.request(parts.method, format!("{}{target}", self.to)).headers(headers).body(body);
        let answer = onward.send().await?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if !["transfer-encoding", "connection"].contains(&name.as_str()) {
                response = response.header(name, value);
            }
        }
        Ok(response.body(Body::from_stream(answer.bytes_stream()))?)
    }
}
