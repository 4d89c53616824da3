//! Which proxy leads to an API server of a kubeconfig: the same that kubectl takes. Its rules are those of Go's
//! `golang.org/x/net/http/httpproxy`, and kube has others.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use url::{Host, Url};

/// The variables of the environment that name proxies, of which some tools know the one spelling and some the other.
#[derive(Debug, Default)]
pub(super) struct Environment {
    https: String,
    http: String,
    none: String,
}

impl Environment {
    /// What these variables say.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let any = |names: [&str; 2]| names.into_iter().filter_map(&variable).find(|value| !value.is_empty());
        Self {
            https: any(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default(),
            // A server sets this of a header that its caller sent.
            http: variable("REQUEST_METHOD")
                .is_none_or(|method| method.is_empty())
                .then(|| any(["HTTP_PROXY", "http_proxy"]))
                .flatten()
                .unwrap_or_default(),
            none: any(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }

    /// The proxy that leads to this server, if any.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat its password.
    pub(super) fn proxy(&self, server: &Uri) -> Result<Option<Uri>, String> {
        let Some((host, port)) = target(server) else { return Ok(None) };
        let proxy = if server.scheme_str() == Some("https") { &self.https } else { &self.http };
        if proxy.is_empty() || self.is_direct(&host, port) {
            return Ok(None);
        }
        parse(proxy).map(Some).map_err(|error| format!("the proxy of the environment {error}"))
    }

    /// Whether no proxy leads there.
    fn is_direct(&self, host: &str, port: u16) -> bool {
        let ip: Option<IpAddr> = host.parse().ok();
        host == "localhost"
            || ip.is_some_and(|ip| ip.to_canonical().is_loopback())
            || self.none.split(',').any(|entry| matches(&entry.trim().to_lowercase(), host, ip, port))
    }
}

/// The proxy that a kubeconfig's `proxy-url` names. It is taken whatever the environment says.
///
/// # Errors
/// What is wrong with it, in words that do not repeat its password.
pub(super) fn configured(proxy: &str) -> Result<Uri, String> {
    parse(proxy).map_err(|error| format!("proxy-url in the kubeconfig {error}"))
}

fn parse(proxy: &str) -> Result<Uri, String> {
    let url = Url::parse(proxy).ok().filter(Url::has_host);
    let bare = || (!proxy.contains("://")).then(|| Url::parse(&format!("http://{proxy}")).ok()).flatten();
    let url = url.or_else(bare).ok_or("is no URL")?;
    let default = match url.scheme() {
        "http" => 80,
        "https" => 443,
        "socks5" | "socks5h" => 1080,
        other => return Err(format!("has the scheme {other}: it may be http, https or socks5")),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
    // Names are left to the proxy with either.
    let scheme = url.scheme().trim_end_matches('h');
    let login = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (user, None) => format!("{user}@"),
        (user, Some(password)) => format!("{user}:{password}@"),
    };
    let port = url.port().unwrap_or(default);
    format!("{scheme}://{login}{host}:{port}").parse().map_err(|_| "is no URL".to_owned())
}

/// Host and port of a server; of an IPv6 address without its brackets.
fn target(server: &Uri) -> Option<(String, u16)> {
    let host = server.host()?.trim_start_matches('[').trim_end_matches(']').to_lowercase();
    let default = if server.scheme_str() == Some("https") { 443 } else { 80 };
    Some((host, server.port_u16().unwrap_or(default)))
}

/// Whether an entry of `NO_PROXY` is about this server.
fn matches(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(net) = entry.parse::<IpNet>() {
        return ip.is_some_and(|ip| net.contains(&ip.to_canonical()));
    }
    let (name, wanted) = split(entry);
    if wanted.is_some_and(|wanted| wanted != port.to_string()) {
        return false;
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip.is_some_and(|ip| ip.to_canonical() == address.to_canonical());
    }
    // A leading dot, with or without a star before it, is for what is below the name alone.
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    let name = ascii(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(&name),
        None => !name.is_empty() && (host == name || host.ends_with(&format!(".{name}"))),
    }
}

/// Host and port of an entry. One colon or brackets tell that there is a port.
fn split(entry: &str) -> (&str, Option<&str>) {
    if let Some((host, port)) = entry.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (host, Some(port).filter(|port| !port.is_empty()));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (entry, None),
    }
}

/// A name as it is in DNS.
fn ascii(name: &str) -> String {
    let (dot, rest) = name.strip_prefix('.').map_or(("", name), |rest| (".", rest));
    match Host::parse(rest) {
        Ok(Host::Domain(domain)) => format!("{dot}{domain}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn is_direct(no_proxy: &str, server: &str) -> bool {
        let environment = environment(&[("HTTPS_PROXY", "http://proxy.test:3128"), ("NO_PROXY", no_proxy)]);
        environment.proxy(&server.parse().unwrap()).unwrap().is_none()
    }

    /// The table of Go's own tests, and what else its code says.
    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (no_proxy, server, direct) in [
            ("", "https://example.com", false),
            // This machine's own addresses need no entry.
            ("", "https://localhost:6443", true),
            ("", "https://127.0.0.1:6443", true),
            ("", "https://127.1.2.3", true),
            ("", "https://[::1]:6443", true),
            ("", "https://localhost.example.com", false),
            ("*", "https://example.com", true),
            ("a.test,*", "https://10.1.2.3", true),
            ("192.168.1.1", "https://192.168.1.1", true),
            ("192.168.1.1", "https://192.168.1.2", false),
            ("192.168.1.1:6443", "https://192.168.1.1:6443", true),
            ("192.168.1.1:6443", "https://192.168.1.1", false),
            ("192.168.1.1:443", "https://192.168.1.1", true),
            ("10.0.0.0/8", "https://10.250.1.1:6443", true),
            ("10.0.0.0/8", "https://11.0.0.1", false),
            ("10.0.0.0/8", "https://ten.example.com", false),
            ("fd00::/8", "https://[fd00::1]:6443", true),
            ("fd00::1", "https://[fd00::1]:6443", true),
            ("[fd00::1]:6443", "https://[fd00::1]:6443", true),
            ("[fd00::1]:443", "https://[fd00::1]:6443", false),
            ("::ffff:10.1.2.3", "https://10.1.2.3", true),
            ("foobar.com", "https://foobar.com", true),
            ("foobar.com", "https://www.foobar.com", true),
            ("foobar.com", "https://foofoobar.com", false),
            (".foobar.com", "https://www.foobar.com", true),
            (".foobar.com", "https://foobar.com", false),
            ("*.foobar.com", "https://www.foobar.com", true),
            ("*.foobar.com", "https://foobar.com", false),
            ("foobar.com:6443", "https://www.foobar.com:6443", true),
            ("foobar.com:6443", "https://foobar.com", false),
            (".foobar.com:443", "https://www.foobar.com", true),
            ("example.com, .foobar.com ", "https://www.FooBar.com", true),
            ("FOOBAR.com", "https://foobar.com", true),
            (" , ,foobar.com,", "https://foobar.com", true),
            (":6443", "https://foobar.com:6443", false),
            ("bücher.test", "https://xn--bcher-kva.test", true),
            ("foo*.com", "https://foobar.com", false),
            ("not/a/net", "https://foobar.com", false),
        ] {
            assert_eq!(is_direct(no_proxy, server), direct, "{no_proxy:?} {server}");
        }
    }

    #[test]
    fn the_variable_of_the_servers_own_scheme_counts_in_either_spelling() {
        let proxy = |variables: &[(&str, &str)], server: &str| {
            environment(variables).proxy(&server.parse().unwrap()).unwrap().map(|proxy| proxy.to_string())
        };
        let both = [("https_proxy", "http://one.test:1"), ("http_proxy", "http://two.test:2")];
        assert_eq!(proxy(&both, "https://a.test"), Some("http://one.test:1/".to_owned()));
        assert_eq!(proxy(&both, "http://a.test"), Some("http://two.test:2/".to_owned()));
        let upper = [("HTTPS_PROXY", "http://upper.test:1"), ("https_proxy", "http://lower.test:1")];
        assert_eq!(proxy(&upper, "https://a.test"), Some("http://upper.test:1/".to_owned()));
        let empty = [("HTTPS_PROXY", ""), ("https_proxy", "lower.test:1")];
        assert_eq!(proxy(&empty, "https://a.test"), Some("http://lower.test:1/".to_owned()));
        let cgi = [("HTTP_PROXY", "http://evil.test"), ("REQUEST_METHOD", "GET")];
        assert_eq!(proxy(&cgi, "http://a.test"), None);
        assert_eq!(proxy(&[("ALL_PROXY", "http://all.test")], "https://a.test"), None);
    }

    #[test]
    fn a_proxy_is_a_url_or_host_and_port_with_the_ports_of_its_scheme() {
        for (text, expected) in [
            ("http://proxy.test", "http://proxy.test:80/"),
            ("https://proxy.test", "https://proxy.test:443/"),
            ("proxy.test:3128", "http://proxy.test:3128/"),
            ("proxy.test", "http://proxy.test:80/"),
            ("10.1.2.3:3128", "http://10.1.2.3:3128/"),
            ("socks5://proxy.test", "socks5://proxy.test:1080/"),
            ("socks5h://proxy.test:1081", "socks5://proxy.test:1081/"),
            ("http://user:p%40ss@proxy.test:3128/", "http://user:p%40ss@proxy.test:3128/"),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128/"),
        ] {
            assert_eq!(configured(text).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["ftp://user:geheim@proxy.test", "", "socks4://x", "http://user:geheim@pro xy"] {
            let error = configured(wrong).unwrap_err();
            assert!(error.starts_with("proxy-url in the kubeconfig ") && !error.contains("geheim"), "{wrong}: {error}");
        }
    }
}
