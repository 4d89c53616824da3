//! The controllers that make pods, as kube-controller-manager runs them: clients of the API server like any other.
//!
//! `watch` tells what happened, `queue` when to look at what, and each of `deployment`, `replicaset`, `job` and `garbage`
//! looks at one thing: it reads it anew, decides, and acts. There is no kubelet, so pods stay pending.

mod client;
mod deployment;
mod events;
mod garbage;
mod job;
mod objects;
mod pods;
mod queue;
mod replicaset;
mod watch;

use std::time::{Duration, Instant};

use testbed::KubernetesApi;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use self::client::Client;
use self::events::Recorder;
use self::garbage::{Graph, Work};
use self::objects::controller_of;
use self::queue::{Backoff, Queue};
use self::watch::{Change, Event};
use super::object::meta;
use super::resources::RESOURCES;

/// Of each controller: `--concurrent-replicaset-syncs` and its like.
const WORKERS: usize = 5;

/// The default of `k8s.io/client-go/util/workqueue`.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(5), longest: Duration::from_secs(1000) };

/// `DefaultJobApiBackOff` and `MaxJobApiBackOff` in `k8s.io/kubernetes/pkg/controller/job`.
const JOB_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Changes of a Job and of its pods are looked at together: `syncJobBatchPeriod` there.
const JOB_BATCH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Controller {
    Deployment,
    ReplicaSet,
    Job,
    Garbage,
}

/// What one controller is to look at. The garbage collector looks at everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    controller: Controller,
    namespace: String,
    name: String,
}

/// A controller's account, and where it tells what it did.
#[derive(Clone)]
struct Worker {
    client: Client,
    recorder: Recorder,
}

#[derive(Clone)]
struct Workers {
    deployment: Worker,
    replica_set: Worker,
    job: Worker,
    garbage: Client,
}

/// Runs the controllers for ever, as clients of the API server over the network. `token(name)` is a bearer token of
/// `system:serviceaccount:kube-system:<name>`.
pub(crate) async fn run(api: KubernetesApi, token: impl Fn(&str) -> String + Send + Sync + 'static) {
    let client = |name: &str| Client::new(api.clone(), token(name));
    let worker = |name: &'static str| Worker { client: client(name), recorder: Recorder::new(client(name), name) };
    let workers = Workers {
        deployment: worker("deployment-controller"),
        replica_set: worker("replicaset-controller"),
        job: worker("job-controller"),
        garbage: client("generic-garbage-collector"),
    };
    let (told, mut events) = unbounded_channel();
    let mut watches = JoinSet::new();
    for resource in RESOURCES.iter().filter(|r| r.namespaced && !r.is_review() && r.plural != "events") {
        watches.spawn(watch::watch(workers.garbage.clone(), resource, told.clone()));
    }

    let (mut queue, mut graph, mut running) = (Queue::new(), Graph::default(), JoinSet::new());
    loop {
        let now = Instant::now();
        while let Some(key) = next(&mut queue, now) {
            let work = if key.controller == Controller::Garbage { graph.work() } else { Vec::new() };
            running.spawn(reconcile(workers.clone(), key, work));
        }
        let due = queue.next_due().filter(|due| *due > now);
        tokio::select! {
            Some(event) = events.recv() => {
                graph.apply(&event);
                let garbage = (!graph.work().is_empty()).then(|| (Key::garbage(), Duration::ZERO));
                for (key, delay) in keys(&event).into_iter().chain(garbage) {
                    if delay.is_zero() { queue.add(key) } else { queue.add_at(key, Instant::now() + delay) }
                }
            }
            Some(Ok((key, outcome))) = running.join_next() => done(&mut queue, key, outcome),
            () = tokio::time::sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
        }
    }
}

impl Key {
    fn garbage() -> Self {
        Self { controller: Controller::Garbage, namespace: String::new(), name: String::new() }
    }
}

fn next(queue: &mut Queue<Key>, now: Instant) -> Option<Key> {
    let all = [Controller::Deployment, Controller::ReplicaSet, Controller::Job, Controller::Garbage];
    let free = all.map(|controller| (controller, queue.running(|key| key.controller == controller) < WORKERS));
    queue.take(now, |key| free.contains(&(key.controller, true)))
}

