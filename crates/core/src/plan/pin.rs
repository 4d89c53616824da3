//! What a cluster last verified, what Vault says against it, and what may follow it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Owner, Published};
use crate::ca::Sha256;
use crate::ca::check::Facts;
use crate::ca::record::RecordState;
use crate::names::ROOT_SHA256;
use crate::reason::{ByItself, Held, Reason};

/// The root that this cluster last verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// SHA-256 of that root: the one that the signing CA was under.
    pub root: Sha256,
    /// All roots that were trusted then, that one among them.
    pub roots: BTreeSet<Sha256>,
    /// Vault's version of the record then.
    pub vault_version: Option<u64>,
    /// When it was last found equal to Vault's.
    pub verified_at: Option<Timestamp>,
    /// What Vault has said against it since.
    pub contradicted: Option<Contradiction>,
    /// What was published for the record's present state, where that is of the signing kind.
    pub signers: Option<PublishedSigners>,
}

/// The signers that were published for one state of the record: an istiod that shows one of them has the roots of that
/// state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedSigners {
    /// The state.
    pub state: RecordState,
    /// Their certificates, the latest last.
    pub sha256: Vec<Sha256>,
}

/// So many are told: with a renewal each 60 days, those of years.
const MAX_SIGNERS: usize = 16;

impl PublishedSigners {
    /// This one published, after those that were before.
    pub fn with(before: Option<&Self>, state: RecordState, signer: Sha256) -> Self {
        let before = before.filter(|before| before.state == state).map(|before| before.sha256.as_slice());
        let mut sha256: Vec<_> = before.unwrap_or_default().iter().copied().filter(|other| *other != signer).collect();
        sha256.push(signer);
        sha256.drain(..sha256.len().saturating_sub(MAX_SIGNERS));
        Self { state, sha256 }
    }
}

/// The pin as read, and the version token that a write needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPin {
    /// What the ConfigMap says.
    pub pin: Option<Pin>,
    /// Of the ConfigMap; `None` where there is none.
    pub resource_version: Option<String>,
}

/// An answer of Vault's that speaks against the pin. It ends with an agreement and with nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// What the answer came to.
    pub by: Reason,
    /// When it was given.
    pub at: Timestamp,
}

/// How much of a pin is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It says what is written.
    None,
    /// It is the same one, verified much later.
    Date,
    /// It is another one, or ends a contradiction.
    All,
}

/// How Vault's CA departs from what the workloads of a cluster trust, which is the pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The root that signed until now is trusted no more.
    Dropped,
    /// A root signs that was not trusted until now.
    SignsTooEarly,
}

impl Pin {
    /// A pin on a root of which no more is known: nothing else was trusted.
    pub fn of(root: Sha256) -> Self {
        Self { root, roots: [root].into(), vault_version: None, verified_at: None, contradicted: None, signers: None }
    }

    /// What of this agreement the pin that was read does not tell. `most`: how old its date may get.
    pub fn is_news_to(&self, read: Option<&Self>, most: SignedDuration) -> News {
        let Some(read) = read else { return News::All };
        let told = |pin: &Self| (pin.root, pin.vault_version);
        let agrees = told(self) == told(read) && self.roots == read.roots && self.signers == read.signers;
        if !agrees || read.contradicted.is_some() {
            return News::All;
        }
        let age = self.verified_at.zip(read.verified_at).map(|(now, then)| now.duration_since(then));
        if age.is_none_or(|age| age >= most || age.is_negative()) { News::Date } else { News::None }
    }

    /// Whether following this CA would cut the cluster off from itself: workloads trust the pinned roots, and have
    /// certificates under the pinned one that signs.
    pub fn departure(&self, stored: &Facts) -> Option<Departure> {
        if !stored.roots().contains(&self.root) {
            Some(Departure::Dropped)
        } else if !self.roots.contains(&stored.root) {
            Some(Departure::SignsTooEarly)
        } else {
            None
        }
    }
}

impl ReadPin {
    /// The version token of the read; empty where there is nothing.
    pub fn token(&self) -> &str {
        self.resource_version.as_deref().unwrap_or_default()
    }

    /// The pin in force: the ConfigMap's, else what a `cacerts` of ours says of itself.
    ///
    /// # Errors
    /// If that cannot be read: never "no pin".
    pub fn in_force(&self, published: &Published) -> Result<Option<Pin>, Held> {
        match published {
            _ if self.pin.is_some() => Ok(self.pin.clone()),
            Published::Present(copy) if copy.owner == Owner::Ours => {
                copy.annotated_root.transpose().map(|root| root.map(Pin::of)).map_err(|error| {
                    Held::new(
                        Reason::RootChanged,
                        format!(
                            "annotation {ROOT_SHA256} of cacerts does not tell which root this cluster trusts ({error})"
                        ),
                        "restore it, or delete the Secret to trust Vault's",
                        ByItself::Unsaid,
                    )
                })
            }
            _ => Ok(None),
        }
    }
}

#[cfg(any(test, feature = "samples"))]
impl ReadPin {
    /// As if it had been read.
    pub fn of(pin: Pin) -> Self {
        Self { pin: Some(pin), resource_version: None }
    }
}

#[cfg(test)]
mod tests;
