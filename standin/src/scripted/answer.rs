//! What is answered by a script, and how it leaves.

use std::io;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

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

    /// With neither a type nor a body.
    pub(super) fn bare(status: u16) -> Self {
        Self { headers: Vec::new(), ..Self::new(status, "", "") }
    }

    /// With another body.
    pub(super) fn with_body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
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

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn head(&self) -> Vec<u8> {
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
    pub(super) async fn write(&self, stream: &mut impl Stream) -> io::Result<bool> {
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
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
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

/// As servers tell the time.
pub fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
