//! What istio-ca-gate decides, and what it knows of certificates. Values in, values out: nothing here waits, asks or
//! writes, and there is no async runtime, no client and no server in what it is built with.
//!
//! In reading order: [`reason`], [`plan`], [`snapshot`], [`gate`] and [`patch`](mod@patch); [`ca`] knows certificates, and
//! [`life`] how the root is replaced.

pub mod attests;
pub mod backoff;
pub mod ca;
pub mod clock;
pub mod cluster;
pub mod durations;
pub mod gate;
pub mod life;
pub mod names;
pub mod order;
pub mod patch;
pub mod plan;
pub mod reason;
pub mod refused;
pub mod report;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod selector;
pub mod signer;
pub mod skew;
pub mod snapshot;
pub mod store;
