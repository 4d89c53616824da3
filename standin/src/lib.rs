//! A Vault and Kubernetes API servers in memory, for tests and for the guided tour.
//!
//! [`vault`] and [`kubernetes`] speak the wire protocols of the real ones as far as istio-ca-gate, its users' `kubectl`
//! and the tests use them; the contract suite in `tests/contract` holds them to what the real ones do. [`faults`]
//! makes them fail, each fault by its name; a [`journal`] keeps what they were asked and did. [`scripted`] answers as it is told, also what no sound server would.

pub mod faults;
pub mod journal;
pub mod kubernetes;
pub mod scripted;
pub mod vault;
pub mod wire;
