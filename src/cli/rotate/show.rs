//! A rotation as text and as JSON. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::conduct::Surroundings;
use crate::ca::Sha256;
use crate::ca::record::{IssuerName, Rotation};
use crate::cli::paint::{Tone, paint};
use crate::cli::table::Table;
use crate::life::attestation::{Attestation, InvalidAttestation};
use crate::life::audience::SKEW;
use crate::life::rule::{Cause, Next, Step};
use crate::report::stamp;

const HEADINGS: [&str; 7] = ["CLUSTER", "SIGNER UNDER", "TRUSTS", "ISTIODS", "NAMESPACES", "SETTLED", "SEEN"];

/// The steps that everybody waits for.
const STEPS: [&str; 4] = ["trust", "switch", "drop", "done"];

/// Digits of a fingerprint that eyes compare.
const SHORT: usize = 11;

/// The name after this one: `root-` and the next number.
pub(super) fn next_name(issuer: Option<&IssuerName>) -> IssuerName {
    let number = issuer.and_then(|name| name.as_str().strip_prefix("root-")?.parse::<u32>().ok()).unwrap_or(1);
    let name = format!("root-{}", number.saturating_add(1));
    // Letters, a dash and digits are a name.
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a name of an issuer"))
}

/// What will be done, before anything is.
pub(super) fn plan(rotation: &Rotation) -> String {
    let Rotation { goal, from, clusters, ttl, .. } = rotation;
    let clusters: Vec<_> = clusters.iter().map(String::as_str).collect();
    let ttl = humantime::format_duration(*ttl);
    let skew = SKEW.as_mins();
    format!(
        "From {} to {goal}, in {}:\n\n  \
         1. {goal} is made in Vault, whose PKI engine keeps its key\n  \
         2. trust   all clusters trust it beside the old root\n  \
         3. switch  all signers are certified by it, with a cross for those who do not trust it yet\n  \
         4. wait    {ttl} and {skew} min, until the last certificate under the old root has ended\n  \
         5. drop    the old root may certify no more, and is no longer trusted\n\n\
         No step is taken before every istiod of every cluster is seen to work with the one before. Until the drop,\n\
         `istio-ca-gate rotate abort` leads back without loss.\n",
        Rotation::from_words(from),
        clusters.join(", "),
    )
}

/// For people.
pub(super) fn status(seen: &Surroundings) -> String {
    let mut text = match seen.rotation() {
        None => match &seen.life.record.issuer {
            Some(issuer) => format!("No rotation. Signers are under {issuer}.\n"),
            None => "No rotation. Each cluster keeps the signer that it has.\n".to_owned(),
        },
        Some(rotation) => {
            let (goal, from) = (&rotation.goal, Rotation::from_words(&rotation.from));
            let started = stamp(rotation.started);
            format!("Rotation to {goal}, from {from}, started {started} by {}\n", rotation.by)
        }
    };
    if let Some(steps) = steps(&seen.next) {
        let _ = writeln!(text, "{steps}");
    }
    let _ = write!(text, "\n{}\n", table(seen));
    let _ = write!(text, "Next: {}", what_comes(&seen.next, seen.life.now));
    text
}

/// How far it is, where that is known.
fn steps(next: &Next) -> Option<String> {
    let step = match next {
        Next::Rest | Next::Paused => return None,
        Next::Take(step) | Next::Wait { then: step, .. } | Next::Held { then: step, .. } => step,
    };
    let at = match step {
        Step::Trust => 0,
        Step::Switch { .. } | Step::Return => 1,
        Step::Note | Step::GiveBack | Step::Drop => 2,
        Step::Done => 3,
    };
    let told = STEPS.iter().enumerate().map(|(index, name)| match index.cmp(&at) {
        Ordering::Less => paint(Tone::Good, &format!("{name} done")),
        Ordering::Equal => paint(Tone::Doubtful, &format!("{name} next")),
        Ordering::Greater => format!("{name} later"),
    });
    Some(format!("Steps: {}", told.collect::<Vec<_>>().join(", ")))
}

/// Roots by the names of their issuers, as far as these can be told.
struct RootNames<'a>(Vec<(Sha256, &'a IssuerName)>);

impl<'a> RootNames<'a> {
    fn of(seen: &'a Surroundings) -> Self {
        let (record, rotation) = (&seen.life.record, seen.rotation());
        let mut names = Vec::new();
        if let (Some(rotation), Some(root)) = (rotation, seen.goal_root()) {
            names.push((root, &rotation.goal));
        }
        let unnamed: Vec<_> =
            record.roots().iter().filter(|root| names.iter().all(|(named, _)| named != *root)).collect();
        let name = match rotation.map(|rotation| &rotation.from[..]) {
            None => record.issuer.as_ref(),
            Some([from]) if !names.is_empty() => Some(from),
            Some(_) => None,
        };
        if let ([root], Some(name)) = (&unnamed[..], name) {
            names.push((**root, name));
        }
        Self(names)
    }

    fn tell(&self, root: Sha256) -> String {
        let name = self.0.iter().find(|(named, _)| *named == root).map(|(_, name)| name.to_string());
        name.unwrap_or_else(|| short(root))
    }
}

