//! Several replicas and clusters on one store, in orders that a seed decides.

use super::super::memory::{Call, Fault};
use super::*;
use futures::future::join_all;

/// Which replica is in which cluster and role.
fn replicas(roles: &[(usize, Role)]) -> Vec<Who> {
    let who =
        |(replica, (cluster, role)): (usize, &(usize, Role))| Who { replica, cluster: *cluster, ..Who::first(*role) };
    roles.iter().enumerate().map(who).collect()
}

/// All of them from nothing until all are open, and what every one of them has verified.
async fn race(world: &Arc<World>, who: Vec<Who>) {
    let verified = join_all(who.into_iter().map(|who| live(Arc::clone(world), who))).await;
    let root = in_vault(world).root;
    for verified in &verified {
        assert_eq!((verified.version, verified.stored.root), (1, root));
    }
    assert_one_root(world);
}

const BOOTSTRAP: (usize, Role) = (0, Role::Bootstrap);

#[tokio::test(start_paused = true)]
async fn two_replicas_make_one_root_in_whatever_order() {
    for seed in 0..100 {
        let world = World::new(1);
        world.in_the_order_of(seed);
        race(&world, replicas(&[BOOTSTRAP; 2])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_replicas_make_one_root_in_whatever_order() {
    let mut lost = 0;
    for seed in 0..100 {
        let world = World::new(1);
        world.in_the_order_of(seed);
        race(&world, replicas(&[BOOTSTRAP; 3])).await;
        lost += usize::from(world.count(Call::Create) > 1);
    }
    assert!(lost > 10, "of 100 races, {lost} had a second writer");
}

#[tokio::test(start_paused = true)]
async fn two_clusters_started_together_get_one_root() {
    for seed in 0..50 {
        let world = World::new(2);
        world.in_the_order_of(seed);
        race(&world, replicas(&[BOOTSTRAP, BOOTSTRAP, (1, Role::Sync), (1, Role::Sync)])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_clusters_both_in_the_bootstrap_role_get_one_root() {
    for seed in 0..50 {
        let world = World::new(2);
        world.in_the_order_of(seed);
        race(&world, replicas(&[BOOTSTRAP, BOOTSTRAP, (1, Role::Bootstrap), (1, Role::Bootstrap)])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_race_with_any_call_lost_or_late_ends_with_one_root() {
    for number in 0..30 {
        for fault in [Fault::Lost, Fault::AnswerLost, Fault::Late(7)] {
            let world = World::new(1);
            world.in_the_order_of(number as u64);
            world.fault_at(number, fault);
            race(&world, replicas(&[BOOTSTRAP; 3])).await;
            assert_eq!(world.faults_left(), 0, "{fault:?} of call {number}");
        }
    }
}
