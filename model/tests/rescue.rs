//! What the model of a rescue explores, and that it finds what is wrong where something is.
#![allow(clippy::expect_used)]

use model::rescue::{Flaw, Rescues};
use stateright::{Checker, Model};

#[test]
fn two_clusters_on_roots_of_their_own_are_brought_under_one_in_every_order() {
    let checked = Rescues::with(Flaw::Nothing).checker().spawn_bfs().join();
    let (unique, all) = (checked.unique_state_count(), checked.state_count());
    eprintln!("a rescue: {unique} states, {all} steps, depth {}", checked.max_depth());
    checked.assert_properties();
}

#[test]
fn each_thing_that_could_be_wrong_with_it_is_caught() {
    for flaw in [
        Flaw::SwitchAtOnce,
        Flaw::DropAtOnce,
        Flaw::BroughtUnderTheGoal,
        Flaw::BroughtWithoutTheOthers,
        Flaw::OneIsLeftOut,
    ] {
        let model = Rescues::with(flaw).checker();
        let checked = model.finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checked.discoveries();
        let (name, path) = found.iter().find(|(name, _)| !name.starts_with("one root")).expect("it is caught");
        let path: Vec<_> = path.clone().into_actions();
        eprintln!("{flaw:?}: not true that {name}, after {} steps: {path:?}", path.len());
    }
}
