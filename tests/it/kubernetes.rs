//! An API server with a few objects in memory: enough of create, read, merge patch and list for this service.
//! Its watches tell of nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use kube::{Client, Config};
use serde_json::{Value, json};

use standin::scripted::{Answer, Request, StandIn};

pub const SECRETS: &str = "/api/v1/namespaces/istio-system/secrets";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/istio-system/configmaps";
pub const EVENTS: &str = "/api/v1/namespaces/istio-system/events";
pub const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/istio-system/replicasets";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/istio-system/deployments";

const COLLECTIONS: [&str; 8] = [
    "/secrets",
    "/configmaps",
    "/replicasets",
    "/statefulsets",
    "/daemonsets",
    "/jobs",
    "webhookconfigurations",
    "/externalsecrets",
];

/// The server, and its objects by path.
pub struct Kubernetes {
    pub server: StandIn,
    objects: Arc<Mutex<Objects>>,
}

#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Value>,
    version: u64,
}

impl Kubernetes {
    pub async fn start() -> Result<Self> {
        let objects = Arc::new(Mutex::<Objects>::default());
        let shared = Arc::clone(&objects);
        let server = StandIn::start(move |request| std::future::ready(lock(&shared).answer(&request))).await?;
        Ok(Self { server, objects })
    }

    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(Config::new(self.server.url().parse()?))?)
    }

    /// Puts an object where a user would have made it.
    pub fn put(&self, collection: &str, object: Value) {
        lock(&self.objects).store(collection, object, "somebody");
    }

    /// Takes one away. No watch tells of it.
    pub fn delete(&self, collection: &str, name: &str) {
        lock(&self.objects).by_path.remove(&format!("{collection}/{name}"));
    }

    /// The next objects get versions that were there before.
    pub fn rewind(&self) {
        lock(&self.objects).version = 0;
    }

    /// All objects of a collection.
    pub fn all(&self, collection: &str) -> Vec<Value> {
        let objects = lock(&self.objects);
        let inside =
            objects.by_path.iter().filter(|(path, _)| path.rsplit_once('/').is_some_and(|(c, _)| c == collection));
        inside.map(|(_, object)| object.clone()).collect()
    }

    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        lock(&self.objects).by_path.get(&format!("{collection}/{name}")).cloned()
    }
}

impl Objects {
    fn answer(&mut self, request: &Request) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match request.method.as_str() {
            "GET" if query.contains("watch=true") => Answer::watch(),
            "GET" => self.read(path, query),
            "POST" => {
                let name = request.json()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.by_path.contains_key(&format!("{path}/{name}")) {
                    return status(409, "AlreadyExists");
                }
                Answer::json(201, &self.store(path, request.json(), "istio-ca-gate"))
            }
            "PATCH" => self.patch(path.trim_end_matches("/status"), &request.json()),
            _ => status(405, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str, query: &str) -> Answer {
        if let Some(object) = self.by_path.get(path) {
            return Answer::json(200, object);
        }
        if !COLLECTIONS.iter().any(|collection| path.ends_with(collection)) {
            return status(404, "NotFound");
        }
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"));
        let inside = |other: &str| other.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        let items: Vec<_> = self
            .by_path
            .iter()
            .filter(|(other, _)| inside(other).is_some_and(|name| wanted.is_none_or(|wanted| wanted == name)))
            .map(|(_, object)| object)
            .collect();
        let version = self.version.to_string();
        Answer::json(200, &json!({ "metadata": { "resourceVersion": version }, "items": items }))
    }

    fn patch(&mut self, path: &str, patch: &Value) -> Answer {
        let Some(mut object) = self.by_path.get(path).cloned() else { return status(404, "NotFound") };
        let token = &patch["metadata"]["resourceVersion"];
        if !token.is_null() && *token != object["metadata"]["resourceVersion"] {
            return status(409, "Conflict");
        }
        merge(&mut object, patch);
        let collection = path.rsplit_once('/').map_or("", |(collection, _)| collection);
        Answer::json(200, &self.store(collection, object, "istio-ca-gate"))
    }

    fn store(&mut self, collection: &str, mut object: Value, manager: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["managedFields"] = json!([{ "manager": manager, "operation": "Update" }]);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.by_path.insert(format!("{collection}/{name}"), object.clone());
        object
    }
}

/// A refusal in the API server's own shape.
pub fn status(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "scripted", "reason": reason, "code": code,
    });
    Answer::json(code, &status)
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut object[key], value);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
