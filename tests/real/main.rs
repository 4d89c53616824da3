//! The gate against real Kubernetes control planes and a real Vault.
//!
//! Each test owns its world: one or two clusters, one or two Vaults, and the gates as processes of the
//! product's own binary with the rights of deploy/ and nothing more.

#![allow(unreachable_pub, clippy::print_stdout, reason = "a test binary has no API, and prints its figures")]

mod adopt;
mod adversity;
mod cacerts;
mod charts;
mod commands;
mod doctor;
mod external_secrets;
mod flux;
mod flux_move;
mod gate;
mod hygiene;
mod import;
mod istio;
#[path = "../it/istiods.rs"]
mod istiods;
mod life;
mod lossy;
mod manifests;
mod mesh;
mod metrics;
mod once;
mod onward;
mod probe;
mod race;
mod replicas;
#[path = "../it/rescue.rs"]
mod rescue;
mod restart;
mod rotate;
mod rotation;
#[path = "../it/rotations.rs"]
mod rotations;
mod self_test;
#[path = "../it/signers.rs"]
mod signers;
mod signing;
mod story;
mod trust_bundle;
mod vault_setup;
mod verify;
mod world;
