//! The pin's part in an attempt: what Vault says against it, and what it agrees to, is written before anybody goes by it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Attempts, Round, Seen, note_doing};
use crate::attests::Attests;
use crate::ca::check::{Facts, Sound};
use crate::clock::Clocks;
use crate::cluster::{Bystanders, Cluster, Write};
use crate::plan::{Contradiction, News, Pin, Published, PublishedSigners, ReadPin, Stored};
use crate::reason::{Held, Reason};
use crate::refused::Refused;
use crate::signer::Signer;
use crate::snapshot::{Convergence, Doing, LastVerified, Verified};
use crate::store::Store;

impl<S: Store + Signer + Attests, C: Cluster + Bystanders> Attempts<S, C> {
    /// What Vault said in place of its record. Ok: to be read again.
    pub(super) async fn refused(
        &mut self,
        state: &watch::Sender<Convergence>,
        pins: &ReadPin,
        refused: Refused,
        now: Clocks,
    ) -> Result<(), Refused> {
        let Some(by) = refused.contradiction() else { return Err(refused) };
        match self.contradict(state, pins, by, now).await {
            Ok(Write::Done) => Err(refused),
            Ok(Write::Changed) => Ok(()),
            Err(_) => Err(Refused { held: self.unrecorded(&refused.held), ..refused }),
        }
    }

    /// Takes note that Vault speaks against the pin, before anybody is answered by it: in the pin, where replicas and the
    /// next start find it, and here in any case.
    pub(super) async fn contradict(
        &mut self,
        state: &watch::Sender<Convergence>,
        pins: &ReadPin,
        by: Reason,
        now: Clocks,
    ) -> Result<Write, Held> {
        let contradiction = Contradiction { by, at: now.wall };
        state.send_modify(|state| state.planned(false, Some(contradiction)));
        // Without one, or with one that tells it already, nobody lets in by the pin.
        if pins.pin.as_ref().is_none_or(|pin| pin.contradicted.is_some()) {
            return Ok(Write::Done);
        }
        note_doing(state, Doing::WritingPin);
        let what = format!("{} {by}", pins.token());
        let written =
            self.kept.pinning.write(what, self.parts.now, self.parts.cluster.contradict(pins, contradiction)).await?;
        if written == Write::Done {
            state.send_modify(Convergence::contradiction_was_recorded);
        }
        Ok(written)
    }

    pub(super) fn unrecorded(&self, held: &Held) -> Held {
        held.noting(&format!(
            "ConfigMap {} cannot take note of this, so that another replica, or a gate that starts while Vault is away, may still go by what was verified before: apply the RBAC of deploy/",
            self.parts.names.pin
        ))
    }

    /// The gate opens only over a pin that is written: it is what keeps a lost root from being replaced.
    pub(super) async fn open(
        &mut self,
        state: &watch::Sender<Convergence>,
        seen: &Seen<S::Place>,
        version: u64,
        stored: &Arc<Facts>,
        published: &Sound,
    ) -> Result<Round, Held> {
        note_doing(state, Doing::WritingPin);
        if !self.parts.cluster.is_still(seen.published.resource_version()).await?
            || self.keep_pin(seen, published, version).await? == Write::Changed
        {
            return Ok(Round::Again);
        }
        let verified = Verified {
            stored: Arc::clone(stored),
            version,
            resource_version: seen.published.resource_version().to_owned(),
            at: seen.now,
        };
        state.send_modify(|state| state.agreed(verified, LastVerified::of(published, seen.now)));
        Ok(Round::Open)
    }

    async fn keep_pin(&mut self, seen: &Seen<S::Place>, sound: &Sound, version: u64) -> Result<Write, Held> {
        let (read, now) = (&seen.pins, seen.now.wall);
        let for_state = match (&seen.found.stored, &seen.published) {
            (Stored::Signing { .. }, Published::Present(copy)) => copy.annotated_state,
            _ => None,
        };
        let before = read.pin.as_ref().and_then(|pin| pin.signers.as_ref());
        let pin = Pin {
            signers: for_state.map(|state| PublishedSigners::with(before, state, sound.signing_ca.sha256)),
            roots: sound.roots().clone(),
            vault_version: Some(version),
            verified_at: Some(now),
            ..Pin::of(sound.root)
        };
        let what = format!("{} {version} {}", read.token(), sound.root);
        let write = self.parts.cluster.write_pin(read, &pin);
        match pin.is_news_to(read.pin.as_ref(), self.parts.pin_age_max) {
            News::None => Ok(Write::Done),
            News::All => self.kept.pinning.write(what, self.parts.now, write).await,
            News::Date => {
                // Only the date is old; a later attempt writes it.
                let written = self.kept.pinning.write(what, self.parts.now, write).await;
                Ok(written.unwrap_or_else(|held| {
                    tracing::warn!(reason = %held.reason, "{}", held.sentence());
                    Write::Done
                }))
            }
        }
    }
}
