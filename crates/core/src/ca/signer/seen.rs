//! A signer as anybody sees it who has not its key.

use super::super::Sha256;
use super::super::bundle::{CA_CERT, ROOT_CERT};
use super::super::certificate::Certificate;
use super::super::pem::certificates;
use super::{FIRST, SigningCa, common_name};
use crate::ca::bundle::MAX_CERTIFICATES;

/// What `cacerts` says of a cluster's own signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSigner {
    /// The cluster that its name has in it.
    pub cluster: String,
    /// Its certificate.
    pub ca: SigningCa,
    /// The root that signed it.
    pub root: Sha256,
}

/// The signer that `ca-cert.pem` begins with. `None`: it has no signer's name, or none of these roots signed it.
pub fn seen(ca_cert: &[u8], root_cert: &[u8]) -> Option<SeenSigner> {
    let first = certificates(CA_CERT, ca_cert, MAX_CERTIFICATES).ok()?;
    let signer = Certificate::parse(FIRST, first.ders.first()?).ok()?;
    let name = signer.x509.subject().iter_common_name().next()?.as_str().ok()?;
    let cluster = name.strip_prefix(&common_name(""))?.to_owned();
    let roots = certificates(ROOT_CERT, root_cert, MAX_CERTIFICATES).ok()?;
    let root = roots.ders.iter().find_map(|der| {
        let root = Certificate::parse(FIRST, der).ok()?;
        root.signed(&signer).then_some(root.sha256)
    })?;
    Some(SeenSigner { cluster, ca: SigningCa::of(&signer), root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::fixtures::Ca;

    #[test]
    fn a_signer_is_known_by_its_name_and_its_root_by_its_signature() {
        let (old, new) = (Ca::root("Root 1"), Ca::root("Root 2"));
        let bundle = old.certificate.pem() + &new.certificate.pem();
        let signer = new.issue(&common_name("nas"));
        let pem = |ca: &Ca| ca.certificate.pem().into_bytes();
        let told = seen(&pem(&signer), bundle.as_bytes());
        let (sha256, root) = (Sha256::of(signer.certificate.der()), Sha256::of(new.certificate.der()));
        assert_eq!(told.map(|it| (it.cluster, it.ca.sha256, it.root)), Some(("nas".to_owned(), sha256, root)));
        // One that nobody of the bundle signed, a CA of another name, the root itself, and nothing at all.
        assert_eq!(seen(&pem(&signer), &pem(&old)), None);
        assert_eq!(seen(&pem(&new.issue("Somebody's CA")), bundle.as_bytes()), None);
        assert_eq!(seen(&pem(&new), bundle.as_bytes()), None);
        assert_eq!(seen(b"", bundle.as_bytes()), None);
    }
}
