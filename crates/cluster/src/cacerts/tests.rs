#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};

use super::*;
use crate::samples::{answered_by, refusal};
use gate_core::ca::bundle::Beside;
use gate_core::ca::check::Flaw;
use gate_core::ca::fixtures::{NOW, YEARS, at, now};
use gate_core::samples::{R1, R1_OTHER_CA, R2};

/// A Secret with these metadata and the files of this CA.
fn secret(metadata: Value, sound: &Sound) -> Secret {
    let mut secret: Secret = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
    secret.data = Some(data(&sound.bundle));
    secret
}

fn with(mut secret: Secret, file: &str, bytes: &[u8]) -> Secret {
    secret.data.as_mut().unwrap().insert(file.to_owned(), ByteString(bytes.to_vec()));
    secret
}

fn copy(secret: &Secret) -> Arc<Copy> {
    let Published::Present(copy) = published(secret, now()) else { panic!("it is there") };
    copy
}

fn flaw(secret: &Secret) -> Flaw {
    copy(secret).verdict.clone().unwrap_err()
}

/// Whose a Secret with these metadata is.
fn owner_of(metadata: Value) -> Owner {
    owner(&secret(metadata, &R1))
}

fn merged(parts: &[Value]) -> Value {
    let mut whole = json!({"labels": {}});
    for part in parts {
        for (key, value) in part.as_object().unwrap() {
            match (&mut whole[key], value) {
                (Value::Object(there), Value::Object(more)) => there.extend(more.clone()),
                (there, value) => *there = value.clone(),
            }
        }
    }
    whole
}

fn our_label() -> Value {
    json!({"labels": {"app.kubernetes.io/managed-by": "istio-ca-gate"}})
}

fn our_entry() -> Value {
    json!({"managedFields": [
        {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}},
        {"manager": "istio-ca-gate", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}},
    ]})
}

fn their_label() -> Value {
    json!({"labels": {"reconcile.external-secrets.io/managed": "true"}})
}

fn their_reference() -> Value {
    json!({"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "1"},
        {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": "istio-ca", "uid": "2", "controller": true},
    ]})
}

#[test]
fn ours_has_both_our_label_and_our_field_manager() {
    assert_eq!(owner_of(merged(&[our_label(), our_entry()])), Owner::Ours);
    for metadata in [json!({}), our_label(), our_entry()] {
        assert_eq!(owner_of(metadata.clone()), Owner::Other, "{metadata}");
    }
}

#[test]
fn a_likeness_of_ours_is_not_ours() {
    for label in ["Helm", "Istio-ca-gate", "istio-ca-gate-2", ""] {
        let label = json!({"labels": {"app.kubernetes.io/managed-by": label}});
        assert_eq!(owner_of(merged(&[label, our_entry()])), Owner::Other);
    }
    let entry = json!({"managedFields": [{"manager": "istio-ca-gate-2"}, {"operation": "Update"}]});
    assert_eq!(owner_of(merged(&[our_label(), entry])), Owner::Other);
    let annotation = json!({"annotations": {"app.kubernetes.io/managed-by": "istio-ca-gate"}});
    assert_eq!(owner_of(merged(&[annotation, our_entry()])), Owner::Other);
}

#[test]
fn external_secrets_is_told_by_its_label_or_its_reference() {
    let named = || Owner::ExternalSecrets(Some("istio-ca".to_owned()));
    assert_eq!(owner_of(their_label()), Owner::ExternalSecrets(None));
    assert_eq!(owner_of(their_reference()), named());
    assert_eq!(owner_of(merged(&[their_label(), their_reference()])), named());
    let v1beta1 = json!({"ownerReferences": [
        {"apiVersion": "external-secrets.io/v1beta1", "kind": "ExternalSecret", "name": "istio-ca", "uid": "2"},
    ]});
    assert_eq!(owner_of(v1beta1), named());
}

#[test]
fn what_external_secrets_manages_is_never_ours() {
    for theirs in [their_label(), their_reference()] {
        let owner = owner_of(merged(&[our_label(), our_entry(), theirs]));
        assert!(matches!(owner, Owner::ExternalSecrets(_)), "{owner:?}");
    }
}

#[test]
fn a_likeness_of_external_secrets_is_somebody_else() {
    let reference = |version: &str, kind: &str| json!({"ownerReferences": [{"apiVersion": version, "kind": kind, "name": "istio-ca", "uid": "2"}]});
    for metadata in [
        json!({"labels": {"reconcile.external-secrets.io/managed": "false"}}),
        json!({"annotations": {"reconcile.external-secrets.io/data-hash": "x"}}),
        reference("v1", "ExternalSecret"),
        reference("external-secrets.io.example/v1", "ExternalSecret"),
        reference("external-secrets.io/v1", "SecretStore"),
    ] {
        assert_eq!(owner_of(metadata.clone()), Owner::Other, "{metadata}");
    }
}

