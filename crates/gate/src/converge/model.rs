//! The product's own attempts, its plan, what it knows and its gate, in every order of calls, lost and late answers, ends of
//! processes and acts of others. Nothing of the product is written again here: a replica is its code, run by the answers
//! that the model gives.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod local;
mod script;
mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::plan::Role;
use world::{Act, Flaw, Setting, World};

const ONE_CLUSTER: [Role; 1] = [Role::Bootstrap];

fn setting(replicas: &[u8], roles: &[Role]) -> Setting {
    Setting {
        replicas: replicas.to_vec(),
        roles: roles.to_vec(),
        vaults: 1,
        crashes: 0,
        lies: 0,
        acts: 0,
        may: Vec::new(),
        outages: false,
        in_order: false,
        refreshes: true,
        flaw: None,
    }
}

/// Goes through all of it, and prints how much that was.
fn holds(name: &str, setting: Setting) {
    let began = Instant::now();
    let checker = World::new(setting).checker().threads(1).spawn_dfs().join();
    let locals = checker.model().locals.lock().unwrap();
    println!(
        "model: {name}: {} states, {} steps; {} states of a replica, for which the product was run {} times; {:.0} s",
        checker.unique_state_count(),
        checker.state_count(),
        locals.len(),
        locals.runs,
        began.elapsed().as_secs_f64(),
    );
    drop(locals);
    checker.assert_properties();
}

/// With this flaw, something is found to be wrong. Prints what, and after how many steps.
fn is_caught(flaw: Flaw, setting: Setting) {
    let began = Instant::now();
    let checker = World::new(Setting { flaw: Some(flaw), ..setting })
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyOf(["nothing is wrong"].into()))
        .spawn_bfs()
        .join();
    let path = checker.assert_any_discovery("nothing is wrong");
    let wrong = path.last_state().wrong.unwrap();
    let steps = path.into_actions().len();
    println!(
        "model: {flaw:?} is caught: {wrong}, after {steps} steps, among {} states, {:.1} s",
        checker.unique_state_count(),
        began.elapsed().as_secs_f64(),
    );
}

/// What operators and Vault do to a root that is there.
const TO_THE_ROOT: [Act; 4] = [Act::SoftDelete, Act::DeleteMetadata, Act::OtherRoot, Act::Restore];

/// Larger than what can be gone through in every order: calls that are made together are answered in theirs, and a replica
/// that is open rests.
fn coarse(replicas: &[u8], roles: &[Role]) -> Setting {
    Setting { in_order: true, refreshes: false, ..setting(replicas, roles) }
}

#[test]
fn two_replicas_with_a_crash_in_every_order() {
    holds("two replicas, one crash, every order", Setting { crashes: 1, ..setting(&[0, 0], &ONE_CLUSTER) });
}

#[test]
fn three_replicas_with_two_crashes() {
    holds("three replicas, two crashes", Setting { crashes: 2, ..coarse(&[0, 0, 0], &ONE_CLUSTER) });
}

#[test]
fn two_replicas_with_a_lie_in_every_order() {
    holds("two replicas, one lie, every order", Setting { lies: 1, ..setting(&[0, 0], &ONE_CLUSTER) });
}

#[test]
fn two_replicas_with_a_crash_and_a_lie() {
    holds("two replicas, one crash, one lie", Setting { crashes: 1, lies: 1, ..coarse(&[0, 0], &ONE_CLUSTER) });
}

#[test]
fn two_clusters_started_together() {
    let clusters = [Role::Bootstrap, Role::Sync];
    holds("two clusters, one lie", Setting { lies: 1, ..coarse(&[0, 1], &clusters) });
    holds("two clusters, three replicas, one crash", Setting { crashes: 1, ..coarse(&[0, 0, 1], &clusters) });
}

#[test]
fn two_clusters_both_in_the_bootstrap_role() {
    let clusters = [Role::Bootstrap, Role::Bootstrap];
    holds("two bootstrap clusters, one crash", Setting { crashes: 1, ..coarse(&[0, 1], &clusters) });
    holds("two bootstrap clusters, one lie", Setting { lies: 1, ..coarse(&[0, 1], &clusters) });
}

/// A root that is there, is taken away or changed, while Vault comes and goes.
fn contradicted(replicas: &[u8], acts: u8) -> Setting {
    let may = TO_THE_ROOT.to_vec();
    Setting { acts, may, outages: true, refreshes: true, ..coarse(replicas, &ONE_CLUSTER) }
}

#[test]
fn a_root_that_is_taken_away_or_changed_while_vault_comes_and_goes() {
    holds("one replica, two acts on the root, outages, one crash", Setting { crashes: 1, ..contradicted(&[0], 2) });
    let may = vec![Act::DeleteMetadata, Act::OtherRoot];
    holds("two replicas, one act on the root, outages", Setting { may, ..contradicted(&[0, 0], 1) });
}

#[test]
fn a_cacerts_that_is_taken_away_or_replaced() {
    let may = vec![Act::DeleteCacerts, Act::ForeignCacerts];
    let acts = Setting { acts: 1, may, crashes: 1, refreshes: true, ..coarse(&[0, 0], &ONE_CLUSTER) };
    holds("two replicas, one act on cacerts, one crash", acts);
}

#[test]
fn two_addresses_that_are_two_vaults() {
    let may = vec![Act::VaultToggles];
    holds(
        "two Vaults that come and go, one crash",
        Setting { vaults: 2, may, crashes: 1, ..setting(&[0, 0], &ONE_CLUSTER) },
    );
}

#[test]
fn without_check_and_set_a_second_root_is_made() {
    is_caught(Flaw::NoCas, coarse(&[0, 0], &ONE_CLUSTER));
}

#[test]
fn without_reading_back_a_root_is_published_that_vault_never_had() {
    is_caught(Flaw::NoReadBack, coarse(&[0, 0], &ONE_CLUSTER));
}

#[test]
fn a_soft_deletion_that_is_taken_for_nothing_makes_a_second_root() {
    is_caught(Flaw::DeletedIsAbsent, Setting { acts: 1, may: vec![Act::SoftDelete], ..coarse(&[0], &ONE_CLUSTER) });
}

#[test]
fn a_pin_that_is_written_blindly_forgets_what_vault_said() {
    let may = vec![Act::DeleteMetadata];
    is_caught(Flaw::PinWithoutCas, Setting { may, ..contradicted(&[0, 0], 1) });
}

#[test]
fn bridging_without_a_look_at_the_pin_is_against_what_another_replica_was_told() {
    let may = vec![Act::DeleteMetadata];
    is_caught(Flaw::BridgesWithoutPin, Setting { may, ..contradicted(&[0, 0], 1) });
}

#[test]
fn a_silent_address_that_is_said_to_be_gone_may_hold_the_root() {
    let clusters = [Role::Bootstrap, Role::Bootstrap];
    let may = vec![Act::VaultToggles];
    is_caught(Flaw::SilentIsGone, Setting { vaults: 2, may, ..coarse(&[0, 1], &clusters) });
}

#[test]
fn a_cacerts_that_is_written_blindly_overwrites_somebody_elses() {
    let may = vec![Act::ForeignCacerts];
    is_caught(Flaw::PublishesWithoutCas, Setting { acts: 1, may, ..coarse(&[0], &ONE_CLUSTER) });
}
