//! What a Deployment tells of how far it is: `syncRolloutStatus` and `calculateStatus`.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::rollout::{max_unavailable, replicas};
use crate::kubernetes::controllers::objects::{condition, number, put_condition, remove_condition};
use crate::kubernetes::controllers::replicaset::{FAILURE, replicas as size};
use crate::kubernetes::object::meta;
use crate::kubernetes::seconds;

pub(super) const PROGRESSING: &str = "Progressing";

/// The default of `spec.progressDeadlineSeconds`.
const DEADLINE_SECONDS: i64 = 600;

/// The condition that tells of progress.
pub(super) fn of(status: &Value) -> Option<&Value> {
    condition(status, PROGRESSING)
}

/// Sets a condition; one that has this status and reason already stays as it is.
pub(super) fn set(status: &mut Value, name: &str, value: &str, reason: &str, message: &str, now: i64) {
    let now = Value::from(seconds(now));
    let old = condition(status, name);
    if old.is_some_and(|old| old["status"] == value && old["reason"] == reason) {
        return;
    }
    let same = old.filter(|old| old["status"] == value);
    let since = same.map_or_else(|| now.clone(), |old| old["lastTransitionTime"].clone());
    put_condition(
        status,
        json!({
            "type": name, "status": value, "lastUpdateTime": now, "lastTransitionTime": since,
            "reason": reason, "message": message,
        }),
    );
}

/// The status of a Deployment over its ReplicaSets.
pub(super) fn status(deployment: &Value, new: Option<&Value>, sets: &[&Value], now: i64) -> Value {
    let mut status = counts(deployment, new, sets);
    if let Some(conditions) = deployment["status"]["conditions"].as_array() {
        status["conditions"] = conditions.clone().into();
    }
    let enough = replicas(deployment) - max_unavailable(deployment);
    let (value, reason, message) = if number(&status["availableReplicas"], 0) >= enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, "Available", value, reason, message, now);
    if !deployment["metadata"]["deletionTimestamp"].is_null() {
        return status;
    }
    advance(&mut status, deployment, new, now);

    let failure = |set: &&Value| condition(&set["status"], FAILURE).cloned();
    match new.as_ref().and_then(failure).or_else(|| sets.iter().find_map(failure)) {
        Some(failed) => {
            let text = |field: &str| failed[field].as_str().unwrap_or_default().to_owned();
            set(&mut status, FAILURE, "True", &text("reason"), &text("message"), now);
        }
        None => remove_condition(&mut status, FAILURE),
    }
    status
}

fn counts(deployment: &Value, new: Option<&Value>, sets: &[&Value]) -> Value {
    let sum = |field: &str| sets.iter().map(|set| number(&set["status"][field], 0)).sum::<i64>();
    let wanted: i64 = sets.iter().map(|set| size(set)).sum();
    let mut status = json!({"observedGeneration": deployment["metadata"]["generation"]});
    for (field, count) in [
        ("replicas", sum("replicas")),
        ("updatedReplicas", new.map_or(0, |new| number(&new["status"]["replicas"], 0))),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", sum("availableReplicas")),
        ("unavailableReplicas", wanted - sum("availableReplicas")),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    status
}

/// Tells whether the rollout is done, goes on, or has stood still for too long.
fn advance(status: &mut Value, deployment: &Value, new: Option<&Value>, now: i64) {
    let count = |status: &Value, field: &str| number(&status[field], 0);
    let current = of(&deployment["status"]).cloned();
    let reason = current.as_ref().and_then(|current| current["reason"].as_str()).unwrap_or_default();
    if count(status, "replicas") == count(status, "updatedReplicas") && reason == "NewReplicaSetAvailable" {
        return;
    }
    let who = match new {
        Some(new) => format!("ReplicaSet {:?}", meta(new, "name")),
        None => format!("Deployment {:?}", meta(deployment, "name")),
    };
    let all = replicas(deployment);
    let before = &deployment["status"];
    let old = |status: &Value| count(status, "replicas") - count(status, "updatedReplicas");
    let grew = |field| count(status, field) > count(before, field);
    if ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|field| count(status, field) == all)
        && status["observedGeneration"].as_i64() >= deployment["metadata"]["generation"].as_i64()
    {
        let message = format!("{who} has successfully progressed.");
        set(status, PROGRESSING, "True", "NewReplicaSetAvailable", &message, now);
    } else if grew("updatedReplicas") || old(status) < old(before) || grew("readyReplicas") || grew("availableReplicas")
    {
        let since =
            current.filter(|current| current["status"] == "True").map(|current| current["lastTransitionTime"].clone());
        remove_condition(status, PROGRESSING);
        set(status, PROGRESSING, "True", "ReplicaSetUpdated", &format!("{who} is progressing."), now);
        let conditions = status["conditions"].as_array_mut();
        if let Some((condition, since)) = conditions.and_then(|conditions| conditions.last_mut()).zip(since) {
            condition["lastTransitionTime"] = since;
        }
    } else if due(deployment, now).is_some_and(|left| left.is_zero()) {
        let message = format!("{who} has timed out progressing.");
        set(status, PROGRESSING, "False", "ProgressDeadlineExceeded", &message, now);
    }
}

