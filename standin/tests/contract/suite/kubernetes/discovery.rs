//! What there is to ask for.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{failure, same};

pub async fn it_is_ready(cluster: &KubernetesApi) -> Result<()> {
    for path in ["/readyz", "/livez", "/healthz"] {
        same(cluster.request("GET", path, None).await?, (200, json!("ok")))?;
    }
    let (status, version) = cluster.request("GET", "/version", None).await?;
    same((status, &version["major"], &version["minor"]), (200, &json!("1"), &json!("34")))?;
    same(&version["gitVersion"], &json!("v1.34.4"))
}

pub async fn groups_and_versions_are_listed(cluster: &KubernetesApi) -> Result<()> {
    let (status, core) = cluster.request("GET", "/api", None).await?;
    same((status, &core["kind"], &core["versions"]), (200, &json!("APIVersions"), &json!(["v1"])))?;
    let (status, list) = cluster.request("GET", "/apis", None).await?;
    same((status, &list["kind"], &list["apiVersion"]), (200, &json!("APIGroupList"), &json!("v1")))?;
    for name in ["apps", "batch", "policy", "rbac.authorization.k8s.io", "admissionregistration.k8s.io"] {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        let group = list["groups"].as_array().into_iter().flatten().find(|group| group["name"] == name);
        let group = group.with_context(|| format!("{name} in {list}"))?;
        let versions = group["versions"].as_array().cloned().unwrap_or_default();
        ensure!(versions.contains(&version) && group["preferredVersion"] == version, "{group}");
        let (status, alone) = cluster.request("GET", &format!("/apis/{name}"), None).await?;
        same((status, &alone["kind"], &alone["preferredVersion"]), (200, &json!("APIGroup"), &version))?;
    }
    Ok(())
}

pub async fn resources_are_listed(cluster: &KubernetesApi) -> Result<()> {
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let status = ["get", "patch", "update"];
    for (path, version, wanted) in [
        (
            "/api/v1",
            "v1",
            json!({"name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret", "verbs": all}),
        ),
        (
            "/api/v1",
            "v1",
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": all,
            "shortNames": ["po"], "categories": ["all"]}),
        ),
        (
            "/api/v1",
            "v1",
            json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true,
            "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"]}),
        ),
        (
            "/api/v1",
            "v1",
            json!({"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
            "shortNames": ["ns"], "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]}),
        ),
        (
            "/apis/apps/v1",
            "apps/v1",
            json!({"name": "deployments", "singularName": "deployment", "namespaced": true,
            "kind": "Deployment", "verbs": all, "shortNames": ["deploy"], "categories": ["all"]}),
        ),
        (
            "/apis/apps/v1",
            "apps/v1",
            json!({"name": "replicasets/status", "singularName": "", "namespaced": true,
            "kind": "ReplicaSet", "verbs": status}),
        ),
        (
            "/apis/authentication.k8s.io/v1",
            "authentication.k8s.io/v1",
            json!({"name": "tokenreviews",
            "singularName": "tokenreview", "namespaced": false, "kind": "TokenReview", "verbs": ["create"]}),
        ),
    ] {
        let (code, list) = cluster.request("GET", path, None).await?;
        same((code, &list["kind"], &list["groupVersion"]), (200, &json!("APIResourceList"), &json!(version)))?;
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["name"] == wanted["name"]);
        let mut found = found.with_context(|| wanted["name"].to_string())?;
        if let Some(fields) = found.as_object_mut() {
            // It is for upgrades of storage.
            fields.remove("storageVersionHash");
        }
        same(found, wanted)?;
    }
    Ok(())
}

pub async fn what_is_not_served_is_not_found(cluster: &KubernetesApi) -> Result<()> {
    let not_found = || failure(404, "NotFound", "the server could not find the requested resource", json!({}));
    for path in [
        "/api/v1/nothings",
        "/api/v1/namespaces/default/nothings/x",
        "/apis/apps/v1/nothings",
        "/apis/apps/v2/deployments",
    ] {
        same((path, cluster.request("GET", path, None).await?), (path, not_found()))?;
    }
    let text = Value::from("404 page not found\n");
    for path in [
        "/nothing",
        "/apis/nothing.example.com/v1",
        "/apis/nothing.example.com/v1/nothings",
        "/apis/nothing.example.com",
    ] {
        same((path, cluster.request("GET", path, None).await?), (path, (404, text.clone())))?;
    }
    let text = "the server does not allow this method on the requested resource";
    let wanted = failure(405, "MethodNotAllowed", text, json!({}));
    for (method, path) in [
        ("POST", "/api/v1/namespaces/default/secrets/x"),
        ("POST", "/api/v1/secrets"),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ("DELETE", "/api/v1/namespaces"),
    ] {
        same((path, cluster.request(method, path, None).await?), (path, wanted.clone()))?;
    }
    Ok(())
}

pub async fn the_first_roles_are_there(cluster: &KubernetesApi) -> Result<()> {
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    for (name, first) in [
        ("cluster-admin", json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})),
        (
            "system:auth-delegator",
            json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}),
        ),
        (
            "system:public-info-viewer",
            json!({"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}),
        ),
    ] {
        let (status, role) = cluster.request("GET", &format!("{roles}/{name}"), None).await?;
        same((status, &role["rules"][0]), (200, &first))?;
        same(&role["metadata"]["labels"], &json!({"kubernetes.io/bootstrapping": "rbac-defaults"}))?;
    }
    Ok(())
}
