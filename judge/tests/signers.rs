//! What verifiers make of the chains of signers, row by row: why the check of what Vault certifies is as strict as it is,
//! and why a chain has the signer and the cross in it and nothing else. Each row is asserted as it was measured, so that a
//! verifier that changes its mind is noticed.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use judge::boring::{self, Purpose};
use judge::consumers::{self, BoringSsl, Go};
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};

/// In their order in the rows.
const VERIFIERS: [&str; 4] = ["AWS-LC", "openssl", "Go", "webpki"];

/// What gRPC calls a workload by: it goes by no URI.
const NAME: &str = "cart.shop.svc";

/// Where BoringSSL itself is of another mind than its fork: it takes the first of two certificates of one root, valid or
/// not.
const NOT_AS_ITS_FORK: &str = "{old expired, new}";

const OK: [bool; 4] = [true; 4];
const REFUSED: [bool; 4] = [false; 4];
/// Only those who look for any way take it.
const SEARCHERS: [bool; 4] = [false, false, true, true];

/// A certificate, and what it was made of.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

type Change<'a> = dyn Fn(&mut CertificateParams) + 'a;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn copy(key: &KeyPair) -> Result<KeyPair> {
    Ok(KeyPair::try_from(key.serialized_der())?)
}

impl Made {
    fn root(name: &str, change: &Change<'_>) -> Result<Self> {
        Self::root_of(KeyPair::generate()?, name, change)
    }

    fn root_of(key: KeyPair, name: &str, change: &Change<'_>) -> Result<Self> {
        let mut params = params(name);
        change(&mut params);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { params, key, pem })
    }

    /// A CA of this key and name.
    fn issue(&self, key: KeyPair, name: &str, change: &Change<'_>) -> Result<Self> {
        let mut params = params(name);
        change(&mut params);
        let pem = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?.pem();
        Ok(Self { params, key, pem })
    }

    fn signer(&self, change: &Change<'_>) -> Result<Self> {
        self.issue(copy(&SIGNER)?, "Istio Intermediate CA nas", &|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            change(params);
        })
    }

    /// Another certificate for a root.
    fn cross(&self, root: &Self, change: &Change<'_>) -> Result<Self> {
        let name = root.params.key_identifier_method.clone();
        let mut params = root.params.clone();
        params.key_identifier_method = name;
        change(&mut params);
        let key = copy(&root.key)?;
        let pem = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?.pem();
        Ok(Self { params, key, pem })
    }

    /// What a workload shows that this one signed for, and its key.
    fn leaf(&self) -> Result<(String, KeyPair)> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        let uri = SanType::URI("spiffe://cluster.local/ns/shop/sa/cart".try_into()?);
        params.subject_alt_names = vec![uri, SanType::DnsName(NAME.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?.pem(), key))
    }
}

/// Kept as a cluster keeps it.
static SIGNER: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

fn as_is(_: &mut CertificateParams) {}

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn path_length(most: u8) -> impl Fn(&mut CertificateParams) {
    move |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most))
}

/// An authority key identifier of these parts. `id-ce-authorityKeyIdentifier`.
fn authority_key(value: Vec<u8>) -> impl Fn(&mut CertificateParams) {
    move |params| {
        params.use_authority_key_identifier_extension = false;
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 35], value.clone()));
    }
}

/// Without a subject key identifier, which rcgen writes for a CA: so this one says by itself that it is one.
fn without_identifier(params: &mut CertificateParams) {
    params.is_ca = IsCa::NoCa;
    params.use_authority_key_identifier_extension = false;
    let ca = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    params.custom_extensions.push(ca);
}

/// Who is asked about chains.
enum Judges {
    /// All but BoringSSL.
    Four {
        go: Go,
        folder: tempfile::TempDir,
    },
    BoringSsl(BoringSsl),
}

/// The rows, as they are asked.
struct Rows {
    judges: Judges,
    wrong: Vec<String>,
    count: usize,
}

