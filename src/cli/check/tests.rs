#![allow(clippy::unwrap_used)]

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::read::read;
use super::*;
use crate::ca::bundle::Bundle;
use crate::ca::fixtures::{Ca, now, traces};

fn files(bundle: &Bundle) -> [(&'static str, Vec<u8>); 4] {
    [
        ("root-cert.pem", bundle.root_cert.clone()),
        ("cert-chain.pem", bundle.cert_chain.clone()),
        ("ca-cert.pem", bundle.ca_cert.clone()),
        ("ca-key.pem", bundle.ca_key.expose().to_vec()),
    ]
}

async fn judged(name: &str, text: &[u8]) -> Judgement {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let (_, read) = read(&path).await;
    report(name.to_owned(), judge(read, now()))
}

fn base64(bytes: &[u8]) -> String {
    crate::ca::fixtures::base64(bytes)
}

#[tokio::test]
async fn a_folder_a_secret_and_a_record_of_one_ca_are_judged_alike() {
    let root = Ca::root("Root");
    let bundle = root.bundle();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files(&bundle) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let (_, read) = read(folder.path()).await;
    let wanted = report("it".to_owned(), judge(read, now()));
    assert_eq!((wanted.verdict, wanted.findings.len(), code(std::slice::from_ref(&wanted))), (Verdict::Sound, 0, 0));

    let data: serde_json::Map<_, _> =
        files(&bundle).into_iter().map(|(name, bytes)| (name.to_owned(), json!(base64(&bytes)))).collect();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "data": data });
    let yaml: String = files(&bundle).iter().map(|(name, bytes)| format!("  {name}: {}\n", base64(bytes))).collect();
    let yaml = format!("apiVersion: v1\nkind: Secret\nmetadata: {{ name: cacerts }}\ndata:\n{yaml}");
    let record = bundle.to_record();
    for text in [
        secret.to_string(),
        yaml,
        json!({ "data": { "data": record, "metadata": { "version": 1 } } }).to_string(),
        serde_json::Value::Object(record.clone()).to_string(),
    ] {
        let told = judged("it", text.as_bytes()).await;
        assert_eq!(told, wanted, "{text:.60}");
    }
}

#[tokio::test]
async fn a_refusal_has_its_cause_and_its_remedy_and_a_key_is_never_told() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let mut wrong = root.bundle().to_record();
    wrong.insert("key.pem".to_owned(), json!(other.key.serialize_pem()));
    let mut mixed_up = root.bundle().to_record();
    mixed_up.insert("root-cert.pem".to_owned(), json!(root.key.serialize_pem()));
    for record in [wrong, mixed_up] {
        let told = judged("it", serde_json::Value::Object(record).to_string().as_bytes()).await;
        assert_eq!((told.verdict, code(std::slice::from_ref(&told))), (Verdict::Refused, 1));
        assert!(told.findings[0].remedy.is_some(), "{told:?}");
        let shown = lines(&told) + &serde_json::to_string(&told).unwrap();
        assert_eq!(lines(&told).lines().count(), 1);
        for trace in traces(&root.key).into_iter().chain(traces(&other.key)) {
            assert!(!shown.contains(&trace), "{trace} is in {shown}");
        }
    }
}

#[tokio::test]
async fn what_is_no_ca_cannot_be_read_and_is_not_repeated() {
    for text in ["", "x: [", "[]", "{\"kind\":\"Pod\"}", "{\"data\":{\"password\":\"hunter2\"}}", "hunter2"] {
        let told = judged("it", text.as_bytes()).await;
        assert_eq!((told.verdict, code(std::slice::from_ref(&told))), (Verdict::Unread, 2), "{text}");
        assert!(!lines(&told).contains("hunter2"), "{told:?}");
    }
    let (_, read) = read(std::path::Path::new("/nowhere/at/all")).await;
    assert!(read.is_err());
}

#[test]
fn a_sound_ca_is_told_with_its_end_and_the_worst_of_all_places_counts() {
    let root = Ca::root("Root");
    let of = |judged| report("it".to_owned(), judged);
    let sound = || of(judge(Ok(Ok(Given::Files(root.bundle()))), now()));
    let later = now() + SignedDuration::from_hours(24 * 36500);
    let refused = || of(judge(Ok(Ok(Given::Files(root.bundle()))), later));
    let unread = || of(Err(Unreadable { cause: "c".to_owned(), remedy: "r".to_owned() }));
    let line = lines(&sound());
    assert!(line.contains("usable until 2036-") && line.contains("certificate 1 of root-cert.pem"), "{line}");
    assert_eq!(code(&[sound(), refused()]), 1);
    assert_eq!(code(&[unread(), refused(), sound()]), 2);
    assert_eq!(lines(&unread()).matches(": c: r").count(), 1);
}

#[tokio::test]
async fn a_record_of_the_signing_kind_is_judged_by_what_it_trusts() {
    let root = Ca::root("Root");
    let record = SigningRecord::first(&root.certificate.pem(), &"root-1".parse().unwrap());
    let told = judged("record.json", json!({ "data": { "data": record } }).to_string().as_bytes()).await;
    assert_eq!((told.verdict, told.root_sha256.as_deref()), (Verdict::Sound, Some(told.roots[0].as_str())));
    assert!(lines(&told).contains("signers are certified by root-1"), "{}", lines(&told));
    let mut wrong = record;
    wrong.insert("issuer".to_owned(), json!("default"));
    let told = judged("record.json", serde_json::Value::Object(wrong).to_string().as_bytes()).await;
    assert_eq!(told.verdict, Verdict::Refused);
    assert!(lines(&told).contains("issuer is not the name"), "{}", lines(&told));
}
