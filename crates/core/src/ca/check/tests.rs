#![allow(clippy::unwrap_used, clippy::panic)]

use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::bundle::{CA_CRT, CA_KEY, CRL, TLS_CRT, TLS_KEY};
use super::super::fixtures::{self, Ca, HOUR, NOW, YEARS, at, bundle, now, pem, traditional};
use super::super::issue::set_validity;
use super::*;

fn print(ca: &Ca) -> Sha256 {
    Sha256::of(ca.certificate.der())
}

/// The root that was found.
fn verdict(bundle: Bundle) -> Result<Sha256, Flaw> {
    check(bundle, now()).map(|sound| sound.root)
}

fn sound(bundle: Bundle) -> Sound {
    check(bundle, now()).unwrap()
}

fn at_most(beneath: u8) -> IsCa {
    IsCa::Ca(BasicConstraints::Constrained(beneath))
}

fn root_at(position: usize) -> At {
    At { file: ROOT_CERT, position }
}

fn chain_at(position: usize) -> At {
    At { file: CERT_CHAIN, position }
}

/// What another peer, which is not ours, makes of a workload's certificate under that bundle.
fn rustls_verifies_a_workload_under(bundle: &Bundle, ca: &Ca) -> Result<(), rustls::Error> {
    let ders = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
        certificates(CERT_CHAIN, pem, 10).unwrap().ders.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
    };
    let mut roots = RootCertStore::empty();
    ders(&bundle.root_cert).into_iter().for_each(|root| roots.add(root).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let mut params = rcgen::CertificateParams::new(["istiod.istio-system.svc".to_owned()]).unwrap();
    set_validity(&mut params, NOW - HOUR, NOW + HOUR);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = ca.sign(&params, &KeyPair::generate().unwrap());
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW.unsigned_abs()));
    verifier.verify_server_cert(leaf.der(), &ders(&bundle.cert_chain), &name, &[], time).map(|_| ())
}

#[test]
fn a_root_may_sign_directly() {
    let root = Ca::root("Root");
    assert_eq!(verdict(root.bundle()), Ok(print(&root)));
    assert_eq!(rustls_verifies_a_workload_under(&root.bundle(), &root), Ok(()));
}

#[test]
fn a_ca_beneath_a_root_is_accepted() {
    let root = Ca::root("Root");
    let ca = root.issue("CA");
    assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
    assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
}

#[test]
fn a_root_that_signs_itself_is_told_from_a_ca_beneath_it() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let ca = root.issue("CA");
    assert!(sound(root.bundle()).signs_with_the_root());
    assert!(sound(bundle(&[&other, &root], &[&root], &root)).signs_with_the_root());
    assert!(!sound(ca.bundle_under(&root)).signs_with_the_root());
}

#[test]
fn the_chain_may_have_the_root_too_and_be_in_any_order() {
    let root = Ca::root("Root");
    let middle = root.issue("Middle");
    let ca = middle.issue("CA");
    let chains: [&[&Ca]; 4] =
        [&[&ca, &middle], &[&ca, &middle, &root], &[&root, &middle, &ca], &[&middle, &ca, &middle]];
    for chain in chains {
        let bundle = bundle(&[&root], chain, &ca);
        assert_eq!(rustls_verifies_a_workload_under(&bundle, &ca), Ok(()));
        assert_eq!(verdict(bundle), Ok(print(&root)));
    }
}

#[test]
fn a_chain_that_lacks_the_signing_ca_is_refused() {
    let root = Ca::root("Root");
    let ca = root.issue("CA");
    let bundle = bundle(&[&root], &[&root], &ca);
    assert!(rustls_verifies_a_workload_under(&bundle, &ca).is_err());
    assert_eq!(verdict(bundle), Err(Flaw::ChainLacksCa));
}

#[test]
fn a_chain_that_lacks_a_ca_in_the_middle_is_refused() {
    let root = Ca::root("Root");
    let middle = root.issue("Middle");
    let ca = middle.issue("CA");
    assert_eq!(verdict(bundle(&[&root], &[&ca], &ca)), Err(Flaw::NoPath));
    assert_eq!(verdict(bundle(&[&root], &[&ca, &root], &ca)), Err(Flaw::NoPath));
}

#[test]
fn a_root_that_is_not_in_root_cert_is_refused() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let ca = root.issue("CA");
    assert_eq!(verdict(bundle(&[&other], &[&ca], &ca)), Err(Flaw::NoPath));
    assert_eq!(verdict(bundle(&[&other], &[&ca, &root], &ca)), Err(Flaw::DeadEnd(chain_at(2))));
    assert_eq!(verdict(bundle(&[&other], &[&root], &root)), Err(Flaw::DeadEnd(chain_at(1))));
    assert_eq!(verdict(bundle(&[&other], &[&other], &root)), Err(Flaw::ChainLacksCa));
}

#[test]
fn a_forged_issuer_name_is_refused() {
    let (root, forger) = (Ca::root("Root"), Ca::root("Root"));
    let ca = forger.issue_but("CA", |params| params.use_authority_key_identifier_extension = false);
    assert_eq!(verdict(ca.bundle_under(&forger)), Ok(print(&forger)));
    assert_eq!(verdict(ca.bundle_under(&root)), Err(Flaw::NoPath));
}

#[test]
fn a_right_signature_under_another_name_is_refused() {
    let root = Ca::root("Root");
    let renamed = Ca::root_with(KeyPair::try_from(root.key.serialized_der()).unwrap(), "Renamed", |_| ());
    let ca = root.issue("CA");
    assert_eq!(verdict(ca.bundle_under(&renamed)), Err(Flaw::NoPath));
}

