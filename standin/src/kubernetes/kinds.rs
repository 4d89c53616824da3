//! What the API server itself makes of an object of each kind: the `strategy.go` of each in `pkg/registry`, and the
//! admission plugins that are on by default.

use serde_json::{Value, json};

use super::defaults;
use super::object::{default, items, meta, remove, set_meta};
use super::refusal::{Refusal, details};
use super::resources::Resource;
use super::write::Ended;

/// What the server sets, and nobody else.
const SYSTEM: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "selfLink",
];

/// Whether webhooks are asked about it.
pub(crate) fn is_admitted(resource: &Resource) -> bool {
    !resource.is_review() && resource.plural != "events" && !resource.plural.ends_with("webhookconfigurations")
}

/// Makes what was sent the beginning of an object.
pub(crate) fn begin(resource: &Resource, object: &mut Value) -> Result<(), Refusal> {
    if !meta(object, "resourceVersion").is_empty() {
        return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created", None));
    }
    for field in SYSTEM.into_iter().filter(|field| *field != "generation") {
        remove(&mut object["metadata"], field);
    }
    if resource.has_status() {
        remove(object, "status");
    }
    defaults::fill(resource, object);
    Ok(())
}

/// Adds what nobody sent and nobody owns. The object has its name and uid.
pub(crate) fn complete(resource: &Resource, object: &mut Value, random: &str) {
    if resource.is_counted() {
        set_meta(object, "generation", 1);
    }
    let status = match resource.plural {
        "pods" => {
            pod(object, random);
            json!({"phase": "Pending", "qosClass": quality(&object["spec"])})
        }
        "namespaces" => {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            json!({"phase": "Active"})
        }
        "services" => {
            address(&mut object["spec"], random);
            json!({"loadBalancer": {}})
        }
        "jobs" => {
            job(object);
            json!({})
        }
        "deployments" => json!({}),
        "replicasets" => json!({"replicas": 0}),
        "statefulsets" => json!({"replicas": 0, "availableReplicas": 0}),
        "daemonsets" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0,
        }),
        "poddisruptionbudgets" => {
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
        }
        _ => return,
    };
    object["status"] = status;
}

/// What the plugins ServiceAccount, DefaultTolerationSeconds and Priority add.
fn pod(object: &mut Value, random: &str) {
    let spec = &mut object["spec"];
    default(spec, "serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    default(spec, "serviceAccount", account);
    default(spec, "priority", 0);
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    default(spec, "tolerations", json!([]));
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if let Some(tolerations) = spec["tolerations"].as_array_mut()
            && tolerations.iter().all(|toleration| toleration["key"] != key)
        {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    if spec["automountServiceAccountToken"] != false {
        token(spec, random);
    }
}

/// The volume with the account's token.
fn token(spec: &mut Value, random: &str) {
    const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let name = format!("kube-api-access-{random}");
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        for container in items(spec, containers) {
            default(container, "volumeMounts", json!([]));
            let Some(mounts) = container["volumeMounts"].as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != FOLDER) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": FOLDER}));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    default(spec, "volumes", json!([]));
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": name, "projected": {"sources": sources, "defaultMode": 420}}));
    }
}

/// `GetPodQOS` in `pkg/apis/core/v1/helper/qos`.
fn quality(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|field| spec[*field].as_array().into_iter().flatten())
        .collect();
    let asks = |container: &&Value| ["requests", "limits"].iter().any(|kind| container["resources"][*kind].is_object());
    let guaranteed = |container: &&Value| {
        let Value::Object(resources) = &container["resources"] else { return false };
        let of = |kind: &str, name: &str| resources.get(kind).map(|amounts| amounts[name].clone()).unwrap_or_default();
        ["cpu", "memory"].iter().all(|name| {
            let limit = of("limits", name);
            let request = of("requests", name);
            !limit.is_null() && (request.is_null() || request == limit)
        })
    };
    if !containers.iter().any(asks) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// An address within the network of services. Nothing listens there.
fn address(spec: &mut Value, random: &str) {
    if spec["type"] == "ExternalName" || !spec["clusterIP"].is_null() {
        return;
    }
    let host = random.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 253 + 2;
    let address = format!("10.0.0.{host}");
    spec["clusterIP"] = address.clone().into();
    spec["clusterIPs"] = json!([address]);
    spec["ipFamilies"] = json!(["IPv4"]);
    spec["ipFamilyPolicy"] = "SingleStack".into();
}

/// A Job's pods are told by its uid.
fn job(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (meta(object, "name").to_owned(), meta(object, "uid").to_owned());
    let labels = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    for (label, value) in labels {
        object["metadata"]["labels"][label] = value.clone().into();
        object["spec"]["template"]["metadata"]["labels"][label] = value.clone().into();
    }
    object["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

/// Makes what was sent the successor of an object: a status is changed by its subresource only, and nothing else by it.
pub(crate) fn succeed(resource: &Resource, subresource: &str, sent: Value, old: &Value) -> Value {
    let mut new = sent;
    if subresource == "status" {
        let mut kept = old.clone();
        kept["status"] = new["status"].take();
        if !resource.is_custom() {
            kept["metadata"] = new["metadata"].take();
        }
        if resource.plural == "deployments" {
            keep(&mut kept, old, "labels");
        }
        new = kept;
    } else if let Some(status) = old.get("status").filter(|_| resource.has_status()) {
        new["status"] = status.clone();
    }
    for field in SYSTEM.into_iter().chain(["generateName"]) {
        if field != "uid" && field != "managedFields" {
            keep(&mut new, old, field);
        }
    }
    default(&mut new["metadata"], "uid", old["metadata"]["uid"].clone());
    defaults::fill(resource, &mut new);
    kept_fields(resource, &mut new, old);
    if resource.is_counted() && differs(&new, old) {
        set_meta(&mut new, "generation", old["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
    }
    new
}

/// Fields that an update may leave out.
fn kept_fields(resource: &Resource, new: &mut Value, old: &Value) {
    let fields: &[&str] = match resource.plural {
        "services" => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        "jobs" => &["selector"],
        "namespaces" => &["finalizers"],
        _ => &[],
    };
    for field in fields {
        if let Some(value) = old["spec"].get(field) {
            default(&mut new["spec"], field, value.clone());
        }
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => set_meta(new, field, value.clone()),
        None => drop(remove(&mut new["metadata"], field)),
    }
}

fn differs(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        remove(&mut object, "metadata");
        remove(&mut object, "status");
        object
    };
    bare(new) != bare(old)
}

/// What a deletion is answered with: the object where its kind is told so or where it goes on for a while, else a Status.
pub(crate) fn deleted(resource: &Resource, ended: Ended) -> Value {
    let shown = ["pods", "services", "serviceaccounts"].contains(&resource.plural);
    match ended {
        Ended::Dying(object) => object,
        Ended::Gone(object) if shown => object,
        Ended::Gone(object) => {
            let mut details = details(resource, meta(&object, "name"));
            details["uid"] = meta(&object, "uid").into();
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
        }
    }
}