/// Who has to look at what after an event, and how soon.
fn keys(event: &Event) -> Vec<(Key, Duration)> {
    let object = event.change.object();
    let key = |controller, name: &str, delay| {
        (Key { controller, namespace: meta(object, "namespace").to_owned(), name: name.to_owned() }, delay)
    };
    let owned = |kind: &str| controller_of(object).filter(|owner| owner["kind"] == kind);
    let owner = |kind: &str| owned(kind).and_then(|owner| owner["name"].as_str());
    let name = meta(object, "name");
    let now = Duration::ZERO;
    match event.resource.plural {
        "deployments" => vec![key(Controller::Deployment, name, now)],
        "replicasets" => {
            let deployment = owner("Deployment").map(|owner| key(Controller::Deployment, owner, now));
            deployment.into_iter().chain([key(Controller::ReplicaSet, name, now)]).collect()
        }
        "jobs" => {
            let delay = if matches!(event.change, Change::Added(_)) { now } else { JOB_BATCH };
            vec![key(Controller::Job, name, delay)]
        }
        "pods" => {
            let set = owner("ReplicaSet").map(|owner| key(Controller::ReplicaSet, owner, now));
            set.into_iter().chain(owner("Job").map(|owner| key(Controller::Job, owner, JOB_BATCH))).collect()
        }
        _ => Vec::new(),
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done,
    /// Done, and time alone may change that.
    Again(Duration),
    Failed,
}

async fn reconcile(workers: Workers, key: Key, work: Vec<Work>) -> (Key, Outcome) {
    let Key { controller, namespace, name } = &key;
    let Workers { deployment, replica_set, job, garbage } = &workers;
    let again = match controller {
        Controller::Deployment => {
            deployment::reconcile(&deployment.client, &deployment.recorder, namespace, name).await
        }
        Controller::ReplicaSet => {
            let done = replicaset::reconcile(&replica_set.client, &replica_set.recorder, namespace, name);
            done.await.map(|()| None)
        }
        Controller::Job => job::reconcile(&job.client, &job.recorder, namespace, name).await.map(|()| None),
        Controller::Garbage => garbage::collect(garbage, work).await.map(|()| None),
    };
    let outcome = match again {
        Ok(None) => Outcome::Done,
        Ok(Some(after)) => Outcome::Again(after),
        Err(_) => Outcome::Failed,
    };
    (key, outcome)
}

fn done(queue: &mut Queue<Key>, key: Key, outcome: Outcome) {
    let backoff = if key.controller == Controller::Job { JOB_BACKOFF } else { BACKOFF };
    let now = Instant::now();
    queue.done(&key, matches!(outcome, Outcome::Failed), backoff, now);
    if let Outcome::Again(after) = outcome {
        queue.add_at(key, now + after);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::controllers::objects::resource;

    fn told(plural: &str, owner: Value) -> Vec<(Controller, String, u64)> {
        let metadata = json!({"name": "a", "namespace": "ns", "ownerReferences": [owner]});
        let event = Event { resource: resource(plural), change: Change::Modified(json!({"metadata": metadata})) };
        keys(&event).into_iter().map(|(key, delay)| (key.controller, key.name, delay.as_secs())).collect()
    }

    #[test]
    fn an_event_is_told_to_the_controllers_of_the_object_and_of_its_owner() {
        let owner = |kind: &str| json!({"kind": kind, "name": "o", "controller": true});
        assert_eq!(told("deployments", json!({})), [(Controller::Deployment, "a".to_owned(), 0)]);
        let both = [(Controller::Deployment, "o".to_owned(), 0), (Controller::ReplicaSet, "a".to_owned(), 0)];
        assert_eq!(told("replicasets", owner("Deployment")), both);
        assert_eq!(told("pods", owner("ReplicaSet")), [(Controller::ReplicaSet, "o".to_owned(), 0)]);
        assert_eq!(told("pods", owner("Job")), [(Controller::Job, "o".to_owned(), 1)]);
        assert_eq!(told("pods", json!({"kind": "ReplicaSet", "name": "o"})), []);
        assert_eq!(told("secrets", owner("ReplicaSet")), []);
    }

    #[test]
    fn no_controller_looks_at_more_than_a_few_things_at_once() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for controller in [Controller::ReplicaSet, Controller::Job] {
            for name in 0..7 {
                queue.add(Key { controller, namespace: String::new(), name: name.to_string() });
            }
        }
        let taken: Vec<Key> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(taken.len(), 2 * WORKERS);
        assert!([Controller::ReplicaSet, Controller::Job].iter().all(|c| taken.iter().any(|key| key.controller == *c)));
    }
}
