//! Real Kubernetes control planes and Vault servers as owned child processes, for the tests.
//!
//! [`Cluster`] and [`Vault`] start on free ports of 127.0.0.1 with their data in a temporary folder, and are gone when
//! dropped, also when the test process is killed. [`binaries`] says where their programs come from.
//! Set `TESTBED_KEEP` to keep the temporary folders. [`evidence`] is what an observer is given.

mod agent;
mod api;
pub mod binaries;
mod cluster;
mod eventually;
pub mod evidence;
mod flux;
mod helm;
mod istiod;
mod kubelet;
mod kubernetes_api;
mod paced;
mod ports;
mod process;
pub mod side;
mod tls;
mod vault;
mod vault_api;

pub use agent::Agent;
pub use cluster::Cluster;
pub use eventually::{Attempt, eventually};
pub use flux::{Flux, definition};
pub use helm::Helm;
pub use istiod::{Istiod, IstiodService, WorkloadCertificate};
pub use kubelet::{Mounting, mount_volumes};
pub use kubernetes_api::{KubernetesApi, KubernetesIdentity};
pub use paced::{Paced, until_shown};
pub use ports::Port;
pub use process::{Process, Program, Signal};
pub use tls::{Authority, Identity, token_signing_key};
pub use vault::{Storage, Vault, VaultOptions};
pub use vault_api::VaultApi;

/// A temporary folder that is removed on drop, unless `TESTBED_KEEP` is set.
fn temporary_folder(name: &str) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("testbed-{name}-"))
        .disable_cleanup(std::env::var_os("TESTBED_KEEP").is_some())
        .tempdir()
}
