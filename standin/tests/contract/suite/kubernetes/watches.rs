//! Watches.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{Events, MERGE, Space, same, steady, version};

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

async fn listed(space: &Space<'_>, of: &str) -> Result<String> {
    Ok(version(&space.get(of).await?.1).to_owned())
}

pub async fn a_watch_tells_what_happens_after_a_version(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "before"}})).await?;
    let since = listed(&space, "secrets").await?;
    let made = space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let path = space.path(&format!("secrets?watch=true&resourceVersion={since}"));
    let mut events = Events::open(cluster, &path).await?;
    same(events.next().await?, Some(json!({"type": "ADDED", "object": made})))?;
    let (_, changed) = space.patch("secrets/a", MERGE, json!({"data": {"k": "eA=="}})).await?;
    same(events.next().await?, Some(json!({"type": "MODIFIED", "object": changed})))?;
    space.delete("secrets/a", None).await?;
    let deleted = events.next().await?.context("an event")?;
    let mut wanted = changed.clone();
    wanted["metadata"]["resourceVersion"] = version(&deleted["object"]).into();
    same(&deleted, &json!({"type": "DELETED", "object": wanted}))?;
    ensure!(version(&deleted["object"]) != version(&changed), "{deleted}");
    Ok(())
}

pub async fn a_watch_from_no_version_begins_with_what_is_there(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    for name in ["a", "b"] {
        space.made("secrets", json!({"metadata": {"name": name}})).await?;
    }
    for since in ["", "&resourceVersion=0"] {
        let mut events = Events::open(cluster, &space.path(&format!("secrets?watch=1{since}"))).await?;
        let mut first = vec![events.next_name().await?, events.next_name().await?];
        first.sort();
        same(first, vec![event("ADDED", "a"), event("ADDED", "b")])?;
    }
    Ok(())
}

pub async fn a_watch_of_one_name_tells_of_that_object_only(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let since = listed(&space, "secrets").await?;
    let query = format!("watch=true&fieldSelector=metadata.name%3Db&resourceVersion={since}");
    let mut events = Events::open(cluster, &space.path(&format!("secrets?{query}"))).await?;
    for name in ["a", "b"] {
        space.made("secrets", json!({"metadata": {"name": name}})).await?;
    }
    space.delete("secrets/a", None).await?;
    space.delete("secrets/b", None).await?;
    same(events.next_name().await?, event("ADDED", "b"))?;
    same(events.next_name().await?, event("DELETED", "b"))
}

pub async fn an_object_comes_into_the_sight_of_a_watch_and_goes_out_of_it(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let since = listed(&space, "secrets").await?;
    let query = format!("watch=true&labelSelector=x%3D1&resourceVersion={since}");
    let mut events = Events::open(cluster, &space.path(&format!("secrets?{query}"))).await?;
    space.patch("secrets/a", MERGE, json!({"metadata": {"labels": {"x": "1"}}})).await?;
    let (_, changed) = space.patch("secrets/a", MERGE, json!({"data": {"k": "eA=="}})).await?;
    let (_, out) = space.patch("secrets/a", MERGE, json!({"metadata": {"labels": {"x": "2"}}})).await?;
    same(events.next_name().await?, event("ADDED", "a"))?;
    same(events.next_name().await?, event("MODIFIED", "a"))?;
    let last = events.next().await?.context("an event")?;
    // It is shown as it was in sight, with the version at which it went.
    same((&last["type"], &last["object"]["metadata"]["labels"]), (&json!("DELETED"), &json!({"x": "1"})))?;
    same((version(&last["object"]), &last["object"]["data"]), (version(&out), &changed["data"]))
}

pub async fn a_watch_ends_when_its_time_is_over(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let since = listed(&space, "secrets").await?;
    let query = format!("watch=true&timeoutSeconds=1&resourceVersion={since}");
    let mut events = Events::open(cluster, &space.path(&format!("secrets?{query}"))).await?;
    same(events.next().await?, None)
}

pub async fn a_watch_can_begin_with_all_objects_and_a_bookmark(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = Events::open(cluster, &space.path(&format!("secrets?{query}"))).await?;
    same(events.next_name().await?, event("ADDED", "a"))?;
    let bookmark = events.next().await?.context("an event")?;
    let object = &bookmark["object"];
    same((&bookmark["type"], &object["kind"]), (&json!("BOOKMARK"), &json!("Secret")))?;
    same(&object["metadata"]["annotations"], &json!({"k8s.io/initial-events-end": "true"}))?;
    ensure!(version(object).parse::<u64>().is_ok(), "{bookmark}");
    space.made("secrets", json!({"metadata": {"name": "b"}})).await?;
    same(events.next_name().await?, event("ADDED", "b"))
}

pub async fn a_watch_of_all_namespaces_tells_of_all(cluster: &KubernetesApi) -> Result<()> {
    let (one, other) = (Space::new(cluster).await?, Space::new(cluster).await?);
    let (_, list) = cluster.request("GET", "/api/v1/secrets", None).await?;
    let label = format!("in%3D{}", one.name);
    let path = format!("/api/v1/secrets?watch=true&labelSelector={label}&resourceVersion={}", version(&list));
    let mut events = Events::open(cluster, &path).await?;
    for (space, name) in [(&one, "a"), (&other, "b")] {
        space.made("secrets", json!({"metadata": {"name": name, "labels": {"in": one.name}}})).await?;
        same(events.next_name().await?, event("ADDED", name))?;
    }
    Ok(())
}

pub async fn a_pod_that_is_deleted_is_marked_first(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let made = space.made("pods", pod).await?;
    let path = space.path(&format!("pods?watch=true&resourceVersion={}", version(&made)));
    let mut events = Events::open(cluster, &path).await?;
    let (status, told) = space.delete("pods/p", None).await?;
    let marked = events.next().await?.context("an event")?;
    let dying =
        |pod: &Value| (pod["metadata"]["generation"].clone(), pod["metadata"]["deletionGracePeriodSeconds"].clone());
    same((status, dying(&told)), (200, (json!(2), json!(0))))?;
    same(steady(&marked), json!({"type": "MODIFIED", "object": steady(&told)}))?;
    ensure!(version(&told) != version(&marked["object"]), "{told}");
    same(events.next_name().await?, event("DELETED", "p"))
}
