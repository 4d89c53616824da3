//! What an address says of itself by `sys/health`: which Vault it is, what it can know, and what time it has there.
//! Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::answer;
use super::transport::Reply;
use gate_core::reason::{ByItself, Held, Reason, foreign_text};

/// An answer of a node that reads by itself counts as long as that node was in touch with the active one so lately.
pub const LAG_MAX: Duration = Duration::from_secs(30);

/// Where the active node is to be found.
const ACTIVE_NEXT: &str = "configure the active node's address, or those of all nodes";

/// What an address says of itself, and its certificate.
#[derive(Clone, Debug)]
pub struct Health {
    /// The status of `sys/health`.
    pub status: u16,
    /// Vault's version.
    pub version: String,
    /// Its name, where it tells.
    pub cluster_name: Option<String>,
    /// Which Vault it is, where it tells: not while it is sealed. To the letter, since two are told apart by it: for
    /// people, it has to pass [`foreign_text`].
    pub cluster_id: Option<String>,
    /// What it can know.
    pub node: Node,
    /// How far its clock is ahead of this one, where it tells the time.
    pub ahead: Option<SignedDuration>,
    /// The DER of its certificate; none on plain HTTP.
    pub certificate: Option<Vec<u8>>,
}

/// What a node can know of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// It decides: what it says is so.
    Active,
    /// A standby that passes each request on to the active node.
    Forwards,
    /// It answers reads by itself: a performance standby or secondary, or a standby of OpenBao.
    Reads {
        /// How long ago it was in touch with the active node, where it tells.
        heard: Option<Duration>,
    },
    /// A standby that has lost the active node.
    CutOff,
    /// Of a disaster-recovery secondary, which answers no reads.
    Recovery,
    /// Sealed or not initialised.
    Sealed,
    /// None of these.
    Other,
}

impl Node {
    /// Whether what it says is what the active node says.
    pub const fn decides(self) -> bool {
        matches!(self, Self::Active | Self::Forwards)
    }

    /// Whether what it says counts.
    pub fn counts(self) -> bool {
        self.decides() || matches!(self, Self::Reads { heard: Some(heard) } if heard <= LAG_MAX)
    }
}

#[derive(Deserialize)]
struct Body {
    // A DR secondary and its like tell less, but always this.
    initialized: bool,
    #[serde(default)]
    sealed: bool,
    #[serde(default)]
    standby: bool,
    #[serde(default)]
    performance_standby: bool,
    #[serde(default)]
    replication_performance_mode: String,
    #[serde(default)]
    replication_primary_canary_age_ms: u64,
    ha_connection_healthy: Option<bool>,
    #[serde(default)]
    last_request_forwarding_heartbeat_ms: u64,
    // HashiCorp's alone.
    enterprise: Option<bool>,
    server_time_utc: Option<i64>,
    #[serde(default)]
    version: String,
    cluster_name: Option<String>,
    cluster_id: Option<String>,
}

impl Body {
    fn node(&self, status: u16) -> Node {
        if self.sealed || !self.initialized {
            return Node::Sealed;
        }
        match status {
            472 => Node::Recovery,
            _ if self.standby && self.ha_connection_healthy == Some(false) => Node::CutOff,
            474 => Node::CutOff,
            473 => self.reads(),
            200 | 429 if self.performance_standby || self.replication_performance_mode == "secondary" => self.reads(),
            // OpenBao's standbys answer reads by themselves unless they are told not to, and do not tell which it is.
            429 if self.enterprise.is_some() || self.version.starts_with("1.") => Node::Forwards,
            429 => self.reads(),
            200 if self.standby => self.reads(),
            200 => Node::Active,
            _ => Node::Other,
        }
    }

    /// The longest ago of all that it is behind. Of a duration of zero it is not known whether it was measured.
    fn reads(&self) -> Node {
        let ago = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
        let standby = self.performance_standby || self.standby;
        let of_active = standby.then(|| match self.ha_connection_healthy {
            Some(true) => Some(Duration::from_millis(self.last_request_forwarding_heartbeat_ms)),
            _ => None,
        });
        let of_primary =
            (self.replication_performance_mode == "secondary").then(|| ago(self.replication_primary_canary_age_ms));
        let behind: Option<Vec<Duration>> = [of_active, of_primary].into_iter().flatten().collect();
        Node::Reads { heard: behind.and_then(|behind| behind.into_iter().max()) }
    }
}

