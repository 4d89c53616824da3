//! istio-ca-gate keeps the pods of istiod and of the east-west gateway out of a cluster until Secret
//! `cacerts` is there and holds the root CA that all clusters share through Vault, and brings it there.
//!
//! ```text
//! API server ── AdmissionReview ──▶ server ──▶ webhook ──▶ gate (one match on a snapshot) ──▶ answer
//!                                                 │ not open: wake, wait
//!                                                 ▼
//!            Vault ◀── read, create ── converge ── plan (one match on both sides)
//!       Kubernetes ◀── cacerts, pin, blocked owners ──┘
//! ```
//!
//! Modules in reading order: [`reason`], [`plan`], [`snapshot`], [`gate`] and [`patch`](mod@patch) decide and touch nothing,
//! and [`ca`] knows certificates: they are of the crate `core`. [`vault`] and [`k8s`] talk, and are crates, too.
//! [`converge`] brings both together; [`webhook`] and [`endpoints`] face the API server by the server of the
//! crate `https`, [`serving`] has the certificate for it, and [`self_test`] tries whether it calls; [`page`](mod@page) and [`peers`] show people the roots of all clusters; [`run`] puts it all together. [`explain`]
//! has what every code means.

pub use gate_cluster as k8s;
#[cfg(test)]
use gate_core::samples;
pub use gate_core::{
    attests, backoff, ca, clock, cluster, durations, gate, life, names, order, patch, plan, reason, refused, report,
    selector, signer, skew, snapshot, store,
};
pub use gate_vault as vault;

pub mod args;
pub mod converge;
pub mod endpoints;
pub mod explain;
pub mod metrics;
pub mod page;
pub mod peers;
pub mod readiness;
pub mod run;
pub mod self_test;
pub mod serving;
pub mod shutdown;
pub mod telemetry;
pub mod webhook;
pub mod witness;
