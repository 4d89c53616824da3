//! The controllers that make pods, and the one that clears away what nobody owns any more.

mod garbage;
mod jobs;
mod refusals;
mod rollouts;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use super::{Case, SOON};

pub const CASES: &[&[Case<KubernetesApi>]] = &[rollouts::CASES, refusals::CASES, garbage::CASES, jobs::CASES];

const APPS: &str = "/apis/apps/v1";

/// A namespace of a case's own.
struct Namespace {
    cluster: KubernetesApi,
    name: String,
}

impl Namespace {
    async fn make(cluster: &KubernetesApi, name: &str) -> Result<Self> {
        super::webhook::make_namespace(cluster, name).await?;
        Ok(Self::of(cluster, name))
    }

    /// One that is there.
    fn of(cluster: &KubernetesApi, name: &str) -> Self {
        Self { cluster: cluster.clone(), name: name.to_owned() }
    }

    async fn request(&self, method: &str, root: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        self.cluster.request(method, &format!("{root}/namespaces/{}/{path}", self.name), body).await
    }

    /// The same, and it has to be granted.
    async fn ok(&self, method: &str, root: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.request(method, root, path, body).await?;
        ensure!(status < 300, "{method} {path}: {status}: {answer}");
        Ok(answer)
    }

    async fn list(&self, root: &str, plural: &str) -> Result<Vec<Value>> {
        let answer = self.ok("GET", root, plural, None).await?;
        Ok(answer["items"].as_array().context("no items")?.clone())
    }

    async fn deploy(&self, deployment: Value) -> Result<()> {
        self.ok("POST", APPS, "deployments", Some(deployment)).await.map(drop)
    }

    async fn deployment(&self, name: &str) -> Result<Value> {
        self.ok("GET", APPS, &format!("deployments/{name}"), None).await
    }

    async fn change(&self, deployment: &str, patch: Value) -> Result<()> {
        self.ok("PATCH", APPS, &format!("deployments/{deployment}"), Some(patch)).await.map(drop)
    }

    async fn sets(&self) -> Result<Vec<Value>> {
        self.list(APPS, "replicasets").await
    }

    /// The one ReplicaSet, once it is there.
    async fn set(&self) -> Result<Value> {
        let one = || async {
            let sets = self.sets().await?;
            ensure!(sets.len() == 1, "{sets:?}");
            Ok(sets[0].clone())
        };
        eventually("the ReplicaSet", SOON, one).await
    }

    async fn pods(&self) -> Result<Vec<Value>> {
        self.list("/api/v1", "pods").await
    }

    /// So many pods, once they are there and no others.
    async fn has_pods(&self, count: usize) -> Result<Vec<Value>> {
        let have = || async {
            let pods = self.pods().await?;
            ensure!(pods.len() == count, "{} pods", pods.len());
            Ok(pods)
        };
        eventually("pods", SOON, have).await
    }

    /// The events of an object: type, reason, message and count.
    async fn events(&self, kind: &str, name: &str) -> Result<Vec<(String, String, String, i64)>> {
        let events = self.list("/api/v1", "events").await?;
        let of = |event: &&Value| event["involvedObject"]["kind"] == kind && event["involvedObject"]["name"] == name;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let told = |event: &Value| {
            (text(event, "type"), text(event, "reason"), text(event, "message"), event["count"].as_i64().unwrap_or(1))
        };
        Ok(events.iter().filter(of).map(told).collect())
    }

    /// The messages of an object's events for this reason, sorted, once there are so many.
    async fn messages(&self, kind: &str, name: &str, reason: &str, count: usize) -> Result<Vec<String>> {
        let told = || async {
            let events = self.events(kind, name).await?;
            let mut messages: Vec<String> =
                events.into_iter().filter(|event| event.1 == reason).map(|event| event.2).collect();
            messages.sort();
            ensure!(messages.len() == count, "{messages:?}");
            Ok(messages)
        };
        eventually("events", SOON, told).await
    }
}

/// A Deployment of pods with the label `app: <name>`.
fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": {"note": "1"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "example.test/main"}]},
            },
        },
    })
}

/// A change of the template.
fn retemplated(note: Option<&str>) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"note": note}}}}})
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A status without its times, each of which has to be there.
fn timeless(status: &Value) -> Result<Value> {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let condition = condition.as_object_mut().context("no condition")?;
        let times = ["lastUpdateTime", "lastTransitionTime"].map(|time| condition.remove(time));
        ensure!(times.iter().flatten().all(|time| time.as_str().is_some_and(|time| time.len() == 20)), "{times:?}");
        ensure!(times[1].is_some(), "no transition");
    }
    Ok(status)
}

fn condition(name: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": name, "status": status, "reason": reason, "message": message})
}

/// Waits until the status of an object is this one, apart from its times. Conditions may stand in any order.
async fn reports(namespace: &Namespace, root: &str, path: &str, wanted: &Value) -> Result<Value> {
    let sorted = |mut status: Value| {
        if let Some(conditions) = status["conditions"].as_array_mut() {
            conditions.sort_by_key(|condition| text(condition, "/type"));
        }
        status
    };
    let told = || async {
        let object = namespace.ok("GET", root, path, None).await?;
        let status = sorted(timeless(&object["status"])?);
        ensure!(status == sorted(wanted.clone()), "wanted {wanted}\ngot {status}");
        Ok(object)
    };
    eventually("the status", SOON, told).await
}

const UNAVAILABLE: [&str; 4] =
    ["Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."];

fn unavailable() -> Value {
    let [name, status, reason, message] = UNAVAILABLE;
    condition(name, status, reason, message)
}
