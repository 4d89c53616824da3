//! The contract suite against the real Vault and control plane.

#![allow(unreachable_pub, reason = "a test binary has no API")]

mod suite;

use std::process::ExitCode;

use testbed::{Cluster, Vault, VaultOptions};

fn main() -> ExitCode {
    suite::run("real", || Vault::start(VaultOptions::default()), || Cluster::start("contract"))
}
