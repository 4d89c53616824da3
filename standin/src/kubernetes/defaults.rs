//! Defaults of fields that are not sent: those of `pkg/apis/*/v1/defaults.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::object::{default, items, meta, remove};
use super::resources::Resource;

/// Fills in what an object of this kind does not say.
pub(crate) fn fill(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "secrets" => secret(object),
        "namespaces" => {
            let name = meta(object, "name").to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        "events" => event(object),
        "services" => service(object),
        "pods" => {
            pod_spec(&mut object["spec"]);
            default(&mut object["spec"], "enableServiceLinks", true);
            if let Some(status) = object.get_mut("status") {
                for condition in items(status, "conditions") {
                    default(condition, "lastProbeTime", Value::Null);
                    default(condition, "lastTransitionTime", Value::Null);
                }
            }
        }
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => workload(resource, object),
        "jobs" => job(object),
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => webhooks(resource, object),
        "rolebindings" | "clusterrolebindings" => binding(object),
        _ => {}
    }
}

/// The strings of a Secret are for writing only.
fn secret(object: &mut Value) {
    if let Some(Value::Object(strings)) = remove(object, "stringData") {
        for (key, value) in strings {
            object["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    default(object, "type", "Opaque");
}

/// Go writes these out also where they are empty.
fn event(object: &mut Value) {
    default(object, "source", json!({}));
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        default(object, field, Value::Null);
    }
    for field in ["reportingComponent", "reportingInstance"] {
        default(object, field, "");
    }
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    default(spec, "internalTrafficPolicy", "Cluster");
    for port in items(spec, "ports") {
        default(port, "protocol", "TCP");
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
}

fn workload(resource: &Resource, object: &mut Value) {
    let spec = &mut object["spec"];
    pod_spec(&mut spec["template"]["spec"]);
    match resource.plural {
        "deployments" => {
            default(spec, "strategy", json!({"type": "RollingUpdate"}));
            rolling(&mut spec["strategy"], &json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
            default(spec, "progressDeadlineSeconds", 600);
        }
        "statefulsets" => {
            default(spec, "updateStrategy", json!({"type": "RollingUpdate"}));
            rolling(&mut spec["updateStrategy"], &json!({"partition": 0}));
            default(spec, "podManagementPolicy", "OrderedReady");
            default(spec, "serviceName", "");
            let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
            default(spec, "persistentVolumeClaimRetentionPolicy", retain);
        }
        "daemonsets" => {
            default(spec, "updateStrategy", json!({"type": "RollingUpdate"}));
            rolling(&mut spec["updateStrategy"], &json!({"maxUnavailable": 1, "maxSurge": 0}));
        }
        _ => {}
    }
    if resource.plural != "daemonsets" {
        default(spec, "replicas", 1);
    }
    if resource.plural != "replicasets" {
        default(spec, "revisionHistoryLimit", 10);
    }
    if resource.plural == "daemonsets" {
        default(&mut object["metadata"], "annotations", json!({}));
        default(&mut object["metadata"]["annotations"], "deprecated.daemonset.template.generation", "1");
    }
}

fn rolling(strategy: &mut Value, defaults: &Value) {
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] != "RollingUpdate" {
        return;
    }
    for (field, value) in defaults.as_object().into_iter().flatten() {
        default(&mut strategy["rollingUpdate"], field, value.clone());
    }
}

fn job(object: &mut Value) {
    let spec = &mut object["spec"];
    pod_spec(&mut spec["template"]["spec"]);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    for (field, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        default(spec, field, value);
    }
}

fn webhooks(resource: &Resource, object: &mut Value) {
    for webhook in items(object, "webhooks") {
        default(webhook, "failurePolicy", "Fail");
        default(webhook, "matchPolicy", "Equivalent");
        default(webhook, "namespaceSelector", json!({}));
        default(webhook, "objectSelector", json!({}));
        default(webhook, "timeoutSeconds", 10);
        if resource.plural == "mutatingwebhookconfigurations" {
            default(webhook, "reinvocationPolicy", "Never");
        }
        for rule in items(webhook, "rules") {
            default(rule, "scope", "*");
        }
        if webhook["clientConfig"]["service"].is_object() {
            default(&mut webhook["clientConfig"]["service"], "port", 443);
        }
    }
}

fn binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default(&mut object["roleRef"], "apiGroup", GROUP);
    for subject in items(object, "subjects") {
        if subject["kind"] == "User" || subject["kind"] == "Group" {
            default(subject, "apiGroup", GROUP);
        }
    }
}

fn pod_spec(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        default(spec, field, value);
    }
    // Two names for one field, an old one and a new one.
    let account = [&spec["serviceAccountName"], &spec["serviceAccount"]].into_iter().find(|name| !name.is_null());
    if let Some(account) = account.cloned() {
        spec["serviceAccountName"] = account.clone();
        spec["serviceAccount"] = account;
    }
    for containers in ["initContainers", "containers"] {
        items(spec, containers).iter_mut().for_each(container);
    }
    for volume in items(spec, "volumes") {
        if volume.as_object().is_some_and(|volume| volume.len() == 1) {
            volume["emptyDir"] = json!({});
        }
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if volume[source].is_object() {
                default(&mut volume[source], "defaultMode", 420);
            }
        }
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    let latest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    default(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in items(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if variable["valueFrom"]["fieldRef"].is_object() {
            default(&mut variable["valueFrom"]["fieldRef"], "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default(probe, field, value);
        }
        if let Some(get) = probe.get_mut("httpGet") {
            default(get, "scheme", "HTTP");
            default(get, "path", "/");
        }
    }
}
