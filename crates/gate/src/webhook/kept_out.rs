//! Whose pods this replica keeps out, for people who look at the page. Pure.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::k8s::controller::Controller;

/// As long as a controller waits at most before it tries again: after that, nothing waits any more.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(1200);

/// More than are looked at by people. Each is a few hundred bytes.
const KEPT: usize = 100;

/// An owner whose pods were refused, and none let in since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its kind, namespace and name.
    pub owner: String,
    /// How often.
    pub times: u64,
    /// Since when.
    pub since: Timestamp,
    /// The last time.
    pub last: Timestamp,
}

/// All of them.
#[derive(Debug, Default)]
pub struct KeptOut(HashMap<Controller, Waiting>);

impl KeptOut {
    /// A pod of this owner was refused.
    pub fn refused(&mut self, owner: &Controller, now: Timestamp) {
        self.0.retain(|_, waiting| is_recent(waiting, now));
        if !self.0.contains_key(owner) && self.0.len() == KEPT {
            return;
        }
        let new = || Waiting { owner: told(owner), times: 0, since: now, last: now };
        let waiting = self.0.entry(owner.clone()).or_insert_with(new);
        (waiting.times, waiting.last) = (waiting.times + 1, now);
    }

    /// A pod of this owner was let in.
    pub fn let_in(&mut self, owner: &Controller) {
        self.0.remove(owner);
    }

    /// Those that wait now, the longest first.
    pub fn all(&self, now: Timestamp) -> Vec<Waiting> {
        let mut all: Vec<_> = self.0.values().filter(|waiting| is_recent(waiting, now)).cloned().collect();
        all.sort_by(|one, other| (one.since, &one.owner).cmp(&(other.since, &other.owner)));
        all
    }
}

fn is_recent(waiting: &Waiting, now: Timestamp) -> bool {
    now.duration_since(waiting.last) < FORGOTTEN
}

fn told(owner: &Controller) -> String {
    format!("{} {}/{}", owner.kind(), owner.namespace(), owner.name())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ca::fixtures::now;
    use crate::samples::ago;

    fn owner(name: &str) -> Controller {
        Controller::new("apps/v1", "ReplicaSet", "istio-system", name, "4711").unwrap()
    }

    fn names(kept: &KeptOut) -> Vec<String> {
        kept.all(now()).into_iter().map(|waiting| waiting.owner).collect()
    }

    #[test]
    fn an_owner_waits_from_its_first_refusal_until_a_pod_of_it_is_let_in() {
        let mut kept = KeptOut::default();
        kept.refused(&owner("istiod"), ago(60));
        kept.refused(&owner("gateway"), ago(90));
        kept.refused(&owner("istiod"), now());
        assert_eq!(names(&kept), ["ReplicaSet istio-system/gateway", "ReplicaSet istio-system/istiod"]);
        let istiod = kept.all(now()).pop().unwrap();
        assert_eq!((istiod.times, istiod.since, istiod.last), (2, ago(60), now()));
        kept.let_in(&owner("gateway"));
        assert_eq!(names(&kept), ["ReplicaSet istio-system/istiod"]);
    }

    #[test]
    fn who_does_not_ask_any_more_is_forgotten_and_a_flood_is_not_kept() {
        let mut kept = KeptOut::default();
        kept.refused(&owner("gone"), ago(1200));
        assert_eq!(names(&kept), [""; 0]);
        for number in 0..10 * KEPT {
            kept.refused(&owner(&format!("a{number}")), now());
        }
        assert_eq!(kept.0.len(), KEPT);
    }
}
