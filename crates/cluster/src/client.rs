//! A client of an API server: by a kubeconfig as kubectl makes it, or in a pod.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{AuthError, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use percent_encoding::percent_decode_str;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use url::Url;

use super::bounded;
use super::proxy::{self, Environment};
use gate_core::reason::foreign_text;

/// Connecting to an API server that is there takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Stands for the proxy while kube reads a kubeconfig: it is found out here, by kubectl's own rules.
const ANY_PROXY: &str = "http://proxy.invalid";

/// What a context of a kubeconfig says, else its current one, with the proxy that leads there.
///
/// # Errors
/// What is wrong with it, in words that repeat no credentials.
pub async fn config_of(mut kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Config, String> {
    let named = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone());
    let context = kubeconfig.contexts.iter().find(|context| Some(&context.name) == named.as_ref());
    let cluster = context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.clone());
    let cluster = kubeconfig.clusters.iter_mut().find(|named| Some(&named.name) == cluster.as_ref());
    let configured = cluster
        .and_then(|named| named.cluster.as_mut())
        .and_then(|cluster| cluster.proxy_url.replace(ANY_PROXY.to_owned()))
        .filter(|proxy| !proxy.is_empty());
    let options = KubeConfigOptions { context: named, ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| told(&error))?;
    config.proxy_url = match configured {
        Some(proxy) => Some(proxy::configured(&proxy)?),
        None => Environment::new(|name| std::env::var(name).ok()).proxy(&config.cluster_url)?,
    };
    Ok(config)
}

/// What a pod says. Its traffic to the API server goes through no proxy, whatever its environment says: that is meant for
/// addresses outside of the cluster.
///
/// # Errors
/// What it lacks.
pub fn config_of_pod() -> Result<Config, String> {
    let mut config = Config::incluster().map_err(|error| foreign_text(&error.to_string()))?;
    config.proxy_url = None;
    Ok(config)
}

/// A client by this configuration that has not spoken yet. The program that a kubeconfig has its credentials from is run
/// and waited for.
///
/// # Errors
/// What is wrong, in words that repeat no credentials.
pub fn client_of(mut config: Config) -> Result<Client, String> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Whoever asks retries, and knows why.
    config.default_retry = false;
    let exec = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
    let made = match config.proxy_url.take() {
        None => Client::try_from(config),
        Some(proxy) => through(&proxy, config),
    };
    made.map(bounded).map_err(|error| match &error {
        kube::Error::Auth(error) => told_of_auth(error, exec.as_deref()),
        error => foreign_text(&error.to_string()),
    })
}

/// A client whose connections a proxy makes.
fn through(proxy: &Uri, config: Config) -> kube::Result<Client> {
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
    match proxy.scheme_str() {
        Some("socks5") => {
            let socks = SocksV5::new(proxy.clone(), direct);
            let socks = match login(proxy) {
                Some((user, password)) => socks.with_auth(user, password),
                None => socks,
            };
            by(proxy, socks, &config)
        }
        Some("https") => {
            let tls = config.rustls_https_connector_with_connector(direct)?;
            by(proxy, tunnel(proxy, tls), &config)
        }
        _ => by(proxy, tunnel(proxy, direct), &config),
    }
}

fn tunnel<C>(proxy: &Uri, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.clone(), connector);
    let basic = login(proxy).and_then(|(user, password)| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{user}:{password}"));
        HeaderValue::try_from(format!("Basic {text}")).ok()
    });
    match basic {
        Some(mut basic) => {
            basic.set_sensitive(true);
            tunnel.with_auth(basic)
        }
        None => tunnel,
    }
}

/// What kube builds of a configuration, over this connector.
fn by<C>(proxy: &Uri, connector: C, config: &Config) -> kube::Result<Client>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let proxy = format!("{}:{}", proxy.host().unwrap_or_default(), proxy.port_u16().unwrap_or_default());
    // Asked for each connection; clippy takes it for one.
    #[allow(clippy::redundant_clone)]
    let connector = connector.map_err(move |error| ThroughProxy { proxy: proxy.clone(), error: error.into() });
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// User and password in a proxy's URL.
fn login(proxy: &Uri) -> Option<(String, String)> {
    let url = Url::parse(&proxy.to_string()).ok().filter(|url| !url.username().is_empty())?;
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(url.username()), plain(url.password().unwrap_or_default())))
}

/// A connection that could not be made, by way of which proxy.
#[derive(Debug)]
pub struct ThroughProxy {
    /// Its host and port.
    pub proxy: String,
    error: BoxError,
}

