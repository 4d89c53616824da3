//! The next step from a Deployment's ReplicaSets as they are to what it wants.

use std::time::Duration;

use serde_json::Value;

use super::{annotations, progress, set_of};
use crate::kubernetes::controllers::objects::number;
use crate::kubernetes::controllers::replicaset::replicas as size;
use crate::kubernetes::object::{meta, remove};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// The label that tells apart the pods of a Deployment's ReplicaSets.
pub(super) const HASH: &str = "pod-template-hash";

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Create(Value),
    /// A ReplicaSet is to tell what its Deployment tells.
    Annotate(Value),
    Scale(Scale),
    /// The Deployment is to tell how far it is.
    Report(Value),
    /// Nothing, for this long at most.
    Rest(Option<Duration>),
}

/// A change of size.
#[derive(Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) set: Value,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Decides on the next step. The sets are those that the Deployment controls.
pub(super) fn step(deployment: &Value, sets: &[Value], now: i64) -> Step {
    if !deployment["metadata"]["deletionTimestamp"].is_null() {
        return report(deployment, sets, now);
    }
    let new = newest(deployment, sets);
    let old: Vec<&Value> = oldest_first(sets).into_iter().filter(|set| new.is_none_or(|new| *set != new)).collect();
    let next_revision = old.iter().map(|set| revision(set)).max().unwrap_or_default() + 1;
    let Some(new) = new else {
        if is_recreate(deployment) {
            if let Some(running) = old.iter().find(|set| size(set) > 0) {
                return scaled(deployment, running, 0);
            }
            if old.iter().any(|set| present(set) > 0) {
                return report(deployment, sets, now);
            }
        }
        let room = max_total(deployment) - old.iter().map(|set| size(set)).sum::<i64>();
        let size = replicas(deployment).min(room.max(0));
        return Step::Create(set_of(deployment, next_revision, size, max_total(deployment)));
    };
    let annotated = annotated(deployment, new, next_revision);
    if annotated != *new {
        return Step::Annotate(annotated);
    }
    if let Some(reported) = found(deployment, new, now) {
        return Step::Report(reported);
    }
    let scale = resize(deployment, new, &old).or_else(|| roll(deployment, new, &old));
    scale.map_or_else(|| report(deployment, sets, now), |(set, size)| scaled(deployment, set, size))
}

/// Tells how far the Deployment is, if it does not tell that already.
pub(super) fn report(deployment: &Value, sets: &[Value], now: i64) -> Step {
    let status = progress::status(deployment, newest(deployment, sets), &oldest_first(sets), now);
    if status == deployment["status"] {
        return Step::Rest(progress::due(deployment, now));
    }
    let mut reported = deployment.clone();
    reported["status"] = status;
    Step::Report(reported)
}

/// A user's change of size: the one set that has pods, or is the newest, follows at once.
fn resize<'a>(deployment: &Value, new: &'a Value, old: &[&'a Value]) -> Option<(&'a Value, i64)> {
    let mut active = old.iter().copied().chain([new]).filter(|set| size(set) > 0);
    let (first, second) = (active.next(), active.next());
    let only = if second.is_some() { return None } else { first.unwrap_or(new) };
    let desired = only["metadata"]["annotations"][DESIRED].as_str().and_then(|desired| desired.parse::<i64>().ok());
    let resized = desired.is_some_and(|desired| desired != replicas(deployment));
    (resized && size(only) != replicas(deployment)).then(|| (only, replicas(deployment)))
}

/// The change from the old sets to the new one: as many more as may be too many, as many fewer as may be missing.
fn roll<'a>(deployment: &Value, new: &'a Value, old: &[&'a Value]) -> Option<(&'a Value, i64)> {
    let wanted = replicas(deployment);
    if size(new) > wanted {
        return Some((new, wanted));
    }
    if is_recreate(deployment) {
        let running = old.iter().find(|set| size(set) > 0).map(|set| (*set, 0));
        return running.or_else(|| (size(new) != wanted).then_some((new, wanted)));
    }
    let total = old.iter().map(|set| size(set)).sum::<i64>() + size(new);
    let more = (max_total(deployment) - total).min(wanted - size(new));
    if more > 0 {
        return Some((new, size(new) + more));
    }
    let least = wanted - max_unavailable(deployment);
    let spare = total - least - (size(new) - available(new));
    let active = || old.iter().copied().filter(|set| size(set) > 0);
    if spare <= 0 {
        return None;
    }
    // Pods that do not serve go first: nobody misses them.
    if let Some(unhealthy) = active().find(|set| size(set) > available(set)) {
        return Some((unhealthy, size(unhealthy) - spare.min(size(unhealthy) - available(unhealthy))));
    }
    let serving = old.iter().map(|set| available(set)).sum::<i64>() + available(new);
    let oldest = active().next().filter(|_| serving > least)?;
    Some((oldest, size(oldest) - size(oldest).min(serving - least)))
}

