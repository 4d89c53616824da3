#![allow(clippy::panic, reason = "a test fails by it")]
//! A history that is as it should be, and for each promise the ways in which one can break it.

use super::*;

fn files(name: &str) -> Files {
    let digests = ["root-cert.pem", "cert-chain.pem", "ca-cert.pem", "ca-key.pem"];
    let digests = digests.map(|file| (file.to_owned(), format!("{file} of {name}")));
    Files { roots: BTreeSet::from([name.to_owned()]), digests: digests.into() }
}

fn promises() -> Promises {
    Promises { unseen: 1000, heals: 5000, resident: 100, descriptors: 10, each_hits: false }
}

fn write(by: By, name: &str, cas: Option<u64>, version: u64) -> Said {
    Said::Record { vault: "v".to_owned(), by, deed: Deed::Write, cas, version: Some(version), files: Some(files(name)) }
}

fn cacerts(by: By, revision: u64, name: &str) -> Said {
    let (cluster, files) = ("nas".to_owned(), Some(files(name)));
    Said::Cacerts { cluster, by, deed: Deed::Write, revision, checked: true, ours: by == By::Gate, files }
}

fn gone(by: By, revision: u64) -> Said {
    let cluster = "nas".to_owned();
    Said::Cacerts { cluster, by, deed: Deed::Delete, revision, checked: true, ours: false, files: None }
}

fn pod(revision: u64) -> Said {
    Said::Pod { cluster: "nas".to_owned(), name: "istiod-1".to_owned(), gated: true, revision }
}

fn denied(gated: bool, message: &str) -> Said {
    Said::Denied { cluster: "nas".to_owned(), gated, message: message.to_owned() }
}

fn scanned(found: &[&str]) -> Said {
    Said::Scanned { output: "log".to_owned(), bytes: 9, found: found.iter().map(ToString::to_string).collect() }
}

fn end(after: Option<u64>, pods: u64, name: &str) -> Said {
    Said::End { cluster: "nas".to_owned(), after, seen: "open".to_owned(), pods, files: Some(files(name)) }
}

fn fault(hits: u64) -> [Said; 2] {
    let name = || "vault silent".to_owned();
    [Said::Fault { name: name(), on: "vault".to_owned() }, Said::Fired { name: name(), hits }]
}

fn process(by_run: bool) -> Said {
    Said::Process { name: "gate-1".to_owned(), event: "ended".to_owned(), by_run }
}

/// A second between two lines.
fn history(said: impl IntoIterator<Item = Said>) -> History {
    let run = Said::Run { seed: Some(1), promises: promises() };
    let lines = std::iter::once(run).chain(said).zip(0..);
    History(lines.map(|(said, second)| Line { at: second * 1000, said }).collect())
}

/// All that is good, with these lines before the end.
fn with(more: impl IntoIterator<Item = Said>) -> Verdict {
    let begin = [write(By::Gate, "r", Some(0), 1), cacerts(By::Gate, 10, "r"), pod(11)];
    let [fault, fired] = fault(1);
    let end = [fault, fired, scanned(&[]), end(Some(10), 1, "r")];
    judge(&history(begin.into_iter().chain(more).chain(end)))
}

fn breaks(promise: &str, more: impl IntoIterator<Item = Said>) {
    match with(more) {
        Verdict::Broken(breaches) if breaches.iter().any(|breach| breach.promise == promise) => {}
        other => panic!("{promise}: {other:?}"),
    }
}

#[test]
fn a_good_history_is_kept() {
    assert_eq!(with([]), Verdict::Kept);
    let operators = [
        write(By::Other, "r", Some(1), 2),
        gone(By::Other, 12),
        denied(true, "admission webhook \"a\" denied the request: Converging: cluster nas: …"),
        cacerts(By::Gate, 13, "r"),
        pod(14),
        process(true),
        denied(true, "failed calling webhook \"a\": EOF"),
    ];
    assert_eq!(with(operators), Verdict::Kept);
}