impl fmt::Display for ThroughProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "through the proxy {}", self.proxy)
    }
}

impl Error for ThroughProxy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.error.as_ref())
    }
}

/// What is wrong with a kubeconfig. What could not be read in it may be a credential, and only its place is told.
pub fn told(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("it is no kubeconfig in YAML: see line {}, column {}", at.line(), at.column()),
            None => "it is no kubeconfig in YAML".to_owned(),
        },
        error => foreign_text(&error.to_string()),
    }
}

/// Why credentials could not be had. What a program has printed may be one.
pub(crate) fn told_of_auth(error: &AuthError, program: Option<&str>) -> String {
    let program = match program {
        Some(name) => format!("the program {}, which the kubeconfig names for its credentials,", foreign_text(name)),
        None => "the program that the kubeconfig names for its credentials".to_owned(),
    };
    match error {
        AuthError::AuthExecStart(error) => format!("{program} cannot be run ({error}): install it, or see PATH"),
        AuthError::AuthExecRun { out, .. } => {
            format!("{program} ended with {}: run it by hand, or kubectl", out.status)
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed | AuthError::AuthExec(_) => {
            format!("{program} gave no credentials: run it by hand, or kubectl")
        }
        error => foreign_text(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> Kubeconfig {
        let text = format!(
            r#"{{"clusters": [{{"name": "c", "cluster": {cluster}}}], "users": [{{"name": "u", "user": {user}}}],
                "contexts": [{{"name": "x", "context": {{"cluster": "c", "user": "u"}}}}], "current-context": "x"}}"#
        );
        Kubeconfig::from_yaml(&text).unwrap()
    }

    #[tokio::test]
    async fn proxy_url_is_taken_as_kubectl_takes_it() {
        for (cluster, expected) in [
            (r#"{"server": "https://127.0.0.1:1", "proxy-url": "proxy.test:3128"}"#, Ok("http://proxy.test:3128/")),
            (r#"{"server": "https://a.test", "proxy-url": "socks5://proxy.test"}"#, Ok("socks5://proxy.test:1080/")),
            (r#"{"server": "https://a.test", "proxy-url": "ftp://proxy.test"}"#, Err("has the scheme ftp")),
        ] {
            let config = config_of(kubeconfig(cluster, "{}"), None).await;
            match (config.map(|config| config.proxy_url.map(|proxy| proxy.to_string())), expected) {
                (Ok(proxy), Ok(expected)) => assert_eq!(proxy.as_deref(), Some(expected), "{cluster}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (config, _) => assert!(config.is_err(), "{cluster}"),
            }
        }
    }

    #[tokio::test]
    async fn a_program_for_credentials_that_is_missing_or_fails_is_named_without_what_it_printed() {
        for (command, args, expected) in [
            (
                "no-such-plugin",
                "[]",
                "the program no-such-plugin, which the kubeconfig names for its credentials, cannot be run (No such file or directory",
            ),
            ("sh", r#"["-c", "echo geheim; exit 3"]"#, "ended with exit status: 3"),
            ("sh", r#"["-c", "echo geheim"]"#, "gave no credentials"),
        ] {
            let user = format!(
                r#"{{"exec": {{"apiVersion": "client.authentication.k8s.io/v1", "command": "{command}", "args": {args}, "interactiveMode": "Never"}}}}"#
            );
            let config = config_of(kubeconfig(r#"{"server": "https://127.0.0.1:1"}"#, &user), None).await.unwrap();
            let error = client_of(config).err().unwrap();
            assert!(error.contains(expected) && !error.contains("geheim"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_kubeconfig_is_told_to_its_end_without_its_content() {
        let unreadable = Kubeconfig::from_yaml("users: [{name: u, user: {token: [geheim}}]").unwrap_err();
        let error = told(&unreadable);
        assert!(error.contains("line 1") && !error.contains("geheim"), "{error}");
        let missing = told(&Kubeconfig::read_from("/nowhere/config").unwrap_err());
        assert!(missing.contains("/nowhere/config") && missing.contains("No such file"), "{missing}");
        let ca = r#"{"server": "https://a.test", "certificate-authority": "/nowhere/ca.crt"}"#;
        let error = config_of(kubeconfig(ca, "{}"), None).await.err().unwrap();
        assert!(error.contains("/nowhere/ca.crt") && error.contains("No such file"), "{error}");
    }
}
