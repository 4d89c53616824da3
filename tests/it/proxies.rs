//! The way from a kubeconfig to its API server by a proxy, as kubectl takes it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::certificates::Authority;
use crate::kubernetes::{Kubernetes, SECRETS};
use crate::product::binary;

/// A name that only the proxy knows the way for.
const API: &str = "http://api.behind.test:6443";

/// A proxy that leads to one place, whatever it is asked for, and records what that was.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    async fn http(to: SocketAddr) -> Result<Self> {
        Self::start(to, |stream, asked| async move {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while stream.read_line(&mut head).await? > 2 {}
            asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(head);
            let mut stream = stream.into_inner();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            Ok(stream)
        })
        .await
    }

    async fn socks(to: SocketAddr) -> Result<Self> {
        Self::start(to, |mut stream, asked| async move {
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).await?;
            let mut methods = vec![0; greeting[1].into()];
            stream.read_exact(&mut methods).await?;
            stream.write_all(&[5, 0]).await?;
            let mut request = [0; 5];
            stream.read_exact(&mut request).await?;
            ensure!(request[..4] == [5, 1, 0, 3], "it does not ask for a name: {request:?}");
            let mut name = vec![0; usize::from(request[4]) + 2];
            stream.read_exact(&mut name).await?;
            let port = u16::from_be_bytes([name[name.len() - 2], name[name.len() - 1]]);
            let name = String::from_utf8_lossy(&name[..name.len() - 2]).into_owned();
            asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(format!("{name}:{port}"));
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            Ok(stream)
        })
        .await
    }

    async fn start<F>(
        to: SocketAddr,
        greet: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + Sync + Copy + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<TcpStream>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, asked) = (listener.local_addr()?, Arc::<Mutex<Vec<String>>>::default());
        let shared = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let asked = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut stream = greet(stream, asked).await?;
                    let mut server = TcpStream::connect(to).await?;
                    copy_bidirectional(&mut stream, &mut server).await?;
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self { address, asked, accepting })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A kubeconfig whose API server is at a name that has no address.
fn kubeconfig(proxy_url: Option<&str>) -> String {
    let cluster = json!({ "server": API, "proxy-url": proxy_url });
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{ "name": "here", "cluster": cluster }],
        "users": [{ "name": "here", "user": {} }],
        "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "here" } }],
    })
    .to_string()
}

/// Prints the fingerprint of `cacerts`. Returns its exit code and what it said.
async fn fingerprint(kubeconfig: &str, variables: &[(&str, String)]) -> Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig)?;
    let mut command = Command::new(binary());
    command.args(["fingerprint", "--context", "here"]).env_clear().env("KUBECONFIG", file);
    command.envs(variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(said)?))
}

async fn world() -> Result<(Kubernetes, SocketAddr)> {
    let kubernetes = Kubernetes::start().await?;
    let authority = Authority::new("Istio Root CA")?;
    kubernetes.put(SECRETS, json!({ "metadata": { "name": "cacerts" }, "data": authority.secret_data() }))?;
    let address = kubernetes.server.url().strip_prefix("http://").context("no address")?.parse()?;
    Ok((kubernetes, address))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_asked_by_way_of_the_proxy_that_kubectl_would_take() -> Result<()> {
    let (_kubernetes, address) = world().await?;
    let (http, socks) = (Proxy::http(address).await?, Proxy::socks(address).await?);
    let by_url = format!("http://user:p%40ss@{}", http.address);
    let socks_url = format!("socks5://{}", socks.address);
    for (proxy_url, variables) in [
        (Some(by_url.as_str()), vec![("NO_PROXY", "*".to_owned())]),
        (None, vec![("HTTP_PROXY", format!("http://{}", http.address)), ("NO_PROXY", "other.test,,".to_owned())]),
        (None, vec![("http_proxy", http.address.to_string())]),
        (Some(socks_url.as_str()), vec![]),
    ] {
        let (code, said) = fingerprint(&kubeconfig(proxy_url), &variables).await?;
        ensure!(code == Some(0) && said.matches(':').count() == 31, "{proxy_url:?} {variables:?}: {said}");
    }
    let asked = http.asked();
    ensure!(
        asked.len() == 3 && asked.iter().all(|head| head.starts_with("CONNECT api.behind.test:6443 ")),
        "{asked:?}"
    );
    // user:p@ss
    ensure!(asked[0].to_lowercase().contains("proxy-authorization: basic dxnlcjpwqhnz"), "{asked:?}");
    ensure!(!asked[1].to_lowercase().contains("proxy-authorization"), "{asked:?}");
    ensure!(socks.asked() == ["api.behind.test:6443"], "{:?}", socks.asked());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_away_is_named_and_one_that_is_not_for_this_server_is_not_asked() -> Result<()> {
    let (_kubernetes, address) = world().await?;
    let http = Proxy::http(address).await?;
    let away = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let (code, said) = fingerprint(&kubeconfig(Some(&format!("http://user:geheim@{away}"))), &[]).await?;
    ensure!(code == Some(1) && said.contains(&format!("through the proxy {away}: ")), "{said}");
    ensure!(said.contains("refused") && !said.contains("geheim"), "{said}");

    let direct = [("HTTP_PROXY", format!("http://{}", http.address)), ("NO_PROXY", ".behind.test".to_owned())];
    let (code, said) = fingerprint(&kubeconfig(None), &direct).await?;
    ensure!(code == Some(1) && !said.contains("proxy"), "{said}");
    ensure!(http.asked().is_empty());
    Ok(())
}