impl Rows {
    fn of_four() -> Result<Self> {
        let judges = Judges::Four { go: Go::start()?, folder: tempfile::tempdir()? };
        Ok(Self { judges, wrong: Vec::new(), count: 0 })
    }

    /// A row: a leaf of `ca`, behind it `chain`, before who trusts `roots`.
    fn row(&mut self, what: &str, ca: &Made, chain: &[&Made], roots: &[&Made], expected: [bool; 4]) -> Result<()> {
        self.count += 1;
        let pem = |all: &[&Made]| all.iter().map(|one| one.pem.replace("\r\n", "\n")).collect::<String>();
        let (leaf, key) = ca.leaf()?;
        let (shown, roots) = (format!("{leaf}{}", pem(chain)), pem(roots));
        let verdicts = match &mut self.judges {
            Judges::BoringSsl(boring) => {
                let takes = expected[0] && what != NOT_AS_ITS_FORK;
                vec![("BoringSSL", boring.verify(&key.serialize_pem(), &shown, &roots, NAME), takes)]
            }
            Judges::Four { go, folder } => {
                let aws_lc = [Purpose::Client, Purpose::Server]
                    .into_iter()
                    .try_for_each(|purpose| boring::verify(roots.as_bytes(), None, shown.as_bytes(), purpose));
                let openssl = consumers::openssl_alone(&shown, &roots, folder.path());
                let webpki = consumers::webpki(&shown, &roots, Timestamp::now());
                let told = [aws_lc, openssl, go.verify(&shown, &roots), webpki];
                VERIFIERS.into_iter().zip(told).zip(expected).map(|((who, told), takes)| (who, told, takes)).collect()
            }
        };
        for (who, verdict, takes) in verdicts {
            if verdict.is_ok() != takes {
                self.wrong
                    .push(format!("{what}: {who}: {}", consumers::line(verdict).unwrap_or("takes it".to_owned())));
            }
        }
        Ok(())
    }

    fn end(&self, rows: usize) -> Result<()> {
        ensure!(self.wrong.is_empty(), "otherwise than measured:\n{}", self.wrong.join("\n"));
        ensure!(self.count == rows, "{} rows", self.count);
        Ok(())
    }
}

#[test]
fn a_signer_behind_a_cross_is_taken_whatever_of_the_two_roots_is_trusted() -> Result<()> {
    let mut rows = Rows::of_four()?;
    crosses(&mut rows)?;
    rows.end(9)
}

fn crosses(rows: &mut Rows) -> Result<()> {
    let (a, b) = (Made::root("A", &as_is)?, Made::root("B", &as_is)?);
    let (signer, cross, late) = (b.signer(&as_is)?, a.cross(&b, &as_is)?, a.cross(&b, &expired)?);
    for roots in [&[&a][..], &[&b], &[&a, &b], &[&b, &a]] {
        rows.row("[I, X]", &signer, &[&signer, &cross], roots, OK)?;
    }
    for roots in [&[&b][..], &[&a, &b]] {
        rows.row("X expired", &signer, &[&signer, &late], roots, OK)?;
    }
    rows.row("X expired, trust {A}", &signer, &[&signer, &late], &[&a], REFUSED)?;
    rows.row("[I, B, X], trust {A}", &signer, &[&signer, &b, &cross], &[&a], SEARCHERS)?;
    rows.row("[I, X, B], trust {A}", &signer, &[&signer, &cross, &b], &[&a], OK)?;
    Ok(())
}

#[test]
fn a_signers_authority_key_identifier_is_its_issuers_or_half_of_the_peers_refuse_it() -> Result<()> {
    let mut rows = Rows::of_four()?;
    identifiers(&mut rows)?;
    rows.end(7)
}

