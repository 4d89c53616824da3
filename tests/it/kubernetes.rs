//! The embedded API server behind a script. Whoever comes to it has all rights, and no controller runs.

use anyhow::{Result, ensure};
use kube::{Client, Config};
use serde_json::{Value, json};

use standin::scripted::{Answer, Embedded, StandIn};

pub const SECRETS: &str = "/api/v1/namespaces/istio-system/secrets";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/istio-system/configmaps";
pub const EVENTS: &str = "/api/v1/namespaces/istio-system/events";
pub const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/istio-system/replicasets";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/istio-system/deployments";

/// The server, and the way around its script.
pub struct Kubernetes {
    pub server: StandIn,
    embedded: Embedded,
}

impl Kubernetes {
    /// One with the namespaces of Istio and of Flux, and nothing in them.
    pub async fn start() -> Result<Self> {
        let cluster = standin::kubernetes::Kubernetes::start("nas").await?;
        let kubernetes = Self { server: StandIn::before(cluster.embedded()?).await?, embedded: cluster.embedded()? };
        for name in ["istio-system", "flux-system"] {
            kubernetes.put("/api/v1/namespaces", json!({ "metadata": { "name": name } }))?;
        }
        Ok(kubernetes)
    }

    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(Config::new(self.server.url().parse()?))?)
    }

    /// Puts an object there, as somebody who brings its status along. Returns what there is now.
    pub fn put(&self, collection: &str, mut object: Value) -> Result<Value> {
        for of_the_server in ["resourceVersion", "uid", "managedFields"] {
            object["metadata"].as_object_mut().map(|metadata| metadata.remove(of_the_server));
        }
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
        let is_there = self.embedded.at_once("GET", &path, None)?.0 == 200;
        let (method, target) = if is_there { ("PUT", &*path) } else { ("POST", collection) };
        let mut put = self.write(method, target, &object)?;
        if !object["status"].is_null() {
            put["status"] = object["status"].take();
            put = self.write("PUT", &format!("{path}/status"), &put)?;
        }
        Ok(put)
    }

    fn write(&self, method: &str, target: &str, object: &Value) -> Result<Value> {
        let (status, answer) =
            self.embedded.at_once(method, &format!("{target}?fieldManager=somebody"), Some(object))?;
        ensure!((200..300).contains(&status), "{method} {target}: {status}: {answer}");
        Ok(answer)
    }

    /// Takes one away.
    pub fn delete(&self, collection: &str, name: &str) -> Result<()> {
        let (status, answer) = self.embedded.at_once("DELETE", &format!("{collection}/{name}"), None)?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// All objects of a collection.
    pub fn all(&self, collection: &str) -> Vec<Value> {
        let list = self.embedded.at_once("GET", collection, None);
        list.ok().and_then(|(_, list)| list["items"].as_array().cloned()).unwrap_or_default()
    }

    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        let answer = self.embedded.at_once("GET", &format!("{collection}/{name}"), None).ok();
        answer.filter(|(status, _)| *status == 200).map(|(_, object)| object)
    }
}

/// Pods of this app in so many replicas, none of which is ever made.
pub fn pods(app: &str, replicas: usize) -> Value {
    json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": app } },
        "template": {
            "metadata": { "labels": { "app": app } },
            "spec": { "containers": [{ "name": "discovery", "image": "registry.example/pilot" }] },
        },
    })
}

/// A refusal in the API server's own shape.
pub fn status(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "scripted", "reason": reason, "code": code,
    });
    Answer::json(code, &status)
}
