#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P384_SHA384, SanType,
};

use super::super::fixtures::{self, Ca, HOUR, NOW, at, now};
use super::super::issue::set_validity;
use super::super::record::CHAIN;
use super::*;
use serde_json::{Map, json};

const NAME: &str = "Istio Intermediate CA nas";
const DAY: i64 = 24 * HOUR;
const LIFE: Duration = Duration::from_hours(90 * 24);

static OLD: LazyLock<Ca> = LazyLock::new(|| Ca::root("Old"));
static NEW: LazyLock<Ca> = LazyLock::new(|| Ca::root("New"));
static KEY: LazyLock<SignerKey> = LazyLock::new(|| SignerKey::generate().unwrap());

fn record(roots: &[&Ca], cross: Option<&Ca>) -> SigningRecord {
    let pem = |cas: &[&Ca]| cas.iter().map(|ca| ca.certificate.pem()).collect::<String>();
    let mut data = Map::new();
    data.insert("root-cert.pem".to_owned(), json!(pem(roots)));
    data.insert("issuer".to_owned(), json!("root-1"));
    data.extend(cross.map(|cross| (CHAIN.to_owned(), json!(pem(&[cross])))));
    SigningRecord::parse(&data, now()).unwrap()
}

fn id_of(root: &Ca) -> Sha256 {
    Sha256::of(root.certificate.der())
}

fn asked() -> Asked<'static> {
    Asked { key: &KEY, common_name: NAME, life: LIFE, at: now() }
}

fn request() -> String {
    KEY.request(NAME).unwrap()
}

/// The verdict on what Vault makes with other parameters.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<(), SignerFlaw> {
    verdict_on(&OLD.certify(&request(), NAME, change))
}

fn verdict_on(answer: &str) -> Result<(), SignerFlaw> {
    certified(&record(&[&OLD], None), id_of(&OLD), answer, &asked()).map(|_| ())
}

#[test]
fn what_is_published_is_the_signer_and_its_chain_and_the_records_bytes() {
    let answer = OLD.certify(&request(), NAME, |_| ());
    let record = record(&[&OLD], None);
    let sound = certified(&record, id_of(&OLD), answer.trim_end(), &asked()).unwrap();
    let files = &sound.bundle;
    assert_eq!(files.root_cert, record.root_cert);
    assert_eq!(files.ca_cert, answer.clone().into_bytes());
    assert_eq!(files.cert_chain, answer.into_bytes());
    assert_eq!(sound.root, id_of(&OLD));
    let (from, until) = (at(NOW - HOUR), at(NOW + 90 * DAY));
    let sha256 = Sha256::of(&certificates(CA_CERT, &files.ca_cert, 1).unwrap().ders[0]);
    assert_eq!(sound.signing_ca, SigningCa { sha256, valid_from: from, valid_until: until });
}

#[test]
fn with_a_cross_the_chain_is_the_signer_and_the_cross_alone() {
    let cross = OLD.cross_sign(&NEW);
    let record = record(&[&OLD, &NEW], Some(&cross));
    let answer = NEW.certify(&request(), NAME, |_| ());
    let sound = certified(&record, id_of(&NEW), &answer, &asked()).unwrap();
    assert_eq!(sound.bundle.cert_chain, format!("{answer}{}", cross.certificate.pem()).into_bytes());
    assert_eq!(sound.root, id_of(&NEW));
    assert_eq!(sound.roots().len(), 2);
}

#[test]
fn an_issuer_is_one_that_the_record_trusts_and_that_its_cross_is_of() {
    let cross = OLD.cross_sign(&NEW);
    let (alone, both, crossed) =
        (record(&[&OLD], None), record(&[&OLD, &NEW], None), record(&[&OLD, &NEW], Some(&cross)));
    let [old, new] = [&*OLD, &*NEW].map(|ca| ca.certificate.pem());
    assert_eq!(issuing_root(&alone, &old), Ok(id_of(&OLD)));
    assert_eq!(issuing_root(&alone, &new), Err(SignerFlaw::UntrustedIssuer));
    assert_eq!(issuing_root(&both, &new), Ok(id_of(&NEW)));
    assert_eq!(issuing_root(&crossed, &new), Ok(id_of(&NEW)));
    assert_eq!(issuing_root(&crossed, &old), Err(SignerFlaw::OtherCross));
    assert_eq!(issuing_root(&alone, "no certificate"), Err(SignerFlaw::NotOne));
}