/// How long the rollout may still stand still; zero: no longer. None: it does not count.
pub(super) fn due(deployment: &Value, now: i64) -> Option<Duration> {
    let current = of(&deployment["status"])?;
    if matches!(current["reason"].as_str(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")) {
        return None;
    }
    let since: Timestamp = current["lastUpdateTime"].as_str()?.parse().ok()?;
    let deadline = since.as_second() + number(&deployment["spec"]["progressDeadlineSeconds"], DEADLINE_SECONDS);
    // Past it, not at it.
    let left = (deadline + 1).saturating_sub(now);
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 1}, "spec": {"replicas": 1}, "status": status})
    }

    fn progress(reason: &str) -> Value {
        let mut status = json!({});
        set(&mut status, PROGRESSING, "True", reason, "told", 0);
        status
    }

    fn set_with(status: Value) -> Value {
        json!({"metadata": {"name": "web-1"}, "spec": {"replicas": 1}, "status": status})
    }

    fn reason(status: &Value) -> &str {
        of(status).and_then(|told| told["reason"].as_str()).unwrap_or_default()
    }

    #[test]
    fn a_condition_changes_its_transition_with_its_status_only() {
        let mut status = progress("A");
        set(&mut status, PROGRESSING, "True", "A", "other words", 1);
        assert_eq!(status, progress("A"));
        set(&mut status, PROGRESSING, "True", "B", "told", 2);
        let told = of(&status).cloned().unwrap_or_default();
        assert_eq!(
            [&told["lastTransitionTime"], &told["lastUpdateTime"]],
            ["1970-01-01T00:00:00Z", "1970-01-01T00:00:02Z"]
        );
        set(&mut status, PROGRESSING, "False", "B", "told", 3);
        assert_eq!(of(&status).map(|told| &told["lastTransitionTime"]), Some(&json!("1970-01-01T00:00:03Z")));
    }

    #[test]
    fn progress_is_more_pods_until_all_of_them_serve() {
        let deployment = deployment(progress("NewReplicaSetCreated"));
        let at = |of_set: Value| {
            let set = set_with(of_set);
            status(&deployment, Some(&set), &[&set], 5)
        };
        assert_eq!(reason(&at(json!({"replicas": 0}))), "NewReplicaSetCreated");
        assert_eq!(reason(&at(json!({"replicas": 1}))), "ReplicaSetUpdated");
        let done = at(json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}));
        assert_eq!((reason(&done), done["unavailableReplicas"].is_null()), ("NewReplicaSetAvailable", true));
    }

    #[test]
    fn a_rollout_that_stands_still_is_told_after_its_deadline() {
        let deployment = deployment(progress("ReplicaSetUpdated"));
        let set = set_with(json!({"replicas": 0}));
        let at = |now| reason(&status(&deployment, Some(&set), &[&set], now)).to_owned();
        assert_eq!((at(600), at(601)), ("ReplicaSetUpdated".to_owned(), "ProgressDeadlineExceeded".to_owned()));
        assert_eq!(due(&deployment, 590), Some(Duration::from_secs(11)));
    }

    #[test]
    fn the_failure_of_a_set_is_its_deployments() {
        let failed = json!({"type": FAILURE, "status": "True", "reason": "FailedCreate", "message": "no"});
        let set = set_with(json!({"replicas": 0, "conditions": [failed]}));
        let told = status(&deployment(json!({})), Some(&set), &[&set], 0);
        let told = condition(&told, FAILURE).cloned().unwrap_or_default();
        assert_eq!((&told["reason"], &told["message"]), (&json!("FailedCreate"), &json!("no")));
    }
}
