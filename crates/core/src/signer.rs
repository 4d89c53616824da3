//! Who certifies this cluster's signer under the root, whose key it never gives away.

use std::time::Duration;

use crate::refused::Refused;

/// What is asked of it. Certificates are PEM: one block, ended by exactly one newline.
///
/// A refusal is `SigningRefused`; where there is no answer, the reason is that of any other request without one.
pub trait Signer: Send {
    /// The certificate of the issuer of this name.
    fn issuer(&mut self, name: &str) -> impl Future<Output = Result<String, Refused>> + Send;

    /// Certifies a signer's key by this issuer for so long. What comes back is as Vault made it: it is the strict
    /// check's to judge.
    fn certify(
        &mut self,
        issuer: &str,
        csr: &str,
        common_name: &str,
        life: Duration,
    ) -> impl Future<Output = Result<String, Refused>> + Send;

    /// Makes the root of this name, and gives its certificate. One that is there already is the one that is given,
    /// whoever made it.
    fn make_root(&mut self, name: &str, common_name: &str) -> impl Future<Output = Result<String, Refused>> + Send;
}

/// Whether it can be asked at all.
pub trait Engine: Send {
    /// Holds unless the engine is there, and this role has some right in it.
    fn reach(&mut self) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// What the first root is called among the issuers. A policy can pin it, and by it the root is made once.
pub const FIRST_ROOT: &str = "root-1";

/// The common name of the root that is called so. The policies that come with the gate pin it.
pub fn root_common_name(name: &str) -> String {
    format!("Istio Root CA {name}")
}
