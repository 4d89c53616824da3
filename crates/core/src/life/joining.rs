//! How a cluster joins those that a root is replaced for.

use jiff::Timestamp;

use super::attestation::{Attestation, Istiods, Namespaces};

/// Whether whoever replaces the root waits for this cluster, as far as its gate knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaited {
    /// It does not know.
    #[default]
    Unknown,
    /// It knew before it read the record that it goes by.
    Known,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// See to it that the cluster has attested, and then read the record anew.
    Attest,
    /// Publish.
    Publish,
}

impl Awaited {
    /// What a gate does before it publishes by a record of the signing kind that it has read. By one that it read before
    /// it had attested, it might publish under a root that is dropped by then: nobody has waited for it.
    pub const fn first(self) -> First {
        match self {
            Self::Unknown => First::Attest,
            Self::Known => First::Publish,
        }
    }
}

impl Attestation {
    /// What a cluster attests to before it has published anything by the record. It is waited for from then on.
    pub fn joining(cluster: &str, record_version: u64, now: Timestamp) -> Self {
        Self {
            cluster: cluster.to_owned(),
            state: None,
            settled: None,
            at: now,
            record_version,
            signer: None,
            roots: Default::default(),
            istiods: Istiods::default(),
            namespaces: Namespaces::default(),
            ttl_seen: None,
            ready: false,
            why: Some("its gate has not published by the record yet".to_owned()),
            version: String::new(),
        }
    }
}
