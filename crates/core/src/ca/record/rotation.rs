//! The part of a record that says where a change of the root leads.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

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
        })
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
        };
        assert_eq!(rotation, expected);
    }

    #[test]
    fn one_that_says_nothing_of_a_pause_is_not_paused() {
        let mut value = whole();
        value.as_object_mut().unwrap().remove("paused");
        assert!(!Rotation::parse(&value).unwrap().paused);
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
        ] {
            let mut value = whole();
            value[key] = wrong;
            assert_eq!(Rotation::parse(&value), Err(InvalidRotation(key)));
        }
        assert_eq!(Rotation::parse(&json!("{}")), Err(InvalidRotation("the whole")));
    }
}
