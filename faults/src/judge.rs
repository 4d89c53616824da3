//! Whether a history kept the promises. Each has a function here, and a bad history in the tests that it must not let pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::files::Files;
use crate::history::{By, Deed, History, Line, Promises, Said};

/// After a gate was killed, stopped or started, and after a fault of a server, a call may fail for this long.
const SETTLES: u64 = 20_000;

/// A run of which more than this part was spent standing still says nothing of deadlines.
const SLOW_PART: u64 = 10;

/// The reason codes that a denial may have: those of the contract.
const CODES: [&str; 22] = [
    "Converging",
    "RootMissing",
    "RootDeleted",
    "RootInvalid",
    "RootExpired",
    "RootChanged",
    "CacertsUnknown",
    "CacertsManagedElsewhere",
    "CacertsInvalid",
    "VaultUnreachable",
    "VaultSealed",
    "VaultLoginDenied",
    "VaultPermissionDenied",
    "VaultMountInvalid",
    "VaultRateLimited",
    "VaultAmbiguous",
    "KubernetesUnreachable",
    "KubernetesForbidden",
    "DryRun",
    "MeshOnOtherRoot",
    "ClockWrong",
    "SigningRefused",
];

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Its name.
    pub promise: &'static str,
    /// What happened, and when.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What came of judging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All promises were kept.
    Kept,
    /// Some were not.
    Broken(Vec<Breach>),
    /// The history shows nothing, as when no fault hit.
    Invalid(String),
}

/// Judges what servers recorded of somebody else's run, of which neither the faults nor the end are known.
pub fn judge_evidence(history: &History, promises: &Promises) -> Verdict {
    let lines = &history.0;
    let breaches: Vec<_> = [one(lines), closed(lines, promises), bystanders(lines), quiet(lines)].concat();
    let seen = lines.iter().any(|line| matches!(line.said, Said::Scanned { bytes: 1.., .. }));
    match (breaches.is_empty(), seen) {
        (false, _) => Verdict::Broken(breaches),
        (true, false) => Verdict::Invalid("nothing of a gate was recorded".to_owned()),
        (true, true) => Verdict::Kept,
    }
}

/// Judges a whole history.
pub fn judge(history: &History) -> Verdict {
    let lines = &history.0;
    let Some(promises) = lines.iter().find_map(|line| match &line.said {
        Said::Run { promises, .. } => Some(promises),
        _ => None,
    }) else {
        return Verdict::Invalid("it does not say what is promised".to_owned());
    };
    let breaches: Vec<_> = [
        one(lines),
        closed(lines, promises),
        bystanders(lines),
        tells(lines),
        quiet(lines),
        bound(lines, promises),
        heals(lines, promises),
    ]
    .concat();
    let slow = too_slow(lines);
    let is_timed = |breach: &Breach| ["Heals", "Tells"].contains(&breach.promise);
    match (valid(lines, promises), slow) {
        (_, Some(why)) if !breaches.is_empty() && breaches.iter().all(is_timed) => Verdict::Invalid(why),
        // What is broken is broken, whatever else was not shown.
        _ if !breaches.is_empty() => Verdict::Broken(breaches),
        (Err(why), _) => Verdict::Invalid(why),
        (Ok(()), _) => Verdict::Kept,
    }
}

/// Why deadlines say nothing: for a good part of the run the machine gave nobody any time.
fn too_slow(lines: &[Line]) -> Option<String> {
    let stalls = lines.iter().map(|line| if let Said::Stalled { by } = line.said { by } else { 0 });
    let (stalled, whole) = (stalls.sum::<u64>(), lines.last()?.at);
    let why = format!("the machine stood still for {} of {} s", stalled / 1000, whole / 1000);
    (stalled * SLOW_PART > whole).then_some(why)
}

/// That the faults hit, outputs were searched, and the end was looked at.
fn valid(lines: &[Line], promises: &Promises) -> Result<(), String> {
    let (mut hits, mut bytes, mut ends) = (BTreeMap::new(), 0, 0);
    for line in lines {
        match &line.said {
            Said::Fault { name, .. } => {
                hits.entry(name.as_str()).or_insert(0);
            }
            Said::Fired { name, hits: fired } => *hits.entry(name.as_str()).or_insert(0) += fired,
            Said::Scanned { bytes: more, .. } => bytes += more,
            Said::End { .. } => ends += 1,
            _ => {}
        }
    }
    let missed: Vec<_> = hits.iter().filter(|(_, hits)| **hits == 0).map(|(name, _)| *name).collect();
    if !hits.is_empty() && (missed.len() == hits.len() || promises.each_hits && !missed.is_empty()) {
        return Err(format!("no hit of {}", missed.join(", ")));
    }
    if bytes == 0 {
        return Err("no output was searched for keys".to_owned());
    }
    if ends == 0 { Err("nobody looked at the end".to_owned()) } else { Ok(()) }
}