#[test]
fn key_identifiers_that_differ_are_refused() {
    let root = Ca::root("Root");
    let other_id = |params: &mut rcgen::CertificateParams| {
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
    };
    let twin = Ca::root_with(KeyPair::try_from(root.key.serialized_der()).unwrap(), "Root", |params| {
        params.use_authority_key_identifier_extension = false;
        other_id(params);
    });
    let ca = root.issue("CA");
    // istiod takes it, and every Envoy refuses it.
    let flaw = Flaw::KeyIdentifiers(chain_at(1), root_at(1));
    assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&twin), &ca), Ok(()));
    assert_eq!(verdict(ca.bundle_under(&twin)), Err(flaw));
    let unnamed = root.issue_but("CA", |params| params.use_authority_key_identifier_extension = false);
    assert_eq!(verdict(unnamed.bundle_under(&twin)), Ok(print(&twin)));
}

#[test]
fn an_issuers_serial_that_differs_is_refused() {
    let root = Ca::root_but("Root", |params| params.serial_number = Some(vec![7, 7].into()));
    for (serial, expected) in [(7, Ok(print(&root))), (8, Err(Flaw::KeyIdentifiers(chain_at(1), root_at(1))))] {
        let ca = root.issue_but("CA", |params| {
            params.use_authority_key_identifier_extension = false;
            // AuthorityKeyIdentifier with authorityCertSerialNumber alone.
            let authority = CustomExtension::from_oid_content(&[2, 5, 29, 35], vec![0x30, 4, 0x82, 2, 7, serial]);
            params.custom_extensions.push(authority);
        });
        assert_eq!(verdict(ca.bundle_under(&root)), expected);
    }
}

#[test]
fn a_ca_beneath_a_root_may_be_trusted_alone_or_beside_it() {
    let root = Ca::root("Root");
    let ca = root.issue("CA");
    let alone = sound(bundle(&[&ca], &[&ca], &ca));
    assert_eq!((alone.root, &alone.notes[..]), (print(&ca), &[Note::NotSelfSigned(root_at(1))][..]));
    let both = sound(bundle(&[&ca, &root], &[&ca], &ca));
    assert_eq!((both.root, &both.notes[..]), (print(&root), &[Note::NotSelfSigned(root_at(1))][..]));
}

#[test]
fn several_roots_are_accepted_and_the_right_one_is_found() {
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let ca = new.issue("CA");
    let sound = sound(bundle(&[&old, &new], &[&ca], &ca));
    assert_eq!(sound.root, print(&new));
    assert_eq!(sound.roots(), &BTreeSet::from([print(&old), print(&new)]));
    assert_eq!(sound.glance.sha256, print(&old));
}

#[test]
fn an_expired_root_beside_a_good_one_is_told_and_closes_nothing() {
    let good = Ca::root("Good");
    let old = Ca::root_but("Old", |params| set_validity(params, NOW - YEARS, NOW - HOUR));
    let sound = sound(bundle(&[&good, &old], &[&good], &good));
    assert_eq!(sound.notes, [Note::Expired(root_at(2), at(NOW - HOUR))]);
    assert_eq!(sound.usable_until, Until { at: at(NOW + YEARS), by: root_at(1) });
}

#[test]
fn an_expired_ca_in_the_chain_that_no_path_needs_is_told() {
    let root = Ca::root("Root");
    let old = root.issue_but("Old", |params| set_validity(params, NOW - YEARS, NOW - HOUR));
    let sound = sound(bundle(&[&root], &[&root, &old], &root));
    assert_eq!(sound.notes, [Note::Expired(chain_at(2), at(NOW - HOUR))]);
}

#[test]
fn a_cross_signed_ca_that_has_expired_matters_only_where_it_is_needed() {
    let (old, new) = (Ca::root_but("Old", |params| set_validity(params, NOW - YEARS, NOW + HOUR)), Ca::root("New"));
    let cross = {
        let mut params = new.params.clone();
        set_validity(&mut params, NOW - YEARS, NOW - HOUR);
        let certificate = old.sign(&params, &new.key);
        Ca { params, key: KeyPair::try_from(new.key.serialized_der()).unwrap(), certificate }
    };
    let ca = new.issue("CA");
    for roots in [&[&new][..], &[&new, &old]] {
        let sound = sound(bundle(roots, &[&ca, &cross], &ca));
        assert_eq!(sound.notes[0], Note::Expired(chain_at(2), at(NOW - HOUR)));
        assert_eq!(sound.usable_until.at, at(NOW + YEARS));
    }
    assert_eq!(verdict(bundle(&[&old], &[&ca, &cross], &ca)), Err(Flaw::Expired(chain_at(2), at(NOW - HOUR))));
}

#[test]
fn the_first_end_of_what_is_needed_is_until_when_it_is_usable() {
    let root = Ca::root("Root");
    let soon = root.issue_but("CA", |params| set_validity(params, NOW - HOUR, NOW + 240 * HOUR));
    let sound = sound(bundle(&[&root], &[&soon, &root], &soon));
    assert_eq!(sound.usable_until, Until { at: at(NOW + 240 * HOUR), by: chain_at(1) });
    assert_eq!(sound.glance.not_after, at(NOW + YEARS));
}

#[test]
fn a_root_that_was_renewed_with_its_key_ends_with_the_older_certificate() {
    // Envoy takes either for the issuer, whatever the order.
    let new = Ca::root("Root");
    let key = KeyPair::try_from(new.key.serialized_der()).unwrap();
    let old = Ca::root_with(key, "Root", |params| set_validity(params, NOW - YEARS, NOW + HOUR));
    let ca = new.issue("CA");
    for roots in [[&old, &new], [&new, &old]] {
        assert_eq!(sound(bundle(&roots, &[&ca], &ca)).usable_until.at, at(NOW + HOUR));
        let later = check(bundle(&roots, &[&ca], &ca), at(NOW + HOUR + 1)).unwrap_err();
        assert!(later.is_expired(), "{later}");
    }
}

