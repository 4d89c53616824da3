//! Namespaces.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{KubernetesApi, eventually};

use super::{Events, MERGE, Space, failure, same, steady, version};
use crate::suite::SOON;

pub async fn a_namespace_has_an_account_and_the_ca_in_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (_, account) = space.get("serviceaccounts/default").await?;
    let metadata = super::metadata(&space, "default");
    let wanted = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata});
    same(steady(&account), wanted)?;
    let (_, bundle) = space.get("configmaps/kube-root-ca.crt").await?;
    same(&bundle["data"], &json!({"ca.crt": cluster.ca_pem()}))?;
    ensure!(bundle["metadata"]["annotations"]["kubernetes.io/description"].is_string(), "{bundle}");
    Ok(())
}

pub async fn an_account_that_a_namespace_needs_comes_back(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (_, first) = space.get("serviceaccounts/default").await?;
    same(space.delete("serviceaccounts/default", None).await?.0, 200)?;
    let back = || async {
        let (status, second) = space.get("serviceaccounts/default").await?;
        ensure!(status == 200 && second["metadata"]["uid"] != first["metadata"]["uid"], "{status}: {second}");
        Ok(())
    };
    eventually("another default service account", SOON, back).await
}

pub async fn a_namespace_tells_its_name_in_a_label(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let path = format!("/api/v1/namespaces/{}", space.name);
    let (status, namespace) = cluster.request("GET", &path, None).await?;
    let labels = json!({"kubernetes.io/metadata.name": space.name});
    same((status, &namespace["metadata"]["labels"]), (200, &labels))?;
    same(
        (&namespace["spec"], &namespace["status"]),
        (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"})),
    )?;
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}});
    same(&namespace["metadata"]["managedFields"][0]["fieldsV1"], &fields)?;
    let patch = json!({"metadata": {"labels": {"kubernetes.io/metadata.name": null, "x": "y"}}});
    let (_, patched) = cluster.request("PATCH", &path, Some(patch)).await?;
    same(&patched["metadata"]["labels"], &json!({"kubernetes.io/metadata.name": space.name, "x": "y"}))
}

pub async fn a_deleted_namespace_goes_with_all_that_is_in_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "s"}})).await?;
    let (_, list) = space.get("secrets").await?;
    let since = version(&list).to_owned();
    let mut events = Events::open(cluster, &space.path(&format!("secrets?watch=true&resourceVersion={since}"))).await?;
    let path = format!("/api/v1/namespaces/{}", space.name);
    let (status, told) = cluster.request("DELETE", &path, None).await?;
    same((status, &told["kind"], &told["status"]["phase"]), (200, &json!("Namespace"), &json!("Terminating")))?;
    ensure!(told["metadata"]["deletionTimestamp"].is_string(), "{told}");
    same(events.next_name().await?, ("DELETED".to_owned(), "s".to_owned()))?;
    let gone = || async {
        let (status, answer) = cluster.request("GET", &path, None).await?;
        ensure!(status == 404, "{status}: {answer}");
        Ok(())
    };
    eventually("the end of the namespace", SOON, gone).await?;
    same(space.get("secrets/s").await?.0, 404)
}

pub async fn a_namespace_waits_for_the_finalizers_in_it_and_takes_nothing_new(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "c", "finalizers": ["example.com/mine"]}});
    space.made("configmaps", body).await?;
    let path = format!("/api/v1/namespaces/{}", space.name);
    let (status, _) = cluster.request("DELETE", &path, None).await?;
    same(status, 200)?;
    let (status, answer) = space.post("secrets", json!({"metadata": {"name": "s"}})).await?;
    let text = format!(
        r#"secrets "s" is forbidden: unable to create new content in namespace {} because it is being terminated"#,
        space.name
    );
    same((status, answer["message"].as_str().context("a text")?), (403, text.as_str()))?;
    let cause = json!({"reason": "NamespaceTerminating", "message": format!("namespace {} is being terminated", space.name), "field": "metadata.namespace"});
    same(&answer["details"], &json!({"name": "s", "kind": "secrets", "causes": [cause]}))?;
    let marked = || async {
        let (_, kept) = space.get("configmaps/c").await?;
        ensure!(kept["metadata"]["deletionTimestamp"].is_string(), "{kept}");
        Ok(())
    };
    eventually("the mark on what is in it", SOON, marked).await?;
    same(space.patch("configmaps/c", MERGE, json!({"metadata": {"finalizers": null}})).await?.0, 200)?;
    let gone = || async {
        let (status, answer) = cluster.request("GET", &path, None).await?;
        ensure!(status == 404, "{status}: {answer}");
        Ok(())
    };
    eventually("the end of the namespace", SOON, gone).await
}

pub async fn the_first_namespaces_stay(cluster: &KubernetesApi) -> Result<()> {
    for name in ["default", "kube-system", "kube-public"] {
        let answer = cluster.request("DELETE", &format!("/api/v1/namespaces/{name}"), None).await?;
        let text = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        same(answer, failure(403, "Forbidden", &text, json!({"name": name, "kind": "namespaces"})))?;
    }
    Ok(())
}
