//! Events about what the controllers do. Those that repeat are counted, those of one sort are combined, and those of
//! one object become rare: `k8s.io/client-go/tools/record`.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::client::{Client, path};
use super::objects::resource;
use crate::kubernetes::object::meta;
use crate::kubernetes::seconds;

/// So many different messages of one sort are told one by one: `defaultAggregateMaxEvents`, the last one excluded.
const MESSAGES_MAX: usize = 10;

/// After so many seconds of quiet, messages are told one by one again: `defaultAggregateIntervalInSeconds`.
const QUIET_SECONDS: i64 = 600;

/// So many events of one object are written at once: `defaultSpamBurst`.
const BURST: f64 = 25.0;

/// And one more in so many seconds: the inverse of `defaultSpamQPS`.
const SECONDS_PER_EVENT: f64 = 300.0;

/// What is to be told about an object.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) about: Value,
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Writes the events of one controller, in order.
#[derive(Clone)]
pub(super) struct Recorder {
    happened: UnboundedSender<Happened>,
}

impl Recorder {
    /// The writing goes on in the background as long as the recorder is there.
    pub(super) fn new(client: Client, source: &'static str) -> Self {
        let (happened, mut what) = unbounded_channel();
        tokio::spawn(async move {
            let mut correlator = Correlator::new(source);
            while let Some(happened) = what.recv().await {
                if let Some(write) = correlator.next(&happened, Timestamp::now()) {
                    // A lost event is lost.
                    let _ = write_event(&client, &write).await;
                }
            }
        });
        Self { happened }
    }

    pub(super) fn tell(&self, about: &Value, warning: bool, reason: &'static str, message: String) {
        // Nobody writes any more once the cluster ends.
        let _ = self.happened.send(Happened { about: about.clone(), warning, reason, message });
    }
}

async fn write_event(client: &Client, write: &Write) -> super::client::Result<()> {
    let path = |name: &str| path(resource("events"), meta(&write.event, "namespace"), name);
    if let Some(patch) = &write.patch {
        match client.merge(&path(meta(&write.event, "name")), patch).await {
            // It expired, or somebody deleted it.
            Err(refused) if refused.code == 404 => {}
            done => return done.map(drop),
        }
    }
    client.create(&path(""), &write.event).await.map(drop)
}

/// An event to write: by the patch of a former one, where there is one.
#[derive(Debug, PartialEq)]
struct Write {
    event: Value,
    patch: Option<Value>,
}

/// What was told so far by one controller.
struct Correlator {
    source: &'static str,
    /// The messages of one sort about one object.
    sorts: HashMap<String, Sort>,
    /// The events as last written.
    written: HashMap<String, Value>,
    /// What each object may still have, and since when.
    budgets: HashMap<String, (f64, Timestamp)>,
}

struct Sort {
    messages: BTreeSet<String>,
    last: Timestamp,
}

impl Correlator {
    fn new(source: &'static str) -> Self {
        Self { source, sorts: HashMap::new(), written: HashMap::new(), budgets: HashMap::new() }
    }

    /// None: there were too many events about this object.
    fn next(&mut self, happened: &Happened, now: Timestamp) -> Option<Write> {
        let object = meta(&happened.about, "uid").to_owned();
        let sort = format!("{object} {} {}", happened.warning, happened.reason);
        let (key, message) = self.combined(sort, &happened.message, now);
        let time = seconds(now.as_second());
        let (event, patch) = match self.written.remove(&key) {
            Some(mut event) => {
                let count = event["count"].as_u64().unwrap_or_default() + 1;
                let patch = json!({"count": count, "lastTimestamp": time, "message": message});
                for field in ["count", "lastTimestamp", "message"] {
                    event[field] = patch[field].clone();
                }
                (event, Some(patch))
            }
            None => (self.event(happened, message, now), None),
        };
        self.written.insert(key, event.clone());
        self.has_budget(object, now).then_some(Write { event, patch })
    }

    /// What an event counts together with, and what it says.
    fn combined(&mut self, sort: String, message: &str, now: Timestamp) -> (String, String) {
        let known = self.sorts.entry(sort.clone()).or_insert_with(|| Sort { messages: BTreeSet::new(), last: now });
        if now.as_second() - known.last.as_second() > QUIET_SECONDS {
            known.messages.clear();
        }
        known.last = now;
        known.messages.insert(message.to_owned());
        if known.messages.len() < MESSAGES_MAX {
            return (format!("{sort} {message}"), message.to_owned());
        }
        known.messages.pop_last();
        (sort, format!("(combined from similar events): {message}"))
    }

    fn has_budget(&mut self, object: String, now: Timestamp) -> bool {
        let (left, since) = self.budgets.entry(object).or_insert((BURST, now));
        let passed = now.duration_since(*since).as_secs_f64();
        (*left, *since) = ((*left + passed / SECONDS_PER_EVENT).min(BURST), now);
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }

    fn event(&self, happened: &Happened, message: String, now: Timestamp) -> Value {
        let about = &happened.about;
        let (name, namespace) = (meta(about, "name"), meta(about, "namespace"));
        let time = seconds(now.as_second());
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": namespace},
            "involvedObject": {
                "kind": about["kind"],
                "namespace": namespace,
                "name": name,
                "uid": meta(about, "uid"),
                "apiVersion": about["apiVersion"],
                "resourceVersion": meta(about, "resourceVersion"),
            },
            "reason": happened.reason,
            "message": message,
            "source": {"component": self.source},
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "type": if happened.warning { "Warning" } else { "Normal" },
            "eventTime": null,
            "reportingComponent": self.source,
            "reportingInstance": "",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failed(message: &str) -> Happened {
        let about = json!({"kind": "ReplicaSet", "metadata": {"name": "a", "uid": "1", "resourceVersion": "7"}});
        Happened { about, warning: true, reason: "FailedCreate", message: message.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut correlator = Correlator::new("test");
        let first = correlator.next(&failed("no"), at(1)).unwrap();
        assert_eq!((first.patch, &first.event["count"]), (None, &json!(1)));
        let second = correlator.next(&failed("no"), at(2)).unwrap();
        let patch = json!({"count": 2, "lastTimestamp": "1970-01-01T00:00:02Z", "message": "no"});
        assert_eq!((second.patch, meta(&second.event, "name")), (Some(patch), meta(&first.event, "name")));
        let other = correlator.next(&failed("other"), at(3)).unwrap();
        assert_eq!((other.patch, &other.event["count"]), (None, &json!(1)));
    }

    #[test]
    fn the_tenth_message_of_a_sort_and_later_ones_are_combined() {
        let mut correlator = Correlator::new("test");
        let mut texts = |count: usize, second| {
            let next = |n: usize| correlator.next(&failed(&format!("{n}")), at(second)).unwrap().event;
            (0..count).map(next).map(|event| event["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let wanted = ["8", "(combined from similar events): 9", "(combined from similar events): 10"];
        assert_eq!(texts(11, 1)[8..], wanted);
        assert_eq!(texts(1, 700), ["0"], "after a while they are told one by one again");
    }

    #[test]
    fn the_events_of_one_object_become_rare() {
        let mut correlator = Correlator::new("test");
        let mut written =
            |times: usize, second| (0..times).filter(|_| correlator.next(&failed("no"), at(second)).is_some()).count();
        assert_eq!(written(30, 0), 25);
        assert_eq!(written(2, 301), 1);
        assert_eq!(correlator.next(&failed("no"), at(700)).unwrap().event["count"], 33, "all are counted");
    }
}
