//! From the API server's answer to what is wrong. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde::Deserialize;

use super::warning;
use crate::k8s;
use crate::reason::{self, ByItself, foreign_text};

/// What to do about nearly everything that is wrong with webhooks.
const APPLY: &str = "apply deploy/kustomize/base/webhook.yaml";

/// What a try has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A gate was called, and answered.
    Called,
    /// No gate was called, or none could be.
    Broken(Finding),
    /// The try itself did not come so far.
    Untold(Finding),
}

/// What came instead, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The cause.
    pub seen: String,
    /// The next step.
    pub next: String,
    /// What a gate does about it, which tries for ever.
    pub by_itself: ByItself,
}

impl Finding {
    /// What a gate says of it.
    pub fn sentence(&self) -> String {
        reason::sentence(&self.seen, [Some(&self.next), self.by_itself.promise()])
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) namespace: String,
    pub(super) webhook_config: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// What the API server said.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    status: u16,
    /// The values of its `Warning` headers.
    warnings: Vec<String>,
    reason: String,
    message: String,
}

/// The webhooks of the gate's configurations.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Webhooks {
    /// They may not be looked at.
    Unknown,
    /// All of them; none if there is no configuration.
    Known(Vec<Entry>),
}

/// One of them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) failure_policy: Option<String>,
    pub(super) object_selector: LabelSelector,
}

impl Entry {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        Selector::try_from(self.object_selector.clone()).is_ok_and(|selector| selector.matches(labels))
    }
}

impl Webhooks {
    /// Whether this is known to be one of them.
    fn have(&self, name: &str) -> bool {
        matches!(self, Self::Known(entries) if entries.iter().any(|entry| entry.name == name))
    }
}

/// The name that follows these words.
fn quoted_after<'a>(message: &'a str, words: &str) -> &'a str {
    let rest = message.split_once(words).and_then(|(_, rest)| rest.strip_prefix('"'));
    rest.and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

impl Answer {
    pub(super) fn new(status: u16, warnings: Vec<String>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            reason: String,
            message: String,
        }
        let Status { reason, message } = serde_json::from_slice(body).unwrap_or_default();
        Self { status, warnings, reason, message }
    }

    /// Whether a gate was called with this number: a header is `299 - "text"`.
    pub(super) fn says(&self, nonce: &str) -> bool {
        let quoted = format!("\"{}\"", warning(nonce));
        self.warnings.iter().any(|header| header.contains(&quoted))
    }
}

fn broken(seen: impl Into<String>, next: impl Into<String>) -> Verdict {
    Verdict::Broken(Finding { seen: seen.into(), next: next.into(), by_itself: ByItself::Unsaid })
}

fn untold(seen: impl Into<String>, next: impl Into<String>) -> Verdict {
    Verdict::Untold(Finding { seen: seen.into(), next: next.into(), by_itself: ByItself::Unsaid })
}

/// What an answer without a gate's word means.
pub(super) fn uncalled(answer: &Answer, webhooks: &Webhooks, asked: &Asked) -> Verdict {
    let Answer { status, message, reason, .. } = answer;
    let Asked { namespace, .. } = asked;
    let said = foreign_text(message);
    match status {
        200..=299 => let_in(webhooks, asked),
        400 if message.contains("does not support dry run") => {
            broken(format!("a webhook has side effects ({said})"), format!("{APPLY}, with sideEffects NoneOnDryRun"))
        }
        403 if message.contains("being terminated") => {
            untold(format!("namespace {namespace} is being deleted"), "wait until it is gone, and create it again")
        }
        403 if message.contains("cannot create resource \"pods\"") => untold(
            format!("there is no right to create pods in namespace {namespace}"),
            "grant it there by a Role with verb create on pods, or choose another namespace",
        ),
        403 if webhooks.have(quoted_after(message, "admission webhook ")) => untold(
            format!("a gate answered, and not with the word of the self-test ({said})"),
            "bring all replicas to this version",
        ),
        403 if message.starts_with("admission webhook ") => untold(
            format!("another webhook refused the pod before a gate was asked ({said})"),
            format!("except namespace {namespace} from it"),
        ),
        403 => untold(format!("the API server refuses the pod ({said})"), "mend what it names"),
        404 if reason == "NotFound" => {
            untold(format!("there is no namespace {namespace}"), "create it, or choose another one")
        }
        500.. if message.contains("failed calling webhook ") => call_failed(message, webhooks, asked),
        status => untold(
            format!("the API server answered with status {status} ({})", said.trim_end()),
            "look at the API server; it is tried again",
        ),
    }
}

