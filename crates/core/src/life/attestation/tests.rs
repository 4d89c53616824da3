#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn whole() -> Attestation {
    let time = |text: &str| text.parse().unwrap();
    Attestation {
        cluster: "nas".to_owned(),
        state: Some("3f".repeat(32).parse().unwrap()),
        settled: Some(time("2026-11-28T10:02:11Z")),
        at: time("2026-11-28T11:00:00Z"),
        record_version: 7,
        signer: Some(AttestedSigner {
            sha256: Sha256([1; 32]),
            root: Sha256([2; 32]),
            not_after: time("2027-02-26T10:00:00Z"),
        }),
        roots: [Sha256([2; 32]), Sha256([3; 32])].into(),
        istiods: Istiods { settled: 2, behind: Vec::new() },
        namespaces: Namespaces { total: 41, behind: vec!["shop".to_owned()] },
        ttl_seen: Some(Duration::from_secs(24 * 3600)),
        ready: false,
        why: Some("a namespace has other roots".to_owned()),
        version: "0.2.0".to_owned(),
    }
}

#[test]
fn an_attestation_is_read_as_it_is_written() {
    for attestation in [
        whole(),
        Attestation { state: None, settled: None, signer: None, ttl_seen: None, why: None, ready: true, ..whole() },
    ] {
        assert_eq!(Attestation::parse("nas", &attestation.data()), Ok(attestation));
    }
}

#[test]
fn its_json_has_the_names_of_the_contract() {
    let data = Value::Object(whole().data());
    let expected = json!({
        "cluster": "nas", "state": "3f".repeat(32), "settled": "2026-11-28T10:02:11Z", "at": "2026-11-28T11:00:00Z",
        "recordVersion": 7,
        "signer": { "sha256": "01".repeat(32), "root": "02".repeat(32), "notAfter": "2027-02-26T10:00:00Z" },
        "roots": ["02".repeat(32), "03".repeat(32)], "istiods": { "settled": 2, "behind": [] },
        "namespaces": { "total": 41, "behind": ["shop"] }, "ttlSeen": "1day", "why": "a namespace has other roots",
        "version": "0.2.0",
    });
    assert_eq!(data, expected);
}

#[test]
fn what_another_cluster_wrote_is_nobodys() {
    assert_eq!(Attestation::parse("homelab", &whole().data()), Err(InvalidAttestation("cluster")));
}

#[test]
fn the_key_that_cannot_be_read_is_named() {
    for (key, wrong) in [
        ("state", json!("3f")),
        ("settled", json!("yesterday")),
        ("at", json!(null)),
        ("recordVersion", json!("7")),
        ("roots", json!(["x"])),
        ("istiods", json!(2)),
        ("namespaces", json!(null)),
        ("ttlSeen", json!("a day")),
        ("why", json!(7)),
    ] {
        let mut data = whole().data();
        data.insert(key.to_owned(), wrong);
        assert_eq!(Attestation::parse("nas", &data), Err(InvalidAttestation(key)));
    }
    let mut data = whole().data();
    data.insert("note".to_owned(), json!("from a later version"));
    assert_eq!(Attestation::parse("nas", &data), Ok(whole()));
}

#[test]
fn many_names_are_cut_and_text_of_another_cluster_is_made_fit_for_users() {
    let behind = (0..1000).map(|index| format!("ns-{index}")).collect();
    let namespaces = Namespaces { total: 1000, behind };
    let why = Some("two\nlines -----BEGIN PRIVATE KEY-----".to_owned());
    let read = Attestation::parse("nas", &Attestation { namespaces, why, ..whole() }.data()).unwrap();
    assert_eq!(read.namespaces.behind.len(), NAMED_MOST);
    assert_eq!(read.why.as_deref(), Some("(withheld: it may hold a secret)"));
}

#[test]
fn the_time_alone_makes_no_other_attestation() {
    let later = Attestation { at: "2026-11-28T12:00:00Z".parse().unwrap(), ..whole() };
    assert!(whole().says_as(&later));
    assert!(!whole().says_as(&Attestation { settled: None, ..later }));
}
