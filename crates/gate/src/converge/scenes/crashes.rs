//! The end of a process before and after every call, in each role, of one replica and of three. It begins anew, without
//! what it knew, and all of them end with one root.

use super::super::memory::Fault;
use super::*;
use crate::samples::R1;
use futures::future::join_all;

/// So many replicas from nothing, or in the sync role from a store that has a root, with a crash at this call. `None`: there
/// was no such call.
async fn life(role: Role, replicas: usize, seed: u64, crash: (usize, Fault)) -> Option<()> {
    let world = World::new(1);
    if role == Role::Sync {
        world.change(|state| state.stored = Stored::Sound { version: 1, sound: Arc::clone(&R1) });
    }
    if replicas > 1 {
        world.in_the_order_of(seed);
    }
    world.fault_at(crash.0, crash.1);
    let who = |replica| Who { replica, ..Who::first(role) };
    join_all((0..replicas).map(|replica| live(Arc::clone(&world), who(replica)))).await;
    assert_one_root(&world);
    (world.faults_left() == 0).then_some(())
}

/// At every call, until there is none of that number. Returns how many there were.
async fn at_every_call(role: Role, replicas: usize, seed: u64) -> usize {
    let mut points = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for number in 0.. {
            if life(role, replicas, seed, (number, fault)).await.is_none() {
                break;
            }
            points += 1;
        }
    }
    points
}

#[tokio::test(start_paused = true)]
async fn one_replica_in_the_bootstrap_role_goes_on_from_wherever_it_ended() {
    assert!(at_every_call(Role::Bootstrap, 1, 0).await > 30);
}

#[tokio::test(start_paused = true)]
async fn one_replica_in_the_sync_role_goes_on_from_wherever_it_ended() {
    assert!(at_every_call(Role::Sync, 1, 0).await > 15);
}

#[tokio::test(start_paused = true)]
async fn three_replicas_in_the_bootstrap_role_go_on_wherever_one_ended() {
    let mut points = 0;
    for seed in 0..5 {
        points += at_every_call(Role::Bootstrap, 3, seed).await;
    }
    assert!(points > 400, "{points}");
}

#[tokio::test(start_paused = true)]
async fn three_replicas_in_the_sync_role_go_on_wherever_one_ended() {
    let mut points = 0;
    for seed in 0..5 {
        points += at_every_call(Role::Sync, 3, seed).await;
    }
    assert!(points > 200, "{points}");
}

#[tokio::test(start_paused = true)]
async fn two_ends_in_one_life_leave_one_root() {
    for first in 0..20 {
        for second in first + 1..24 {
            let world = World::new(1);
            world.fault_at(first, Fault::CrashAfter);
            world.fault_at(second, Fault::CrashAfter);
            live(Arc::clone(&world), Who::first(Role::Bootstrap)).await;
            assert_one_root(&world);
        }
    }
}
