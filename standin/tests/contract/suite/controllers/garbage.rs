//! What goes with its owner, and what stays.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{APPS, Namespace, deployment};
use crate::suite::{Case, SOON, cases};

pub const CASES: &[Case<KubernetesApi>] = cases![
    a_deleted_deployment_takes_its_replica_sets_and_pods_along,
    an_orphaning_deletion_leaves_what_was_owned,
    a_foreground_deletion_waits_for_what_is_owned,
    an_object_goes_with_the_last_of_its_owners,
    an_object_of_an_owner_that_never_was_goes,
];

async fn a_deleted_deployment_takes_its_replica_sets_and_pods_along(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "garbage").await?;
    namespace.deploy(deployment("web", 2)).await?;
    namespace.has_pods(2).await?;
    let uid = namespace.deployment("web").await?["metadata"]["uid"].clone();
    let answer = namespace.ok("DELETE", APPS, "deployments/web", None).await?;
    let details = json!({"name": "web", "group": "apps", "kind": "deployments", "uid": uid});
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    ensure!(answer == gone, "{answer}");
    namespace.has_pods(0).await?;
    ensure!(namespace.sets().await?.is_empty());
    Ok(())
}

async fn an_orphaning_deletion_leaves_what_was_owned(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "garbage-orphaned").await?;
    namespace.deploy(deployment("web", 2)).await?;
    namespace.has_pods(2).await?;
    let orphan = json!({"propagationPolicy": "Orphan"});
    namespace.ok("DELETE", APPS, "deployments/web", Some(orphan)).await?;
    let gone = || async {
        let (status, answer) = namespace.request("GET", APPS, "deployments/web", None).await?;
        ensure!(status == 404, "{status}: {answer}");
        Ok(())
    };
    eventually("the end of the Deployment", SOON, gone).await?;
    let set = namespace.set().await?;
    ensure!(set["metadata"]["ownerReferences"].is_null(), "{set}");
    namespace.has_pods(2).await.map(drop)
}

async fn a_foreground_deletion_waits_for_what_is_owned(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "garbage-foreground").await?;
    namespace.deploy(deployment("web", 2)).await?;
    namespace.has_pods(2).await?;
    let foreground = json!({"propagationPolicy": "Foreground"});
    let answer = namespace.ok("DELETE", APPS, "deployments/web", Some(foreground)).await?;
    ensure!(answer["kind"] == "Deployment", "{answer}");
    ensure!(answer["metadata"]["finalizers"] == json!(["foregroundDeletion"]), "{answer}");
    ensure!(answer["metadata"]["deletionTimestamp"].is_string(), "{answer}");
    let gone = || async {
        let (status, answer) = namespace.request("GET", APPS, "deployments/web", None).await?;
        ensure!(status == 404, "{status}: {answer}");
        Ok(())
    };
    eventually("the end of the Deployment", SOON, gone).await?;
    ensure!(namespace.pods().await?.is_empty() && namespace.sets().await?.is_empty());
    Ok(())
}

async fn owned(namespace: &Namespace, name: &str, owners: &[&Value]) -> Result<Value> {
    let reference = |owner: &&Value| {
        let (name, uid) = (&owner["metadata"]["name"], &owner["metadata"]["uid"]);
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid})
    };
    let references: Vec<Value> = owners.iter().map(reference).collect();
    let map = json!({"metadata": {"name": name, "ownerReferences": references}});
    namespace.ok("POST", "/api/v1", "configmaps", Some(map)).await
}

async fn is_gone(namespace: &Namespace, name: &str) -> Result<()> {
    let gone = || async {
        let (status, answer) = namespace.request("GET", "/api/v1", &format!("configmaps/{name}"), None).await?;
        ensure!(status == 404, "{status}: {answer}");
        Ok(())
    };
    eventually("the end of a ConfigMap", SOON, gone).await
}

async fn an_object_goes_with_the_last_of_its_owners(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "garbage-owners").await?;
    let (a, b) = (owned(&namespace, "a", &[]).await?, owned(&namespace, "b", &[]).await?);
    owned(&namespace, "of-a", &[&a]).await?;
    owned(&namespace, "of-both", &[&a, &b]).await?;
    namespace.ok("DELETE", "/api/v1", "configmaps/a", None).await?;
    is_gone(&namespace, "of-a").await?;
    namespace.ok("GET", "/api/v1", "configmaps/of-both", None).await?;
    namespace.ok("DELETE", "/api/v1", "configmaps/b", None).await?;
    is_gone(&namespace, "of-both").await
}

async fn an_object_of_an_owner_that_never_was_goes(cluster: &KubernetesApi) -> Result<()> {
    let namespace = Namespace::make(cluster, "garbage-never").await?;
    let never = json!({"metadata": {"name": "never", "uid": "11111111-1111-4111-8111-111111111111"}});
    owned(&namespace, "of-never", &[&never]).await?;
    is_gone(&namespace, "of-never").await
}