fn scaled(deployment: &Value, set: &Value, to: i64) -> Step {
    let mut changed = set.clone();
    changed["spec"]["replicas"] = to.into();
    changed["metadata"]["annotations"][DESIRED] = replicas(deployment).to_string().into();
    changed["metadata"]["annotations"][MAX] = max_total(deployment).to_string().into();
    Step::Scale(Scale { set: changed, from: size(set), to })
}

/// The set with the Deployment's annotations, and with its revision if that grew: a set of old that is taken up again.
fn annotated(deployment: &Value, set: &Value, next_revision: u64) -> Value {
    let mut annotated = set.clone();
    for (key, value) in annotations(deployment) {
        annotated["metadata"]["annotations"][key] = value.clone();
    }
    if revision(set) < next_revision {
        annotated["metadata"]["annotations"][REVISION] = next_revision.to_string().into();
    }
    annotated
}

/// The Deployment with what it does not tell yet of a set that is there.
fn found(deployment: &Value, set: &Value, now: i64) -> Option<Value> {
    let mut reported = deployment.clone();
    reported["metadata"]["annotations"][REVISION] = set["metadata"]["annotations"][REVISION].clone();
    if progress::of(&deployment["status"]).is_none() {
        let message = format!("Found new replica set {:?}", meta(set, "name"));
        progress::set(&mut reported["status"], progress::PROGRESSING, "True", "FoundNewReplicaSet", &message, now);
    }
    (reported != *deployment).then_some(reported)
}

fn oldest_first(sets: &[Value]) -> Vec<&Value> {
    let mut sets: Vec<&Value> = sets.iter().collect();
    sets.sort_by_key(|set| (meta(set, "creationTimestamp"), meta(set, "name")));
    sets
}

/// The set that has the Deployment's template.
fn newest<'a>(deployment: &Value, sets: &'a [Value]) -> Option<&'a Value> {
    let plain = |object: &Value| {
        let mut template = object["spec"]["template"].clone();
        for field in ["labels", "annotations"] {
            if let Some(pairs) = template["metadata"].get_mut(field).and_then(Value::as_object_mut) {
                pairs.remove(HASH);
                if pairs.is_empty() {
                    remove(&mut template["metadata"], field);
                }
            }
        }
        template
    };
    let wanted = plain(deployment);
    oldest_first(sets).into_iter().find(|set| plain(set) == wanted)
}

