//! The contract suite against the embedded Vault and API server.

#![allow(unreachable_pub, reason = "a test binary has no API")]

mod suite;

use std::process::ExitCode;

use sandbox::kubernetes::Kubernetes;
use sandbox::vault::Vault;

fn main() -> ExitCode {
    suite::run("embedded", Vault::start, || Kubernetes::start("contract"))
}
