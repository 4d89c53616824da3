//! What the model explores, and that it finds what is wrong where something is.
#![allow(clippy::expect_used)]

use model::rotation::{Rotations, Wrong};
use stateright::{Checker, Model};

/// Walks all of it. Prints what it has seen.
#[track_caller]
fn holds(what: &str, model: Rotations) {
    let checked = model.checker().spawn_bfs().join();
    eprintln!(
        "{what}: {} states, {} steps, depth {}",
        checked.unique_state_count(),
        checked.state_count(),
        checked.max_depth()
    );
    checked.assert_properties();
}

/// Finds a way to a handshake that fails, or to a leaf that nobody should have.
#[track_caller]
fn is_caught(model: Rotations) {
    let wrong = model.wrong;
    let checked = model.checker().finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checked.discoveries();
    let (name, path) = found.iter().find(|(name, _)| !name.starts_with("the new root")).expect("it is caught");
    let path: Vec<_> = path.clone().into_actions();
    eprintln!("{wrong:?}: not true that {name}, after {} steps: {path:?}", path.len());
}

#[test]
fn two_clusters_two_istiods_each_and_two_conductors_in_every_order() {
    holds("a rotation", Rotations { pauses: 1, ..Rotations::default() });
}

#[test]
fn the_same_where_no_cross_can_be_had() {
    holds("without a cross", Rotations { may_cross: false, ..Rotations::default() });
}

#[test]
fn an_operator_who_changes_his_mind_at_any_time() {
    holds("an abort", Rotations { aborts: 1, ..Rotations::default() });
}

#[test]
fn clusters_that_are_restored_and_istiods_on_older_volumes() {
    holds("restores", Rotations { restores: true, ..Rotations::default() });
}

#[test]
fn gates_that_are_slow() {
    holds("slow gates", Rotations { slow_gates: true, ..Rotations::default() });
}

#[test]
fn gates_whose_clocks_are_behind() {
    holds("wrong clocks", Rotations { wrong_clocks: true, ..Rotations::default() });
    holds("wrong clocks without a cross", Rotations { wrong_clocks: true, may_cross: false, ..Rotations::default() });
}

#[test]
fn a_cluster_that_joins_on_the_way() {
    holds("a cluster joins", Rotations { joins: true, ..Rotations::default() });
    holds("a cluster with a slow gate joins", Rotations { joins: true, slow_gates: true, ..Rotations::default() });
}

#[test]
fn dropping_without_a_wait_is_caught() {
    is_caught(Rotations::but(Wrong::NoWaitBeforeDrop));
}

#[test]
fn switching_without_a_cross_and_without_a_wait_is_caught() {
    is_caught(Rotations::but(Wrong::NoCrossAndNoWait));
}

#[test]
fn an_attestation_that_counts_however_old_it_is_is_caught() {
    is_caught(Rotations { restores: true, ..Rotations::but(Wrong::StaleCounts) });
}

#[test]
fn a_cluster_that_is_not_waited_for_while_it_is_off_is_caught() {
    is_caught(Rotations::but(Wrong::OffIsLeftOut));
}

#[test]
fn a_write_over_whatever_is_there_is_caught() {
    is_caught(Rotations { aborts: 1, ..Rotations::but(Wrong::BlindWrite) });
}

#[test]
fn taking_another_serving_certificate_for_the_proof_is_caught() {
    is_caught(Rotations::but(Wrong::CertificateChanged));
}

#[test]
fn a_new_key_at_the_switch_is_caught() {
    is_caught(Rotations::but(Wrong::NewKey));
}

#[test]
fn counting_the_wait_by_the_gates_clocks_alone_is_caught() {
    is_caught(Rotations { wrong_clocks: true, ..Rotations::but(Wrong::GatesClocks) });
}

#[test]
fn a_gate_that_reads_the_record_before_cacerts_is_caught() {
    is_caught(Rotations { slow_gates: true, may_cross: false, ..Rotations::but(Wrong::RecordFirst) });
}

#[test]
fn a_decision_that_is_written_late_is_caught() {
    is_caught(Rotations { restores: true, ..Rotations::but(Wrong::LateDecision) });
}

#[test]
fn a_cluster_that_attests_only_once_it_has_published_is_caught() {
    is_caught(Rotations { joins: true, ..Rotations::but(Wrong::AttestsLate) });
}

#[test]
fn a_cluster_that_reads_the_record_before_it_attests_is_caught() {
    is_caught(Rotations { joins: true, ..Rotations::but(Wrong::ReadsBeforeItAttests) });
}

#[test]
fn a_cluster_that_was_settled_by_the_same_state_before_an_abort_is_caught() {
    is_caught(Rotations { aborts: 1, ..Rotations::but(Wrong::SettledByState) });
}
