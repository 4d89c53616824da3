//! The part of a record that says where a change of the root leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::IssuerName;

/// A change of the root that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The issuer that it leads to.
    pub goal: IssuerName,
    /// Where it came from.
    pub from: Vec<IssuerName>,
    /// Clusters that it waits for, whether they are heard of or not.
    pub clusters: BTreeSet<String>,
    /// The longest life of a workload's certificate.
    pub ttl: Duration,
    /// Nobody takes a step.
    pub paused: bool,
    /// When it began.
    pub started: Timestamp,
    /// Who began it.
    pub by: String,
    /// When whoever takes the steps has first seen each cluster settled by the present state.
    pub seen: BTreeMap<String, Sighting>,
}

/// A cluster was seen settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Since when it says that it is.
    pub settled: Timestamp,
    /// When it was seen.
    pub at: Timestamp,
}

/// A key of `rotation` that is not there, or not of the form that it has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} of rotation is missing or of another form")]
pub struct InvalidRotation(pub &'static str);

impl Rotation {
    /// Reads it. Keys that it does not know are left alone.
    ///
    /// # Errors
    /// Which key cannot be read.
    pub fn parse(value: &Value) -> Result<Self, InvalidRotation> {
        let map = value.as_object().ok_or(InvalidRotation("the whole"))?;
        let from = texts(map, "from")?.map(str::parse).collect::<Result<_, _>>();
        Ok(Self {
            goal: text(map, "goal")?.parse().map_err(|_| InvalidRotation("goal"))?,
            from: from.map_err(|_| InvalidRotation("from"))?,
            clusters: texts(map, "clusters")?.map(ToOwned::to_owned).collect(),
            ttl: humantime::parse_duration(text(map, "ttl")?).map_err(|_| InvalidRotation("ttl"))?,
            paused: match map.get("paused") {
                None => false,
                Some(paused) => paused.as_bool().ok_or(InvalidRotation("paused"))?,
            },
            started: text(map, "started")?.parse().map_err(|_| InvalidRotation("started"))?,
            by: text(map, "by")?.to_owned(),
            seen: match map.get(SEEN) {
                None | Some(Value::Null) => BTreeMap::new(),
                Some(seen) => Sighting::all(seen).ok_or(InvalidRotation(SEEN))?,
            },
        })
    }

    /// Where it came from, for people: of clusters that had no root in common there is none to name.
    pub fn from_words(from: &[impl AsRef<str>]) -> String {
        let names: Vec<_> = from.iter().map(AsRef::as_ref).collect();
        if names.is_empty() { "each cluster's own root".to_owned() } else { names.join(", ") }
    }

    /// As it is written.
    pub fn data(&self) -> Value {
        json!({
            "goal": self.goal.as_str(), "from": self.from.iter().map(IssuerName::as_str).collect::<Vec<_>>(),
            "clusters": self.clusters, "ttl": humantime::format_duration(self.ttl).to_string(), "paused": self.paused,
            "started": self.started.to_string(), "by": self.by, SEEN: Sighting::data(&self.seen),
        })
    }
}

/// `seen` of a rotation.
pub const SEEN: &str = "seen";

impl Sighting {
    fn all(value: &Value) -> Option<BTreeMap<String, Self>> {
        let one = |(name, value): (&String, &Value)| {
            let time = |key: &str| value.get(key)?.as_str()?.parse().ok();
            Some((name.clone(), Self { settled: time("settled")?, at: time("at")? }))
        };
        value.as_object()?.iter().map(one).collect()
    }

    /// As they are written.
    pub fn data(seen: &BTreeMap<String, Self>) -> Value {
        let one = |(name, sighting): (&String, &Self)| {
            (name.clone(), json!({ "settled": sighting.settled.to_string(), "at": sighting.at.to_string() }))
        };
        Value::Object(seen.iter().map(one).collect())
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, InvalidRotation> {
    map.get(key).and_then(Value::as_str).ok_or(InvalidRotation(key))
}

fn texts<'a>(map: &'a Map<String, Value>, key: &'static str) -> Result<impl Iterator<Item = &'a str>, InvalidRotation> {
    let list = map.get(key).and_then(Value::as_array).ok_or(InvalidRotation(key))?;
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    texts.map(Vec::into_iter).ok_or(InvalidRotation(key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn whole() -> Value {
        json!({
            "goal": "root-2", "from": ["root-1"], "clusters": ["nas", "homelab"], "ttl": "24h", "paused": true,
            "started": "2026-11-28T10:00:00Z", "by": "ops@laptop", "note": 7,
        })
    }

    #[test]
    fn a_rotation_is_read_as_it_is_written() {
        let rotation = Rotation::parse(&whole()).unwrap();
        let expected = Rotation {
            goal: "root-2".parse().unwrap(),
            from: vec!["root-1".parse().unwrap()],
            clusters: ["homelab", "nas"].map(str::to_owned).into(),
            ttl: Duration::from_secs(24 * 3600),
            paused: true,
            started: "2026-11-28T10:00:00Z".parse().unwrap(),
            by: "ops@laptop".to_owned(),
            seen: BTreeMap::new(),
        };
        assert_eq!(rotation, expected);
        assert_eq!(Rotation::parse(&expected.data()), Ok(expected));
    }

    #[test]
    fn one_that_says_nothing_of_a_pause_is_not_paused() {
        let mut value = whole();
        value.as_object_mut().unwrap().remove("paused");
        assert!(!Rotation::parse(&value).unwrap().paused);
    }

    #[test]
    fn what_was_seen_is_read_as_it_is_written() {
        let mut rotation = Rotation::parse(&whole()).unwrap();
        let [settled, at] = ["2026-11-28T11:00:00Z", "2026-11-28T11:00:30Z"].map(|time| time.parse().unwrap());
        rotation.seen.insert("nas".to_owned(), Sighting { settled, at });
        assert_eq!(Rotation::parse(&rotation.data()), Ok(rotation));
    }

    #[test]
    fn the_key_that_cannot_be_read_is_named() {
        for (key, wrong) in [
            ("goal", json!("default")),
            ("from", json!([7])),
            ("clusters", json!("nas")),
            ("ttl", json!("a day")),
            ("paused", json!("no")),
            ("started", json!("yesterday")),
            ("by", json!(null)),
            ("seen", json!({ "nas": { "at": "2026-11-28T10:00:00Z" } })),
        ] {
            let mut value = whole();
            value[key] = wrong;
            assert_eq!(Rotation::parse(&value), Err(InvalidRotation(key)));
        }
        assert_eq!(Rotation::parse(&json!("{}")), Err(InvalidRotation("the whole")));
    }
}
