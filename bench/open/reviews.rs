//! AdmissionReviews as an API server sends them.

use serde_json::{Value, json};

/// What an API server posts when a ReplicaSet's controller creates a pod of istiod: 3.7 kB as text, less as it is sent.
const ISTIOD: &str = include_str!("../../crates/gate/src/webhook/review/istiod.json");

/// A review of each kind that is measured: its name, its text.
pub fn all() -> [(&'static str, String); 3] {
    [
        ("istiod, 10 KB", sized("istiod", 10 << 10)),
        ("another, 60 KB", sized("other", 60 << 10)),
        ("another, 1 MB", sized("other", 1 << 20)),
    ]
}

/// A review of this `app` of about so many bytes: a pod of many containers, with what its API server notes of its fields.
pub fn sized(app: &str, size: usize) -> String {
    let mut review: Value = serde_json::from_str(ISTIOD).unwrap();
    review["request"]["object"]["metadata"]["labels"]["app"] = json!(app);
    if app != "istiod" {
        review["request"]["object"]["metadata"]["labels"]["istio"] = json!("none");
    }
    let container = |index: usize| {
        json!({
            "name": format!("container-{index}"), "image": format!("registry.example.com/team/service-{index}:1.27.3"),
            "args": ["discovery", "--monitoringAddr=:15014", "--log_output_level=default:info", "--domain", "cluster.local"],
            "env": (0..6).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "a value of some length, as they are" }))
                .chain([json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.name" } } })])
                .collect::<Vec<_>>(),
            "ports": [{ "containerPort": 15010, "protocol": "TCP" }, { "containerPort": 15017, "protocol": "TCP" }],
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080, "scheme": "HTTP" }, "initialDelaySeconds": 1,
                "timeoutSeconds": 5, "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3 },
            "resources": { "requests": { "cpu": "10m", "memory": "100Mi" } },
            "securityContext": { "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true, "allowPrivilegeEscalation": false },
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/config" }, { "name": "tmp", "mountPath": "/tmp", "readOnly": true }],
        })
    };
    let managed = |index: usize| json!({ format!("k:{{\"name\":\"container-{index}\"}}"): { ".": {}, "f:image": {}, "f:name": {}, "f:env": { ".": {}, "k:{\"name\":\"POD_NAME\"}": { ".": {}, "f:valueFrom": { ".": {}, "f:fieldRef": {} } } } } });
    let bare = review.to_string().len();
    let each = container(10).to_string().len() + managed(10).to_string().len();
    let more = size.saturating_sub(bare) / each;
    let object = &mut review["request"]["object"];
    object["metadata"]["managedFields"] = json!([{ "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2026-11-28T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:containers": (0..more).map(managed).collect::<Vec<_>>() } } }]);
    let containers = object["spec"]["containers"].as_array_mut().unwrap();
    containers.extend((0..more).map(container));
    review.to_string()
}
