#![allow(clippy::unwrap_used)]

use k8s_openapi::jiff::SignedDuration;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn made() -> Arc<ServingCa> {
    Arc::new(ServingCa::make(now(), SignedDuration::from_hours(1)).unwrap())
}

fn secret(data: &Value, changed: Option<&str>) -> Secret {
    let annotations = changed.map(|changed| json!({ CHANGED: changed }));
    let metadata = json!({ "name": "tls", "resourceVersion": "7", "annotations": annotations });
    serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
}

fn broken(data: &Value) -> String {
    usable(&secret(data, None)).err().unwrap()
}

fn bytes(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

#[test]
fn what_is_written_is_read_again() {
    let mut authorities = Authorities::new(made());
    for (next, others, changed) in [
        (None, vec![], None),
        (Some(made()), vec![], None),
        (None, vec![made().certificate().clone()], Some(now())),
        (Some(made()), vec![made().certificate().clone(), made().certificate().clone()], Some(now())),
    ] {
        authorities = Authorities { next, others, changed, ..authorities };
        let changed = authorities.changed.map(|at| at.to_string());
        let usable = usable(&secret(&data(&authorities), changed.as_deref())).unwrap();
        assert_eq!(usable.authorities.trusted(), authorities.trusted());
        assert_eq!(usable.bundle, authorities.bundle());
        assert_eq!(usable.resource_version, "7");
    }
}

#[test]
fn the_secret_of_an_older_version_is_one_ca_and_its_key() {
    let ca = made();
    let data = json!({ "ca.crt": bytes(ca.certificate_pem()), "ca.key": bytes(&ca.key_pem()) });
    let usable = usable(&secret(&data, None)).unwrap();
    assert_eq!(usable.authorities.trusted(), Authorities::new(ca).trusted());
}

#[test]
fn half_of_a_secret_and_others_things_are_told_in_words() {
    let (ca, other) = (made(), made());
    let whole = data(&Authorities::new(Arc::clone(&ca)));
    let but = |key: &str, value: Value| {
        let mut data = whole.clone();
        data[key] = value;
        data
    };
    let pem = ca.certificate_pem();
    for (data, expected) in [
        (json!({}), "it has no ca.crt"),
        (json!({ "ca.crt": bytes(pem) }), "it has no ca.key"),
        (but("ca.crt", bytes("")), "its ca.crt has 0 certificates"),
        (but("ca.crt", bytes(&pem.repeat(11))), "its ca.crt has 11 certificates"),
        (but("ca.crt", bytes(&pem[..pem.len() / 2])), "a certificate is not PEM"),
        (but("ca.crt", json!(ByteString(vec![0xff]))), "its ca.crt is not PEM"),
        (but("ca.key", bytes(&ca.key_pem()[..60])), "its key cannot be read"),
        (but("ca.key", bytes(&other.key_pem())), "its key is not its certificate's"),
        // The key has to be the first one's.
        (but("ca.crt", bytes(&[other.certificate_pem(), pem].concat())), "its key is not its certificate's"),
    ] {
        let what = broken(&data);
        assert!(what.starts_with(expected), "{what}, and not {expected}");
    }
}

#[test]
fn a_next_key_without_its_certificate_was_not_announced() {
    let (ca, other) = (made(), made());
    let mut data = data(&Authorities::new(ca));
    for key in [bytes(&other.key_pem()), bytes("no key")] {
        data["next.key"] = key;
        assert!(usable(&secret(&data, None)).unwrap().authorities.next.is_none());
    }
}
