//! Lists: in pages, by selectors, of versions; and their deletion.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{Space, failure, same, version};

async fn filled(cluster: &KubernetesApi) -> Result<Space<'_>> {
    let space = Space::new(cluster).await?;
    for (name, labels) in [("a", json!({"app": "x"})), ("b", json!({"app": "y", "tier": "1"})), ("c", json!({}))] {
        space.made("secrets", json!({"metadata": {"name": name, "labels": labels}})).await?;
    }
    Ok(space)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

pub async fn a_list_tells_its_kind_and_its_items_do_not(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    let (status, list) = space.get("secrets").await?;
    same((status, &list["kind"], &list["apiVersion"]), (200, &json!("SecretList"), &json!("v1")))?;
    same(names(&list), vec!["a", "b", "c"])?;
    ensure!(list["items"][0].get("kind").is_none() && list["items"][0].get("apiVersion").is_none(), "{list}");
    let keys: Vec<&str> = list["metadata"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    same(keys, vec!["resourceVersion"])
}

pub async fn a_list_comes_in_pages_of_one_version(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    let (_, first) = space.get("secrets?limit=2").await?;
    same((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(1)))?;
    // What comes after the first page was asked for is not in the others.
    space.made("secrets", json!({"metadata": {"name": "d"}})).await?;
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    let (_, second) = space.get(&format!("secrets?limit=2&continue={token}")).await?;
    same((names(&second), version(&second)), (vec!["c"], version(&first)))?;
    ensure!(second["metadata"].get("continue").is_none(), "{second}");
    // Of a selection, it is not told how much is left.
    let (_, page) = space.get("secrets?limit=1&labelSelector=app").await?;
    ensure!(page["metadata"].get("remainingItemCount").is_none() && page["metadata"]["continue"].is_string(), "{page}");
    Ok(())
}

pub async fn a_page_of_all_namespaces_goes_on_in_the_next_one(cluster: &KubernetesApi) -> Result<()> {
    let (one, other) = (filled(cluster).await?, filled(cluster).await?);
    let (mut token, mut found) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/secrets?limit=2&continue={token}");
        let (status, page) = cluster.request("GET", &path, None).await?;
        ensure!(status == 200, "{status}: {page}");
        for item in page["items"].as_array().into_iter().flatten() {
            let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default();
            if namespace == one.name || namespace == other.name {
                found.push(format!("{namespace}/{}", item["metadata"]["name"].as_str().unwrap_or_default()));
            }
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    let of = |space: &Space<'_>| ["a", "b", "c"].map(|name| format!("{}/{name}", space.name));
    let mut wanted = [of(&one), of(&other)].concat();
    wanted.sort();
    same(found, wanted)
}

pub async fn labels_select(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    for (selector, wanted) in [
        ("app%3Dx", vec!["a"]),
        ("app%21%3Dx", vec!["b", "c"]),
        ("app+in+(x,y),tier", vec!["b"]),
        ("app+notin+(x)", vec!["b", "c"]),
        ("%21app", vec!["c"]),
        ("app", vec!["a", "b"]),
    ] {
        let (status, list) = space.get(&format!("secrets?labelSelector={selector}")).await?;
        same((selector, status, names(&list)), (selector, 200, wanted))?;
    }
    let text = "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt";
    same(space.get("secrets?labelSelector=a%20b").await?, failure(400, "BadRequest", text, json!(null)))
}

pub async fn fields_select(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    for (selector, wanted) in [
        ("metadata.name%3Da".to_owned(), vec!["a"]),
        ("metadata.name%21%3Da".to_owned(), vec!["b", "c"]),
        (format!("metadata.namespace%3D{}", space.name), vec!["a", "b", "c"]),
        ("type%3DOpaque,metadata.name%3Db".to_owned(), vec!["b"]),
        ("type%3Dother".to_owned(), vec![]),
    ] {
        let (status, list) = space.get(&format!("secrets?fieldSelector={selector}")).await?;
        same((&selector, status, names(&list)), (&selector, 200, wanted))?;
    }
    let text = "field label not supported: data";
    same(space.get("secrets?fieldSelector=data%3Da").await?, failure(400, "BadRequest", text, json!(null)))?;
    let text = r#""data" is not a known field selector: only "metadata.name", "metadata.namespace""#;
    same(space.get("configmaps?fieldSelector=data%3Da").await?, failure(400, "BadRequest", text, json!(null)))?;
    let text = "invalid selector: 'a'; can't understand 'a'";
    same(space.get("secrets?fieldSelector=a").await?, failure(400, "BadRequest", text, json!(null)))
}

pub async fn events_are_selected_by_what_they_are_about(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    for (name, kind, about) in [("a", "Pod", "p"), ("b", "ReplicaSet", "p"), ("c", "Pod", "q")] {
        let about = json!({"kind": kind, "name": about, "namespace": space.name});
        space
            .made(
                "events",
                json!({"metadata": {"name": name}, "involvedObject": about, "reason": "R", "type": "Warning"}),
            )
            .await?;
    }
    let selected = "involvedObject.name%3Dp,involvedObject.kind%3DReplicaSet,reason%3DR,type%3DWarning";
    let (status, list) = space.get(&format!("events?fieldSelector={selected}")).await?;
    same((status, names(&list)), (200, vec!["b"]))
}

pub async fn events_are_selected_by_who_made_them(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let about = json!({"kind": "Pod", "name": "p", "namespace": space.name});
    let told =
        |name: &str| json!({"metadata": {"name": name}, "involvedObject": about, "reason": "R", "type": "Normal"});
    let new = json!({"reportingComponent": "me", "reportingInstance": "i", "action": "Told",
        "eventTime": "2026-11-28T00:00:00.000000Z"});
    for (name, who) in [("old", json!({"source": {"component": "me"}})), ("new", new), ("nobody", json!({}))] {
        let mut event = told(name);
        for (field, value) in who.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        space.made("events", event).await?;
    }
    for (selector, wanted) in [
        ("source%3Dme", vec!["new", "old"]),
        ("reportingComponent%3Dme", vec!["new"]),
        ("source%21%3Dme", vec!["nobody"]),
    ] {
        let (status, list) = space.get(&format!("events?fieldSelector={selector}")).await?;
        same((selector, status, names(&list)), (selector, 200, wanted))?;
    }
    Ok(())
}

pub async fn a_list_may_not_be_of_the_future(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    let text = r#"invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#;
    same(space.get("secrets?resourceVersion=x").await?, failure(400, "BadRequest", text, json!(null)))?;
    let (status, answer) = space.get("secrets?resourceVersion=99999999").await?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(message.starts_with("Timeout: Too large resource version: 99999999, current: "), "{answer}");
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    let details = json!({"causes": [cause], "retryAfterSeconds": 1});
    same((status, &answer["reason"], &answer["details"]), (504, &json!("Timeout"), &details))?;
    for any in ["0", "1"] {
        same(space.get(&format!("secrets?resourceVersion={any}")).await?.0, 200)?;
    }
    Ok(())
}

pub async fn a_token_that_is_none_does_not_go_on(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let text =
        "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value";
    same(space.get("secrets?limit=1&continue=abc").await?, failure(400, "BadRequest", text, json!(null)))
}

pub async fn what_is_selected_is_deleted_at_once(cluster: &KubernetesApi) -> Result<()> {
    let space = filled(cluster).await?;
    let (status, deleted) = space.delete("secrets?labelSelector=app", None).await?;
    same((status, &deleted["kind"], names(&deleted)), (200, &json!("SecretList"), vec!["a", "b"]))?;
    same(names(&space.get("secrets").await?.1), vec!["c"])?;
    let text = "the server does not allow this method on the requested resource";
    let wanted = failure(405, "MethodNotAllowed", text, json!({}));
    same(cluster.request("DELETE", "/api/v1/secrets", None).await?, wanted.clone())?;
    same(space.put("secrets", json!({})).await?, wanted)
}
