//! The life of a root: how all clusters are brought from one to the next without one handshake that fails. The record
//! names a goal, each cluster attests to what its mesh works with, and a rule says the one write that is due. Anybody may
//! run it, any number at once: nothing is kept but the record and the attestations.
//!
//! In reading order: [`attestation`], [`joining`], [`audience`], [`rule`], [`change`], [`start`], [`rescue`], [`witness`] and
//! [`course`].

pub mod attestation;
pub mod audience;
pub mod change;
pub mod course;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fixtures;
pub mod joining;
pub mod rescue;
pub mod rule;
pub mod start;
pub mod witness;
mod words;
