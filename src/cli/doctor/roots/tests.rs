use super::super::line::Outcome::{Failed, Note, Ok as Fine, Warning};
use super::super::look::Look;
use super::super::samples::{asked, cluster, expect};
use super::*;
use crate::plan::Role;
use crate::samples::{BOTH, R1, R2, stored};

fn own_of(own_root: Look<Option<Glance>>, served_root: Look<Option<Glance>>) -> Line {
    own(&Cluster { own_root, served_root, ..cluster() }, &asked(Role::Sync))
}

#[test]
fn a_root_of_istiods_own_fails_only_where_the_mesh_has_it() {
    let r2 = || Look::Seen(Some(R2.glance.clone()));
    expect(&own_of(Look::Absent, r2()), Fine, "not there");
    let split = own_of(r2(), r2());
    expect(&split, Failed, "it is split from the other clusters");
    assert_eq!(split.reason, Some(Reason::RootChanged));
    for served in [Look::Seen(Some(R1.glance.clone())), Look::Absent, Look::Seen(None)] {
        expect(&own_of(r2(), served), Warning, "once made a root of its own");
    }
    expect(&own_of(Look::Seen(None), r2()), Warning, "once made a root of its own");
    expect(&own_of(Look::Forbidden("no right".to_owned()), r2()), Note, "may not be looked at: no right");
}

fn served_of(served_root: Look<Option<Glance>>, other: Cluster) -> Line {
    served(&Cluster { served_root, ..other }, Some(&stored(&R1)), &asked(Role::Sync))
}

#[test]
fn the_mesh_has_the_root_of_cacerts_or_is_split() {
    expect(&served_of(Look::Seen(Some(R1.glance.clone())), cluster()), Fine, "the root of cacerts");
    expect(&served_of(Look::Seen(Some(R2.glance.clone())), cluster()), Failed, "and not that of cacerts");
    expect(&served_of(Look::Seen(Some(BOTH.glance.clone())), cluster()), Warning, "or more than those");
    expect(&served_of(Look::Seen(None), cluster()), Failed, "no certificate that can be read");
    expect(&served_of(Look::Absent, cluster()), Note, "has not run here yet");
}

#[test]
fn without_cacerts_it_is_compared_with_vault_and_without_either_with_nothing() {
    let none = || Cluster { cacerts: Look::Absent, ..cluster() };
    let other = served_of(Look::Seen(Some(R2.glance.clone())), none());
    expect(&other, Failed, "another one would split it");
    assert_eq!(other.reason, Some(Reason::MeshOnOtherRoot));
    expect(&served_of(Look::Seen(Some(R1.glance.clone())), none()), Fine, "the root of Vault");
    let before = served(&none(), Some(&Stored::Absent), &asked(Role::Bootstrap));
    expect(&before, Failed, "another one would split it");
    let line = served(&none(), None, &asked(Role::Sync));
    expect(&line, Note, "not compared");
}

#[test]
fn a_mesh_on_a_root_that_vault_does_not_have_is_found_before_anything_is_installed() {
    let before = Asked { pre: true, ..asked(Role::Bootstrap) };
    let fresh = |served_root| Cluster { served_root, cacerts: Look::Absent, ..cluster() };
    let mesh = fresh(Look::Seen(Some(R2.glance.clone())));
    for stored in [stored(&R1), Stored::Absent] {
        let line = served(&mesh, Some(&stored), &before);
        expect(&line, Failed, "another one would split it");
        assert!(line.next.is_some_and(|next| next.contains("delete configmap istio-ca-root-cert")));
    }
    expect(&served(&fresh(Look::Absent), Some(&Stored::Absent), &before), Note, "has not run here yet");
    expect(
        &served(&fresh(Look::Seen(Some(R1.glance.clone()))), Some(&stored(&R1)), &before),
        Fine,
        "the root of Vault",
    );
}
