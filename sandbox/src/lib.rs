//! A guided tour: istio-ca-gate at work on two clusters and a Vault in this process, or on real ones.

pub mod gates;
pub mod istiods;
mod node;
mod signers;
pub mod stay;
pub mod tell;
pub mod tour;
mod typed;
pub mod world;
