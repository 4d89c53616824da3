//! A CA's files: whatever the check takes, istiod, Go, webpki and Envoy's family take, too; and a trust bundle that is read
//! at all is read as those of them read it who use it.
//!
//! An input is the files one after the other, each behind a line `#### NAME`.

use std::collections::{BTreeMap, BTreeSet};

use istio_ca_gate::ca::bundle::{Bundle, ROOT_CERT};
use istio_ca_gate::ca::{Sha256, file};
use judge::cases::Case;
use judge::table::Verdicts;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::judged::by_go;

pub(crate) const WORDS: &[&str] = &[
    "#### root-cert.pem\n",
    "#### cert-chain.pem\n",
    "#### ca-cert.pem\n",
    "#### ca-key.pem\n",
    "#### ca-crl.pem\n",
    "#### tls.crt\n",
    "#### tls.key\n",
    "#### ca.crt\n",
    "#### istio-generated\n",
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----",
    "BEGIN ",
    "CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "X509 CRL",
    "EC PARAMETERS",
    "Proc-Type: 4,ENCRYPTED\n",
    "\r\n",
    "\n\n",
    " \n",
    "\t",
    "=",
    "==",
    "MII",
    "# text\n",
    ": ",
    "AAAA",
    "\u{feff}",
    "\u{a0}",
    "-----END CERTIFICATE----------BEGIN CERTIFICATE-----",
];

pub(crate) fn run(input: &[u8]) {
    let files = files(input);
    if let Some(roots) = files.get(ROOT_CERT) {
        trusted(roots);
    }
    if judge::consumers::product(&files, k8s_openapi::jiff::Timestamp::now()).is_ok() {
        taken(files);
    }
}

/// Whatever is between two such lines.
fn files(input: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for part in split(input, b"#### ") {
        let mut halves = part.splitn(2, |byte| *byte == b'\n');
        let (Some(name), Some(content)) = (halves.next(), halves.next()) else { continue };
        files.insert(String::from_utf8_lossy(name).into_owned(), content.to_vec());
    }
    files
}

fn split<'a>(mut input: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = input.windows(mark.len()).position(|window| window == mark) {
        parts.push(&input[..at]);
        input = &input[at + mark.len()..];
    }
    parts.push(input);
    parts
}

/// Roots that are compared are those that everybody trusts.
fn trusted(pem: &[u8]) {
    let Ok(glance) = file::roots(pem) else { return };
    let go: BTreeSet<_> = by_go(|go| go.certificates(pem)).iter().map(|der| Sha256::of(der)).collect();
    assert_eq!(glance.roots, go, "Go reads other certificates");
    let rustls = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let rustls = rustls.map(|ders| ders.iter().map(|der| Sha256::of(der)).collect::<BTreeSet<_>>());
    assert_eq!(rustls.ok(), Some(glance.roots), "rustls reads other certificates");
}

fn taken(files: BTreeMap<String, Vec<u8>>) {
    let bundle = Bundle::from_secret(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    if let Ok(bundle) = bundle
        && !bundle.beside.tls
    {
        // Vault's record has the same files.
        let record = Bundle::from_record(&bundle.to_record());
        assert!(
            record.is_ok_and(|record| record.same_files(&bundle)),
            "a record is another CA than what it was made of"
        );
    }
    let case = Case { number: 0, shape: String::new(), changes: Vec::new(), files };
    let folder = std::env::temp_dir();
    let verdicts = tempfile::tempdir_in(folder).map_err(Into::into).and_then(|folder| {
        let asked: anyhow::Result<Verdicts> = Ok(by_go(|go| Verdicts::of(&case, go, folder.path())));
        asked
    });
    let Ok(verdicts) = verdicts else { return };
    assert!(!verdicts.is_wrong_allow() || verdicts.is_on_purpose(), "{verdicts:?}");
}