#[test]
fn the_key_is_the_one_that_was_asked_for() {
    let other = SignerKey::generate().unwrap().request(NAME).unwrap();
    assert_eq!(verdict_on(&OLD.certify(&other, NAME, |_| ())), Err(SignerFlaw::OtherKey));
}

#[test]
fn the_name_is_the_one_that_was_asked_for_and_the_only_one() {
    assert_eq!(
        verdict_on(&OLD.certify(&request(), "Istio Intermediate CA homelab", |_| ())),
        Err(SignerFlaw::OtherName)
    );
    let none = verdict(|params| params.distinguished_name = DistinguishedName::new());
    assert_eq!(none, Err(SignerFlaw::OtherName));
}

#[test]
fn it_is_a_ca_that_lets_nobody_sign_beneath_it() {
    for is_ca in
        [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::Ca(BasicConstraints::Constrained(1)), IsCa::ExplicitNoCa]
    {
        assert_eq!(verdict(|params| params.is_ca = is_ca), Err(SignerFlaw::PathLength), "{is_ca:?}");
    }
}

#[test]
fn it_says_that_it_may_sign() {
    assert_eq!(verdict(|params| params.key_usages.clear()), Err(SignerFlaw::NoKeyCertSign));
    assert_eq!(verdict(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), Err(SignerFlaw::NoKeyCertSign));
}

#[test]
fn it_has_no_alternative_name_and_no_name_constraints() {
    let names = vec![SanType::DnsName("nas".try_into().unwrap())];
    assert_eq!(verdict(|params| params.subject_alt_names = names), Err(SignerFlaw::AlternativeName));
    let permitted_subtrees = vec![GeneralSubtree::DnsName("svc".to_owned())];
    let constraints = NameConstraints { permitted_subtrees, excluded_subtrees: vec![] };
    assert_eq!(verdict(|params| params.name_constraints = Some(constraints)), Err(SignerFlaw::NameConstraints));
}

#[test]
fn it_is_for_both_sides_or_says_nothing_of_them() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    assert_eq!(verdict(|params| params.extended_key_usages = vec![ServerAuth, ClientAuth]), Ok(()));
    let one = verdict(|params| params.extended_key_usages = vec![ServerAuth]);
    assert_eq!(one, Err(SignerFlaw::Flaw(Flaw::ExtendedKeyUsage(FIRST))));
}

#[test]
fn its_authority_key_identifier_is_its_issuers_subject_key_identifier() {
    assert_eq!(verdict(|params| params.use_authority_key_identifier_extension = false), Err(SignerFlaw::KeyIdentifier));
    // As one that computes it from the key, where its issuer's is another kind of digest.
    let of = |value: &[&[u8]]| CustomExtension::from_oid_content(&[2, 5, 29, 35], der::element(SEQUENCE, value));
    let with = |extension: CustomExtension| {
        verdict(|params| {
            params.use_authority_key_identifier_extension = false;
            params.custom_extensions.push(extension);
        })
    };
    assert_eq!(with(of(&[&der::element(0x80, &[&[7; 20]])])), Err(SignerFlaw::KeyIdentifier));
    let issuer = Certificate::parse(FIRST, OLD.certificate.der()).unwrap();
    let right = der::element(0x80, &[issuer.key_identifier().unwrap()]);
    assert_eq!(with(of(&[&right])), Ok(()));
    let serial = der::element(0x82, &[&[1]]);
    assert_eq!(with(of(&[&right, &serial])), Err(SignerFlaw::IssuerAndSerial));
}

#[test]
fn it_is_signed_by_the_issuer_that_was_asked() {
    let record = record(&[&OLD, &NEW], None);
    let answer = NEW.certify(&request(), NAME, |_| ());
    let verdict = certified(&record, id_of(&OLD), &answer, &asked()).map(|_| ());
    assert_eq!(verdict, Err(SignerFlaw::OtherIssuer));
    let impostor = Ca::root("Old").certify(&request(), NAME, |_| ());
    let verdict = certified(&record, id_of(&OLD), &impostor, &asked()).map(|_| ());
    assert_eq!(verdict, Err(SignerFlaw::OtherIssuer));
}

#[test]
fn it_lives_for_as_long_as_was_asked_but_for_some_skew() {
    let lasts = |from: i64, until: i64| verdict(|params| set_validity(params, NOW + from, NOW + until));
    assert_eq!(lasts(-HOUR, 90 * DAY - 600), Ok(()));
    assert_eq!(lasts(-HOUR, 90 * DAY - 601), Err(SignerFlaw::EndsEarly));
    assert_eq!(lasts(0, 90 * DAY), Ok(()));
    assert_eq!(lasts(1, 90 * DAY), Err(SignerFlaw::BeginsLate));
}

