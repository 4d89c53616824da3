//! Who may do what.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{Space, failure, same};
use crate::suite::SOON;

const ROLES: &str = "rbac.authorization.k8s.io/v1/roles";
const BINDINGS: &str = "rbac.authorization.k8s.io/v1/rolebindings";

/// An account with the rights of these rules in its namespace, and its token.
async fn account(space: &Space<'_>, rules: Value) -> Result<String> {
    space.made(ROLES, json!({"metadata": {"name": "r"}, "rules": rules})).await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "default"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"});
    space.made(BINDINGS, json!({"metadata": {"name": "r"}, "roleRef": role, "subjects": subjects})).await?;
    let token = space.cluster.service_account_token(&space.name, "default", &[space.cluster.issuer()], 600).await?;
    // The real authorizer reads the roles from a cache.
    let review =
        json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "probes", "namespace": space.name}}});
    let probe = || async {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (status, answer) = space.cluster.request_with(Some(&token), "POST", path, Some(review.clone())).await?;
        ensure!(status == 201 && answer["status"]["allowed"] == true, "{status}: {answer}");
        Ok(())
    };
    eventually("the rights", SOON, probe).await?;
    Ok(token)
}

/// By this rule, [`account`] sees that the others are in force.
fn with_probe(mut rules: Vec<Value>) -> Value {
    rules.push(json!({"apiGroups": [""], "resources": ["probes"], "verbs": ["get"]}));
    rules.into()
}

/// The answer to a request with a token: its status only.
async fn may(cluster: &KubernetesApi, token: &str, method: &str, path: &str) -> Result<u16> {
    let body = (!["GET", "DELETE"].contains(&method)).then(|| json!({}));
    Ok(cluster.request_with(Some(token), method, path, body).await?.0)
}