#[test]
fn two_roots_of_one_name_without_key_identifiers_are_refused() {
    let (one, two) = (Ca::root("Root"), Ca::root("Root"));
    let ca = one.issue_but("CA", |params| params.use_authority_key_identifier_extension = false);
    let nameless = [without_identifier(&one), without_identifier(&two)];
    let with = |roots: &[&String]| Bundle {
        root_cert: roots.iter().map(|pem| pem.as_str()).collect::<String>().into_bytes(),
        ..ca.bundle_under(&one)
    };
    assert!(check(with(&[&nameless[0]]), now()).is_ok());
    for (roots, wrong, right) in [([0, 1], 2, 1), ([1, 0], 1, 2)] {
        let bundle = with(&roots.map(|index| &nameless[index]));
        assert_eq!(verdict(bundle), Err(Flaw::Ambiguous(root_at(wrong), root_at(right))));
    }
    // As istiod's own roots have it: the identifiers tell.
    let (one, two) = (Ca::root("Root"), Ca::root("Root"));
    let ca = one.issue("CA");
    assert_eq!(verdict(bundle(&[&two, &one], &[&ca], &ca)), Ok(print(&one)));
}

/// A root without subjectKeyIdentifier, which rcgen always writes: here it is an extension that nobody knows.
fn without_identifier(root: &Ca) -> String {
    let der = fixtures::signed_anew(root, |parts| {
        for id in [14, 35] {
            let extensions = parts.last_mut().unwrap();
            let at = extensions.windows(5).position(|window| window == [6, 3, 0x55, 0x1d, id]).unwrap();
            extensions[at + 4] = id + 50;
        }
    });
    pem("CERTIFICATE", &der, 64, "\n")
}

#[test]
fn a_self_signed_root_before_its_cross_is_refused() {
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let (cross, ca) = (old.cross_sign(&new), new.issue("CA"));
    // Go and webpki would find the way.
    let before = bundle(&[&old], &[&ca, &new, &cross], &ca);
    assert_eq!(rustls_verifies_a_workload_under(&before, &ca), Ok(()));
    assert_eq!(verdict(before), Err(Flaw::DeadEnd(chain_at(2))));
    assert_eq!(verdict(bundle(&[&old], &[&ca, &cross, &new], &ca)), Ok(print(&old)));
}

#[test]
fn issuer_and_serial_in_a_key_identifier_do_not_survive_a_cross() {
    let (old, new) = (Ca::root("Old"), Ca::root_but("New", |params| params.serial_number = Some(vec![7, 7].into())));
    let mut cross = old.cross_sign(&new);
    cross.params.serial_number = Some(vec![9].into());
    cross.certificate = old.sign(&cross.params, &new.key);
    let ca = new.issue_but("CA", |params| {
        params.use_authority_key_identifier_extension = false;
        let authority = CustomExtension::from_oid_content(&[2, 5, 29, 35], vec![0x30, 4, 0x82, 2, 7, 7]);
        params.custom_extensions.push(authority);
    });
    assert_eq!(verdict(ca.bundle_under(&new)), Ok(print(&new)));
    assert_eq!(verdict(bundle(&[&old], &[&ca, &cross], &ca)), Err(Flaw::KeyIdentifiers(chain_at(1), chain_at(2))));
}

#[test]
fn an_empty_chain_does_where_the_root_signs() {
    let root = Ca::root("Root");
    let sound = sound(Bundle { cert_chain: Vec::new(), ..root.bundle() });
    assert_eq!(sound.notes, [Note::NoChain]);
    let ca = root.issue("CA");
    let beneath = Bundle { cert_chain: Vec::new(), ..ca.bundle_under(&root) };
    assert_eq!(verdict(beneath), Err(Flaw::ChainLacksCa));
}

#[test]
fn more_than_ten_roots_are_told_and_accepted() {
    let root = Ca::root("Root");
    let others: Vec<Ca> = (0..11).map(|index| Ca::root(&format!("Root {index}"))).collect();
    let roots: Vec<&Ca> = [&root].into_iter().chain(&others).collect();
    assert_eq!(sound(bundle(&roots, &[&root], &root)).notes, [Note::ManyRoots(12)]);
}

#[test]
fn text_around_certificates_is_told_and_accepted() {
    let root = Ca::root("Root");
    let pem = root.certificate.pem();
    let text =
        format!("Certificate:\n    Data:\n        Version: 3 (0x2)\n{pem}Bag Attributes\n    friendlyName: Root\n")
            .into_bytes();
    let sound = sound(Bundle { root_cert: text.clone(), ca_cert: text, ..root.bundle() });
    assert_eq!(sound.notes, [Note::Text(ROOT_CERT), Note::Text(CA_CERT)]);
}

#[test]
fn critical_policies_are_accepted_on_a_root_alone() {
    // 1.2.3.4.
    let mut policies = CustomExtension::from_oid_content(&[2, 5, 29, 32], vec![0x30, 7, 0x30, 5, 6, 3, 42, 3, 4]);
    policies.set_criticality(true);
    let root = Ca::root_but("Root", |params| params.custom_extensions.push(policies.clone()));
    let ca = root.issue("CA");
    assert_eq!(sound(ca.bundle_under(&root)).notes, [Note::Policies(root_at(1))]);
    let plain = Ca::root("Root");
    let ca = plain.issue_but("CA", |params| params.custom_extensions.push(policies));
    assert_eq!(verdict(ca.bundle_under(&plain)), Err(Flaw::CriticalExtension(chain_at(1), "2.5.29.32".to_owned())));
}

/// A root with name constraints of these kinds, all permitted.
fn constrained(critical: bool, subtrees: &[(u8, &[u8])]) -> impl FnOnce(&mut rcgen::CertificateParams) {
    use super::super::der::element;
    let subtrees: Vec<u8> =
        subtrees.iter().flat_map(|(tag, value)| element(0x30, &[&element(*tag, &[value])])).collect();
    let mut constraints =
        CustomExtension::from_oid_content(&[2, 5, 29, 30], element(0x30, &[&element(0xa0, &[&subtrees])]));
    constraints.set_criticality(critical);
    move |params| params.custom_extensions.push(constraints)
}

