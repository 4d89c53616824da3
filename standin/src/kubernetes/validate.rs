//! What makes an object invalid, in the words of `pkg/apis/*/validation` and `k8s.io/apimachinery/pkg/util/validation`.

use serde_json::{Map, Value, json};

use super::object::meta;
use super::refusal::{Cause, Refusal};
use super::resources::Resource;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
    an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const IMMUTABLE: &str = "field is immutable";
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

/// Refuses what is invalid: a new object, or the successor of one.
pub(crate) fn check(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<(), Refusal> {
    let mut causes = metadata(resource, object);
    if let Some(old) = old {
        causes.extend(kept(resource, object, old));
    }
    match resource.plural {
        "secrets" => causes.extend(secret(object)),
        "configmaps" => causes.extend(config_map(object)),
        "events" => causes.extend(event(object)),
        "pods" => causes.extend(containers("spec", &object["spec"])),
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => causes.extend(workload(object)),
        "jobs" => causes.extend(containers("spec.template.spec", &object["spec"]["template"]["spec"])),
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => causes.extend(webhooks(object)),
        "roles" | "clusterroles" => causes.extend(rules(object)),
        _ => {}
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(resource, meta(object, "name"), &causes)) }
}

fn metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let name = meta(object, "name");
    let mut causes = Vec::new();
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = wrong_name(resource, name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    let map = |field: &str| object["metadata"][field].as_object().cloned().unwrap_or_default();
    for (key, value) in map("labels") {
        if !is_qualified(&key) {
            causes.push(Cause::invalid("metadata.labels", &key.into(), NAME_PART));
        }
        let text = value.as_str().unwrap_or_default();
        if !text.is_empty() && !is_name_part(text) {
            causes.push(Cause::invalid("metadata.labels", &value, LABEL_VALUE));
        }
    }
    for key in map("annotations").keys().filter(|key| !is_qualified(&key.to_lowercase())) {
        causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), NAME_PART));
    }
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        for field in ["uid", "name", "kind", "apiVersion"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let field = if field == "apiVersion" { "version" } else { field };
                let path = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(path, &"".into(), "must not be empty"));
            }
        }
    }
    for (at, finalizer) in object["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !text.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&text) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{at}]"), finalizer, why));
        }
    }
    causes
}

fn wrong_name(resource: &Resource, name: &str) -> Option<&'static str> {
    let (is_right, why): (bool, &str) = match resource.plural {
        "namespaces" if name.contains('.') => (false, "must not contain dots"),
        "namespaces" => (is_label(name), LABEL),
        "services" => (is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035),
        "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => return wrong_segment(name),
        _ => (name.split('.').all(is_label), SUBDOMAIN),
    };
    (!is_right).then_some(why)
}

fn wrong_segment(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        _ if name.contains('/') => Some("may not contain '/'"),
        _ if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let outer = |c: char| c.is_ascii_alphanumeric();
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && text.starts_with(outer) && text.ends_with(outer)
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => prefix.split('.').all(is_label) && is_name_part(name),
        None => is_name_part(key),
    }
}

/// What must not change.
fn kept(resource: &Resource, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let same = |path: &[&str]| {
        let at = |object: &Value| path.iter().fold(object.clone(), |mut value, field| value[*field].take());
        at(new) == at(old)
    };
    match resource.plural {
        "secrets" | "configmaps" => {
            if resource.plural == "secrets" && !same(&["type"]) {
                causes.push(Cause::invalid("type", &new["type"], IMMUTABLE));
            }
            if old["immutable"] == true {
                let fields = ["immutable", "data", "binaryData"];
                let changed = fields.into_iter().filter(|field| !same(&[field]));
                causes.extend(changed.map(|field| Cause::forbidden(field, IMMUTABLE_SET)));
            }
        }
        "deployments" | "replicasets" | "daemonsets" | "jobs" if !same(&["spec", "selector"]) => {
            causes.push(Cause::invalid("spec.selector", &new["spec"]["selector"], IMMUTABLE));
        }
        "rolebindings" | "clusterrolebindings" if !same(&["roleRef"]) => {
            let part = |field: &str| new["roleRef"][field].clone();
            let shown = json!({"APIGroup": part("apiGroup"), "Kind": part("kind"), "Name": part("name")});
            causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
        }
        _ => {}
    }
    causes
}

