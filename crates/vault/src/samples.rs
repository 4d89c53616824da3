//! What tests of answers and logins have in common.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use zeroize::Zeroizing;

use super::Settings;
use super::transport::Reply;

/// The NAS's.
pub(super) fn settings() -> Settings {
    Settings {
        addresses: vec!["https://vault.example:8200".parse().unwrap()],
        gone: Vec::new(),
        ca_file: None,
        namespace: None,
        auth_mount: "kubernetes-nas".to_owned(),
        role: "istio-ca-sync".to_owned(),
        jwt_files: Vec::new(),
        token: None,
        mount: "secret".to_owned(),
        path: "istio/ca".to_owned(),
        pki_mount: Some("pki-mesh".to_owned()),
        timeout: Duration::from_secs(3),
    }
}

/// An answer of Vault's.
pub(super) fn reply(status: u16, body: &str) -> Reply {
    Reply {
        address: "https://vault.example".to_owned(),
        status,
        retry_after: None,
        date: None,
        certificate: None,
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}
