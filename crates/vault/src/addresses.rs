//! Several addresses: which is asked, whether they are one Vault, and whom to believe where they differ.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::health::{self, Asked};
use super::transport::{NoAnswer, Reply};
use super::{Found, Health, Node, Plain, Refused, Silent, Vault, answer};
use gate_core::ca::Sha256;
use gate_core::plan::Stored;
use gate_core::reason::Reason;

/// Beside others, an address is waited for so long; connecting alone may take a second.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same of one that was silent the last time: long enough to notice that it is back.
const PATIENCE_SILENT: Duration = Duration::from_millis(200);

/// Behind one address there may be several nodes, and each connection may lead to another: so often is looked for one
/// that counts.
const LOOKS: usize = 4;

const NOT_VAULTS: &str = "what it says at sys/health is not Vault's";

impl Vault {
    /// Asks an address how it is.
    ///
    /// # Errors
    /// In words, if it does not answer as Vault does.
    pub async fn health(&self, at: usize) -> Result<Health, Silent> {
        let reply = self.transports[at].call(Plain::get("sys/health"), &Self::without_token()).await;
        let reply = reply.map_err(|NoAnswer { what, connecting }| Silent { connecting, what })?;
        health::health(&reply, Timestamp::now()).ok_or_else(|| {
            let what = format!("status {}, with a body that is not Vault's", reply.status);
            Silent { connecting: false, what }
        })
    }

    /// Whether any address leads to a node that can be asked.
    pub(super) async fn is_usable(&self) -> bool {
        let asked = (0..self.transports.len()).map(|at| {
            Box::pin(async move {
                let health = self.health(at).await.map_err(drop)?;
                health::usable(self.transports[at].address(), health.node).map_err(drop)
            })
        });
        futures::future::select_ok(asked).await.is_ok()
    }

    /// Asks all addresses how they are, and sorts them: those that are to be asked first, in the order of the
    /// configuration, then those that may lag behind, then those of which no use can be made.
    pub(super) async fn look(&mut self) -> Vec<(usize, Result<Health, Refused>)> {
        let alone = self.transports.len() == 1;
        let patience = |at: usize| match self.silent[at] {
            _ if alone => self.settings.timeout,
            true => PATIENCE_SILENT,
            false => PATIENCE,
        };
        let mut looked = self.look_within(patience).await;
        if !alone && looked.iter().all(|(_, looked)| looked.is_err()) {
            looked = self.look_within(|_| self.settings.timeout).await;
        }
        for (at, looked) in &looked {
            self.silent[*at] = looked.is_err();
        }
        looked.sort_by_key(|(_, looked)| match looked {
            Ok(health) => Reverse(if health.node.decides() { 2 } else { 1 }),
            Err(_) => Reverse(0),
        });
        looked
    }

    async fn look_within(&self, patience: impl Fn(usize) -> Duration) -> Vec<(usize, Result<Health, Refused>)> {
        let looks = (0..self.transports.len()).map(|at| {
            let (patience, look) = (patience(at), self.look_at(at));
            async move {
                let looked = timeout(patience, look).await;
                let slow =
                    |_| Err(answer::unreachable(self.transports[at].address(), "its answer took too long").into());
                (at, looked.unwrap_or_else(slow))
            }
        });
        futures::future::join_all(looks).await
    }

    /// Asks one address for a node whose word counts. The connection to it is kept for the next request.
    async fn look_at(&self, at: usize) -> Result<Health, Refused> {
        let transport = &self.transports[at];
        let middleware = Self::without_token();
        let mut last = None;
        for _ in 0..LOOKS {
            let health = self.health_of(at, transport.call_first(Plain::get("sys/health"), &middleware).await)?;
            match health::usable(transport.address(), health.node) {
                Ok(()) => return Ok(health),
                Err(held) if !matches!(health.node, Node::Reads { .. } | Node::CutOff) => return Err(held.into()),
                Err(held) => last = Some(held),
            }
            // To that node it ends here.
            let _ = transport.call_last(Plain::get("sys/health"), &middleware).await;
        }
        let silent = || answer::unreachable(transport.address(), NOT_VAULTS);
        Err(last.unwrap_or_else(silent).into())
    }

