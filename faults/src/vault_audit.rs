//! Vault's audit log: who wrote the record, and what came of it. Its device has to be one with `log_raw`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::files::Files;
use crate::history::{By, Deed, Line, Said};
use crate::kubernetes_audit::milliseconds;

/// The mount and the path of the record.
const PATH: (&str, &str) = ("secret/", "/istio/ca");

/// The policies of the gates' roles begin so; nobody else has them.
const POLICIES: [&str; 2] = ["istio-ca-bootstrap", "istio-ca-sync"];

/// Reads the log of the Vault of this name. Lines that are none of the record's are left out.
pub fn read(vault: &str, log: &str) -> Vec<Line> {
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut versions = BTreeMap::new();
    entries.filter_map(|entry| line(vault, &entry, &mut versions)).collect()
}

fn line(vault: &str, entry: &Value, versions: &mut BTreeMap<u64, Files>) -> Option<Line> {
    let request = &entry["request"];
    let rest = request["path"].as_str()?.strip_prefix(PATH.0)?;
    let kind = rest.strip_suffix(PATH.1)?;
    if entry["type"] != "response" || !entry["error"].as_str().unwrap_or_default().is_empty() {
        return None;
    }
    let has = |policy: &Value| policy.as_str().is_some_and(|name| POLICIES.iter().any(|own| name.starts_with(own)));
    let by =
        if entry["auth"]["policies"].as_array().is_some_and(|all| all.iter().any(has)) { By::Gate } else { By::Other };
    let operation = request["operation"].as_str()?;
    let (mut cas, mut version, mut files) = (None, None, None);
    let deed = match (kind, operation) {
        ("data", "create" | "update" | "patch") => {
            // Without one it was refused, as for its check-and-set.
            let written = entry["response"]["data"]["version"].as_u64()?;
            cas = request["data"]["options"]["cas"].as_u64();
            version = Some(written);
            files = Some(Files::of_record(&request["data"]["data"]));
            versions.extend(files.clone().map(|files| (written, files)));
            Deed::Write
        }
        ("data" | "delete" | "destroy", "delete" | "create" | "update") => Deed::Delete,
        ("undelete", _) => {
            version = request["data"]["versions"].as_array()?.iter().filter_map(Value::as_u64).max();
            files = version.and_then(|version| versions.get(&version)).cloned();
            Deed::Undelete
        }
        ("metadata", "delete") => Deed::Forget,
        _ => return None,
    };
    let said = Said::Record { vault: vault.to_owned(), by, deed, cas, version, files };
    Some(Line { at: milliseconds(&entry["time"])?, said })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(operation: &str, path: &str, policy: &str, request: &Value, response: &Value, error: &str) -> String {
        json!({
            "time": "2026-11-28T10:00:00.5Z", "type": "response", "error": error,
            "auth": { "policies": ["default", policy] },
            "request": { "operation": operation, "path": path, "data": request },
            "response": { "data": response },
        })
        .to_string()
    }

    #[test]
    fn writes_of_the_record_are_read_with_their_author_and_what_came_of_them() {
        let record = json!({ "data": { "root-cert.pem": "r", "key.pem": "k" }, "options": { "cas": 0 } });
        let (data, version) = ("secret/data/istio/ca", json!({ "version": 1 }));
        let log = [
            entry("create", data, "istio-ca-bootstrap", &record, &version, ""),
            entry("create", data, "istio-ca-bootstrap", &record, &json!({ "error": "check-and-set" }), ""),
            entry("create", data, "istio-ca-sync", &record, &Value::Null, "permission denied"),
            entry("read", data, "istio-ca-sync", &Value::Null, &version, ""),
            entry("delete", data, "root", &Value::Null, &Value::Null, ""),
            entry("update", "secret/undelete/istio/ca", "root", &json!({ "versions": [1] }), &Value::Null, ""),
            entry("delete", "secret/metadata/istio/ca", "root", &Value::Null, &Value::Null, ""),
            entry("create", "secret/data/other", "root", &record, &version, ""),
        ];
        let lines = read("vault", &log.join("\n"));
        let deeds: Vec<_> = lines
            .iter()
            .filter_map(|line| match &line.said {
                Said::Record { by, deed, cas, version, files, .. } => {
                    Some((*by, *deed, *cas, *version, files.is_some()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            deeds,
            [
                (By::Gate, Deed::Write, Some(0), Some(1), true),
                (By::Other, Deed::Delete, None, None, false),
                (By::Other, Deed::Undelete, None, Some(1), true),
                (By::Other, Deed::Forget, None, None, false),
            ]
        );
        assert_eq!(lines[0].at % 1000, 500);
    }
}
