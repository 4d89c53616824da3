//! ConfigMap `istio-ca-root-cert` of the namespace, in which istiod tells what the mesh is served as its roots.

use std::time::Duration;

use kube::Client;

use super::root_cert::{self, Holder};
use super::{Failed, unreachable_api};
use gate_core::ca::bundle::glance;
use gate_core::plan::Mesh;
use gate_core::reason::Held;

/// Its name.
pub const NAME: &str = "istio-ca-root-cert";

const TIMEOUT: Duration = super::CALL_TIMEOUT;

/// The ConfigMap of one cluster.
pub struct Served {
    client: Client,
    namespace: String,
}

impl Served {
    /// That of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Reads it. One that cannot be read is an error, never absent.
    ///
    /// # Errors
    /// The reason.
    pub async fn read(&self) -> Result<Mesh, Held> {
        let doing = format!("read ConfigMap {}/{NAME}", self.namespace);
        let read = root_cert::read(&self.client, Holder::ConfigMap, &self.namespace, NAME);
        match tokio::time::timeout(TIMEOUT, read).await {
            Err(_) => Err(unreachable_api(&doing, "its answer took too long")),
            Ok(Err(Failed::NotFound)) => Ok(Mesh::Absent),
            Ok(Err(failed)) => Err(failed.into_held(&doing)),
            Ok(Ok(files)) => Ok(of(files.as_ref().map(|files| files.root_cert.as_slice()))),
        }
    }
}

/// What a `root-cert.pem` says of the mesh.
fn of(file: Option<&[u8]>) -> Mesh {
    file.and_then(glance).map_or(Mesh::Unreadable, |glance| Mesh::Serves { first: glance.sha256, roots: glance.roots })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gate_core::samples::{BOTH, R1};

    #[test]
    fn roots_are_read_as_a_whole_or_not_at_all() {
        let one = Mesh::Serves { first: R1.root, roots: [R1.root].into() };
        assert_eq!(of(Some(&R1.bundle.root_cert)), one);
        let both = &BOTH.bundle.root_cert;
        assert!(matches!(of(Some(both)), Mesh::Serves { roots, .. } if roots.len() == 2));
        for none in [None, Some(&b""[..]), Some(b"PEM"), Some(&both[..both.len() - 40])] {
            assert_eq!(of(none), Mesh::Unreadable);
        }
    }
}
