//! The next step of a convergence, as data.

use std::sync::Arc;

use crate::ca::check::{Facts, Sound};
use crate::ca::record::{IssuerName, RecordState, SigningRecord};
use crate::ca::signer::SharedKey;
use crate::reason::Held;

/// The next step of a convergence.
#[derive(Clone, Debug)]
pub enum Step {
    /// Make a root and write it with `cas=0`.
    Bootstrap,
    /// Have Vault's PKI engine make a root, and write a record of the signing kind with `cas=0`.
    MakeRoot,
    /// Have this cluster's signer certified, and go on with [`Situation::certified`](super::Situation::certified).
    Certify {
        /// Vault's version.
        version: u64,
        /// Vault's record.
        record: Arc<SigningRecord>,
        /// Who is asked.
        issuer: IssuerName,
        /// The key that signs here already. `None`: a new one.
        key: Option<SharedKey>,
        /// What is published is as the record wants it, and its life is all that is short: it stays in use meanwhile.
        renews: Option<Arc<Sound>>,
    },
    /// Write a CA into `cacerts`: Vault's, or this cluster's signer.
    Publish {
        /// Vault's version.
        version: u64,
        /// The CA.
        sound: Arc<Sound>,
        /// The state of the record that it is for, where that is of the signing kind.
        state: Option<RecordState>,
    },
    /// Ask External Secrets to sync, then hold.
    ForceSync {
        /// The ExternalSecret, where known.
        external_secret: Option<String>,
        /// The hold.
        held: Held,
    },
    /// `cacerts` is sound and holds Vault's root.
    Open {
        /// Vault's version.
        version: u64,
        /// Vault's CA; of the signing kind, what the record wants to be published.
        stored: Arc<Facts>,
        /// The cluster's CA.
        published: Arc<Sound>,
        /// The same certificates and key in other bytes: a running istiod refuses such a reload.
        other_bytes: bool,
    },
    /// Nothing that this service may do.
    Hold(Held),
}

impl Step {
    /// The hold that it ends in.
    pub const fn held(&self) -> Option<&Held> {
        match self {
            Self::ForceSync { held, .. } | Self::Hold(held) => Some(held),
            Self::Bootstrap | Self::MakeRoot | Self::Certify { .. } | Self::Publish { .. } | Self::Open { .. } => None,
        }
    }

    /// Whether it brings a root to where there may be another one.
    pub const fn brings_root(&self) -> bool {
        match self {
            Self::Bootstrap | Self::MakeRoot | Self::Publish { .. } => true,
            Self::Certify { renews, .. } => renews.is_none(),
            Self::ForceSync { .. } | Self::Open { .. } | Self::Hold(_) => false,
        }
    }

    /// Whether what is published is what Vault wants, whatever comes of the step.
    pub const fn agrees(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Certify { renews: Some(_), .. })
    }

    /// What metrics call it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::MakeRoot => "make_root",
            Self::Certify { renews: None, .. } => "certify",
            Self::Certify { renews: Some(_), .. } => "renew",
            Self::Publish { .. } => "publish",
            Self::ForceSync { .. } => "force_sync",
            Self::Open { .. } => "open",
            Self::Hold(_) => "hold",
        }
    }
}
