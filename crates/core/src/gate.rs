//! The admission rule: from a request and what is known to a decision. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube_core::{Selector, SelectorExt};

use crate::ca::Sha256;
use crate::clock::Clocks;
use crate::reason::{ByItself, Held, Reason};
use crate::snapshot::{Policy, Snapshot, Standing};

/// What the gate reads of an admission request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// `request.resource` and `request.subResource` name pods themselves.
    pub is_pod: bool,
    /// `request.operation` is CREATE.
    pub is_create: bool,
    /// `request.dryRun`.
    pub dry_run: bool,
    /// `request.object.metadata.labels`.
    pub labels: &'a BTreeMap<String, String>,
}

/// Which pods are gated, unless said otherwise.
pub const GATE_SELECTORS: [&str; 3] = [
    "app in (istiod,istio-eastwestgateway)",
    "istio in (pilot,istiod,eastwestgateway)",
    "gateway.networking.k8s.io/gateway-class-name=istio-east-west",
];

/// Which pods are gated: those that match any of the selectors.
#[derive(Clone, Debug)]
pub struct Gated(pub Vec<Selector>);

impl Gated {
    /// Whether a pod with these labels is gated.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|selector| selector.matches(labels))
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Not a creation of a gated pod.
    NotGated,
    /// `cacerts` holds Vault's root: this one, of this version.
    Open {
        /// The root that Vault's signing CA chains to.
        root: Sha256,
        /// KV version.
        version: u64,
    },
    /// `cacerts` holds the root that was verified before Vault became unavailable.
    OpenUnverified {
        /// The root that was verified.
        root: Sha256,
        /// When.
        at: Timestamp,
        /// Why it cannot be verified now.
        held: Held,
    },
    /// Keep it out.
    Deny(Held),
}

/// What has to be known before there can be a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// What `cacerts` is now: the watch is silent.
    Cacerts,
    /// What the pin is now: another replica may have heard more of Vault.
    Pin,
    /// How the convergence ends, which is to be woken.
    Convergence,
}

impl Decision {
    /// What logs and metrics call it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotGated => "not_gated",
            Self::Open { .. } => "allowed",
            Self::OpenUnverified { .. } => "allowed_unverified",
            Self::Deny(_) => "denied",
        }
    }

    /// The reason code, where there is one.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::OpenUnverified { held, .. } | Self::Deny(held) => Some(held.reason),
            Self::NotGated | Self::Open { .. } => None,
        }
    }
}

/// Decides on a request by what is known.
///
/// # Errors
/// What is to be learnt before it is asked again. Never in a dry run.
pub fn gate(
    ask: &Ask<'_>,
    gated: &Gated,
    known: Snapshot<'_>,
    policy: &Policy,
    now: Clocks,
) -> Result<Decision, Learn> {
    if !(ask.is_pod && ask.is_create && gated.matches(ask.labels)) {
        return Ok(Decision::NotGated);
    }
    match known.standing(policy, now) {
        Standing::Open(verified) => Ok(Decision::Open { root: verified.stored.root, version: verified.version }),
        Standing::OpenUnverified(..) if !ask.dry_run && !known.knows_the_pin(now) => Err(Learn::Pin),
        Standing::OpenUnverified(last, held) => {
            Ok(Decision::OpenUnverified { root: last.root, at: last.at.wall, held: held.clone() })
        }
        Standing::Blind | Standing::Closed if ask.dry_run => Ok(Decision::Deny(dry_run(known))),
        Standing::Blind => Err(Learn::Cacerts),
        Standing::Closed => Err(Learn::Convergence),
    }
}

/// A dry run is answered from what is known, and starts nothing.
fn dry_run(known: Snapshot<'_>) -> Held {
    known.convergence.held.clone().unwrap_or_else(|| {
        Held::new(
            Reason::DryRun,
            "a dry run starts nothing, and it is not known yet whether cacerts holds Vault's root",
            "create the pod without dry run",
            ByItself::Unsaid,
        )
    })
}

#[cfg(test)]
mod tests;