#[test]
fn name_constraints_are_judged_by_what_they_do_to_the_names_that_istiod_signs() {
    let directory = b"\x30\x12\x31\x10\x30\x0e\x06\x03\x55\x04\x0a\x0c\x07Example".as_slice();
    let other = b"\x06\x03\x2a\x03\x04\xa0\x03\x0c\x01a".as_slice();
    let kind = |what| Err(Flaw::ConstraintKind(root_at(1), what));
    for (critical, subtrees, expected) in [
        (true, vec![(0xa4, directory), (0x82, b".svc")], kind("directory names (dirName)")),
        (false, vec![(0xa4, directory)], kind("directory names (dirName)")),
        (true, vec![(0xa0, other), (0x82, b".svc")], kind("names of other kinds (otherName)")),
        (true, vec![(0x88, b"\x2a\x03")], kind("registered IDs (RID)")),
        (true, vec![(0x86, b"cluster.local")], kind("URIs")),
        (false, vec![(0xa0, other)], Ok(())),
        (true, vec![(0x82, b"cluster.local"), (0x82, b".svc"), (0x87, &[0; 8])], Ok(())),
        (true, vec![(0x81, b".example.org")], Ok(())),
        (
            true,
            vec![(0x82, b".example.org")],
            Err(Flaw::NotPermitted(root_at(1), "istiod.istio-system.svc".to_owned())),
        ),
    ] {
        let root = Ca::root_but("Root", constrained(critical, &subtrees));
        assert_eq!(verdict(root.bundle()).map(|_| ()), expected, "{subtrees:?}");
    }
}

#[test]
fn names_that_a_ca_carries_itself_are_judged_too() {
    let root = Ca::root_but("Root", constrained(true, &[(0x82, b".svc")]));
    for (name, fits) in [("istiod.istio-system.svc", true), ("istiod.example.org", false)] {
        let ca = root.issue_but("CA", |params| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
        });
        let told = Flaw::NotPermitted(root_at(1), "a name in certificate 1 of cert-chain.pem".to_owned());
        assert_eq!(verdict(ca.bundle_under(&root)), if fits { Ok(print(&root)) } else { Err(told) });
    }
    let with_address = root.issue_but("CA", |params| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
    });
    assert!(matches!(verdict(with_address.bundle_under(&root)), Err(Flaw::NotPermitted(..))));
}

#[test]
fn a_required_policy_is_refused() {
    let policy = CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 3, 0x80, 1, 0]);
    let root = Ca::root_but("Root", |params| params.custom_extensions.push(policy));
    assert_eq!(verdict(root.bundle()), Err(Flaw::ExplicitPolicy(root_at(1))));
}

/// A Secret as cert-manager writes it, of a CA beneath `root`.
fn tls_secret(root: &Ca, ca: &Ca) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (CA_CRT, root.certificate.pem().into_bytes()),
        (TLS_CRT, ca.certificate.pem().into_bytes()),
        (TLS_KEY, ca.key.serialize_pem().into_bytes()),
    ]
}

