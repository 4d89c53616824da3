#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::ca::InvalidSha256;
use crate::ca::fixtures::now;
use crate::plan::Copy;
use crate::samples::{R1, UNSOUND, assert_fit_for_users, external_secrets, present};

const ROOT_1: Sha256 = Sha256([0xab; 32]);
const ROOT_2: Sha256 = Sha256([0xcd; 32]);

/// A `cacerts` whose annotation names this root.
fn annotated(owner: Owner, root: Option<Sha256>) -> Published {
    annotated_as(owner, root.map(Ok))
}

fn annotated_as(owner: Owner, annotated_root: Option<Result<Sha256, InvalidSha256>>) -> Published {
    let Published::Present(copy) = present(owner, Ok(Arc::clone(&R1))) else { unreachable!() };
    Published::Present(Arc::new(Copy { annotated_root, ..Copy::clone(&copy) }))
}

fn read(root: Option<Sha256>) -> ReadPin {
    let pin = root.map(|root| Pin { vault_version: Some(3), verified_at: Some(now()), ..Pin::of(root) });
    ReadPin { pin, resource_version: Some("7".to_owned()) }
}

#[test]
fn the_config_map_comes_before_the_annotation() {
    for published in [Published::Absent, annotated(Owner::Ours, Some(ROOT_2)), annotated(Owner::Other, None)] {
        assert_eq!(read(Some(ROOT_1)).in_force(&published), Ok(read(Some(ROOT_1)).pin), "{published:?}");
    }
}

#[test]
fn the_annotation_of_ours_is_the_pin_where_there_is_no_other() {
    let pin = Pin::of(ROOT_2);
    for nothing in [read(None), ReadPin::default()] {
        assert_eq!(nothing.in_force(&annotated(Owner::Ours, Some(ROOT_2))), Ok(Some(pin.clone())));
        assert_eq!(nothing.in_force(&annotated(Owner::Ours, None)), Ok(None));
        assert_eq!(nothing.in_force(&Published::Absent), Ok(None));
    }
}

#[test]
fn the_annotation_of_somebody_else_is_no_pin() {
    for owner in [Owner::Other, external_secrets(), Owner::ExternalSecrets(None)] {
        assert_eq!(read(None).in_force(&annotated(owner, Some(ROOT_2))), Ok(None));
    }
}

#[test]
fn ours_is_a_pin_even_if_it_is_not_sound() {
    let Published::Present(copy) = present(Owner::Ours, Err(UNSOUND)) else { unreachable!() };
    let copy = Copy { annotated_root: Some(Ok(ROOT_2)), ..Copy::clone(&copy) };
    let pin = ReadPin::default().in_force(&Published::Present(Arc::new(copy))).unwrap();
    assert_eq!(pin.map(|pin| pin.root), Some(ROOT_2));
}

#[test]
fn an_annotation_of_ours_that_cannot_be_read_is_never_no_pin() {
    let published = annotated_as(Owner::Ours, Some("x".parse()));
    let held = ReadPin::default().in_force(&published).unwrap_err();
    assert_eq!(held.reason, Reason::RootChanged);
    assert_fit_for_users(&held.sentence());
}

#[test]
fn the_signers_of_a_state_are_the_latest_and_those_of_another_state_are_forgotten() {
    let state = |byte: u8| Sha256([byte; 32]).to_string().parse().unwrap();
    let of = |bytes: &[u8]| bytes.iter().map(|byte| Sha256([*byte; 32])).collect::<Vec<_>>();
    let with =
        |before: Option<&PublishedSigners>, at, signer| PublishedSigners::with(before, state(at), Sha256([signer; 32]));
    let first = with(None, 1, 7);
    assert_eq!(first, PublishedSigners { state: state(1), sha256: of(&[7]) });
    let second = with(Some(&first), 1, 8);
    assert_eq!(second.sha256, of(&[7, 8]));
    assert_eq!(with(Some(&second), 1, 7).sha256, of(&[8, 7]), "each once");
    assert_eq!(with(Some(&second), 2, 9), PublishedSigners { state: state(2), sha256: of(&[9]) });
    let many = (0..40).fold(first, |before, signer| with(Some(&before), 1, signer));
    assert_eq!(many.sha256, of(&(24..40).collect::<Vec<_>>()), "a bounded list");
}

#[test]
fn another_signer_is_news_to_the_pin() {
    let with = |signer| Pin {
        verified_at: Some(Timestamp::UNIX_EPOCH),
        signers: Some(PublishedSigners::with(None, Sha256([1; 32]).to_string().parse().unwrap(), Sha256([signer; 32]))),
        ..Pin::of(Sha256([2; 32]))
    };
    let hour = SignedDuration::from_hours(1);
    assert_eq!(with(7).is_news_to(Some(&with(7)), hour), News::None);
    assert_eq!(with(8).is_news_to(Some(&with(7)), hour), News::All);
}
