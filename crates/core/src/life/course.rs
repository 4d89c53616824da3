//! How far a change of the root is, as the record alone tells: for who knows of no cluster but its own what it attests to.

use jiff::Timestamp;

use super::attestation::Attestation;
use super::audience::{Heard, leaves_end};
use super::rule::{self, Next, Standing, Step};
use crate::ca::Sha256;
use crate::ca::record::{Rotation, SigningRecord};

/// A change of the root that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// What the record says of it.
    pub rotation: Rotation,
    /// The root that it leads to, where that is known.
    pub goal: Option<Sha256>,
    /// The step that comes next. `None`: that cannot be told without the goal's root.
    pub next: Option<Step>,
    /// Not before then: until then leaves are about that need what it takes away. `None`: there is no wait, or it is not
    /// noted yet from when on it counts.
    pub not_before: Option<Timestamp>,
}

/// What a gate saw last of its own mesh, and of a change of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What it attests to, or would.
    pub attestation: Attestation,
    /// What is under way.
    pub course: Option<Course>,
}

impl Course {
    /// What this record says. `None`: no root is being replaced.
    pub fn of(record: &SigningRecord, goal: Option<Sha256>, now: Timestamp) -> Option<Self> {
        let rotation = record.under_way()?.clone();
        let next = goal.and_then(|goal| next(record, &rotation, goal, now));
        let not_before = next.as_ref().filter(|step| waits_for_leaves(step)).and_then(|_| ended(&rotation));
        Some(Self { rotation, goal, next, not_before })
    }

    /// The step that comes next, where that is known.
    pub fn step(&self) -> &'static str {
        self.next.as_ref().map_or("unknown", Step::as_str)
    }
}

/// The rule's own answer, where no cluster is heard of: whatever is due is held then, and named.
fn next(record: &SigningRecord, rotation: &Rotation, goal: Sha256, now: Timestamp) -> Option<Step> {
    let going = Rotation { paused: false, ..rotation.clone() };
    let may_cross = record.issuer.is_some();
    let standing = Standing { rotation: Some(&going), may_cross, ..Standing::of(record, Some(goal)) };
    match rule::next(&standing, &Heard::new(), now) {
        Next::Rest | Next::Paused => None,
        Next::Take(step) | Next::Wait { then: step, .. } | Next::Held { then: step, .. } => Some(step),
    }
}

const fn waits_for_leaves(step: &Step) -> bool {
    matches!(step, Step::Drop | Step::Switch { crossed: false })
}

/// When all leaves have ended that are older than what was noted. `None`: a cluster that is waited for was not noted.
fn ended(rotation: &Rotation) -> Option<Timestamp> {
    if !rotation.clusters.iter().all(|name| rotation.seen.contains_key(name)) {
        return None;
    }
    leaves_end(rotation.seen.values(), rotation.ttl)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::SignedDuration;
    use serde_json::{Map, Value, json};

    use super::super::audience::SKEW;
    use super::*;
    use crate::ca::fixtures::{Ca, now};

    struct Roots {
        old: Ca,
        new: Ca,
    }

    impl Roots {
        fn new() -> Self {
            Self { old: Ca::root("Root 1"), new: Ca::root("Root 2") }
        }

        fn goal(&self) -> Sha256 {
            Sha256::of(self.new.certificate.der())
        }

        /// A record with these roots, this issuer and this more of the rotation.
        fn course(&self, roots: &[&Ca], issuer: &str, more: &Value) -> Course {
            let pem: String = roots.iter().map(|ca| ca.certificate.pem()).collect();
            let mut rotation = json!({
                "goal": "root-2", "from": ["root-1"], "clusters": ["nas", "homelab"], "ttl": "24h",
                "started": "2026-12-31T10:00:00Z", "by": "ops@laptop",
            });
            rotation.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let data = json!({ "root-cert.pem": pem, "issuer": issuer, "rotation": rotation });
            let record = SigningRecord::parse(data.as_object().unwrap(), now()).unwrap();
            Course::of(&record, Some(self.goal()), now()).unwrap()
        }
    }

    #[test]
    fn each_step_is_known_from_the_record_also_of_a_rotation_that_is_paused() {
        let roots = Roots::new();
        let Roots { old, new } = &roots;
        for more in [json!({}), json!({ "paused": true })] {
            for (bundle, issuer, step) in [
                (&[old][..], "root-1", "trust"),
                (&[old, new], "root-1", "switch"),
                (&[old, new], "root-2", "drop"),
                (&[new], "root-2", "done"),
            ] {
                let course = roots.course(bundle, issuer, &more);
                assert_eq!((course.step(), course.not_before), (step, None));
            }
        }
    }

    #[test]
    fn a_drop_comes_no_sooner_than_a_life_after_every_cluster_was_noted() {
        let roots = Roots::new();
        let bundle = [&roots.old, &roots.new];
        let hour = |hour: i64| (now() + SignedDuration::from_hours(hour)).to_string();
        let sighting = |settled: i64, at: i64| json!({ "settled": hour(settled), "at": hour(at) });
        let seen = json!({ "seen": { "nas": sighting(-2, -2), "homelab": sighting(-3, -1) } });
        let until = now() + SignedDuration::from_hours(23) + SKEW;
        assert_eq!(roots.course(&bundle, "root-2", &seen).not_before, Some(until));
        let one = json!({ "seen": { "nas": sighting(-2, -2) } });
        assert_eq!(roots.course(&bundle, "root-2", &one).not_before, None);
        // With a cross there is no wait.
        assert_eq!(roots.course(&bundle, "root-1", &seen).not_before, None);
    }

    #[test]
    fn without_the_goals_root_the_step_is_not_guessed_and_without_a_rotation_there_is_none() {
        let roots = Roots::new();
        let pem = roots.old.certificate.pem();
        let mut data: Map<String, Value> = SigningRecord::first(&pem, &"root-1".parse().unwrap());
        let read = |data: &Map<String, Value>| SigningRecord::parse(data, now()).unwrap();
        assert_eq!(Course::of(&read(&data), Some(roots.goal()), now()), None);
        data.insert("rotation".to_owned(), roots.course(&[&roots.old], "root-1", &json!({})).rotation.data());
        assert_eq!(Course::of(&read(&data), None, now()).unwrap().step(), "unknown");
    }
}