#[test]
fn a_second_root_and_any_other_change_of_the_record_by_a_gate_is_found() {
    breaks("One", [write(By::Gate, "s", Some(0), 1)]);
    breaks("One", [write(By::Gate, "r", Some(1), 2)]);
    breaks("One", [write(By::Gate, "r", None, 2)]);
    for deed in [Deed::Delete, Deed::Undelete, Deed::Forget] {
        breaks(
            "One",
            [Said::Record { vault: "v".to_owned(), by: By::Gate, deed, cas: None, version: None, files: None }],
        );
    }
    breaks("One", [cacerts(By::Gate, 12, "s")]);
}

#[test]
fn a_pod_by_no_root_or_another_one_or_while_the_gate_is_shut_is_found() {
    let wait = || (0..3).map(|_| Said::Act { act: "nothing".to_owned() });
    breaks("Closed", [gone(By::Other, 12)].into_iter().chain(wait()).chain([pod(13)]));
    breaks("Closed", [cacerts(By::Other, 12, "s")].into_iter().chain(wait()).chain([pod(13)]));
    let shut = Said::Shut { cluster: "nas".to_owned(), why: "the root was deleted".to_owned() };
    breaks("Closed", [shut.clone(), pod(12)]);
    let again = Said::MayOpen { cluster: "nas".to_owned() };
    assert_eq!(with([shut, again, pod(12)]), Verdict::Kept);
    // What is not seen for a moment may still let one in.
    assert_eq!(with([gone(By::Other, 12), pod(13), cacerts(By::Gate, 14, "r")]), Verdict::Kept);
    breaks("Closed", [Said::FailedOpen { cluster: "nas".to_owned(), webhook: "app".to_owned() }]);
    // A pod that is earlier than cacerts, whatever the clock says.
    breaks("Closed", [pod(9)]);
}

#[test]
fn two_roots_are_found_unless_a_person_replaced_the_first() {
    let other = Line {
        at: 2500,
        said: Said::Cacerts {
            cluster: "homelab".to_owned(),
            by: By::Other,
            deed: Deed::Write,
            revision: 5,
            checked: true,
            ours: false,
            files: Some(files("s")),
        },
    };
    let pod = Said::Pod { cluster: "homelab".to_owned(), name: "istiod-2".to_owned(), gated: true, revision: 6 };
    let begin = [write(By::Gate, "r", Some(0), 1), cacerts(By::Gate, 10, "r"), self::pod(11), pod];
    let mut history = history(begin.into_iter().chain([scanned(&[]), end(Some(1), 1, "r")]));
    history.0.push(other);
    let Verdict::Broken(found) = judge(&history) else { panic!("two roots were not found") };
    assert!(found.iter().any(|breach| breach.what.contains("by no root of Vault")), "{found:?}");
    history.0.insert(2, Line { at: 1500, said: write(By::Gate, "s", Some(0), 1) });
    let Verdict::Broken(found) = judge(&history) else { panic!("two roots were not found") };
    assert!(found.iter().any(|breach| breach.what.contains("by two roots")), "{found:?}");
}

#[test]
fn what_is_done_to_bystanders_is_found() {
    breaks("Bystanders", [denied(false, "denied the request: RootMissing: cluster nas: …")]);
    breaks("Bystanders", [gone(By::Gate, 12)]);
    breaks("Bystanders", [cacerts(By::Other, 12, "s"), cacerts(By::Gate, 13, "r")]);
    let mut unseen = cacerts(By::Gate, 12, "r");
    if let Said::Cacerts { checked, .. } = &mut unseen {
        *checked = false;
    }
    breaks("Bystanders", [unseen]);
}

#[test]
fn a_refusal_without_a_code_or_in_time_is_found() {
    breaks("Tells", [denied(true, "denied the request: because: …")]);
    breaks("Tells", [denied(true, "failed calling webhook \"a\": context deadline exceeded")]);
    let long = (0..30).map(|_| Said::Act { act: "nothing".to_owned() });
    let stalled = Said::Stalled { by: 9000 };
    assert_eq!(with([stalled, denied(true, "failed calling webhook \"a\": context deadline exceeded")]), Verdict::Kept);
    let late = denied(true, "failed calling webhook \"a\": EOF");
    breaks("Tells", std::iter::once(process(true)).chain(long).chain([late]));
}

