//! The life of a root on a mesh of real components: real istiods that read what the gates publish, Istio's own agents with
//! certificates of a minute, and every pair of workloads shaking hands all the time, in both directions.

mod controls;
pub mod envoy;
mod import;
mod killer;
mod node;
mod openssl;
mod prober;
mod renewal;
mod rescue;
mod rig;
mod rotation;
mod service;
