//! What is there to ask for, and whether the server is well.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resources::{RESOURCES, Resource};
use super::server::{Core, answer as json_answer};
use crate::wire::{self, Answer, Request};

/// What `kubectl get all` shows.
const ALL: [&str; 7] = ["pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs"];

/// Answers a request that is not about objects.
pub(crate) fn answer(core: &Core, request: &Request) -> Answer {
    let segments = request.segments();
    let host = request.header(http::header::HOST).unwrap_or_default();
    let found = match segments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["readyz" | "livez" | "healthz"] => return wire::text(200, "text/plain; charset=utf-8", "ok"),
        ["version"] => Some(version()),
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
        })),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()})),
        ["api", version] => resource_list("", version),
        ["apis", group] => groups().into_iter().find(|g| g["name"] == *group).map(|mut group| {
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }),
        ["apis", group, version] => resource_list(group, version),
        [".well-known", "openid-configuration"] => Some(json!({
            "issuer": core.tokens.issuer(),
            "jwks_uri": format!("https://{host}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })),
        ["openid", "v1", "jwks"] => Some(core.tokens.keys()),
        _ => None,
    };
    match found {
        Some(found) => json_answer(request, 200, &found),
        None => wire::text(404, "text/plain; charset=utf-8", "404 page not found\n"),
    }
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "34",
        "emulationMajor": "1", "emulationMinor": "34", "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
        "gitVersion": "v1.34.4", "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

fn groups() -> Vec<Value> {
    let versions: BTreeMap<&str, &str> =
        RESOURCES.iter().filter(|r| !r.group.is_empty()).map(|r| (r.group, r.version)).collect();
    let group = |(group, version): (&str, &str)| {
        let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
        json!({"name": group, "versions": [version], "preferredVersion": version})
    };
    versions.into_iter().map(group).collect()
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let of: Vec<&Resource> = RESOURCES.iter().filter(|r| r.group == group && r.version == version).collect();
    let group_version = of.first()?.api_version();
    let resources: Vec<Value> = of.into_iter().flat_map(entries).collect();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

fn entries(resource: &Resource) -> Vec<Value> {
    let verbs: &[&str] = if resource.is_review() {
        &["create"]
    } else if resource.is_deleted_at_once() {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    } else {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    };
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs,
    });
    if !resource.short.is_empty() {
        entry["shortNames"] = json!(resource.short);
    }
    if ALL.contains(&resource.plural) {
        entry["categories"] = json!(["all"]);
    }
    let mut entries = vec![entry];
    let sub = |name: &str, kind: &str, verbs: &[&str]| {
        let name = format!("{}/{name}", resource.plural);
        json!({"name": name, "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs})
    };
    if resource.has_status() {
        entries.push(sub("status", resource.kind, &["get", "patch", "update"]));
    }
    if resource.plural == "serviceaccounts" {
        let mut token = sub("token", "TokenRequest", &["create"]);
        token["group"] = "authentication.k8s.io".into();
        token["version"] = "v1".into();
        entries.push(token);
    }
    entries
}
