//! Tables, as `kubectl get` asks for them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::KubernetesApi;

use super::{Events, Space, same, send, version};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn table(cluster: &KubernetesApi, path: &str) -> Result<Value> {
    let (status, table) = send(cluster, "GET", path, &[("accept", TABLE)], None).await?;
    ensure!(status == 200 && table["kind"] == "Table" && table["apiVersion"] == "meta.k8s.io/v1", "{status}: {table}");
    Ok(table)
}

/// Name, type, format and priority of each column.
fn columns(table: &Value) -> Vec<String> {
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    columns
        .map(|c| format!("{} {} {} {}", text(&c["name"]), text(&c["type"]), text(&c["format"]), c["priority"]))
        .collect()
}

/// The cells of the row of this name, ages as `?`.
fn row(table: &Value, name: &str) -> Value {
    let rows = table["rows"].as_array().into_iter().flatten();
    let mut row = rows.into_iter().find(|row| row["object"]["metadata"]["name"] == name).cloned().unwrap_or_default();
    let is_age = |cell: &Value| {
        let number = cell.as_str().and_then(|cell| cell.strip_suffix('s'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    for cell in row["cells"].as_array_mut().into_iter().flatten().filter(|cell| is_age(cell)) {
        *cell = "?".into();
    }
    row["cells"].take()
}

const WIDE: [&str; 3] = ["Containers string  1", "Images string  1", "Selector string  1"];

pub async fn secrets_and_config_maps_show_how_much_they_hold(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "s"}, "stringData": {"a": "1", "b": "2"}})).await?;
    let secrets = table(cluster, &space.path("secrets")).await?;
    same(
        columns(&secrets),
        ["Name string name 0", "Type string  0", "Data string  0", "Age string  0"].map(str::to_owned).to_vec(),
    )?;
    same(row(&secrets, "s"), json!(["s", "Opaque", 2, "?"]))?;
    let object = &secrets["rows"][0]["object"];
    same((&object["kind"], &object["apiVersion"]), (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1")))?;
    ensure!(object.get("data").is_none(), "{object}");
    let maps = table(cluster, &space.path("configmaps")).await?;
    same(columns(&maps), ["Name string name 0", "Data string  0", "Age string  0"].map(str::to_owned).to_vec())?;
    same(row(&maps, "kube-root-ca.crt"), json!(["kube-root-ca.crt", 1, "?"]))
}

pub async fn one_object_is_a_table_of_one_row(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let one = table(cluster, &format!("/api/v1/namespaces/{}", space.name)).await?;
    same(columns(&one), ["Name string name 0", "Status string  0", "Age string  0"].map(str::to_owned).to_vec())?;
    same(
        (row(&one, &space.name), one["rows"].as_array().map(Vec::len)),
        (json!([space.name, "Active", "?"]), Some(1)),
    )?;
    same(version(&one), version(&one["rows"][0]["object"]))?;
    // A refusal is none, and an empty list has no rows.
    let (status, answer) = send(cluster, "GET", &space.path("secrets/x"), &[("accept", TABLE)], None).await?;
    same((status, &answer["kind"]), (404, &json!("Status")))?;
    let none = table(cluster, &space.path("secrets")).await?;
    same(&none["rows"], &json!([]))
}

/// What `kubectl --sort-by` sorts by.
pub async fn a_row_has_as_much_of_its_object_as_is_asked_for(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "s"}, "stringData": {"a": "1"}})).await?;
    for path in ["secrets", "secrets/s"] {
        let whole = table(cluster, &space.path(&format!("{path}?includeObject=Object"))).await?;
        let object = &whole["rows"][0]["object"];
        let seen = (&object["kind"], &object["apiVersion"], &object["data"], &object["metadata"]["name"]);
        same(seen, (&json!("Secret"), &json!("v1"), &json!({"a": "MQ=="}), &json!("s")))?;
        let bare = table(cluster, &space.path(&format!("{path}?includeObject=None"))).await?;
        same((&bare["rows"][0]["object"], &bare["rows"][0]["cells"][0]), (&Value::Null, &json!("s")))?;
    }
    Ok(())
}

pub async fn pods_and_their_owners_show_how_they_are(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let container = json!({"name": "c", "image": "x"});
    space.made("pods", json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).await?;
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template});
    for kind in ["deployments", "replicasets"] {
        space.made(&format!("apps/v1/{kind}"), json!({"metadata": {"name": "d"}, "spec": spec})).await?;
    }
    let pods = table(cluster, &space.path("pods")).await?;
    let first = ["Name string name 0", "Ready string  0", "Status string  0", "Restarts string  0", "Age string  0"];
    let wide = ["IP string  1", "Node string  1", "Nominated Node string  1", "Readiness Gates string  1"];
    same(columns(&pods), first.into_iter().chain(wide).map(str::to_owned).collect())?;
    let none = "<none>";
    same(row(&pods, "p"), json!(["p", "0/1", "Pending", "0", "?", none, none, none, none]))?;
    let deployments = table(cluster, &space.path("apps/v1/deployments")).await?;
    let first =
        ["Name string name 0", "Ready string  0", "Up-to-date string  0", "Available string  0", "Age string  0"];
    same(columns(&deployments), first.into_iter().chain(WIDE).map(str::to_owned).collect())?;
    same(row(&deployments, "d"), json!(["d", "0/0", 0, 0, "?", "c", "x", "app=d"]))?;
    let sets = table(cluster, &space.path("apps/v1/replicasets")).await?;
    let first = ["Name string name 0", "Desired integer  0", "Current integer  0", "Ready integer  0", "Age string  0"];
    same(columns(&sets), first.into_iter().chain(WIDE).map(str::to_owned).collect())?;
    same(row(&sets, "d"), json!(["d", 0, 0, 0, "?", "c", "x", "app=d"]))
}

pub async fn events_show_what_they_are_about(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let about = json!({"kind": "ReplicaSet", "name": "r", "namespace": space.name});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": about, "reason": "FailedCreate", "type": "Warning",
        "message": "no\n", "count": 3, "source": {"component": "me"}, "firstTimestamp": "2020-01-01T00:00:00Z",
        "lastTimestamp": "2020-01-01T00:00:00Z"});
    space.made("events", event).await?;
    let events = table(cluster, &space.path("events")).await?;
    let wanted = [
        "Last Seen string  0",
        "Type string  0",
        "Reason string  0",
        "Object string  0",
        "Subobject string  1",
        "Source string  1",
        "Message string  0",
        "First Seen string  1",
        "Count string  1",
        "Name string name 1",
    ];
    same(columns(&events), wanted.map(str::to_owned).to_vec())?;
    let cells = row(&events, "e");
    same(&cells[0], &cells[7])?;
    ensure!(cells[0].as_str().is_some_and(|age| age.contains('y')), "{cells}");
    let shown: Vec<&Value> = cells.as_array().into_iter().flatten().skip(1).take(6).collect();
    same(json!(shown), json!(["Warning", "FailedCreate", "replicaset/r", "", "me", "no"]))?;
    same((&cells[8], &cells[9]), (&json!(3), &json!("e")))
}

pub async fn a_watch_shows_tables_too(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "s"}})).await?;
    let token = Some(cluster.admin_token());
    let path = space.path("secrets?watch=true&timeoutSeconds=1");
    let answer = cluster.raw(token, "GET", &path, &[("accept", TABLE)], None).await?;
    let mut events = Events::of(answer).await?;
    let Some(event) = events.next().await? else { anyhow::bail!("no event") };
    same((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")))?;
    same(row(&event["object"], "s"), json!(["s", "Opaque", 0, "?"]))
}
