#![allow(clippy::unwrap_used)]

use super::super::line::Outcome::{self, Failed, Note, Ok as Fine, Skipped, Warning};
use super::super::look::Look;
use super::super::samples::{allowed, asked, expect, told};
use super::*;
use crate::ca::fixtures::now;
use crate::reason::{ByItself, Held};

fn line(told: &Told, asked: &Asked, id: &str) -> Line {
    lines(told, asked).into_iter().find(|line| line.id == id).unwrap()
}

fn of_sync(told: &Told, id: &str) -> Line {
    line(told, &asked(Role::Sync), id)
}

#[test]
fn a_missing_mount_is_told_apart_from_one_of_another_kind() {
    let with = |mount| Told { auth_mount: Look::Seen(mount), ..told(Role::Sync) };
    expect(&of_sync(&with(AuthMount::AsksForRole), "vault-auth-mount"), Fine, "takes logins");
    expect(&of_sync(&with(AuthMount::Other("status 405".to_owned())), "vault-auth-mount"), Warning, "status 405");
    let missing = of_sync(&with(AuthMount::Missing), "vault-auth-mount");
    expect(&missing, Failed, "no auth method");
    assert_eq!(missing.reason, Some(Reason::VaultLoginDenied));
}

#[test]
fn what_does_not_fit_of_the_tokens_claims_is_named() {
    let with = |change: &dyn Fn(&mut Claims)| {
        let mut told = told(Role::Sync);
        if let Look::Seen(claims) = &mut told.claims {
            change(claims);
        }
        of_sync(&told, "vault-jwt")
    };
    expect(&with(&|_| ()), Fine, "audience vault, until 2027-01-01T01:00Z");
    expect(&with(&|claims| claims.expires = None), Fine, "without end");
    expect(&with(&|claims| claims.expires = Some(now())), Failed, "expired at 2027-01-01T00:00Z");
    expect(&with(&|claims| claims.audiences = vec!["api".to_owned()]), Warning, "for audience api and not vault");
    let other = "system:serviceaccount:istio-system:default";
    expect(
        &with(&|claims| claims.subject = other.to_owned()),
        Warning,
        "and not of system:serviceaccount:istio-system:istio-ca-sync",
    );
}

#[test]
fn a_token_that_cannot_be_read_and_a_login_that_is_refused_say_why() {
    let what = "Vault denies the login (permission denied)";
    let held = Held::new(Reason::VaultLoginDenied, what, "check the mount", ByItself::Unsaid);
    let unread =
        Told { claims: Look::Failed(held.clone()), login: Look::Skipped("vault-jwt failed"), ..told(Role::Sync) };
    expect(&of_sync(&unread, "vault-jwt"), Failed, "permission denied");
    expect(&of_sync(&unread, "vault-login"), Skipped, "vault-jwt failed");
    let refused = Told { login: Look::Failed(held), ..told(Role::Sync) };
    let line = of_sync(&refused, "vault-login");
    expect(&line, Failed, "permission denied");
    assert_eq!(line.next.as_deref(), Some("check the mount"));
}

#[test]
fn with_a_token_of_the_askers_nothing_is_said_of_the_gates() {
    let own = Told {
        claims: Look::Absent,
        auth_mount: Look::Absent,
        login: Look::Seen(("https://vault.example".to_owned(), None)),
        token_end: Look::Seen("2026-12-30T07:13:21Z".parse().unwrap()),
        rights: Look::Seen([("secret/data/istio/ca".to_owned(), vec!["root".to_owned()])].into()),
        ..told(Role::Sync)
    };
    let asked = Asked { own_token: true, ..asked(Role::Sync) };
    for line in lines(&own, &asked) {
        assert_eq!(line.outcome, Note, "{line:?}");
    }
    expect(&line(&own, &asked, "vault-login"), Note, "it ends at 2026-12-30T07:13Z");
    expect(&line(&own, &asked, "vault-rights"), Note, "the asker's, not the gate's");
}

/// The verdict on a role that may do this to the record, and that to its history.
fn rights_of(role: Role, data: &[&str], metadata: &[&str]) -> Line {
    let strings = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    let mut rights = allowed(role);
    rights.insert("secret/data/istio/ca".to_owned(), strings(data));
    rights.insert("secret/metadata/istio/ca".to_owned(), strings(metadata));
    line(&Told { rights: Look::Seen(rights), ..told(role) }, &asked(role), "vault-rights")
}

#[test]
fn each_role_is_held_to_what_it_needs_and_to_no_more() {
    type Case = (Role, &'static [&'static str], &'static [&'static str], Outcome, &'static str);
    let cases: &[Case] = &[
        (Role::Sync, &["read"], &["deny"], Fine, "what role sync needs, and no more"),
        (Role::Sync, &["read", "list", "subscribe"], &["read", "list"], Fine, "no more"),
        (Role::Sync, &["deny"], &["deny"], Failed, "lacks read on secret/data/istio/ca"),
        (Role::Sync, &["create", "read"], &["deny"], Warning, "create on secret/data/istio/ca"),
        (Role::Sync, &["read", "sudo"], &["deny"], Warning, "sudo on secret/data/istio/ca"),
        (Role::Bootstrap, &["create", "read"], &["deny"], Fine, "no more"),
        (Role::Bootstrap, &["read"], &["deny"], Failed, "lacks create"),
        (
            Role::Bootstrap,
            &["create", "patch", "read", "update"],
            &["deny"],
            Warning,
            "patch, update on secret/data/istio/ca",
        ),
        (
            Role::Bootstrap,
            &["create", "read"],
            &["create", "delete"],
            Warning,
            "create, delete on secret/metadata/istio/ca",
        ),
        (
            Role::Bootstrap,
            &["root"],
            &["root"],
            Warning,
            "root on secret/data/istio/ca; root on secret/metadata/istio/ca",
        ),
    ];
    for (role, data, metadata, outcome, says) in cases {
        expect(&rights_of(*role, data, metadata), *outcome, says);
    }
    assert_eq!(rights_of(Role::Sync, &[], &[]).reason, Some(Reason::VaultPermissionDenied));
}

#[test]
fn rights_that_are_not_told_are_no_failure() {
    let silent =
        Told { rights: Look::Forbidden("no right to update sys/capabilities-self".to_owned()), ..told(Role::Sync) };
    expect(&of_sync(&silent, "vault-rights"), Note, "may not be looked at: no right to update sys/capabilities-self");
}

#[test]
fn a_token_that_lives_on_is_told_of_and_only_then() {
    assert!(lines(&told(Role::Sync), &asked(Role::Sync)).iter().all(|line| line.id != "vault-logout"));
    let held =
        Held::new(Reason::VaultUnreachable, "giving the token up gave status 403", "check", ByItself::TriedAgain);
    let lives = Told { given_up: Look::Failed(held), ..told(Role::Sync) };
    expect(&of_sync(&lives, "vault-logout"), Warning, "status 403");
}