#[test]
fn the_files_are_published_byte_for_byte() {
    let files = data(&R1_OTHER_CA.bundle);
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"]);
    assert_eq!(files["root-cert.pem"].0, R1_OTHER_CA.bundle.root_cert);
    assert_eq!(files["cert-chain.pem"].0, R1_OTHER_CA.bundle.cert_chain);
    assert_eq!(files["ca-cert.pem"].0, R1_OTHER_CA.bundle.ca_cert);
    assert_eq!(files["ca-key.pem"].0, R1_OTHER_CA.bundle.ca_key.expose());
}

#[test]
fn what_was_published_is_read_as_the_same_ca_and_version() {
    let copy = copy(&secret(json!({"resourceVersion": "1234"}), &R1_OTHER_CA));
    let sound = copy.verdict.as_ref().unwrap();
    assert!(sound.same_ca(&R1_OTHER_CA) && sound.same_bytes(&R1_OTHER_CA));
    assert_eq!(copy.resource_version, "1234");
    assert_eq!(copy.glance.as_ref(), Some(&R1_OTHER_CA.glance));
}

#[test]
fn other_keys_are_left_alone_unless_istiod_reads_them() {
    let plain = || secret(json!({}), &R1);
    assert!(copy(&with(plain(), "note.txt", b"x")).verdict.is_ok());
    assert_eq!(flaw(&with(plain(), "istio-generated", b"")), Flaw::Foreign("istio-generated"));
    assert_eq!(flaw(&with(plain(), "tls.crt", b"")), Flaw::Missing("ca.crt"));
    assert_eq!(flaw(&with(plain(), "ca-crl.pem", b"no list")), Flaw::CrlMalformed);
    let beside = Beside { crl: Some(b"no list".to_vec()), tls: false };
    assert_eq!(copy(&with(plain(), "ca-crl.pem", b"no list")).beside, beside);
}

#[test]
fn a_secret_of_cert_managers_is_shown_with_the_root_that_istiod_takes() {
    let bundle = &R1_OTHER_CA.bundle;
    let mut tls = with(secret(json!({}), &R1), "ca.crt", &bundle.root_cert);
    tls.data.as_mut().unwrap().remove("root-cert.pem");
    tls = with(with(tls, "tls.crt", &bundle.ca_cert), "tls.key", bundle.ca_key.expose());
    let copy = copy(&tls);
    assert!(copy.verdict.as_ref().unwrap().same_roots(&R1));
    assert_eq!(copy.glance.as_ref(), Some(&R1.glance));
    assert!(copy.beside.tls);
}

#[test]
fn what_is_not_sound_is_there_all_the_same_and_shown() {
    let tampered = with(secret(json!({}), &R1), "ca-key.pem", R2.bundle.ca_key.expose());
    assert_eq!(flaw(&tampered), Flaw::KeyMismatch);
    assert_eq!(copy(&tampered).glance.as_ref(), Some(&R1.glance));
    assert_eq!(flaw(&with(secret(json!({}), &R1), "ca-key.pem", b"")), Flaw::Empty("ca-key.pem"));
    let mut incomplete = secret(json!({}), &R1);
    incomplete.data.as_mut().unwrap().remove("cert-chain.pem");
    assert_eq!(flaw(&incomplete), Flaw::Missing("cert-chain.pem"));
    for empty in [None, Some(BTreeMap::new())] {
        let empty = Secret { data: empty, ..Secret::default() };
        assert_eq!(flaw(&empty), Flaw::Missing("root-cert.pem"));
        assert_eq!(copy(&empty).glance, None);
    }
}

#[test]
fn it_is_checked_at_the_time_of_reading() {
    let Published::Present(copy) = published(&secret(json!({}), &R1), at(NOW + 2 * YEARS)) else { panic!() };
    assert!(copy.verdict.as_ref().is_err_and(Flaw::is_expired));
}

#[test]
fn its_annotation_names_a_root_or_cannot_be_read_or_is_not_there() {
    let annotated =
        |text: &str| copy(&secret(json!({"annotations": {"istio-ca-gate.io/root-sha256": text}}), &R1)).annotated_root;
    assert_eq!(annotated(&R2.root.hex()), Some(Ok(R2.root)));
    for malformed in ["", "ab", &R2.root.openssl(), &format!(" {}", R2.root)] {
        assert!(matches!(annotated(malformed), Some(Err(_))), "{malformed:?}");
    }
    assert_eq!(copy(&secret(json!({}), &R1)).annotated_root, None);
}

#[test]
fn nothing_of_the_key_is_printed() {
    let tampered = with(secret(json!({}), &R1), "root-cert.pem", R1.bundle.ca_key.expose());
    for secret in [secret(json!({}), &R1), tampered] {
        let printed = format!("{:?}", published(&secret, now()));
        assert!(!gate_core::samples::traces().iter().any(|trace| printed.contains(trace)), "{printed}");
    }
}

