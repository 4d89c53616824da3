//! The contract suite against the embedded Vault and API server.

#![allow(unreachable_pub, reason = "a test binary has no API")]

mod suite;

use std::process::ExitCode;

use standin::kubernetes::Kubernetes;
use standin::vault::Vault;

fn main() -> ExitCode {
    suite::run("embedded", Vault::start, || Kubernetes::start("contract"))
}
