//! Whether the API server really calls a gate, which no look at the configuration can tell: it is tried once.

use async_trait::async_trait;

use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::cluster::Cluster;
use super::line::{Line, Link};
use super::look::{Asker, Look};
use crate::reason::ByItself;
use crate::self_test::{Finding, Probe, Verdict, nonce};

/// A try.
pub(super) struct Tried;

#[async_trait(?Send)]
impl Check for Tried {
    async fn look(&self, eyes: &Eyes<'_>, seen: &mut Sight) {
        if seen.cluster.answers() {
            seen.cluster.self_test = look(eyes.asker, eyes.asked).await;
        }
    }

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        vec![line(&seen.cluster, asked)]
    }
}

/// Tries it, with the asker's own rights.
pub(super) async fn look(asker: &Asker, asked: &Asked) -> Look<Verdict> {
    let Asked { self_test, gated, webhook_config, .. } = asked;
    match Probe::new(asker.client.clone(), self_test, gated, webhook_config) {
        Ok(probe) => Look::Seen(probe.run(&nonce()).await),
        Err(seen) => Look::Seen(Verdict::Untold(Finding {
            seen,
            next: "see --gate-selector".to_owned(),
            by_itself: ByItself::Unsaid,
        })),
    }
}

pub(super) fn line(cluster: &Cluster, asked: &Asked) -> Line {
    let link = Link::new("self-test", format!("a gated pod, created by dry run in {}", asked.self_test));
    match cluster.self_test.or_line(&link) {
        Err(line) => line,
        Ok(None | Some(Verdict::Called)) => link.ok("the API server calls a gate, which answers"),
        Ok(Some(Verdict::Broken(Finding { seen, next, .. }))) => link.failed(seen, next),
        Ok(Some(Verdict::Untold(Finding { seen, next, .. }))) => link.note(format!("could not tell: {seen}: {next}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Outcome;
    use super::super::samples::{self, expect};
    use super::*;
    use crate::plan::Role;

    fn told(verdict: Verdict) -> Line {
        let cluster = Cluster { self_test: Look::Seen(verdict), ..samples::cluster() };
        line(&cluster, &samples::asked(Role::Sync))
    }

    fn finding() -> Finding {
        let (seen, next) = ("the cause".to_owned(), "the next step".to_owned());
        Finding { seen, next, by_itself: ByItself::TriedAgain }
    }

    #[test]
    fn only_a_gate_that_is_not_called_breaks_the_chain() {
        expect(&told(Verdict::Called), Outcome::Ok, "calls a gate");
        let broken = told(Verdict::Broken(finding()));
        expect(&broken, Outcome::Failed, "the cause");
        assert_eq!(broken.next.as_deref(), Some("the next step"));
        expect(&told(Verdict::Untold(finding())), Outcome::Note, "could not tell: the cause: the next step");
    }
}
