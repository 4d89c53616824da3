//! Keeps what this process has in memory, the CA's key among it, to itself.

use std::io::Write;

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core dump, and no reading by other processes of the same user. Before anything else in `main`.
///
/// Where the kernel refuses, nothing else can be done: the gate is worth more than this.
pub fn keep_memory_private() {
    // Elsewhere there is no such call; other processes of the same user may read it there.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// A panic is told by its place alone: its message may repeat what it was about.
pub fn keep_panics_short() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "a panic; please report this");
        } else {
            // It may be closed.
            let _ = writeln!(std::io::stderr(), "istio-ca-gate: a panic at {place}; please report this");
        }
    }));
}