fn from_secret(data: &[(&'static str, Vec<u8>)]) -> Result<Sound, Flaw> {
    let bundle = Bundle::from_secret(data.iter().map(|(name, bytes)| (*name, bytes.as_slice())))?;
    check(bundle, now())
}

#[test]
fn a_secret_as_cert_manager_writes_it_is_judged_by_the_files_that_istiod_takes() {
    let root = Ca::root("Root");
    let ca = root.issue("CA");
    let mut data = tls_secret(&root, &ca);
    let sound = from_secret(&data).unwrap();
    assert_eq!((sound.root, &sound.notes[..]), (print(&root), &[Note::Tls][..]));
    assert_eq!(sound.usable_until.by, At { file: TLS_CRT, position: 1 });
    // The four files beside it are not looked at.
    data.push((ROOT_CERT, b"garbage".to_vec()));
    assert!(from_secret(&data).is_ok());
    data.retain(|(name, _)| *name != CA_CRT);
    assert_eq!(from_secret(&data).err(), Some(Flaw::Missing(CA_CRT)));
    let mut joined = tls_secret(&root, &ca);
    joined[1].1.pop();
    assert_eq!(from_secret(&joined).err(), Some(Flaw::Garbled(TLS_CRT, Garble::NoLastLine)));
}

/// A list of these CAs, each signed by itself and good until then.
fn lists(cas: &[&Ca], until: i64, revoked: &[&Ca]) -> Vec<u8> {
    let list = |ca: &&Ca| {
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(until.unsigned_abs()),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(|one| revocation(one)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&rcgen::Issuer::from_params(&ca.params, &ca.key)).unwrap().pem().unwrap()
    };
    cas.iter().map(list).collect::<String>().into_bytes()
}

fn revocation(ca: &Ca) -> rcgen::RevokedCertParams {
    let (_, x509) = x509_parser::parse_x509_certificate(ca.certificate.der()).unwrap();
    rcgen::RevokedCertParams {
        serial_number: x509.raw_serial().to_vec().into(),
        revocation_time: rcgen::date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    }
}

fn with_list_right(params: &mut rcgen::CertificateParams) {
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
}

#[test]
fn revocation_lists_have_to_fit_the_cas_that_sign() {
    let root = Ca::root_but("Root", with_list_right);
    let (one, two) = (root.issue_but("CA one", with_list_right), root.issue_but("CA two", with_list_right));
    let later = NOW + HOUR;
    let verdict = |ca: &Ca, crl: Vec<u8>| {
        let mut bundle = bundle(&[&root], &[ca, &root], ca);
        bundle.beside.crl = Some(crl);
        check(bundle, now()).map(|sound| sound.notes.clone())
    };
    assert_eq!(verdict(&one, lists(&[&one, &root], later, &[])), Ok(vec![]));
    assert_eq!(verdict(&one, Vec::new()), Ok(vec![Note::CrlEmpty]));
    assert_eq!(verdict(&one, lists(&[&one, &root], NOW - 1, &[])), Ok(vec![Note::CrlOutdated(at(NOW - 1))]));
    assert_eq!(verdict(&one, b"no CRL\n".to_vec()), Err(Flaw::CrlMalformed));
    assert_eq!(verdict(&one, root.certificate.pem().into_bytes()), Err(Flaw::CrlMalformed));
    // Of the last intermediate, or by the root only.
    assert_eq!(verdict(&two, lists(&[&one, &root], later, &[])), Err(Flaw::CrlMissing(chain_at(1))));
    assert_eq!(verdict(&one, lists(&[&root], later, &[])), Err(Flaw::CrlMissing(chain_at(1))));
    // istiod would start, and Envoy want the root's, too.
    assert_eq!(verdict(&one, lists(&[&one], later, &[])), Err(Flaw::CrlMissing(root_at(1))));
    assert_eq!(verdict(&one, lists(&[&one, &root], later, &[&one])), Err(Flaw::CrlRevokes(chain_at(1))));
    assert_eq!(verdict(&one, lists(&[&one, &root], later, &[&two])), Ok(vec![]));
    // Not a root, so that Envoy wants a list of a CA that it does not know.
    let mut part = bundle(&[&one], &[&one], &one);
    part.beside.crl = Some(lists(&[&one, &root], later, &[]));
    assert_eq!(check(part.clone(), now()).err(), Some(Flaw::CrlOfPart(root_at(1))));
    part.root_cert.extend_from_slice(root.certificate.pem().as_bytes());
    assert_eq!(check(part, now()).err(), Some(Flaw::CrlOfPart(root_at(1))));
    let beside = sound(bundle(&[&root], &[&two, &root], &two));
    assert_eq!(beside.check_beside(&lists(&[&one, &root], later, &[])), Err(Flaw::CrlMissing(chain_at(1))));
    assert_eq!(beside.check_beside(&lists(&[&two, &root], later, &[])), Ok(()));
    let secret = [(CRL, b"x".as_slice())];
    assert_eq!(super::super::bundle::Beside::of(secret).crl.as_deref(), Some(b"x".as_slice()));
}

/// What the command of a remedy makes of a file.
fn mended(bytes: &[u8], flaw: &Flaw) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(ROOT_CERT), bytes).unwrap();
    let remedy = flaw.remedy();
    let command = remedy.split('`').nth(1).unwrap();
    let output = std::process::Command::new("sh").args(["-c", command]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_command_that_is_told_makes_the_file_right() {
    let root = Ca::root("Root");
    let pem = root.certificate.pem();
    let lines: Vec<&str> = pem.lines().collect();
    let utf16: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [
        pem.replace('\n', "\\n").into_bytes(),
        fixtures::base64(pem.as_bytes()).into_bytes(),
        [b"\xff\xfe".to_vec(), utf16].concat(),
        format!("\u{feff}{pem}").into_bytes(),
        root.certificate.der().to_vec(),
        pem.replace('\n', " ").into_bytes(),
        format!("{}{pem}", pem.trim_end()).into_bytes(),
        serde_json::to_vec(&[&pem]).unwrap(),
        lines.iter().map(|line| format!("    {line}\n")).collect::<String>().into_bytes(),
        [pem.as_bytes(), b"M\xfcnchen\n"].concat(),
    ] {
        let flaw = check(Bundle { root_cert: bytes.clone(), ..root.bundle() }, now()).unwrap_err();
        // Not everybody has jq.
        let is_json = flaw == Flaw::Garbled(ROOT_CERT, Garble::JsonList);
        let root_cert = if is_json { pem.clone().into_bytes() } else { mended(&bytes, &flaw) };
        assert_eq!(verdict(Bundle { root_cert, ..root.bundle() }), Ok(print(&root)), "{flaw}: {}", flaw.remedy());
    }
}

#[test]
fn what_is_no_pem_is_told_with_the_command_that_makes_it_right() {
    let root = Ca::root("Root");
    let pem = root.certificate.pem();
    let lines: Vec<&str> = pem.lines().collect();
    let indented: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (bytes, how) in [
        (pem.replace('\n', "\\n").into_bytes(), Garble::LiteralNewlines),
        (fixtures::base64(pem.as_bytes()).into_bytes(), Garble::Base64),
        ([b"\xff\xfe".to_vec(), utf16(&pem)].concat(), Garble::Utf16),
        (utf16(&pem), Garble::Utf16),
        (format!("\u{feff}{pem}").into_bytes(), Garble::ByteOrderMark),
        (root.certificate.der().to_vec(), Garble::Der),
        (pem.replace('\n', " ").into_bytes(), Garble::OneLine),
        (format!("{}{pem}", pem.trim_end()).into_bytes(), Garble::Joined),
        (serde_json::to_vec(&[&pem, &pem]).unwrap(), Garble::JsonList),
        (indented.into_bytes(), Garble::Indented),
        ([pem.as_bytes(), b"M\xfcnchen\n"].concat(), Garble::NotUtf8),
        (b"the root is in the safe\n".to_vec(), Garble::Text),
    ] {
        for file in [ROOT_CERT, CERT_CHAIN, CA_CERT] {
            let mut bundle = root.bundle();
            *match file {
                ROOT_CERT => &mut bundle.root_cert,
                CERT_CHAIN => &mut bundle.cert_chain,
                _ => &mut bundle.ca_cert,
            } = bytes.clone();
            let flaw = check(bundle, now()).unwrap_err();
            assert_eq!(flaw, Flaw::Garbled(file, how));
            assert!(flaw.remedy().contains(file), "{}", flaw.remedy());
        }
    }
    let key = root.key.serialize_pem();
    for (bytes, how) in [
        (key.replace('\n', "\\n").into_bytes(), Garble::LiteralNewlines),
        (fixtures::base64(key.as_bytes()).into_bytes(), Garble::Base64),
        (root.key.serialized_der().to_vec(), Garble::Der),
        (key.replace('\n', " ").into_bytes(), Garble::OneLine),
    ] {
        assert_eq!(with_key(&root, bytes), Err(Flaw::Garbled("the private key", how)));
    }
}

#[test]
fn a_ca_beneath_a_root_has_to_be_good_itself() {
    let root = Ca::root("Root");
    let no_ca = root.issue_but("CA", |params| params.is_ca = IsCa::NoCa);
    assert_eq!(verdict(no_ca.bundle_under(&root)), Err(Flaw::NotCa(chain_at(1))));
    let server = root.issue_but("CA", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(verdict(server.bundle_under(&root)), Err(Flaw::ExtendedKeyUsage(chain_at(1))));
    assert_eq!(verdict(bundle(&[&root], &[&root], &no_ca)), Err(Flaw::ChainLacksCa));
}

#[test]
fn a_root_of_path_length_0_may_sign_directly() {
    let root = Ca::root_but("Root", |params| params.is_ca = at_most(0));
    assert_eq!(rustls_verifies_a_workload_under(&root.bundle(), &root), Ok(()));
    assert_eq!(verdict(root.bundle()), Ok(print(&root)));
}

#[test]
fn a_ca_beneath_a_root_of_path_length_0_is_refused() {
    let root = Ca::root_but("Root", |params| params.is_ca = at_most(0));
    let ca = root.issue("CA");
    assert_eq!(verdict(ca.bundle_under(&root)), Err(Flaw::PathLength(root_at(1))));
}

#[test]
fn a_ca_of_path_length_0_may_sign_workloads() {
    let root = Ca::root_but("Root", |params| params.is_ca = at_most(1));
    let ca = root.issue_but("CA", |params| params.is_ca = at_most(0));
    assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
    assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
}

#[test]
fn path_lengths_in_the_middle_count() {
    let root = Ca::root("Root");
    for (beneath, expected) in [(0, Err(Flaw::PathLength(chain_at(2)))), (1, Ok(print(&root)))] {
        let middle = root.issue_but("Middle", |params| params.is_ca = at_most(beneath));
        let ca = middle.issue("CA");
        assert_eq!(verdict(bundle(&[&root], &[&ca, &middle], &ca)), expected);
    }
}

#[test]
fn a_self_issued_ca_counts_as_go_counts_it() {
    for (beneath, fits) in [(1, false), (2, true)] {
        let root = Ca::root_but("Root", |params| params.is_ca = at_most(beneath));
        let next_key = root.issue("Root");
        let ca = next_key.issue("CA");
        let expected = if fits { Ok(print(&root)) } else { Err(Flaw::PathLength(root_at(1))) };
        assert_eq!(verdict(bundle(&[&root], &[&ca, &next_key], &ca)), expected);
    }
}

#[test]
fn a_cross_signed_root_leads_to_either_root() {
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let new_by_old = old.cross_sign(&new);
    let ca = new.issue("CA");
    let chain = [&ca, &new_by_old];
    assert_eq!(verdict(bundle(&[&old], &chain, &ca)), Ok(print(&old)));
    assert_eq!(verdict(bundle(&[&new], &chain, &ca)), Ok(print(&new)));
    assert_eq!(verdict(bundle(&[&old, &new], &chain, &ca)), Ok(print(&new)));
    assert_eq!(rustls_verifies_a_workload_under(&bundle(&[&old], &chain, &ca), &ca), Ok(()));
}

#[test]
fn a_path_that_is_too_long_does_not_hide_one_that_fits() {
    let root = Ca::root_but("Root", |params| params.is_ca = at_most(1));
    let middle = root.issue("Middle");
    let ca = middle.issue("CA");
    assert_eq!(verdict(bundle(&[&root], &[&ca, &middle], &ca)), Err(Flaw::PathLength(root_at(1))));
    let direct = Ca::root_with(KeyPair::try_from(middle.key.serialized_der()).unwrap(), "Middle", |_| ());
    assert_eq!(verdict(bundle(&[&root, &direct], &[&ca, &middle], &ca)), Ok(print(&direct)));
}

#[test]
fn a_self_signed_ca_is_not_saved_by_its_cross_signed_twin() {
    // istiod takes the two for one CA, and finds no way on from the first.
    let (old, new) = (Ca::root("Old"), Ca::root("New"));
    let new_by_old = old.cross_sign(&new);
    assert_eq!(verdict(bundle(&[&old], &[&new_by_old, &new], &new)), Err(Flaw::NoPath));
    assert_eq!(verdict(bundle(&[&old], &[&new_by_old, &new], &new_by_old)), Ok(print(&old)));
    // Envoy looks no further than the self-signed one.
    assert_eq!(verdict(bundle(&[&old], &[&new, &new_by_old], &new_by_old)), Err(Flaw::DeadEnd(chain_at(1))));
}

#[test]
fn cas_that_signed_each_other_end_the_search() {
    let (one, two, root) = (Ca::root("One"), Ca::root("Two"), Ca::root("Root"));
    let (one_by_two, two_by_one) = (two.cross_sign(&one), one.cross_sign(&two));
    assert_eq!(verdict(bundle(&[&root], &[&one_by_two, &two_by_one], &one_by_two)), Err(Flaw::NoPath));
}

#[test]
fn as_many_cas_in_a_row_as_webpki_takes_are_accepted() {
    let root = Ca::root("Root");
    let mut cas = vec![root.issue("CA 1")];
    for depth in 2..=7 {
        let next = cas.last().unwrap().issue(&format!("CA {depth}"));
        cas.push(next);
    }
    let verdict = |depth: usize| {
        let chain: Vec<&Ca> = cas[..depth].iter().rev().collect();
        verdict(bundle(&[&root], &chain, &cas[depth - 1]))
    };
    assert_eq!(verdict(6), Ok(print(&root)));
    assert!(matches!(verdict(7), Err(Flaw::Trial(_))), "{:?}", verdict(7));
}

#[test]
fn further_certificates_in_ca_cert_may_be_there() {
    let root = Ca::root("Root");
    let ca = root.issue("CA");
    let mut bundle = ca.bundle_under(&root);
    bundle.ca_cert.extend_from_slice(root.certificate.pem().as_bytes());
    assert_eq!(verdict(bundle), Ok(print(&root)));
}

#[test]
fn another_key_is_refused() {
    let (root, other) = (Ca::root("Root"), Ca::root("Root"));
    let bundle = Bundle { ca_key: other.bundle().ca_key, ..root.bundle() };
    assert_eq!(verdict(bundle), Err(Flaw::KeyMismatch));
    let ca = root.issue("CA");
    let bundle = Bundle { ca_key: root.bundle().ca_key, ..ca.bundle_under(&root) };
    assert_eq!(verdict(bundle), Err(Flaw::KeyMismatch));
}

/// The verdict on a root with this in place of its key's file.
fn with_key(root: &Ca, key: impl Into<Vec<u8>>) -> Result<Sha256, Flaw> {
    verdict(Bundle { ca_key: KeyPem::new(key.into()), ..root.bundle() })
}

#[test]
fn an_rsa_key_may_be_pkcs1_or_pkcs8() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let root = Ca::root_with(key, "Root", |_| ());
    let pkcs1 = traditional(root.key.serialized_der());
    assert_eq!(verdict(root.bundle()), Ok(print(&root)));
    assert_eq!(with_key(&root, pem("RSA PRIVATE KEY", &pkcs1, 64, "\n")), Ok(print(&root)));
    assert_eq!(with_key(&root, pem("EC PRIVATE KEY", &pkcs1, 64, "\n")), Err(Flaw::KeyMalformed));
}

#[test]
fn an_ec_key_may_be_sec1_or_pkcs8() {
    let root = Ca::root("Root");
    let sec1 = traditional(root.key.serialized_der());
    assert_eq!(with_key(&root, pem("EC PRIVATE KEY", &sec1, 64, "\n")), Ok(print(&root)));
    assert_eq!(with_key(&root, pem("PRIVATE KEY", &sec1, 64, "\n")), Err(Flaw::KeyMalformed));
    let pkcs8 = root.key.serialized_der();
    assert_eq!(with_key(&root, pem("EC PRIVATE KEY", pkcs8, 64, "\n")), Err(Flaw::KeyMalformed));
}

#[test]
fn an_encrypted_key_is_refused() {
    let root = Ca::root("Root");
    let pkcs8 = pem("ENCRYPTED PRIVATE KEY", &[7; 100], 64, "\n");
    assert_eq!(with_key(&root, pkcs8), Err(Flaw::KeyEncrypted));
    let headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
    let pkcs1 = pem("RSA PRIVATE KEY", &[7; 100], 64, "\n").replacen('\n', &format!("\n{headers}"), 1);
    assert_eq!(with_key(&root, pkcs1), Err(Flaw::KeyEncrypted));
}

#[test]
fn only_the_first_block_of_a_key_counts_and_text_does_not() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let (key, other_key) = (root.key.serialize_pem(), other.key.serialize_pem());
    assert_eq!(with_key(&root, format!("Bag Attributes\n  Name: x\n{key}{other_key}")), Ok(print(&root)));
    assert_eq!(with_key(&root, format!("{other_key}{key}")), Err(Flaw::KeyMismatch));
    let parameters = pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7], 64, "\n");
    assert_eq!(with_key(&root, format!("{parameters}{key}")), Err(Flaw::KeyMalformed));
    let certificate = root.certificate.pem();
    assert_eq!(with_key(&root, format!("{certificate}{key}")), Err(Flaw::KeyMalformed));
}