#[test]
fn it_is_one_block_and_nothing_else() {
    let answer = OLD.certify(&request(), NAME, |_| ());
    let root = OLD.certificate.pem();
    assert_eq!(verdict_on(&format!("{answer}{root}")), Err(SignerFlaw::NotOne));
    assert_eq!(verdict_on(&format!("hello\n{answer}")), Err(SignerFlaw::NotOne));
    assert_eq!(verdict_on(""), Err(SignerFlaw::Flaw(Flaw::NoCertificate(CA_CERT))));
}

#[test]
fn the_key_is_used_again_where_it_is_this_clusters_own() {
    let answer = OLD.certify(&request(), NAME, |_| ());
    let files = (*certified(&record(&[&OLD], None), id_of(&OLD), &answer, &asked()).unwrap().bundle).clone();
    let kept = SignerKey::kept(&files, NAME).unwrap();
    assert_eq!(kept.0.serialize_pem(), KEY.0.serialize_pem());
    let broken = Bundle { root_cert: b"garbled".to_vec(), ..files.clone() };
    assert!(SignerKey::kept(&broken, NAME).is_some(), "what else is wrong is no reason for a new key");
    // Another's signer, a root that signs, another CA of the shared kind, a key of another certificate, of another kind.
    assert!(SignerKey::kept(&files, "Istio Intermediate CA homelab").is_none());
    assert!(SignerKey::kept(&Ca::root(NAME).bundle(), NAME).is_none());
    assert!(SignerKey::kept(&OLD.issue("Shared").bundle_under(&OLD), NAME).is_none());
    let other = SignerKey::generate().unwrap();
    assert!(SignerKey::kept(&Bundle { ca_key: other.pem(), ..files }, NAME).is_none());
    let p384 = Ca::root_with(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), NAME, |_| ());
    let beneath = OLD.cross_sign(&Ca { params: fixtures::params(NAME), ..p384 });
    assert!(SignerKey::kept(&beneath.bundle_under(&OLD), NAME).is_none());
}

#[test]
fn nothing_of_a_signers_key_is_shown() {
    let shown = format!("{:?} {:#?} {:?}", *KEY, asked(), KEY.pem());
    for trace in fixtures::traces(&KEY.0) {
        assert!(!shown.contains(&trace), "{trace} is in {shown}");
    }
    assert!(!request().contains("PRIVATE"));
}

#[test]
fn a_request_has_the_key_and_the_name_and_nothing_else() {
    let request = rcgen::CertificateSigningRequestParams::from_pem(&request()).unwrap();
    assert_eq!(request.public_key.der_bytes().len(), 65);
    assert_eq!(request.params.subject_alt_names, []);
    assert_eq!(request.params.is_ca, IsCa::NoCa);
    assert_eq!(request.params.key_usages, []);
}

#[test]
fn a_renewal_is_due_at_two_thirds_of_a_life_within_a_day() {
    let signer = |life: i64| SigningCa { sha256: Sha256([0; 32]), valid_from: at(NOW), valid_until: at(NOW + life) };
    let due = |life, cluster: &str| renewal_due(&signer(life), cluster).as_second() - NOW;
    let clusters: Vec<String> = (0..100).map(|number| format!("cluster-{number}")).collect();
    for (life, from, most) in [(90 * DAY, 60 * DAY, DAY), (120, 80, 12), (0, 0, 0)] {
        let dues: Vec<_> = clusters.iter().map(|cluster| due(life, cluster)).collect();
        assert!(dues.iter().all(|due| (from..=from + most).contains(due)), "{dues:?}");
        // A hundred are spread over it.
        let spread = dues.iter().max().unwrap() - dues.iter().min().unwrap();
        assert!(spread >= most * 8 / 10, "{spread}");
    }
    assert_eq!(due(90 * DAY, "nas"), due(90 * DAY, "nas"));
}

#[test]
fn whatever_is_told_of_a_signer_is_fit_for_users() {
    for flaw in [
        SignerFlaw::UntrustedIssuer,
        SignerFlaw::OtherCross,
        SignerFlaw::KeyIdentifier,
        SignerFlaw::EndsEarly,
        SignerFlaw::IssuerAndSerial,
        SignerFlaw::Flaw(Flaw::NotDer(FIRST)),
    ] {
        crate::samples::assert_fit_for_users(&format!("{flaw}; {}", flaw.remedy()));
    }
}
