//! Whether the API server really calls a gate: now and then it is asked, by dry run, for a gated pod with a random
//! number as a label. The gate that is called answers as it answers any dry run, and says the number in a warning, which
//! the API server hands back with whatever it decided. Nothing else proves that the whole way works.

mod last;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::client::Body;
use kube::core::{Expression, Request, Selector, SelectorExt};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use crate::args::{dns_label, interval};
use crate::gate::Gated;
use crate::k8s::{self, FIELD_MANAGER, MANAGED_BY};
use crate::readiness::Readiness;
pub use last::LastTest;
use verdict::{Answer, Asked, Entry, Webhooks};
pub use verdict::{Finding, Verdict};

/// The label with the number.
pub const LABEL: &str = "istio-ca-gate.io/self-test";

/// Digits of the number: enough that no two runs have the same.
const NONCE_LENGTH: usize = 32;

/// The API server gives each webhook up to 30 s, usually 10.
const DEADLINE: Duration = Duration::from_secs(35);

/// Largest answer that is read; the pod comes back with some defaults, in about 4 KiB.
const ANSWER_MAX: usize = 256 << 10;

/// Before the first run: endpoints and the API server's own view of `caBundle` follow readiness by some seconds.
const SETTLING: Duration = Duration::from_secs(10);

/// After a run that failed: what passes by itself is not told of for a whole interval.
const RETRY: Duration = Duration::from_secs(30);

/// How often it is looked whether this replica is ready: it turns so once.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);

/// The self-test's flags.
#[derive(Clone, Debug, Args)]
pub struct SelfTestArgs {
    /// Namespace in which it is tried now and then, by dry run, whether the API server calls a gate [default: off]
    #[arg(long = "self-test", env = "GATE_SELF_TEST", value_name = "NAMESPACE", value_parser = dns_label)]
    pub self_test: Option<String>,
    /// How often
    #[arg(long, env = "GATE_SELF_TEST_INTERVAL", default_value = "5m", value_parser = interval)]
    pub self_test_interval: Duration,
}

/// Whether a label's value is a number of ours. Nothing else is repeated.
pub fn is_nonce(text: &str) -> bool {
    text.len() == NONCE_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What the gate that was called says.
pub fn warning(nonce: &str) -> String {
    format!("istio-ca-gate: self-test {nonce}")
}

/// A number that was not used before.
pub fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// One try, as often as it is asked for.
#[derive(Clone)]
pub struct Probe {
    client: Client,
    asked: Asked,
}

impl Probe {
    /// For pods as the first of these selectors has them.
    ///
    /// # Errors
    /// In words, if no pod can match it.
    pub fn new(client: Client, namespace: &str, gated: &Gated, webhook_config: &str) -> Result<Self, String> {
        let first = gated.0.first().ok_or("there is no selector of gated pods")?;
        let labels = labels(first).ok_or_else(|| format!("no pod can match the first selector, {first}"))?;
        let (namespace, webhook_config) = (namespace.to_owned(), webhook_config.to_owned());
        Ok(Self { client, asked: Asked { namespace, webhook_config, labels } })
    }

    /// Asks for the pod, and looks at what came back.
    pub async fn run(&self, nonce: &str) -> Verdict {
        match tokio::time::timeout(DEADLINE, self.create(nonce)).await {
            Ok(Ok(answer)) if answer.says(nonce) => Verdict::Called,
            // Who was not called is a question of the webhook configuration.
            Ok(Ok(answer)) => verdict::uncalled(&answer, &self.webhooks().await, &self.asked),
            Ok(Err(error)) => verdict::unanswered(&error, &self.asked),
            Err(_) => verdict::late(&self.asked),
        }
    }

    /// kube's typed calls hide the headers.
    async fn create(&self, nonce: &str) -> kube::Result<Answer> {
        let pod = serde_json::to_vec(&pod(&self.asked.labels, nonce)).map_err(kube::Error::SerdeError)?;
        let params = PostParams { dry_run: true, ..k8s::post() };
        let request = Request::new(Pod::url_path(&(), Some(&self.asked.namespace)));
        let request = request.create(&params, pod).map_err(kube::Error::BuildRequest)?;
        let (parts, body) = self.client.send(request.map(Body::from)).await?.into_parts();
        let warnings = parts.headers.get_all(http::header::WARNING).iter();
        // What is too long to be read is no refusal of the API server's, whose status still says something.
        let body = Limited::new(body, ANSWER_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Answer::new(
            parts.status.as_u16(),
            warnings.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect(),
            &body,
        ))
    }

    async fn webhooks(&self) -> Webhooks {
        let (validating, mutating) = tokio::join!(
            self.entries::<ValidatingWebhookConfiguration>(),
            self.entries::<MutatingWebhookConfiguration>()
        );
        match (validating, mutating) {
            (Some(validating), Some(mutating)) => Webhooks::Known(validating.into_iter().chain(mutating).collect()),
            _ => Webhooks::Unknown,
        }
    }

    /// The webhooks of a configuration, by list: RBAC names it, and the gate has no right to get it.
    async fn entries<K: Resource<DynamicType = ()>>(&self) -> Option<Vec<Entry>> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()));
        let named = ListParams::default().fields(&format!("metadata.name={}", self.asked.webhook_config));
        let list = k8s::call("list webhook configurations", api.list(&named)).await.ok()?;
        let entries = |object: &DynamicObject| serde_json::from_value::<Vec<Entry>>(object.data["webhooks"].clone());
        list.items.iter().map(entries).collect::<Result<Vec<_>, _>>().ok().map(|lists| lists.concat())
    }
}