#[test]
fn a_broken_key_is_refused() {
    let root = Ca::root("Root");
    let key = root.key.serialize_pem();
    let broken = [
        " ".to_owned(),
        key[..key.len() / 2].to_owned(),
        // Go would take the second.
        format!("{}{key}", &key[..key.len() / 2]),
        key.replace('M', "N"),
        pem("PRIVATE KEY", &[7; 100], 64, "\n"),
    ];
    for key in broken {
        assert_eq!(with_key(&root, key.as_bytes()), Err(Flaw::KeyMalformed), "{key}");
    }
    let garbled = |how| Err(Flaw::Garbled("the private key", how));
    assert_eq!(with_key(&root, "key"), garbled(Garble::Text));
    assert_eq!(with_key(&root, [key.as_bytes(), b"\xff"].concat()), garbled(Garble::NotUtf8));
}

#[test]
fn a_private_key_in_a_file_of_certificates_is_refused() {
    let root = Ca::root("Root");
    for file in [ROOT_CERT, CERT_CHAIN, CA_CERT] {
        let mut bundle = root.bundle();
        let bytes = match file {
            ROOT_CERT => &mut bundle.root_cert,
            CERT_CHAIN => &mut bundle.cert_chain,
            _ => &mut bundle.ca_cert,
        };
        bytes.extend_from_slice(root.key.serialize_pem().as_bytes());
        assert_eq!(verdict(bundle), Err(Flaw::NotOnlyCertificates(file)));
    }
}

