//! Objects as `kubectl get` shows them: `pkg/printers/internalversion/printers.go`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::object::meta;
use super::resources::Resource;

/// A column: its name, type and format, whether it is for wide output only, and what it shows.
struct Column(&'static str, &'static str, bool, fn(&Value, Timestamp) -> Value);

/// What a row has of its object: the parameter `includeObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Included {
    Nothing,
    Metadata,
    Object,
}

impl Included {
    /// `None`: there is no such value.
    pub(crate) fn of(asked: &str) -> Option<Self> {
        match asked {
            "None" => Some(Self::Nothing),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The table of an object or a list.
pub(crate) fn table(resource: &Resource, object: &Value, included: Included, now: Timestamp) -> Value {
    let one = [object.clone()];
    let items = object["items"].as_array().map_or(one.as_slice(), Vec::as_slice);
    let columns = columns(resource);
    let definition = |Column(name, kind, wide, _): &Column| {
        let format = if *name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": "", "priority": i32::from(*wide)})
    };
    let row = |object: &Value| {
        let cells: Vec<Value> = columns.iter().map(|Column(_, _, _, cell)| cell(object, now)).collect();
        let shown = match included {
            Included::Nothing => Value::Null,
            Included::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            }),
            Included::Object => {
                let mut whole = object.clone();
                whole["kind"] = resource.kind.into();
                whole["apiVersion"] = resource.api_version().into();
                whole
            }
        };
        json!({"cells": cells, "object": shown})
    };
    let rows: Vec<Value> = items.iter().map(row).collect();
    let metadata = if object["items"].is_array() {
        object["metadata"].clone()
    } else {
        json!({"resourceVersion": meta(object, "resourceVersion")})
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.iter().map(definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

const STRING: &str = "string";
const INTEGER: &str = "integer";
const NONE: &str = "<none>";
const NAME: Column = Column("Name", STRING, false, |object, _| meta(object, "name").into());
const AGE: Column = Column("Age", STRING, false, |object, now| age(&object["metadata"]["creationTimestamp"], now));
const CONTAINERS: Column = Column("Containers", STRING, true, |object, _| containers(object, "name"));
const IMAGES: Column = Column("Images", STRING, true, |object, _| containers(object, "image"));
const SELECTOR: Column = Column("Selector", STRING, true, |object, _| selector(&object["spec"]["selector"]));

fn columns(resource: &Resource) -> Vec<Column> {
    match resource.plural {
        "namespaces" => vec![NAME, Column("Status", STRING, false, |o, _| o["status"]["phase"].clone()), AGE],
        "secrets" => vec![
            NAME,
            Column("Type", STRING, false, |o, _| o["type"].clone()),
            Column("Data", STRING, false, |o, _| count(&o["data"]).into()),
            AGE,
        ],
        "configmaps" => {
            vec![NAME, Column("Data", STRING, false, |o, _| (count(&o["data"]) + count(&o["binaryData"])).into()), AGE]
        }
        "pods" => pods(),
        "deployments" => vec![
            NAME,
            Column("Ready", STRING, false, |o, _| {
                format!("{}/{}", number(&o["status"]["readyReplicas"]), number(&o["spec"]["replicas"])).into()
            }),
            Column("Up-to-date", STRING, false, |o, _| number(&o["status"]["updatedReplicas"]).into()),
            Column("Available", STRING, false, |o, _| number(&o["status"]["availableReplicas"]).into()),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        "replicasets" => vec![
            NAME,
            Column("Desired", INTEGER, false, |o, _| number(&o["spec"]["replicas"]).into()),
            Column("Current", INTEGER, false, |o, _| number(&o["status"]["replicas"]).into()),
            Column("Ready", INTEGER, false, |o, _| number(&o["status"]["readyReplicas"]).into()),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        "events" => events(),
        _ => vec![NAME, AGE],
    }
}

fn pods() -> Vec<Column> {
    vec![
        NAME,
        Column("Ready", STRING, false, |o, _| {
            let statuses = o["status"]["containerStatuses"].as_array().into_iter().flatten();
            let ready = statuses.filter(|status| status["ready"] == true).count();
            format!("{ready}/{}", o["spec"]["containers"].as_array().map_or(0, Vec::len)).into()
        }),
        Column("Status", STRING, false, |o, _| {
            if o["metadata"]["deletionTimestamp"].is_null() {
                o["status"]["phase"].clone()
            } else {
                "Terminating".into()
            }
        }),
        Column("Restarts", STRING, false, |_, _| "0".into()),
        AGE,
        Column("IP", STRING, true, |o, _| o["status"]["podIP"].as_str().unwrap_or(NONE).into()),
        Column("Node", STRING, true, |o, _| o["spec"]["nodeName"].as_str().unwrap_or(NONE).into()),
        Column("Nominated Node", STRING, true, |_, _| NONE.into()),
        Column("Readiness Gates", STRING, true, |_, _| NONE.into()),
    ]
}

fn events() -> Vec<Column> {
    fn text(value: &Value) -> Value {
        value.as_str().unwrap_or_default().into()
    }
    /// An event has old and new names for the same times.
    fn time(event: &Value, names: &[&str], now: Timestamp) -> Value {
        let first = names.iter().map(|name| &event[*name]).find(|time| !time.is_null());
        first.map_or("<unknown>".into(), |time| age(time, now))
    }
    vec![
        Column("Last Seen", STRING, false, |o, now| match &o["series"]["lastObservedTime"] {
            Value::Null => time(o, &["lastTimestamp", "firstTimestamp", "eventTime"], now),
            last => age(last, now),
        }),
        Column("Type", STRING, false, |o, _| text(&o["type"])),
        Column("Reason", STRING, false, |o, _| text(&o["reason"])),
        Column("Object", STRING, false, |o, _| {
            let (kind, name) = (text(&o["involvedObject"]["kind"]), text(&o["involvedObject"]["name"]));
            let kind = kind.as_str().unwrap_or_default().to_lowercase();
            format!("{kind}/{}", name.as_str().unwrap_or_default()).into()
        }),
        Column("Subobject", STRING, true, |o, _| text(&o["involvedObject"]["fieldPath"])),
        Column("Source", STRING, true, |o, _| match text(&o["source"]["component"]) {
            Value::String(none) if none.is_empty() => text(&o["reportingComponent"]),
            component => component,
        }),
        Column("Message", STRING, false, |o, _| o["message"].as_str().unwrap_or_default().trim().into()),
        Column("First Seen", STRING, true, |o, now| time(o, &["firstTimestamp", "eventTime"], now)),
        Column("Count", STRING, true, |o, _| {
            let count = o["series"]["count"].as_i64().or_else(|| o["count"].as_i64()).filter(|count| *count > 0);
            count.unwrap_or(1).into()
        }),
        Column("Name", STRING, true, NAME.3),
    ]
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn containers(object: &Value, field: &str) -> Value {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let values: Vec<&str> = containers.into_iter().flatten().filter_map(|c| c[field].as_str()).collect();
    values.join(",").into()
}

fn selector(selector: &Value) -> Value {
    let labels = selector["matchLabels"].as_object();
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { NONE.into() } else { pairs.join(",").into() }
}

fn age(time: &Value, now: Timestamp) -> Value {
    let since = time.as_str().and_then(|time| time.parse::<Timestamp>().ok());
    since.map_or("<unknown>".into(), |since| duration(now.as_second() - since.as_second()).into())
}

/// `HumanDuration` in `k8s.io/apimachinery/pkg/util/duration`: the longer, the coarser.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let with = |large: i64, unit: char, small: i64, part: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{part}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => with(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => with(days / 365, 'y', days % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_ago_the_coarser() {
        let cases = [(0, "0s"), (119, "119s"), (120, "2m"), (195, "3m15s"), (3600, "60m"), (3 * 3600 + 300, "3h5m")];
        for (seconds, text) in cases.into_iter().chain([(30 * 3600, "30h"), (49 * 3600, "2d1h"), (9 * 86400, "9d")]) {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
