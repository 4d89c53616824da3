//! The serving certificate: of the service's own, by a CA that its replicas share, or from files; and who may call.
//!
//! [`ca`] makes CAs and leaves; [`rotation`] decides what becomes of the shared CAs, and touches nothing; [`trust`]
//! tells since when callers trust what; [`leaf`] has the certificate in use. [`secret`] is where the CAs are kept, and
//! [`ca_bundle`] brings them into both webhook configurations. [`files`] and [`client`] read what others make. The flags are
//! in [`args`], and [`certificate`] starts what they ask for.

pub mod args;
pub mod ca;
pub mod ca_bundle;
pub mod certificate;
pub mod client;
pub mod files;
pub mod leaf;
pub mod rotation;
pub mod secret;
pub mod trust;

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ServerConfig};

pub use ca::ServingCa;
pub use client::Callers;
pub use leaf::Serving;

/// The server's side of TLS: 1.2 and 1.3, and HTTP/1.1 alone, which is all that the API server speaks to webhooks.
pub fn server_config(serving: Arc<Serving>, callers: Option<Arc<Callers>>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder();
    let mut config = match callers {
        None => builder.with_no_client_auth().with_cert_resolver(serving),
        Some(callers) => {
            let mut config = builder.with_client_cert_verifier(callers).with_cert_resolver(serving);
            // A session that is taken up again would bring a certificate along that was verified in the past.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
