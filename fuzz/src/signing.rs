//! A record of the signing kind, what clusters attest to, and the rule that goes by both:
//! `{"now", "record", "heard": {NAME: attestation}, "goal", "mayCross", "retired"}`.

use std::collections::BTreeMap;

use istio_ca_gate::ca::file;
use istio_ca_gate::ca::record::{Rotation, SigningRecord};
use istio_ca_gate::life::attestation::Attestation;
use istio_ca_gate::life::audience::{Audience, Heard};
use istio_ca_gate::life::change::{self, Material};
use istio_ca_gate::life::rule::{self, Next, Standing, Step};
use istio_ca_gate::life::start::obstacles;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

pub(crate) const WORDS: &[&str] = &[
    "now",
    "record",
    "heard",
    "goal",
    "mayCross",
    "retired",
    "root-cert.pem",
    "issuer",
    "chain.pem",
    "rotation",
    "from",
    "clusters",
    "ttl",
    "paused",
    "started",
    "by",
    "seen",
    "settled",
    "at",
    "cluster",
    "state",
    "recordVersion",
    "signer",
    "sha256",
    "root",
    "notAfter",
    "roots",
    "istiods",
    "behind",
    "namespaces",
    "total",
    "ttlSeen",
    "why",
    "version",
    "nas",
    "homelab",
    "root-1",
    "root-2",
    "default",
    "24h",
    "0s",
    "1ns",
    "584554531years",
    "18446744073709551615s",
    "-1h",
    "1month",
    "2027-01-01T00:00:00Z",
    "2026-12-31T23:59:00Z",
    "2027-01-01T00:04:59Z",
    "9999-12-30T22:00:00.999999999Z",
    "-009999-01-02T01:59:59Z",
    "1970-01-01T00:00:00Z",
    "2027-01-01T00:00:00+23:59",
    "true",
    "key.pem",
];

pub(crate) fn run(input: &[u8]) {
    let Ok(Value::Object(given)) = serde_json::from_slice::<Value>(input) else { return };
    let now = given.get("now").and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN);
    let object = |key: &str| given.get(key).and_then(Value::as_object);
    let heard: Heard =
        object("heard").into_iter().flatten().map(|(name, data)| (name.clone(), attested(name, data))).collect();
    let Some(data) = object("record") else { return };
    if let Some(Ok(rotation)) = data.get("rotation").map(Rotation::parse) {
        assert_eq!(Rotation::parse(&rotation.data()), Ok(rotation), "it is not read as it is written");
    }
    let Ok(record) = SigningRecord::parse(data, now) else { return };
    assert!(!record.roots().is_empty() && record.usable_until().at > now);
    let goal = given.get("goal").and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| given.get(key) == Some(&Value::Bool(true));
    let root = file::first(goal.as_bytes()).ok().map(|glance| glance.sha256);
    let standing =
        Standing { may_cross: flag("mayCross"), issuer_retired: flag("retired"), ..Standing::of(&record, root) };
    judge(data, &record, &standing, &heard, goal, now);
}

fn attested(name: &str, data: &Value) -> Result<Attestation, istio_ca_gate::life::attestation::InvalidAttestation> {
    let empty = Map::new();
    let read = Attestation::parse(name, data.as_object().unwrap_or(&empty))?;
    let again = Attestation::parse(name, &read.data());
    // Lists of names are cut, and what others say is made fit to be repeated once more.
    let plain = |attestation: Attestation| Attestation {
        istiods: Default::default(),
        namespaces: Default::default(),
        why: None,
        version: String::new(),
        ..attestation
    };
    assert_eq!(again.map(plain), Ok(plain(read.clone())), "it is not read as it is written");
    Ok(read)
}

/// Unknown is no: nobody who is waited for may be silent, unreadable, old or behind when something is taken from the mesh.
fn judge(
    data: &Map<String, Value>,
    record: &SigningRecord,
    standing: &Standing<'_>,
    heard: &Heard,
    goal: &str,
    now: Timestamp,
) {
    let next = rule::next(standing, heard, now);
    let Some(rotation) = standing.rotation else { return assert_eq!(next, Next::Rest) };
    let audience = Audience::of(rotation, heard, standing.state, now);
    if let Next::Take(step @ (Step::Switch { .. } | Step::Drop | Step::Done)) | Next::Wait { then: step, .. } = &next {
        assert!(
            !audience.is_empty() && audience.not_ready().is_empty(),
            "{step:?} although {:?}",
            audience.not_ready()
        );
        let named = |name: &String| matches!(heard.get(name), Some(Ok(said)) if said.state == Some(standing.state));
        assert!(
            rotation.clusters.iter().all(named) && heard.keys().all(named),
            "{step:?} without some that are waited for"
        );
    }
    if let Next::Take(Step::Drop | Step::Switch { crossed: false }) = &next {
        assert!(audience.ended().is_some_and(|ended| ended <= now), "leaves from before may be about");
    }
    let sightings = audience.sightings(now);
    let material = Material { goal, cross: Some(goal), sightings: &sightings };
    for step in [Step::Trust, Step::Switch { crossed: true }, Step::Return, Step::Note, Step::Drop, Step::Done] {
        if let Ok(Some(after)) = change::after(data, record, &step, &material) {
            kept(data, &after);
        }
    }
    let goals: BTreeMap<_, _> = heard.iter().filter(|(_, read)| read.is_ok()).collect();
    let clusters = goals.keys().map(|name| (*name).clone()).collect();
    let standing_in_the_way = obstacles(record, "root-9", &clusters, rotation.ttl, heard, now);
    assert!(!standing_in_the_way.is_empty(), "two rotations at once");
}

/// Keys that the program does not know are left alone.
fn kept(before: &Map<String, Value>, after: &Map<String, Value>) {
    let known = ["root-cert.pem", "issuer", "chain.pem", "rotation"];
    let others = |data: &Map<String, Value>| -> Vec<(String, Value)> {
        let mut others: Vec<_> = data
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        others.sort_by(|one, other| one.0.cmp(&other.0));
        others
    };
    assert_eq!(others(before), others(after));
}