/// The pod was let in, and nobody was asked.
fn let_in(webhooks: &Webhooks, asked: &Asked) -> Verdict {
    let Asked { webhook_config, labels, .. } = asked;
    let nobody = "the API server let a gated pod in without asking a gate";
    let Webhooks::Known(entries) = webhooks else {
        let causes = "is missing, does not select the pod, or has another failurePolicy than Fail";
        return broken(format!("{nobody}: webhook configuration {webhook_config} {causes}"), APPLY);
    };
    if entries.is_empty() {
        return broken(
            format!("{nobody}: there is no webhook configuration {webhook_config}"),
            format!("{APPLY}, or name yours with --webhook-config"),
        );
    }
    let selecting: Vec<_> = entries.iter().filter(|entry| entry.selects(labels)).collect();
    if selecting.is_empty() {
        return broken(
            format!("{nobody}: no webhook of {webhook_config} selects a pod that matches the first --gate-selector"),
            "change --gate-selector and the objectSelectors of deploy/kustomize/base/webhook.yaml together",
        );
    }
    let ignores = |entry: &&&Entry| entry.failure_policy.as_deref() == Some("Ignore");
    if let Some(entry) = selecting.iter().find(ignores) {
        let name = foreign_text(&entry.name);
        return broken(
            format!("{nobody}: failurePolicy of {name} is Ignore, so that a call that failed was passed over"),
            format!("{APPLY}, with failurePolicy Fail, and see why the gate cannot be called"),
        );
    }
    broken(
        format!("{nobody} of this version, although {webhook_config} selects it"),
        format!("look at its namespaceSelector, rules, matchConditions and clientConfig, or {APPLY}"),
    )
}

/// A webhook was to be called, and could not be.
fn call_failed(message: &str, webhooks: &Webhooks, asked: &Asked) -> Verdict {
    let said = foreign_text(message);
    if *webhooks != Webhooks::Unknown && !webhooks.have(quoted_after(message, "failed calling webhook ")) {
        let next = format!("mend it, or except namespace {} from it", asked.namespace);
        return untold(format!("another webhook cannot be called ({said})"), next);
    }
    let config = &asked.webhook_config;
    if message.contains("certificate is valid for") || message.contains("cannot validate certificate for") {
        let next = "name it with --dns-name";
        return broken(format!("the gate's certificate is for another name ({said})"), next);
    }
    if message.contains("x509") {
        let next =
            format!("look at the gate's log, which injects caBundle into {config}; it needs the RBAC of deploy/");
        return broken(format!("the API server trusts another CA than the gate's: wrong caBundle ({said})"), next);
    }
    broken(
        format!("the API server cannot call a gate ({said})"),
        "look at the Service and the gate's pods, and at network policies from the API server to port 8443",
    )
}

/// There was no answer.
pub(super) fn unanswered(error: &kube::Error, asked: &Asked) -> Verdict {
    let doing = format!("create a pod by dry run in namespace {}", asked.namespace);
    let held = k8s::failed(&doing, error).into_held(&doing);
    let (seen, by_itself) = (held.cause(), held.by_itself);
    let next = held.next.unwrap_or_else(|| "look at the API server".to_owned());
    Verdict::Untold(Finding { seen, next, by_itself })
}

/// The answer did not come in time.
pub(super) fn late(asked: &Asked) -> Verdict {
    Verdict::Untold(Finding {
        seen: format!("the API server took too long to create a pod by dry run in namespace {}", asked.namespace),
        next: "look at the API server and its webhooks".to_owned(),
        by_itself: ByItself::TriedAgain,
    })
}