fn version(version: &str) -> Published {
    published(&secret(json!({"resourceVersion": version}), &R1), now())
}

/// What becomes of what is known when the watch tells and reads end, in this order.
#[test]
fn what_is_known_is_current_only_if_it_is_the_version_that_was_told_last() {
    let told = |watched: &mut Watched, version: &str| watched.was_told(Told::present(version.to_owned()), Boot::now());
    let read = |watched: &mut Watched, published: &Published| {
        let generation = watched.order.generation();
        watched.was_read(generation, published, Boot::now())
    };
    let mut watched = Watched::default();
    told(&mut watched, "1");
    assert!(!watched.is_current(), "told, and not read yet");
    assert_eq!(read(&mut watched, &version("1")), Worth::Same);
    assert!(watched.is_current());

    // Told again, as after each list, it is no change; another version is, until it was read.
    let generation = watched.order.generation();
    told(&mut watched, "1");
    assert!(watched.is_current() && watched.order.generation() == generation);
    watched.read = Some(Boot::now());
    told(&mut watched, "2");
    assert!(!watched.is_current() && watched.order.generation() == generation + 1 && watched.read.is_none());
    assert_eq!(watched.was_read(generation, &version("1"), Boot::now()), Worth::Overtaken);
    assert!(!watched.is_current());
    assert_eq!(read(&mut watched, &version("2")), Worth::Same);
    assert!(watched.is_current());

    // A read may be ahead of the watch, which then tells of what was overtaken.
    assert_eq!(read(&mut watched, &version("4")), Worth::Newer);
    assert!(watched.is_current());
    told(&mut watched, "3");
    assert!(!watched.is_current());
    told(&mut watched, "4");
    assert!(watched.is_current());

    assert_eq!(read(&mut watched, &Published::Absent), Worth::Newer);
    assert!(watched.is_current() && watched.order.version() == Some(""));
}

#[test]
fn a_watch_that_a_read_contradicts_is_not_trusted_until_it_has_begun_anew() {
    // A live read is trusted for the call that it was made for, whatever the watch tells.
    let (now, later) = (Boot::now(), Boot::now().plus(Duration::from_secs(1)));
    for (read, is_taken) in [(version("9"), true), (Published::Absent, true), (version("7"), false)] {
        let mut watched = Watched::default();
        watched.was_told(Told::present("8".to_owned()), now);
        watched.was_read(1, &version("8"), now);
        assert!(watched.is_trusted(later));
        watched.was_read(1, &read, now);
        assert!(!watched.is_trusted(later), "{read:?}");
        assert_eq!(
            watched.published.as_ref().map(Published::resource_version) == Some(read.resource_version()),
            is_taken
        );
    }
}

/// A Secret of this version, or nothing, as a user of the API sees it.
fn answer(version: Option<&str>) -> (u16, Value) {
    match version {
        Some(version) => (200, serde_json::to_value(secret(json!({"resourceVersion": version}), &R1)).unwrap()),
        None => refusal(404, "NotFound"),
    }
}

#[tokio::test]
async fn a_deletion_that_the_watch_never_told_is_read_all_the_same() {
    let there = watch::Sender::new(true);
    let seen = there.subscribe();
    let client = answered_by(move |_| answer(seen.borrow().then_some("8")));
    let cacerts = Cacerts::new(client, "istio-system", "cacerts");
    cacerts.tell(Told::present("8".to_owned()));
    let mut watched = cacerts.watched();
    let lost = async {
        drop(watched.wait_for(Watched::is_current).await);
        there.send_replace(false);
        drop(watched.wait_for(|watched| matches!(watched.published, Some(Published::Absent))).await);
    };
    tokio::select! {
        () = cacerts.keep_read(|| (), Duration::from_millis(10)) => unreachable!(),
        () = lost => {}
    }
    assert!(cacerts.watched().borrow().heard.is_none(), "the watch is not trusted any more");
}

#[tokio::test]
async fn what_cannot_be_read_is_tried_again_without_anybody_asking() {
    let tries = watch::Sender::new(0);
    let count = tries.clone();
    let client = answered_by(move |_| {
        count.send_modify(|count| *count += 1);
        if *count.borrow() < 3 { refusal(403, "Forbidden") } else { answer(Some("8")) }
    });
    let cacerts = Cacerts::new(client, "istio-system", "cacerts");
    let mut watched = cacerts.watched();
    tokio::select! {
        () = cacerts.keep_read(|| (), READ_AGAIN) => unreachable!(),
        _ = watched.wait_for(|watched| watched.published.is_some()) => {}
    }
    // The last but one told the version alone.
    assert_eq!(*tries.borrow(), 4);
}