/// The same certificates and key, in other bytes.
fn other_bytes(bundle: &Bundle) -> Bundle {
    let crlf = |file: &[u8]| String::from_utf8(file.to_vec()).unwrap().replace('\n', "\r\n").into_bytes();
    Bundle {
        root_cert: crlf(&bundle.root_cert),
        cert_chain: crlf(&bundle.cert_chain),
        ca_cert: crlf(&bundle.ca_cert),
        ca_key: KeyPem::new(crlf(bundle.ca_key.expose())),
        ..bundle.clone()
    }
}

#[test]
fn other_bytes_may_be_the_same_ca() {
    let root = Ca::root("Root");
    let (one, two) = (sound(root.bundle()), sound(other_bytes(&root.bundle())));
    assert!(one.same_bytes(&one) && one.same_ca(&one) && one.same_roots(&one));
    assert!(!one.same_bytes(&two) && one.same_ca(&two) && one.same_roots(&two));
    let sec1 = pem("EC PRIVATE KEY", &traditional(root.key.serialized_der()), 64, "\n");
    let three = sound(Bundle { ca_key: KeyPem::new(sec1.into_bytes()), ..root.bundle() });
    assert!(!one.same_bytes(&three) && one.same_ca(&three) && one.same_roots(&three));
}

#[test]
fn another_ca_may_have_the_same_roots() {
    let root = Ca::root("Root");
    let (one, two) = (root.issue("CA"), root.issue("CA"));
    let (one, two) = (sound(one.bundle_under(&root)), sound(two.bundle_under(&root)));
    assert!(!one.same_bytes(&two) && !one.same_ca(&two) && one.same_roots(&two));
}