fn identifiers(rows: &mut Rows) -> Result<()> {
    // As istiod makes its own roots: an identifier that is not the SHA-1 of the key.
    let id = |params: &mut CertificateParams| params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    let (a, b) = (Made::root("A", &id)?, Made::root("B", &id)?);
    let cross = a.cross(&b, &as_is)?;
    let key_id = [&[0x80, 20][..], &[7; 20]].concat();
    let of = |parts: &[u8]| authority_key([&[0x30, parts.len() as u8], parts].concat());

    let right = b.signer(&of(&key_id))?;
    rows.row("AKI is the issuer's SKI", &right, &[&right, &cross], &[&a], OK)?;
    let computed = b.signer(&of(&[&[0x80, 20][..], &[9; 20]].concat()))?;
    for roots in [&[&b][..], &[&a, &b]] {
        rows.row("AKI is another", &computed, &[&computed], roots, SEARCHERS)?;
    }
    // With issuer A and serial 1: of the cross and of B, at most one has it.
    let name = [0x30, 12, 0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 0x0c, 1, b'B'];
    let names = [&[0xa4, name.len() as u8][..], &name].concat();
    let serial = [&[0xa1, names.len() as u8][..], &names, &[0x82, 1, 1]].concat();
    let named = b.signer(&of(&[&key_id[..], &serial].concat()))?;
    for roots in [&[&a][..], &[&a, &b]] {
        rows.row("AKI names issuer and serial", &named, &[&named, &cross], roots, SEARCHERS)?;
    }
    let silent = b.signer(&|params| params.use_authority_key_identifier_extension = false)?;
    rows.row("no AKI", &silent, &[&silent], &[&b], OK)?;
    rows.row("no AKI, with a cross", &silent, &[&silent, &cross], &[&a], OK)?;
    Ok(())
}

#[test]
fn a_root_renewed_with_its_key_and_roots_of_one_name_without_identifiers_depend_on_the_order() -> Result<()> {
    let mut rows = Rows::of_four()?;
    orders(&mut rows)?;
    rows.end(8)
}

fn orders(rows: &mut Rows) -> Result<()> {
    let old = Made::root("A", &expired)?;
    let new = Made::root_of(copy(&old.key)?, "A", &as_is)?;
    let signer = new.signer(&as_is)?;
    // Envoy's own BoringSSL takes the first that fits, and fails; its fork prefers one that is valid, as openssl does.
    rows.row("{old expired, new}", &signer, &[&signer], &[&old, &new], OK)?;
    rows.row("{new, old expired}", &signer, &[&signer], &[&new, &old], OK)?;

    let (one, other) = (Made::root("cluster.local", &as_is)?, Made::root("cluster.local", &as_is)?);
    let signer = other.signer(&as_is)?;
    for roots in [&[&one, &other], &[&other, &one]] {
        rows.row("one name, with SKI", &signer, &[&signer], roots, OK)?;
    }
    let (one, other) = (Made::root("O", &without_identifier)?, Made::root("O", &without_identifier)?);
    let signer = other.signer(&|params| params.use_authority_key_identifier_extension = false)?;
    rows.row("one name, no SKI, the wrong first", &signer, &[&signer], &[&one, &other], SEARCHERS)?;
    rows.row("one name, no SKI, the right first", &signer, &[&signer], &[&other, &one], OK)?;

    let (root, past) = (Made::root("R", &as_is)?, Made::root("Past", &expired)?);
    let signer = root.signer(&as_is)?;
    rows.row("an expired root of another name", &signer, &[&signer], &[&past, &root], OK)?;
    rows.row("a root twice", &signer, &[&signer], &[&root, &root], OK)?;
    Ok(())
}

#[test]
fn a_leaf_needs_its_own_signer_and_takes_any_chain_that_has_it() -> Result<()> {
    let mut rows = Rows::of_four()?;
    leaves(&mut rows)?;
    rows.end(7)
}

