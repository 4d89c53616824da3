//! Two clusters and a Vault in one process, to see istio-ca-gate at work and to test it.
//!
//! [`vault`] and [`kubernetes`] speak the wire protocols of the real ones as far as the gate, its users' `kubectl`
//! and these tests use them; the contract suite in `tests/contract` holds them to what the real ones do. [`faults`]
//! makes them fail, each fault by its name.

pub mod faults;
pub mod gates;
pub mod kubernetes;
pub mod side;
pub mod stay;
pub mod tell;
pub mod tour;
pub mod vault;
pub mod wire;
pub mod world;
