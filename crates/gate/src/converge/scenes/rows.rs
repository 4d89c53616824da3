//! Each row of the convergence table, as an attempt goes through it: what it comes to, and what it writes.

use super::super::memory::{Call, ours};
use super::*;
use crate::ca::check::Flaw;
use crate::cluster::Happened;
use crate::plan::{Contradiction, Mesh, Owner, Pin};
use crate::samples::{BOTH, FOREIGN_KEY, R1, R1_OTHER_BYTES, R2, UNSOUND, clocks, external_secrets, present, stored};

/// A world with one cluster that is like this.
fn world(in_vault: Stored, cacerts: Published) -> Arc<World> {
    let world = World::new(1);
    world.change(|state| {
        state.stored = in_vault;
        state.put_cacerts(0, cacerts);
    });
    world
}

fn pinned(world: Arc<World>, root: &Sound) -> Arc<World> {
    let pin = Pin { roots: root.roots().clone(), verified_at: Some(clocks().wall), ..Pin::of(root.root) };
    world.change(|state| state.put_pin(0, Some(pin)));
    world
}

/// The writes that were made, or tried.
fn writes(world: &World) -> Vec<Call> {
    let is_write = |call: &Call| {
        matches!(call, Call::Create | Call::Publish | Call::WritePin | Call::Contradict | Call::ForceSync)
    };
    world.calls().into_iter().map(|(_, call)| call).filter(is_write).collect()
}

fn replacing(role: Role) -> Who {
    Who { on_root_change: OnRootChange::Replace, ..Who::first(role) }
}

const ROLES: [Role; 2] = [Role::Bootstrap, Role::Sync];