fn leaves(rows: &mut Rows) -> Result<()> {
    let (a, b) = (Made::root("A", &as_is)?, Made::root("B", &as_is)?);
    let old = a.issue(KeyPair::generate()?, "Istio Intermediate CA nas", &path_length(0))?;
    let (new, other) = (b.signer(&as_is)?, Made::root("Other", &as_is)?.issue(KeyPair::generate()?, "Other", &as_is)?);
    let cross = a.cross(&b, &as_is)?;
    rows.row("the old signer's chain", &new, &[&old], &[&a, &b], REFUSED)?;
    for chain in [&[&new, &old, &cross][..], &[&old, &new, &cross]] {
        rows.row("both signers", &new, chain, &[&a, &b], OK)?;
    }
    rows.row("an extra CA", &new, &[&new, &other, &cross], &[&a], OK)?;
    rows.row("out of order", &new, &[&cross, &new], &[&a], OK)?;
    // With the same key, either chain fits the leaf: why a cluster keeps its key.
    let renewed = a.signer(&as_is)?;
    rows.row("the same key, the old chain", &new, &[&renewed], &[&a], OK)?;
    rows.row("the same key, the new chain", &renewed, &[&new, &cross], &[&a], OK)?;
    Ok(())
}

#[test]
fn path_lengths_and_constraints_are_asked_by_some_and_not_by_others() -> Result<()> {
    let mut rows = Rows::of_four()?;
    limits(&mut rows)?;
    rows.end(7)
}

fn limits(rows: &mut Rows) -> Result<()> {
    let tight = Made::root("A", &path_length(0))?;
    let signer = tight.signer(&as_is)?;
    rows.row("root of pathlen 0 over a signer", &signer, &[&signer], &[&tight], [true, false, false, true])?;
    let (narrow, b) = (Made::root("A", &path_length(1))?, Made::root("B", &as_is)?);
    let (signer, cross) = (b.signer(&as_is)?, narrow.cross(&b, &as_is)?);
    rows.row("root of pathlen 1 over a cross", &signer, &[&signer, &cross], &[&narrow], [true, false, false, true])?;
    let a = Made::root("A", &as_is)?;
    let short = a.cross(&b, &path_length(0))?;
    rows.row("cross of pathlen 0", &signer, &[&signer, &short], &[&a], REFUSED)?;
    let first = a.signer(&as_is)?;
    let beneath = first.issue(KeyPair::generate()?, "Beneath", &path_length(0))?;
    rows.row("a signer beneath a signer", &beneath, &[&beneath, &first], &[&a], REFUSED)?;

    let uri = |params: &mut CertificateParams| {
        // rcgen knows no such subtree: permitted, a URI of this host.
        let host = b"cluster.local";
        let subtree = [&[0x86, host.len() as u8][..], host].concat();
        let inner = [&[0xa0, subtree.len() as u8 + 2, 0x30, subtree.len() as u8][..], &subtree].concat();
        let value = [&[0x30, inner.len() as u8][..], &inner].concat();
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], value);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let constrained = a.signer(&uri)?;
    rows.row("URI constraint that fits", &constrained, &[&constrained], &[&a], [true, true, true, false])?;
    let dns = a.signer(&|params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("svc".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
    })?;
    rows.row("DNS constraint that fits", &dns, &[&dns], &[&a], OK)?;
    let both = a.signer(&|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    })?;
    rows.row("EKU with both uses", &both, &[&both], &[&a], OK)?;
    Ok(())
}

/// BoringSSL has no crate that knows of certificates: Python's gRPC has it built in.
#[test]
#[ignore = "needs Python 3.11 to 3.13 and the package index: see CONTRIBUTING.md"]
fn boringssl_says_of_each_row_what_its_fork_says_but_for_one() -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boringssl");
    let judges = Judges::BoringSsl(BoringSsl::start(&folder)?);
    let mut rows = Rows { judges, wrong: Vec::new(), count: 0 };
    for ask in [crosses, identifiers, orders, leaves, limits] {
        ask(&mut rows)?;
    }
    rows.end(38)
}