pub async fn nobody_is_anonymous_and_may_little(cluster: &KubernetesApi) -> Result<()> {
    let who = r#"User "system:anonymous""#;
    for (path, text, details) in [
        (
            "/api/v1/namespaces/default/secrets/x",
            format!(
                r#"secrets "x" is forbidden: {who} cannot get resource "secrets" in API group "" in the namespace "default""#
            ),
            json!({"name": "x", "kind": "secrets"}),
        ),
        (
            "/api/v1/secrets",
            format!(
                r#"secrets is forbidden: {who} cannot list resource "secrets" in API group "" at the cluster scope"#
            ),
            json!({"kind": "secrets"}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments/d/status",
            format!(
                r#"deployments.apps "d" is forbidden: {who} cannot get resource "deployments/status" in API group "apps" in the namespace "default""#
            ),
            json!({"name": "d", "group": "apps", "kind": "deployments"}),
        ),
        ("/foo", format!(r#"forbidden: {who} cannot get path "/foo""#), json!({})),
        ("/api", format!(r#"forbidden: {who} cannot get path "/api""#), json!({})),
    ] {
        let answer = cluster.request_with(None, "GET", path, None).await?;
        same((path, answer), (path, failure(403, "Forbidden", &text, details)))?;
    }
    for path in ["/readyz", "/livez", "/healthz", "/version"] {
        same((path, cluster.request_with(None, "GET", path, None).await?.0), (path, 200))?;
    }
    Ok(())
}

pub async fn an_account_without_rights_may_ask_what_there_is(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let token = cluster.service_account_token(&space.name, "default", &[cluster.issuer()], 600).await?;
    for path in ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/version", "/.well-known/openid-configuration"] {
        same((path, may(cluster, &token, "GET", path).await?), (path, 200))?;
    }
    let path = space.path("secrets");
    let answer = cluster.request_with(Some(&token), "GET", &path, None).await?;
    let text = format!(
        r#"secrets is forbidden: User "system:serviceaccount:{0}:default" cannot list resource "secrets" in API group "" in the namespace "{0}""#,
        space.name
    );
    same(answer, failure(403, "Forbidden", &text, json!({"kind": "secrets"})))?;
    // Whether it is there or not.
    same(may(cluster, &token, "GET", &space.path("nothings/x")).await?, 403)
}

pub async fn a_rule_may_name_objects(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    for name in ["a", "b"] {
        space.made("secrets", json!({"metadata": {"name": name}})).await?;
    }
    let verbs = ["get", "list", "watch", "delete", "create"];
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": verbs});
    let token = account(&space, with_probe(vec![rule])).await?;
    let named = "fieldSelector=metadata.name%3Da";
    for (method, path, status) in [
        ("GET", "secrets/a".to_owned(), 200),
        ("GET", "secrets/b".to_owned(), 403),
        ("GET", "secrets".to_owned(), 403),
        ("GET", format!("secrets?{named}"), 200),
        ("GET", "secrets?fieldSelector=metadata.name%3Db".to_owned(), 403),
        ("GET", format!("secrets?watch=true&timeoutSeconds=1&{named}"), 200),
        ("GET", "secrets?watch=true&timeoutSeconds=1".to_owned(), 403),
        ("POST", "secrets".to_owned(), 403),
        ("PATCH", "secrets/a".to_owned(), 403),
        ("DELETE", "secrets/a".to_owned(), 200),
    ] {
        same((method, &path, may(cluster, &token, method, &space.path(&path)).await?), (method, &path, status))?;
    }
    Ok(())
}

pub async fn a_rule_is_for_subresources_or_for_all(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let rules = vec![
        json!({"apiGroups": ["apps"], "resources": ["replicasets/status"], "verbs": ["patch"]}),
        json!({"apiGroups": ["apps"], "resources": ["*/status"], "verbs": ["get"]}),
        json!({"apiGroups": ["batch"], "resources": ["*"], "verbs": ["*"]}),
    ];
    let token = account(&space, with_probe(rules)).await?;
    for (method, path, status) in [
        ("PATCH", "apps/v1/replicasets/r/status", 404),
        ("PATCH", "apps/v1/replicasets/r", 403),
        ("PATCH", "apps/v1/deployments/r/status", 403),
        ("GET", "apps/v1/deployments/r/status", 404),
        ("GET", "apps/v1/deployments/r", 403),
        ("GET", "batch/v1/jobs/j", 404),
        ("PATCH", "batch/v1/jobs/j/status", 404),
        ("DELETE", "batch/v1/jobs", 200),
        ("GET", "pods/p", 403),
    ] {
        same((method, path, may(cluster, &token, method, &space.path(path)).await?), (method, path, status))?;
    }
    Ok(())
}

pub async fn a_binding_gives_a_cluster_role_in_its_namespace_only(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let group = format!("system:serviceaccounts:{}", space.name);
    let subjects = json!([{"kind": "Group", "name": group}]);
    space.made(BINDINGS, json!({"metadata": {"name": "v"}, "roleRef": role, "subjects": subjects})).await?;
    let token = cluster.service_account_token(&space.name, "default", &[cluster.issuer()], 600).await?;
    let in_force = || async {
        let status = may(cluster, &token, "GET", &space.path("pods")).await?;
        ensure!(status == 200, "{status}");
        Ok(())
    };
    eventually("the binding", SOON, in_force).await?;
    for (path, status) in [
        (space.path("configmaps"), 200),
        (space.path("apps/v1/deployments"), 200),
        (space.path("secrets"), 403),
        (format!("/api/v1/namespaces/{}", space.name), 200),
        ("/api/v1/namespaces/default/pods".to_owned(), 403),
        ("/api/v1/pods".to_owned(), 403),
        ("/api/v1/namespaces".to_owned(), 403),
    ] {
        same((&path, may(cluster, &token, "GET", &path).await?), (&path, status))?;
    }
    Ok(())
}

pub async fn a_role_that_is_not_there_is_told_of(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gone"});
    let subjects = json!([{"kind": "ServiceAccount", "name": "default"}]);
    space.made(BINDINGS, json!({"metadata": {"name": "r"}, "roleRef": role, "subjects": subjects})).await?;
    let token = cluster.service_account_token(&space.name, "default", &[cluster.issuer()], 600).await?;
    let told = || async {
        let (status, answer) = cluster.request_with(Some(&token), "GET", &space.path("pods"), None).await?;
        let text = format!(
            r#"pods is forbidden: User "system:serviceaccount:{0}:default" cannot list resource "pods" in API group "" in the namespace "{0}": RBAC: role.rbac.authorization.k8s.io "gone" not found"#,
            space.name
        );
        same((status, answer["message"].as_str()), (403, Some(text.as_str())))
    };
    eventually("the refusal", SOON, told).await
}

pub async fn a_review_tells_who_may_do_what(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]});
    let token = account(&space, with_probe(vec![rule])).await?;
    let ask = |name: &str| json!({"verb": "get", "resource": "secrets", "namespace": space.name, "name": name});
    for (name, allowed) in [("a", true), ("b", false)] {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let body = json!({"spec": {"resourceAttributes": ask(name)}});
        let (status, answer) = cluster.request_with(Some(&token), "POST", path, Some(body)).await?;
        same((status, &answer["status"]["allowed"]), (201, &json!(allowed)))?;
        let user = format!("system:serviceaccount:{}:default", space.name);
        let body = json!({"spec": {"user": user, "resourceAttributes": ask(name)}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (status, answer) = cluster.request("POST", path, Some(body)).await?;
        same((status, &answer["status"]["allowed"]), (201, &json!(allowed)))?;
    }
    let body = json!({"spec": {"user": "u", "groups": ["system:masters"], "nonResourceAttributes": {"path": "/x", "verb": "get"}}});
    let (_, answer) = cluster.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(body)).await?;
    same(&answer["status"], &json!({"allowed": true}))
}

/// The manifests that the product is installed with, in the namespace of a case, for its account `istio-ca-gate`.
async fn install(space: &Space<'_>) -> Result<()> {
    let manifests = include_str!("../../../../../deploy/kustomize/base/rbac.yaml");
    let manifests: Vec<Value> = serde_saphyr::from_multiple(manifests)?;
    ensure!(manifests.len() == 4, "{}", manifests.len());
    for mut object in manifests {
        let kind = object["kind"].as_str().context("a kind")?.to_owned();
        if kind.starts_with("Cluster") {
            let name = format!("gate-{}", space.name);
            object["metadata"]["name"] = name.clone().into();
            if kind.ends_with("Binding") {
                object["roleRef"]["name"] = name.into();
                object["subjects"][0]["namespace"] = space.name.clone().into();
            }
            let path = format!("/apis/rbac.authorization.k8s.io/v1/{}s", kind.to_lowercase());
            let (status, answer) = space.cluster.request("POST", &path, Some(object)).await?;
            ensure!(status == 201, "{status}: {answer}");
        } else {
            object["metadata"]["namespace"] = space.name.clone().into();
            if kind.ends_with("Binding") {
                object["subjects"][0]["namespace"] = space.name.clone().into();
            }
            space.made(&format!("rbac.authorization.k8s.io/v1/{}s", kind.to_lowercase()), object).await?;
        }
    }
    space.made("serviceaccounts", json!({"metadata": {"name": "istio-ca-gate"}})).await?;
    Ok(())
}

pub async fn the_gate_may_do_what_its_manifests_say_and_no_more(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    install(&space).await?;
    let token = cluster.service_account_token(&space.name, "istio-ca-gate", &[cluster.issuer()], 600).await?;
    let in_force = || async {
        let status = may(cluster, &token, "GET", &space.path("secrets/cacerts")).await?;
        ensure!(status == 404, "{status}");
        Ok(())
    };
    eventually("the rights", SOON, in_force).await?;
    let webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let one = "fieldSelector=metadata.name%3D";
    for (method, path, status) in [
        ("GET", space.path("secrets/cacerts"), 404),
        ("GET", space.path(&format!("secrets?{one}cacerts")), 200),
        ("GET", space.path(&format!("secrets?watch=true&timeoutSeconds=1&{one}cacerts")), 200),
        ("PATCH", space.path("secrets/cacerts"), 404),
        ("PUT", space.path("secrets/cacerts"), 403),
        ("DELETE", space.path("secrets/cacerts"), 403),
        ("GET", space.path("secrets"), 403),
        ("GET", space.path("secrets/other"), 403),
        ("POST", space.path("secrets"), 422),
        ("GET", space.path("secrets/istio-ca-gate-tls"), 404),
        ("GET", space.path(&format!("secrets?{one}istio-ca-gate-tls")), 200),
        ("PATCH", space.path("secrets/istio-ca-gate-tls"), 404),
        ("PUT", space.path("secrets/istio-ca-gate-tls"), 403),
        ("DELETE", space.path("secrets/istio-ca-gate-tls"), 403),
        ("GET", space.path("configmaps/istio-ca-gate"), 404),
        ("PATCH", space.path("configmaps/istio-ca-gate"), 404),
        ("GET", space.path("configmaps/istio-ca-root-cert"), 404),
        ("PATCH", space.path("configmaps/istio-ca-root-cert"), 403),
        ("GET", space.path("configmaps/other"), 403),
        ("POST", space.path("configmaps"), 422),
        ("GET", space.path("apps/v1/replicasets"), 200),
        ("GET", space.path("apps/v1/replicasets/r"), 404),
        ("PATCH", space.path("apps/v1/replicasets/r"), 403),
        ("PATCH", space.path("apps/v1/replicasets/r/status"), 404),
        ("PATCH", space.path("batch/v1/jobs/j/status"), 404),
        ("GET", space.path("apps/v1/deployments"), 403),
        ("GET", space.path("apps/v1/deployments/d"), 404),
        ("PATCH", space.path("apps/v1/deployments/d"), 403),
        ("GET", "/apis/apps/v1/replicasets".to_owned(), 403),
        ("GET", space.path("pods"), 403),
        ("GET", format!("{webhooks}?{one}istio-ca-gate"), 200),
        ("GET", webhooks.to_owned(), 403),
        ("PATCH", format!("{webhooks}/istio-ca-gate"), 404),
        ("PATCH", format!("{webhooks}/other"), 403),
        ("DELETE", format!("{webhooks}/istio-ca-gate"), 403),
        ("GET", "/api/v1/namespaces/default/secrets/cacerts".to_owned(), 403),
    ] {
        same((method, &path, may(cluster, &token, method, &path).await?), (method, &path, status))?;
    }
    for kind in ["clusterrolebindings", "clusterroles"] {
        cluster
            .request("DELETE", &format!("/apis/rbac.authorization.k8s.io/v1/{kind}/gate-{}", space.name), None)
            .await?;
    }
    Ok(())
}
