//! What of a look is news to people.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::life::course::{Course, Outlook};
use crate::life::rule::Step;

/// A cluster that does not settle for so long keeps a change of the root waiting: a restart of istiod takes less.
const HELD: SignedDuration = SignedDuration::from_mins(5);

/// To replace a root takes a day; to plan it, and to do it in all clusters, people want more. The alert begins then, too.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// All of the mesh works with what the record says, of a change of the root.
    Settled,
    /// A change of the root began, came to its next step, or ended; in words.
    Step(String),
    /// It waits for this cluster, for this cause.
    Held(String),
}

/// Between two looks.
pub(super) fn news(before: &Outlook, now: &Outlook) -> Vec<News> {
    let mut news = Vec::new();
    if step(before.course.as_ref()) != step(now.course.as_ref()) {
        news.push(News::Step(told(before.course.as_ref(), now.course.as_ref())));
    }
    let settled = now.attestation.settled;
    if now.course.is_some() && settled.is_some() && settled != before.attestation.settled {
        news.push(News::Settled);
    }
    news
}

/// What a look says that began `since` in this state: whom a change of the root has waited for long enough.
pub(super) fn held(since: Timestamp, now: &Outlook) -> Option<News> {
    let is_going = now.course.as_ref().is_some_and(|course| !course.rotation.paused);
    let attestation = &now.attestation;
    let why = attestation.why.clone().filter(|_| is_going && attestation.settled.is_none())?;
    (attestation.at.duration_since(since) >= HELD).then_some(News::Held(why))
}

/// Whether it is time to replace the root.
pub(super) fn ends_soon(until: Timestamp, now: Timestamp) -> bool {
    until.duration_since(now) < ENDS_SOON
}

fn step(course: Option<&Course>) -> Option<(&str, bool, Option<&'static str>)> {
    course.map(|course| (course.rotation.goal.as_str(), course.rotation.paused, course.next.as_ref().map(Step::as_str)))
}

fn told(before: Option<&Course>, now: Option<&Course>) -> String {
    match (before, now) {
        (_, Some(course)) => {
            let goal = &course.rotation.goal;
            let next = match &course.next {
                _ if course.rotation.paused => "it is paused".to_owned(),
                Some(step) => format!("next is {}, which {}", step.as_str(), step.does()),
                None => "what is next is not known".to_owned(),
            };
            format!("the root is being replaced by {goal}: {next}")
        }
        (Some(course), None) => format!("the change of the root to {} has ended", course.rotation.goal),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::ca::fixtures::now;
    use crate::life::attestation::Attestation;
    use crate::samples::{attestation, rotation};

    fn at(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    fn course(step: Step) -> Course {
        Course { rotation: rotation(), goal: None, next: Some(step), not_before: None }
    }

    fn outlook(settled: Option<i64>, course: Option<Course>) -> Outlook {
        let why = settled.is_none().then(|| "no istiod runs".to_owned());
        Outlook { attestation: Attestation { settled: settled.map(at), why, ..attestation("nas", now()) }, course }
    }

    #[test]
    fn each_step_and_the_end_are_told_once() {
        let [rest, trust, drop] =
            [None, Some(Step::Trust), Some(Step::Drop)].map(|step| outlook(Some(0), step.map(course)));
        let told = |before: &Outlook, now: &Outlook| match &news(before, now)[..] {
            [News::Step(text)] => text.clone(),
            other => panic!("{other:?}"),
        };
        assert!(told(&rest, &trust).starts_with("the root is being replaced by root-2: next is trust, which adds"));
        assert!(told(&trust, &drop).contains("next is drop, which takes"));
        assert_eq!(told(&drop, &rest), "the change of the root to root-2 has ended");
        let mut paused = drop.clone();
        paused.course.as_mut().unwrap().rotation.paused = true;
        assert!(told(&drop, &paused).ends_with("it is paused"));
        for same in [rest, trust, drop] {
            assert_eq!(news(&same, &same), []);
        }
    }

    #[test]
    fn a_cluster_that_settles_is_told_of_while_a_root_is_replaced() {
        let during = |settled| outlook(settled, Some(course(Step::Switch { crossed: true })));
        assert_eq!(news(&during(None), &during(Some(1))), [News::Settled]);
        // It was settled by what the record said before.
        assert_eq!(news(&during(Some(0)), &during(Some(1))), [News::Settled]);
        assert_eq!(news(&during(Some(1)), &during(Some(1))), []);
        assert_eq!(news(&during(Some(1)), &during(None)), []);
        assert_eq!(news(&outlook(None, None), &outlook(Some(1), None)), []);
    }

    #[test]
    fn a_cluster_that_is_waited_for_is_told_after_a_while_with_why() {
        let during = |settled| outlook(settled, Some(course(Step::Drop)));
        let early = now() - HELD + SignedDuration::from_secs(1);
        assert_eq!(held(early, &during(None)), None);
        assert_eq!(held(now() - HELD, &during(None)), Some(News::Held("no istiod runs".to_owned())));
        assert_eq!(held(now() - HELD, &during(Some(0))), None);
        assert_eq!(held(now() - HELD, &outlook(None, None)), None);
        let mut paused = during(None);
        paused.course.as_mut().unwrap().rotation.paused = true;
        assert_eq!(held(now() - HELD, &paused), None);
    }
}