fn table(seen: &Surroundings) -> String {
    let mut table = Table::new(&HEADINGS);
    let names = RootNames::of(seen);
    for (name, read) in &seen.life.heard {
        table.push(row(seen, &names, name, read));
    }
    let named = seen.rotation().map(|rotation| &rotation.clusters);
    for name in named.into_iter().flatten().filter(|name| !seen.life.heard.contains_key(*name)) {
        let mut row = vec![name.clone(), paint(Tone::Bad, "never attested")];
        row.resize(HEADINGS.len(), String::new());
        table.push(row);
    }
    table.text(None)
}

fn row(
    seen: &Surroundings,
    names: &RootNames<'_>,
    name: &str,
    read: &Result<Attestation, InvalidAttestation>,
) -> Vec<String> {
    let Ok(attestation) = read else {
        let mut row = vec![name.to_owned(), paint(Tone::Bad, "cannot be read")];
        row.resize(HEADINGS.len(), String::new());
        return row;
    };
    let Attestation { signer, roots, istiods, namespaces, settled, at, state, .. } = attestation;
    let of = |settled: u64, behind: usize| {
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let text = format!("{settled} of {}", settled.saturating_add(behind));
        if behind == 0 { text } else { paint(Tone::Bad, &text) }
    };
    let namespaces_behind = u64::try_from(namespaces.behind.len()).unwrap_or(u64::MAX);
    let is_current = *state == Some(seen.life.record.state());
    vec![
        name.to_owned(),
        signer.as_ref().map_or_else(|| "-".to_owned(), |signer| names.tell(signer.root)),
        roots.iter().map(|root| names.tell(*root)).collect::<Vec<_>>().join(" "),
        of(istiods.settled, istiods.behind.len()),
        of(namespaces.total.saturating_sub(namespaces_behind), namespaces.behind.len()),
        match settled.filter(|_| is_current) {
            Some(settled) => paint(Tone::Good, &stamp(settled)),
            None => paint(Tone::Doubtful, "not yet"),
        },
        seconds(seen.life.now.duration_since(*at)),
    ]
}

/// Without what nobody wants to know.
fn seconds(time: SignedDuration) -> String {
    format!("{:#}", SignedDuration::from_secs(time.as_secs()))
}

fn short(root: Sha256) -> String {
    let mut text = root.openssl();
    text.truncate(SHORT);
    text
}

fn what_comes(next: &Next, now: Timestamp) -> String {
    match next {
        Next::Rest => "nothing to do.".to_owned(),
        Next::Paused => "nothing, until `istio-ca-gate rotate resume`.".to_owned(),
        Next::Take(step) => {
            format!("{}, which {}: `istio-ca-gate rotate step` takes it.", step.as_str(), step.does())
        }
        Next::Wait { until, then } => format!(
            "nothing to do before {}, {} from now: then {}, which {}. Until then `istio-ca-gate rotate abort` leads back without loss.",
            stamp(*until),
            seconds(until.duration_since(now)),
            then.as_str(),
            then.does()
        ),
        Next::Held { then, causes } => {
            let causes: Vec<_> = causes.iter().map(|cause| format!("  {}", cause.held().sentence())).collect();
            format!("{}, which is held:\n{}", then.as_str(), causes.join("\n"))
        }
    }
}

/// For programs.
pub(super) fn json(seen: &Surroundings) -> Value {
    let life = &seen.life;
    let clusters = life.heard.iter().map(|(name, read)| match read {
        Ok(attestation) => Value::Object(attestation.data()),
        Err(unread) => json!({ "cluster": name, "unreadable": unread.0 }),
    });
    json!({
        "recordVersion": life.version,
        "state": life.record.state().to_string(),
        "issuer": life.record.issuer.as_ref().map(IssuerName::as_str),
        "roots": life.record.roots().iter().map(Sha256::openssl).collect::<Vec<_>>(),
        "rotation": seen.rotation().map(Rotation::data),
        "now": stamp(life.now),
        "next": next_json(&seen.next),
        "clusters": clusters.collect::<Vec<_>>(),
    })
}

fn next_json(next: &Next) -> Value {
    match next {
        Next::Rest => json!({ "state": "rest" }),
        Next::Paused => json!({ "state": "paused" }),
        Next::Take(step) => json!({ "state": "due", "step": step.as_str() }),
        Next::Wait { until, then } => json!({ "state": "waiting", "step": then.as_str(), "until": stamp(*until) }),
        Next::Held { then, causes } => json!({
            "state": "held", "step": then.as_str(),
            "causes": causes.iter().map(cause_json).collect::<Vec<_>>(),
        }),
    }
}

fn cause_json(cause: &Cause) -> Value {
    let cluster = match cause {
        Cause::Cluster { name, .. } => Some(name),
        Cause::NoCluster | Cause::BundleFull | Cause::NoGoal => None,
    };
    let held = cause.held();
    json!({ "reason": held.reason.as_str(), "cluster": cluster, "message": held.sentence() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_next_root_has_the_next_number() {
        let next = |name: &str| next_name(Some(&name.parse().unwrap())).to_string();
        assert_eq!(next("root-1"), "root-2");
        assert_eq!(next("root-41"), "root-42");
        assert_eq!(next("corporate"), "root-2");
        assert_eq!(next_name(None).as_str(), "root-2");
    }
}