/// What an attempt comes to in either role, and that it writes this.
async fn in_each_role(world: impl Fn() -> Arc<World>, reason: Option<Reason>, expected: &[Call]) {
    for role in ROLES {
        let world = world();
        assert_eq!(attempt(&world, Who::first(role)).await, reason, "{role:?}");
        assert_eq!(writes(&world), expected, "{role:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn from_nothing_a_root_is_made_read_back_published_and_pinned() {
    let world = World::new(1);
    assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, None);
    assert_one_root(&world);
    assert_eq!(writes(&world), [Call::Create, Call::Publish, Call::WritePin]);
    let reads = world.calls().iter().position(|(_, call)| *call == Call::Create).unwrap();
    let after: Vec<_> = world.calls().into_iter().skip(reads + 1).map(|(_, call)| call).collect();
    assert!(
        after.iter().position(|call| *call == Call::ReadVault) < after.iter().position(|call| *call == Call::Publish)
    );
    assert!(matches!(world.told()[..], [Happened::Bootstrapped { .. }, Happened::Published { version: 1, .. }]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_in_the_sync_role() {
    let world = World::new(1);
    assert_eq!(attempt(&world, Who::first(Role::Sync)).await, Some(Reason::RootMissing));
    assert_eq!(writes(&world), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_beside_a_cacerts_that_is_there() {
    for cacerts in [present(Owner::Other, Ok(Arc::clone(&R1))), present(Owner::Other, Err(UNSOUND))] {
        let world = world(Stored::Absent, cacerts);
        assert_eq!(attempt(&world, Who::first(Role::Bootstrap)).await, Some(Reason::CacertsUnknown));
        assert_eq!(writes(&world), []);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_where_the_cluster_has_a_pin_and_that_is_noted_first() {
    let world = || pinned(World::new(1), &R1);
    in_each_role(world, Some(Reason::RootDeleted), &[Call::Contradict]).await;
}

#[tokio::test(start_paused = true)]
async fn the_annotation_of_a_cacerts_of_ours_is_a_pin_as_well() {
    in_each_role(|| world(Stored::Absent, ours(&R1)), Some(Reason::RootDeleted), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_or_published_beside_another_root_of_the_mesh() {
    for (in_vault, role) in
        [(Stored::Absent, Role::Bootstrap), (stored(&R1), Role::Sync), (stored(&R1), Role::Bootstrap)]
    {
        let world = world(in_vault, Published::Absent);
        world.change(|state| state.clusters[0].mesh = Mesh::Serves { first: R2.root, roots: R2.roots().clone() });
        assert_eq!(attempt(&world, Who::first(role)).await, Some(Reason::MeshOnOtherRoot));
        assert_eq!(writes(&world), []);
        assert_eq!(attempt(&world, replacing(role)).await, None, "replace goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_never_made_anew() {
    let deleted = || world(Stored::Deleted { version: 1 }, Published::Absent);
    in_each_role(deleted, Some(Reason::RootDeleted), &[]).await;
    let known = || pinned(world(Stored::Deleted { version: 1 }, ours(&R1)), &R1);
    in_each_role(known, Some(Reason::RootDeleted), &[Call::Contradict]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sound_in_vault_is_not_published() {
    let unsound = || world(Stored::Unsound { version: 1, flaw: UNSOUND }, Published::Absent);
    in_each_role(unsound, Some(Reason::RootInvalid), &[]).await;
    let at = crate::ca::check::At { file: "root-cert.pem", position: 1 };
    let expired = move || Stored::Unsound { version: 1, flaw: Flaw::Expired(at, clocks().wall) };
    in_each_role(|| world(expired(), Published::Absent), Some(Reason::RootExpired), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn another_root_than_the_pinned_one_holds_and_is_followed_where_that_is_asked_for() {
    let changed = || pinned(world(stored(&R2), ours(&R1)), &R1);
    in_each_role(changed, Some(Reason::RootChanged), &[Call::Contradict]).await;
    for role in ROLES {
        let world = changed();
        assert_eq!(attempt(&world, replacing(role)).await, None);
        assert_eq!(world.state().clusters[0].pin.pin.as_ref().unwrap().root, R2.root);
        assert_eq!(world.state().clusters[0].pin.pin.as_ref().unwrap().contradicted, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_under_a_root_that_nobody_here_trusts_yet_holds() {
    // Root 1 signs and both are trusted, before a cluster that trusts root 2 alone.
    in_each_role(|| pinned(world(stored(&BOTH), ours(&R2)), &R2), Some(Reason::RootChanged), &[Call::Contradict]).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_root_beside_the_pinned_one_is_followed_and_noted_until_it_is() {
    let expected = [Call::Contradict, Call::Publish, Call::WritePin];
    in_each_role(|| pinned(world(stored(&BOTH), ours(&R1)), &R1), None, &expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_root_without_a_cacerts_is_published() {
    in_each_role(|| world(stored(&R1), Published::Absent), None, &[Call::Publish, Call::WritePin]).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_roots_by_external_secrets_open() {
    let same = || world(stored(&R1), present(external_secrets(), Ok(Arc::clone(&R1))));
    in_each_role(same, None, &[Call::WritePin]).await;
}

#[tokio::test(start_paused = true)]
async fn other_roots_by_external_secrets_are_asked_for_and_never_written() {
    for verdict in [Ok(Arc::clone(&R2)), Err(UNSOUND)] {
        let other = || world(stored(&R1), present(external_secrets(), verdict.clone()));
        in_each_role(other, Some(Reason::CacertsManagedElsewhere), &[Call::ForceSync]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn marks_of_external_secrets_that_were_left_behind_hold_in_words_of_their_own() {
    let world = world(stored(&R1), present(external_secrets(), Ok(Arc::clone(&R2))));
    world.nobody_makes_the_secret();
    let mut process = Process::begin(&world, Who::first(Role::Sync));
    assert_eq!(process.attempt().await, Some(Reason::CacertsManagedElsewhere));
    let held = process.converger.look(|known| known.convergence.held.clone().unwrap());
    assert_eq!(held, crate::plan::left_behind(&names()));
}

#[tokio::test(start_paused = true)]
async fn the_same_ca_of_ours_opens_whatever_its_bytes() {
    for same in [&R1, &R1_OTHER_BYTES] {
        in_each_role(|| world(stored(&R1), ours(same)), None, &[Call::WritePin]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ours_is_mended() {
    let tampered = || pinned(world(stored(&R1), present(Owner::Ours, Err(UNSOUND))), &R1);
    for role in ROLES {
        let world = tampered();
        assert_eq!(attempt(&world, Who::first(role)).await, None);
        assert_eq!(writes(&world)[0], Call::Publish);
        let Published::Present(copy) = world.state().clusters[0].cacerts.clone() else { panic!() };
        assert!(copy.verdict.as_ref().is_ok_and(|sound| sound.same_bytes(&R1)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_be_of_no_use_beside_other_keys_is_not_published() {
    let foreign = || world(stored(&R1), present(Owner::Ours, Err(FOREIGN_KEY)));
    in_each_role(foreign, Some(Reason::CacertsInvalid), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_immutable_is_not_written() {
    let immutable = || {
        let Published::Present(copy) = present(Owner::Ours, Ok(Arc::clone(&R2))) else { panic!() };
        let copy = crate::plan::Copy { immutable: true, ..crate::plan::Copy::clone(&copy) };
        world(stored(&R1), Published::Present(Arc::new(copy)))
    };
    in_each_role(immutable, Some(Reason::KubernetesForbidden), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_is_left_alone_unless_it_has_the_same_roots() {
    for (verdict, reason, expected) in [
        (Ok(Arc::clone(&R1)), None, &[Call::WritePin][..]),
        (Err(UNSOUND), Some(Reason::CacertsInvalid), &[]),
        (Ok(Arc::clone(&R2)), Some(Reason::RootChanged), &[]),
    ] {
        in_each_role(|| world(stored(&R1), present(Owner::Other, verdict.clone())), reason, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_with_other_roots_is_replaced_where_that_is_asked_for() {
    let world = world(stored(&R1), present(Owner::Other, Ok(Arc::clone(&R2))));
    assert_eq!(attempt(&world, replacing(Role::Sync)).await, None);
    assert_eq!(writes(&world), [Call::Publish, Call::WritePin]);
}

#[tokio::test(start_paused = true)]
async fn an_agreement_ends_what_contradicted_the_pin() {
    let world = pinned(world(stored(&R1), ours(&R1)), &R1);
    let by = Contradiction { by: Reason::RootDeleted, at: clocks().wall };
    world.change(|state| {
        let pin = state.clusters[0].pin.pin.clone().map(|pin| Pin { contradicted: Some(by), ..pin });
        state.put_pin(0, pin);
    });
    assert_eq!(attempt(&world, Who::first(Role::Sync)).await, None);
    assert_eq!(writes(&world), [Call::WritePin]);
    assert_eq!(world.state().clusters[0].pin.pin.as_ref().unwrap().contradicted, None);
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_says_it_all_is_not_written_again_before_its_date_is_old() {
    let world = world(stored(&R1), ours(&R1));
    let mut process = Process::begin(&world, Who::first(Role::Sync));
    assert_eq!(process.attempt().await, None);
    assert_eq!(process.attempt().await, None);
    assert_eq!(world.count(Call::WritePin), 1);
    tokio::time::advance(Duration::from_secs(3601)).await;
    assert_eq!(process.attempt().await, None);
    assert_eq!(world.count(Call::WritePin), 2);
}
