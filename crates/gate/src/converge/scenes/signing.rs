//! The signing kind: a root that stays in the PKI engine, and a signer for each cluster, renewed while the gate is open.

use super::super::memory::{Call, Fault};
use super::*;
use crate::ca::record::{CHAIN, ISSUER};
use crate::ca::signer::SigningCa;
use crate::cluster::Happened;
use crate::life::attestation::Attestation;
use crate::plan::{self, PublishedSigners};
use crate::samples::POLICY;
use futures::future::join_all;
use serde_json::{Map, json};

const DAY: Duration = Duration::from_hours(24);

fn who(role: Role) -> Who {
    Who { signs: true, ..Who::first(role) }
}

/// Whom a cluster's files are signed by, and the key of it.
fn signer(world: &World, cluster: usize) -> (SigningCa, Vec<u8>) {
    let Published::Present(copy) = &world.state().clusters[cluster].cacerts else { panic!("no cacerts") };
    let sound = copy.verdict.as_ref().unwrap();
    (sound.signing_ca.clone(), sound.bundle.ca_key.expose().to_vec())
}

/// The signers that are noted for the present state of the record.
fn noted(world: &World, cluster: usize) -> PublishedSigners {
    world.state().clusters[cluster].pin.pin.clone().unwrap().signers.unwrap()
}

/// Whoever published a signer knew that its cluster had attested before it read the record that it went by.
fn assert_waited_for(world: &World) {
    let calls = world.calls();
    for (at, (who, _)) in calls.iter().enumerate().filter(|(_, (_, call))| *call == Call::Publish) {
        let last = |before: usize, wanted: &[Call]| {
            calls[..before].iter().rposition(|(other, call)| other == who && wanted.contains(call))
        };
        let read = last(at, &[Call::ReadVault]).unwrap();
        assert!(last(read, &[Call::Attested, Call::Attest]).is_some(), "replica {who}, call {at}: {calls:?}");
    }
}

/// What must hold once everything is open: one root, whose key is nowhere, and signers under it.
fn assert_signed(world: &World) {
    let state = world.state();
    let Stored::Signing { version: 1, record } = &state.stored else { panic!("{:?}", state.stored) };
    assert_eq!(state.issuers.len(), 1);
    assert_waited_for(world);
    for (cluster, side) in state.clusters.iter().enumerate() {
        let Published::Present(copy) = &side.cacerts else { panic!("no cacerts") };
        let sound = copy.verdict.as_ref().unwrap();
        assert_eq!((&sound.bundle.root_cert, copy.annotated_state), (&record.root_cert, Some(record.state())));
        assert!(!sound.signs_with_the_root() && record.roots().contains(&sound.root));
        let pin = side.pin.pin.as_ref().unwrap();
        assert_eq!((pin.root, &pin.roots, pin.contradicted), (sound.root, record.roots(), None));
        let noted = noted(world, cluster);
        assert_eq!((noted.state, noted.sha256.last()), (record.state(), Some(&sound.signing_ca.sha256)));
    }
}

/// A cluster with a signer, and a process that has opened it.
async fn opened() -> (Arc<World>, Process) {
    let world = World::new(1);
    let mut process = Process::begin(&world, who(Role::Bootstrap));
    assert_eq!(process.attempt().await, None);
    (world, process)
}

#[tokio::test(start_paused = true)]
async fn from_nothing_the_root_is_made_in_vault_and_a_signer_certified_and_published() {
    let world = World::new(1);
    assert_eq!(attempt(&world, who(Role::Bootstrap)).await, None);
    assert_signed(&world);
    let is_step = |call: &Call| {
        use Call::{Attest, Certify, Create, Issuer, MakeRoot, Publish, ReadVault, WritePin};
        matches!(call, MakeRoot | Create | Attest | ReadVault | Issuer | Certify | Publish | WritePin)
    };
    let steps: Vec<_> = world.calls().into_iter().map(|(_, call)| call).filter(is_step).collect();
    use Call::{Attest, Certify, Create, Issuer, MakeRoot, Publish, ReadVault, WritePin};
    let made = [ReadVault, MakeRoot, ReadVault, Create];
    let joined = [ReadVault, Attest];
    let published = [ReadVault, Issuer, Certify, Publish];
    assert_eq!(steps, [&made[..], &joined, &published, &[ReadVault, WritePin]].concat());
    assert_eq!(world.state().certified, 1);
    assert!(matches!(
        world.told()[..],
        [Happened::Bootstrapped { .. }, Happened::Published { version: 1, signer: true, .. }]
    ));
}

