//! Callers, as an API server is one: HTTP/1.1 over TLS 1.3, kept alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::trust;
use crate::servers::Server;

pub struct Connection {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16, ca: &str) -> Result<Self> {
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(trust(ca)?)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { stream: connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?, read: Vec::new() })
    }

    /// Posts a review, which has to be let in.
    pub async fn post(&mut self, path: &str, review: &str) -> Result<()> {
        self.send(request(path, review).as_bytes()).await
    }

    /// The same of a whole request.
    pub async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.read.clear();
        let (end, length) = loop {
            ensure!(self.stream.read_buf(&mut self.read).await? > 0, "it ended");
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.read[..end])?.to_ascii_lowercase();
                let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
                break (end + 4, length.context("no length")?.parse::<usize>()?);
            }
        };
        while self.read.len() < end + length {
            ensure!(self.stream.read_buf(&mut self.read).await? > 0, "it ended");
        }
        let answer = &self.read[end..end + length];
        let allowed = b"\"allowed\":true";
        ensure!(answer.windows(allowed.len()).any(|bytes| bytes == allowed), "{}", String::from_utf8_lossy(answer));
        Ok(())
    }
}

/// A whole request.
pub fn request(path: &str, review: &str) -> String {
    let length = review.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: istio-ca-gate.istio-system.svc\r\nuser-agent: kube-apiserver-admission\r\n\
         content-length: {length}\r\naccept: application/json, */*\r\ncontent-type: application/json\r\n\
         accept-encoding: gzip\r\n\r\n{review}"
    )
}

/// Connections over which a request has gone.
async fn warm(server: &Server, request: &str, connections: usize) -> Result<Vec<Connection>> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = Connection::open(server.port, &server.ca).await?;
        connection.send(request.as_bytes()).await?;
        open.push(connection);
    }
    Ok(open)
}

/// Requests a second, and the server's processor time for each, while so many connections send one after the other.
pub async fn saturated(server: &Server, review: &str, connections: usize, requests: usize) -> Result<(f64, f64)> {
    let request = request(server.path, review);
    let mut open = warm(server, &request, connections).await?;
    let (cpu, began) = (server.cpu()?, Instant::now());
    try_join_all(open.iter_mut().map(|connection| async {
        for _ in 0..requests / connections {
            connection.send(request.as_bytes()).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    let sent = (requests / connections * connections) as f64;
    Ok((sent / began.elapsed().as_secs_f64(), (server.cpu()? - cpu).as_secs_f64() / sent))
}

/// Latencies, from when each of them was due, at so many requests a second.
pub async fn paced(server: &Server, review: &str, connections: usize, each: usize, rate: f64) -> Result<Vec<f64>> {
    let request = request(server.path, review);
    let mut open = warm(server, &request, connections).await?;
    let began = Instant::now() + Duration::from_millis(20);
    let latencies = try_join_all(open.iter_mut().enumerate().map(|(index, connection)| {
        let request = request.as_bytes();
        async move {
            let mut latencies = Vec::with_capacity(each);
            for turn in 0..each {
                let due = began + Duration::from_secs_f64((turn * connections + index) as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                // The timer is late by up to a millisecond, which is none of the server's.
                let sent = Instant::now().max(due);
                connection.send(request).await?;
                latencies.push(sent.elapsed().as_secs_f64());
            }
            anyhow::Ok(latencies)
        }
    }))
    .await?;
    Ok(latencies.concat())
}

/// The server's processor time for a new connection, with one request.
pub async fn connecting(server: &Server, review: &str, connections: usize) -> Result<f64> {
    let request = request(server.path, review);
    let cpu = server.cpu()?;
    for _ in 0..connections {
        Connection::open(server.port, &server.ca).await?.send(request.as_bytes()).await?;
    }
    Ok((server.cpu()? - cpu).as_secs_f64() / connections as f64)
}
