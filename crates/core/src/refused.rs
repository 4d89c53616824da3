//! How one who was asked for something of the root refuses it, or stays silent.

use std::time::Duration;

use crate::reason::{Held, Reason};

/// Why Vault could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Code and sentence.
    pub held: Held,
    /// Vault's own wish for when to ask again.
    pub retry_after: Option<Duration>,
    /// Vault was asked and did answer: no outage to be bridged, whatever the code.
    pub is_answer: bool,
}

impl Refused {
    /// What this says against a root that was seen before: that it was never there, or that there is no place for it.
    /// `None`: nothing about the root.
    pub fn contradiction(&self) -> Option<Reason> {
        let reason = self.held.reason;
        match reason {
            _ if self.is_answer => Some(Reason::RootDeleted),
            Reason::VaultMountInvalid => Some(reason),
            _ => None,
        }
    }
}

impl From<Held> for Refused {
    fn from(held: Held) -> Self {
        Self { held, retry_after: None, is_answer: false }
    }
}
