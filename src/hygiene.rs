//! Keeps the memory of this process, which holds the CA's key, to itself.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dump, and no reading by other processes of the same user. Before anything else in `main`.
///
/// Where the kernel refuses, nothing else can be done: the gate is worth more than this.
pub fn keep_memory_private() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
