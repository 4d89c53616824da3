//! The program istio-ca-gate: its command line over the service. It keeps the pods of istiod and of the east-west gateway
//! out of a cluster until Secret `cacerts` is there and holds the root CA that all clusters share through Vault, and brings
//! it there.
//!
//! The service is the crate `gate`, whose page has the picture of the flow. [`args`] is the command line, [`cli`] has the
//! commands for people; their rooms are named here as if they were this crate's own.

#[cfg(test)]
use gate_core::samples;
pub use gate_service::{
    backoff, ca, clock, cluster, converge, durations, endpoints, explain, gate, k8s, life, metrics, names, order, page,
    patch, peers, plan, readiness, reason, refused, report, run, selector, self_test, serving, shutdown, signer, skew,
    snapshot, store, telemetry, vault, webhook,
};

pub mod args;
pub mod cli;
pub mod hygiene;
pub mod start;

/// This program's version, with the commit that it was built from where that is known.
pub const VERSION: &str = env!("GATE_VERSION");
