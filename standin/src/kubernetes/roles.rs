//! The roles and bindings that are there from the beginning: those of
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy` that are used here.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTHENTICATED: &str = "system:authenticated";

/// Each object with the plural of its kind.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let create = |group: &str, plural: &str| json!({"apiGroups": [group], "resources": [plural], "verbs": ["create"]});
    let delegator = json!([
        create("authentication.k8s.io", "tokenreviews"),
        create("authorization.k8s.io", "subjectaccessreviews"),
    ]);
    let basic = json!([create("authorization.k8s.io", "selfsubjectaccessreviews")]);
    let public: &[&str] = &[AUTHENTICATED, "system:unauthenticated"];
    [
        ("cluster-admin", everything, ["system:masters"].as_slice()),
        ("system:auth-delegator", delegator, &[]),
        ("system:basic-user", basic, &[AUTHENTICATED]),
        ("system:discovery", discovery(), &[AUTHENTICATED]),
        ("system:public-info-viewer", paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"]), public),
        ("system:service-account-issuer-discovery", issuer(), &["system:serviceaccounts"]),
        ("view", view(), &[]),
    ]
    .into_iter()
    .flat_map(|(name, rules, groups)| role_and_binding(name, &rules, groups))
    .collect()
}

fn paths(paths: &[&str]) -> Value {
    json!([{"nonResourceURLs": paths, "verbs": ["get"]}])
}

fn discovery() -> Value {
    paths(&[
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ])
}

fn issuer() -> Value {
    paths(&[
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ])
}

/// Of the resources that are served here.
fn view() -> Value {
    let read = |group: &str, plurals: &[&str]| json!({"apiGroups": [group], "resources": plurals, "verbs": ["get", "list", "watch"]});
    let core = [
        "configmaps",
        "events",
        "namespaces",
        "namespaces/status",
        "pods",
        "pods/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let apps = [
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/status",
        "replicasets",
        "replicasets/status",
        "statefulsets",
        "statefulsets/status",
    ];
    json!([
        read("", &core),
        read("apps", &apps),
        read("batch", &["jobs", "jobs/status"]),
        read("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ])
}

fn role_and_binding(name: &str, rules: &Value, groups: &[&str]) -> Vec<(&'static str, Value)> {
    let version = format!("{GROUP}/v1");
    let metadata = json!({
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    });
    let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules});
    let mut planted = vec![("clusterroles", role)];
    if !groups.is_empty() {
        let subject = |name: &&str| json!({"apiGroup": GROUP, "kind": "Group", "name": name});
        let binding = json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
        });
        planted.push(("clusterrolebindings", binding));
    }
    planted
}
