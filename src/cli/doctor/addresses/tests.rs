#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rcgen::CertificateParams;

use super::super::line::Outcome::{Failed, Ok as Fine, Skipped, Warning};
use super::super::samples::{address, asked, expect, health};
use super::*;
use crate::ca::fixtures::{HOUR, NOW};
use crate::ca::issue::set_validity;
use crate::plan::Role;

fn lines_of(addresses: &[Address]) -> Vec<Line> {
    lines(addresses, &asked(Role::Sync))
}

fn reached(reach: Reach, way: Way) -> Address {
    Address { reach, way, health: None, ..address("https://vault.example:8200") }
}

fn with(health: Result<Health, Silent>) -> Address {
    Address { health: Some(health), ..address("https://vault.example:8200") }
}

fn silent(connecting: bool, what: &str) -> Address {
    with(Err(Silent { connecting, what: what.to_owned() }))
}

#[test]
fn each_way_not_to_reach_an_address_is_told_apart() {
    let mesh = Way::MeshOnly("vault/vault-vault-nas".to_owned());
    for (address, says) in [
        (reached(Reach::NotTried, mesh), "through the mesh only (ServiceEntry vault/vault-vault-nas"),
        (reached(Reach::Unresolved("no such host".to_owned()), Way::Direct), "does not resolve here: no such host"),
        (reached(Reach::Unresolved("no such host".to_owned()), Way::Unknown), "a name of the cluster's DNS"),
        (reached(Reach::Refused("10.0.0.1:8200: refused".to_owned()), Way::Direct), "no connection to 10.0.0.1:8200"),
    ] {
        let lines = lines_of(&[address]);
        expect(&lines[0], Failed, says);
        assert_eq!(lines[0].reason, Some(Reason::VaultUnreachable));
        assert!(lines[1..].iter().all(|line| line.outcome == Skipped), "{lines:?}");
    }
}

#[test]
fn beside_an_address_that_works_another_one_is_only_warned_of() {
    let mesh = reached(Reach::NotTried, Way::MeshOnly("vault/x".to_owned()));
    for addresses in [
        [address("https://vault.example:8200"), mesh.clone()],
        [mesh, address("https://vault.example:8200")],
        [address("https://vault.example:8200"), silent(true, "its certificate has expired")],
    ] {
        let lines = lines_of(&addresses);
        assert!(lines.iter().any(|line| line.outcome == Warning), "{lines:?}");
        assert!(lines.iter().all(|line| line.outcome != Failed), "{lines:?}");
    }
}

#[test]
fn each_failure_of_tls_has_its_own_next_step() {
    for (what, next) in [
        ("its certificate is from an unknown CA: UnknownIssuer", "--vault-ca-cert"),
        ("its certificate is invalid: BadSignature", "--vault-ca-cert"),
        ("its certificate is for another name", "issued for vault.example"),
        ("its certificate is itself a CA's: CaUsedAsEndEntity", "CA:FALSE -addext subjectAltName=DNS:vault.example"),
        ("its certificate has expired", "renew"),
        ("its certificate is not valid yet", "clock"),
        ("received corrupt message of type InvalidContentType", "TLS 1.2"),
    ] {
        let lines = lines_of(&[silent(true, what)]);
        expect(&lines[1], Failed, what);
        assert!(lines[1].next.as_ref().unwrap().contains(next), "{:?}", lines[1]);
        expect(&lines[2], Skipped, "vault-tls");
    }
}

#[test]
fn a_certificate_that_ends_soon_and_plain_http_are_warned_of() {
    let ending = |hours: i64| {
        let mut params = CertificateParams::default();
        set_validity(&mut params, NOW - HOUR, NOW + hours * HOUR);
        let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let address = with(Ok(Health { certificate: Some(der), ..health(200, "one") }));
        lines_of(&[address])[1].clone()
    };
    expect(&ending(13 * 24), Warning, "ends in 13 days, on 2027-01-14");
    expect(&ending(15 * 24), Fine, "until 2027-01-16");
    expect(&lines_of(&[address("http://vault.example:8200")])[1], Warning, "in the clear");
}

