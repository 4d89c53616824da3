//! The binary: see the library.

use std::process::ExitCode;

/// Wipes what is freed: hyper, reqwest, serde and kube leave plain copies of keys behind.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    istio_ca_gate::start::start()
}