/// Labels that a selector matches, with those that keep webhooks of the mesh away where it lets them.
fn labels(selector: &Selector) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for expression in selector.clone() {
        match expression {
            Expression::In(key, values) => labels.insert(key, values.into_iter().next()?),
            Expression::Equal(key, value) => labels.insert(key, value),
            Expression::Exists(key) => labels.insert(key, "self-test".to_owned()),
            Expression::NotIn(..) | Expression::NotEqual(..) | Expression::DoesNotExist(_) => None,
        };
    }
    for (key, value) in [(MANAGED_BY, FIELD_MANAGER), ("sidecar.istio.io/inject", "false")] {
        let mut more = labels.clone();
        more.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        if selector.matches(&more) {
            labels = more;
        }
    }
    selector.matches(&labels).then_some(labels)
}

/// A pod that the level `restricted` of Pod Security admits and a quota has room for. Nobody ever starts it.
fn pod(labels: &BTreeMap<String, String>, nonce: &str) -> Value {
    let mut labels = labels.clone();
    labels.insert(LABEL.to_owned(), nonce.to_owned());
    let little = json!({ "cpu": "1m", "memory": "1Mi" });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "istio-ca-gate-self-test-", "labels": labels },
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "never-started",
                "image": "istio-ca-gate.invalid/self-test",
                "resources": { "requests": little, "limits": little },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

/// The task of `serve`.
pub struct SelfTest {
    probe: Probe,
    interval: Duration,
    readiness: Arc<Readiness>,
    metrics: LastTest,
}

impl SelfTest {
    /// Tries it in this interval.
    pub fn new(probe: Probe, interval: Duration, readiness: Arc<Readiness>, metrics: LastTest) -> Self {
        Self { probe, interval, readiness, metrics }
    }

    /// Runs it for ever, while this replica is ready.
    pub async fn run(self) {
        let mut was_called = false;
        let mut pause = self.interval.min(SETTLING);
        loop {
            while !self.readiness.missing().is_empty() {
                tokio::time::sleep(NOT_READY_PAUSE).await;
            }
            // Replicas that start together are to ask at different times.
            tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            if !self.readiness.missing().is_empty() {
                continue;
            }
            let verdict = self.probe.run(&nonce()).await;
            let is_called = verdict == Verdict::Called;
            self.metrics.ended(is_called, Timestamp::now());
            self.log(&verdict, is_called != was_called);
            was_called = is_called;
            pause = if is_called { self.interval } else { self.interval.min(RETRY) };
        }
    }

    fn log(&self, verdict: &Verdict, is_new: bool) {
        let namespace = &self.probe.asked.namespace;
        match verdict {
            Verdict::Called if is_new => tracing::info!(namespace, "self-test: the API server calls a gate"),
            Verdict::Called => tracing::debug!(namespace, "self-test: the API server calls a gate"),
            Verdict::Broken(finding) | Verdict::Untold(finding) => tracing::error!(
                namespace,
                expected = "the warning of a gate that was called, in the answer to a pod created by dry run",
                "self-test: {}",
                finding.sentence()
            ),
        }
    }
}

#[cfg(test)]
mod tests;