/// What an answer of `sys/health` says. `None`: it is not Vault's.
pub(super) fn health(reply: &Reply, now: Timestamp) -> Option<Health> {
    let body: Body = serde_json::from_slice(&reply.body).ok()?;
    let node = body.node(reply.status);
    let time = body.server_time_utc.and_then(|seconds| Timestamp::from_second(seconds).ok()).or(reply.date);
    Some(Health {
        status: reply.status,
        node,
        ahead: time.map(|time| time.duration_since(now)),
        version: foreign_text(&body.version),
        cluster_name: body.cluster_name.filter(|name| !name.is_empty()).map(|name| foreign_text(&name)),
        cluster_id: body.cluster_id.filter(|id| !id.is_empty()),
        certificate: reply.certificate.clone(),
    })
}

/// Holds unless what this address says counts.
pub(super) fn usable(address: &str, node: Node) -> Result<(), Held> {
    let silent = |what: &str, next: &str| Err(answer::unreachable_but(address, what, next));
    match node {
        node if node.counts() => Ok(()),
        Node::Reads { .. } => silent(
            "it is a standby or secondary that answers reads by itself, and does not tell that it was in touch with the active node within 30 s, so what it says may be old",
            ACTIVE_NEXT,
        ),
        Node::CutOff => silent("it is a standby that has lost the active node", "look at the log of Vault's nodes"),
        Node::Recovery => {
            silent("it is a disaster-recovery secondary, which answers no reads", "configure the primary's address")
        }
        Node::Sealed => Err(sealed(address)),
        Node::Active | Node::Forwards | Node::Other => {
            silent("by its sys/health it is neither active nor standby", "look at the log of this node")
        }
    }
}

/// No answer before it is unsealed.
pub(super) fn sealed(address: &str) -> Held {
    let what = format!("Vault at {address} is sealed or not initialised");
    Held::new(Reason::VaultSealed, what, "unseal it", ByItself::Unsaid)
}

/// How an address answered the question which Vault it is.
pub(super) struct Asked<'a> {
    pub(super) address: &'a str,
    /// `None`: no answer of Vault's.
    pub(super) health: Option<&'a Health>,
    /// An operator says that it is gone for good.
    pub(super) gone: bool,
}

/// Holds unless all of these are known to be the Vault that `here` is.
pub(super) fn one_vault(here: &str, asked: &[Asked<'_>]) -> Result<(), Held> {
    let ambiguous = |what: String, next: &str| Err(Held::new(Reason::VaultAmbiguous, what, next, ByItself::Unsaid));
    let id_of = |asked: &Asked<'_>| asked.health.and_then(|health| health.cluster_id.clone());
    let told = || asked.iter().filter_map(|asked| Some((asked.address, id_of(asked)?)));
    let Some((_, id)) = told().find(|(address, _)| *address == here) else {
        return Err(answer::unreachable(here, "its sys/health names no cluster_id"));
    };
    if let Some((other, _)) = told().find(|(_, other)| *other != id) {
        return ambiguous(
            format!("{here} and {other} are two different Vaults, and a root may be made in one only"),
            "configure the addresses of one",
        );
    }
    match asked.iter().find(|asked| id_of(asked).is_none() && (asked.health.is_some() || !asked.gone)) {
        None => Ok(()),
        Some(Asked { address, health: Some(health), .. }) if health.node == Node::Sealed => Err(Held::new(
            Reason::VaultSealed,
            format!("{address} is sealed or not initialised, so that it may be another Vault with a root of its own"),
            "unseal it, or configure it no longer",
            ByItself::Unsaid,
        )),
        Some(Asked { address, .. }) => ambiguous(
            format!("{address} does not tell which Vault it is, so that it may be another one with a root of its own"),
            &format!(
                "bring it back, configure it no longer, or, if it is gone for good, say so with --vault-gone {address}"
            ),
        ),
    }
}

/// The same, of addresses with what each tells of which Vault it is, and whether it is said to be gone.
///
/// # Errors
/// As the convergence is told.
#[cfg(feature = "samples")]
pub fn is_one_vault(here: &str, others: &[(&str, Option<&str>, bool)]) -> Result<(), Held> {
    let health = |id: &str| Health {
        status: 200,
        version: String::new(),
        cluster_name: None,
        cluster_id: Some(id.to_owned()),
        node: Node::Active,
        ahead: None,
        certificate: None,
    };
    let told: Vec<_> = others.iter().map(|(_, id, _)| id.map(health)).collect();
    let asked: Vec<_> = others
        .iter()
        .zip(&told)
        .map(|((address, _, gone), told)| Asked { address, health: told.as_ref(), gone: *gone })
        .collect();
    one_vault(here, &asked)
}

#[cfg(test)]
mod tests;