#[test]
fn a_key_in_an_output_is_found() {
    breaks("Quiet", [scanned(&["the root's key in base64"])]);
}

#[test]
fn what_takes_too_much_or_ends_by_itself_is_found() {
    let used = |resident, descriptors| Said::Used { process: "gate-1".to_owned(), resident, descriptors };
    assert_eq!(with([used(100, 10)]), Verdict::Kept);
    breaks("Bound", [used(101, 10)]);
    breaks("Bound", [used(100, 11)]);
    breaks("Bound", [process(false)]);
}

#[test]
fn a_cluster_that_does_not_come_back_is_found() {
    breaks("Heals", [end(None, 1, "r")]);
    breaks("Heals", [end(Some(5001), 1, "r")]);
    breaks("Heals", [end(Some(1), 0, "r")]);
    breaks("Heals", [end(Some(1), 1, "s")]);
}

#[test]
fn a_history_that_shows_nothing_is_not_kept() {
    let good = || [write(By::Gate, "r", Some(0), 1), cacerts(By::Gate, 10, "r")];
    let invalid = |said: Vec<Said>| assert!(matches!(judge(&history(said)), Verdict::Invalid(_)));
    let (scanned, end) = (scanned(&[]), end(Some(1), 1, "r"));
    assert_eq!(judge(&history(good().into_iter().chain([scanned.clone(), end.clone()]))), Verdict::Kept);
    invalid(good().into_iter().chain([scanned.clone()]).collect());
    invalid(good().into_iter().chain([end.clone()]).collect());
    invalid(good().into_iter().chain(fault(0)).chain([scanned, end]).collect());
    assert!(matches!(judge(&History::default()), Verdict::Invalid(_)));
    let mut strict = history(fault(1).into_iter().chain([self::scanned(&[]), self::end(Some(1), 1, "r")]));
    strict.0.insert(1, Line { at: 0, said: write(By::Gate, "r", Some(0), 1) });
    strict.0.insert(2, Line { at: 0, said: Said::Fault { name: "other".to_owned(), on: "nas".to_owned() } });
    assert_eq!(judge(&strict), Verdict::Kept);
    if let Said::Run { promises, .. } = &mut strict.0[0].said {
        promises.each_hits = true;
    }
    assert!(matches!(judge(&strict), Verdict::Invalid(why) if why.contains("other")));
}

#[test]
fn a_history_is_read_as_it_was_written() -> anyhow::Result<()> {
    let [fault, fired] = fault(1);
    let history = history([write(By::Gate, "r", Some(0), 1), cacerts(By::Gate, 10, "r"), pod(11), fault, fired]);
    let path = std::env::temp_dir().join(format!("history-{}", std::process::id()));
    history.write(&path)?;
    let read = History::read(&path);
    std::fs::remove_file(&path)?;
    assert_eq!(read?, history);
    Ok(())
}

#[test]
fn deadlines_are_not_judged_of_a_machine_that_stands_still_and_all_else_is() {
    let stalled = || Said::Stalled { by: 9000 };
    let late = end(None, 1, "r");
    assert!(matches!(with([stalled(), late.clone()]), Verdict::Invalid(why) if why.contains("stood still for 9 of")));
    breaks("Heals", [Said::Stalled { by: 200 }, late]);
    breaks("Quiet", [stalled(), scanned(&["a key"])]);
}

#[test]
fn what_servers_recorded_is_judged_without_faults_and_end() {
    let said = [write(By::Gate, "r", Some(0), 1), cacerts(By::Gate, 10, "r"), pod(11), scanned(&[])];
    assert_eq!(judge_evidence(&history(said.clone()), &promises()), Verdict::Kept);
    assert!(matches!(judge_evidence(&history(said[..3].to_vec()), &promises()), Verdict::Invalid(_)));
    let twice = said.iter().cloned().chain([write(By::Gate, "r", Some(0), 1)]);
    assert!(matches!(judge_evidence(&history(twice), &promises()), Verdict::Broken(_)));
}