    /// The statuses of `sys/health` mean something else than those of other paths.
    fn health_of(&self, at: usize, reply: Result<Reply, NoAnswer>) -> Result<Health, Refused> {
        let health = reply.as_ref().ok().and_then(|reply| health::health(reply, Timestamp::now()));
        health.map_or_else(
            || {
                Err(self
                    .told(at, reply)
                    .map_or_else(|refused| refused, |reply| answer::unreachable(&reply.address, NOT_VAULTS).into()))
            },
            Ok,
        )
    }

    /// Holds unless each configured address is known to be the Vault in which nothing was found.
    ///
    /// # Errors
    /// `VaultAmbiguous` where one is another Vault, or may be.
    pub async fn is_one(&self, found: &Found) -> Result<(), Refused> {
        if self.transports.len() == 1 {
            return Ok(());
        }
        let all = futures::future::join_all((0..self.transports.len()).map(|at| self.health(at))).await;
        let asked: Vec<_> = all.iter().enumerate().map(|(at, health)| self.asked(at, health.as_ref().ok())).collect();
        health::one_vault(&found.address, &asked).map_err(Refused::from)
    }

    fn asked<'a>(&'a self, at: usize, health: Option<&'a Health>) -> Asked<'a> {
        Asked { address: self.transports[at].address(), health, gone: self.is_gone(at) }
    }

    pub(super) fn is_gone(&self, at: usize) -> bool {
        self.settings.gone.contains(&self.settings.addresses[at])
    }

    /// Whether this is the Vault that has last agreed with what this cluster trusts.
    pub(super) fn is_known(&self, cluster_id: &Option<String>) -> bool {
        cluster_id.is_some() && *cluster_id == self.agreed
    }

    /// Makes sure of an answer that contradicts what this cluster trusts: a node that lags behind is not believed, and
    /// neither is one address alone while another one may be the Vault that has that root.
    ///
    /// # Errors
    /// Whenever that cannot be told.
    pub async fn confirmed(&mut self, found: Found, trusted: Sha256, now: Timestamp) -> Result<Found, Refused> {
        if holds(&found.stored, trusted) {
            self.agreed.clone_from(&found.place.cluster_id);
            return Ok(found);
        }
        let is_known = self.is_known(&found.place.cluster_id);
        let (mut decided, mut silent) = (found.place.node.decides().then_some(found.clone()), None);
        for at in (0..self.transports.len()).filter(|at| *at != found.place.at) {
            // The same node says the same.
            let known = decided.is_some().then(|| found.place.cluster_id.clone()).flatten();
            let Some(other) = self.ask_another(at, known, now).await else { continue };
            match other {
                Ok(other) if holds(&other.stored, trusted) => {
                    tracing::warn!(
                        "{} contradicts {}, which has the root that this cluster trusts and is believed",
                        found.address,
                        other.address
                    );
                    self.agreed.clone_from(&other.place.cluster_id);
                    return Ok(other);
                }
                Ok(other) => decided = decided.or(Some(other)),
                Err(_) if self.is_gone(at) => {}
                Err(refused) => silent = Some(refused.held),
            }
        }
        match (decided, silent) {
            (Some(decided), None) => Ok(decided),
            (Some(decided), Some(_)) if is_known => Ok(decided),
            (_, Some(silent)) => Err(answer::alone(&found.address, &silent).into()),
            (None, None) => Err(answer::unconfirmed(&found.address).into()),
        }
    }

    /// What there is at another address. `None`: it is that of the known Vault, or of a node that decides nothing.
    async fn ask_another(
        &mut self,
        at: usize,
        known: Option<String>,
        now: Timestamp,
    ) -> Option<Result<Found, Refused>> {
        let health = match self.look_at(at).await {
            Ok(health) if known.is_some() && health.cluster_id == known => return None,
            Ok(health) if health.node.decides() => health,
            Ok(_) => return None,
            Err(refused) => return Some(Err(refused)),
        };
        Some(match self.ask(at).await {
            Ok(reply) => self.found(at, &reply, health, now).await,
            Err(refused) => Err(refused),
        })
    }
}

/// Whether this is what a cluster that trusts this root expects to find.
fn holds(stored: &Stored, trusted: Sha256) -> bool {
    stored.roots().is_some_and(|roots| roots.contains(&trusted))
}

/// 400, 403, 404 and 429 are Vault's answer; what is left says nothing about another address.
pub(super) fn is_elsewhere_worth_a_try(refused: &Refused) -> bool {
    matches!(refused.held.reason, Reason::VaultUnreachable | Reason::VaultSealed)
}