#[test]
fn each_state_of_vault_is_told_apart() {
    for (status, outcome, says, reason) in [
        (200, Fine, "active, version 1.21.1, cluster vault, cluster_id one", None),
        (429, Fine, "passes requests on", None),
        (473, Fine, "answers reads by itself, and was in touch with the active node 1 s ago", None),
        (472, Failed, "disaster-recovery", Some(Reason::VaultUnreachable)),
        (501, Failed, "not initialised", Some(Reason::VaultSealed)),
        (503, Failed, "sealed", Some(Reason::VaultSealed)),
        (500, Failed, "status 500", Some(Reason::VaultUnreachable)),
    ] {
        let line = &lines_of(&[with(Ok(health(status, "one")))])[2];
        expect(line, outcome, says);
        assert_eq!(line.reason, reason);
    }
    for (node, says) in [
        (Node::Reads { heard: None }, "what it says does not count"),
        (Node::Reads { heard: Some(Duration::from_secs(31)) }, "what it says does not count"),
        (Node::CutOff, "has lost the active node"),
    ] {
        let line = &lines_of(&[with(Ok(Health { node, ..health(429, "one") }))])[2];
        expect(line, Failed, says);
        assert_eq!(line.reason, Some(Reason::VaultUnreachable));
    }
    let lines = lines_of(&[silent(false, "status 200, with a body that is not Vault's")]);
    expect(&lines[1], Fine, "trusted");
    expect(&lines[2], Failed, "does not answer as Vault does");
}

#[test]
fn a_clock_that_is_off_fails_with_the_one_that_is_wrong() {
    let (none, day) = (SignedDuration::ZERO, SignedDuration::from_hours(24));
    let at = |ahead| [with(Ok(Health { ahead, ..health(200, "one") }))];
    expect(&clock(&at(Some(none)), Some(none)), Fine, "Vault's and the API server's");
    expect(&clock(&at(None), None), Skipped, "tells the time");
    let line = clock(&at(Some(day)), Some(none));
    expect(&line, Failed, "Vault's clock is ahead");
    assert_eq!(line.reason, Some(Reason::ClockWrong));
}

#[test]
fn two_vaults_and_one_that_does_not_tell_are_no_one_vault() {
    let one = |addresses: &[Address]| lines_of(addresses).into_iter().find(|line| line.id == "vault-one");
    assert_eq!(one(&[address("https://a.example")]), None);
    let other = Address { health: Some(Ok(health(200, "two"))), ..address("https://b.example") };
    let ambiguous = one(&[address("https://a.example"), other]).unwrap();
    expect(&ambiguous, Failed, "https://a.example has cluster_id one, https://b.example has two");
    assert_eq!(ambiguous.reason, Some(Reason::VaultAmbiguous));
    let sealed = Address { health: Some(Ok(health(503, ""))), ..address("https://b.example") };
    expect(&one(&[address("https://a.example"), sealed.clone()]).unwrap(), Warning, "may be another one");
    expect(&one(&[sealed.clone(), sealed]).unwrap(), Skipped, "no address tells");
    let silent = silent(true, "refused");
    let two = [address("https://a.example"), silent.clone()];
    expect(&one(&two).unwrap(), Fine, "1 of 2 answer");
    // It may have the root.
    let to_bootstrap = |addresses: &[Address]| {
        lines(addresses, &asked(Role::Bootstrap)).into_iter().find(|line| line.id == "vault-one").unwrap()
    };
    let line = to_bootstrap(&two);
    expect(&line, Warning, "may be another one");
    assert!(line.next.unwrap().contains("--vault-gone https://vault.example:8200"));
    expect(&to_bootstrap(&[address("https://a.example"), Address { gone: true, ..silent }]), Fine, "1 of 2 answer");
}