#[test]
fn roots_are_the_same_in_any_order_but_the_files_are_not() {
    let (one, two) = (Ca::root("One"), Ca::root("Two"));
    let both = sound(bundle(&[&one, &two], &[&one], &one));
    let reversed = sound(bundle(&[&two, &one], &[&one], &one));
    let twice = sound(bundle(&[&one, &two, &one], &[&one], &one));
    assert!(both.same_roots(&reversed) && !both.same_ca(&reversed));
    assert!(both.same_roots(&twice) && !both.same_ca(&twice));
    assert!(!both.same_roots(&sound(one.bundle())));
}

#[test]
fn other_roots_are_not_the_same() {
    let (one, two) = (sound(Ca::root("Root").bundle()), sound(Ca::root("Root").bundle()));
    assert!(!one.same_roots(&two) && !one.same_ca(&two) && !one.same_bytes(&two));
}

#[test]
fn the_window_is_that_of_all_that_is_needed() {
    let root = Ca::root_but("Root", |params| set_validity(params, NOW - 3 * HOUR, NOW + 2 * HOUR));
    let ca = root.issue_but("CA", |params| set_validity(params, NOW - 2 * HOUR, NOW + 3 * HOUR));
    let bundle = ca.bundle_under(&root);
    let sound = sound(bundle.clone());
    let until = Until { at: at(NOW + 2 * HOUR), by: root_at(1) };
    assert_eq!((sound.valid_from, sound.usable_until), (at(NOW - 2 * HOUR), until));
    assert!(check(bundle.clone(), sound.valid_from).is_ok());
    assert!(check(bundle.clone(), sound.usable_until.at).is_ok());
    let early = Flaw::NotYetValid(chain_at(1), at(NOW - 2 * HOUR));
    assert_eq!(check(bundle.clone(), at(NOW - 2 * HOUR - 1)).err(), Some(early));
    let late = Flaw::Expired(root_at(1), at(NOW + 2 * HOUR));
    assert_eq!(check(bundle, at(NOW + 2 * HOUR + 1)).err(), Some(late));
}

/// Tells the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..4) {
        let start = random.usize(0..=bytes.len());
        let end = random.usize(start..=bytes.len().min(start + 40));
        match random.u8(0..5) {
            0 if start < bytes.len() => bytes[start] ^= 1 << random.u8(0..8),
            1 if start < bytes.len() => bytes[start] = random.u8(..),
            2 => bytes.truncate(start),
            3 => drop(bytes.drain(start..end)),
            _ => bytes.extend_from_within(start..end),
        }
    }
}

/// Changes a file's text, or the DER in one of its blocks.
fn mutate_file(random: &mut fastrand::Rng, file: &mut Vec<u8>) {
    if random.bool() {
        return mutate(random, file);
    }
    let mut ders = certificates(ROOT_CERT, file, 10).unwrap().ders;
    let chosen = random.usize(0..ders.len());
    mutate(random, &mut ders[chosen]);
    *file = ders.iter().map(|der| pem("CERTIFICATE", der, 64, "\n")).collect::<String>().into_bytes();
}

#[test]
fn no_input_makes_a_panic_or_passes_for_what_it_is_not() {
    let root = Ca::root("Root");
    let ca = root.issue_but("CA", |params| {
        params.is_ca = at_most(0);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    });
    let whole = bundle(&[&root], &[&ca, &root], &ca);
    let original = sound(whole.clone());
    for seed in 0..3000 {
        let _told = Seed(seed);
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut changed = whole.clone();
        match random.u8(0..4) {
            0 => mutate_file(random, &mut changed.root_cert),
            1 => mutate_file(random, &mut changed.cert_chain),
            2 => mutate_file(random, &mut changed.ca_cert),
            _ => {
                let mut key = changed.ca_key.expose().to_vec();
                mutate(random, &mut key);
                changed.ca_key = KeyPem::new(key);
            }
        }
        let _ = super::super::bundle::glance(&changed.root_cert);
        let _ = Bundle::from_record(&changed.to_record());
        let _ = Bundle::from_secret([(ROOT_CERT, &*changed.root_cert), (CA_KEY, changed.ca_key.expose())]);
        if let Ok(sound) = check(changed, now()) {
            // What was cut away may not have been needed. A root that is none any more may be trusted: nobody verifies
            // a trust anchor's signature.
            let is_told = sound.notes.iter().any(|note| matches!(note, Note::NotSelfSigned(_)));
            assert!(is_told || sound.same_roots(&original) && sound.root == original.root, "{sound:?}");
            assert_eq!(sound.certificates[2], original.certificates[2]);
        }
    }
}

#[test]
fn what_passes_by_the_contract_passes_with_rustls() {
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let root = Ca::root_but("Root", |params| params.extended_key_usages = both.clone());
    let ca = root.issue_but("CA", |params| {
        params.extended_key_usages = both;
        params.key_usages.clear();
    });
    assert_eq!(rustls_verifies_a_workload_under(&ca.bundle_under(&root), &ca), Ok(()));
    assert_eq!(verdict(ca.bundle_under(&root)), Ok(print(&root)));
}

#[test]
fn an_old_root_with_sha1_may_be_trusted_too() {
    let root = Ca::root("Root");
    let mut bundle = root.bundle();
    bundle.root_cert.extend_from_slice(fixtures::SHA1.as_bytes());
    assert_eq!(rustls_verifies_a_workload_under(&bundle, &root), Ok(()));
    assert_eq!(verdict(bundle), Ok(print(&root)));
}
