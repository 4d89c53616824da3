//! The embedded server behind a script.

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::answer::{Answer, Stream};
use super::{Answerer, Request};
use crate::wire::{self, Service};

/// An embedded server, to be put behind a script. It goes on without the one that it is taken from.
pub struct Embedded {
    answer: Box<dyn Fn(wire::Request) -> BoxFuture<'static, wire::Answer> + Send + Sync>,
    /// Whoever comes has these rights.
    authorization: Option<HeaderValue>,
}

impl Embedded {
    pub(crate) fn new(service: Arc<impl Service>) -> Self {
        let answer = move |request| -> BoxFuture<'static, wire::Answer> {
            let service = Arc::clone(&service);
            Box::pin(async move { service.answer(request).await })
        };
        Self { answer: Box::new(answer), authorization: None }
    }

    /// The same, where all that is asked is asked with this header, as behind `kubectl proxy`.
    pub(crate) fn with_authorization(self, authorization: HeaderValue) -> Self {
        Self { authorization: Some(authorization), ..self }
    }

    /// Asks it in this process, and takes what it says at once; JSON, or a text.
    ///
    /// # Errors
    /// It would have to wait for somebody, as for a webhook, or its answer goes on and on.
    pub fn at_once(&self, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = self.understood(method, target, headers.into_iter().collect(), body).context("no request")?;
        let answer = (self.answer)(request).now_or_never().with_context(|| format!("{method} {target} waits"))?;
        let (parts, body) = answer.into_parts();
        let body =
            body.collect().now_or_never().context("an answer without an end")?.map_err(|error| anyhow!(error))?;
        let body = body.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok((parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| text())))
    }

    pub(super) fn answerer(self) -> Answerer {
        let embedded = Arc::new(self);
        Arc::new(move |request| {
            let embedded = Arc::clone(&embedded);
            Box::pin(async move {
                let Request { method, target, headers, body, .. } = request;
                match embedded.understood(&method, &target, headers, body) {
                    Some(request) => Said::of((embedded.answer)(request).await).await,
                    None => Said::Whole(Answer::html(400)),
                }
            })
        })
    }

    fn understood(&self, method: &str, target: &str, mut headers: HeaderMap, body: Vec<u8>) -> Option<wire::Request> {
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Some(wire::Request { method: method.parse().ok()?, uri: target.parse().ok()?, headers, body: body.into() })
    }
}

/// What is answered: as a script says, or by the server behind it.
pub(super) enum Said {
    Whole(Answer),
    /// Its head, and a body that goes on.
    Live(Answer, wire::Body),
}

impl Said {
    async fn of(answer: wire::Answer) -> Self {
        let (parts, body) = answer.into_parts();
        let mut answer = Answer::bare(parts.status.as_u16());
        for (name, value) in &parts.headers {
            answer = answer.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
        if http_body::Body::size_hint(&body).exact().is_none() {
            return Self::Live(answer.until_close(), body);
        }
        match body.collect().await {
            Ok(body) => Self::Whole(answer.with_body(body.to_bytes().into())),
            Err(_) => Self::Whole(Answer::hang_up()),
        }
    }

    /// Writes it. `false`: the connection is at its end.
    pub(super) async fn write(self, stream: &mut impl Stream) -> io::Result<bool> {
        let (head, body) = match self {
            Self::Whole(answer) => return answer.write(stream).await,
            Self::Live(answer, body) => (answer.head(), body),
        };
        stream.write_all(&head).await?;
        stream.flush().await?;
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            stream.write_all(&chunk.map_err(io::Error::other)?).await?;
            stream.flush().await?;
        }
        Ok(false)
    }
}