fn breach(promise: &'static str, at: u64, what: impl fmt::Display) -> Breach {
    Breach { promise, what: format!("{what}, {:.3} s after the beginning", at as f64 / 1000.0) }
}

/// One: the gate writes the first version, once, by check-and-set of nothing, and publishes nothing else.
fn one(lines: &[Line]) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut allowed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut stored: Vec<&Files> = Vec::new();
    for Line { at, said } in lines {
        match said {
            Said::Record { vault, by: By::Gate, deed: Deed::Write, cas, version, files } => {
                if *cas != Some(0) || *version != Some(1) {
                    found.push(breach("One", *at, format!("a gate wrote version {version:?} with cas {cas:?}")));
                }
                let allowed = allowed.entry(vault).or_insert(1);
                if *allowed == 0 {
                    found.push(breach("One", *at, "a gate made a second root"));
                }
                *allowed = allowed.saturating_sub(1);
                stored.extend(files);
            }
            Said::Record { by: By::Gate, deed, .. } => {
                found.push(breach("One", *at, format!("a gate did {deed:?} to the record")));
            }
            Said::Record { vault, by: By::Other, deed, files, .. } => {
                stored.extend(files);
                if *deed == Deed::Forget {
                    allowed.insert(vault, 1);
                }
            }
            Said::Cacerts { by: By::Gate, deed: Deed::Write, cluster, files, .. }
                if !files.as_ref().is_some_and(|files| stored.contains(&files)) =>
            {
                found.push(breach("One", *at, format!("{cluster}: published what Vault never had")));
            }
            _ => {}
        }
    }
    found
}

/// One state of `cacerts`.
struct State<'a> {
    at: u64,
    revision: u64,
    ours: bool,
    files: Option<&'a Files>,
}

/// All states of a cluster's `cacerts`, in order; in the beginning it is absent.
fn states<'a>(lines: &'a [Line], of: &str) -> Vec<State<'a>> {
    let mut states = vec![State { at: 0, revision: 0, ours: false, files: None }];
    states.extend(lines.iter().filter_map(|line| match &line.said {
        Said::Cacerts { cluster, deed, revision, ours, files, .. } if cluster == of => {
            let files = files.as_ref().filter(|_| *deed == Deed::Write);
            Some(State { at: line.at, revision: *revision, ours: *ours && files.is_some(), files })
        }
        _ => None,
    }));
    states.sort_by_key(|state| state.revision);
    states
}

/// Closed: a gated pod comes in only by a `cacerts` that Vault has stood for, and not while the gate has to be shut.
fn closed(lines: &[Line], promises: &Promises) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut shut: BTreeMap<&str, &str> = BTreeMap::new();
    let mut roots: BTreeSet<&BTreeSet<String>> = BTreeSet::new();
    let mut stored: Vec<&Files> = Vec::new();
    let mut changed = false;
    for line in lines {
        match &line.said {
            Said::Record { files: Some(files), by, .. } => {
                changed |= *by == By::Other && stored.iter().any(|other| other.roots != files.roots);
                stored.push(files);
            }
            Said::Record { deed: Deed::Forget, .. } => changed = true,
            Said::Shut { cluster, why } => {
                shut.insert(cluster, why);
            }
            Said::FailedOpen { cluster, webhook } => {
                found.push(breach("Closed", line.at, format!("{cluster}: let in although {webhook} failed")));
            }
            Said::MayOpen { cluster } => {
                shut.remove(cluster.as_str());
            }
            Said::Pod { cluster, name, gated: true, revision } => {
                if let Some(why) = shut.get(cluster.as_str()) {
                    found.push(breach("Closed", line.at, format!("{cluster}: {name} came in although {why}")));
                }
                match let_in_by(lines, cluster, line.at, *revision, promises, &stored) {
                    Some(by) => {
                        roots.insert(&by.roots);
                    }
                    None => {
                        found.push(breach("Closed", line.at, format!("{cluster}: {name} came in by no root of Vault")));
                    }
                }
            }
            _ => {}
        }
    }
    if roots.len() > 1 && !changed {
        found.push(breach("Closed", lines.last().map_or(0, |line| line.at), "pods came in by two roots"));
    }
    found
}

