//! The binary: see the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: wipe::Wiping = wipe::Wiping;

fn main() -> ExitCode {
    istio_ca_gate::start::start()
}
