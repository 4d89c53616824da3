//! What an observer needs of a run: the servers' own audit logs and the logs of the program under test, in the folder that
//! `TESTBED_EVIDENCE` names. Without it nothing is kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The program whose log is kept.
const PROGRAM: &str = "istio-ca-gate";

/// What the API server is to record: who changes Secrets and pods where Istio is, with both bodies.
pub(crate) const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
  "rules": [
    { "level": "RequestResponse", "namespaces": ["istio-system"],
      "verbs": ["create", "update", "patch", "delete", "deletecollection"],
      "resources": [{ "group": "", "resources": ["secrets", "pods"] }] },
    { "level": "None" }
  ]
}"#;

/// The folder, where there is one.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("TESTBED_EVIDENCE").filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// The path of a new file in it, of this kind.
pub(crate) fn file(name: &str, kind: &str) -> Option<PathBuf> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Some(folder()?.join(format!("{name}.{}-{number}.{kind}", std::process::id())))
}

/// Keeps the log of the program under test, also when its own folder goes.
pub(crate) fn keep_log(program: &Path, log: &Path) {
    if program.file_name().is_some_and(|name| name == PROGRAM)
        && let Some(kept) = file("gate", "gate-log")
    {
        // Both are temporary files; where they are not of one file system, nothing is kept, and the observer says so.
        let _ = std::fs::hard_link(log, kept);
    }
}