fn revision(set: &Value) -> u64 {
    let revision = set["metadata"]["annotations"][REVISION].as_str();
    revision.and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

pub(super) fn replicas(deployment: &Value) -> i64 {
    number(&deployment["spec"]["replicas"], 1)
}

fn present(set: &Value) -> i64 {
    number(&set["status"]["replicas"], 0)
}

fn available(set: &Value) -> i64 {
    number(&set["status"]["availableReplicas"], 0)
}

fn is_recreate(deployment: &Value) -> bool {
    deployment["spec"]["strategy"]["type"] == "Recreate"
}

/// So many pods there may be during a rollout.
pub(super) fn max_total(deployment: &Value) -> i64 {
    if is_recreate(deployment) { replicas(deployment) } else { replicas(deployment) + limits(deployment).0 }
}

/// So many pods may be missing during a rollout.
pub(super) fn max_unavailable(deployment: &Value) -> i64 {
    if is_recreate(deployment) { 0 } else { limits(deployment).1.min(replicas(deployment)) }
}

/// `maxSurge` and `maxUnavailable`, of which one at least is not zero: `ResolveFenceposts`.
fn limits(deployment: &Value) -> (i64, i64) {
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let of = |field: &str, up: i64| match rolling.get(field) {
        Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
        other => {
            let percent = other.and_then(Value::as_str).unwrap_or("25%").trim_end_matches('%');
            (percent.parse::<i64>().unwrap_or_default() * replicas(deployment) + up) / 100
        }
    };
    match (of("maxSurge", 99), of("maxUnavailable", 0)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 1, "annotations": {"note": "1"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
            "status": {},
        })
    }

    fn retemplated(mut deployment: Value) -> Value {
        deployment["spec"]["template"]["spec"]["hostNetwork"] = true.into();
        deployment
    }

    fn created(deployment: &Value, sets: &[Value]) -> Value {
        match step(deployment, sets, 0) {
            Step::Create(set) => set,
            other => unreachable!("{other:?}"),
        }
    }

    /// The first set of a Deployment, as it is when all of its pods are there.
    fn first(deployment: &Value, available: i64) -> Value {
        let mut set = created(deployment, &[]);
        set["metadata"]["creationTimestamp"] = "1".into();
        set["status"] = json!({"replicas": size(&set), "availableReplicas": available});
        set
    }

    /// The Deployment with all that it tells, over these sets.
    fn reported(mut deployment: Value, sets: &[Value]) -> Value {
        while let Step::Report(reported) = report(&deployment, sets, 0) {
            deployment = reported;
        }
        let new = newest(&deployment, sets).cloned();
        new.and_then(|new| found(&deployment, &new, 0)).unwrap_or(deployment)
    }

    fn sizes(step: Step) -> (String, i64, i64) {
        match step {
            Step::Scale(Scale { set, from, to }) => (revision(&set).to_string(), from, to),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_deployment_without_sets_gets_one_of_its_template() {
        let set = created(&deployment(2), &[]);
        let hash = set["metadata"]["labels"][HASH].as_str().unwrap_or_default();
        assert_eq!(set["metadata"]["name"], format!("web-{hash}").as_str());
        assert_eq!(set["spec"]["selector"]["matchLabels"], set["metadata"]["labels"]);
        let annotations = json!({"note": "1", REVISION: "1", DESIRED: "2", MAX: "3"});
        assert_eq!(set["metadata"]["annotations"], annotations);
        assert_eq!(newest(&deployment(2), std::slice::from_ref(&set)), Some(&set));
    }

    #[test]
    fn a_deployment_tells_of_its_set_and_then_rests() {
        let set = first(&deployment(1), 0);
        let sets = [set];
        let Step::Report(found) = step(&deployment(1), &sets, 0) else { unreachable!() };
        assert_eq!(found["metadata"]["annotations"][REVISION], "1");
        assert_eq!(progress::of(&found["status"]).map(|told| &told["reason"]), Some(&json!("FoundNewReplicaSet")));
        let told = reported(found, &sets);
        assert!(matches!(step(&told, &sets, 0), Step::Rest(Some(_))), "until the deadline");
    }

    #[test]
    fn a_change_of_size_is_made_in_one_step() {
        let sets = [first(&deployment(1), 0)];
        let told = reported(deployment(1), &sets);
        let mut resized = told;
        resized["spec"]["replicas"] = 5.into();
        assert_eq!(sizes(step(&resized, &sets, 0)), ("1".to_owned(), 1, 5));
    }

    #[test]
    fn a_new_template_begins_with_the_surge() {
        let old = first(&deployment(4), 4);
        let set = created(&retemplated(deployment(4)), &[old]);
        assert_eq!((size(&set), revision(&set)), (1, 2));
    }

    #[test]
    fn old_pods_that_do_not_serve_go_as_far_as_may_be_missing() {
        let old = first(&deployment(4), 0);
        let changed = retemplated(deployment(4));
        let new = created(&changed, std::slice::from_ref(&old));
        let sets = [old, new];
        assert_eq!(sizes(step(&reported(changed, &sets), &sets, 0)), ("1".to_owned(), 4, 3));
    }

    #[test]
    fn old_pods_that_serve_go_as_new_ones_serve() {
        let old = first(&deployment(4), 4);
        let changed = retemplated(deployment(4));
        let mut new = created(&changed, std::slice::from_ref(&old));
        let at = |new: &Value| {
            let sets = [old.clone(), new.clone()];
            sizes(step(&reported(changed.clone(), &sets), &sets, 0))
        };
        assert_eq!(at(&new), ("1".to_owned(), 4, 3), "one may be missing");
        new["status"] = json!({"replicas": 1, "availableReplicas": 1});
        assert_eq!(at(&new), ("1".to_owned(), 4, 2), "and one is replaced");
    }

    #[test]
    fn recreate_takes_the_old_pods_away_first() {
        let recreated = |mut deployment: Value| {
            deployment["spec"]["strategy"] = json!({"type": "Recreate"});
            deployment
        };
        let mut old = first(&recreated(deployment(2)), 2);
        let changed = recreated(retemplated(deployment(2)));
        assert_eq!(sizes(step(&changed, std::slice::from_ref(&old), 0)), ("1".to_owned(), 2, 0));
        old["spec"]["replicas"] = 0.into();
        assert!(matches!(step(&changed, std::slice::from_ref(&old), 0), Step::Report(_)), "it waits");
        old["status"]["replicas"] = 0.into();
        assert_eq!(size(&created(&changed, &[old])), 2);
    }

    #[test]
    fn a_set_that_is_taken_up_again_gets_a_new_revision() {
        let old = first(&deployment(4), 0);
        let changed = retemplated(deployment(4));
        let new = created(&changed, std::slice::from_ref(&old));
        let Step::Annotate(set) = step(&deployment(4), &[old.clone(), new], 0) else { unreachable!() };
        assert_eq!((meta(&set, "name"), revision(&set)), (meta(&old, "name"), 3));
    }

    #[test]
    fn limits_are_numbers_or_parts_of_the_size() {
        let limited = |rolling: Value, replicas: i64| {
            let mut deployment = deployment(replicas);
            deployment["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
            (max_total(&deployment) - replicas, max_unavailable(&deployment))
        };
        assert_eq!(limited(json!({}), 4), (1, 1));
        assert_eq!(limited(json!({}), 1), (1, 0));
        assert_eq!(limited(json!({"maxSurge": 3, "maxUnavailable": "50%"}), 5), (3, 2));
        assert_eq!(limited(json!({"maxSurge": 0, "maxUnavailable": 0}), 5), (0, 1));
        assert_eq!(limited(json!({"maxUnavailable": 9}), 5).1, 5);
    }
}
