//! Who the other end of a connection has proven to be.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// The certificates that the other end of a connection has shown and proven to be its own. Each request over TLS has it
/// as an extension.
#[derive(Clone, Debug)]
pub struct Peer(Option<Arc<[CertificateDer<'static>]>>);

impl Peer {
    /// Of a connection whose handshake is over.
    pub(crate) fn of(connection: &rustls::ServerConnection) -> Self {
        Self(connection.peer_certificates().map(Into::into))
    }

    /// What it has shown, its own certificate first.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.0.as_deref()
    }
}
