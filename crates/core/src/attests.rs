//! Where each cluster attests to what its mesh works with: what the gate asks of it.

use crate::cluster::Write;
use crate::life::attestation::{Attestation, InvalidAttestation};
use crate::refused::Refused;

/// What a cluster attests to, and where that was read.
#[derive(Clone, Debug)]
pub struct AttestedAt<O> {
    /// What is there, if it can be read. `None`: nothing, so that nobody waits for this cluster.
    pub read: Option<Result<Attestation, InvalidAttestation>>,
    /// The store's own: what is attested is written over this alone.
    pub over: O,
}

impl<O> AttestedAt<O> {
    /// What is there and can be read.
    pub fn attestation(&self) -> Option<&Attestation> {
        self.read.as_ref()?.as_ref().ok()
    }
}

/// The store, as a witness sees it.
pub trait Attests: Send {
    /// Where an attestation was read.
    type Over: Send + Sync;

    /// What this cluster attests to.
    fn attested(&mut self, cluster: &str) -> impl Future<Output = Result<AttestedAt<Self::Over>, Refused>> + Send;

    /// Attests over what was read. An error: it is not known to be written.
    fn attest(
        &mut self,
        over: &Self::Over,
        attestation: &Attestation,
    ) -> impl Future<Output = Result<Write, Refused>> + Send;
}