fn keys(field: &'static str, object: &Value) -> impl Iterator<Item = Cause> {
    let map: Map<String, Value> = object[field].as_object().cloned().unwrap_or_default();
    let is_right =
        |key: &String| key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) && !key.is_empty();
    let wrong = map.into_iter().map(|(key, _)| key).filter(move |key| !is_right(key));
    wrong.map(move |key| Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), CONFIG_KEY))
}

fn secret(object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = keys("data", object).collect();
    let required: &[&str] = match object["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    let missing = required.iter().filter(|key| object["data"][**key].is_null());
    causes.extend(missing.map(|key| Cause::required(format!("data[{key}]"), "")));
    causes
}

fn config_map(object: &Value) -> Vec<Cause> {
    keys("data", object).chain(keys("binaryData", object)).collect()
}

fn event(object: &Value) -> Option<Cause> {
    let about = object["involvedObject"]["namespace"].as_str().unwrap_or_default();
    // Events about objects of the cluster are kept in `default`.
    let right = about == meta(object, "namespace") || (about.is_empty() && meta(object, "namespace") == "default");
    let why = "does not match event.namespace";
    (!right).then(|| Cause::invalid("involvedObject.namespace", &about.into(), why))
}

fn containers(path: &str, spec: &Value) -> Vec<Cause> {
    let containers = spec["containers"].as_array().cloned().unwrap_or_default();
    if containers.is_empty() {
        return vec![Cause::required(format!("{path}.containers"), "")];
    }
    let mut causes = Vec::new();
    for (at, container) in containers.iter().enumerate() {
        let (name, path) = (container["name"].as_str().unwrap_or_default(), format!("{path}.containers[{at}]"));
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !is_label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), LABEL));
        } else if containers.iter().take(at).any(|other| other["name"] == name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        if container["image"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{path}.image"), ""));
        }
    }
    causes
}

fn workload(object: &Value) -> Vec<Cause> {
    let (spec, mut causes) = (&object["spec"], Vec::new());
    let wanted = spec["selector"]["matchLabels"].as_object();
    let expressions = spec["selector"]["matchExpressions"].as_array();
    if wanted.is_none_or(Map::is_empty) && expressions.is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let matches = wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value));
    if !matches && expressions.is_none() {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    let pods = &spec["template"]["spec"];
    causes.extend(containers("spec.template.spec", pods));
    if pods["restartPolicy"] != "Always" {
        let path = "spec.template.spec.restartPolicy";
        causes.push(Cause::unsupported(path, &pods["restartPolicy"], &["Always"]));
    }
    causes
}

fn webhooks(object: &Value) -> Vec<Cause> {
    let webhooks = object["webhooks"].as_array().into_iter().flatten().enumerate();
    webhooks.flat_map(|(at, webhook)| one_webhook(&format!("webhooks[{at}]"), webhook)).collect()
}

fn one_webhook(path: &str, webhook: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let at = |field: &str| format!("{path}.{field}");
    let name = webhook["name"].as_str().unwrap_or_default();
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        causes.push(Cause::invalid(at("name"), &name.into(), why));
    }
    let policy = &webhook["failurePolicy"];
    if policy != "Fail" && policy != "Ignore" {
        causes.push(Cause::unsupported(at("failurePolicy"), policy, &["Fail", "Ignore"]));
    }
    if webhook["sideEffects"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required(at("sideEffects"), "must specify one of None, NoneOnDryRun"));
    }
    let seconds = &webhook["timeoutSeconds"];
    if !seconds.as_i64().is_some_and(|seconds| (1..=30).contains(&seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        causes.push(Cause::invalid(at("timeoutSeconds"), seconds, why));
    }
    let (url, service) = (webhook["clientConfig"]["url"].as_str(), &webhook["clientConfig"]["service"]);
    if url.is_some() == service.is_object() {
        causes.push(Cause::required(at("clientConfig"), "exactly one of url or service is required"));
    }
    if let Some((scheme, _)) = url.and_then(|url| url.split_once("://")).filter(|(scheme, _)| *scheme != "https") {
        let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
        causes.push(Cause::invalid(at("clientConfig.url"), &scheme.into(), why));
    }
    if webhook["admissionReviewVersions"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(at("admissionReviewVersions"), "must specify one of v1, v1beta1"));
    }
    causes
}

fn rules(object: &Value) -> Vec<Cause> {
    let rules = object["rules"].as_array().into_iter().flatten().enumerate();
    let silent = rules.filter(|(_, rule)| rule["verbs"].as_array().is_none_or(Vec::is_empty));
    silent
        .map(|(at, _)| Cause::required(format!("rules[{at}].verbs"), "verbs must contain at least one value"))
        .collect()
}
