//! Answers that are lost, late, or of one that is behind: whatever was done, all is read again, and nothing is made twice.

use super::super::memory::{Call, Fault, ours};
use super::*;
use crate::plan::Pin;
use crate::samples::{R1, R2, clocks, stored};

/// Attempts of one process until the gate is open.
async fn open_in_the_end(world: &Arc<World>, role: Role) -> Vec<Reason> {
    let mut process = Process::begin(world, Who::first(role));
    let mut held = Vec::new();
    while let Some(reason) = process.attempt().await {
        held.push(reason);
        assert!(held.len() < 10, "{held:?}");
    }
    assert_eq!(world.faults_left(), 0, "a fault has not happened");
    assert_one_root(world);
    held
}

/// From nothing, with this fault.
async fn with(call: Call, fault: Fault) -> (Vec<Reason>, Arc<World>) {
    let world = World::new(1);
    world.fault(call, fault);
    (open_in_the_end(&world, Role::Bootstrap).await, world)
}

#[tokio::test(start_paused = true)]
async fn a_root_whose_writes_answer_is_lost_is_read_back_and_used() {
    let (held, world) = with(Call::Create, Fault::AnswerLost).await;
    assert_eq!((held, world.count(Call::Create)), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn a_root_whose_write_is_lost_is_written_again_and_no_other_one() {
    let (held, world) = with(Call::Create, Fault::Lost).await;
    assert_eq!((held, world.count(Call::Create)), (vec![Reason::VaultUnreachable], 2));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_arrives_late_writes_the_same_root_or_nothing() {
    for calls in 0..20 {
        let (_, world) = with(Call::Create, Fault::Late(calls)).await;
        // Whatever is still under way arrives.
        for _ in 0..20 {
            assert_eq!(attempt(&world, Who { life: 5, ..Who::first(Role::Bootstrap) }).await, None);
        }
        assert_one_root(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_back_that_is_behind_is_waited_for() {
    let world = World::new(1);
    let mut process = Process::begin(&world, Who::first(Role::Bootstrap));
    // The third read of Vault is the one after the write.
    let calls = {
        let other = World::new(1);
        assert_eq!(attempt(&other, Who::first(Role::Bootstrap)).await, None);
        other.calls()
    };
    let third = calls.iter().enumerate().filter(|(_, (_, call))| *call == Call::ReadVault).nth(2).unwrap().0;
    world.fault_at(third, Fault::Behind);
    assert_eq!(process.attempt().await, Some(Reason::VaultUnreachable));
    assert_eq!(world.count(Call::Create), 1);
    assert_eq!(process.attempt().await, None);
    assert_eq!(world.count(Call::Create), 1, "it was there");
    assert_one_root(&world);
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_of_the_root_holds_and_is_tried_again() {
    let (held, world) = with(Call::Create, Fault::Refused(Reason::VaultPermissionDenied)).await;
    assert_eq!((held, world.count(Call::Create)), (vec![Reason::VaultPermissionDenied], 2));
}

#[tokio::test(start_paused = true)]
async fn a_cacerts_whose_writes_answer_is_lost_is_found_to_be_right() {
    let (held, world) = with(Call::Publish, Fault::AnswerLost).await;
    assert_eq!((held, world.count(Call::Publish)), (vec![Reason::KubernetesUnreachable], 1));
}

#[tokio::test(start_paused = true)]
async fn a_cacerts_whose_write_is_lost_is_written_again() {
    let (held, world) = with(Call::Publish, Fault::Lost).await;
    assert_eq!((held, world.count(Call::Publish)), (vec![Reason::KubernetesUnreachable], 2));
}

#[tokio::test(start_paused = true)]
async fn a_cacerts_that_is_written_late_changes_nothing_that_is_right() {
    for calls in 0..12 {
        let (_, world) = with(Call::Publish, Fault::Late(calls)).await;
        let version = world.state().clusters[0].cacerts.resource_version().to_owned();
        for _ in 0..12 {
            assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, None);
        }
        assert_eq!(world.state().clusters[0].cacerts.resource_version(), version);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_whose_writes_answer_is_lost_or_that_is_lost_or_late_keeps_it_closed_until_it_is_there() {
    for fault in [Fault::AnswerLost, Fault::Lost, Fault::Late(3)] {
        let (held, _) = with(Call::WritePin, fault).await;
        assert_eq!(held, [Reason::KubernetesUnreachable], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_the_pin_that_is_behind_overwrites_none() {
    // It knows of no pin; another replica has written one since.
    let world = World::new(1);
    world.change(|state| {
        state.stored = stored(&R1);
        state.put_cacerts(0, ours(&R1));
    });
    assert_eq!(attempt(&world, Who::first(Role::Sync)).await, None);
    let before = world.state().clusters[0].pin.clone();
    world.fault(Call::ReadPin, Fault::Behind);
    assert_eq!(attempt(&world, Who { replica: 1, ..Who::first(Role::Sync) }).await, None);
    assert_eq!(world.state().clusters[0].pin, before);
    assert_eq!(world.count(Call::WritePin), 2, "one of them in vain");
}

#[tokio::test(start_paused = true)]
async fn any_call_may_be_lost_once() {
    let total = {
        let world = World::new(1);
        assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, None);
        world.calls().len()
    };
    assert!(total > 15, "{total}");
    for at in 0..total {
        for fault in [Fault::Lost, Fault::AnswerLost] {
            let world = World::new(1);
            world.fault_at(at, fault);
            let held = open_in_the_end(&world, Role::Bootstrap).await;
            assert!(held.len() <= 1, "{fault:?} of call {at}: {held:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_never_taken_for_absent() {
    let outages =
        [Reason::VaultUnreachable, Reason::VaultSealed, Reason::VaultPermissionDenied, Reason::VaultLoginDenied];
    for reason in outages {
        let world = World::new(1);
        world.vault_is_down(Some(reason));
        assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, Some(reason));
        assert_eq!(world.count(Call::Create), 0);
    }
    let world = World::new(1);
    world.api_is_down(true);
    assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, Some(Reason::KubernetesUnreachable));
    assert_eq!((world.count(Call::ReadVault), world.count(Call::Create)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn more_than_one_vault_or_one_that_may_be_another_gets_no_root() {
    let world = World::new(1);
    world.is_one(Err(Reason::VaultAmbiguous));
    assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, Some(Reason::VaultAmbiguous));
    assert_eq!(world.count(Call::Create), 0);
    world.is_one(Ok(()));
    assert_eq!(open_in_the_end(&world, Role::Bootstrap).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_contradiction_that_cannot_be_noted_holds_all_the_same_and_says_so() {
    for fault in [Fault::Lost, Fault::Refused(Reason::KubernetesForbidden)] {
        let world = World::new(1);
        world.change(|state| {
            state.put_cacerts(0, ours(&R1));
            state.put_pin(0, Some(Pin { verified_at: Some(clocks().wall), ..Pin::of(R1.root) }));
        });
        world.fault(Call::Contradict, fault);
        let mut process = Process::begin(&world, Who::first(Role::Sync));
        assert_eq!(process.attempt().await, Some(Reason::RootDeleted));
        assert!(process.is_contradicted());
        let sentence = process.converger.look(|known| known.convergence.held.as_ref().unwrap().sentence());
        assert!(sentence.contains("cannot take note of this"), "{sentence}");
        // Then it can.
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(process.attempt().await, Some(Reason::RootDeleted));
        assert!(world.state().clusters[0].pin.pin.as_ref().unwrap().contradicted.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_contradiction_no_outage_is_bridged_by_any_process() {
    let world = World::new(1);
    world.change(|state| {
        state.stored = stored(&R1);
        state.put_cacerts(0, ours(&R1));
    });
    let (mut one, mut two) = (
        Process::begin(&world, Who::first(Role::Sync)),
        Process::begin(&world, Who { replica: 1, ..Who::first(Role::Sync) }),
    );
    assert_eq!((one.attempt().await, two.attempt().await), (None, None));
    world.change(|state| state.stored = stored(&R2));
    assert_eq!(one.attempt().await, Some(Reason::RootChanged));
    world.vault_is_down(Some(Reason::VaultUnreachable));
    let mut three = Process::begin(&world, Who { replica: 2, ..Who::first(Role::Sync) });
    for process in [&mut one, &mut two, &mut three] {
        assert_eq!(process.attempt().await, Some(Reason::VaultUnreachable));
        assert!(process.converger.look(|known| known.convergence.bridgeable().is_none()));
    }
    // Vault is as it was, and says so.
    world.vault_is_down(None);
    world.change(|state| state.stored = stored(&R1));
    assert_eq!(three.attempt().await, None);
    world.vault_is_down(Some(Reason::VaultUnreachable));
    for process in [&mut one, &mut two, &mut three] {
        assert_eq!(process.attempt().await, Some(Reason::VaultUnreachable));
        assert!(process.converger.look(|known| known.convergence.bridgeable().is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_after_a_restart_by_the_pin() {
    let world = World::new(1);
    assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, None);
    world.vault_is_down(Some(Reason::VaultSealed));
    let mut process = Process::begin(&world, Who { life: 1, ..Who::first(Role::Bootstrap) });
    assert_eq!(process.attempt().await, Some(Reason::VaultSealed));
    assert!(process.converger.look(|known| known.convergence.bridgeable().is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_is_spared_for_a_while() {
    let world = World::new(1);
    world.change(|state| state.stored = stored(&R1));
    world.fault(Call::Publish, Fault::Refused(Reason::KubernetesForbidden));
    let mut process = Process::begin(&world, Who::first(Role::Sync));
    assert_eq!(process.attempt().await, Some(Reason::KubernetesForbidden));
    assert_eq!(process.attempt().await, Some(Reason::KubernetesForbidden));
    assert_eq!(world.count(Call::Publish), 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(process.attempt().await, None);
}