#[tokio::test(start_paused = true)]
async fn each_cluster_has_a_signer_of_its_own_under_the_one_root() {
    let world = World::new(2);
    let nas = Who { replica: 1, cluster: 1, ..who(Role::Sync) };
    join_all([who(Role::Bootstrap), nas].map(|who| live(Arc::clone(&world), who))).await;
    assert_signed(&world);
    assert_ne!(signer(&world, 0).1, signer(&world, 1).1, "no key is in two clusters");
}

#[tokio::test(start_paused = true)]
async fn an_open_gate_asks_the_pki_engine_for_nothing_until_a_renewal_is_due() {
    let (world, mut process) = opened().await;
    let calls = |world: &World| world.count(Call::Issuer) + world.count(Call::Certify);
    let before = calls(&world);
    for _ in 0..50 {
        tokio::time::advance(DAY).await;
        assert_eq!(process.attempt().await, None);
    }
    assert_eq!(calls(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_signer_is_renewed_with_its_key_while_the_gate_is_open() {
    let (world, mut process) = opened().await;
    let (first, key) = signer(&world, 0);
    tokio::time::advance(62 * DAY).await;
    assert_eq!(process.attempt().await, None);
    let (second, same_key) = signer(&world, 0);
    assert!(second.valid_until > first.valid_until && key == same_key);
    assert_eq!(noted(&world, 0).sha256, [first.sha256, second.sha256]);
    assert_signed(&world);
    let renewed = Happened::SignerRenewed { until: second.valid_until };
    assert_eq!(world.told().into_iter().filter(|told| *told == renewed).count(), 1);
    // And not again.
    assert_eq!(process.attempt().await, None);
    assert_eq!(world.state().certified, 2);
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_not_closed_for_a_moment_while_its_signer_is_renewed() {
    let (world, mut process) = opened().await;
    tokio::time::advance(62 * DAY).await;
    // As a gate that compares each minute.
    process.converger.state.send_modify(|state| {
        let verified = state.verified.as_mut().unwrap();
        verified.at = told_at();
    });
    world.in_the_order_of(7);
    let converger = process.converger.clone();
    let watching = async {
        let mut seen = 0;
        while world.state().certified < 2 || seen < 10 {
            assert!(converger.look(|known| known.convergence.verified.is_some()));
            seen += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (held, ()) = tokio::join!(process.attempt(), watching);
    assert_eq!(held, None);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_gate_open_until_the_signer_ends() {
    for reason in [Reason::SigningRefused, Reason::VaultUnreachable] {
        let (world, mut process) = opened().await;
        let (first, _) = signer(&world, 0);
        let mut attempts = 0;
        tokio::time::advance(62 * DAY).await;
        while told_at().wall < first.valid_until {
            world.fault(Call::Certify, Fault::Refused(reason));
            assert_eq!(process.attempt().await, None, "{reason}");
            assert!(process.converger.look(|known| known.is_open(&POLICY, told_at())));
            attempts += 1;
            tokio::time::advance(DAY).await;
        }
        let failed = |told: &Happened| matches!(told, Happened::SignerNotRenewed { held, until } if held.reason == reason && *until == first.valid_until);
        assert_eq!(world.told().iter().filter(|told| failed(told)).count(), attempts);
        assert!(attempts > 20);
        assert_eq!(signer(&world, 0).0, first);
        // It is given back in time.
        assert_eq!(world.faults_left(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_past_its_end_is_certified_anew_with_its_key() {
    let (world, mut process) = opened().await;
    let (first, key) = signer(&world, 0);
    world.vault_is_down(Some(Reason::VaultUnreachable));
    tokio::time::advance(91 * DAY).await;
    assert_eq!(process.attempt().await, Some(Reason::VaultUnreachable));
    assert!(!process.converger.look(|known| known.is_open(&POLICY, told_at())));
    world.vault_is_down(None);
    // What was read is judged anew by then, as reading from the API server does.
    world.change(|state| state.judge_cacerts_anew(0));
    assert_eq!(process.attempt().await, None);
    let (second, same_key) = signer(&world, 0);
    assert!(second.valid_until > first.valid_until && key == same_key);
}

/// The record with another root beside the first, by which nobody signs yet.
fn trust_another(world: &World) {
    world.change(|state| {
        let (old, new) = (state.make_root("root-1"), state.make_root("root-2"));
        let mut data = Map::new();
        data.insert("root-cert.pem".to_owned(), json!(format!("{old}{new}")));
        data.insert(ISSUER.to_owned(), json!("root-1"));
        data.insert(CHAIN.to_owned(), json!(""));
        state.stored = plan::stored(2, &data, told_at().wall);
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_state_of_the_record_gets_a_signer_of_its_own_with_the_same_key() {
    let (world, mut process) = opened().await;
    let (first, key) = signer(&world, 0);
    trust_another(&world);
    assert_eq!(process.attempt().await, None);
    let (second, same_key) = signer(&world, 0);
    assert!(first.sha256 != second.sha256 && key == same_key);
    assert_eq!(noted(&world, 0).sha256, [second.sha256], "those of the state before prove nothing");
    assert_eq!(world.state().clusters[0].pin.pin.as_ref().unwrap().roots.len(), 2);
    assert!(world.count(Call::Contradict) == 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_signer_is_bridged_as_long_as_the_root_is_trusted() {
    let (world, mut process) = opened().await;
    trust_another(&world);
    world.fault(Call::Certify, Fault::Refused(Reason::SigningRefused));
    assert_eq!(process.attempt().await, Some(Reason::SigningRefused));
    let is_open = |process: &Process| process.converger.look(|known| known.is_open(&POLICY, told_at()));
    assert!(is_open(&process));
    tokio::time::advance(2 * DAY).await;
    assert!(!is_open(&process));
    // A cluster that has never been verified has nothing to go by.
    let world = World::new(1);
    world.change(|state| drop(state.make_root("root-1")));
    world.fault(Call::Certify, Fault::Refused(Reason::SigningRefused));
    let mut process = Process::begin(&world, who(Role::Bootstrap));
    assert_eq!(process.attempt().await, Some(Reason::SigningRefused));
    assert!(!is_open(&process));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_says_no_is_asked_seldom_and_then_again() {
    let (world, mut process) = opened().await;
    trust_another(&world);
    world.change(|state| state.issuers.clear());
    let before = world.count(Call::Issuer);
    for _ in 0..1800 {
        assert_eq!(process.attempt().await, Some(Reason::SigningRefused));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let asked = world.count(Call::Issuer) - before;
    assert!((60..70).contains(&asked), "{asked} times in half an hour");
    world.change(|state| state.make_root("root-1"));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(process.attempt().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_cannot_be_written_is_not_certified_anew_each_time() {
    for reason in [Reason::KubernetesForbidden, Reason::KubernetesUnreachable] {
        let world = World::new(1);
        let mut process = Process::begin(&world, who(Role::Bootstrap));
        for _ in 0..10 {
            world.fault(Call::Publish, Fault::Refused(reason));
            assert_eq!(process.attempt().await, Some(reason));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert_eq!(process.attempt().await, None);
        assert_eq!(world.state().certified, 1, "{reason}");
        assert_signed(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_replicas_that_renew_at_once_one_wins_and_the_other_goes_along() {
    for seed in 0..50 {
        let (world, first) = opened().await;
        let second = Process::begin(&world, Who { replica: 1, ..who(Role::Bootstrap) });
        tokio::time::advance(62 * DAY).await;
        world.in_the_order_of(seed);
        let (_, key) = signer(&world, 0);
        let held = join_all([first, second].map(|mut process| async move { process.attempt().await })).await;
        assert_eq!(held, [None, None], "{seed}");
        assert_eq!(signer(&world, 0).1, key);
        assert_eq!(world.count(Call::Publish), 1 + world.state().certified - 1);
        let told = world.told();
        let renewed = told.iter().filter(|told| matches!(told, Happened::SignerRenewed { .. })).count();
        assert_eq!(renewed, 1, "seed {seed}: {told:?}");
        assert_signed(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_of_two_clusters_make_one_root_in_whatever_order() {
    for seed in 0..50 {
        let world = World::new(2);
        world.in_the_order_of(seed);
        let who = [(0, Role::Bootstrap), (0, Role::Bootstrap), (1, Role::Bootstrap), (1, Role::Bootstrap)];
        let who =
            who.into_iter().enumerate().map(|(replica, (cluster, role))| Who { replica, cluster, ..self::who(role) });
        join_all(who.map(|who| live(Arc::clone(&world), who))).await;
        assert_signed(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn no_signer_is_published_before_the_cluster_has_attested_in_either_role() {
    for role in [Role::Bootstrap, Role::Sync] {
        for (reason, told) in [
            (Reason::VaultPermissionDenied, Reason::SigningRefused),
            (Reason::VaultUnreachable, Reason::VaultUnreachable),
        ] {
            let world = World::new(1);
            world.change(|state| {
                let root = state.make_root("root-1");
                let data = crate::ca::record::SigningRecord::first(&root, &"root-1".parse().unwrap());
                state.stored = plan::stored(1, &data, told_at().wall);
            });
            let mut process = Process::begin(&world, who(role));
            for call in [Call::Attested, Call::Attest] {
                world.fault(call, Fault::Refused(reason));
                assert_eq!(process.attempt().await, Some(told));
                let state = world.state();
                assert!(matches!(state.clusters[0].cacerts, Published::Absent) && state.certified == 0);
                tokio::time::advance(Duration::from_secs(31)).await;
            }
            assert_eq!(process.attempt().await, None);
            assert_signed(&world);
            let said = world.state().attested["cluster-0"].0.clone();
            assert_eq!((said.settled, said.state, said.record_version), (None, None, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_forgotten_attests_again_before_it_publishes_again() {
    let (world, mut process) = opened().await;
    world.change(|state| state.attested.clear());
    trust_another(&world);
    assert_eq!(process.attempt().await, None);
    assert!(world.state().attested.contains_key("cluster-0"));
    assert_waited_for(&world);
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_has_attested_to_is_not_written_over_by_who_publishes() {
    let (world, mut process) = opened().await;
    let settled = Attestation { settled: Some(told_at().wall), ..world.state().attested["cluster-0"].0.clone() };
    world.change(|state| state.attested.insert("cluster-0".to_owned(), (settled.clone(), 2)));
    trust_another(&world);
    assert_eq!(process.attempt().await, None);
    assert_eq!(world.state().attested["cluster-0"], (settled, 2));
}

/// A life from nothing, with a fault at this call. `None`: there was no such call.
async fn life(replicas: usize, seed: u64, number: usize, fault: Fault) -> Option<()> {
    let world = World::new(1);
    if replicas > 1 {
        world.in_the_order_of(seed);
    }
    world.fault_at(number, fault);
    let who = |replica| Who { replica, ..who(Role::Bootstrap) };
    join_all((0..replicas).map(|replica| live(Arc::clone(&world), who(replica)))).await;
    assert_signed(&world);
    (world.faults_left() == 0).then_some(())
}

#[tokio::test(start_paused = true)]
async fn whatever_call_a_process_ends_at_or_gets_no_answer_to_it_goes_on() {
    let mut points = 0;
    for (replicas, seeds) in [(1, 0..1), (3, 0..3)] {
        for seed in seeds {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Lost, Fault::AnswerLost, Fault::Late(5)] {
                for number in 0.. {
                    if life(replicas, seed, number, fault).await.is_none() {
                        break;
                    }
                    points += 1;
                }
            }
        }
    }
    assert!(points > 700, "{points}");
}

/// A renewal with this fault at each of its calls. A test of its own for each fault: time moves on by years.
async fn renewals(fault: Fault) {
    let mut points = 0;
    for number in 0.. {
        let (world, process) = opened().await;
        drop(process);
        tokio::time::advance(62 * DAY).await;
        let (first, key) = signer(&world, 0);
        world.fault_at(world.calls().len() + number, fault);
        live(Arc::clone(&world), who(Role::Bootstrap)).await;
        // A renewal without an answer leaves it open, and is tried at the next comparison.
        live(Arc::clone(&world), who(Role::Bootstrap)).await;
        let (second, same_key) = signer(&world, 0);
        assert!(second.valid_until > first.valid_until && key == same_key, "{fault:?} of call {number}");
        assert_signed(&world);
        if world.faults_left() > 0 {
            break;
        }
        points += 1;
    }
    assert!(points > 17, "{points}");
}

#[tokio::test(start_paused = true)]
async fn before_whatever_call_of_a_renewal_a_process_ends_the_next_one_goes_on() {
    renewals(Fault::CrashBefore).await;
}

#[tokio::test(start_paused = true)]
async fn after_whatever_call_of_a_renewal_a_process_ends_the_next_one_goes_on() {
    renewals(Fault::CrashAfter).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_of_a_renewal_gets_no_answer_it_is_renewed() {
    renewals(Fault::AnswerLost).await;
}