/// What a gate may have seen of `cacerts` when it let a pod in, if that was sound.
fn let_in_by<'a>(
    lines: &'a [Line],
    cluster: &str,
    at: u64,
    revision: u64,
    promises: &Promises,
    stored: &[&Files],
) -> Option<&'a Files> {
    let states = states(lines, cluster);
    let seen = states.iter().enumerate().filter(|(index, state)| {
        let ended = states.get(index + 1).map_or(u64::MAX, |next| next.at);
        state.revision < revision && ended.saturating_add(promises.unseen) >= at
    });
    seen.filter_map(|(_, state)| state.files).rfind(|files| files.is_whole() && stored.contains(files))
}

/// Bystanders: what is somebody else's is not overwritten or deleted, nothing is written unseen, and no other pod is refused.
fn bystanders(lines: &[Line]) -> Vec<Breach> {
    let mut found = Vec::new();
    for Line { at, said } in lines {
        match said {
            Said::Denied { cluster, gated: false, message } => {
                found.push(breach(
                    "Bystanders",
                    *at,
                    format!("{cluster}: a pod that is not gated was refused: {message}"),
                ));
            }
            Said::Cacerts { cluster, by: By::Gate, deed, revision, checked, .. } => {
                if *deed != Deed::Write {
                    found.push(breach("Bystanders", *at, format!("{cluster}: a gate deleted cacerts")));
                } else if !checked {
                    found.push(breach("Bystanders", *at, format!("{cluster}: a gate wrote cacerts unseen")));
                }
                let states = states(lines, cluster);
                let before = states.iter().rfind(|state| state.revision < *revision);
                if before.is_some_and(|state| state.files.is_some() && !state.ours) {
                    found.push(breach(
                        "Bystanders",
                        *at,
                        format!("{cluster}: a gate overwrote somebody else's cacerts"),
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// Tells: a refusal has a reason code of the contract, and comes before the API server gives up, unless a gate had just gone
/// or the whole machine stood still.
fn tells(lines: &[Line]) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut disturbed = None;
    for Line { at, said } in lines {
        match said {
            Said::Process { .. } | Said::Fault { .. } | Said::Fired { .. } | Said::Stalled { .. } => {
                disturbed = Some(*at)
            }
            Said::Denied { cluster, gated: true, message } => {
                let code = message.split("denied the request: ").nth(1).and_then(|rest| rest.split(':').next());
                let failed = message.contains("failed calling webhook") || message.contains("failed to call webhook");
                let excused = failed && disturbed.is_some_and(|since| *at <= since + SETTLES);
                if !excused && !code.is_some_and(|code| CODES.contains(&code)) {
                    found.push(breach("Tells", *at, format!("{cluster}: {message}")));
                }
            }
            _ => {}
        }
    }
    found
}

/// Quiet: no key and no token was in any output.
fn quiet(lines: &[Line]) -> Vec<Breach> {
    let found = lines.iter().filter_map(|line| match &line.said {
        Said::Scanned { output, found, .. } if !found.is_empty() => {
            Some(breach("Quiet", line.at, format!("{output} has {}", found.join(", "))))
        }
        _ => None,
    });
    found.collect()
}

/// Bound: memory and descriptors stay under their caps, and no process ends by itself.
fn bound(lines: &[Line], promises: &Promises) -> Vec<Breach> {
    let mut found = Vec::new();
    for Line { at, said } in lines {
        match said {
            Said::Process { name, event, by_run: false } => found.push(breach("Bound", *at, format!("{name} {event}"))),
            Said::Used { process, resident, .. } if *resident > promises.resident => {
                found.push(breach("Bound", *at, format!("{process} took {resident} bytes")));
            }
            Said::Used { process, descriptors, .. } if *descriptors > promises.descriptors => {
                found.push(breach("Bound", *at, format!("{process} had {descriptors} descriptors open")));
            }
            _ => {}
        }
    }
    found
}

/// Heals: once faults have ended, every cluster is open soon, its pod exists, and it has what Vault has.
fn heals(lines: &[Line], promises: &Promises) -> Vec<Breach> {
    let mut found = Vec::new();
    let (mut stored, mut stalled) = (None, 0);
    for Line { at, said } in lines {
        match said {
            Said::Stalled { by } => stalled += by,
            Said::Record { files, deed, .. } => stored = files.as_ref().or(stored).filter(|_| *deed != Deed::Forget),
            Said::End { cluster, after, seen, pods, files } => {
                if !after.is_some_and(|after| after <= promises.heals + stalled) {
                    found.push(breach("Heals", *at, format!("{cluster} was not open after {after:?} ms: {seen}")));
                } else if *pods == 0 {
                    found.push(breach("Heals", *at, format!("{cluster} has no pod: {seen}")));
                } else if files.is_none() || files.as_ref() != stored {
                    found.push(breach("Heals", *at, format!("{cluster} has not what Vault has: {seen}")));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
